//! Go's way of reading and quoting, where Hubble's error texts show it.

/// Go's `%q`.
pub(super) fn quote(text: &str) -> String {
    // Writing to a String cannot fail.
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
            {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `strconv.ParseUint(text, 10, bits)` with its error text.
pub(super) fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    let fail = |why: &str| Err(format!("strconv.ParseUint: parsing {}: {why}", quote(text)));
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return fail("invalid syntax");
    }
    match text.parse::<u64>() {
        Ok(n) if bits >= 64 || n >> bits == 0 => Ok(n),
        _ => fail("value out of range"),
    }
}

/// Go's `strconv.ParseUint(text, 0, 32)`: `0x2`, `017` = 15, `0b10`, `1_0`.
pub(super) fn parse_literal(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between digits, or between the base's prefix and a digit.
    let prefixed = digits.len() < lower.len();
    let mut previous_is_digit = prefixed;
    for c in digits.chars() {
        match c {
            '_' if previous_is_digit => previous_is_digit = false,
            c if c.is_digit(radix) => previous_is_digit = true,
            _ => return None,
        }
    }
    if digits.is_empty() || digits.ends_with('_') {
        return None;
    }
    u32::from_str_radix(&digits.replace('_', ""), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_as_go_reads_them() {
        for (text, value) in [
            ("12", Some(12)),
            ("0", Some(0)),
            ("0x2", Some(2)),
            ("017", Some(15)),
            ("0o17", Some(15)),
            ("0b10", Some(2)),
            ("1_0", Some(10)),
            ("0x_f", Some(15)),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("", None),
            ("0x", None),
            ("08", None),
            ("+1", None),
            ("4294967296", None),
        ] {
            assert_eq!(parse_literal(text), value, "{text}");
        }
    }

    #[test]
    fn numbers_fail_with_gos_words() {
        assert_eq!(parse_uint("65535", 16), Ok(65535));
        assert_eq!(
            parse_uint("65536", 16).unwrap_err(),
            r#"strconv.ParseUint: parsing "65536": value out of range"#
        );
        assert_eq!(parse_uint("+1", 16).unwrap_err(), r#"strconv.ParseUint: parsing "+1": invalid syntax"#);
        assert_eq!(quote("a\"\u{1}\u{2028}"), r#""a\"\x01\u2028""#);
    }
}

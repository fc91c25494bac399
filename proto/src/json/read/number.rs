//! Numbers of JSON as those of protobuf. An integer may be written with an exponent or a fraction, if it is one.

use super::cursor::number_length;

/// The number in a string: it may have no blanks around it, but as for Go something may follow it.
pub(super) fn within(text: &[u8]) -> Option<&[u8]> {
    let is_trimmed = std::str::from_utf8(text).is_ok_and(|text| text.trim().len() == text.len());
    text.get(..number_length(text)?).filter(|_| is_trimmed)
}

pub(super) fn signed(digits: &[u8]) -> Option<i64> {
    match digits.strip_prefix(b"-") {
        None => i64::try_from(magnitude(digits)?).ok(),
        Some(digits) => 0_i64.checked_sub_unsigned(magnitude(digits)?),
    }
}

pub(super) fn unsigned(digits: &[u8]) -> Option<u64> {
    match digits.strip_prefix(b"-") {
        None => magnitude(digits),
        Some(digits) => magnitude(digits).filter(|number| *number == 0),
    }
}

pub(super) fn float(digits: &[u8]) -> Option<f64> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

fn magnitude(digits: &[u8]) -> Option<u64> {
    if digits.len() < 20 && digits.iter().all(u8::is_ascii_digit) {
        return Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
    }
    let (mantissa, exponent) = match digits.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &b""[..]),
    };
    let whole = whole.strip_prefix(b"0").unwrap_or(whole);
    let fraction = &fraction[..fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |at| at + 1)];
    if matches!(exponent, b"+" | b"-") {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let exponent: i32 = match exponent {
        b"" => 0,
        text => std::str::from_utf8(text).ok()?.parse().ok()?,
    };
    let (digits, zeros) = if let Ok(exponent) = usize::try_from(exponent) {
        (([whole, fraction]).concat(), exponent.checked_sub(fraction.len())?)
    } else {
        let left = whole.len().checked_sub(exponent.unsigned_abs() as usize)?;
        if !fraction.is_empty() || whole[left..].iter().any(|digit| *digit != b'0') {
            return None;
        }
        (whole[..left].to_vec(), 0)
    };
    // 2^64 has 20 digits.
    if digits.len() + zeros > 20 {
        return None;
    }
    let number = digits.iter().map(|digit| digit - b'0').chain(std::iter::repeat_n(0, zeros));
    number.into_iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(digit.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_every_spelling() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0.000e99999999999", Some(0)),
            ("-12", Some(-12)),
            ("1e3", Some(1000)),
            ("1e", Some(1)),
            ("0e+", None),
            ("1.50e1", Some(15)),
            ("1.5", None),
            ("1500e-2", Some(15)),
            ("1500e-3", None),
            ("1e-1", None),
            ("0.5e1", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1e19", None),
            ("1e99", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(signed(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"18446744073709551616"), None);
        assert_eq!(unsigned(b"-1"), None);
        assert_eq!(unsigned(b"-0.0"), Some(0));
    }

    #[test]
    fn numbers_in_strings() {
        for (text, expected) in [
            ("12", Some("12")),
            ("12 x", Some("12")),
            (" 12", None),
            ("12\u{a0}", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(within(text.as_bytes()), expected.map(str::as_bytes), "{text:?}");
        }
    }
}

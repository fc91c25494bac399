//! JSON text of strings, bytes and numbers, as Go's encoders print it.

use super::WriteError;
use std::io::Write as _;

/// Bytes that can't stand in a JSON string as they are: controls, quote, backslash, and `<`, `>`, `&`, which Go
/// escapes for HTML. 0xe2 starts U+2028 and U+2029, which it escapes for JavaScript.
#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

/// Whether any byte of a text is one of `bytes`, or a control character. Eight bytes at once.
#[inline]
pub(super) fn any_of<const N: usize>(bytes: [u8; N], text: &[u8]) -> bool {
    any_word(text, |word| {
        bytes.iter().fold(below(b' ', word), |found, byte| found | zeros(word ^ (u64::from(*byte) * ONES)))
    })
}

/// Whether `found` sets a high bit for any eight bytes of a text; blanks fill up what is shorter. It may set some beside a bit
/// that it has to set, never without one.
#[inline]
pub(crate) fn any_word(text: &[u8], found: impl Fn(u64) -> u64) -> bool {
    let found = match (text.last_chunk(), text.first_chunk(), text.last_chunk()) {
        // The last word may overlap the one before it.
        (Some(last), ..) => text
            .as_chunks()
            .0
            .iter()
            .fold(found(u64::from_le_bytes(*last)), |all, word| all | found(u64::from_le_bytes(*word))),
        (None, Some(first), Some(last)) => {
            found(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
        }
        _ => found(text.iter().fold(u64::from(b' ') * ONES, |word, byte| word << 8 | u64::from(*byte))),
    };
    found & HIGH != 0
}

/// One in each byte of a word.
pub(crate) const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each.
pub(super) const HIGH: u64 = 0x80 * ONES;

/// The high bit of every byte that is zero is set in it, and perhaps those of some behind the first such.
#[inline]
pub(crate) fn zeros(word: u64) -> u64 {
    below(1, word)
}

/// The same of every ASCII byte below `least`, which is ASCII.
#[inline]
pub(crate) fn below(least: u8, word: u64) -> u64 {
    word.wrapping_sub(u64::from(least) * ONES) & !word
}

/// A string with its quotes. Not UTF-8 is an error, as it is for Go's protobuf.
pub(super) fn string(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    let text = std::str::from_utf8(bytes).map_err(|_| WriteError::Utf8)?;
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
    Ok(())
}

/// Appends what stands between the quotes of a string.
pub fn escaped(text: &str, out: &mut Vec<u8>) {
    let text = text.as_bytes();
    if !any_of([b'"', b'\\', b'<', b'>', b'&', 0xe2], text) {
        return out.extend_from_slice(text);
    }
    let mut clean = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !is_special(byte) {
            continue;
        }
        let (width, escaped): (usize, &[u8]) = match byte {
            b'"' => (1, b"\\\""),
            b'\\' => (1, b"\\\\"),
            b'\n' => (1, b"\\n"),
            b'\r' => (1, b"\\r"),
            b'\t' => (1, b"\\t"),
            0x08 => (1, b"\\b"),
            0x0c => (1, b"\\f"),
            0xe2 => match text.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (3, b"\\u2028"),
                Some([0x80, 0xa9]) => (3, b"\\u2029"),
                _ => continue,
            },
            _ => (1, b""),
        };
        out.extend_from_slice(&text[clean..at]);
        if escaped.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escaped);
        }
        clean = at + width;
    }
    out.extend_from_slice(&text[clean..]);
}

/// Bytes as a base64 string (RFC 4648 4, with padding).
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > chunk.len() { b'=' } else { letter });
        }
    }
    out.push(b'"');
}

/// Appends a decimal number.
pub fn unsigned(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(digits_of(value, &mut [0; 20]));
}

/// The decimal digits of a number, at the end of the room: 2^64 has 20.
pub(crate) fn digits_of(mut value: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &room[at..];
        }
    }
}

/// The last decimal digits of a number, as many as there is room for, zeros in front.
pub(crate) fn digits(mut value: u64, room: &mut [u8]) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// A decimal number.
pub(super) fn signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    unsigned(value.unsigned_abs(), out);
}

/// Appends a double as ECMAScript 6 prints it, but with Go's `-0`; what is no number as a string.
pub fn double(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    if value.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        exponent(&format!("{value:e}"), out);
    } else {
        plain(value, &value, out);
    }
}

/// As [`double`], with the digits that a float needs.
pub(super) fn float(value: f32, out: &mut Vec<u8>) {
    let size = value.abs();
    if value.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        exponent(&format!("{value:e}"), out);
    } else {
        plain(f64::from(value), &value, out);
    }
}

fn exponent(text: &str, out: &mut Vec<u8>) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    out.extend_from_slice(digits.as_bytes());
    out.push(b'e');
    if !exponent.starts_with('-') {
        out.push(b'+');
    }
    out.extend_from_slice(exponent.as_bytes());
}

fn plain(value: f64, text: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        // Writing to a vector can't fail.
        let _ = write!(out, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does_it() {
        for (text, expected) in [
            ("a", r#""a""#),
            ("a & b <c>", r#""a \u0026 b \u003cc\u003e""#),
            ("\"\\\n\r\t\u{8}\u{c}\u{1b}\u{0}\u{7f}", "\"\\\"\\\\\\n\\r\\t\\b\\f\\u001b\\u0000\u{7f}\""),
            ("\u{2028}x\u{2029}\u{2027}é€", "\"\\u2028x\\u2029\u{2027}é€\""),
        ] {
            assert_eq!(made(|out| string(text.as_bytes(), out).unwrap()), expected);
        }
        assert!(string(b"\xff", &mut Vec::new()).is_err());
        assert!(string(b"\xe2\x80", &mut Vec::new()).is_err());
    }

    #[test]
    fn each_byte_of_a_text_of_any_length_is_looked_at() {
        for length in 0..30 {
            let plain = vec![b'x'; length];
            assert!(!any_of([b'"'], &plain));
            for at in 0..length {
                for found in [b'"', 0x1f] {
                    let mut text = plain.clone();
                    text[at] = found;
                    assert!(any_of([b'"'], &text), "{at} of {length}");
                }
            }
        }
    }

    #[test]
    fn doubles() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (37.126, "37.126"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(made(|out| double(value, out)), expected);
        }
        assert_eq!(made(|out| float(0.1, out)), "0.1");
        assert_eq!(made(|out| float(1e-7, out)), "1e-7");
    }

    #[test]
    fn numbers_and_bytes() {
        assert_eq!(made(|out| unsigned(u64::MAX, out)), u64::MAX.to_string());
        assert_eq!(made(|out| signed(i64::MIN, out)), i64::MIN.to_string());
        assert_eq!(made(|out| unsigned(0, out)), "0");
        for (bytes, expected) in [
            (&b""[..], "\"\""),
            (b"f", "\"Zg==\""),
            (b"fo", "\"Zm8=\""),
            (b"foo", "\"Zm9v\""),
            (b"\xff\xfe\xfd\xfc", "\"//79/A==\""),
        ] {
            assert_eq!(made(|out| base64(bytes, out)), expected);
        }
    }
}

//! JSON text, token by token. What is JSON and what is not decides Go's protojson, which Hubble reads with.

use super::{
    super::{
        escape::{HIGH, ONES, zeros},
        words::begins_with,
    },
    ReadError,
};
use memchr::{memchr2, memchr3};
use std::borrow::Cow;

/// How deep arrays and objects may nest in a value that is passed over.
const MAX_SKIPPED_DEPTH: u32 = 128;

/// A place in a text, which is UTF-8.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    /// What was not taken yet.
    rest: &'a [u8],
    /// Whether nothing was met yet that a writer would write in another way.
    pub(super) is_as_written: bool,
    /// Whether that is looked at.
    pub(super) tells_as_written: bool,
}

impl<'a> Cursor<'a> {
    /// At the start of a text; whether somebody asks in which way it is written.
    pub(super) fn new(text: &'a [u8], tells_as_written: bool) -> Result<Self, ReadError> {
        let mut cursor = Self { text, rest: text, is_as_written: false, tells_as_written };
        std::str::from_utf8(text).map_err(|error| cursor.error_at(error.valid_up_to(), "not UTF-8"))?;
        // What a writer escapes, and how.
        cursor.is_as_written = tells_as_written
            && memchr3(b'<', b'>', b'&', text).is_none()
            && memchr2(b'\\', 0xe2, text).is_none();
        Ok(cursor)
    }

    pub(super) fn position(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes so many bytes, which must be there and whole tokens.
    pub(super) fn pass(&mut self, length: usize) {
        self.rest = &self.rest[length..];
    }

    /// An error at this place.
    pub(super) fn error(&self, what: impl Into<String>) -> ReadError {
        self.error_at(self.position(), what)
    }

    pub(super) fn error_at(&self, at: usize, what: impl Into<String>) -> ReadError {
        let before = self.text.get(..at).unwrap_or(self.text);
        ReadError { column: String::from_utf8_lossy(before).chars().count() + 1, what: what.into() }
    }

    fn unexpected(&self) -> ReadError {
        match String::from_utf8_lossy(self.rest).chars().next() {
            Some(next) => self.error(format!("unexpected {next:?}")),
            None => self.error("the text ends too early"),
        }
    }

    /// The next byte that is no blank.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        match self.rest.first() {
            Some(next) if *next > b' ' => Some(*next),
            _ => self.after_blanks(),
        }
    }

    #[cold]
    fn after_blanks(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
            self.is_as_written = false;
        }
        self.rest.first().copied()
    }

    /// Takes this byte, if it is the next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        if self.peek() != Some(byte) {
            return false;
        }
        self.rest = &self.rest[1..];
        true
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), ReadError> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// After a value in an object or array: whether another follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, ReadError> {
        let next = self.peek();
        if next != Some(b',') && next != Some(close) {
            return Err(self.unexpected());
        }
        self.rest = &self.rest[1..];
        Ok(next == Some(b','))
    }

    /// Takes `"name":`, if it is what comes next.
    #[inline]
    pub(super) fn key(&mut self, key: &[u8]) -> bool {
        let found = begins_with(self.rest, key);
        self.rest = &self.rest[if found { key.len() } else { 0 }..];
        found
    }

    /// Takes a string that has no escapes, if it is what comes next.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.strip_prefix(b"\"")?;
        let (text, rest) = text.split_at(plain(text));
        self.rest = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// Takes a number of at most nine digits, if it is what comes next.
    #[inline]
    pub(super) fn short_number(&mut self) -> Option<u32> {
        let text = self.rest;
        let mut number = 0;
        for (at, byte) in text.iter().take(10).enumerate() {
            match byte {
                b'0'..=b'9' if at < 9 => number = number * 10 + u32::from(byte - b'0'),
                b',' | b'}' | b']' if at > 0 && (text[0] != b'0' || at == 1) => {
                    self.rest = &text[at..];
                    return Some(number);
                }
                _ => return None,
            }
        }
        None
    }

    /// A field's name and the colon after it.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Cow<'a, [u8]>, ReadError> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// A string without its quotes and escapes.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, ReadError> {
        match self.plain_string() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.other_string(),
        }
    }

    /// One that has escapes, or stands behind blanks, or is none.
    fn other_string(&mut self) -> Result<Cow<'a, [u8]>, ReadError> {
        self.expect(b'"')?;
        let clean = self.take_plain();
        if let [b'"', rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(Cow::Borrowed(clean));
        }
        self.escaped_string(clean.to_vec()).map(Cow::Owned)
    }

    fn escaped_string(&mut self, mut out: Vec<u8>) -> Result<Vec<u8>, ReadError> {
        loop {
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(out);
                }
                [b'\\', ..] => self.escape(&mut out)?,
                // A control character.
                _ => return Err(self.unexpected()),
            }
            out.extend_from_slice(self.take_plain());
        }
    }

    /// Takes what stands in a string as it is.
    fn take_plain(&mut self) -> &'a [u8] {
        let (clean, rest) = self.rest.split_at(plain(self.rest));
        self.rest = rest;
        clean
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let bad = |cursor: &Self| cursor.error("an escape that JSON has not");
        let letter = self.rest.get(1).copied();
        let plain = match letter {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = self.unit().ok_or_else(|| bad(self))?;
                if (0xd800..0xe000).contains(&code) {
                    let low = self.unit().filter(|low| (0xdc00..0xe000).contains(low));
                    let low = low.filter(|_| code < 0xdc00).ok_or_else(|| bad(self))?;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let found = char::from_u32(code).ok_or_else(|| bad(self))?;
                out.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(bad(self)),
        };
        out.push(plain);
        self.rest = &self.rest[2..];
        Ok(())
    }

    /// Takes `\u1234`, if it is what comes next; its number.
    fn unit(&mut self) -> Option<u32> {
        let (unit, rest) = self.rest.split_first_chunk::<6>()?;
        let digits = unit.strip_prefix(b"\\u")?;
        let code =
            digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))?;
        self.rest = rest;
        Some(code)
    }

    /// Takes `null`, `true` or `false`, if it is the next.
    #[inline]
    pub(super) fn word(&mut self, word: &[u8]) -> bool {
        self.peek();
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        let found = rest.first().is_none_or(|next| is_delimiter(*next));
        if found {
            self.rest = rest;
        }
        found
    }

    /// A number as it is written.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a [u8], ReadError> {
        self.peek();
        let length = number_length(self.rest).ok_or_else(|| self.unexpected())?;
        let (number, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(number)
    }

    /// Passes over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), ReadError> {
        // What is open: a bit each, set for objects.
        let mut open: u128 = 0;
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(bracket @ (b'{' | b'[')) => {
                    self.rest = &self.rest[1..];
                    let is_object = bracket == b'{';
                    if !self.take(if is_object { b'}' } else { b']' }) {
                        if depth == MAX_SKIPPED_DEPTH {
                            return Err(self.error(format!("nested more than {MAX_SKIPPED_DEPTH} deep")));
                        }
                        open = open << 1 | u128::from(is_object);
                        depth += 1;
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                Some(b't' | b'f' | b'n') => {
                    if !(self.word(b"true") || self.word(b"false") || self.word(b"null")) {
                        return Err(self.unexpected());
                    }
                }
                _ => drop(self.number()?),
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = open & 1 == 1;
                if self.more(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                open >>= 1;
                depth -= 1;
            }
        }
    }
}

/// How much of a string stands as it is: up to a quote, a backslash or a control character. Eight bytes at once.
#[inline]
fn plain(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let backslash = zeros(word ^ (u64::from(b'\\') * ONES));
        // A quote, a control character, or one of the two between, which are rare.
        let low = word.wrapping_sub(0x23 * ONES) & !word;
        if (low | backslash) & HIGH == 0 {
            continue;
        }
        let quote = zeros(word ^ (u64::from(b'"') * ONES));
        let control = word.wrapping_sub(0x20 * ONES) & !word;
        let found = (quote | backslash | control) & HIGH;
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

/// Whether a number or word may end before this byte.
fn is_delimiter(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_'))
}

/// The length of the number at the start. As in Go, an exponent may lack its digits.
pub(super) fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') && text.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1 + digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) && text.len() > at + 1 {
        at += 1;
        if matches!(text[at], b'+' | b'-') {
            at += 1;
            text.get(at)?;
        }
        at += digits(at);
    }
    text.get(at).is_none_or(|next| is_delimiter(*next)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Cursor<'_> {
        Cursor::new(text.as_bytes(), true).unwrap()
    }

    #[test]
    fn numbers_are_what_go_takes_for_one() {
        for (text, length) in [
            ("0", Some(1)),
            ("-0,", Some(2)),
            ("12.50e-3}", Some(8)),
            ("1e]", Some(2)),
            ("1E+ ", Some(3)),
            ("01", None),
            ("1.", None),
            (".5", None),
            ("-", None),
            ("1e+", None),
            ("1x", None),
            ("+1", None),
        ] {
            assert_eq!(number_length(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn strings_are_unescaped() {
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""plain, and longer than eight bytes""#, Some("plain, and longer than eight bytes")),
            (r#""\"\\\/\b\f\n\r\t\u0041\u20AC\ud83d\ude00 é""#, Some("\"\\/\u{8}\u{c}\n\r\tA€😀 é")),
            (r#""\ud83d""#, None),
            (r#""\ud83d\u0041""#, None),
            (r#""\ude00\ude00""#, None),
            (r#""\x""#, None),
            (r#""\u12""#, None),
            (r#""\u+123""#, None),
            ("\"a\tb\"", None),
            ("\"open", None),
            ("\"open\\", None),
        ] {
            let found = at(text).string().ok();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_passed_over_must_be_json() {
        for good in ["[]", "{}", r#"{"a":[1,{"b":null},"x",true],"c":-1e3}x"#, "[[],[[ ]] , {} ]"] {
            let mut cursor = at(good);
            cursor.skip().unwrap_or_else(|error| panic!("{good}: {error}"));
            assert!(matches!(cursor.peek(), None | Some(b'x')), "{good}");
        }
        for bad in
            ["", "[", "[1 2]", "[1,]", r#"{"a"}"#, r#"{"a":1,}"#, "{,}", "{1:2}", "nul", "truex", "[}", "]"]
        {
            assert!(at(bad).skip().is_err(), "{bad}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(at(&deep(129)).skip().is_ok());
        assert!(at(&deep(130)).skip().is_err());
    }

    #[test]
    fn what_is_usual_has_a_short_way() {
        for (text, expected) in [
            ("0,", Some(0)),
            ("123456789}", Some(123_456_789)),
            ("7]", Some(7)),
            ("1234567890,", None),
            ("01,", None),
            ("1.0,", None),
            ("-1,", None),
            ("1 ,", None),
            ("1", None),
            (",", None),
        ] {
            assert_eq!(at(text).short_number(), expected, "{text}");
        }
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""plain, and longer than eight bytes","x""#, Some("plain, and longer than eight bytes")),
            (r#""open"#, None),
            (r#" "blank before""#, None),
            (r#""a","\n""#, Some("a")),
            (r#""a\n""#, None),
        ] {
            assert_eq!(at(text).plain_string(), expected.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_passed_over_where_serde_reads_one(text in r#"[\[\]{}",:0-9a-e.\\ntrufals -]{0,24}"#) {
            let mut cursor = at(&text);
            let ours = cursor.skip().is_ok() && cursor.peek().is_none();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // Go's exponents without digits are the one difference.
            prop_assert!(ours == theirs || ours && text.contains(['e', 'E']), "{} {}", ours, theirs);
        }
    }
}

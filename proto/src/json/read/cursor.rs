//! JSON text, token by token. What is JSON and what is not decides Go's protojson, which Hubble reads with.

use super::{
    super::escape::{HIGH, ONES, any_of, zeros},
    ReadError,
};
use std::borrow::Cow;

/// How deep arrays and objects may nest in a value that is passed over.
const MAX_SKIPPED_DEPTH: u32 = 128;

/// A place in a text, which is UTF-8.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether there is no backslash and no control character in the whole text: then a string ends at the next quote.
    is_plain: bool,
    /// Whether nothing was met yet that a writer would write in another way.
    pub(super) is_as_written: bool,
    /// Whether that is looked at.
    pub(super) tells_as_written: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let is_plain = !any_of([b'\\'], text);
        let is_as_written = is_plain && !any_of([b'<', b'>', b'&', 0xe2], text);
        Self { text, at: 0, is_plain, is_as_written, tells_as_written: true }
    }

    /// For whom the way in which the text is written makes no difference.
    pub(super) fn not_telling(text: &'a [u8]) -> Self {
        Self { text, at: 0, is_plain: !any_of([b'\\'], text), is_as_written: false, tells_as_written: false }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Takes so many bytes, which must be there and whole tokens.
    pub(super) fn pass(&mut self, length: usize) {
        self.at += length;
    }

    /// An error at this place.
    pub(super) fn error(&self, what: impl Into<String>) -> ReadError {
        self.error_at(self.at, what)
    }

    pub(super) fn error_at(&self, at: usize, what: impl Into<String>) -> ReadError {
        let before = self.text.get(..at).unwrap_or(self.text);
        ReadError { column: String::from_utf8_lossy(before).chars().count() + 1, what: what.into() }
    }

    fn unexpected(&self) -> ReadError {
        match self.text.get(self.at..).map(String::from_utf8_lossy) {
            Some(rest) if !rest.is_empty() => {
                self.error(format!("unexpected {:?}", rest.chars().next().unwrap_or_default()))
            }
            _ => self.error("the text ends too early"),
        }
    }

    /// The next byte that is no blank.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => {
                    self.at += 1;
                    self.is_as_written = false;
                }
                other => return other.copied(),
            }
        }
    }

    /// Takes this byte, if it is the next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), ReadError> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// After a value in an object or array: whether another follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, ReadError> {
        if self.take(b',') {
            return Ok(true);
        }
        self.expect(close).map(|()| false)
    }

    /// Takes `"name":`, if it is what comes next.
    #[inline]
    pub(super) fn key(&mut self, key: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(key);
        self.at += if found { key.len() } else { 0 };
        found
    }

    /// Takes a string that has no escapes, if it is what comes next.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Option<&'a [u8]> {
        let text = self.text[self.at..].strip_prefix(b"\"").filter(|_| self.is_plain)?;
        let text = &text[..quote(text)?];
        self.at += text.len() + 2;
        Some(text)
    }

    /// Takes a number of at most nine digits, if it is what comes next.
    #[inline]
    pub(super) fn short_number(&mut self) -> Option<u32> {
        let text = &self.text[self.at..];
        let mut number = 0;
        for (at, byte) in text.iter().take(10).enumerate() {
            match byte {
                b'0'..=b'9' if at < 9 => number = number * 10 + u32::from(byte - b'0'),
                b',' | b'}' | b']' if at > 0 && (text[0] != b'0' || at == 1) => {
                    self.at += at;
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
        if let Some(text) = self.plain_string() {
            return Ok(Cow::Borrowed(text));
        }
        self.expect(b'"')?;
        let start = self.at;
        self.at += plain(&self.text[start..]);
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    fn escaped_string(&mut self, start: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = self.text[start..self.at].to_vec();
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => self.escape(&mut out)?,
                // A control character.
                _ => return Err(self.unexpected()),
            }
            let clean = plain(&self.text[self.at..]);
            out.extend_from_slice(&self.text[self.at..self.at + clean]);
            self.at += clean;
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let bad = |cursor: &Self| cursor.error("an escape that JSON has not");
        let letter = self.text.get(self.at + 1).copied();
        let plain = match letter {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = self.unit(self.at).ok_or_else(|| bad(self))?;
                self.at += 6;
                if (0xd800..0xe000).contains(&code) {
                    let low = self.unit(self.at).filter(|low| (0xdc00..0xe000).contains(low));
                    let low = low.filter(|_| code < 0xdc00).ok_or_else(|| bad(self))?;
                    self.at += 6;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let found = char::from_u32(code).ok_or_else(|| bad(self))?;
                out.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(bad(self)),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    /// The number of `\u1234` at this place.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
    }

    /// Takes `null`, `true` or `false`, if it is the next.
    #[inline]
    pub(super) fn word(&mut self, word: &[u8]) -> bool {
        let first = self.peek();
        if first != word.first().copied() || !self.text[self.at..].starts_with(word) {
            return false;
        }
        let found = self.text.get(self.at + word.len()).is_none_or(|next| is_delimiter(*next));
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// A number as it is written.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a [u8], ReadError> {
        self.peek();
        let length = number_length(&self.text[self.at..]).ok_or_else(|| self.unexpected())?;
        self.at += length;
        Ok(&self.text[self.at - length..self.at])
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
                    self.at += 1;
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

/// Where the first quote stands. Eight bytes at once.
#[inline]
fn quote(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = zeros(u64::from_le_bytes(*word) ^ (u64::from(b'"') * ONES)) & HIGH;
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == b'"').map(|at| text.len() - rest.len() + at)
}

/// How much of a string stands as it is: up to a quote, a backslash or a control character. Eight bytes at once.
#[inline]
fn plain(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = zeros(word ^ (u64::from(b'"') * ONES));
        let backslash = zeros(word ^ (u64::from(b'\\') * ONES));
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
            let found = Cursor::new(text.as_bytes()).string().ok();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_passed_over_must_be_json() {
        for good in ["[]", "{}", r#"{"a":[1,{"b":null},"x",true],"c":-1e3}x"#, "[[],[[ ]] , {} ]"] {
            let mut cursor = Cursor::new(good.as_bytes());
            cursor.skip().unwrap_or_else(|error| panic!("{good}: {error}"));
            assert!(matches!(cursor.peek(), None | Some(b'x')), "{good}");
        }
        for bad in
            ["", "[", "[1 2]", "[1,]", r#"{"a"}"#, r#"{"a":1,}"#, "{,}", "{1:2}", "nul", "truex", "[}", "]"]
        {
            assert!(Cursor::new(bad.as_bytes()).skip().is_err(), "{bad}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Cursor::new(deep(129).as_bytes()).skip().is_ok());
        assert!(Cursor::new(deep(130).as_bytes()).skip().is_err());
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
            assert_eq!(Cursor::new(text.as_bytes()).short_number(), expected, "{text}");
        }
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""plain, and longer than eight bytes","x""#, Some("plain, and longer than eight bytes")),
            (r#""open"#, None),
            (r#" "blank before""#, None),
            (r#""a","\n""#, None),
        ] {
            assert_eq!(Cursor::new(text.as_bytes()).plain_string(), expected.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_passed_over_where_serde_reads_one(text in r#"[\[\]{}",:0-9a-e.\\ntrufals -]{0,24}"#) {
            let mut cursor = Cursor::new(text.as_bytes());
            let ours = cursor.skip().is_ok() && cursor.peek().is_none();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // Go's exponents without digits are the one difference.
            prop_assert!(ours == theirs || ours && text.contains(['e', 'E']), "{} {}", ours, theirs);
        }
    }
}

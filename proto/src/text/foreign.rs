//! Texts that others sent, judged once, and where they are written.

use super::sanitize::{self, is_plain};
use crate::json::{ONES, WriteError, any_word, zeros};
use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Where lines go: a [`Line`], or a string.
pub trait Out: Write {
    /// Writes plain ASCII.
    fn write_ascii(&mut self, plain: &[u8]) -> fmt::Result;
}

impl Out for String {
    fn write_ascii(&mut self, plain: &[u8]) -> fmt::Result {
        self.write_str(std::str::from_utf8(plain).map_err(|_| fmt::Error)?)
    }
}

/// Lines as bytes: what is known to be ASCII need not be looked at to be put into it, as into a string.
#[derive(Debug, Default)]
pub struct Line(Vec<u8>);

impl Line {
    /// Forgets what was written; the memory is used again.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Write for Line {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Out for Line {
    #[inline]
    fn write_ascii(&mut self, plain: &[u8]) -> fmt::Result {
        self.0.extend_from_slice(plain);
        Ok(())
    }
}

/// A text from a server or from the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Foreign<'a> {
    /// ASCII without control characters: it prints as it is, and nobody has to look at it again.
    Plain(&'a [u8]),
    Other(&'a str),
}

impl Default for Foreign<'_> {
    fn default() -> Self {
        Self::Plain(b"")
    }
}

impl<'a> From<&'a str> for Foreign<'a> {
    fn from(text: &'a str) -> Self {
        if is_plain(text.as_bytes()) { Self::Plain(text.as_bytes()) } else { Self::Other(text) }
    }
}

impl<'a> Foreign<'a> {
    /// From an encoding. Not UTF-8 is an error.
    #[inline]
    pub(super) fn read(text: &'a [u8]) -> Result<Self, WriteError> {
        if is_plain(text) {
            return Ok(Self::Plain(text));
        }
        std::str::from_utf8(text).map(Self::Other).map_err(|_| WriteError::Utf8)
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Other(text) => text.as_bytes(),
        }
    }

    /// As it came, not escaped.
    pub(super) fn raw(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes())
    }

    pub(super) fn is_empty(self) -> bool {
        self.bytes().is_empty()
    }

    pub(super) fn has_colon(self) -> bool {
        any_word(self.bytes(), |word| zeros(word ^ (u64::from(b':') * ONES)))
    }

    /// Writes it with everything escaped that could steer or deceive a terminal.
    #[inline]
    pub(super) fn write(self, out: &mut impl Out) -> fmt::Result {
        match self {
            Self::Plain(bytes) => out.write_ascii(bytes),
            Self::Other(text) => sanitize::escaped(text, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_prints_as_the_cleaned_text(bytes in prop_oneof![
            "[ -~]{0,30}".prop_map(String::into_bytes),
            any::<String>().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..30),
        ]) {
            let Ok(text) = std::str::from_utf8(&bytes) else {
                prop_assert_eq!(Foreign::read(&bytes), Err(WriteError::Utf8));
                return Ok(());
            };
            let foreign = Foreign::read(&bytes).unwrap();
            prop_assert_eq!(foreign, Foreign::from(text));
            prop_assert_eq!(foreign.raw(), text);
            prop_assert_eq!(foreign.has_colon(), text.contains(':'));
            let (mut cleaned, mut string, mut line) = (String::new(), String::new(), Line::default());
            sanitize::clean(text, &mut cleaned).unwrap();
            foreign.write(&mut string).unwrap();
            foreign.write(&mut line).unwrap();
            prop_assert_eq!(line.as_bytes(), cleaned.as_bytes());
            prop_assert_eq!(string, cleaned);
        }
    }
}

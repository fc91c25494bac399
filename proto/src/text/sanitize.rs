//! What comes from the network or from a server must not steer a terminal.
//!
//! ESC prints as `^[` and CR as `\r`, as in Hubble. Beyond Hubble, a newline or tab prints as `\n` or `\t`, so that
//! one name can't look like two lines or two columns, and other control characters, bidirectional controls and
//! characters without width print as `\u{..}`. A colour sequence in the data never passes.

use crate::json::{ONES, any_word, below};
use std::fmt::{self, Write};

/// Writes a text with everything escaped that could steer or deceive a terminal.
#[inline]
pub fn clean<W: Write + ?Sized>(text: &str, out: &mut W) -> fmt::Result {
    if is_plain(text.as_bytes()) { out.write_str(text) } else { escaped(text, out) }
}

/// Whether a text is ASCII without control characters: nothing of it is escaped.
#[inline]
pub(super) fn is_plain(text: &[u8]) -> bool {
    // DEL and what is not ASCII have their high bit set in the word, or one above it.
    !any_word(text, |word| below(b' ', word) | word | word.wrapping_add(ONES))
}

pub(super) fn escaped<W: Write + ?Sized>(text: &str, out: &mut W) -> fmt::Result {
    let mut written = 0;
    for (at, found) in text.char_indices() {
        if !is_unsafe(found) {
            continue;
        }
        out.write_str(&text[written..at])?;
        match found {
            '\u{1b}' => out.write_str("^[")?,
            '\r' => out.write_str("\\r")?,
            '\n' => out.write_str("\\n")?,
            '\t' => out.write_str("\\t")?,
            other => write!(out, "{}", other.escape_unicode())?,
        }
        written = at + found.len_utf8();
    }
    out.write_str(&text[written..])
}

/// Controls (C0, DEL, C1), bidirectional controls, and characters that show nothing.
pub fn is_unsafe(found: char) -> bool {
    found.is_control()
        || matches!(
            found,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let mut out = String::new();
        clean(text, &mut out).unwrap();
        out
    }

    #[test]
    fn escapes() {
        for (text, expected) in [
            ("plain ~ text", "plain ~ text"),
            ("grün €", "grün €"),
            ("\u{1b}[31mred\rback", "^[[31mred\\rback"),
            ("a\nb\tc", "a\\nb\\tc"),
            ("\u{7}\u{7f}\u{9b}31m", "\\u{7}\\u{7f}\\u{9b}31m"),
            ("abc\u{202e}fdp", "abc\\u{202e}fdp"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
        ] {
            assert_eq!(cleaned(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in proptest::arbitrary::any::<String>()) {
            proptest::prop_assert!(!cleaned(&text).chars().any(is_unsafe));
        }
    }
}

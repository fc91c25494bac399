//! The escapes and class items of Go's expressions.

use regex::Regex;
use std::collections::HashSet;

pub(super) type Checked<T> = Result<T, String>;

pub(super) fn fault<T>(why: &str, text: &str) -> Checked<T> {
    Err(format!("{why}: `{text}`"))
}

/// Names of properties that the crate knows, each asked for once: making such a class takes as long as an expression.
#[derive(Default)]
pub(super) struct Known<'a>(HashSet<&'a str>);

impl<'a> Known<'a> {
    fn knows(&mut self, name: &'a str, expression: &str) -> bool {
        self.0.contains(name) || Regex::new(expression).is_ok() && self.0.insert(name)
    }
}

/// What an escape means.
pub(super) enum Item {
    Char(char),
    /// What stands in a class.
    Set(String),
}

/// The item with which `text` begins, and its length; nothing where there is none.
pub(super) fn class_item<'a>(text: &'a str, known: &mut Known<'a>) -> Option<Checked<(Item, usize)>> {
    let c = text.chars().next()?;
    Some(if c == '\\' { one_of(text, known) } else { Ok((Item::Char(c), c.len_utf8())) })
}

/// An escape that means characters.
pub(super) fn one_of<'a>(text: &'a str, known: &mut Known<'a>) -> Checked<(Item, usize)> {
    let rest = &text[1..];
    let Some(c) = rest.chars().next() else { return fault("trailing backslash at end of expression", "") };
    let escape = &text[..=c.len_utf8()];
    let set = |set: &str| Ok((Item::Set(set.to_owned()), 2));
    let character = |c| Ok((Item::Char(c), 2));
    match c {
        'd' => set("0-9"),
        'D' => set("^0-9"),
        'w' => set("0-9A-Za-z_"),
        'W' => set("^0-9A-Za-z_"),
        's' => set("\\t\\n\\x0c\\r\\x20"),
        'S' => set("^\\t\\n\\x0c\\r\\x20"),
        'a' => character('\x07'),
        'f' => character('\x0c'),
        'n' => character('\n'),
        'r' => character('\r'),
        't' => character('\t'),
        'v' => character('\x0b'),
        'x' => hexadecimal(text),
        'p' | 'P' => property(text, known),
        '0'..='7' => {
            let digits = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            // One digit but 0 would be a reference back, which there is not.
            if c != '0' && digits == 1 {
                return fault("invalid escape sequence", escape);
            }
            let number = u32::from_str_radix(&rest[..digits], 8).unwrap_or_default();
            Ok((Item::Char(char::from_u32(number).unwrap_or_default()), 1 + digits))
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => character(c),
        _ => fault("invalid escape sequence", escape),
    }
}

/// `\x7F` or `\x{10FFFF}`.
fn hexadecimal(text: &str) -> Checked<(Item, usize)> {
    let rest = &text[2..];
    let (digits, length) = match rest.strip_prefix('{') {
        Some(inner) => {
            inner.split_once('}').map_or(("", rest.len()), |(digits, _)| (digits, digits.len() + 2))
        }
        None => (rest.get(..2).unwrap_or_default(), 2),
    };
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
    if let Some(c) = number.and_then(char::from_u32) {
        return Ok((Item::Char(c), 2 + length));
    }
    let shown = text.get(..2 + length).unwrap_or(text);
    fault("invalid escape sequence", shown.trim_end_matches('}'))
}

/// `\pL`, `\p{Greek}`, `\p{^Greek}`.
fn property<'a>(text: &'a str, known: &mut Known<'a>) -> Checked<(Item, usize)> {
    let rest = &text[2..];
    let (name, length) = if let Some(inner) = rest.strip_prefix('{') {
        let Some((name, _)) = inner.split_once('}') else {
            return fault("invalid character class range", text);
        };
        (name, name.len() + 2)
    } else {
        let length = rest.chars().next().map_or(0, char::len_utf8);
        (&rest[..length], length)
    };
    let whole = &text[..2 + length];
    let (name, inverted) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    let letter = if inverted == text.starts_with("\\P") { 'p' } else { 'P' };
    let set = format!("\\{letter}{{{name}}}");
    let is_name = name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    if is_name && known.knows(name, &set) {
        Ok((Item::Set(set), whole.len()))
    } else {
        fault("invalid character class range", whole)
    }
}

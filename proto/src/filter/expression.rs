//! Users' regular expressions: Go's syntax and meaning, as Hubble has them, for the `regex` crate.
//!
//! The two share RE2's syntax but for some corners: in Go `\d`, `\w`, `\s` and `\b` are of ASCII, `[` in a class and `{`
//! that counts nothing are themselves, `\Q...\E` quotes, and a count is at most 1,000.

mod escape;

use super::go::quote;
use escape::{Checked, Item, Known, class_item, fault, one_of};
use regex::{Regex, RegexBuilder};
use std::fmt::Write as _;

/// The largest program that an expression may become. It comes from outside; this bounds the memory of one expression and
/// the time of one match, which is linear in the text.
const PROGRAM_BYTES: usize = 256 * 1024;
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];
const MOST_REPEATS: u32 = 1000;
/// The crate allows 250 levels, a repeated group being two.
const DEEPEST: usize = 100;

/// Why an expression can't be used.
pub(super) enum Refused {
    /// Go refuses it too, in these words.
    Syntax(String),
    /// It is too large for us.
    TooLarge,
}

/// An unanchored expression.
pub(super) fn compile(pattern: &str) -> Result<Regex, Refused> {
    let mut translator = Translator { pattern, rest: pattern, ..Translator::default() };
    translator.run().map_err(|why| Refused::Syntax(format!("error parsing regexp: {why}")))?;
    RegexBuilder::new(&translator.out)
        .size_limit(PROGRAM_BYTES)
        .dfa_size_limit(PROGRAM_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::Syntax(_) => {
                let why = "invalid or unsupported syntax";
                Refused::Syntax(format!("error parsing regexp: {why}: {}", quote(pattern)))
            }
            _ => Refused::TooLarge,
        })
}

/// What stands before a repetition.
#[derive(Clone, Copy)]
enum Before<'a> {
    Nothing,
    /// An atom with this many repeats inside.
    Atom(u32),
    /// A repetition; what follows its atom.
    Repeated(&'a str),
}

#[derive(Default)]
struct Translator<'a> {
    pattern: &'a str,
    rest: &'a str,
    out: String,
    /// For each open group, the most repeats in what was closed inside it.
    groups: Vec<u32>,
    /// The most repeats of the group we are in.
    most: u32,
    known: Known<'a>,
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Checked<()> {
        let mut before = Before::Nothing;
        while let Some(c) = self.rest.chars().next() {
            before = match c {
                '*' | '+' | '?' => self.repeat(&self.rest[..1], before)?,
                '{' => match counted(self.rest) {
                    Some(operator) => self.repeat(operator, before)?,
                    None => self.literal(c),
                },
                '(' => self.open()?,
                ')' => self.close()?,
                '[' => self.class()?,
                '\\' => self.escape(before)?,
                '|' => {
                    self.copy(1);
                    Before::Nothing
                }
                '^' | '$' | '.' => {
                    self.copy(1);
                    Before::Atom(1)
                }
                _ => self.literal(c),
            };
        }
        if self.groups.is_empty() { Ok(()) } else { fault("missing closing )", self.pattern) }
    }

    fn copy(&mut self, bytes: usize) {
        let (copied, rest) = self.rest.split_at(bytes);
        self.out.push_str(copied);
        self.rest = rest;
    }

    fn literal(&mut self, c: char) -> Before<'a> {
        self.rest = &self.rest[c.len_utf8()..];
        put(&mut self.out, c);
        Before::Atom(1)
    }

    fn repeat(&mut self, operator: &'a str, before: Before<'a>) -> Checked<Before<'a>> {
        let inside = match before {
            Before::Nothing => return fault("missing argument to repetition operator", operator),
            Before::Repeated(from) => {
                let end = from.len() - self.rest.len() + operator.len();
                return fault("invalid nested repetition operator", &from[..end]);
            }
            Before::Atom(inside) => inside,
        };
        let start = self.rest;
        let repeats = match operator.strip_prefix('{') {
            None => inside,
            Some(counts) => {
                let (min, max) = counts
                    .trim_end_matches('}')
                    .split_once(',')
                    .unwrap_or((counts.trim_end_matches('}'), ""));
                let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
                let (min, max) = (number(min), if max.is_empty() { None } else { Some(number(max)) });
                let count = max.unwrap_or(min).max(min);
                let repeats = inside.saturating_mul(count.max(1));
                if count > MOST_REPEATS || repeats > MOST_REPEATS || max.is_some_and(|max| max < min) {
                    return fault("invalid repeat count", operator);
                }
                repeats
            }
        };
        self.most = self.most.max(repeats);
        self.copy(operator.len());
        if self.rest.starts_with('?') {
            self.copy(1);
        }
        Ok(Before::Repeated(start))
    }

    fn open(&mut self) -> Checked<Before<'a>> {
        if self.rest.starts_with("(?") {
            let named = ["(?P<", "(?<"].into_iter().find(|start| self.rest.starts_with(start));
            if let Some(start) = named {
                self.name(start.len())?;
            } else if !self.flags()? {
                return Ok(Before::Nothing);
            }
        } else {
            self.copy(1);
        }
        if self.groups.len() == DEEPEST {
            return fault("expression nests too deeply", self.pattern);
        }
        self.groups.push(std::mem::replace(&mut self.most, 1));
        Ok(Before::Nothing)
    }

    fn name(&mut self, start: usize) -> Checked<()> {
        let Some(end) = self.rest.find('>') else { return fault("invalid named capture", self.rest) };
        let name = &self.rest[start..end];
        if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
            return fault("invalid named capture", &self.rest[..=end]);
        }
        // Nobody asks for the group; and Go takes names that begin with a digit.
        self.out.push('(');
        self.rest = &self.rest[end + 1..];
        Ok(())
    }

    /// Whether they begin a group.
    fn flags(&mut self) -> Checked<bool> {
        let (mut negated, mut any) = (false, true);
        for (at, c) in self.rest.char_indices().skip(2) {
            match c {
                'i' | 'm' | 's' | 'U' => any = true,
                '-' if !negated => (negated, any) = (true, false),
                ':' | ')' if any => {
                    // `(?)` does nothing, and is not known to the crate.
                    if at > 2 || c == ':' {
                        self.copy(at + 1);
                    } else {
                        self.rest = &self.rest[at + 1..];
                    }
                    return Ok(c == ':');
                }
                _ => return fault("invalid or unsupported Perl syntax", &self.rest[..at + c.len_utf8()]),
            }
        }
        fault("invalid or unsupported Perl syntax", self.rest)
    }

    fn close(&mut self) -> Checked<Before<'a>> {
        let Some(outer) = self.groups.pop() else { return fault("unexpected )", self.pattern) };
        self.copy(1);
        let inside = self.most;
        self.most = outer.max(inside);
        Ok(Before::Atom(inside.max(1)))
    }

    fn escape(&mut self, before: Before<'a>) -> Checked<Before<'a>> {
        let c = self.rest[1..].chars().next();
        match c {
            Some('Q') => {
                let quoted = &self.rest[2..];
                let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                text.chars().for_each(|c| put(&mut self.out, c));
                self.rest = rest;
                return Ok(match before {
                    Before::Nothing if text.is_empty() => Before::Nothing,
                    _ => Before::Atom(1),
                });
            }
            Some('A' | 'z') => self.copy(2),
            Some('b') => self.put("(?-u:\\b)", 2),
            Some('B') => self.put("(?-u:\\B)", 2),
            _ => {
                let (text, length) = one_of(self.rest, &mut self.known)?;
                match text {
                    Item::Set(set) => self.put(&format!("[{set}]"), length),
                    Item::Char(c) => {
                        put(&mut self.out, c);
                        self.rest = &self.rest[length..];
                    }
                }
            }
        }
        Ok(Before::Atom(1))
    }

    fn put(&mut self, text: &str, length: usize) {
        self.out.push_str(text);
        self.rest = &self.rest[length..];
    }

    fn class(&mut self) -> Checked<Before<'a>> {
        let whole = self.rest;
        let unclosed = || format!("missing closing ]: `{whole}`");
        let mut at = 1;
        self.out.push('[');
        if whole[at..].starts_with('^') {
            at += 1;
            self.out.push('^');
        }
        let first = at;
        loop {
            let rest = &whole[at..];
            match rest.chars().next() {
                None => return Err(unclosed()),
                Some(']') if at > first => break,
                Some(_) => {}
            }
            // Go looks for the end behind the `[:`, so that `[[:]` is a class of two characters.
            if let Some((name, _)) = rest.strip_prefix("[:").and_then(|named| named.split_once(":]")) {
                let class = &rest[..name.len() + 4];
                if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return fault("invalid character class range", class);
                }
                self.out.push_str(class);
                at += class.len();
                continue;
            }
            let (low, length) = class_item(rest, &mut self.known).ok_or_else(unclosed)??;
            let Item::Char(low) = low else {
                if let Item::Set(set) = low {
                    let _ = write!(self.out, "[{set}]");
                }
                at += length;
                continue;
            };
            let behind = &rest[length..];
            if behind.starts_with('-') && !behind.starts_with("-]") {
                let (high, more) = class_item(&behind[1..], &mut self.known).ok_or_else(unclosed)??;
                let range = &rest[..length + 1 + more];
                let Item::Char(high) = high else { return fault("invalid escape sequence", &behind[1..3]) };
                if high < low {
                    return fault("invalid character class range", range);
                }
                put(&mut self.out, low);
                self.out.push('-');
                put(&mut self.out, high);
                at += range.len();
            } else {
                put(&mut self.out, low);
                at += length;
            }
        }
        self.out.push(']');
        self.rest = &whole[at + 1..];
        Ok(Before::Atom(1))
    }
}

/// A character, whatever it means in an expression.
fn put(out: &mut String, c: char) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() {
        let _ = write!(out, "\\x{:02x}", c as u32);
    } else {
        out.push(c);
    }
}

/// `{n}`, `{n,}` or `{n,m}`.
fn counted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?.split_once('}')?.0;
    let number = |text: &str| {
        // As in Go, a number has no zero before it.
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    let valid = match inner.split_once(',') {
        None => number(inner),
        Some((min, max)) => number(min) && (max.is_empty() || number(max)),
    };
    valid.then(|| &text[..inner.len() + 2])
}

//! YAML into a form of serde's, with the field and the place of what is wrong.

use super::one_line;
use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Location, Spanned};
use std::fmt;

/// Such files need no aliases; a few are harmless, many are a bomb.
const MAX_ALIASES: usize = 1024;
/// The deepest field of an inventory is at 5, of a filter at 8.
const MAX_DEPTH: usize = 16;
/// A pod of the usual size has 30 nodes, so this is more than the largest file can hold in earnest.
const MAX_NODES: usize = 16_000_000;

/// What is wrong with the content of a file, before the file's name is known. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// The field, such as `pods[2].ips[0]`.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Fault {
    /// Of a value that was read.
    pub fn of<T>(value: &Spanned<T>, path: impl Into<String>, problem: impl fmt::Display) -> Self {
        let place = value.referenced;
        Self { line: place.line(), column: place.column(), path: path.into(), problem: problem.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path, problem } = self;
        // A key may be empty, and so the path to it.
        let path = if path.is_empty() { "." } else { &one_line(path) };
        write!(f, "{line}:{column}: {path}: {}", one_line(problem))
    }
}

/// Reads a form; an empty file is the default.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
        with_snippet: false,
    };
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    // The closure's error type is the parser's own, so the path goes out on the side.
    let mut path = String::from(".");
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    result.map_err(|error: Error| {
        let place = error.location().unwrap_or(Location::UNKNOWN);
        // `Spanned` reads its value through a field of its own.
        let path = path.strip_suffix(".value").unwrap_or(&path).to_owned();
        let problem = say(&error);
        Fault { line: place.line(), column: place.column(), path, problem }
    })
}

/// The parser's words for what users get wrong most, and ours, which say what would be right.
const WORDS: &[(&str, &str)] = &[
    ("expected mapping start", "a mapping such as {name: x} belongs here"),
    ("expected sequence start", "a list such as [x, y] belongs here"),
    ("invalid boolean", "write true or false"),
    ("invalid u16", "write a number from 1 to 65535"),
    (", set DuplicateKeyPolicy in Options if acceptable", "; write it once"),
];

/// The parser's message on one line, without the place, which stands before it.
fn say(error: &Error) -> String {
    let text = error.without_snippet().to_string().replace('\n', " ");
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned();
    WORDS.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}

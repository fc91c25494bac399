//! The filter as its user writes it: the command line's flags by the command line's table, words that are searched for in
//! the rows, and how many flows of before are wanted.

use crate::prompt::words::{Fault, Word, quoted, split};
use observer_proto::filter::{
    FilterLists, Filters, FlagError,
    flags::{self, FLAGS, Flag},
    parse,
};

/// Flows of before, if nothing is said.
pub(crate) const LAST: u64 = 500;
/// Who asks for more gets no more than are kept.
const MOST_LAST: u64 = crate::rows::MOST_ROWS as u64;

/// In place of a flag's name: a word for the text of rows.
pub(crate) const WORD: &str = "";

/// A filter that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// As it was written.
    pub text: String,
    /// The flags in their order, each with its value.
    pub given: Vec<(&'static str, String)>,
    /// What they ask of the server.
    pub lists: FilterLists,
    /// What must stand in a row; small letters stand for large ones, too.
    pub local: Vec<String>,
    /// Flows of before.
    pub last: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            text: String::new(),
            given: Vec::new(),
            lists: FilterLists::default(),
            local: Vec::new(),
            last: LAST,
        }
    }
}

/// A flag with its value and the words that it was made of.
struct Given<'a> {
    flag: &'static Flag,
    value: String,
    words: &'a [Word],
}

impl Filter {
    /// Reads a line; the error says which part of it is wrong.
    pub fn read(text: &str) -> Result<Self, Fault> {
        let words = split(text)?;
        let mut filter = Self { text: text.trim().to_owned(), ..Self::default() };
        let mut given: Vec<Given<'_>> = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let word = &words[at];
            let fault = |text: String| Fault { at: word.at.clone(), text };
            let Some((name, joined)) = flag_of(&word.text) else {
                filter.local.push(word.text.to_lowercase());
                at += 1;
                continue;
            };
            let needs_value = name == "last" || flags::find(&name).is_some_and(|flag| flag.value.is_some());
            let flag = flags::find(&name);
            if flag.is_none() && name != "last" {
                return Err(fault(refusal(&word.text, &name)));
            }
            let (value, taken) = match joined {
                Some(value) => (value, 1),
                None if !needs_value => (String::new(), 1),
                None => match words.get(at + 1) {
                    Some(value) => (value.text.clone(), 2),
                    None => return Err(fault(format!("{} needs a value behind it", word.text))),
                },
            };
            if let Some(flag) = flag {
                given.push(Given { flag, value, words: &words[at..at + taken] });
            } else {
                filter.last = value.parse().map_err(|_| fault("--last needs a number".to_owned()))?;
                filter.last = filter.last.min(MOST_LAST);
            }
            at += taken;
        }
        filter.lists = lists(&given)?;
        filter.given = given.into_iter().map(|given| (given.flag.name, given.value)).collect();
        Ok(filter)
    }

    /// Reads words that a shell has split already.
    pub fn of_words(words: &[String]) -> Result<Self, Fault> {
        Self::read(&words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
    }

    /// Whether the server is asked for a part only.
    pub fn has_flags(&self) -> bool {
        !self.lists.whitelist.is_empty() || !self.lists.blacklist.is_empty()
    }

    /// The flags as words of a shell.
    pub fn flags(&self) -> String {
        let word = |(name, value): &(&str, String)| match flags::find(name) {
            Some(flag) if flag.value.is_none() => format!("--{name}"),
            _ => format!("--{name} {}", quoted(value)),
        };
        self.given.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// The text of a filter that asks for this, too.
    pub fn including(&self, flag: &str, value: &str) -> String {
        let added = if flag == WORD { quoted(value) } else { format!("--{flag} {}", quoted(value)) };
        if flag == WORD && self.local.contains(&value.to_lowercase()) {
            return self.text.clone();
        }
        if self.given.iter().any(|(name, own)| *name == flag && own == value) {
            return self.text.clone();
        }
        format!("{} {added}", self.text).trim().to_owned()
    }

    /// The text of a filter that leaves this out, too. Flags that are turned round by `--not` must all hold for a flow to be
    /// left out, so that only values of one flag can be added to each other so; others become filters of their own.
    pub fn excluding(&self, flag: &str, value: &str) -> String {
        let turned: Vec<&str> =
            self.given.windows(2).filter(|pair| pair[0].0 == "not").map(|pair| pair[1].0).collect();
        let added = if turned.iter().all(|name| *name == flag) {
            format!("--not --{flag} {}", quoted(value))
        } else {
            let filters = parse([(flag, value)]).map(|lists| lists.whitelist).unwrap_or_default();
            let json = filters.iter().filter_map(|filter| observer_proto::json::line(filter).ok());
            json.map(|json| format!("--denylist {}", quoted(&json))).collect::<Vec<_>>().join(" ")
        };
        format!("{} {added}", self.text).trim().to_owned()
    }
}

/// The name of a flag, and the value that stands in the same word.
fn flag_of(word: &str) -> Option<(String, Option<String>)> {
    if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
        return Some(match long.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (long.to_owned(), None),
        });
    }
    let rest = word.strip_prefix('-')?;
    let letter = rest.chars().next()?;
    let name = FLAGS
        .iter()
        .find(|flag| flag.short == Some(letter))
        .map_or_else(|| letter.to_string(), |flag| flag.name.to_owned());
    let value = rest[letter.len_utf8()..].trim_start_matches('=');
    Some((name, (!value.is_empty()).then(|| value.to_owned())))
}

/// Why a flag is none of a filter.
fn refusal(word: &str, name: &str) -> String {
    let why = match name {
        "f" | "follow" => "the dashboard always follows",
        "o" | "output" => "the dashboard has a form of its own; c chooses the columns",
        "since" | "until" | "first" | "all" => "write --last N for the flows of before",
        "server" | "input-file" | "tls" => "give it when the dashboard is started",
        _ => return format!("unknown flag: {word}; Tab offers those that there are"),
    };
    format!("{word} is no filter: {why}")
}

/// The filters of flags. The parser tells no place: it is that of the flag with which the trouble begins.
fn lists(given: &[Given<'_>]) -> Result<FilterLists, Fault> {
    let whole = read_all(given);
    whole.map_err(|error| {
        let is_first = |count: &usize| read_all(&given[..*count]).is_err_and(|error| !error.is_open);
        let at = (1..=given.len()).find(is_first).unwrap_or(given.len());
        let words = given[at - 1].words;
        let end = words.last().map_or(0, |word| word.at.end);
        Fault { at: words.first().map_or(0, |word| word.at.start)..end, text: error.text }
    })
}

struct Refused {
    text: String,
    /// A flag that follows may mend it.
    is_open: bool,
}

fn read_all(given: &[Given<'_>]) -> Result<FilterLists, Refused> {
    let lists = parse(given.iter().map(|given| (given.flag.name, given.value.as_str())))
        .map_err(|error| Refused { is_open: error == FlagError::TrailingNot, text: error.to_string() })?;
    Filters::compile(&lists.whitelist, &lists.blacklist)
        .map_err(|error| Refused { text: error.to_string(), is_open: false })?;
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (String, String) {
        let fault = Filter::read(text).unwrap_err();
        (text[fault.at].to_owned(), fault.text)
    }

    #[test]
    fn flags_words_and_numbers() {
        let filter = Filter::read("-n shop --port=80 Web --last 99999 --not --verdict DROPPED").unwrap();
        assert_eq!(filter.local, ["web"]);
        assert_eq!(filter.last, MOST_LAST);
        assert_eq!(filter.flags(), "--namespace shop --port 80 --not --verdict DROPPED");
        assert_eq!(filter.lists.blacklist.len(), 1);
        assert_eq!(Filter::read("  ").unwrap(), Filter::default());
    }

    #[test]
    fn faults_name_their_words() {
        for (text, at, words) in [
            ("--namespace shop --verdict WRONG -n x", "--verdict WRONG", "WRONG"),
            ("--port 80 -o json", "-o", "a form of its own"),
            ("--follow", "--follow", "always follows"),
            ("--prot tcp", "--prot", "unknown flag"),
            ("--port", "--port", "needs a value"),
            ("--port 80 --not", "--not", "trailing --not"),
            ("--pod a --ip 10.0.0.300", "--ip 10.0.0.300", ""),
            ("--http-path '(' --port 1", "--http-path '('", ""),
            ("a 'b", "'b", "not closed"),
        ] {
            let (found, told) = fault(text);
            assert_eq!(found, at, "{text}: {told}");
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn fields_are_added() {
        let filter = Filter::read("--verdict DROPPED").unwrap();
        assert_eq!(filter.including("from-pod", "shop/web"), "--verdict DROPPED --from-pod shop/web");
        assert_eq!(filter.including("verdict", "DROPPED"), "--verdict DROPPED");
        assert_eq!(filter.including(WORD, "NO_SOCKET"), "--verdict DROPPED NO_SOCKET");
        let once = Filter::read(&filter.excluding("from-pod", "a b")).unwrap();
        assert_eq!(once.text, "--verdict DROPPED --not --from-pod 'a b'");
        assert_eq!(
            once.excluding("from-pod", "c"),
            "--verdict DROPPED --not --from-pod 'a b' --not --from-pod c"
        );
        let other = Filter::read(&once.excluding("to-port", "80")).unwrap();
        assert_eq!(other.lists.blacklist.len(), 2, "{}", other.text);
    }
}

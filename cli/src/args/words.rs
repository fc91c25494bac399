//! The words of the command line in the order in which Hubble's parser reads them: flags may stand before or behind the
//! command, `-tdrop` and `--all=false` are taken, and the first mistake is the one that is told.

use crate::settings::truth;
use clap::{Arg, ArgAction, Command};
use observer_proto::filter::flags;

/// A command line read as far as it could be.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The names of the command and of its parents, outermost first.
    pub(super) path: Vec<String>,
    flags: Vec<Given>,
    rest: Vec<String>,
    /// Why the reading stopped.
    pub(super) mistake: Option<String>,
}

/// One flag with its value.
#[derive(Debug)]
struct Given {
    name: String,
    /// Of a flag that has one.
    value: Option<String>,
    /// Whether the next of this name takes its place.
    last_counts: bool,
    /// A switch that is turned off.
    off: bool,
    /// What is told where the command has no such flag.
    unknown: String,
}

impl Words {
    /// Reads the words behind the program's name.
    pub(super) fn read(root: &Command, words: impl IntoIterator<Item = String>) -> Self {
        let mut read = Self::default();
        read.mistake = read.words(root, &mut words.into_iter()).err();
        read
    }

    fn words(&mut self, root: &Command, words: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let mut command = root;
        while let Some(word) = words.next() {
            if word == "--" {
                self.rest.extend(words);
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                self.long(&[command, root], long, words)?;
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                self.short(&[command, root], letters, words)?;
            } else if self.path.is_empty() && self.rest.is_empty() && word == "observe" {
                // Who calls this program `hubble` writes `hubble observe`.
            } else if let Some(inner) =
                command.find_subcommand(&word).filter(|_| self.rest.is_empty() && word != "help")
            {
                self.path.push(inner.get_name().to_owned());
                command = inner;
            } else {
                self.rest.push(word);
            }
        }
        // A flag before the command may be none of the command's.
        let is_none =
            |flag: &Given| find(&[command, root], |arg| arg.get_long() == Some(&flag.name)).is_none();
        if let Some(at) = self.flags.iter().position(is_none) {
            let unknown = self.flags.swap_remove(at).unknown;
            self.flags.truncate(at);
            return Err(unknown);
        }
        let asks_help = self.rest.first().is_some_and(|word| word == "help");
        match self.rest.first() {
            Some(word) if command.has_subcommands() && !asks_help => {
                let of = [&["observe".to_owned()][..], &self.path].concat().join(" ");
                Err(format!("unknown command {word:?} for {of:?}; see {of} --help"))
            }
            // Hubble drops such words in silence, and with them a filter that somebody forgot to name.
            Some(word) if command.get_positionals().next().is_none() && !asks_help => {
                Err(format!("unexpected argument {word:?}; see observe {} --help", self.path.join(" ")))
            }
            _ => Ok(()),
        }
    }

    fn long(
        &mut self,
        commands: &[&Command],
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: --{word}"));
        }
        let unknown = format!("unknown flag: --{name}");
        let flag = find(commands, |arg| arg.get_long() == Some(name)).ok_or_else(|| unknown.clone())?;
        let value = if value.is_some() || !needs_value(flag) {
            value
        } else {
            Some(words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?)
        };
        self.give(flag, value, unknown)
    }

    /// `-f`, `-A4`, `-tdrop`, `-t=drop`, `-t drop`.
    fn short(
        &mut self,
        commands: &[&Command],
        letters: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let left = &letters[at..];
            let unknown = format!("unknown shorthand flag: {letter:?} in -{left}");
            let flag =
                find(commands, |arg| arg.get_short() == Some(letter)).ok_or_else(|| unknown.clone())?;
            let behind = &left[letter.len_utf8()..];
            if let Some(value) = behind.strip_prefix('=').filter(|_| left.len() > 2) {
                return self.give(flag, Some(value.to_owned()), unknown);
            }
            if needs_value(flag) {
                let value = match behind {
                    "" => words
                        .next()
                        .ok_or_else(|| format!("flag needs an argument: {letter:?} in -{left}"))?,
                    value => value.to_owned(),
                };
                return self.give(flag, Some(value), unknown);
            }
            self.give(flag, None, unknown)?;
        }
        Ok(())
    }

    fn give(&mut self, flag: &Arg, value: Option<String>, unknown: String) -> Result<(), String> {
        let name = flag.get_long().unwrap_or_default().to_owned();
        let is_switch = is_switch(flag);
        let mut off = false;
        let value = match value {
            // The value of a filter's switch is not read: `--not=false` is `--not`, as in Hubble.
            Some(_) if flags::find(&name).is_some_and(|flag| flag.value.is_none()) => None,
            Some(value) if is_switch || is_choice(flag) => {
                off = !truth(&value).ok_or_else(|| {
                    format!(
                        "invalid argument {value:?} for \"{}\" flag: strconv.ParseBool: parsing {value:?}: invalid \
                         syntax",
                        shown(flag)
                    )
                })?;
                (!is_switch).then(|| (!off).to_string())
            }
            value => value,
        };
        let last_counts = !matches!(flag.get_action(), ArgAction::Append);
        self.flags.push(Given { name, value, last_counts, off, unknown });
        Ok(())
    }

    /// Flags and values as far as they were read.
    pub(super) fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        let value = |flag: &'_ Given| if flag.off { "false" } else { "true" };
        self.flags.iter().map(move |flag| (&*flag.name, flag.value.as_deref().unwrap_or(value(flag))))
    }

    pub(super) fn count(&self) -> usize {
        self.flags.len()
    }

    /// Whether a flag was given whose earlier value no longer counts, so that reading all at once would not see it.
    pub(super) fn hides_values(&self) -> bool {
        (0..self.flags.len()).any(|at| self.is_replaced(at, self.flags.len()))
    }

    fn is_replaced(&self, at: usize, end: usize) -> bool {
        let flag = &self.flags[at];
        flag.last_counts && self.flags[at + 1..end].iter().any(|later| later.name == flag.name)
    }

    /// The line with the first `count` flags, in the form that leaves clap nothing to guess.
    pub(super) fn line(&self, count: usize) -> Vec<String> {
        let given = self.flags[..count].iter().enumerate();
        let counting =
            given.filter(|(at, flag)| !(self.is_replaced(*at, count) || flag.off && flag.value.is_none()));
        let flags = counting.map(|(_, flag)| match &flag.value {
            Some(value) => format!("--{}={value}", flag.name),
            None => format!("--{}", flag.name),
        });
        let mut line = vec!["observe".to_owned()];
        if self.rest.first().is_some_and(|word| word == "help") {
            line.extend(self.rest.iter().cloned());
            return line;
        }
        line.extend(self.path.iter().cloned());
        line.extend(flags);
        // Where the words themselves are the mistake, clap is only asked of the flags.
        if !self.rest.is_empty() && self.mistake.is_none() {
            line.push("--".to_owned());
            line.extend(self.rest.iter().cloned());
        }
        line
    }
}

/// A flag of the command, or one of those that all have.
fn find<'a>(commands: &[&'a Command], is: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    let [command, root] = commands else { return None };
    let own = command.get_arguments().find(|arg| !arg.is_positional() && is(arg));
    own.or_else(|| root.get_arguments().find(|arg| arg.is_global_set() && is(arg)))
}

fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue | ArgAction::Help | ArgAction::Version)
        || flag.get_num_args().is_some_and(|range| range.max_values() == 0)
}

/// A switch that is on by itself: its value says so or not.
fn is_choice(flag: &Arg) -> bool {
    flag.get_num_args().is_some_and(|range| range.min_values() == 0 && range.max_values() == 1)
}

fn needs_value(flag: &Arg) -> bool {
    !is_switch(flag) && !is_choice(flag)
}

/// `-t, --type`, as Hubble calls a flag in an error.
fn shown(flag: &Arg) -> String {
    let long = flag.get_long().unwrap_or_default();
    flag.get_short().map_or_else(|| format!("--{long}"), |letter| format!("-{letter}, --{long}"))
}

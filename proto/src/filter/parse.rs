//! Flags in command-line order to filter messages.

use super::{
    flags::{self, Effect, Flag},
    go::quote,
    raw::parse_raw,
    tracker::Tracker,
};
use crate::flow::FlowFilter;

/// What a list of flags asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterLists {
    /// Any must match; empty = all pass.
    pub whitelist: Vec<FlowFilter>,
    /// None may match.
    pub blacklist: Vec<FlowFilter>,
}

/// A flag or a value that is refused, in the words of Hubble's command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// The value doesn't fit the flag, or the flag doesn't fit the ones before it.
    #[error("invalid argument {} for \"{flag}\" flag: {why}", quote(.value))]
    Value {
        /// As help shows it: `-t, --type`.
        flag: String,
        /// As given; `true` for a flag without a value.
        value: String,
        /// The reason.
        why: String,
    },
    /// `--not` stands last.
    #[error("trailing --not found in the arguments")]
    TrailingNot,
    /// No such flag.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// A raw filter that is no FlowFilter.
    #[error("invalid --{flag} flag: failed to decode '{value}': {why}")]
    Raw {
        /// `allowlist` or `denylist`.
        flag: &'static str,
        /// As given.
        value: String,
        /// The reason.
        why: String,
    },
}

/// Reads flags (name without dashes, value) in the order of the command line. The value of a flag that takes none is
/// ignored: `--not=false` is `--not`, as in Hubble.
pub fn parse<'a>(arguments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<FilterLists, FlagError> {
    let mut allow = Tracker::default();
    let mut deny = Tracker::default();
    let mut raw: Vec<(&'static Flag, bool, &str)> = Vec::new();
    let mut negated = false;
    for (name, value) in arguments {
        let flag = flags::find(name).ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
        let refuse = |why: String| FlagError::Value {
            flag: flag.short.map_or_else(|| format!("--{name}"), |short| format!("-{short}, --{name}")),
            value: if flag.value.is_some() { value.to_owned() } else { "true".to_owned() },
            why,
        };
        match flag.effect {
            Effect::Not if negated => return Err(refuse("consecutive --not statements".to_owned())),
            Effect::Not => negated = true,
            Effect::Raw { deny } => raw.push((flag, deny, value)),
            _ => {
                let list = if negated { &mut deny } else { &mut allow };
                negated = false;
                list.set(flag, value).map_err(refuse)?;
            }
        }
    }
    if negated {
        return Err(FlagError::TrailingNot);
    }
    let mut lists = FilterLists { whitelist: allow.finish(), blacklist: deny.finish() };
    for (flag, deny, value) in raw {
        let filters = parse_raw(value).map_err(|why| FlagError::Raw {
            flag: flag.name,
            value: value.to_owned(),
            why,
        })?;
        if deny { &mut lists.blacklist } else { &mut lists.whitelist }.extend(filters);
    }
    Ok(lists)
}

//! The filter flags: clap arguments from the shared table, and back into filters in the order of the command line.

use crate::complete;
use crate::settings::{ALLOWLIST, DENYLIST, Settings};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use observer_proto::filter::{
    FilterLists, FlagError,
    flags::{FLAGS, Flag},
    parse, parse_raw,
};

/// What the filter flags ask for, `--not` applied in the order of the command line.
#[derive(Debug)]
pub(crate) struct FilterArgs {
    lists: FilterLists,
    /// Whole filters as JSON: they are looked at later, since the configuration may give them too.
    raw: Vec<(&'static str, String)>,
    /// All of them in their order.
    given: Vec<(&'static str, String)>,
}

impl FilterArgs {
    /// The flags in their order, each with its value; whole filters of the settings, where no flag gives any.
    pub(crate) fn given(&self, settings: &Settings) -> Vec<(&'static str, String)> {
        let mut given = self.given.clone();
        for (name, configured) in [(ALLOWLIST, &settings.allowlist), (DENYLIST, &settings.denylist)] {
            if !self.raw.iter().any(|(flag, _)| *flag == name) {
                given.extend(configured.iter().map(|value| (name, value.clone())));
            }
        }
        given
    }

    /// Together with the whole filters, of flags or else of the settings.
    pub(crate) fn lists(&self, settings: &Settings) -> Result<FilterLists, String> {
        let mut lists = self.lists.clone();
        for (name, list, configured) in [
            (ALLOWLIST, &mut lists.whitelist, &settings.allowlist),
            (DENYLIST, &mut lists.blacklist, &settings.denylist),
        ] {
            let given: Vec<&String> =
                self.raw.iter().filter(|(flag, _)| *flag == name).map(|(_, v)| v).collect();
            let values = if given.is_empty() { configured.iter().collect() } else { given };
            for value in values {
                let filters = parse_raw(value)
                    .map_err(|why| format!("invalid --{name} flag: failed to decode '{value}': {why}"))?;
                list.extend(filters);
            }
        }
        Ok(lists)
    }
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Every flag may be repeated; its place among all flags is kept.
fn argument(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help)
        .help_heading(super::FILTERS)
        .action(ArgAction::Append);
    let arg = match flag.value {
        Some(name) => arg.value_name(name).num_args(1).allow_hyphen_values(true),
        None => arg.num_args(0).default_missing_value("true"),
    };
    let arg = match complete::candidates(flag.complete) {
        Some(candidates) => arg.add(candidates),
        None => arg,
    };
    match flag.short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<(usize, &'static str, String)> = Vec::new();
        for flag in FLAGS {
            if let (Some(places), Some(values)) =
                (matches.indices_of(flag.name), matches.get_many::<String>(flag.name))
            {
                given.extend(places.zip(values).map(|(place, value)| (place, flag.name, value.clone())));
            }
        }
        given.sort_unstable_by_key(|(place, ..)| *place);
        let given: Vec<_> = given.into_iter().map(|(_, name, value)| (name, value)).collect();
        let (raw, others): (Vec<_>, Vec<_>) =
            given.iter().cloned().partition(|(name, _)| [ALLOWLIST, DENYLIST].contains(name));
        let lists = parse(others.iter().map(|(name, value)| (*name, value.as_str())));
        // A kind of error that clap itself doesn't make: the text is Hubble's already.
        let lists = lists.map_err(|error| clap::Error::raw(ErrorKind::Format, error))?;
        Ok(Self { lists, raw, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Whether an error is only that the line ends too early.
pub(super) fn is_trailing_not(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::Format && error.to_string().contains(&FlagError::TrailingNot.to_string())
}

//! The filter flags: clap arguments from the shared table, and back into filters in the order of the command line.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use observer_proto::filter::{
    FilterLists,
    flags::{FLAGS, Flag},
    parse,
};
use std::ffi::OsString;

/// What the filter flags ask for, `--not` applied in the order of the command line.
pub(crate) struct FilterArgs(pub(crate) FilterLists);

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
        let lists = parse(given.iter().map(|(_, name, value)| (*name, value.as_str())));
        // A kind of error that clap itself doesn't make: the text is Hubble's already.
        lists.map(Self).map_err(|error| clap::Error::raw(ErrorKind::Format, error))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Hubble's users may write `--not=true` or `-A=true`; the value is not read there either.
pub(super) fn without_switch_value(argument: OsString) -> OsString {
    let name = argument.to_str().and_then(|text| text.split_once('=')).map(|(name, _)| name);
    let is_switch = |name: &str| {
        FLAGS.iter().filter(|flag| flag.value.is_none()).any(|flag| {
            name.strip_prefix("--") == Some(flag.name)
                || flag
                    .short
                    .is_some_and(|letter| name.strip_prefix('-') == Some(letter.to_string().as_str()))
        })
    };
    match name {
        Some(name) if is_switch(name) => name.into(),
        _ => argument,
    }
}

//! The filter flags: clap arguments from the shared table, and back into filters in the order of the command line.

use crate::Failure;
use clap::{Arg, ArgAction, ArgMatches};
use observer_proto::filter::{FilterLists, flags::FLAGS, parse};

/// Every flag may be repeated; its place among all flags is kept.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    FLAGS.iter().map(|flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .help(flag.help)
            .help_heading(super::FILTERS)
            .action(ArgAction::Append);
        let arg = match flag.value {
            Some(name) => arg.value_name(name).num_args(1).allow_hyphen_values(true),
            // Hubble's users may write `--not=true`; the value is not read there either.
            None => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("BOOL")
                .hide_possible_values(true),
        };
        match flag.short {
            Some(letter) => arg.short(letter),
            None => arg,
        }
    })
}

pub(super) fn read(matches: &ArgMatches) -> Result<FilterLists, Failure> {
    let mut given: Vec<(usize, &str, &str)> = Vec::new();
    for flag in FLAGS {
        if let (Some(places), Some(values)) =
            (matches.indices_of(flag.name), matches.get_many::<String>(flag.name))
        {
            given.extend(places.zip(values).map(|(place, value)| (place, flag.name, value.as_str())));
        }
    }
    given.sort_unstable_by_key(|(place, ..)| *place);
    parse(given.into_iter().map(|(_, name, value)| (name, value))).map_err(|e| Failure::Text(e.to_string()))
}

//! The flags of every command, from the table of the settings.

use super::{OTHER, SERVER};
use crate::settings::{self, KEYS, Key, Kind, Layers, Settings, Shown, file::File};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// What every command may be told, before its name or behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    flags: Vec<(&'static str, String)>,
}

impl Globals {
    /// Those among flags of any kind.
    pub(super) fn of<'a>(given: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let known = given.filter_map(|(name, value)| Some((Key::named(name)?.name, value.to_owned())));
        Self { flags: known.collect() }
    }

    /// Together with the environment and the file, and checked.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        self.layers(true)?.settings()
    }

    /// The layers by themselves. A named file must be there if it is `wanted`.
    pub(crate) fn layers(&self, wanted: bool) -> Result<Layers<'_>, String> {
        let named = self.config();
        let file = match named {
            Some(path) if !wanted => File::read(path.into())?,
            named => File::find(named.as_deref(), &variable)?,
        };
        Ok(Layers { flags: &self.flags, environment: &variable, file })
    }

    /// The file that was named.
    pub(crate) fn config(&self) -> Option<String> {
        let layers = Layers { flags: &self.flags, environment: &variable, file: None };
        Key::named(settings::CONFIG)
            .and_then(|key| layers.find(key).0.into_iter().next())
            .filter(|path| !path.is_empty())
    }
}

pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Args for Globals {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().filter(|key| key.shown != Shown::NoFlag).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Arg {
    let mut help = key.help.to_owned();
    if !matches!(key.kind, Kind::Switch) && !key.default.is_empty() {
        help = format!("{help} [default: {}]", key.default);
    }
    let arg = Arg::new(key.name)
        .long(key.name)
        .help(help)
        .help_heading(if key.shown == Shown::Other { OTHER } else { SERVER })
        .hide(key.shown == Shown::Hidden)
        .global(true)
        .value_parser(move |value: &str| key.check(value).map(|()| value.to_owned()));
    let arg = match key.kind {
        Kind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name(key.value)
            .action(ArgAction::Set),
        Kind::List | Kind::Filters => arg.value_name(key.value).action(ArgAction::Append),
        Kind::Text | Kind::Duration | Kind::Port => arg.value_name(key.value).action(ArgAction::Set),
    };
    match key.short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

impl FromArgMatches for Globals {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let keys = KEYS.iter().filter(|key| key.shown != Shown::NoFlag);
        let given = keys.flat_map(|key| {
            let values = matches.get_many::<String>(key.name).into_iter().flatten();
            values.map(|value| (key.name, value.clone()))
        });
        Ok(Self { flags: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

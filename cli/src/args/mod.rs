//! The command line's arguments: those that several commands have, and how they are read. A command's own stand in its
//! file.

mod filters;
mod globals;
mod shared;
mod usage;
mod words;

use crate::{
    Failure,
    commands::{Command, FlowsArgs},
};
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, error::ErrorKind};
use std::{ffi::OsString, path::Path};
use words::Words;

pub(crate) use filters::FilterArgs;
pub(crate) use globals::{Globals, variable};
pub(crate) use shared::{FormatArgs, MaskArgs, MessageArgs, SelectArgs};
pub(crate) use usage::rows;

// The groups of flags, in the order that help shows them in, which is Hubble's.
pub(crate) const SELECTORS: &str = "Selectors";
pub(crate) const FILTERS: &str = "Filters";
pub(crate) const FORMATTING: &str = "Formatting";
pub(crate) const SERVER: &str = "Server";
pub(crate) const OTHER: &str = "Other";

/// What kubectl looks for on the PATH when somebody writes `kubectl observe`.
const PLUGIN: &str = "kubectl-observe";

/// What to do.
pub(crate) struct Arguments {
    pub(crate) globals: Globals,
    pub(crate) command: Command,
}

#[derive(Parser)]
#[command(
    name = "observe",
    version,
    about = "Shows who talks to whom, what was dropped, and why",
    long_about = None,
    after_help = FlowsArgs::AFTER_HELP,
    disable_help_flag = true,
    disable_version_flag = true,
    infer_long_args = false
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    root: Root,
}

/// What may be said without a command.
#[derive(Args)]
struct Root {
    #[command(flatten)]
    flows: FlowsArgs,
    #[command(flatten)]
    globals: Globals,
    /// Print this help
    #[arg(short, long, action = ArgAction::Help, global = true, help_heading = OTHER)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = OTHER)]
    version: Option<bool>,
}

/// The definition; called as kubectl's plugin, that is its name.
pub(crate) fn command() -> clap::Command {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&called).file_stem().is_some_and(|name| name == PLUGIN);
    Cli::command().bin_name(if is_plugin { "kubectl observe" } else { "observe" })
}

/// The part of the definition that a line without a mistake needs: the commands that it names, without their help. To make
/// the whole of it takes longer than most commands.
fn outline(words: &[String]) -> clap::Command {
    let root = clap::Command::new("observe").version(env!("CARGO_PKG_VERSION"));
    let root = Root::augment_args(root.disable_help_flag(true).disable_version_flag(true));
    Command::augment_named(root, |name| words.iter().any(|word| word == name))
}

/// The flags of every command that a line has, which may be no whole line yet.
pub(crate) fn globals_of(words: Vec<String>) -> Globals {
    Globals::of(Words::read(&command(), words).given())
}

/// Reads the arguments. Help and version are printed here.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Failure> {
    let words = arguments.into_iter().skip(1).map(OsString::into_string).collect::<Result<Vec<_>, _>>();
    let words = words.map_err(|word| format!("an argument is no UTF-8: {}", word.display()))?;
    try_outline(&words).map_or_else(|| parse_whole(words), Ok)
}

/// What a line asks for that has no mistake and wants no help.
fn try_outline(words: &[String]) -> Option<Arguments> {
    let outline = outline(words);
    let words = Words::read(&outline, words.iter().cloned());
    let is_plain = words.mistake.is_none() && !words.hides_values();
    is_plain.then(|| try_parse(outline, words.line(words.count())).ok()).flatten()
}

fn parse_whole(words: Vec<String>) -> Result<Arguments, Failure> {
    let command = command();
    let words = Words::read(&command, words);
    let count = words.count();
    let parsed = try_parse(command.clone(), words.line(count));
    if parsed.is_err() || words.mistake.is_some() || words.hides_values() {
        // Something is wrong, and the first mistake is told, as by a parser that stops there. A line that only ends too
        // early has none yet.
        let earlier =
            (0..count).find_map(|fewer| try_parse(command.clone(), words.line(fewer)).err().filter(is_final));
        if let Some(mistake) = earlier {
            return Err(usage::failure(&mistake));
        }
        if let Some(mistake) = words.mistake {
            return Err(parsed.err().filter(is_final).map_or(mistake.into(), |error| usage::failure(&error)));
        }
    }
    parsed.map_err(|error| usage::failure(&error))
}

/// Whether more words would not help.
fn is_final(error: &clap::Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) && !filters::is_trailing_not(error)
}

fn try_parse(command: clap::Command, line: Vec<String>) -> Result<Arguments, clap::Error> {
    let matches = command.try_get_matches_from(line)?;
    let Cli { command, root } = Cli::from_arg_matches(&matches)?;
    let command = command.unwrap_or_else(|| Command::Flows(Box::new(root.flows)));
    Ok(Arguments { globals: root.globals, command })
}

#[cfg(test)]
mod tests;

//! The command line's arguments: those that several commands have, and how they are read. A command's own stand in its
//! file.

mod filters;
mod server;
mod shared;
mod usage;

use crate::{
    Failure,
    commands::{Command, FlowsArgs},
};
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, parser::ValueSource};
use std::ffi::OsString;

pub(crate) use filters::FilterArgs;
pub(crate) use server::{ServerArgs, TlsArgs};
pub(crate) use shared::{FormatArgs, MessageArgs, SelectArgs};

// The groups of flags, in the order that help shows them in, which is Hubble's.
pub(crate) const SELECTORS: &str = "Selectors";
pub(crate) const FILTERS: &str = "Filters";
pub(crate) const FORMATTING: &str = "Formatting";
pub(crate) const SERVER: &str = "Server";
pub(crate) const OTHER: &str = "Other";

/// What to do.
pub(crate) struct Arguments {
    pub(crate) globals: Globals,
    pub(crate) command: Command,
}

/// What every command may be told, before its name or behind it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Globals {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Also show which nodes a relay is connected to
    #[arg(short = 'D', long, global = true, help_heading = OTHER)]
    pub(crate) debug: bool,
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

fn command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments. Help and version are printed here.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Failure> {
    let arguments = arguments.into_iter().map(filters::without_switch_value);
    let matches = command().try_get_matches_from(arguments).map_err(|e| usage::failure(&e))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| usage::failure(&e))?;
    if let Some(name) = matches.subcommand_name() {
        refuse_misplaced(&matches, name)?;
    }
    let command = cli.command.unwrap_or_else(|| Command::Flows(Box::new(cli.flows)));
    Ok(Arguments { globals: cli.globals, command })
}

/// A flag of flows that stands before the command would be ignored in silence.
fn refuse_misplaced(matches: &clap::ArgMatches, command: &str) -> Result<(), Failure> {
    let definition = self::command();
    let bound = definition.get_arguments().filter(|argument| !argument.is_global_set());
    let misplaced = bound.map(|a| a.get_id().as_str()).find(|id| {
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    });
    match misplaced {
        Some(id) => {
            Err(format!("--{} must stand after {command}, not before it", id.replace('_', "-")).into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

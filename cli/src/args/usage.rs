//! Errors of usage in the words that Hubble's command line uses, so that scripts and users find what they know.

use crate::{Failure, output};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::process::ExitCode;

/// A count.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

/// How many rows a table has at most.
pub(crate) fn rows(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| *rows > 0);
    rows.ok_or_else(|| "a whole number from 1 on is needed".to_owned())
}

/// Help and version are no failures but end the program all the same.
pub(super) fn failure(error: &clap::Error) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => Failure::Shown(ExitCode::SUCCESS),
            Err(error) => error.into(),
        };
    }
    // `observe list`: what there is to list. Hubble, too, ends well here.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return match output::whole(&error.render().to_string()) {
            Ok(()) => Failure::Shown(ExitCode::SUCCESS),
            Err(failure) => failure,
        };
    }
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        return Failure::Text(format!("missing argument: {}", missing.join(" ")));
    }
    if error.kind() == ErrorKind::Format {
        return Failure::Text(
            error.to_string().trim_start_matches("error: ").trim_end_matches('\n').to_owned(),
        );
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    // "--last <N>", "-t, --type <T>": the name without the value.
    let name = argument.map(|a| a.split([' ', '=']).find(|w| w.starts_with("--")).unwrap_or(a));
    Failure::Text(match (error.kind(), name, value) {
        (ErrorKind::UnknownArgument, Some(name), _) if name.starts_with("--") => {
            format!("unknown flag: {name}")
        }
        (ErrorKind::UnknownArgument, Some(name), _) if name.starts_with('-') => {
            let letter = name.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {name}")
        }
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, Some(name), _) => unknown_command(name),
        (ErrorKind::InvalidValue, Some(name), Some("") | None) => format!("flag needs an argument: {name}"),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(name), Some(value)) => {
            let right = || match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(right)) => format!("it is none of {}", right.join(", ")),
                _ => "invalid value".to_owned(),
            };
            let why = match std::error::Error::source(error) {
                Some(source) if source.is::<std::num::ParseIntError>() => {
                    "a whole number is needed".to_owned()
                }
                Some(source) => source.to_string(),
                None => right(),
            };
            // An argument that is no flag has its name in brackets.
            let what = if name.starts_with("--") { format!("\"{name}\" flag") } else { name.to_owned() };
            format!("invalid argument {value:?} for {what}: {why}")
        }
        _ => match context(ContextKind::InvalidSubcommand) {
            Some(name) => unknown_command(name),
            // The first line says it; the rest is usage.
            None => {
                error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        },
    })
}

fn unknown_command(name: &str) -> String {
    format!("unknown command {name:?} for \"observe\"; see observe --help")
}

//! The daemon's binary: flags in, exit code out.
#![forbid(unsafe_code)]

use clap::{Parser as _, error::ErrorKind};
use observer::{config::Options, daemon};
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Flows are made in one thread and thrown away in another. What the start took, mostly to read the kernel's types, goes back to
/// the kernel within five seconds, by a thread of the allocator's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What shells and clap use for a command line that can't be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Nobody is left to tell where stdout is closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("observer: {}", usage(&error));
            return ExitCode::from(USAGE);
        }
    };
    match options.resolve().map_err(anyhow::Error::from).and_then(|config| daemon::run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observer: {}", line(&error));
            ExitCode::FAILURE
        }
    }
}

/// A usage error in one line: clap writes what is wrong, what would be right and the usage as paragraphs.
fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    let said = said.join(" ");
    format!("{} (all options: observer --help)", said.strip_prefix("error: ").unwrap_or(&said))
}

/// An error with its causes on the one line that a person at 3 a.m. reads. Many errors tell their cause themselves: it
/// is not told twice.
fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

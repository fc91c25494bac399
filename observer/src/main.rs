//! The daemon's binary: flags in, exit code out.
#![forbid(unsafe_code)]

use clap::Parser as _;
use observer::{config::Options, daemon};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result =
        Options::parse().resolve().map_err(anyhow::Error::from).and_then(|config| daemon::run(&config));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` keeps the causes on the one line that a person at 3 a.m. reads.
            eprintln!("observer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

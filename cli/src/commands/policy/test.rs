//! `observe policy test`.

use crate::{
    Failure,
    args::FORMATTING,
    output,
    policy::{Cases, FileArgs, Judge, Layout, Run, report},
};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

pub(super) const AFTER_HELP: &str = "\
A line of the table is a connection and what should become of it (docs/policy-cases.md):
  shop/web -> shop/db 5432/TCP = allow
  shop/web -> shop/api 80/TCP GET /admin = refuse
  203.0.113.9 -> shop/web 443/TCP = in allow
Ends with 1 if a verdict is another, and says why it is.";

/// `observe policy test`.
#[derive(Args)]
pub(super) struct TestArgs {
    /// Files and folders of policies
    #[arg(value_name = "PATH", required = true)]
    policies: Vec<PathBuf>,
    /// The table
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    #[command(flatten)]
    files: FileArgs,
    /// How it looks
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = FORMATTING)]
    output: Layout,
}

pub(super) fn run(args: &TestArgs) -> Result<(), Failure> {
    let mut judge = Judge::new(&args.files)?;
    let policies = judge.read(&args.policies)?;
    let cases = Cases::read(&args.cases)?;
    let file = cases.file.clone();
    let runs = cases.run(&mut judge, &policies)?;
    output::whole(&report(args.output, &file, &runs)?)?;
    if runs.iter().all(Run::is_good) { Ok(()) } else { Err(Failure::Shown(ExitCode::FAILURE)) }
}

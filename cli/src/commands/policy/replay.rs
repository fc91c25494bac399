//! `observe policy replay`.

use crate::{
    Failure,
    answers::{Piece, TextOrJson, from_files, once},
    policy::{FileArgs, Judge, LayoutArgs, Replay},
};
use clap::Args;
use observer_proto::filter::FilterLists;
use std::path::PathBuf;

pub(super) const AFTER_HELP: &str = "\
Every connection in the flows is judged once, on both sides. Who the ends are is said by the flows' own labels, or by the
inventory, which alone tells of services and CIDR groups: without it what rules allow by these looks denied, and a warning says
so. Without --against verdicts are compared with what was recorded; what was dropped for another reason than a policy is left out.

Examples:
  observe --all -o json > flows.jsonl
  observe policy replay --policies new/ --input-file flows.jsonl
  observe policy replay --policies new/ --against old/ --input-file flows.jsonl -o json";

/// `observe policy replay`.
#[derive(Args)]
pub(super) struct ReplayArgs {
    /// Policies to judge by: files and folders; may be given several times
    #[arg(long, value_name = "PATH", required = true)]
    policies: Vec<PathBuf>,
    /// Policies to compare with, in place of what was recorded
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
    /// Flows: JSON lines, plain or packed by gzip; - is standard input
    #[arg(long, value_name = "FILE", required = true)]
    input_file: Vec<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    layout: LayoutArgs,
    /// The groups of most connections; all others are summed
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = crate::args::FORMATTING)]
    limit: usize,
}

pub(super) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let judge = |policies: &[PathBuf]| -> Result<Judge, Failure> {
        let mut judge = Judge::new(&args.files)?;
        let policies = judge.read(policies)?;
        judge.set(policies);
        Ok(judge)
    };
    let before = if args.against.is_empty() { None } else { Some(judge(&args.against)?) };
    let mut replay = Replay::new(judge(&args.policies)?, before);
    from_files(&args.input_file, &FilterLists::default(), (None, None), |piece| {
        match piece {
            Piece::Flow(flow) => replay.flow(flow),
            Piece::Lost(lost) => replay.lost(lost),
        }
        Ok(())
    })?;
    let report = replay.report(args.limit)?;
    once(&match args.layout.output {
        TextOrJson::Text => report.text(),
        TextOrJson::Json => report.json()?,
    })
}

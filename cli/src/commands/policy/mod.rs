//! `observe policy`: policies as they are, and as they would be.

mod explain;
mod list;
mod mode;
mod replay;
mod show;
mod test;

use crate::{Failure, args::Globals};
use clap::{Args, Subcommand};

/// `observe policy`.
#[derive(Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List policies: mode, what they select, how often they decided, and warnings
    List(list::ListArgs),
    /// Show policies with their rules
    Show(show::ShowArgs),
    /// Set a policy's mode: what it denies is counted, told or dropped
    #[command(after_help = mode::AFTER_HELP)]
    Mode(mode::ModeArgs),
    /// Say why a connection is allowed or denied, on both sides
    #[command(after_help = explain::AFTER_HELP)]
    Explain(Box<explain::ExplainArgs>),
    /// Check policies by a table of connections with the verdicts that they should have
    #[command(after_help = test::AFTER_HELP)]
    Test(test::TestArgs),
    /// Judge recorded flows by changed policies: which verdicts change, and why
    #[command(after_help = replay::AFTER_HELP)]
    Replay(replay::ReplayArgs),
}

pub(super) async fn run(globals: &Globals, args: PolicyArgs) -> Result<(), Failure> {
    match args.what {
        What::List(args) => list::run(globals, args).await,
        What::Show(args) => show::run(globals, args).await,
        What::Mode(args) => mode::run(globals, args).await,
        What::Explain(args) => explain::run(globals, *args).await,
        What::Test(args) => test::run(&args),
        What::Replay(args) => replay::run(&args),
    }
}

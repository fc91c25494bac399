//! `observe policy list`.

use crate::{
    Failure,
    answers::{TextOrJson, once},
    args::Globals,
    policy::{LayoutArgs, Source, SourceArgs, listed},
};
use clap::Args;
use observer_proto::{control::ListPoliciesRequest, json};
use std::io;

/// `observe policy list`.
#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) async fn run(globals: &Globals, args: ListArgs) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let mut source = Source::open(&args.source, &settings).await?;
    let answer = source.list(&settings, ListPoliciesRequest::default()).await?;
    once(&match args.layout.output {
        TextOrJson::Text => listed(&answer),
        TextOrJson::Json => json::line(&answer).map_err(io::Error::other)?,
    })
}

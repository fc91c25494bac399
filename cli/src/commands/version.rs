//! `observe version`.

use crate::{Failure, args::Globals, output};
use clap::Args;
use std::env::consts::{ARCH, OS};

/// It has no flags of its own.
#[derive(Args)]
pub(crate) struct VersionArgs {}

pub(super) async fn run(_: &Globals, _: VersionArgs) -> Result<(), Failure> {
    output::whole(&format!("observe {} on {OS}/{ARCH}\n", env!("CARGO_PKG_VERSION")))
}

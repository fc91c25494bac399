//! `observe version`.

use crate::{Failure, args::Globals, output};
use clap::Args;

/// It has no flags of its own.
#[derive(Args)]
pub(crate) struct VersionArgs {}

pub(crate) async fn run(_: &Globals, _: VersionArgs) -> Result<(), Failure> {
    output::whole(&format!("observe {}\n", env!("CARGO_PKG_VERSION")))
}

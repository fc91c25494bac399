//! `observer detach`.

use crate::{
    capture::{Detached, detach},
    instance::Instance,
    proxy::routing,
};
use anyhow::Context as _;
use std::{collections::BTreeSet, io::Write as _};

/// Takes everything of ours out of this network namespace, and says what.
pub(super) fn run() -> anyhow::Result<()> {
    // A daemon would put its programs on again.
    let _instance = Instance::take()?;
    let Detached { kept, folder, filters } = detach().context("cannot detach")?;
    // It leads nowhere without programs.
    routing::take_down();
    let on = |links: &BTreeSet<String>| links.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut said = Vec::new();
    if !kept.is_empty() {
        said.push(format!("removed {} with the programs on {}", folder.display(), on(&kept)));
    }
    if !filters.is_empty() {
        said.push(format!("removed the clsact filters on {}", on(&filters)));
    }
    if said.is_empty() {
        said.push("nothing of observer is left in this network namespace".to_owned());
    }
    // Nobody is left to tell where stdout is closed.
    let _ = writeln!(std::io::stdout(), "{}", said.join("\n"));
    Ok(())
}

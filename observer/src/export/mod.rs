//! Flows for log pipelines: lines of JSON in files, which are Hubble's flow logs, and records of OpenTelemetry's logs.
//!
//! Each exporter is a thread that follows the store by a cursor, so the capture never waits for a disk or a Collector. What
//! was overwritten before its turn is lost, counted, and told in its place as a lost event. See docs/export.md for what users are promised.

mod config;
mod counters;
mod cut;
mod exporter;
mod lines;
mod otlp;
mod rotate;
mod set;
mod sink;
#[cfg(test)]
mod tests;

pub use config::ExportConfig;
pub(crate) use config::Flags;
pub(crate) use counters::{Board, Counts, Operation};
pub use set::{ExportError, Exports};

/// Reads the text of a file of exporters.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) -> crate::dynamic::Checked<Vec<config::Exporter>> {
    crate::dynamic::parse(text, |file: config::File| file.check(&[]))
}

/// Exports all flows of the store to a file in this thread; how many bytes that were.
#[cfg(feature = "bench")]
pub fn export_all(
    store: &std::sync::Arc<crate::store::Store>,
    node: &crate::serve::NodeInfo,
    file: &std::path::Path,
    runtime: &tokio::runtime::Handle,
) -> Option<u64> {
    let flags = Flags { file_path: Some(file.to_owned()), size_mb: Some(1 << 20), ..Flags::default() };
    let exporter = flags.check().ok()?.pop()?;
    let orders = tokio::sync::watch::Sender::new(exporter::Orders { end: true, reopened: 0 });
    let around = exporter::Around { store: store.clone(), node: node.clone(), runtime: runtime.clone() };
    let counters = std::sync::Arc::<counters::Counters>::default();
    exporter::Task::new(&exporter, store.oldest(), counters.clone(), orders.subscribe(), around)?.run();
    Some(counters.read().bytes)
}

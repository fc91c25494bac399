//! What exporters count, for the status and for metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Of one exporter. Flows passed = filtered + taken + overwritten; taken = aggregated + written + unwritten + refused +
/// waiting.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Flows that the filters leave out, and those behind the exporter's end.
    pub(super) filtered: AtomicU64,
    /// Flows that the filters let pass.
    pub(super) taken: AtomicU64,
    /// Of these, those that were summed with others.
    pub(super) aggregated: AtomicU64,
    /// Flows that were overwritten in the store before their turn: lost.
    pub(super) overwritten: AtomicU64,
    /// Lines of one flow that were written.
    pub(super) written: AtomicU64,
    /// Flows whose lines could not be written before the exporter had to end: lost.
    pub(super) unwritten: AtomicU64,
    /// Flows whose records the Collector does not take: lost.
    pub(super) refused: AtomicU64,
    /// Lines of several flows that were written.
    pub(super) sums: AtomicU64,
    /// Bytes written.
    pub(super) bytes: AtomicU64,
    /// Lines that were made shorter, to be below the limit of a line.
    pub(super) cut: AtomicU64,
    /// Files that were full.
    pub(super) rotations: AtomicU64,
    /// Times that writing or sending failed.
    pub(super) failures: AtomicU64,
    /// Whether it waits for the disk, or the Collector.
    pub(super) suspended: AtomicBool,
    /// Whether it has not come to its end.
    pub(super) active: AtomicBool,
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) filtered: u64,
    pub(crate) aggregated: u64,
    pub(crate) overwritten: u64,
    pub(crate) written: u64,
    pub(crate) unwritten: u64,
    pub(crate) refused: u64,
    /// Flows that are taken and neither written nor lost.
    pub(crate) waiting: u64,
    pub(crate) sums: u64,
    pub(crate) bytes: u64,
    pub(crate) cut: u64,
    pub(crate) rotations: u64,
    pub(crate) failures: u64,
    pub(crate) suspended: bool,
    pub(crate) active: bool,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What becomes of flows first: what is taken meanwhile only waits.
        let [aggregated, written, unwritten, refused] =
            [&self.aggregated, &self.written, &self.unwritten, &self.refused].map(read);
        Counts {
            waiting: read(&self.taken).saturating_sub(aggregated + written + unwritten + refused),
            aggregated,
            written,
            unwritten,
            refused,
            filtered: read(&self.filtered),
            overwritten: read(&self.overwritten),
            sums: read(&self.sums),
            bytes: read(&self.bytes),
            cut: read(&self.cut),
            rotations: read(&self.rotations),
            failures: read(&self.failures),
            suspended: self.suspended.load(Ordering::Relaxed),
            active: self.active.load(Ordering::Relaxed),
        }
    }
}

/// What became of a change of the configuration; Hubble's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Update,
    Remove,
    Failure,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Add, Self::Update, Self::Remove, Self::Failure];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::Failure => "failure",
        }
    }
}

/// Where exporters tell of themselves.
#[derive(Debug, Default)]
pub(crate) struct Board {
    exporters: Mutex<BTreeMap<String, Arc<Counters>>>,
    operations: [AtomicU64; Operation::ALL.len()],
    /// Of the dynamic configuration that is in force: its checksum, and the Unix time in seconds when it was taken.
    pub(super) applied: Mutex<Option<(u64, u64)>>,
}

impl Board {
    /// All exporters by name.
    pub(crate) fn exporters(&self) -> Vec<(String, Counts)> {
        self.lock().iter().map(|(name, counters)| (name.clone(), counters.read())).collect()
    }

    /// How often this was done.
    pub(crate) fn operations(&self, operation: Operation) -> u64 {
        self.operations[operation as usize].load(Ordering::Relaxed)
    }

    /// Checksum and Unix time in seconds of the dynamic configuration in force, where there is one.
    pub(crate) fn applied(&self) -> Option<(u64, u64)> {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of an exporter that starts; one of this name that was there before goes on counting.
    pub(super) fn enter(&self, name: &str) -> Arc<Counters> {
        let counters = Arc::clone(self.lock().entry(name.to_owned()).or_default());
        counters.active.store(true, Ordering::Relaxed);
        counters
    }

    pub(super) fn leave(&self, name: &str) {
        self.lock().remove(name);
    }

    pub(super) fn count(&self, operation: Operation) {
        add(&self.operations[operation as usize], 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Counters>>> {
        self.exporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

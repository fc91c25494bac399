//! What the history tells of itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Written by the keeper and by readers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Flows taken from the store.
    pub(super) taken: AtomicU64,
    /// Flows that stand in a piece of a full file.
    pub(super) written: AtomicU64,
    /// Flows that stand in the file of those that have no piece yet.
    pub(super) flushed: AtomicU64,
    /// Flows overwritten in the store before they were taken: lost.
    pub(super) overwritten: AtomicU64,
    /// Flows that could not be written before the end: lost.
    pub(super) unwritten: AtomicU64,
    /// Flows of earlier lives that were found unfinished and are kept.
    pub(super) recovered: AtomicU64,
    /// Flows removed because they were too old, or too many.
    pub(super) removed: AtomicU64,
    /// Times that something torn was cut off, and its bytes.
    pub(super) torn: AtomicU64,
    pub(super) torn_bytes: AtomicU64,
    /// Pieces that readers found to be not what was written.
    pub(super) damaged: AtomicU64,
    /// Files of another format, which are left alone.
    pub(super) foreign: AtomicU64,
    /// Times that writing failed.
    pub(super) failures: AtomicU64,
    /// Bytes of all files.
    pub(super) bytes: AtomicU64,
    /// Whether it waits for the disk.
    pub(super) suspended: AtomicBool,
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// [`super::History`] at one moment. Flows taken = written + waiting + unwritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows that stand in a piece.
    pub written: u64,
    /// Flows that have no piece yet; of these so many are on the disk all the same.
    pub waiting: u64,
    /// See `waiting`.
    pub flushed: u64,
    /// Flows overwritten in the store before they were taken: lost.
    pub overwritten: u64,
    /// Flows that could not be written before the end: lost.
    pub unwritten: u64,
    /// Flows of earlier lives that were found without a piece and are kept.
    pub recovered: u64,
    /// Flows removed because they were too old, or too many.
    pub removed: u64,
    /// Ends of files that were torn and cut off.
    pub torn: u64,
    /// Their bytes.
    pub torn_bytes: u64,
    /// Pieces that readers found to be not what was written.
    pub damaged: u64,
    /// Files of another format, which are left alone.
    pub foreign: u64,
    /// Times that writing failed.
    pub failures: u64,
    /// Whether it waits for the disk.
    pub suspended: bool,
    /// Bytes of all files.
    pub bytes: u64,
    /// The most that there may be.
    pub most_bytes: u64,
    /// Flows that can be read from pieces.
    pub flows: u64,
    /// Unix time in nanoseconds of the oldest of them.
    pub oldest_ns: Option<i64>,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What becomes of flows first: what is taken meanwhile only waits.
        let (written, unwritten) = (read(&self.written), read(&self.unwritten));
        Counts {
            waiting: read(&self.taken).saturating_sub(written + unwritten),
            written,
            unwritten,
            flushed: read(&self.flushed),
            overwritten: read(&self.overwritten),
            recovered: read(&self.recovered),
            removed: read(&self.removed),
            torn: read(&self.torn),
            torn_bytes: read(&self.torn_bytes),
            damaged: read(&self.damaged),
            foreign: read(&self.foreign),
            failures: read(&self.failures),
            bytes: read(&self.bytes),
            suspended: self.suspended.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}

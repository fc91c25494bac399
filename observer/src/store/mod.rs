//! The ring of the newest flows: one writer, any number of readers by cursor.
//!
//! Flows lie in segments of write-once blocks. Readers follow a published head and never take a lock that the writer
//! needs for a flow; the list of segments is swapped whole when a segment is full. Memory is freed by whole segments.

mod cursor;
mod ends;
mod glance;
mod losses;
mod namespaces;
mod parts;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

pub use cursor::{Cursor, Rewind, Step, Steps};
pub use ends::Ends;
pub use glance::{Lot, Stored};
pub(crate) use glance::{glance, ip_version, l4, ports, tcp_flags};
pub use losses::{Loss, LossCursor, LossSource};
pub use namespaces::Namespace;
pub use writer::Writer;

use arc_swap::ArcSwap;
use namespaces::Namespaces;
use segment::Segment;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// How much the store keeps: the smaller of the two limits holds.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// At most so many flows.
    pub flows: usize,
    /// At most about so many bytes, shared ends included; what is shared by several segments counts in each.
    pub bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { flows: 65_536, bytes: 128 << 20 }
    }
}

/// The flows kept; see [`Writer`] for filling it and [`Cursor`] for reading it.
#[derive(Debug)]
pub struct Store {
    segments: ArcSwap<Vec<Arc<Segment>>>,
    /// Sequence number of the next flow: everything below is written and readable.
    head: AtomicU64,
    /// Of the first flow that was ever written to it.
    first: u64,
    bytes: AtomicU64,
    capacity: u64,
    wake: Notify,
    namespaces: Namespaces,
    losses: losses::Losses,
}

impl Store {
    /// An empty store and its only writer.
    pub fn new(config: StoreConfig) -> (Arc<Self>, Writer) {
        Self::starting_at(0, config)
    }

    /// As [`Store::new`]; the first flow gets this sequence number, which goes on where another store ended.
    pub fn starting_at(first: u64, config: StoreConfig) -> (Arc<Self>, Writer) {
        Self::shaped(first, writer::Shape::of(config))
    }

    /// For flows that are read back from elsewhere, with the numbers that they had: it keeps all that it is given.
    pub(crate) fn read_back(first: u64) -> (Arc<Self>, Writer) {
        Self::shaped(first, writer::Shape::UNBOUNDED)
    }

    fn shaped(base: u64, shape: writer::Shape) -> (Arc<Self>, Writer) {
        let first = Arc::new(Segment::new(base, Arc::new(Ends::new(base))));
        let store = Arc::new(Self {
            bytes: AtomicU64::new(Segment::FIXED_BYTES as u64),
            segments: ArcSwap::from_pointee(vec![Arc::clone(&first)]),
            head: AtomicU64::new(base),
            first: base,
            capacity: shape.flows as u64,
            wake: Notify::new(),
            namespaces: Namespaces::default(),
            losses: losses::Losses::default(),
        });
        let writer = Writer::new(Arc::clone(&store), shape, first);
        (store, writer)
    }

    /// Flows that can be read now.
    pub fn len(&self) -> u64 {
        // The list first: a head read later can only be larger, never below the oldest base.
        let oldest = self.oldest();
        self.head() - oldest
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most flows it can hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes held, counted as [`StoreConfig::bytes`] says.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Flows written since the start.
    pub fn seen(&self) -> u64 {
        self.head() - self.first
    }

    /// Sequence number of the next flow: everything below was written.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Sequence number of the oldest flow that can be read.
    pub fn oldest(&self) -> u64 {
        self.segments.load().first().map_or(0, |segment| segment.base())
    }

    /// Unix time in nanoseconds of the oldest flow.
    pub fn oldest_time(&self) -> Option<i64> {
        let segments = self.segments.load();
        segments.first()?.blocks().next()?.flows().first().map(|flow| flow.record.time_ns)
    }

    /// Flows per second over the minute before `now_ns`, or over the time that the store reaches back if that is less.
    pub fn rate(&self, now_ns: i64) -> f64 {
        const MINUTE: i64 = 60_000_000_000;
        const SECOND: i64 = 1_000_000_000;
        let Some(oldest) = self.oldest_time() else { return 0.0 };
        let from = now_ns.saturating_sub(MINUTE);
        let span = now_ns.saturating_sub(oldest).clamp(SECOND, MINUTE);
        let segments = self.segments.load();
        let recent: u64 = segments.iter().map(|segment| segment.count_from(from)).sum();
        recent as f64 / (span as f64 / SECOND as f64)
    }

    /// Namespaces of the flows of the hour before `now_ns`, sorted by cluster, then name.
    pub fn namespaces(&self, now_ns: i64) -> Vec<Namespace> {
        self.namespaces.since_an_hour_before(now_ns)
    }

    /// Counts events that an earlier stage lost, for the streams that are open; `first` and `last` are Unix times in
    /// nanoseconds.
    pub fn report_lost(&self, source: LossSource, count: u64, first: i64, last: i64) {
        self.losses.report(source, count, first, last);
        self.wake.notify_waiters();
    }

    /// A reader of the losses reported from now on.
    pub fn losses(&self) -> LossCursor {
        self.losses.cursor()
    }

    /// What was reported since the last call with this cursor, one entry for each source.
    pub fn take_losses(&self, cursor: &mut LossCursor) -> Vec<Loss> {
        self.losses.take(cursor)
    }

    /// Waits until there is a flow at or after sequence number `next`, or a loss that `losses` doesn't know yet.
    pub async fn changed(&self, next: u64, losses: &LossCursor) {
        loop {
            // Registered before the look: a publish between the look and the wait is not missed.
            let woken = self.wake.notified();
            if self.head() > next || self.losses.is_ahead_of(losses) {
                return;
            }
            woken.await;
        }
    }
}

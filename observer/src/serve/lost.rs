//! Losses that a reader is to be told of, by Hubble's sources: each at most once in a while, and the sum is right.

use crate::store::{Loss, LossSource};
use observer_proto::flow::LostEventSource;
use std::time::Duration;
use tokio::time::Instant;

/// Hubble's interval: at most one LostEvent of a source in this time.
const INTERVAL: Duration = Duration::from_secs(1);
const SOURCES: [LostEventSource; 3] = [
    LostEventSource::PerfEventRingBuffer,
    LostEventSource::ObserverEventsQueue,
    LostEventSource::HubbleRingBuffer,
];

/// What one reader is to be told; times are Unix times in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct LostEvents([Pending; SOURCES.len()]);

/// Losses of one source that the reader doesn't know yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    count: u64,
    first: i64,
    last: i64,
    told: Option<Instant>,
}

impl Pending {
    fn add(&mut self, count: u64, first: i64, last: i64) {
        if self.count == 0 {
            (self.first, self.last) = (first, last);
        }
        self.count += count;
        self.first = self.first.min(first);
        self.last = self.last.max(last);
    }

    /// When it may be told.
    fn due(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.told.map_or_else(Instant::now, |told| told + INTERVAL))
    }
}

impl LostEvents {
    /// Flows that were overwritten before the reader came to them, which it found out at `now`.
    pub(crate) fn add_overwritten(&mut self, count: u64, now: i64) {
        self.0[2].add(count, now, now);
    }

    /// What earlier stages have lost.
    pub(crate) fn add_reported(&mut self, losses: &[Loss]) {
        for Loss { source, count, first, last } in losses {
            let index = match source {
                LossSource::KernelRing => 0,
                LossSource::Queue => 1,
            };
            self.0[index].add(*count, *first, *last);
        }
    }

    /// When the next is to be told, if there is one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(Pending::due).min()
    }

    /// Gives those that are due to `tell`: source, count, first and last; or, at the end, all of them.
    pub(crate) fn tell(&mut self, all: bool, mut tell: impl FnMut(LostEventSource, u64, i64, i64)) {
        for (pending, source) in self.0.iter_mut().zip(SOURCES) {
            let Some(due) = pending.due() else { continue };
            let now = Instant::now();
            if all || due <= now {
                tell(source, pending.count, pending.first, pending.last);
                *pending = Pending { told: Some(now), ..Pending::default() };
            }
        }
    }
}

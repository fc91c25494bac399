//! A run of flows with consecutive sequence numbers; slots are written once and never again.

use crate::flow::Flow;
use std::sync::{
    OnceLock,
    atomic::{AtomicI64, Ordering},
};

#[derive(Debug)]
pub(super) struct Segment {
    base: u64,
    slots: Box<[OnceLock<Flow>]>,
    /// The latest time of a flow in it.
    newest: AtomicI64,
}

impl Segment {
    pub(super) fn new(base: u64, len: usize) -> Self {
        let slots = (0..len).map(|_| OnceLock::new()).collect();
        Self { base, slots, newest: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Not before that of any flow below a head that was read before.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn fixed_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    pub(super) fn get_at(&self, index: usize) -> Option<&Flow> {
        self.slots.get(index)?.get()
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Flow> {
        self.get_at(usize::try_from(sequence.checked_sub(self.base)?).ok()?)
    }

    /// Fills a slot that was not filled before, of those that the segment has.
    pub(super) fn fill(&self, index: usize, make: impl FnOnce() -> Flow) -> &Flow {
        debug_assert!(self.get_at(index).is_none(), "slot {index} was filled before");
        let flow = self.slots[index].get_or_init(make);
        // There is one writer, and the head is published after this.
        self.newest.store(self.newest().max(flow.time_ns), Ordering::Relaxed);
        flow
    }

    /// How many flows below `head` are not older than `from`, taking them to be in order of time.
    pub(super) fn count_from(&self, from: i64, head: u64) -> u64 {
        let mut written = &self.slots[..self.slots.len().min(head.saturating_sub(self.base) as usize)];
        // A segment that was closed early has empty slots at its end.
        let filled = written.partition_point(|slot| slot.get().is_some());
        written = &written[..filled];
        (filled - written.partition_point(|slot| slot.get().is_some_and(|flow| flow.time_ns < from))) as u64
    }
}

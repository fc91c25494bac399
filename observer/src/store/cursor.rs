//! Reading the store forwards, with exact counts of what was overwritten, and finding where to start.

use super::{
    Store,
    glance::{Lot, Stored},
    segment::Segment,
};
use std::{ops::ControlFlow, sync::Arc};

/// A place in the store that moves forward. For every cursor, slots passed = flows read + flows lost.
#[derive(Debug)]
pub struct Cursor {
    store: Arc<Store>,
    next: u64,
    segment: Option<Arc<Segment>>,
    /// Where in the segment the last flow was.
    block: usize,
}

/// What a cursor came upon.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next flow.
    Flow(Stored<'a>),
    /// So many flows were overwritten before they were read.
    Lost(u64),
    /// Nothing newer yet.
    End,
}

/// As [`Step`], of several flows at a time.
#[derive(Debug)]
pub enum Steps<'a> {
    /// The next flows.
    Flows(Lot<'a>),
    /// So many flows were overwritten before they were read.
    Lost(u64),
    /// Nothing newer yet.
    End,
}

impl Cursor {
    /// At sequence number `next`; what is older than the store reaches counts as lost.
    pub fn new(store: Arc<Store>, next: u64) -> Self {
        Self { store, next, segment: None, block: 0 }
    }

    /// Sequence number of the next flow.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The store read from.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Moves one step.
    pub fn step(&mut self) -> Step<'_> {
        if let Some(lost) = self.pass_lost() {
            return Step::Lost(lost);
        }
        let Self { next, segment, block, .. } = self;
        match segment.as_ref().and_then(|segment| segment.get(*next, block)) {
            Some(stored) => {
                *next += 1;
                Step::Flow(stored)
            }
            None => Step::End,
        }
    }

    /// Moves over some flows at once that lie together.
    pub fn steps(&mut self) -> Steps<'_> {
        if let Some(lost) = self.pass_lost() {
            return Steps::Lost(lost);
        }
        let Self { next, segment, block, .. } = self;
        match segment.as_ref().and_then(|segment| segment.lot(*next, block)) {
            Some(lot) => {
                *next += lot.count() as u64;
                Steps::Flows(lot)
            }
            None => Steps::End,
        }
    }

    /// The next flow and those that lie with it; nothing where the next step meets no flow.
    pub fn lot(&mut self) -> Option<Lot<'_>> {
        if self.hold().is_some() {
            return None;
        }
        let Self { next, segment, block, .. } = self;
        segment.as_ref()?.lot(*next, block)
    }

    /// As `hold`; passes what was overwritten, and says how much it was.
    fn pass_lost(&mut self) -> Option<u64> {
        let oldest = self.hold()?;
        let lost = oldest - self.next;
        self.next = oldest;
        Some(lost)
    }

    /// Takes hold of the segment of the next flow, or of none where there is nothing newer yet. If it was overwritten: the
    /// oldest that is left.
    fn hold(&mut self) -> Option<u64> {
        let Self { store, next, segment, block } = self;
        if *next >= store.head() {
            *segment = None;
            return None;
        }
        if segment.as_ref().is_some_and(|segment| segment.get(*next, block).is_some()) {
            return None;
        }
        let segments = store.segments.load();
        let after = segments.partition_point(|segment| segment.base() <= *next);
        let Some(index) = after.checked_sub(1) else {
            return Some(segments.first().map_or(*next, |segment| segment.base()));
        };
        *segment = Some(Arc::clone(&segments[index]));
        None
    }

    /// Passes what lies before sequence number `next`, as flows that were examined.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Lets go of the memory under the cursor: a reader that pauses must not keep what the store has freed.
    pub fn park(&mut self) {
        self.segment = None;
    }
}

/// Where a walk back from the newest flow stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The sequence number to start reading at.
    pub start: u64,
    /// The sequence number after the newest flow when the walk began.
    pub end: u64,
}

impl Store {
    /// Walks back from the newest flow until `visit` breaks, and starts *at* that flow if it breaks with `true`, after
    /// it if with `false`. Without a break, the start is the oldest flow. Visited are those that `select` marks: the
    /// lowest bit stands for the first flow of a lot.
    pub fn rewind(
        &self,
        mut select: impl FnMut(&Lot<'_>) -> u64,
        mut visit: impl FnMut(Stored<'_>) -> ControlFlow<bool>,
    ) -> Rewind {
        // Head before list: the list then reaches at least to that head.
        let end = self.head();
        let segments = self.segments.load_full();
        let oldest = segments.first().map_or(0, |segment| segment.base());
        for segment in segments.iter().rev() {
            // What became readable after the head was read is left out.
            for block in segment.blocks().rev().filter(|block| block.base() < end) {
                for lot in segment.lots(block) {
                    let mut selected = select(&lot);
                    while let Some(place) = selected.checked_ilog2() {
                        selected ^= 1 << place;
                        let stored = lot.get(place as usize);
                        if let ControlFlow::Break(included) = visit(stored) {
                            return Rewind { start: stored.sequence + u64::from(!included), end };
                        }
                    }
                }
            }
        }
        Rewind { start: oldest.min(end), end }
    }

    /// A start before which no flow is from `since` or later. Times may go back, where the wall clock was set back, so
    /// there may be older flows behind it.
    pub fn rewind_to(&self, since: i64) -> Rewind {
        let end = self.head();
        let segments = self.segments.load();
        let first = segments.iter().find(|segment| segment.newest() >= since);
        Rewind { start: first.map_or(end, |segment| segment.base()).min(end), end }
    }
}

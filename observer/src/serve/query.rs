//! What a GetFlows request selects: where reading starts, what passes, when it ends.

use super::view::{NodeView, View};
use crate::{
    flow::Flow,
    store::{Cursor, Rewind, Step, Store, Stored},
};
use observer_proto::filter::Matcher;
use std::{ops::ControlFlow, sync::Arc};

/// A checked request; times are Unix times in nanoseconds.
#[derive(Debug)]
pub struct Query {
    /// How many flows; 0 = no limit.
    pub number: u64,
    /// Count `number` from the oldest flow on.
    pub first: bool,
    /// Go on with new flows.
    pub follow: bool,
    /// Nothing older.
    pub since: Option<i64>,
    /// Nothing newer.
    pub until: Option<i64>,
    /// What passes.
    pub filter: Matcher,
    /// The node, for the filter.
    pub node: Arc<NodeView>,
}

impl Query {
    fn passes(&mut self, stored: Stored<'_>) -> bool {
        self.filter.matches(&View { stored, node: &self.node })
    }

    /// `since` decides over `number`, as in Hubble. What passes on the way goes to `found`.
    fn rewind(&mut self, store: &Store, found: &mut Found) -> Rewind {
        if self.follow && self.number == 0 && self.since.is_none() {
            let end = store.seen();
            return Rewind { start: end, end };
        }
        if let Some(since) = self.since {
            return store.rewind_to(since);
        }
        if self.first || self.number == 0 {
            let end = store.seen();
            return Rewind { start: store.oldest().min(end), end };
        }
        // A flow past `until` ends a stream, also one that the filter doesn't pass: each must be looked at.
        found.overflown = self.until.is_some();
        let mut left = self.number;
        let rewind = store.rewind(|stored| {
            if self.passes(stored) {
                left -= 1;
                found.push(stored.sequence);
            }
            if left == 0 { ControlFlow::Break(true) } else { ControlFlow::Continue(()) }
        });
        found.end = rewind.end;
        rewind
    }
}

/// The flows that a walk back from the newest found to pass, newest first: what lies between needs no second look.
#[derive(Debug, Default)]
struct Found {
    sequences: Vec<u64>,
    /// Nothing is known of this one and later ones.
    end: u64,
    /// Nothing is known at all.
    overflown: bool,
}

impl Found {
    /// Of more than a selective filter finds a second look costs less than what the client gets.
    const MOST: usize = 4096;

    fn push(&mut self, sequence: u64) {
        self.overflown |= self.sequences.len() == Self::MOST;
        if self.overflown {
            self.sequences = Vec::new();
        } else {
            self.sequences.push(sequence);
        }
    }

    /// The first flow at or after `position` that may pass.
    fn next(&mut self, position: u64) -> u64 {
        if self.overflown || position >= self.end {
            return position;
        }
        while self.sequences.last().is_some_and(|sequence| *sequence < position) {
            self.sequences.pop();
        }
        self.sequences.last().copied().unwrap_or(self.end)
    }
}

/// Reads what a query selects.
#[derive(Debug)]
pub struct Reader {
    query: Query,
    cursor: Cursor,
    found: Found,
    /// Where a request that doesn't follow ends: what was there when it came.
    end: Option<u64>,
    /// Sequence number after what was there when the request came.
    history: u64,
    /// A flow newer than `until` was met.
    late: bool,
    left: Option<u64>,
}

/// What reading came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A flow, already given away.
    Flow,
    /// A flow that doesn't pass.
    Skipped,
    /// So many flows were overwritten before they were read.
    Lost(u64),
    /// Nothing newer yet.
    Pause,
    /// The request is answered.
    Done,
}

impl Reader {
    /// Finds the start.
    pub fn new(mut query: Query, store: &Arc<Store>) -> Self {
        let mut found = Found::default();
        let Rewind { start, end } = query.rewind(store, &mut found);
        Self {
            cursor: Cursor::new(Arc::clone(store), start),
            found,
            end: (!query.follow).then_some(end),
            history: end,
            late: false,
            left: (!query.follow && query.number > 0).then_some(query.number),
            query,
        }
    }

    /// Moves one slot; a flow that passes goes to `give`.
    pub fn next(&mut self, give: impl FnOnce(u64, &Flow)) -> Item {
        self.cursor.skip_to(self.found.next(self.cursor.position()));
        let position = self.cursor.position();
        if self.left == Some(0)
            || self.end.is_some_and(|end| position >= end)
            || (self.late && position >= self.history)
        {
            return Item::Done;
        }
        match self.cursor.step() {
            Step::End => Item::Pause,
            Step::Lost(count) => {
                // What was lost past the end was not asked for.
                let from = self.cursor.position() - count;
                Item::Lost(self.end.map_or(count, |end| count.min(end - from)))
            }
            Step::Flow(stored) => {
                let Stored { sequence, flow, .. } = stored;
                if self.query.since.is_some_and(|since| flow.time_ns < since) {
                    return Item::Skipped;
                }
                // In what was there already older ones may follow, where the wall clock was set back.
                if self.query.until.is_some_and(|until| flow.time_ns > until) {
                    self.late = true;
                    return Item::Skipped;
                }
                if !self.query.passes(stored) {
                    return Item::Skipped;
                }
                self.left = self.left.map(|left| left - 1);
                give(sequence, flow);
                Item::Flow
            }
        }
    }

    /// Sequence number of the next slot.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Lets go of the store's memory before a wait.
    pub fn park(&mut self) {
        self.cursor.park();
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;

//! What a GetFlows request selects: where reading starts, what passes, when it ends.

use super::{
    past::{Past, PastError},
    view::{NodeView, View},
};
use crate::{
    endpoint::Endpoint,
    flow::Flow,
    history::History,
    store::{Cursor, Lot, Rewind, Step, Store},
};
use observer_proto::filter::{Columns, Matcher, mark};
use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

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
    pub filter: Selector,
}

/// A filter over the store.
#[derive(Clone, Debug)]
pub struct Selector {
    matcher: Matcher,
    node: NodeView,
    /// Of the list of ends with this id so many were learned.
    learned: Option<(u64, usize)>,
    /// Flows that lie together in memory, of which none passes.
    barren: Range<u64>,
}

impl Selector {
    /// `node` is the node, for the filter.
    pub fn new(matcher: Matcher, node: NodeView) -> Self {
        Self { matcher, node, learned: None, barren: 0..0 }
    }

    /// Whether every flow passes.
    pub fn pass_all(&self) -> bool {
        self.matcher.pass_all()
    }

    /// Whether any of some flows may pass, by their ends and columns.
    pub fn may_pass(&mut self, ends: &[Arc<Endpoint>], columns: &Columns<'_>) -> bool {
        if self.matcher.asks_about_ends() {
            self.matcher.learn(ends.iter().map(|end| (mark(&end.namespace, &end.pod_name), &**end)));
        }
        self.matcher.look_ahead(columns)
    }

    /// Which flows of the lot pass: the lowest bit is the first one's answer.
    pub fn select(&mut self, lot: &Lot<'_>) -> u64 {
        let Self { matcher, node, learned, barren } = self;
        // All of it: of flows that were read back from the disk others lie together than in the store.
        if barren.start <= lot.first() && lot.first() + lot.count() as u64 <= barren.end {
            return 0;
        }
        let ends = lot.ends();
        if matcher.asks_about_ends() && *learned != Some((ends.id(), ends.count())) {
            let known = learned.filter(|(id, _)| *id == ends.id()).map_or(0, |(_, count)| count);
            *learned = Some((ends.id(), ends.count()));
            matcher.learn(ends.from(known));
        }
        if let Some((columns, flows)) = lot.columns_ahead()
            && !matcher.look_ahead(&columns)
        {
            *barren = flows;
            return 0;
        }
        let node = node.now();
        matcher.select(&lot.columns(), |place| View { stored: lot.get(place), node })
    }
}

impl Query {
    /// `since` decides over `number`, as in Hubble. What passes on the way goes to `found`.
    fn rewind(&mut self, store: &Store, found: &mut Found) -> Rewind {
        if self.follow && self.number == 0 && self.since.is_none() {
            let end = store.head();
            return Rewind { start: end, end };
        }
        if let Some(since) = self.since {
            return store.rewind_to(since);
        }
        if self.first || self.number == 0 {
            let end = store.head();
            return Rewind { start: store.oldest().min(end), end };
        }
        // A flow past `until` ends a stream, also one that the filter doesn't pass: each must be looked at.
        found.overflown = self.until.is_some();
        let mut left = self.number;
        let rewind = store.rewind(
            |lot| self.filter.select(lot),
            |stored| {
                left -= 1;
                found.push(stored.sequence);
                if left == 0 { ControlFlow::Break(true) } else { ControlFlow::Continue(()) }
            },
        );
        (found.begin, found.end, found.missing) = (rewind.start, rewind.end, left);
        rewind
    }
}

/// The flows that a walk back from the newest found to pass, newest first: what lies between needs no second look.
#[derive(Debug, Default)]
struct Found {
    sequences: Vec<u64>,
    /// Nothing is known of earlier ones.
    begin: u64,
    /// So many more were asked for.
    missing: u64,
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

    /// Whether the flow at this position is one of them, after [`Found::next`].
    fn is_next(&self, position: u64) -> bool {
        !self.overflown && self.sequences.last() == Some(&position)
    }

    /// The first flow at or after `position` that may pass.
    fn next(&mut self, position: u64) -> u64 {
        if self.overflown || position < self.begin || position >= self.end {
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
    /// In the store.
    cursor: Cursor,
    /// For flows that the store has no more, where they are kept.
    past: Option<Past>,
    found: Found,
    /// Where a request that doesn't follow ends: what was there when it came.
    end: Option<u64>,
    /// Sequence number after what was there when the request came.
    history: u64,
    /// A flow newer than `until` was met.
    late: bool,
    left: Option<u64>,
    selected: Selected,
}

/// What of the lot that was asked about last passes.
#[derive(Debug, Default)]
struct Selected {
    /// Sequence number of the first.
    first: u64,
    /// From there on.
    passing: u64,
    count: u64,
}

impl Selected {
    /// From this flow on, which is the lowest bit, and how many there are; nothing where it is not in the lot.
    fn from(&self, position: u64) -> Option<(u64, u64)> {
        let place = position.checked_sub(self.first).filter(|place| *place < self.count)?;
        Some((self.passing >> place, self.count - place))
    }
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
    /// What is next is on the disk: [`Reader::load`].
    Past,
    /// The request is answered.
    Done,
}

impl Reader {
    /// Finds the start.
    pub fn new(mut query: Query, store: &Arc<Store>, history: Option<&Arc<History>>) -> Self {
        let mut found = Found::default();
        let Rewind { mut start, end } = query.rewind(store, &mut found);
        let past = history.map(|history| {
            let mut past = Past::new(Arc::clone(history), query.filter.clone());
            start = past.begin(&query, store, start, found.missing);
            past
        });
        Self {
            cursor: Cursor::new(Arc::clone(store), start),
            past,
            found,
            end: (!query.follow).then_some(end),
            history: end,
            late: false,
            left: (!query.follow && query.number > 0).then_some(query.number),
            query,
            selected: Selected::default(),
        }
    }

    /// Where flows are read.
    fn cursor(&mut self) -> &mut Cursor {
        match &mut self.past {
            Some(Past { piece: Some(piece), .. }) => piece,
            _ => &mut self.cursor,
        }
    }

    fn is_in_store(&self) -> bool {
        self.past.as_ref().is_none_or(|past| past.piece.is_none())
    }

    /// Whether the next flow passes; steps over those before the one that does.
    fn passes(&mut self, position: u64) -> bool {
        if self.query.filter.pass_all() || (self.is_in_store() && self.found.is_next(position)) {
            return true;
        }
        if self.selected.from(position).is_none() {
            let Self { query, cursor, past, .. } = self;
            let cursor = past.as_mut().and_then(|past| past.piece.as_mut()).unwrap_or(cursor);
            if let Some(lot) = cursor.lot() {
                let (first, count) = (lot.first(), lot.count() as u64);
                self.selected = Selected { first, passing: query.filter.select(&lot), count };
            }
        }
        let (passing, count) = self.selected.from(position).unwrap_or_default();
        // Each is to be looked at where one past `until` ends the stream.
        if passing & 1 == 0 && self.query.until.is_none() {
            self.cursor().skip_to(position + count.min(passing.trailing_zeros().into()));
        }
        passing & 1 == 1
    }

    fn is_over(&self, position: u64) -> bool {
        self.left == Some(0)
            || self.end.is_some_and(|end| position >= end)
            || (self.late && position >= self.history)
    }

    /// Whether what is next is on the disk.
    pub fn wants_past(&self) -> bool {
        let Some(past) = self.past.as_ref().filter(|past| past.piece.is_none()) else { return false };
        let position = self.cursor.position();
        past.seeks_start() || (position < self.cursor.store().oldest() && !self.is_over(position))
    }

    /// Reads the next flows from the disk, as many as are together there.
    ///
    /// # Errors
    ///
    /// Too many do so, or it fails.
    pub async fn load(&mut self) -> Result<(), PastError> {
        let Self { past: Some(past), cursor, end, query, history, .. } = self else { return Ok(()) };
        match past.load(cursor, *end, (query.since, query.until)).await {
            // A follower that is too slow loses, as it does where nothing is kept.
            Err(PastError::TooMany) if query.follow && cursor.position() >= *history => {
                past.lose(cursor);
                Ok(())
            }
            loaded => loaded,
        }
    }

    /// Goes on behind a piece that is read.
    fn leave_piece(&mut self) {
        let Self { past: Some(past), cursor, .. } = self else { return };
        if let Some(end) = past.leave() {
            cursor.skip_to(end);
            if cursor.position() >= cursor.store().oldest() {
                past.rest();
            }
        }
    }

    /// Moves one slot, or over some that don't pass; a flow that passes goes to `give`.
    pub fn next(&mut self, give: impl FnOnce(u64, &Flow<'_>)) -> Item {
        if self.past.is_some() {
            self.leave_piece();
            if let Some(lost) = self.past.as_mut().and_then(Past::take_lost) {
                return Item::Lost(lost);
            }
            if self.past.as_ref().is_some_and(Past::seeks_start) {
                return Item::Past;
            }
        }
        if self.is_in_store() {
            self.cursor.skip_to(self.found.next(self.cursor.position()));
        }
        let position = self.position();
        if self.is_over(position) {
            return Item::Done;
        }
        let passes = self.passes(position);
        if self.position() != position {
            return Item::Skipped;
        }
        let Self { cursor, past, query, late, left, end, .. } = self;
        let keeps = past.is_some();
        let cursor = past.as_mut().and_then(|past| past.piece.as_mut()).unwrap_or(cursor);
        match cursor.step() {
            Step::End => Item::Pause,
            Step::Lost(count) => {
                let from = cursor.position() - count;
                if keeps {
                    // Overwritten just now: it is in a piece.
                    *cursor = Cursor::new(Arc::clone(cursor.store()), from);
                    return Item::Past;
                }
                // What was lost past the end was not asked for.
                Item::Lost(end.map_or(count, |end| count.min(end - from)))
            }
            Step::Flow(stored) => {
                let time_ns = stored.record().time_ns;
                if query.since.is_some_and(|since| time_ns < since) {
                    return Item::Skipped;
                }
                // In what was there already older ones may follow, where the wall clock was set back.
                if query.until.is_some_and(|until| time_ns > until) {
                    *late = true;
                    return Item::Skipped;
                }
                if !passes {
                    return Item::Skipped;
                }
                *left = left.map(|left| left - 1);
                give(stored.sequence, &stored.flow());
                Item::Flow
            }
        }
    }

    /// Whether it gives every new flow from here on: what many readers may have in common.
    pub fn gives_all(&self) -> bool {
        let Query { follow, since, until, filter, .. } = &self.query;
        let range = since.is_some() || until.is_some();
        *follow && !range && filter.pass_all() && self.is_in_store() && self.cursor.position() >= self.history
    }

    /// Passes what lies before sequence number `next`, as flows that were given.
    pub fn skip_to(&mut self, next: u64) {
        self.cursor().skip_to(next);
    }

    /// Sequence number of the next slot.
    pub fn position(&self) -> u64 {
        match &self.past {
            Some(Past { piece: Some(piece), .. }) => piece.position(),
            _ => self.cursor.position(),
        }
    }

    /// Lets go of the store's memory before a wait.
    pub fn park(&mut self) {
        self.cursor.park();
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;

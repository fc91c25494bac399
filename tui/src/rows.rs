//! The flows that are kept: bounded by number and by bytes, and still encoded, so that only those on the screen cost more
//! than a copy.

use observer_proto::{
    encoded::{Held, Outline},
    observer::GetFlowsResponse,
};
use prost::Message as _;
use prost_types::Timestamp;
use std::collections::VecDeque;

/// Rows kept.
pub const MOST_ROWS: usize = 10_000;
/// Bytes of rows kept.
pub(crate) const MOST_BYTES: usize = 32 * 1024 * 1024;

/// What stands in a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// A flow, in its encoded response.
    Flow(Box<[u8]>),
    /// Events that were lost, in their encoded response.
    Lost(Box<[u8]>),
    /// What else should be known at this place: gaps, states of nodes.
    Note(String),
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Counts rows; the selection goes by it.
    pub seq: u64,
    /// Its own time.
    pub time: Option<Timestamp>,
    /// What it is.
    pub body: Body,
}

impl Row {
    /// The response in it.
    pub(crate) fn response(&self) -> Option<GetFlowsResponse> {
        match &self.body {
            Body::Flow(bytes) | Body::Lost(bytes) => GetFlowsResponse::decode(&bytes[..]).ok(),
            Body::Note(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        let body = match &self.body {
            Body::Flow(bytes) | Body::Lost(bytes) => bytes.len(),
            Body::Note(text) => text.len(),
        };
        body + size_of::<Self>()
    }
}

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Those that can be seen.
    shown: VecDeque<Row>,
    /// Those that came since the view was paused.
    waiting: VecDeque<Row>,
    /// The first row that a paused view needs.
    paused_from: Option<u64>,
    pub(crate) bytes: usize,
    next: u64,
    /// Rows that came and went while the view was paused.
    passed: u64,
}

impl Rows {
    /// Adds a row at the end.
    pub(crate) fn push(&mut self, time: Option<Timestamp>, body: Body) {
        let row = Row { seq: self.next, time, body };
        self.next += 1;
        self.bytes += row.bytes();
        if self.paused_from.is_some() { &mut self.waiting } else { &mut self.shown }.push_back(row);
        while self.shown.len() + self.waiting.len() > MOST_ROWS || self.bytes > MOST_BYTES {
            self.evict();
        }
    }

    /// Adds a response as it came; whether it is a flow.
    pub(crate) fn response(&mut self, response: &[u8], outline: &Outline<'_>) -> bool {
        let body = match outline.held {
            Held::Flow => Body::Flow(response.into()),
            Held::LostEvents => Body::Lost(response.into()),
            Held::NodeStatus | Held::Nothing => return false,
        };
        self.push(outline.time, body);
        outline.held == Held::Flow
    }

    fn evict(&mut self) {
        let is_needed = |row: &Row| self.paused_from.is_some_and(|from| row.seq >= from);
        let gone = match self.shown.front() {
            Some(row) if !is_needed(row) || self.waiting.is_empty() => self.shown.pop_front(),
            _ => {
                self.passed += 1;
                self.waiting.pop_front()
            }
        };
        self.bytes -= gone.map_or(0, |row| row.bytes());
    }

    /// From now on rows wait. The view shows rows from this number on.
    pub(crate) fn pause(&mut self, from: u64) {
        self.paused_from = Some(from);
    }

    /// Rows wait no longer.
    pub(crate) fn resume(&mut self) {
        self.paused_from = None;
        if self.passed > 0 {
            let text = format!("{} rows passed here while paused; they are not kept", self.passed);
            // Between what was shown and what is left of those that waited: numbers there are free.
            let seq = self.waiting.front().map_or(self.next, |row| row.seq) - 1;
            let row = Row { seq, time: None, body: Body::Note(text) };
            self.bytes += row.bytes();
            self.shown.push_back(row);
            self.passed = 0;
        }
        self.shown.append(&mut self.waiting);
    }

    /// Rows that came since the pause.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64 + self.passed
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// Those that can be seen, the oldest first.
    pub(crate) fn shown(&self) -> &VecDeque<Row> {
        &self.shown
    }

    /// All that came and are kept from this number on.
    pub(crate) fn since(&self, seq: u64) -> impl Iterator<Item = &Row> {
        let from = |rows: &VecDeque<Row>| rows.partition_point(|row| row.seq < seq);
        self.shown.range(from(&self.shown)..).chain(self.waiting.range(from(&self.waiting)..))
    }

    /// One of those that can be seen.
    pub(crate) fn get(&self, seq: u64) -> Option<&Row> {
        let at = self.shown.partition_point(|row| row.seq < seq);
        self.shown.get(at).filter(|row| row.seq == seq)
    }

    /// What the next row will have as its number.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(rows: &mut Rows, bytes: usize) {
        rows.push(None, Body::Note("x".repeat(bytes)));
    }

    #[test]
    fn rows_and_bytes_have_a_bound() {
        let mut rows = Rows::default();
        (0..MOST_ROWS + 10).for_each(|_| note(&mut rows, 1));
        assert_eq!((rows.shown().len(), rows.shown()[0].seq), (MOST_ROWS, 10));
        (0..9).for_each(|_| note(&mut rows, MOST_BYTES / 8));
        assert!(rows.bytes <= MOST_BYTES, "{}", rows.bytes);
        assert_eq!(rows.bytes, rows.since(0).map(Row::bytes).sum::<usize>());
        rows.clear();
        assert_eq!((rows.bytes, rows.shown().len()), (0, 0));
    }

    #[test]
    fn a_paused_view_keeps_its_rows_and_tells_what_passed() {
        let mut rows = Rows::default();
        (0..100).for_each(|_| note(&mut rows, 1));
        rows.pause(60);
        (0..MOST_ROWS).for_each(|_| note(&mut rows, 1));
        assert_eq!(rows.waiting(), MOST_ROWS as u64);
        assert_eq!(rows.shown().iter().map(|row| row.seq).collect::<Vec<_>>(), (60..100).collect::<Vec<_>>());
        rows.resume();
        assert!(rows.shown().iter().is_sorted_by_key(|row| row.seq));
        let told = rows.shown().iter().find(|row| row.seq > 99).unwrap();
        assert_eq!(told.body, Body::Note("40 rows passed here while paused; they are not kept".to_owned()));
        assert_eq!(rows.waiting(), 0);
    }
}

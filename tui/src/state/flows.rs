//! Where the user is among the flows, and which of them are shown.

use crate::{
    rows::{Row, Rows},
    state::Look,
    views::flows,
};
use std::collections::VecDeque;

/// Rows that are searched at once.
const SLICE: usize = 64;

/// The place in the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flows {
    /// The selected row; none: the last.
    pub selected: Option<u64>,
    /// The first row on the screen; none: so that the last is at its foot.
    pub top: Option<u64>,
    /// The view stands still.
    pub is_paused: bool,
    /// The first row that came after the user moved away from the end.
    pub seen: u64,
    /// Which field the cursor is on.
    pub field: usize,
    matching: Option<Matching>,
}

/// The rows in which the words stand, as far as they were searched.
#[derive(Clone, Debug, Default)]
struct Matching {
    seqs: VecDeque<u64>,
    next: u64,
}

/// The rows that are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    rows: &'a Rows,
    matching: Option<&'a VecDeque<u64>>,
}

impl<'a> List<'a> {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.matching.map_or(self.rows.shown().len(), VecDeque::len)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub(crate) fn get(&self, at: usize) -> Option<&'a Row> {
        match self.matching {
            Some(seqs) => self.rows.get(*seqs.get(at)?),
            None => self.rows.shown().get(at),
        }
    }

    /// Where a row is, or the next after it.
    pub(crate) fn place(&self, seq: u64) -> usize {
        match self.matching {
            Some(seqs) => seqs.partition_point(|own| *own < seq),
            None => self.rows.shown().partition_point(|row| row.seq < seq),
        }
    }
}

impl Flows {
    /// The rows that are shown.
    pub(crate) fn list<'a>(&'a self, rows: &'a Rows) -> List<'a> {
        List { rows, matching: self.matching.as_ref().map(|matching| &matching.seqs) }
    }

    /// The first row on the screen and the selected one, by their places.
    pub(crate) fn places(&self, rows: &Rows, room: usize) -> (usize, usize) {
        let list = self.list(rows);
        let newest = list.len().saturating_sub(1);
        let end = list.len().saturating_sub(room);
        let top = self.top.map_or(end, |seq| list.place(seq).min(end));
        let selected = self.selected.map_or(newest, |seq| list.place(seq).min(newest));
        (top.min(selected).max((selected + 1).saturating_sub(room)), selected)
    }

    /// Moves the selection; at the end it follows again.
    pub(crate) fn go(&mut self, rows: &Rows, room: usize, place: impl FnOnce(usize, usize) -> usize) {
        let (top, selected) = self.places(rows, room);
        let list = self.list(rows);
        let Some(newest) = list.len().checked_sub(1) else { return };
        let to = place(selected, newest).min(newest);
        let top = crate::grid::first_shown(top, to, room, list.len());
        let seq = |at: usize| list.get(at).map(|row| row.seq);
        let (selected, top) = (seq(to), seq(top));
        if self.top.is_none() {
            self.seen = rows.next();
        }
        (self.selected, self.top) = (selected, top);
    }

    /// Back to the end.
    pub(crate) fn follow(&mut self) {
        (self.selected, self.top, self.is_paused) = (None, None, false);
    }

    /// Searches from the beginning.
    pub(crate) fn search(&mut self, words: &[String]) {
        self.matching = (!words.is_empty()).then(Matching::default);
        self.follow();
    }

    /// Whether rows are not searched yet.
    pub(crate) fn is_behind(&self, rows: &Rows) -> bool {
        let last = rows.shown().back().map_or(0, |row| row.seq + 1);
        self.matching.as_ref().is_some_and(|matching| matching.next < last)
    }

    /// Searches some rows; whether it found any.
    pub(crate) fn slice(&mut self, rows: &Rows, words: &[String], look: &Look) -> bool {
        let Some(matching) = &mut self.matching else { return false };
        let first = rows.shown().front().map_or(u64::MAX, |row| row.seq);
        let gone = matching.seqs.partition_point(|seq| *seq < first);
        matching.seqs.drain(..gone);
        let from = rows.shown().partition_point(|row| row.seq < matching.next);
        let before = matching.seqs.len();
        for row in rows.shown().range(from..).take(SLICE) {
            matching.next = row.seq + 1;
            let text = flows::text(row, look).to_lowercase();
            if words.iter().all(|word| text.contains(word.as_str())) {
                matching.seqs.push_back(row.seq);
            }
        }
        before != matching.seqs.len()
    }
}

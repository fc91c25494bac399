//! Flows that the store has no more, from the history's pieces: one piece at a time is in memory, and the next is read when
//! the client has taken it. Disks are waited for in threads of their own.

use super::query::{Query, Selector};
use crate::{
    history::{History, KnownEnds},
    store::{Cursor, Store},
};
use std::{ops::ControlFlow, sync::Arc};
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};
use tonic::{Code, Status};

/// Pieces that are looked at before it is asked whether somebody still waits: some 100 ms.
const TURN: usize = 32;

/// Why nothing is read of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// Too many readers have a piece in memory.
    #[error("too many streams read flows of the past from the disk: try again later")]
    TooMany,
    /// A fault of the daemon's.
    #[error("reading flows of the past failed")]
    Failed,
}

impl From<PastError> for Status {
    fn from(error: PastError) -> Self {
        let code = if error == PastError::TooMany { Code::ResourceExhausted } else { Code::Internal };
        Self::new(code, error.to_string())
    }
}

/// A reader's way through the history.
#[derive(Debug)]
pub(super) struct Past {
    history: Arc<History>,
    /// In the piece that is in memory, if one is.
    pub(super) piece: Option<Cursor>,
    /// Of a request that counts from the newest: what is still to be found before this number.
    back: Option<Back>,
    /// With the search, while one is under way.
    work: Option<Work>,
    permit: Option<OwnedSemaphorePermit>,
    /// Flows that are in no piece, though they should be.
    lost: u64,
}

/// Times that flows are to be within: since and until.
pub(super) type Window = (Option<i64>, Option<i64>);

#[derive(Clone, Copy, Debug)]
struct Back {
    before: u64,
    missing: u64,
}

/// What goes with a search from thread to thread.
#[derive(Debug)]
struct Work {
    filter: Selector,
    known: KnownEnds,
}

/// Where a search forward has come to.
#[derive(Debug, Default)]
struct Found {
    position: u64,
    lost: u64,
    piece: Option<Arc<Store>>,
    /// There are more pieces to look at.
    goes_on: bool,
}

impl Past {
    pub(super) fn new(history: Arc<History>, filter: Selector) -> Self {
        let work = Work { filter, known: KnownEnds::default() };
        Self { history, piece: None, back: None, work: Some(work), permit: None, lost: 0 }
    }

    /// Where the request begins that would begin at `start` in the store, where `missing` of the flows it counts are not.
    pub(super) fn begin(&mut self, query: &Query, store: &Store, start: u64, missing: u64) -> u64 {
        let Self { history, back, .. } = self;
        // What has no piece yet, and is not in the store any more.
        let unsealed = Some(history.sealed()).filter(|sealed| *sealed < store.oldest());
        let earliest = |from: Option<u64>| from.into_iter().chain(unsealed).fold(start, u64::min);
        if let Some(since) = query.since {
            // Of what is in the store it knows better.
            return earliest(history.start_of(since).filter(|from| *from < store.oldest()));
        }
        if query.first || (query.number == 0 && !query.follow) {
            return earliest(history.oldest());
        }
        if missing == 0 {
            return start;
        }
        if missing >= history.count(0, start) && unsealed.is_none() {
            return earliest(history.oldest());
        }
        *back = Some(Back { before: start, missing });
        start
    }

    /// Whether it is still to be found out where to begin.
    pub(super) fn seeks_start(&self) -> bool {
        self.back.is_some()
    }

    pub(super) fn take_lost(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.lost)).filter(|lost| *lost > 0)
    }

    /// Lets go of a piece that is read; the number of the flow behind it.
    pub(super) fn leave(&mut self) -> Option<u64> {
        let end = self.piece.as_ref().map(|piece| piece.store().head())?;
        self.piece.take_if(|piece| piece.position() >= end).map(|_| end)
    }

    /// Nothing is read from the disk for now.
    pub(super) fn rest(&mut self) {
        if self.back.is_none() && self.permit.take().is_some() {
            self.work.iter_mut().for_each(|work| work.known = KnownEnds::default());
        }
    }

    /// What the store has no more is lost.
    pub(super) fn lose(&mut self, cursor: &mut Cursor) {
        let oldest = cursor.store().oldest();
        self.lost += oldest.saturating_sub(cursor.position());
        cursor.skip_to(oldest);
    }

    /// Finds where to begin, or the next piece; `cursor` in the store then stands where the reader is, before the piece.
    pub(super) async fn load(
        &mut self,
        cursor: &mut Cursor,
        end: Option<u64>,
        window: Window,
    ) -> Result<(), PastError> {
        if self.permit.is_none() {
            self.permit = Some(self.history.place().ok_or(PastError::TooMany)?);
        }
        let store = Arc::clone(cursor.store());
        if let Some(mut back) = self.back {
            self.history.seal(store.oldest().min(back.before)).await;
            let start = loop {
                match self.step(move |history, work| work.back(history, back)).await? {
                    ControlFlow::Break(start) => break start,
                    ControlFlow::Continue(left) => back = left,
                }
            };
            self.back = None;
            if start >= store.oldest() {
                self.rest();
            }
            *cursor = Cursor::new(store, start);
            return Ok(());
        }
        let end = end.unwrap_or(u64::MAX);
        let mut found = Found { position: cursor.position(), goes_on: true, ..Found::default() };
        while found.goes_on && found.position < store.oldest() {
            self.history.seal(store.oldest().min(end)).await;
            let position = found.position;
            let search =
                move |history: &History, work: &mut Work| work.search(history, position, end, window);
            let lost = found.lost;
            found = self.step(search).await?;
            found.lost += lost;
        }
        if found.piece.is_none() {
            // Neither has them: the disk took nothing, and the store has other flows by now.
            let missing = store.oldest().min(end).saturating_sub(found.position);
            found.lost += missing;
            found.position += missing;
        }
        self.lost += found.lost;
        cursor.skip_to(found.position);
        if found.piece.is_none() {
            self.rest();
        }
        self.piece = found.piece.map(|piece| Cursor::new(piece, found.position));
        Ok(())
    }

    /// Does something in a thread that may wait for a disk.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&History, &mut Work) -> T + Send + 'static,
    ) -> Result<T, PastError> {
        let mut work = self.work.take().ok_or(PastError::Failed)?;
        let history = Arc::clone(&self.history);
        let done = spawn_blocking(move || (step(&history, &mut work), work)).await;
        let (done, work) = done.map_err(|_| PastError::Failed)?;
        self.work = Some(work);
        Ok(done)
    }
}

impl Work {
    /// The next piece of which a flow may pass.
    fn search(&mut self, history: &History, position: u64, end: u64, (since, until): Window) -> Found {
        let mut found = Found { position, goes_on: true, ..Found::default() };
        for _ in 0..TURN {
            let next = history.next(found.position, end, since, until);
            found.lost += next.lost;
            let Some(location) = next.piece else {
                found.position = found.position.max(history.sealed().min(end));
                found.goes_on = false;
                break;
            };
            let begin = found.position.max(location.base());
            let piece = history.read(&location, &mut self.known);
            let flows = match &piece {
                Some(piece)
                    if !self.filter.pass_all() && !self.filter.may_pass(piece.ends(), &piece.columns()) =>
                {
                    found.position = location.end();
                    continue;
                }
                Some(piece) => history.flows(piece, &location),
                None => None,
            };
            if let Some(flows) = flows {
                (found.position, found.piece, found.goes_on) = (begin, Some(flows), false);
                break;
            }
            // It was removed meanwhile, or is damaged.
            found.position = location.end();
            found.lost += location.end() - begin;
        }
        found
    }

    /// Walks back until nothing is missing: where to begin, or what is left to do.
    fn back(&mut self, history: &History, mut back: Back) -> ControlFlow<u64, Back> {
        for _ in 0..TURN {
            let Some(location) = history.before(back.before) else { return ControlFlow::Break(back.before) };
            let end = location.end().min(back.before);
            let there = end - location.base();
            if self.filter.pass_all() {
                if back.missing <= there {
                    return ControlFlow::Break(end - back.missing);
                }
                back = Back { before: location.base(), missing: back.missing - there };
                continue;
            }
            back.before = location.base();
            let Some(piece) = history.read(&location, &mut self.known) else { continue };
            if !self.filter.may_pass(piece.ends(), &piece.columns()) {
                continue;
            }
            let Some(flows) = history.flows(&piece, &location) else { continue };
            let mut start = None;
            flows.rewind(
                |lot| self.filter.select(lot),
                |stored| {
                    if stored.sequence < end {
                        back.missing -= 1;
                        start = Some(stored.sequence);
                    }
                    if back.missing == 0 { ControlFlow::Break(true) } else { ControlFlow::Continue(()) }
                },
            );
            if let Some(start) = start.filter(|_| back.missing == 0) {
                return ControlFlow::Break(start);
            }
        }
        ControlFlow::Continue(back)
    }
}

//! What following remembers, so that it can go on where a connection broke.

use observer_proto::encoded::{Held, Outline, uuid};
use prost_types::Timestamp;
use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    time::Duration,
};

/// How far apart flows may be told that were at the same time: a server's drops and flows, or a relay's nodes.
const SPREAD: i64 = 5;
/// How many flows are remembered at most; with more within the spread, as many less seconds are asked for again.
const MOST: usize = 65_536;

/// Seconds and nanoseconds.
type Moment = (i64, i32);

/// The flows of the last seconds.
#[derive(Default)]
pub(crate) struct Resume {
    known: VecDeque<(Moment, u64)>,
    ids: HashSet<u64>,
    hasher: RandomState,
    newest: Option<Moment>,
    /// After a new connection, until flows come that are newer than all that were known.
    catching_up: Option<CatchingUp>,
}

struct CatchingUp {
    newest: Option<Moment>,
    /// Whether the server has told what is known: then it has what came after that, too.
    met_known: bool,
}

/// What to do with a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turn {
    Show,
    /// It was shown already.
    Known,
    /// Before it, something may be missing: since the first time, or, without one, since nobody knows when.
    Gap(Option<Timestamp>, Timestamp),
}

impl Resume {
    /// From where to ask again. The answer may begin with flows that are known.
    pub(crate) fn again(&mut self) -> Option<Timestamp> {
        self.catching_up = Some(CatchingUp { newest: self.newest, met_known: false });
        let (seconds, nanos) = self.newest?;
        let spread = (seconds - SPREAD, nanos);
        let first = if self.known.len() < MOST { spread } else { self.known.front()?.0.max(spread) };
        Some(timestamp(first))
    }

    /// Notes a response, and tells what to do with it.
    pub(crate) fn turn(&mut self, outline: &Outline<'_>) -> Turn {
        let (Held::Flow, Some(time)) = (outline.held, outline.time) else { return Turn::Show };
        let moment = (time.seconds, time.nanos);
        let id = match uuid(outline.inner) {
            Ok(uuid) if !uuid.is_empty() => self.hasher.hash_one(uuid),
            _ => self.hasher.hash_one(outline.inner),
        };
        let mut turn = Turn::Show;
        if let Some(catching_up) = &mut self.catching_up {
            let is_past = catching_up.newest.is_some_and(|newest| moment <= newest);
            if is_past && self.ids.contains(&id) {
                catching_up.met_known = true;
                return Turn::Known;
            }
            if !catching_up.met_known {
                // It is told once.
                catching_up.met_known = true;
                turn = Turn::Gap(catching_up.newest.map(timestamp), time);
            }
            if !is_past {
                self.catching_up = None;
            }
        }
        self.remember(moment, id);
        turn
    }

    fn remember(&mut self, moment: Moment, id: u64) {
        let newest = self.newest.map_or(moment, |newest| newest.max(moment));
        self.newest = Some(newest);
        if self.ids.insert(id) {
            self.known.push_back((moment, id));
        }
        let oldest = (newest.0 - SPREAD, newest.1);
        while self.known.len() > MOST || self.known.front().is_some_and(|(moment, _)| *moment < oldest) {
            if let Some((_, id)) = self.known.pop_front() {
                self.ids.remove(&id);
            }
        }
    }
}

fn timestamp((seconds, nanos): Moment) -> Timestamp {
    Timestamp { seconds, nanos }
}

/// How long to wait before the next try: twice as long each time, up to a bound.
#[derive(Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    const STEP: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(10);

    pub(crate) fn next(&mut self) -> Duration {
        let wait = Self::STEP.saturating_mul(1 << self.tries.min(16));
        self.tries = self.tries.saturating_add(1);
        wait.min(Self::CAP)
    }

    /// It went well: the next failure is a new one.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_proto::{encoded::around, flow::Flow};
    use prost::Message as _;

    fn turn(resume: &mut Resume, seconds: i64, uuid: &str) -> Turn {
        let time = Some(Timestamp { seconds, nanos: 0 });
        let response = around(Flow { uuid: uuid.into(), time, ..Flow::default() }).encode_to_vec();
        resume.turn(&Outline::of(&response).unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn known_flows_are_not_shown_again_and_late_ones_are() {
        let mut resume = Resume::default();
        for (seconds, uuid) in [(100, "a"), (102, "b"), (101, "c")] {
            assert_eq!(turn(&mut resume, seconds, uuid), Turn::Show);
        }
        assert_eq!(resume.again(), Some(at(97)));
        for (seconds, uuid, expected) in [
            (100, "a", Turn::Known),
            (101, "late", Turn::Show),
            (102, "b", Turn::Known),
            (103, "new", Turn::Show),
            // Only until then: a flow without an id of its own may come twice.
            (103, "new", Turn::Show),
        ] {
            assert_eq!(turn(&mut resume, seconds, uuid), expected, "{uuid}");
        }
    }

    #[test]
    fn what_the_server_does_not_have_any_more_is_a_gap() {
        let mut resume = Resume::default();
        assert_eq!(turn(&mut resume, 100, "a"), Turn::Show);
        assert_eq!(resume.again(), Some(at(95)));
        assert_eq!(turn(&mut resume, 110, "b"), Turn::Gap(Some(at(100)), at(110)));
        assert_eq!(turn(&mut resume, 111, "c"), Turn::Show);

        let mut resume = Resume::default();
        assert_eq!(resume.again(), None);
        assert_eq!(turn(&mut resume, 110, "b"), Turn::Gap(None, at(110)));
    }

    #[test]
    fn memory_has_a_bound() {
        let mut resume = Resume::default();
        for n in 0..MOST + 10 {
            turn(&mut resume, 100, &n.to_string());
        }
        assert_eq!((resume.known.len(), resume.ids.len()), (MOST, MOST));
        assert_eq!(resume.again(), Some(at(100)));
        turn(&mut resume, 106, "later");
        assert_eq!((resume.known.len(), resume.ids.len()), (1, 1));
    }

    #[test]
    fn waits_grow_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits[..7], [250, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(waits[39], 10_000);
        backoff.reset();
        assert_eq!(backoff.next(), Backoff::STEP);
    }
}

//! Flows' messages, encoded once for all streams that give every flow.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The most bytes kept: of the newest flows, and of those where the streams are that fell behind.
const MOST_BYTES: usize = 4 << 20;

/// Messages of flows where streams have asked for them.
#[derive(Debug)]
pub(super) struct Fanout {
    kept: Mutex<Kept>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the sequence number of the first flow.
    pieces: BTreeMap<u64, Piece>,
    /// In the order in which they were made.
    made: VecDeque<u64>,
    bytes: usize,
}

/// The messages of a few flows.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    /// Where each ends.
    ends: Vec<usize>,
}

/// What is written when a piece is made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Draft {
    /// What was written since the last is one message.
    pub(super) fn end_message(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

impl Piece {
    /// From the flow at this place on, with how many there are.
    fn from(&self, place: u64) -> Option<(Bytes, u64)> {
        let place = usize::try_from(place).ok()?;
        let begin = if place == 0 { 0 } else { *self.ends.get(place - 1)? };
        let count = self.ends.len().checked_sub(place).filter(|count| *count > 0)?;
        Some((self.bytes.slice(begin..), count as u64))
    }
}

impl Default for Fanout {
    fn default() -> Self {
        Self { kept: Mutex::default(), started: Instant::now() }
    }
}

impl Fanout {
    /// Messages of the flows from `sequence` on, and the sequence number after them. Where none are kept `encode` makes
    /// them; nothing where it makes none.
    pub(super) fn take(&self, sequence: u64, encode: impl FnOnce(&mut Draft)) -> Option<(Bytes, u64)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { pieces, made, bytes } = &mut *kept;
        let before = pieces.range(..=sequence).next_back();
        if let Some((taken, count)) = before.and_then(|(first, piece)| piece.from(sequence - first)) {
            return Some((taken, sequence + count));
        }
        let mut draft = Draft::default();
        encode(&mut draft);
        if draft.ends.is_empty() {
            return None;
        }
        let after = sequence + draft.ends.len() as u64;
        let piece = Piece { bytes: draft.bytes.into(), ends: draft.ends };
        let taken = piece.bytes.clone();
        *bytes += taken.len();
        made.push_back(sequence);
        pieces.insert(sequence, piece);
        while *bytes > MOST_BYTES
            && let Some(oldest) = made.pop_front().and_then(|first| pieces.remove(&first))
        {
            *bytes -= oldest.bytes.len();
        }
        Some((taken, after))
    }

    /// When busy streams that flush each `pause` do so next: all at the same time, so that one piece is for all.
    pub(super) fn beat(&self, after: Instant, pause: Duration) -> Instant {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let pause = nanos(pause).max(1);
        let beats = nanos(after.saturating_duration_since(self.started)) / pause + 1;
        self.started + Duration::from_nanos(beats.saturating_mul(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of one byte or a few, that say whose they are.
    fn encode(from: u64, to: u64) -> impl FnOnce(&mut Draft) {
        move |draft| {
            for sequence in from..to {
                draft.bytes.extend(vec![sequence as u8; 1 + sequence as usize % 3]);
                draft.end_message();
            }
        }
    }

    fn never(_: &mut Draft) {
        panic!("encoded a second time");
    }

    fn flows(taken: Option<(Bytes, u64)>) -> (Vec<u8>, u64) {
        let (bytes, after) = taken.expect("nothing taken");
        let mut flows = bytes.to_vec();
        flows.dedup();
        (flows, after)
    }

    #[test]
    fn what_one_has_encoded_others_get_from_any_flow_on() {
        let fanout = Fanout::default();
        assert_eq!(flows(fanout.take(5, encode(5, 9))), (vec![5, 6, 7, 8], 9));
        assert_eq!(flows(fanout.take(9, encode(9, 11))), (vec![9, 10], 11));
        assert_eq!(flows(fanout.take(5, never)), (vec![5, 6, 7, 8], 9));
        assert_eq!(flows(fanout.take(7, never)), (vec![7, 8], 9));
        assert_eq!(flows(fanout.take(10, never)), (vec![10], 11));
        assert_eq!(fanout.take(11, |_| {}), None, "nothing newer");
        // Nobody asked for some.
        assert_eq!(flows(fanout.take(20, encode(20, 22))), (vec![20, 21], 22));
        assert_eq!(flows(fanout.take(10, never)), (vec![10], 11));
    }

    #[test]
    fn those_who_fell_behind_share_as_well() {
        let fanout = Fanout::default();
        assert_eq!(flows(fanout.take(90, encode(90, 93))), (vec![90, 91, 92], 93));
        assert_eq!(flows(fanout.take(20, encode(20, 23))), (vec![20, 21, 22], 23));
        assert_eq!(flows(fanout.take(21, never)), (vec![21, 22], 23));
        // What was made for others may overlap.
        assert_eq!(flows(fanout.take(18, encode(18, 22))), (vec![18, 19, 20, 21], 22));
        assert_eq!(flows(fanout.take(22, never)), (vec![22], 23));
        assert_eq!(flows(fanout.take(91, never)), (vec![91, 92], 93));
    }

    #[test]
    fn busy_streams_flush_together() {
        let fanout = Fanout::default();
        let pause = Duration::from_millis(4);
        for millis in [0, 1, 3] {
            let flushed = fanout.started + Duration::from_millis(1_000_000 * 4 + millis);
            assert_eq!(
                fanout.beat(flushed, pause),
                fanout.started + Duration::from_millis(1_000_000 * 4 + 4)
            );
        }
    }

    #[test]
    fn a_bounded_number_of_bytes_is_kept() {
        let fanout = Fanout::default();
        for sequence in 0..100 {
            let message = vec![0; MOST_BYTES / 16];
            let taken = fanout.take(sequence, |draft| {
                draft.bytes = message;
                draft.end_message();
            });
            assert_eq!(taken.map(|(_, after)| after), Some(sequence + 1));
        }
        let kept = fanout.kept.lock().unwrap();
        assert_eq!((kept.pieces.len(), kept.made.len(), kept.bytes), (16, 16, MOST_BYTES));
    }
}

//! The newest flows' messages, encoded once for all streams that give every flow.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The most bytes kept; who is further behind encodes for itself.
const MOST_BYTES: usize = 1 << 20;

/// Messages of flows in a row, up to the newest that a stream has asked for.
#[derive(Debug, Default)]
pub(super) struct Fanout(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// The messages of a few flows.
#[derive(Debug)]
pub(super) struct Piece {
    /// Sequence number of the first.
    first: u64,
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
    fn after(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// From a flow on that is in it.
    fn from(&self, sequence: u64) -> Option<Bytes> {
        let place = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let begin = if place == 0 { 0 } else { *self.ends.get(place - 1)? };
        (place < self.ends.len()).then(|| self.bytes.slice(begin..))
    }
}

impl Fanout {
    /// Messages of the flows from `sequence` on, and the sequence number after them. Where none are kept yet `encode` makes
    /// them; nothing where they are not kept any more, or where `encode` makes none.
    pub(super) fn take(&self, sequence: u64, encode: impl FnOnce(&mut Draft)) -> Option<(Bytes, u64)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { pieces, bytes } = &mut *kept;
        if let (Some(oldest), Some(newest)) = (pieces.front(), pieces.back())
            && sequence < newest.after()
        {
            let index = pieces.partition_point(|piece| piece.after() <= sequence);
            let piece = pieces.get(index).filter(|_| sequence >= oldest.first)?;
            return Some((piece.from(sequence)?, piece.after()));
        }
        let mut draft = Draft::default();
        encode(&mut draft);
        if draft.ends.is_empty() {
            return None;
        }
        if pieces.back().is_some_and(|newest| newest.after() != sequence) {
            pieces.clear();
            *bytes = 0;
        }
        let piece = Piece { first: sequence, bytes: draft.bytes.into(), ends: draft.ends };
        let taken = (piece.bytes.clone(), piece.after());
        *bytes += piece.bytes.len();
        pieces.push_back(piece);
        while *bytes > MOST_BYTES
            && let Some(oldest) = pieces.pop_front()
        {
            *bytes -= oldest.bytes.len();
        }
        Some(taken)
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
        assert_eq!(fanout.take(4, never), None, "from before the first");
        assert_eq!(fanout.take(11, |_| {}), None, "nothing newer");
        // Nobody asked for some.
        assert_eq!(flows(fanout.take(20, encode(20, 22))), (vec![20, 21], 22));
        assert_eq!(fanout.take(10, never), None);
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
        let kept = fanout.0.lock().unwrap();
        assert_eq!((kept.pieces.len(), kept.bytes), (16, MOST_BYTES));
    }
}

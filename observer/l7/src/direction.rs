//! One direction of a connection: where in its bytes the next head is awaited.

use crate::{MOST_HEAD, chunks::Chunks};

/// The most segments that wait for those before them.
const MOST_EARLY: usize = 16;
/// How long they wait, nanoseconds: longer than a sender takes to send again.
const LONGEST_EARLY_NS: u64 = 1_000_000_000;
/// A body of more bytes is not counted by sequence numbers, which begin again behind 2^32.
const MOST_COUNTED: u64 = 1 << 30;

/// A TCP segment, or a part of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// How many bytes it has.
    pub length: u32,
    /// As many of them as were copied, from the first on.
    pub bytes: &'a [u8],
    /// When it was seen, nanoseconds of any clock.
    pub time_ns: u64,
}

/// What is awaited next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody knows where: a head is looked for where segments begin.
    Begin,
    /// A head, or the rest of one.
    Head,
    /// A head behind so many bytes of a body.
    Body { left: u64 },
    /// A head behind chunks.
    Chunked(Chunks),
    /// A head behind a body whose end can't be known.
    Open,
    /// Nothing any more.
    Closed,
}

impl State {
    pub(crate) fn body(left: u64) -> Self {
        match left {
            0 => Self::Head,
            1..MOST_COUNTED => Self::Body { left },
            _ => Self::Open,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Early {
    sequence: u32,
    length: u32,
    bytes: Box<[u8]>,
    time_ns: u64,
}

impl Early {
    pub(crate) fn segment(&self) -> Segment<'_> {
        Segment { sequence: self.sequence, length: self.length, bytes: &self.bytes, time_ns: self.time_ns }
    }
}

/// What a segment is to what is awaited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed<'a> {
    /// It was seen before, or is of a body.
    Ignored,
    /// It waits for one before it.
    Early,
    /// It begins with what is awaited; behind it so many bytes are missing.
    Next(&'a [u8], u32),
    /// What is awaited is in it, and was not copied.
    Missing,
}

#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) state: State,
    /// Sequence number of the next byte.
    pub(crate) next: u32,
    /// The start of a head.
    pub(crate) head: Vec<u8>,
    early: Vec<Early>,
}

impl Default for Direction {
    fn default() -> Self {
        Self { state: State::Begin, next: 0, head: Vec::new(), early: Vec::new() }
    }
}

impl Direction {
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.head.capacity()
            + self.early.iter().map(|early| size_of::<Early>() + early.bytes.len()).sum::<usize>()
    }

    /// Starts anew, at the next head that begins a segment.
    pub(crate) fn lose(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn close(&mut self) {
        *self = Self { state: State::Closed, ..Self::default() };
    }

    /// `begins` says whether the segment may be the beginning of a head where nobody knows.
    pub(crate) fn place<'a>(&mut self, segment: &Segment<'a>, begins: bool) -> Placed<'a> {
        let awaited = match self.state {
            State::Begin | State::Open if begins => {
                self.state = State::Head;
                self.next = segment.sequence;
                segment.sequence
            }
            State::Begin | State::Open | State::Closed => return Placed::Ignored,
            State::Body { left } => self.next.wrapping_add(left as u32),
            State::Head | State::Chunked(_) => self.next,
        };
        let before = awaited.wrapping_sub(segment.sequence);
        if before as i32 > 0 && before >= segment.length || segment.length == 0 {
            return Placed::Ignored;
        }
        if (before as i32) < 0 {
            return Placed::Early;
        }
        if let State::Body { .. } = self.state {
            self.state = State::Head;
            self.next = awaited;
        }
        match segment.bytes.get(before as usize..) {
            Some([]) | None => Placed::Missing,
            Some(bytes) => Placed::Next(bytes, segment.length.saturating_sub(segment.bytes.len() as u32)),
        }
    }

    /// Keeps a segment until those before it come; false where there is no room.
    pub(crate) fn keep(&mut self, segment: &Segment<'_>) -> bool {
        let has_room = self.early.len() < MOST_EARLY
            && self.early.iter().map(|early| early.bytes.len()).sum::<usize>() < 2 * MOST_HEAD;
        if has_room && !self.early.iter().any(|early| early.sequence == segment.sequence) {
            let Segment { sequence, length, bytes, time_ns } = *segment;
            self.early.push(Early { sequence, length, bytes: bytes.into(), time_ns });
        }
        has_room
    }

    /// Whether one waits too long.
    pub(crate) fn is_late(&self, now_ns: u64) -> bool {
        self.early.iter().any(|early| now_ns.saturating_sub(early.time_ns) > LONGEST_EARLY_NS)
    }

    /// Those that wait, in their order.
    pub(crate) fn take_early(&mut self) -> Vec<Early> {
        let mut early = std::mem::take(&mut self.early);
        let next = self.next;
        early.sort_by_key(|early| early.sequence.wrapping_sub(next) as i32);
        early
    }

    pub(crate) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    pub(crate) fn advance(&mut self, bytes: u32) {
        self.next = self.next.wrapping_add(bytes);
    }
}

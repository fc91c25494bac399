//! The beginning of one TCP connection that speaks TLS: what a client offers, and what its server answers.

use crate::{
    Counters, MOST_HEAD, Segment,
    direction::{Direction, Placed},
    tls::{self, First, NoHello},
};

/// Where beginnings of TLS go.
pub trait TlsTold {
    /// What is kept of a client's hello until its answer.
    type Asked;
    /// A client's hello.
    fn hello(&mut self, hello: First<'_>) -> Self::Asked;
    /// The answer, with the hello that it answers and the nanoseconds since, where that was seen.
    fn answer(&mut self, answer: First<'_>, asked: Option<(Self::Asked, u64)>);
}

/// The connection.
#[derive(Debug)]
pub struct Handshake<A> {
    directions: [Direction; 2],
    /// What was asked, when, and by which direction.
    asked: Option<(A, u64, usize)>,
    is_answered: bool,
}

impl<A> Default for Handshake<A> {
    fn default() -> Self {
        Self { directions: Default::default(), asked: None, is_answered: false }
    }
}

impl<A> Handshake<A> {
    /// Bytes that are kept, by and large.
    pub fn kept(&self) -> usize {
        self.directions.iter().map(Direction::kept).sum()
    }

    /// Whether a hello waits for its answer.
    pub fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether nothing more is to be told of it.
    pub fn is_over(&self) -> bool {
        self.directions.iter().all(Direction::is_closed)
    }

    /// Takes a segment that one of the two ends sent: the first one, or the other.
    pub fn take(
        &mut self,
        by_first: bool,
        segment: &Segment<'_>,
        counters: &mut Counters,
        told: &mut impl TlsTold<Asked = A>,
    ) {
        let place = usize::from(!by_first);
        if self.directions[place].is_late(segment.time_ns) {
            counters.gaps += 1;
            self.directions[place].close();
        }
        self.offer(place, segment, counters, told);
        while self.directions[place].has_early() {
            let before = self.directions[place].next;
            for early in self.directions[place].take_early() {
                self.offer(place, &early.segment(), counters, told);
            }
            if self.directions[place].next == before {
                break;
            }
        }
    }

    fn offer(
        &mut self,
        place: usize,
        segment: &Segment<'_>,
        counters: &mut Counters,
        told: &mut impl TlsTold<Asked = A>,
    ) {
        let direction = &mut self.directions[place];
        let is_missing = match direction.place(segment, tls::begins(segment.bytes)) {
            Placed::Ignored => false,
            Placed::Next(bytes, missing) => {
                return self.read(place, bytes, missing > 0, segment.time_ns, counters, told);
            }
            Placed::Missing => true,
            Placed::Early => !direction.keep(segment),
        };
        if is_missing {
            counters.gaps += 1;
            direction.close();
        }
    }

    fn read(
        &mut self,
        place: usize,
        bytes: &[u8],
        is_cut: bool,
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl TlsTold<Asked = A>,
    ) {
        let direction = &mut self.directions[place];
        let mut stream = std::mem::take(&mut direction.head);
        stream.extend_from_slice(bytes);
        let (asked, is_answered) = (&mut self.asked, &mut self.is_answered);
        let mut understood = |first: First<'_>| match (first, &asked) {
            (First::Client { .. }, None) => {
                counters.requests += 1;
                *asked = Some((told.hello(first), time_ns, place));
                true
            }
            // Both ends are none.
            (First::Client { .. }, Some(_)) => false,
            (_, Some((.., asks))) if *asks == place => false,
            // Nor are both servers.
            _ if *is_answered => false,
            (First::Server { .. } | First::Alert(_), _) => {
                *is_answered = true;
                counters.responses += 1;
                counters.unasked += u64::from(asked.is_none());
                let asked = asked.take();
                told.answer(
                    first,
                    asked.map(|(asked, since_ns, _)| (asked, time_ns.saturating_sub(since_ns))),
                );
                true
            }
        };
        match tls::read(&stream, &mut understood) {
            Ok(true) => {}
            Ok(false) | Err(NoHello::Malformed) => counters.malformed += 1,
            Err(NoHello::TooLong) => counters.too_long += 1,
            Err(NoHello::Partial) if is_cut => counters.gaps += 1,
            Err(NoHello::Partial) if stream.len() >= MOST_HEAD => counters.too_long += 1,
            Err(NoHello::Partial) => {
                direction.advance(bytes.len() as u32);
                direction.head = stream;
                return;
            }
        }
        direction.close();
    }
}

//! One TCP connection that speaks HTTP/1.
//!
//! Which end asks is seen by the first head. A response belongs to the first request that waits; where bytes are missing that
//! may have been a head, that is certain again only if no two requests ever waited at once, and what was missed is answered.

use crate::{
    Counters, MOST_HEAD,
    chunks::{Chunks, Passed},
    direction::{Direction, Placed, Segment, State},
    head::{self, Body, Head, NoHead, Start},
};
use std::collections::VecDeque;

/// The most requests that wait for their responses.
const MOST_ASKED: usize = 64;

/// Where requests and responses go.
pub trait Told {
    /// What is kept of a request until its response.
    type Asked;
    /// A request.
    fn request(&mut self, head: &Head<'_>) -> Self::Asked;
    /// The response to it, so many nanoseconds later.
    fn response(&mut self, head: &Head<'_>, asked: Self::Asked, latency_ns: u64);
}

/// A request that waits.
#[derive(Debug)]
pub struct Asked<A> {
    kept: A,
    time_ns: u64,
    method: Method,
}

/// Those methods by which it depends whether a response has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Head,
    Connect,
    Other,
}

/// The connection.
#[derive(Debug)]
pub struct Connection<A> {
    directions: [Direction; 2],
    /// Which of them has the requests.
    asks: Option<usize>,
    asked: VecDeque<Asked<A>>,
    /// Two requests waited at once.
    pipelines: bool,
    /// There may have been a request that was not seen, and not answered yet.
    missed: bool,
}

impl<A> Default for Connection<A> {
    fn default() -> Self {
        Self {
            directions: Default::default(),
            asks: None,
            asked: VecDeque::new(),
            pipelines: false,
            missed: false,
        }
    }
}

/// What becomes of the rest of a segment.
enum Step {
    /// So many bytes were read.
    Read(usize),
    /// The rest is of no use.
    Done,
}

impl<A> Connection<A> {
    /// Bytes that are kept, by and large.
    pub fn kept(&self) -> usize {
        self.directions.iter().map(Direction::kept).sum::<usize>() + self.asked.len() * size_of::<Asked<A>>()
    }

    /// Requests that wait for their responses.
    pub fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// Whether the side that is called the first sends the requests, if that is known.
    pub fn first_asks(&self) -> Option<bool> {
        self.asks.map(|place| place == 0)
    }

    /// Whether nothing more can be read of it.
    pub fn is_over(&self) -> bool {
        self.directions.iter().all(Direction::is_closed)
    }

    /// Takes a segment that one of the two ends sent: the first one, or the other.
    pub fn take(
        &mut self,
        by_first: bool,
        segment: &Segment<'_>,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) {
        let place = usize::from(!by_first);
        if self.directions[place].is_late(segment.time_ns) {
            counters.gaps += 1;
            self.begin_anew(place, counters, told);
        }
        self.offer(place, segment, counters, told);
        // What waited for it, and what waited for that.
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
        told: &mut impl Told<Asked = A>,
    ) {
        let begins = self.may_begin(place, segment.bytes);
        match self.directions[place].place(segment, begins) {
            Placed::Ignored => {}
            Placed::Next(bytes, missing) => self.read(place, bytes, missing, segment.time_ns, counters, told),
            Placed::Missing => {
                counters.gaps += 1;
                self.lose(place, counters);
            }
            Placed::Early => {
                if !self.directions[place].keep(segment) {
                    counters.gaps += 1;
                    self.begin_anew(place, counters, told);
                }
            }
        }
    }

    /// Gives up what is missing, and goes on with what came behind it.
    fn begin_anew(&mut self, place: usize, counters: &mut Counters, told: &mut impl Told<Asked = A>) {
        let early = self.directions[place].take_early();
        self.lose(place, counters);
        for early in early {
            self.offer(place, &early.segment(), counters, told);
        }
    }

    /// Whether a head may begin here, where nobody knows where one does.
    fn may_begin(&self, place: usize, bytes: &[u8]) -> bool {
        let asks = self.asks.map(|asks| asks == place);
        let is_open = self.directions[place].state == State::Open;
        // Of an open body what looks like a head may be part of it: a request comes when all are answered, a response when
        // another request waits.
        let (is_request, is_response) = beginnings(bytes);
        is_request && asks != Some(false) && (!is_open || self.asked.is_empty())
            || is_response && asks != Some(true) && (!is_open || !self.asked.is_empty())
    }

    fn read(
        &mut self,
        place: usize,
        bytes: &[u8],
        missing: u32,
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let direction = &mut self.directions[place];
            let read = match &mut direction.state {
                State::Head => match self.head(place, rest, time_ns, counters, told) {
                    Step::Read(read) => {
                        rest = &rest[read..];
                        continue;
                    }
                    Step::Done => return,
                },
                State::Body { left } => {
                    let read = (*left).min(rest.len() as u64);
                    direction.state = State::body(*left - read);
                    read as usize
                }
                State::Chunked(chunks) => match chunks.pass(rest) {
                    Passed::All => rest.len(),
                    Passed::End(read) => {
                        direction.state = State::Head;
                        read
                    }
                    Passed::Malformed => {
                        counters.malformed += 1;
                        return self.lose(place, counters);
                    }
                },
                State::Begin | State::Open | State::Closed => return,
            };
            direction.advance(read as u32);
            rest = &rest[read..];
        }
        if missing > 0 {
            self.pass_over(place, missing, counters);
        }
    }

    /// What stands behind the bytes that were read was not copied.
    fn pass_over(&mut self, place: usize, missing: u32, counters: &mut Counters) {
        let direction = &mut self.directions[place];
        match direction.state {
            State::Body { left } if left >= u64::from(missing) => {
                direction.state = State::body(left - u64::from(missing));
                direction.advance(missing);
            }
            // On a connection where responses follow each other the next one's beginning could not be told.
            State::Chunked(_) if !self.pipelines => direction.state = State::Open,
            State::Head | State::Body { .. } | State::Chunked(_) => {
                counters.gaps += 1;
                self.lose(place, counters);
            }
            State::Begin | State::Open | State::Closed => {}
        }
    }

    fn head(
        &mut self,
        place: usize,
        bytes: &[u8],
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) -> Step {
        let direction = &mut self.directions[place];
        let mut kept = std::mem::take(&mut direction.head);
        let before = kept.len();
        let whole = if before == 0 {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let mut fields = [httparse::EMPTY_HEADER; head::MOST_FIELDS];
        // It ends with a line end, so without one it isn't read again.
        let found = if before > 0 && !bytes.contains(&b'\n') {
            Err(NoHead::Partial)
        } else {
            head::read(whole, &mut fields)
        };
        match found {
            Ok(head) if head.length <= MOST_HEAD => {
                let read = head.length - before;
                direction.advance(read as u32);
                self.understood(place, &head, time_ns, counters, told);
                return Step::Read(read);
            }
            Err(NoHead::Partial) if whole.len() < MOST_HEAD => {
                direction.advance(bytes.len() as u32);
                if before == 0 {
                    kept.extend_from_slice(bytes);
                }
                direction.head = kept;
                return Step::Read(bytes.len());
            }
            Ok(_) | Err(NoHead::Partial) => counters.too_long += 1,
            Err(NoHead::Malformed) => counters.malformed += 1,
            Err(NoHead::Http2) => {
                counters.http2 += 1;
                self.close(counters);
                return Step::Done;
            }
        }
        self.lose(place, counters);
        Step::Done
    }

    fn understood(
        &mut self,
        place: usize,
        head: &Head<'_>,
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) {
        let asks = *self.asks.get_or_insert(match head.start {
            Start::Request { .. } => place,
            Start::Response { .. } => 1 - place,
        });
        match head.start {
            Start::Request { method, .. } if asks == place => {
                self.request(place, head, method, time_ns, counters, told);
            }
            Start::Response { code } if asks != place => {
                self.response(place, head, code, time_ns, counters, told);
            }
            _ => {
                counters.malformed += 1;
                self.lose(place, counters);
            }
        }
    }

    fn request(
        &mut self,
        place: usize,
        head: &Head<'_>,
        method: &str,
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) {
        self.pipelines |= !self.asked.is_empty();
        if self.missed || self.asked.len() >= MOST_ASKED {
            return self.give_up(counters);
        }
        let method = match method {
            "HEAD" => Method::Head,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        counters.requests += 1;
        self.asked.push_back(Asked { kept: told.request(head), time_ns, method });
        self.directions[place].state = match head.body {
            Body::Length(length) => State::body(length),
            Body::Chunked => State::Chunked(Chunks::START),
            Body::UntilClose => State::Closed,
        };
    }

    fn response(
        &mut self,
        place: usize,
        head: &Head<'_>,
        code: u16,
        time_ns: u64,
        counters: &mut Counters,
        told: &mut impl Told<Asked = A>,
    ) {
        const SWITCHING: u16 = 101;
        if (100..200).contains(&code) && code != SWITCHING {
            // Another one follows.
            return;
        }
        let Some(asked) = self.asked.pop_front() else {
            counters.unasked += 1;
            self.missed = false;
            // To a HEAD there is no body, whatever the fields say.
            self.directions[place].state = State::Open;
            return;
        };
        counters.responses += 1;
        told.response(head, asked.kept, time_ns.saturating_sub(asked.time_ns));
        if code == SWITCHING || asked.method == Method::Connect && (200..300).contains(&code) {
            return self.close(counters);
        }
        let has_none = asked.method == Method::Head || matches!(code, 204 | 304);
        self.directions[place].state = match head.body {
            _ if has_none => State::Head,
            Body::Length(length) => State::body(length),
            Body::Chunked => State::Chunked(Chunks::START),
            Body::UntilClose => State::Closed,
        };
    }

    /// Bytes of this direction are missing or make no sense.
    fn lose(&mut self, place: usize, counters: &mut Counters) {
        self.directions[place].lose();
        if self.pipelines {
            return self.give_up(counters);
        }
        match self.asks {
            Some(asks) if asks != place => {
                counters.unanswered += self.asked.len() as u64;
                self.asked.clear();
            }
            _ => self.missed = true,
        }
    }

    fn give_up(&mut self, counters: &mut Counters) {
        counters.given_up += 1;
        self.close(counters);
    }

    fn close(&mut self, counters: &mut Counters) {
        counters.unanswered += self.asked.len() as u64;
        self.asked = VecDeque::new();
        self.directions.iter_mut().for_each(Direction::close);
    }
}

/// Whether bytes, as far as they go, begin as a request does, and as a response does.
fn beginnings(bytes: &[u8]) -> (bool, bool) {
    const VERSION: &[u8] = b"HTTP/1.";
    /// The longest that IANA lists, UPDATEREDIRECTREF.
    const LONGEST_METHOD: usize = 17;
    let start = &bytes[..bytes.len().min(VERSION.len())];
    let letters = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    let is_method = (1..=LONGEST_METHOD).contains(&letters);
    let is_request = is_method && bytes.get(letters).is_none_or(|byte| *byte == b' ');
    (is_request, !start.is_empty() && VERSION.starts_with(start))
}

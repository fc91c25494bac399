//! Queries and responses of DNS between two ends, over UDP or TCP.

use crate::{
    Counters, MOST_HEAD, Segment,
    dns::{Malformed, Message},
};
use std::collections::VecDeque;

/// The most queries that wait for their responses.
const MOST_ASKED: usize = 64;

/// Where messages go: with a response the nanoseconds since its query, where that was seen.
pub trait DnsTold {
    /// A message.
    fn message(&mut self, message: &Message<'_>, latency_ns: Option<u64>);
}

/// The messages between two ends.
#[derive(Debug, Default)]
pub struct DnsExchange {
    /// Number of a query, and when it was first seen.
    asked: VecDeque<(u16, u64)>,
    /// Of TCP, by who sends.
    streams: [Stream; 2],
}

/// One direction of TCP.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence number of the next byte, once there was one.
    next: Option<u32>,
    message: Vec<u8>,
}

impl DnsExchange {
    /// Bytes that are kept, by and large.
    pub fn kept(&self) -> usize {
        self.streams.iter().map(|stream| stream.message.capacity()).sum::<usize>()
            + self.asked.capacity() * size_of::<(u16, u64)>()
    }

    /// Takes a datagram.
    pub fn datagram(&mut self, segment: &Segment<'_>, counters: &mut Counters, told: &mut impl DnsTold) {
        if (segment.bytes.len() as u32) < segment.length {
            counters.too_long += 1;
            return;
        }
        self.message(segment.bytes, segment.time_ns, counters, told);
    }

    /// Takes a segment of TCP that the first of the ends sent, or the other. Messages that lie one behind another are each told.
    pub fn segment(
        &mut self,
        by_first: bool,
        segment: &Segment<'_>,
        counters: &mut Counters,
        told: &mut impl DnsTold,
    ) {
        let place = usize::from(!by_first);
        let stream = &mut self.streams[place];
        let next = *stream.next.get_or_insert(segment.sequence);
        let before = next.wrapping_sub(segment.sequence);
        if before as i32 > 0 && before >= segment.length {
            return;
        }
        let is_whole = segment.bytes.len() as u32 >= segment.length;
        let Some(bytes) = segment.bytes.get(before as usize..).filter(|_| is_whole && before as i32 >= 0)
        else {
            // What is missing is not waited for: the next segment is taken for the start of a message.
            counters.gaps += 1;
            *stream = Stream::default();
            return;
        };
        stream.next = Some(next.wrapping_add(bytes.len() as u32));
        let mut message = std::mem::take(&mut stream.message);
        message.extend_from_slice(bytes);
        let mut rest = &message[..];
        while let Some((length, behind)) = rest.split_first_chunk().map(|(l, b)| (u16::from_be_bytes(*l), b))
        {
            if usize::from(length) > MOST_HEAD {
                counters.too_long += 1;
                self.streams[place] = Stream::default();
                return;
            }
            let Some((whole, behind)) = behind.split_at_checked(length.into()) else { break };
            self.message(whole, segment.time_ns, counters, told);
            rest = behind;
        }
        self.streams[place].message = rest.to_vec();
    }

    fn message(&mut self, bytes: &[u8], time_ns: u64, counters: &mut Counters, told: &mut impl DnsTold) {
        let message = match Message::read(bytes) {
            Ok(message) if message.opcode() == 0 && message.questions().next().is_some() => message,
            Ok(_) | Err(Malformed) => {
                counters.malformed += 1;
                return;
            }
        };
        let id = message.id();
        let place = self.asked.iter().position(|(asked, _)| *asked == id);
        if !message.is_response() {
            counters.requests += 1;
            if place.is_none() {
                if self.asked.len() >= MOST_ASKED {
                    self.asked.pop_front();
                    counters.unanswered += 1;
                }
                self.asked.push_back((id, time_ns));
            }
            return told.message(&message, None);
        }
        counters.responses += 1;
        let asked = place.and_then(|place| self.asked.remove(place));
        counters.unasked += u64::from(asked.is_none());
        told.message(&message, asked.map(|(_, asked_ns)| time_ns.saturating_sub(asked_ns)));
    }
}

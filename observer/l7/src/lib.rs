//! HTTP/1, DNS and beginnings of TLS out of the payload of packets that somebody else carries: no input or output, no clock, no thread.
//!
//! A [`Connection`] takes the segments of one TCP connection, both ways, as they come: in any order, again, with parts left out. It
//! tells each request and each response once, in order, a response with the request that it answers. Where it can't be sure it
//! tells nothing and counts: see [`Counters`]. [`dns`] reads DNS messages, [`DnsExchange`] pairs them; likewise [`tls`] and [`Handshake`].
#![forbid(unsafe_code)]

mod chunks;
mod connection;
mod direction;
pub mod dns;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
pub mod head;
pub mod tls;

pub use connection::{Asked, Connection, Told};
pub use direction::Segment;
pub use exchange::{DnsExchange, DnsTold};
pub use handshake::{Handshake, TlsTold};

/// The longest head that is read, in bytes; of DNS over TCP the longest message, of TLS the longest hello.
pub const MOST_HEAD: usize = 8192;

/// What could not be read, or not be told: each is counted once, where it was noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests told.
    pub requests: u64,
    /// Responses told.
    pub responses: u64,
    /// Heads that are none after all, or contradict themselves.
    pub malformed: u64,
    /// Heads longer than [`MOST_HEAD`].
    pub too_long: u64,
    /// Places where bytes are missing that were needed.
    pub gaps: u64,
    /// Responses without a request that was seen.
    pub unasked: u64,
    /// Requests that were forgotten before their response: too many waited, or the order was lost.
    pub unanswered: u64,
    /// Connections of which nothing more is read, since what answers what can't be told any more.
    pub given_up: u64,
    /// Beginnings of HTTP/2.
    pub http2: u64,
}

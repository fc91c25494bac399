//! What was really sent, and what the other side saw of it.
//!
//! Every payload carries a token with the entry's id, so that both sides are joined whatever was translated between them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::scenario::{Cause, Kind};

/// Entries kept; what comes later is counted in [`Ledger::left_out`] only.
pub const MAX_ENTRIES: usize = 500_000;

/// A moment on both clocks, nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`, as eBPF's `bpf_ktime_get_ns`.
    pub monotonic_ns: u64,
}

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        Self { realtime_ns: read(ClockId::Realtime), monotonic_ns: read(ClockId::Monotonic) }
    }
}

/// How a connection ended for its opener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered in full.
    Ok,
    /// Connection refused (RST or ICMP port unreachable).
    Refused,
    /// Host or network unreachable (ICMP), or the TTL ran out.
    Unreachable,
    /// ICMP said the packet was too big.
    TooBig,
    /// No answer in time.
    TimedOut,
    /// Anything else, in words.
    Failed(String),
}

impl Outcome {
    /// Whether this is how connections of such a cause end.
    pub fn fits(&self, cause: Cause) -> bool {
        match cause {
            Cause::None => *self == Self::Ok,
            Cause::NftDrop | Cause::Blackhole => *self == Self::TimedOut,
            Cause::NftReject | Cause::ClosedPort => *self == Self::Refused,
            // The node's ICMP error is no "hard" one for a UDP or ping socket (RFC 1122, 4.1.3.3), and TCP overlooks it
            // when it comes while connect() still holds the socket, as it does on a veth.
            Cause::NoRoute | Cause::Neighbour | Cause::Ttl => {
                matches!(self, Self::Unreachable | Self::TimedOut)
            }
            Cause::TooBig => matches!(self, Self::TooBig | Self::TimedOut),
        }
    }
}

/// What the server wrote down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// `pod/NAMESPACE/NAME` or `external/NAME`.
    pub by: String,
    /// The server's own address and port, after all translation.
    pub local: SocketAddr,
    /// The peer as the server saw it: the opener, or what it was masqueraded to.
    pub peer: SocketAddr,
    /// Payload bytes that came in.
    pub bytes_received: u64,
    /// Payload bytes sent back.
    pub bytes_sent: u64,
    /// UDP: datagrams that came in. TCP: 1, the connection.
    pub received: u64,
}

/// One connection, query, ping, or flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Unique in this run.
    pub id: u64,
    /// The scenario's traffic entry.
    pub traffic: String,
    /// What was sent.
    pub kind: Kind,
    /// IANA protocol number: 6, 17, 1 or 58.
    pub protocol: u8,
    /// Who opened it, as in the scenario: `pod/NAMESPACE/NAME`, `node/NAME`, `external/NAME`.
    pub from: String,
    /// The opener's address and port; for pings the port is the ICMP identifier.
    pub source: SocketAddr,
    /// Whom it called, as in the scenario.
    pub to: String,
    /// The address and port it called, before any translation; port 0 for pings.
    pub called: SocketAddr,
    /// What the server saw; `None` where nothing reached one (or the answer came from the kernel: pings).
    pub served: Option<Served>,
    /// What was to become of it.
    pub expected: Cause,
    /// The kernel's drop reasons, one of which is to be seen; empty where nothing is dropped.
    pub expected_reasons: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Payload bytes the opener sent.
    pub bytes_sent: u64,
    /// Payload bytes it got back.
    pub bytes_received: u64,
    /// UDP datagrams or ICMP echo requests sent; for TCP 1, the connection.
    pub sent: u64,
    /// Answers received, likewise.
    pub received: u64,
    /// Before the first packet.
    pub start: Stamp,
    /// After the last.
    pub end: Stamp,
}

impl Entry {
    /// Whether the outcome is the expected one, and a server saw it where it should.
    pub fn as_expected(&self) -> bool {
        let reached = self.kind == Kind::Ping || self.served.is_some() == (self.expected == Cause::None);
        self.outcome.fits(self.expected) && reached
    }

    /// How many packets may have gone out where none was answered: a second SYN where the opener, on a machine that does
    /// much else, had not given up when the kernel's second came for it.
    pub fn unanswered_packets(&self) -> RangeInclusive<u64> {
        const SECOND_SYN_NS: u64 = 950_000_000;
        let late = self.end.monotonic_ns - self.start.monotonic_ns > SECOND_SYN_NS;
        1..=1 + u64::from(self.protocol == 6 && late)
    }
}

/// The ledger of a lab; both sides write into it.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    entries: Vec<Entry>,
    served: HashMap<u64, Served>,
    left_out: u64,
}

impl Ledger {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Every change below is whole when the lock is freed, so one of a panicked thread is still good.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new entry's id.
    pub(crate) fn next_id(&self) -> u64 {
        let mut inner = self.lock();
        inner.next_id += 1;
        inner.next_id
    }

    /// The opener's side, when it is over.
    pub(crate) fn opened(&self, entry: Entry) {
        let mut inner = self.lock();
        if inner.entries.len() < MAX_ENTRIES {
            inner.entries.push(entry);
        } else {
            inner.left_out += 1;
        }
    }

    /// The server's side: adds to what it already saw of this id.
    pub(crate) fn served(&self, id: u64, seen: Served) {
        let mut inner = self.lock();
        if inner.served.len() >= MAX_ENTRIES && !inner.served.contains_key(&id) {
            return;
        }
        inner
            .served
            .entry(id)
            .and_modify(|known| {
                known.bytes_received += seen.bytes_received;
                known.bytes_sent += seen.bytes_sent;
                known.received += seen.received;
            })
            .or_insert(seen);
    }

    /// All entries so far, both sides joined, in the order they ended.
    pub fn entries(&self) -> Vec<Entry> {
        let inner = self.lock();
        let join = |entry: &Entry| Entry { served: inner.served.get(&entry.id).cloned(), ..entry.clone() };
        inner.entries.iter().map(join).collect()
    }

    /// How many entries there was no room for.
    pub fn left_out(&self) -> u64 {
        self.lock().left_out
    }
}

/// Length of [`token`].
pub(crate) const TOKEN_LEN: usize = 16;

/// The text that carries an id in a payload.
pub(crate) fn token(id: u64) -> [u8; TOKEN_LEN] {
    let mut bytes = [0; TOKEN_LEN];
    bytes.copy_from_slice(&format!("lab-{id:012x}").as_bytes()[..TOKEN_LEN]);
    bytes
}

/// The id in a payload's first bytes.
pub(crate) fn read_token(payload: &[u8]) -> Option<u64> {
    let digits = payload.get(..TOKEN_LEN)?.strip_prefix(b"lab-")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_its_id() {
        for id in [0, 1, 0xffff_ffff_ffff] {
            assert_eq!(read_token(&token(id)), Some(id));
        }
        for bad in [&b"lab-00"[..], b"lab-00000000000g", b"GET / HTTP/1.1\r\n"] {
            assert_eq!(read_token(bad), None);
        }
    }
}

//! Payload of tracked packets -> what was said in it. Which end is whose, and which of several records of a packet is told, was
//! decided before; here the parts of a connection, seen on different links, are put together by its ends.

mod redact;
mod said;

pub use redact::Redaction;
pub use said::Said;
pub(crate) use said::{dns, trace_id};

use crate::{
    decode::{End, FlowEvent, Payload, PayloadKind},
    track::TrackedFlow,
};
use hashbrown::HashMap;
use observer_l7::{Connection, Counters, DnsExchange, Handshake, Segment};
use said::{Asked, Teller};

/// Connections that are put together at a time.
const MOST_CONNECTIONS: usize = 16_384;
/// What all of them may keep of heads that are not whole.
const MOST_KEPT: usize = 16 << 20;
/// A connection in which nothing is said for so long is forgotten, nanoseconds.
const FORGOTTEN_AFTER_NS: u64 = 300_000_000_000;
/// Likewise where room is needed.
const FORGOTTEN_IN_NEED_NS: u64 = 10_000_000_000;
/// How often they are looked through.
const SEARCH_NS: u64 = 1_000_000_000;

/// A connection, whoever sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    ends: [End; 2],
    protocol: u8,
    /// Tenants of an overlay may have the same addresses.
    vni: u32,
}

#[derive(Debug)]
enum Speaks {
    Http(Connection<Asked>),
    Dns(DnsExchange),
    Tls(Handshake<String>),
}

#[derive(Debug)]
struct Entry {
    speaks: Box<Speaks>,
    last_ns: u64,
    /// The same as Unix time.
    last_unix_ns: i64,
    kept: usize,
}

/// What the stage could not do, beside what the parser counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// Packets of connections that there was no room for.
    pub away: u64,
    /// Connections that were forgotten while they said something, for want of memory.
    pub forgotten: u64,
    /// Packets without ends, which belong to no connection.
    pub without_ends: u64,
}

/// The stage.
#[derive(Debug, Default)]
pub struct Reader {
    connections: HashMap<Key, Entry>,
    kept: usize,
    searched_ns: u64,
    redaction: Redaction,
    counters: Counters,
    turned: Turned,
    said: Vec<Said>,
}

impl Reader {
    /// What is left out of what is told is said by `redaction`.
    pub fn new(redaction: Redaction) -> Self {
        Self { redaction, ..Self::default() }
    }

    /// What could not be read.
    pub fn counters(&self) -> (Counters, Turned) {
        (self.counters, self.turned)
    }

    /// Takes a packet's payload, and tells what is whole with it.
    pub fn take(&mut self, tracked: &TrackedFlow<'_>, payload: &Payload, tell: &mut impl FnMut(&Said)) {
        let event = tracked.event;
        self.forget(event.kernel_ns);
        let Some((key, by_first)) = key(tracked) else {
            self.turned.without_ends += 1;
            return;
        };
        if !self.has_room(&key) {
            self.turned.away += 1;
            return;
        }
        let new = || Entry::new(payload.kind, event);
        let entry = self.connections.entry(key).or_insert_with(new);
        if !entry.speaks.is(payload.kind) || entry.last_unix_ns < event.first_ns {
            // Another connection between the same ports.
            self.kept -= entry.kept;
            *entry = Entry::new(payload.kind, event);
        }
        (entry.last_ns, entry.last_unix_ns) = (event.kernel_ns, event.time_ns);
        let segment = Segment {
            sequence: payload.sequence,
            length: payload.length,
            bytes: &payload.bytes,
            time_ns: event.kernel_ns,
        };
        let mut teller = Teller { redaction: &self.redaction, said: &mut self.said };
        let counters = &mut self.counters;
        match &mut *entry.speaks {
            Speaks::Http(connection) => connection.take(by_first, &segment, counters, &mut teller),
            Speaks::Dns(exchange) if key.protocol == TCP => {
                exchange.segment(by_first, &segment, counters, &mut teller);
            }
            Speaks::Dns(exchange) => exchange.datagram(&segment, counters, &mut teller),
            Speaks::Tls(handshake) => handshake.take(by_first, &segment, counters, &mut teller),
        }
        let kept = entry.speaks.kept();
        self.kept = self.kept - entry.kept + kept;
        entry.kept = kept;
        if self.kept > MOST_KEPT {
            self.kept -= kept;
            self.connections.remove(&key);
            self.turned.forgotten += 1;
        }
        self.said.drain(..).for_each(|said| tell(&said));
    }

    fn has_room(&mut self, key: &Key) -> bool {
        self.connections.len() < MOST_CONNECTIONS || self.connections.contains_key(key)
    }

    fn forget(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.searched_ns) < SEARCH_NS {
            return;
        }
        self.searched_ns = now_ns;
        let is_needed = self.connections.len() >= MOST_CONNECTIONS / 2;
        let after_ns = if is_needed { FORGOTTEN_IN_NEED_NS } else { FORGOTTEN_AFTER_NS };
        let kept = &mut self.kept;
        self.connections.retain(|_, entry| {
            let after_ns = if entry.speaks.is_over() { SEARCH_NS } else { after_ns };
            let stays = now_ns.saturating_sub(entry.last_ns) < after_ns;
            *kept -= if stays { 0 } else { entry.kept };
            stays
        });
    }
}

impl Entry {
    fn new(kind: PayloadKind, event: &FlowEvent) -> Self {
        let speaks = Box::new(match kind {
            PayloadKind::Http => Speaks::Http(Connection::default()),
            PayloadKind::Dns => Speaks::Dns(DnsExchange::default()),
            PayloadKind::Tls => Speaks::Tls(Handshake::default()),
        });
        Self { speaks, last_ns: event.kernel_ns, last_unix_ns: event.time_ns, kept: 0 }
    }
}

impl Speaks {
    fn is(&self, kind: PayloadKind) -> bool {
        kind == match self {
            Self::Http(_) => PayloadKind::Http,
            Self::Dns(_) => PayloadKind::Dns,
            Self::Tls(_) => PayloadKind::Tls,
        }
    }

    /// Whether nothing more comes of it: of TLS only the beginning is told.
    fn is_over(&self) -> bool {
        matches!(self, Self::Tls(handshake) if handshake.is_over())
    }

    fn kept(&self) -> usize {
        match self {
            Self::Http(connection) => connection.kept(),
            Self::Dns(exchange) => exchange.kept(),
            Self::Tls(handshake) => handshake.kept(),
        }
    }
}

const TCP: u8 = 6;

/// The connection, and whether the first of its ends sent the packet.
fn key(tracked: &TrackedFlow<'_>) -> Option<(Key, bool)> {
    let (source, destination) = (tracked.ends.source?, tracked.ends.destination?);
    let protocol = tracked.event.packet?.tuple.protocol;
    let vni = tracked.event.tunnel.as_ref().map_or(0, |tunnel| tunnel.vni);
    let by_first = source <= destination;
    let ends = if by_first { [source, destination] } else { [destination, source] };
    Some((Key { ends, protocol, vni }, by_first))
}

#[cfg(test)]
mod tests;

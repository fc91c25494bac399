//! The node's connections as nf_conntrack knows them: who opened each, and which addresses were translated.

use crate::decode::{End, Tuple};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, net::IpAddr};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// One connection: the two tuples of nf_conntrack. Neither changes after the kernel told of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel's number for it, so that an old connection is told from a new one with the same tuple.
    pub id: u32,
    /// As the opener sends: client -> the address it called.
    pub original: Tuple,
    /// As the answer is sent: backend -> the address it was called from.
    pub reply: Tuple,
}

impl Entry {
    /// The ways in which a packet of the opener is seen: as sent, after the destination's translation, and after the
    /// source's too. Replies are seen in the same ways, reversed.
    fn views(&self) -> [Tuple; 3] {
        let called_from = self.reply.reversed();
        let mut between = Tuple { destination: called_from.destination, ..self.original };
        if matches!(self.original.protocol, ICMP | ICMP_V6) {
            // Both "ports" are the echo identifier, which the source's translation changes.
            between.destination.port = self.original.destination.port;
        }
        [self.original, between, called_from]
    }
}

/// What the kernel told of its connections. Times are kernel time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// A connection, by an event or in a dump.
    New(Entry),
    /// A connection's end: its number, its opener's tuple, and when that was learned.
    End(u32, Tuple, u64),
    /// A dump begins: what it doesn't tell of has ended unnoticed.
    DumpBegins,
    /// The dump is whole, as of this time.
    DumpEnds(u64),
    /// The kernel dropped events.
    Overrun,
}

/// What conntrack knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Whether the packet goes from the connection's opener to its responder.
    pub from_client: bool,
    /// The opener.
    pub client: End,
    /// What it called.
    pub frontend: End,
    /// Who answers.
    pub backend: End,
    /// Whom the backend sees as its peer.
    pub called_from: End,
}

impl Translation {
    /// Whether the called address is not the backend's.
    pub fn destination_translated(&self) -> bool {
        self.frontend != self.backend
    }

    /// Whether the backend sees another address than the client's.
    pub fn source_translated(&self) -> bool {
        self.client.ip != self.called_from.ip
    }
}

/// A tuple without its direction, in few words: it is hashed and compared for each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    low: (u64, u64),
    high: (u64, u64),
    /// Ports, families and protocol.
    rest: u64,
}

impl Key {
    pub(super) fn new(tuple: &Tuple) -> Self {
        Self::and_order(tuple).0
    }

    /// Also whether the tuple's source is the end that stands first.
    fn and_order(tuple: &Tuple) -> (Self, bool) {
        let bits = |end: End| match end.ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), u64::from(end.port)),
            // The bit tells ::a.b.c.d from a.b.c.d.
            IpAddr::V6(ip) => (ip.to_bits(), u64::from(end.port) | 1 << 16),
        };
        let (source, destination) = (bits(tuple.source), bits(tuple.destination));
        let source_first = source <= destination;
        let (low, high) = if source_first { (source, destination) } else { (destination, source) };
        let rest = low.1 | high.1 << 20 | u64::from(tuple.protocol) << 40;
        let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
        (Self { low: halves(low.0), high: halves(high.0), rest }, source_first)
    }
}

/// The connection that a key is of.
#[derive(Clone, Copy, Debug)]
struct Known {
    index: u32,
    /// Of a live connection without translation, whether its opener is the end that stands first in the key: all that is
    /// asked of it, without a look into its slot.
    plain: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: Entry,
    /// The dump, by its number, during or after which the kernel last told of it.
    seen: u64,
    /// Kernel time when its end was learned.
    ended_ns: Option<u64>,
}

/// Bounds of a [`ConntrackTable`].
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Most connections held, ended ones included. One takes about 400 bytes.
    pub entries: usize,
    /// How long an ended connection is kept for records that come late, nanoseconds.
    pub grace_ns: u64,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { entries: 131_072, grace_ns: 10_000_000_000 }
    }
}

/// What happened to the table so far. `added = entries now + replaced + expired + displaced`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Connections taken in.
    pub added: u64,
    /// Connections turned away because the table was full of live ones.
    pub turned_away: u64,
    /// Connections whose tuple a new connection took.
    pub replaced: u64,
    /// Ended connections dropped after the grace.
    pub expired: u64,
    /// Ended connections dropped earlier to make room.
    pub displaced: u64,
    /// Connections that a dump no longer told of.
    pub missed_ends: u64,
    /// Ends of connections that the table didn't hold.
    pub unknown_ends: u64,
}

/// Connections by each tuple that a packet of theirs can show.
#[derive(Debug)]
pub struct ConntrackTable {
    limits: TableLimits,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    keys: HashMap<Key, Known>,
    /// Ended connections in the order of their ends; slots may have been reused since.
    ended: VecDeque<(u64, u32, u32)>,
    generation: u64,
    counters: TableCounters,
}

impl ConntrackTable {
    /// An empty table.
    pub fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
            ended: VecDeque::new(),
            generation: 0,
            counters: TableCounters::default(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// Connections held, ended ones included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what the kernel told.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::New(entry) => self.insert(*entry),
            Update::End(id, original, now_ns) => self.end(*id, original, *now_ns),
            Update::DumpBegins => self.begin_dump(),
            Update::DumpEnds(now_ns) => self.finish_dump(*now_ns),
            Update::Overrun => {}
        }
    }

    /// The kernel told of a connection, by an event or in a dump.
    pub fn insert(&mut self, entry: Entry) {
        if let Some(index) = self.find(&entry.original) {
            let generation = self.generation;
            if let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::as_mut)
                && slot.entry == entry
            {
                // A dump that was under way may still tell of an ended one; a later dump that does so is right.
                if slot.seen < generation {
                    slot.ended_ns = None;
                }
                slot.seen = generation;
                return;
            }
            self.remove(index);
            self.counters.replaced += 1;
        }
        if self.len() >= self.limits.entries && !self.displace() {
            self.counters.turned_away += 1;
            return;
        }
        let slot = Some(Slot { entry, seen: self.generation, ended_ns: None });
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            index
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        let plain = entry.reply == entry.original.reversed();
        for view in entry.views() {
            let (key, opener_first) = Key::and_order(&view);
            self.keys.insert(key, Known { index, plain: plain.then_some(opener_first) });
        }
        self.counters.added += 1;
    }

    /// The kernel told of a connection's end. It stays for the grace.
    pub fn end(&mut self, id: u32, original: &Tuple, now_ns: u64) {
        match self.find(original) {
            Some(index) if self.slot(index).is_some_and(|slot| slot.entry.id == id) => {
                self.end_slot(index, now_ns);
            }
            _ => self.counters.unknown_ends += 1,
        }
    }

    fn end_slot(&mut self, index: u32, now_ns: u64) {
        let generation = self.generation;
        if let Some(Some(slot)) = self.slots.get_mut(index as usize)
            && slot.ended_ns.is_none()
        {
            slot.ended_ns = Some(now_ns);
            slot.seen = generation;
            self.ended.push_back((now_ns, index, slot.entry.id));
            if let Some(known) = self.keys.get_mut(&Key::new(&slot.entry.original))
                && known.index == index
            {
                known.plain = None;
            }
        }
    }

    /// A dump begins: what it doesn't tell of has ended unnoticed.
    pub fn begin_dump(&mut self) {
        self.generation += 1;
    }

    /// The dump is whole.
    pub fn finish_dump(&mut self, now_ns: u64) {
        let missing: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|index| {
                self.slot(*index).is_some_and(|slot| slot.seen < self.generation && slot.ended_ns.is_none())
            })
            .collect();
        self.counters.missed_ends += missing.len() as u64;
        for index in missing {
            self.end_slot(index, now_ns);
        }
    }

    /// Drops ended connections whose grace is over.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some(&(ended_ns, index, id)) = self.ended.front()
            && now_ns.saturating_sub(ended_ns) >= self.limits.grace_ns
        {
            self.ended.pop_front();
            if self.is_ended(index, id, ended_ns) {
                self.remove(index);
                self.counters.expired += 1;
            }
        }
    }

    /// What is known of a packet with this tuple, seen at any hook.
    ///
    /// With `opened_ns`, the packet opens a connection at this kernel time, so a connection that had ended by then is
    /// another one.
    pub fn translate(&self, tuple: &Tuple, opened_ns: Option<u64>) -> Option<Translation> {
        let (key, source_first) = Key::and_order(tuple);
        let known = self.keys.get(&key)?;
        if let Some(opener_first) = known.plain {
            let from_client = source_first == opener_first;
            let Tuple { source: client, destination: server, .. } =
                if from_client { *tuple } else { tuple.reversed() };
            return Some(Translation {
                from_client,
                client,
                frontend: server,
                backend: server,
                called_from: client,
            });
        }
        let slot = self.slot(known.index)?;
        if let (Some(opened), Some(ended)) = (opened_ns, slot.ended_ns)
            && opened > ended
        {
            return None;
        }
        let entry = &slot.entry;
        let views = entry.views();
        let [original, between, called_from] = &views;
        Some(Translation {
            from_client: views.contains(tuple),
            client: original.source,
            frontend: original.destination,
            backend: between.destination,
            called_from: called_from.source,
        })
    }

    /// The connection whose opener sends `original`.
    fn find(&self, original: &Tuple) -> Option<u32> {
        let index = self.keys.get(&Key::new(original))?.index;
        (self.slot(index)?.entry.original == *original).then_some(index)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn is_ended(&self, index: u32, id: u32, ended_ns: u64) -> bool {
        self.slot(index).is_some_and(|slot| slot.entry.id == id && slot.ended_ns == Some(ended_ns))
    }

    /// Makes room by the oldest ended connection.
    fn displace(&mut self) -> bool {
        while let Some((ended_ns, index, id)) = self.ended.pop_front() {
            if self.is_ended(index, id, ended_ns) {
                self.remove(index);
                self.counters.displaced += 1;
                return true;
            }
        }
        false
    }

    fn remove(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::take) else { return };
        self.free.push(index);
        for view in slot.entry.views() {
            // A view of a later connection may have taken the key.
            if let hashbrown::hash_map::Entry::Occupied(key) = self.keys.entry(Key::new(&view))
                && key.get().index == index
            {
                key.remove();
            }
        }
    }
}

#[cfg(test)]
#[path = "conntrack_tests.rs"]
mod tests;

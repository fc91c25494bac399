//! What a record of a connection adds: records tell sums since the connection began, windows want what is new.

use crate::{
    decode::End,
    flow::{Notes, Record},
    store::Stored,
};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr};

/// Directions of connections: both of as many as one of the kernel's maps holds where nothing is judged.
const MOST: usize = 131_072;

#[derive(Debug)]
pub(super) struct Connections {
    hasher: DefaultHashBuilder,
    seen: HashTable<Seen>,
    /// Directions that were forgotten because there were too many.
    forgotten: u64,
    /// When some were for the last time, Unix time in nanoseconds.
    forgotten_ns: i64,
}

/// By the hash of its addresses, ports, protocol and link: of 64 bits, that two share one is less likely than a fault of
/// the machine.
#[derive(Debug)]
struct Seen {
    key: u64,
    bytes: u64,
    /// When it was seen last, in turns.
    turn: u32,
}

/// Where a connection was found, if it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    key: u64,
    place: Option<usize>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            seen: HashTable::new(),
            forgotten: 0,
            forgotten_ns: i64::MIN,
        }
    }
}

impl Connections {
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// By which the connection of this flow is found.
    #[inline]
    pub(super) fn key(&self, stored: &Stored<'_>) -> u64 {
        let record = stored.record();
        let end = |ip: Option<IpAddr>, port| End::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
        self.hasher.hash_one((
            end(stored.source_ip(), record.source_port),
            end(stored.destination_ip(), record.destination_port),
            u64::from(record.protocol) << 32 | u64::from(stored.link().map_or(0, |link| link.index)),
        ))
    }

    /// Where the connection is now.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Found {
        Found { key, place: self.place(key) }
    }

    #[inline]
    fn place(&self, key: u64) -> Option<usize> {
        self.seen.find_bucket_index(key, |seen| seen.key == key)
    }

    /// Bytes of this record that no earlier one told of. None where that can't be known: of a connection that may have been
    /// forgotten. What was found may have moved since.
    #[inline]
    pub(super) fn new_bytes(&mut self, Found { key, place }: Found, flow: &Record, turn: u32) -> u64 {
        let there = |place: &usize| self.seen.get_bucket(*place).is_some_and(|seen| seen.key == key);
        let place = place.filter(there).or_else(|| self.place(key));
        if let Some(Ok(mut found)) = place.map(|place| self.seen.get_bucket_entry(place)) {
            let seen = found.get_mut();
            // Fewer than before: another connection with the same ends.
            let new = if flow.bytes >= seen.bytes { flow.bytes - seen.bytes } else { flow.bytes };
            (seen.bytes, seen.turn) = (flow.bytes, turn);
            if flow.notes.has(Notes::FINAL) {
                found.remove();
            }
            return new;
        }
        let is_new = flow.first_ns > self.forgotten_ns;
        if !flow.notes.has(Notes::FINAL) {
            if self.seen.len() >= MOST {
                self.forget(turn);
                self.forgotten_ns = self.forgotten_ns.max(flow.time_ns);
            }
            self.seen.insert_unique(key, Seen { key, bytes: flow.bytes, turn }, |seen| seen.key);
        }
        if is_new { flow.bytes } else { 0 }
    }

    /// Those seen longest ago, at least half of them where all are of this turn.
    #[cold]
    fn forget(&mut self, turn: u32) {
        let before = self.seen.len();
        let oldest = self.seen.iter().map(|seen| turn.wrapping_sub(seen.turn)).max().unwrap_or(0);
        self.seen.retain(|seen| turn.wrapping_sub(seen.turn) <= oldest / 2);
        if self.seen.len() > MOST / 2 {
            let mut keep = false;
            self.seen.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.forgotten += (before - self.seen.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::Sample,
        store::{Store, StoreConfig},
    };
    use std::ops::ControlFlow;

    fn new_bytes(connections: &mut Connections, record: Record, turn: u32) -> u64 {
        let (store, mut writer) = Store::new(StoreConfig { flows: 2, bytes: usize::MAX });
        writer.push(&Sample::from(record).flow());
        let mut found = None;
        let look = |stored: Stored<'_>| {
            found = Some(connections.find(connections.key(&stored)));
            ControlFlow::Break(true)
        };
        store.rewind(|_| 1, look);
        connections.new_bytes(found.unwrap(), &record, turn)
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut connections = Connections::default();
        let none = Notes::default();
        for (source_port, bytes, notes, new) in [
            (1, 100, none, 100),
            (2, 7, none, 7),
            (1, 150, none, 50),
            (1, 150, none, 0),
            (1, 40, none, 40),
            (1, 45, Notes::FINAL, 5),
            (1, 45, none, 45),
            (3, 9, Notes::FINAL, 9),
            (3, 9, none, 9),
        ] {
            let record = Record { source_port, bytes, notes, ..Record::default() };
            assert_eq!(new_bytes(&mut connections, record, 0), new, "{source_port} {bytes}");
        }
    }

    #[test]
    fn too_many_are_forgotten_by_count() {
        let mut connections = Connections::default();
        let all = 3 * MOST as u64;
        let new_bytes = |connections: &mut Connections, number: u64, bytes| {
            // As far apart as hashes are.
            let found = connections.find(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let time = number as i64;
            let record = Record { bytes, first_ns: time, time_ns: time, ..Record::default() };
            connections.new_bytes(found, &record, (number >> 15) as u32)
        };
        for number in 0..all {
            assert_eq!(new_bytes(&mut connections, number, 1), 1);
            assert!(connections.seen.len() <= MOST);
        }
        assert_eq!(connections.seen.len() as u64 + connections.forgotten(), all);
        // One that was forgotten counts twice in nothing; from then on what is new counts.
        assert_eq!([5, 7].map(|bytes| new_bytes(&mut connections, 0, bytes)), [0, 2]);
    }
}

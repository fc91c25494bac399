//! What a record of a connection adds: records tell sums since the connection began, windows want what is new.

use crate::flow::{Flow, Notes};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;

/// Directions of connections: both of as many connections as the kernel's table holds.
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

    /// Bytes of this record that no earlier one told of. None where that can't be known: of a connection that may have been
    /// forgotten.
    pub(super) fn new_bytes(&mut self, flow: &Flow, turn: u32) -> u64 {
        let key = self.hasher.hash_one((
            (flow.source_ip, flow.source_port),
            (flow.destination_ip, flow.destination_port),
            (flow.protocol, flow.link.as_ref().map(|link| link.index)),
        ));
        if let Ok(mut found) = self.seen.find_entry(key, |seen| seen.key == key) {
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
    use crate::flow::test_flow;

    fn flow(port: u16, bytes: u64, notes: Notes) -> Flow {
        Flow { source_port: port, bytes, notes, ..test_flow() }
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut connections = Connections::default();
        let none = Notes::default();
        for (port, bytes, notes, new) in [
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
            assert_eq!(connections.new_bytes(&flow(port, bytes, notes), 0), new, "{port} {bytes}");
        }
    }

    #[test]
    fn too_many_are_forgotten_by_count() {
        let mut connections = Connections::default();
        let all = 3 * MOST as u64;
        let flow = |number: u64, bytes| {
            let (ports, time) = ((number as u16, (number >> 16) as u16), number as i64);
            let flow = Flow { bytes, first_ns: time, time_ns: time, ..test_flow() };
            Flow { source_port: ports.0, destination_port: ports.1, ..flow }
        };
        for number in 0..all {
            assert_eq!(connections.new_bytes(&flow(number, 1), (number >> 15) as u32), 1);
            assert!(connections.seen.len() <= MOST);
        }
        assert_eq!(connections.seen.len() as u64 + connections.forgotten(), all);
        // One that was forgotten counts twice in nothing; from then on what is new counts.
        assert_eq!([5, 7].map(|bytes| connections.new_bytes(&flow(0, bytes), u32::MAX)), [0, 2]);
    }
}

//! Counted facts of TCP connections, kept until the connection's next record.

use crate::decode::{FactEvent, Tuple};
use crate::flow::Notes;
use hashbrown::HashMap;

/// Connections with facts. Few connections retransmit; this many at once is a network that is down.
const MOST_CONNECTIONS: usize = 16_384;
/// A connection without a new fact for this long is forgotten when room is needed, nanoseconds.
const FORGOTTEN_AFTER_NS: i64 = 300_000_000_000;

/// A tuple without its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    low: [u64; 3],
    high: [u64; 3],
}

impl Key {
    #[inline]
    fn new(tuple: &Tuple) -> Self {
        let (mut low, mut high) = (tuple.source.words(), tuple.destination.words());
        if low > high {
            (low, high) = (high, low);
        }
        low[2] |= u64::from(tuple.protocol) << 32;
        Self { low, high }
    }
}

#[derive(Clone, Copy, Debug)]
struct Fact {
    retransmits: u32,
    connect_failed: bool,
    time_ns: i64,
}

/// Facts by connection.
#[derive(Debug, Default)]
pub(super) struct Facts {
    connections: HashMap<Key, Fact>,
    /// Not searched for forgotten ones before this time: a search takes time for each connection.
    next_search_ns: i64,
    pub(super) turned_away: u64,
}

impl Facts {
    /// Takes in one fact about the connection `tuple`, in either direction.
    pub(super) fn add(&mut self, tuple: &Tuple, event: &FactEvent) {
        let key = Key::new(tuple);
        if !self.connections.contains_key(&key) && !self.has_room(event.time_ns) {
            self.turned_away += 1;
            return;
        }
        let fact = self.connections.entry(key).or_insert(Fact {
            retransmits: 0,
            connect_failed: false,
            time_ns: event.time_ns,
        });
        // Totals, each from its own end's socket.
        fact.retransmits = fact.retransmits.max(event.retransmits);
        fact.connect_failed |= event.connect_failed;
        fact.time_ns = event.time_ns;
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Retransmits and notes of the connection `tuple`. With `begun_ns`, a new connection is told of, which began at this
    /// Unix time; with `is_final`, nothing more will be.
    pub(super) fn of(&mut self, tuple: &Tuple, begun_ns: Option<i64>, is_final: bool) -> (u32, Notes) {
        let mut notes = Notes::default();
        let key = Key::new(tuple);
        let Some(&fact) = self.connections.get(&key) else { return (0, notes) };
        if begun_ns.is_some_and(|begun| fact.time_ns < begun) {
            // An earlier connection of the same ports.
            self.connections.remove(&key);
            return (0, notes);
        }
        if fact.connect_failed {
            notes.set(Notes::CONNECT_FAILED);
        }
        if is_final {
            self.connections.remove(&key);
        }
        (fact.retransmits, notes)
    }

    fn has_room(&mut self, now_ns: i64) -> bool {
        if self.connections.len() >= MOST_CONNECTIONS && now_ns >= self.next_search_ns {
            self.next_search_ns = now_ns.saturating_add(10_000_000_000);
            self.connections.retain(|_, fact| now_ns.saturating_sub(fact.time_ns) < FORGOTTEN_AFTER_NS);
        }
        self.connections.len() < MOST_CONNECTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::End;
    use std::net::IpAddr;

    #[test]
    fn a_full_map_turns_away_and_forgets_the_silent() {
        let mut facts = Facts::default();
        let tuple = |number: usize| Tuple {
            source: End::new(IpAddr::from([10, 0, (number >> 16) as u8, 1]), number as u16),
            destination: End::new(IpAddr::from([10, 0, 0, 2]), 80),
            protocol: 6,
        };
        let event = |time_ns| FactEvent {
            time_ns,
            kernel_ns: 0,
            packet: None,
            netns: 0,
            retransmits: 1,
            connect_failed: false,
        };
        for number in 0..MOST_CONNECTIONS + 2 {
            facts.add(&tuple(number), &event(1));
        }
        assert_eq!((facts.connections.len(), facts.turned_away), (MOST_CONNECTIONS, 2));
        facts.add(&tuple(0), &event(2));
        assert_eq!(facts.turned_away, 2, "a known connection needs no room");
        facts.add(&tuple(MOST_CONNECTIONS), &event(FORGOTTEN_AFTER_NS + 1));
        assert_eq!((facts.connections.len(), facts.turned_away), (2, 2));
    }
}

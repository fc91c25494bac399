//! Packets and bytes that a record adds: records tell sums since their connection began.

use super::ends;
use crate::{Facts, flow::Flow, text::parts::End};
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    mem,
    ops::AddAssign,
};

/// Directions of connections that are remembered for certain; up to twice as many are.
const MOST: usize = 65_536;

/// Packets and bytes, and how many flows told none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that tell neither: those of other servers than Observer's.
    pub untold: u64,
    /// Flows that are no packets: what was said inside a connection, and verdicts.
    pub apart: u64,
}

impl Volume {
    /// Flows that told neither packets nor bytes.
    pub fn silent(&self) -> u64 {
        self.untold + self.apart
    }
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.untold += other.untold;
        self.apart += other.apart;
    }
}

/// The last sums of connections.
#[derive(Debug)]
pub struct Connections {
    hasher: RandomState,
    /// By the hash of the connection: of 64 bits, that two share one is less likely than a fault of the machine.
    newer: HashMap<u64, (u64, u64)>,
    older: HashMap<u64, (u64, u64)>,
    /// Before then nothing counts.
    since: Option<prost_types::Timestamp>,
    forgotten: u64,
}

impl Connections {
    /// Counts what was moved since then; without, since each connection began.
    pub fn new(since: Option<prost_types::Timestamp>) -> Self {
        Self { hasher: RandomState::new(), newer: HashMap::new(), older: HashMap::new(), since, forgotten: 0 }
    }

    /// Connections that were forgotten because there were too many; what they moved may count twice.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What no earlier record told of.
    pub fn new_of(&mut self, flow: &Flow, facts: &Facts) -> Volume {
        if !facts.known {
            let apart = ends::is_apart(flow);
            return Volume { untold: (!apart).into(), apart: apart.into(), ..Volume::default() };
        }
        let told = Volume { packets: facts.packets, bytes: facts.bytes, ..Volume::default() };
        if ends::is_drop(flow) {
            return told;
        }
        if ends::is_told_again(flow) {
            return Volume::default();
        }
        let key = self.hasher.hash_one((
            [End::Source, End::Destination].map(|end| (ends::address(flow, end), end.port(flow))),
            ends::protocol(flow),
            (&flow.node_name, flow.interface.as_ref().map(|interface| interface.index)),
        ));
        let before = self.newer.get(&key).copied().or_else(|| self.older.remove(&key));
        if before.is_none() && self.newer.len() >= MOST {
            self.forgotten += self.older.len() as u64;
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(key, (told.packets, told.bytes));
        match before {
            // Fewer than before: another connection with the same ends.
            Some((packets, bytes)) if told.packets >= packets && told.bytes >= bytes => {
                Volume { packets: told.packets - packets, bytes: told.bytes - bytes, ..Volume::default() }
            }
            None if self.began_before(facts) => Volume::default(),
            _ => told,
        }
    }

    fn began_before(&self, facts: &Facts) -> bool {
        let Some(since) = self.since else { return false };
        facts
            .first_seen
            .parse::<jiff::Timestamp>()
            .is_ok_and(|first| (first.as_second(), first.subsec_nanosecond()) < (since.seconds, since.nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{CiliumEventType, Ip, Layer4, Tcp, layer4::Protocol};

    fn flow(port: u32) -> Flow {
        let tcp = Tcp { source_port: port, destination_port: 80, ..Tcp::default() };
        Flow {
            ip: Some(Ip { source: "10.0.0.1".into(), destination: "10.0.0.2".into(), ..Ip::default() }),
            l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
            ..Flow::default()
        }
    }

    fn facts(packets: u64, bytes: u64) -> Facts {
        Facts { known: true, packets, bytes, first_seen: "2026-01-05T10:00:00Z".into(), ..Facts::default() }
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut connections = Connections::new(None);
        for (port, packets, bytes, new) in [
            (1, 1, 100, (1, 100)),
            (2, 1, 7, (1, 7)),
            (1, 3, 150, (2, 50)),
            (1, 3, 150, (0, 0)),
            (1, 1, 40, (1, 40)),
        ] {
            let volume = connections.new_of(&flow(port), &facts(packets, bytes));
            assert_eq!((volume.packets, volume.bytes), new, "{port} {bytes}");
        }
        let untold = Volume { untold: 1, ..Volume::default() };
        assert_eq!(connections.new_of(&flow(1), &Facts::default()), untold);
        for event in [crate::names::EVENT_L7, crate::names::EVENT_POLICY_VERDICT] {
            let event_type = Some(CiliumEventType { r#type: event, sub_type: 0 });
            let volume = connections.new_of(&Flow { event_type, ..flow(1) }, &Facts::default());
            assert_eq!(volume, Volume { apart: 1, ..Volume::default() }, "no packet is missing: {event}");
        }
    }

    #[test]
    fn what_moved_before_the_window_does_not_count() {
        for (since, new) in [(1_767_607_201, 0), (1_767_607_200, 100)] {
            let since = prost_types::Timestamp { seconds: since, nanos: 0 };
            let mut connections = Connections::new(Some(since));
            assert_eq!(connections.new_of(&flow(1), &facts(5, 100)).bytes, new);
            assert_eq!(connections.new_of(&flow(1), &facts(6, 120)).bytes, 20);
        }
    }

    #[test]
    fn too_many_are_forgotten_by_count() {
        let mut connections = Connections::new(None);
        for port in 0..3 * MOST as u32 {
            connections.new_of(&flow(port), &facts(1, 1));
        }
        assert_eq!(connections.forgotten(), MOST as u64);
        assert_eq!(connections.newer.len() + connections.older.len(), 2 * MOST);
    }
}

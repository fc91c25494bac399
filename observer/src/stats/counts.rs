//! What is counted, and all that is counted of a flow.

use super::{
    BUCKETS,
    connections::Connections,
    names,
    table::{Counts, Row, Table},
};
use crate::{
    endpoint::Endpoint,
    flow::{Flow, Notes, Tristate},
};
use hashbrown::DefaultHashBuilder;
use observer_proto::flow::{TraceObservationPoint, Verdict};
use std::{collections::VecDeque, hash::BuildHasher as _, ops::AddAssign, sync::Arc};

/// Rows of each table; what has none is in `other`.
const MOST_EDGES: usize = 4096;
const MOST_DROPS: usize = 1024;
const MOST_TALKERS: usize = 2048;
/// Pairs of ends whose rows are remembered; a power of two.
const REMEMBERED: usize = 4096;

/// Who talks to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Who called.
    pub client: String,
    /// Who was called.
    pub server: String,
    /// IANA protocol number, 0 for what is not IP.
    pub protocol: u8,
    /// The server's port.
    pub port: u16,
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DropKey {
    /// The kernel's name of the reason.
    pub reason: String,
    /// Who sent it.
    pub source: String,
    /// Whom it was for.
    pub destination: String,
}

macro_rules! counts {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ } by $weight:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64),+
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)+
            }
        }

        impl Counts for $name {
            fn weight(&self) -> (u64, u64) {
                let weight: fn(&Self) -> (u64, u64) = $weight;
                weight(self)
            }
        }
    };
}

counts!(
    /// Of an edge.
    EdgeCounts {
        /// Flows of both directions.
        flows,
        /// Delivered, both ways.
        bytes,
        /// Drops, and connects that nobody answered.
        errors
    } by |sum| (sum.bytes, sum.flows)
);
counts!(
    /// Of a drop.
    DropCounts {
        /// Flows that told of it.
        flows,
        /// Packets that they stand for.
        packets,
        /// Their bytes.
        bytes
    } by |sum| (sum.packets, sum.flows)
);
counts!(
    /// Of an end.
    TalkerCounts {
        /// Flows that it sent.
        sent_flows,
        /// Flows for it.
        received_flows,
        /// Bytes of its flows that were delivered.
        sent_bytes,
        /// Bytes delivered to it.
        received_bytes,
        /// Drops of either.
        drops
    } by |sum| (sum.sent_bytes + sum.received_bytes, sum.sent_flows + sum.received_flows)
);
counts!(
    /// Of all.
    Totals {
        /// Flows examined.
        flows,
        /// Flows overwritten before they were.
        lost,
        /// Bytes delivered.
        bytes,
        /// Flows that tell of drops.
        dropped_flows,
        /// Packets that they stand for.
        dropped_packets,
        /// Connects that nobody answered.
        failed_connects,
        /// Records lost in the kernel.
        lost_in_kernel,
        /// Events lost between stages.
        lost_in_queue
    } by |sum| (sum.flows, 0)
);

/// All tables.
#[derive(Debug)]
pub(super) struct All {
    pub(super) edges: Table<EdgeKey, EdgeCounts>,
    pub(super) drops: Table<DropKey, DropCounts>,
    pub(super) talkers: Table<String, TalkerCounts>,
    /// Newest first; the first is the bucket that is filled.
    totals: VecDeque<Totals>,
    pub(super) connections: Connections,
    turn: u32,
    hasher: DefaultHashBuilder,
    ends: Box<[Ends]>,
}

/// The rows of a pair of ends, by the hash of all that they depend on.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    key: u64,
    /// Of the tables, when the rows were found.
    generation: u64,
    edge: Row,
    source: Row,
    destination: Row,
}

impl Default for All {
    fn default() -> Self {
        Self {
            edges: Table::new(MOST_EDGES, BUCKETS),
            drops: Table::new(MOST_DROPS, BUCKETS),
            talkers: Table::new(MOST_TALKERS, BUCKETS),
            totals: VecDeque::from([Totals::default()]),
            connections: Connections::default(),
            turn: 0,
            hasher: DefaultHashBuilder::default(),
            ends: vec![Ends::default(); REMEMBERED].into(),
        }
    }
}

impl All {
    pub(super) fn turn(&mut self) {
        self.edges.turn();
        self.drops.turn();
        self.talkers.turn();
        self.totals.push_front(Totals::default());
        self.totals.truncate(BUCKETS + 1);
        self.turn = self.turn.wrapping_add(1);
    }

    pub(super) fn count(&mut self, totals: Totals) {
        self.totals[0] += totals;
    }

    /// Of the bucket that is filled and so many full ones.
    pub(super) fn totals(&self, buckets: usize) -> Totals {
        let mut sum = Totals::default();
        self.totals.iter().take(buckets + 1).for_each(|totals| sum += *totals);
        sum
    }

    pub(super) fn examine(&mut self, flow: &Flow) {
        let Ends { edge, source, destination, .. } = self.ends(flow);
        let dropped = flow.is_drop() || flow.verdict == Verdict::Dropped as u8;
        let failed = flow.notes.has(Notes::CONNECT_FAILED);
        // A packet that is told where a pod sends it is told again where it is delivered or leaves.
        let told_again = flow.observation_point == TraceObservationPoint::FromEndpoint as u8;
        let bytes = if dropped || told_again { 0 } else { self.connections.new_bytes(flow, self.turn) };
        let drops = u64::from(dropped);
        self.edges.add(edge, EdgeCounts { flows: 1, bytes, errors: u64::from(dropped || failed) });
        let sender = TalkerCounts { sent_flows: 1, sent_bytes: bytes, drops, ..TalkerCounts::default() };
        self.talkers.add(source, sender);
        let receiver =
            TalkerCounts { received_flows: 1, received_bytes: bytes, drops, ..TalkerCounts::default() };
        self.talkers.add(destination, receiver);
        let mut totals = Totals { flows: 1, bytes, failed_connects: u64::from(failed), ..Totals::default() };
        if dropped {
            (totals.dropped_flows, totals.dropped_packets) = (1, flow.packets);
            let row = self.drops.row(DropKey {
                reason: flow.drop.as_ref().map_or_else(String::new, |site| site.kernel_reason.clone()),
                source: names::of(&flow.source),
                destination: names::of(&flow.destination),
            });
            self.drops.add(row, DropCounts { flows: 1, packets: flow.packets, bytes: flow.bytes });
        }
        self.totals[0] += totals;
    }

    fn ends(&mut self, flow: &Flow) -> Ends {
        let is_reply = flow.is_reply == Tristate::Yes;
        let has_ports = matches!(flow.protocol, 6 | 17 | 132);
        let port = if is_reply { flow.source_port } else { flow.destination_port };
        let port = if has_ports { port } else { 0 };
        let key = self.hasher.hash_one((
            flow.source.serial(),
            flow.destination.serial(),
            (port, flow.protocol, is_reply),
        ));
        let generation = 1 + self.edges.generation() + self.talkers.generation();
        let place = key as usize & (REMEMBERED - 1);
        let known = self.ends[place];
        if known.key == key && known.generation == generation {
            return known;
        }
        let (client, server): (&Arc<Endpoint>, _) =
            if is_reply { (&flow.destination, &flow.source) } else { (&flow.source, &flow.destination) };
        let edge =
            EdgeKey { client: names::of(client), server: names::of(server), protocol: flow.protocol, port };
        let found = Ends {
            key,
            generation,
            source: self.talkers.row(names::of(&flow.source)),
            destination: self.talkers.row(names::of(&flow.destination)),
            edge: self.edges.row(edge),
        };
        self.ends[place] = found;
        found
    }
}

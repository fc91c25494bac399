//! What is counted, and all that is counted of a flow.

use super::{
    BUCKETS,
    connections::{Connections, Found},
    names::{Name, Names},
    signals::AllSignals,
    table::{Counts, Row, Table},
};
use crate::{
    endpoint::Endpoint,
    flow::{Flow, Notes, Record, Tristate},
    policy_verdict::{PolicyName, PolicyVerdict},
    store::{Lot, Stored},
};
use hashbrown::Equivalent;
use observer_proto::{
    answers::refused,
    flow::{TraceObservationPoint, Verdict},
};
use std::{collections::VecDeque, num::NonZeroU64, ops::AddAssign};

/// Rows of each table; what has none is in `other`.
const MOST_EDGES: usize = 4096;
const MOST_DROPS: usize = 1024;
const MOST_TALKERS: usize = 2048;
const MOST_POLICIES: usize = 1024;

/// Who talks to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Who called.
    pub client: Name,
    /// Who was called.
    pub server: Name,
    /// IANA protocol number, 0 for what is not IP, and the server's port.
    pub port: (u8, u16),
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DropKey {
    /// The kernel's name of the reason, or what was refused.
    pub reason: Name,
    /// Who sent it.
    pub source: Name,
    /// Whom it was for.
    pub destination: Name,
}

/// An [`EdgeKey`] to look for.
#[derive(Hash)]
struct WantedEdge {
    client: u64,
    server: u64,
    port: (u8, u16),
}

impl Equivalent<EdgeKey> for WantedEdge {
    fn equivalent(&self, key: &EdgeKey) -> bool {
        (self.client, self.server, self.port) == (key.client.id, key.server.id, key.port)
    }
}

/// A [`DropKey`] to look for.
#[derive(Hash)]
struct WantedDrop {
    reason: u64,
    source: u64,
    destination: u64,
}

impl Equivalent<DropKey> for WantedDrop {
    fn equivalent(&self, key: &DropKey) -> bool {
        (self.reason, self.source, self.destination) == (key.reason.id, key.source.id, key.destination.id)
    }
}

/// Who decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// Whether at the source.
    pub is_egress: bool,
    /// The policies, sorted.
    pub policies: Vec<PolicyName>,
}

/// A [`PolicyKey`] to look for.
#[derive(Hash)]
struct WantedPolicy<'a> {
    is_egress: bool,
    policies: &'a [PolicyName],
}

impl Equivalent<PolicyKey> for WantedPolicy<'_> {
    fn equivalent(&self, key: &PolicyKey) -> bool {
        (self.is_egress, self.policies) == (key.is_egress, &key.policies)
    }
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
        /// Packets that they stand for; none of requests that were refused.
        packets,
        /// Their bytes.
        bytes
    } by |sum| (sum.packets.max(sum.flows), sum.flows)
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
    /// Of policies.
    PolicyCounts {
        /// Connections that they allow.
        allowed,
        /// Connections that they would deny.
        audited,
        /// Connections that they deny.
        denied
    } by |sum| (sum.audited + sum.denied, sum.allowed)
);
counts!(
    /// Of all.
    Totals {
        /// Flows examined, but for policy verdicts, requests and responses.
        flows,
        /// Policy verdicts examined.
        policy_verdicts,
        /// Requests and responses examined, of HTTP and DNS.
        l7,
        /// Requests that were refused.
        refused,
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
    pub(super) talkers: Table<Name, TalkerCounts>,
    pub(super) policies: Table<PolicyKey, PolicyCounts>,
    pub(super) signals: AllSignals,
    /// Newest first; the first is the bucket that is filled.
    totals: VecDeque<Totals>,
    pub(super) connections: Connections,
    turn: u32,
    names: Names,
}

impl Default for All {
    fn default() -> Self {
        Self {
            edges: Table::new(MOST_EDGES, BUCKETS),
            drops: Table::new(MOST_DROPS, BUCKETS),
            talkers: Table::new(MOST_TALKERS, BUCKETS),
            policies: Table::new(MOST_POLICIES, BUCKETS),
            signals: AllSignals::default(),
            totals: VecDeque::from([Totals::default()]),
            connections: Connections::default(),
            turn: 0,
            names: Names::default(),
        }
    }
}

impl All {
    pub(super) fn turn(&mut self) {
        self.edges.turn();
        self.drops.turn();
        self.talkers.turn();
        self.policies.turn();
        self.signals.turn();
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

    /// Counts these flows. Every look-up waits for memory, but several wait together: so all are looked up, then all are
    /// counted.
    pub(super) fn examine(&mut self, lot: &Lot<'_>) {
        let mut keys = [None; Lot::MOST];
        for (stored, key) in lot.flows().zip(&mut keys) {
            *key = is_new(stored.record()).then(|| self.connections.key(&stored));
        }
        let connections = keys.map(|key| key.map(|key| self.connections.find(key)));
        let mut looked_up = [None; Lot::MOST];
        for ((stored, connection), looked_up) in lot.flows().zip(connections).zip(&mut looked_up) {
            if !stored.record().is_policy_verdict() && !stored.record().is_l7() {
                *looked_up = Some(self.look_up(&stored, connection));
            }
        }
        let mut totals = Totals::default();
        for (stored, looked_up) in lot.flows().zip(looked_up) {
            match looked_up {
                Some(looked_up) => self.examine_one(&stored, looked_up, &mut totals),
                None if stored.record().is_l7() => self.examine_l7(&stored, &mut totals),
                None => self.examine_verdict(&stored, &mut totals),
            }
        }
        self.totals[0] += totals;
    }

    #[inline]
    fn look_up(&mut self, stored: &Stored<'_>, connection: Option<Found>) -> LookedUp {
        let source = self.end(stored.source_serial(), stored.source());
        let destination = self.end(stored.destination_serial(), stored.destination());
        let edge = self.edge(stored, source.0, destination.0);
        LookedUp { ends: [source, destination], edge, connection }
    }

    #[inline]
    fn examine_one(&mut self, stored: &Stored<'_>, looked_up: LookedUp, totals: &mut Totals) {
        let record = stored.record();
        let [(source, sender), (destination, receiver)] = looked_up.ends;
        let dropped = is_dropped(record);
        let failed = record.notes.has(Notes::CONNECT_FAILED);
        let turn = self.turn;
        let new_bytes = |found| self.connections.new_bytes(found, record, turn);
        let bytes = looked_up.connection.map_or(0, new_bytes);
        let drops = u64::from(dropped);
        self.edges.add(looked_up.edge, EdgeCounts { flows: 1, bytes, errors: u64::from(dropped || failed) });
        let sent = TalkerCounts { sent_flows: 1, sent_bytes: bytes, drops, ..TalkerCounts::default() };
        self.talkers.add(sender, sent);
        let arrived =
            TalkerCounts { received_flows: 1, received_bytes: bytes, drops, ..TalkerCounts::default() };
        self.talkers.add(receiver, arrived);
        totals.flows += 1;
        totals.bytes += bytes;
        totals.failed_connects += u64::from(failed);
        if dropped {
            totals.dropped_flows += 1;
            totals.dropped_packets += record.packets;
            let row = self.drop(&stored.flow(), source, destination);
            self.drops.add(row, DropCounts { flows: 1, packets: record.packets, bytes: record.bytes });
        }
    }

    /// A request that was refused is a drop, of which no packet tells.
    fn examine_l7(&mut self, stored: &Stored<'_>, totals: &mut Totals) {
        totals.l7 += u64::from(self.signals.examine(stored, &mut self.names));
        if is_dropped(stored.record()) {
            totals.refused += 1;
            let mut name = |serial, end| self.names.end(serial, end).name.id;
            let source = name(stored.source_serial(), stored.source());
            let destination = name(stored.destination_serial(), stored.destination());
            let row = self.drop(&stored.flow(), source, destination);
            self.drops.add(row, DropCounts { flows: 1, ..DropCounts::default() });
        }
    }

    fn examine_verdict(&mut self, stored: &Stored<'_>, totals: &mut Totals) {
        totals.policy_verdicts += 1;
        let told = stored.flow().policy.map(|policy| PolicyVerdict::told(policy));
        let (is_egress, policies) = told.map_or((false, &[][..]), |told| (told.is_egress, &told.policies));
        let row = self.policies.row(&WantedPolicy { is_egress, policies }, || PolicyKey {
            is_egress,
            policies: policies.to_vec(),
        });
        let mut counts = PolicyCounts::default();
        *match Verdict::try_from(i32::from(stored.record().verdict)) {
            Ok(Verdict::Audit) => &mut counts.audited,
            Ok(Verdict::Dropped) => &mut counts.denied,
            _ => &mut counts.allowed,
        } += 1;
        self.policies.add(row, counts);
    }

    /// The name's hash, and its row among the talkers.
    #[inline]
    fn end(&mut self, serial: NonZeroU64, endpoint: &Endpoint) -> (u64, Row) {
        let named = self.names.end(serial, endpoint);
        let generation = self.talkers.generation();
        if named.talker.0 != generation {
            named.talker = (generation, self.talkers.row(&named.name, || named.name.clone()));
        }
        (named.name.id, named.talker.1)
    }

    #[inline]
    fn edge(&mut self, stored: &Stored<'_>, source: u64, destination: u64) -> Row {
        let flow = stored.record();
        let is_reply = flow.is_reply == Tristate::Yes;
        let port = match flow.protocol {
            6 | 17 | 132 if is_reply => flow.source_port,
            6 | 17 | 132 => flow.destination_port,
            _ => 0,
        };
        let port = (flow.protocol, port);
        let (client, server) = if is_reply { (destination, source) } else { (source, destination) };
        let names = &mut self.names;
        self.edges.row(&WantedEdge { client, server, port }, || {
            let [source, destination] =
                [stored.source(), stored.destination()].map(|end| names.end(end.serial(), end).name.clone());
            let (client, server) = if is_reply { (destination, source) } else { (source, destination) };
            EdgeKey { client, server, port }
        })
    }

    fn drop(&mut self, flow: &Flow<'_>, source: u64, destination: u64) -> Row {
        let reason = match flow.l7 {
            Some(request) => refused::reason(Some(request.message())),
            None => flow.drop.map_or("", |site| site.reason()),
        };
        let id = self.names.id(reason);
        let names = &mut self.names;
        self.drops.row(&WantedDrop { reason: id, source, destination }, || {
            let [source, destination] =
                [flow.source, flow.destination].map(|end| names.end(end.serial(), end).name.clone());
            DropKey { reason: Name { id, text: reason.into() }, source, destination }
        })
    }
}

/// What was found for a flow.
#[derive(Clone, Copy, Debug)]
struct LookedUp {
    /// Of the source and of the destination, see [`All::end`].
    ends: [(u64, Row); 2],
    edge: Row,
    /// Nothing where its bytes don't count.
    connection: Option<Found>,
}

fn is_dropped(record: &Record) -> bool {
    record.is_drop() || record.verdict == Verdict::Dropped as u8
}

/// Whether its bytes count: those of a drop were not delivered, and a packet that is told where a pod sends it is told
/// again where it is delivered or leaves. A verdict tells of none.
fn is_new(record: &Record) -> bool {
    !is_dropped(record)
        && !record.is_policy_verdict()
        && !record.is_l7()
        && record.observation_point != TraceObservationPoint::FromEndpoint as u8
}

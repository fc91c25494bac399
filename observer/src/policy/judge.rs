//! The stage: what policies say of a new connection, told beside its flows.
//!
//! A side is judged where the connection's first packet is told: both at the delivery to a pod of this node, else egress
//! where it leaves a pod for elsewhere. The node has no link of its own; for it that is where its packets come in or go
//! out. What others drop between two pods of the node is told as a drop only, and its sender is judged there.

use super::{Policies, World, rulings::Rulings};
use crate::{
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    flow::{Flow, LinkKind, Notes, Record, Tristate},
};
use observer_policy::model::{Direction, ICMP, ICMPV6, SCTP, TCP, UDP};
use observer_proto::flow::{TraceObservationPoint as Point, TraceReason, TrafficDirection, Verdict};
use std::{
    net::IpAddr,
    sync::{Arc, RwLockReadGuard},
};

/// Judges for the pipeline's thread.
#[derive(Debug)]
pub(crate) struct Judge {
    policies: Arc<Policies>,
    cache: Arc<IpCache>,
    rulings: Rulings,
}

/// Judges a batch, by policies and endpoints as they are at its begin.
pub(crate) struct Judging<'a> {
    policies: &'a Policies,
    cache: &'a IpCache,
    rulings: &'a mut Rulings,
    world: RwLockReadGuard<'a, World>,
}

/// One side of a connection.
struct Side<'a> {
    direction: Direction,
    subject: &'a Arc<Endpoint>,
    peer: (&'a Arc<Endpoint>, IpAddr),
}

impl Judge {
    pub(crate) fn new(policies: Arc<Policies>, cache: Arc<IpCache>) -> Self {
        Self { policies, cache, rulings: Rulings::default() }
    }

    /// For the next batch.
    pub(crate) fn begin(&mut self) -> Judging<'_> {
        let Self { policies, cache, rulings } = self;
        Judging { policies, cache, rulings, world: policies.world() }
    }
}

impl Judging<'_> {
    /// Gives the verdicts on a flow, if it is of a new connection; how many.
    #[inline]
    pub(crate) fn judge(&mut self, flow: &Flow<'_>, give: &mut impl FnMut(&Flow<'_>)) -> u64 {
        if flow.trace_reason == TraceReason::New as u8 || flow.is_drop() && opens_between_pods(flow) {
            self.connection(flow, give)
        } else {
            0
        }
    }

    fn connection(&mut self, flow: &Flow<'_>, give: &mut impl FnMut(&Flow<'_>)) -> u64 {
        let (Some(source_ip), Some(destination_ip)) = (flow.source_ip, flow.destination_ip) else { return 0 };
        // What pods carry in tunnels of their own has addresses of another network; what the node carries is told without.
        // A pod can't be kept from itself.
        if flow.tunnel.is_some()
            || flow.notes.has(Notes::FRAGMENT)
            || is_never_judged(flow)
            || Arc::ptr_eq(flow.source, flow.destination)
        {
            return 0;
        }
        let sides = [
            (Direction::Egress, flow.source, (flow.destination, destination_ip)),
            (Direction::Ingress, flow.destination, (flow.source, source_ip)),
        ];
        let mut given = 0;
        for (direction, subject, peer) in sides {
            if self.is_told_here(flow, direction, subject) {
                given += u64::from(self.side(flow, &Side { direction, subject, peer }, give));
            }
        }
        given
    }

    /// Whether a side is on this node, and is judged where the flow was told.
    fn is_told_here(&self, flow: &Flow<'_>, direction: Direction, subject: &Arc<Endpoint>) -> bool {
        let is_host = subject.serial() == self.cache.reserved().host.serial();
        let at_drop = flow.is_drop();
        match (Point::try_from(i32::from(flow.observation_point)), direction) {
            (Ok(Point::UnknownPoint), Direction::Egress) => at_drop,
            (Ok(Point::ToEndpoint), Direction::Egress) => subject.local || is_host,
            (Ok(Point::ToEndpoint), Direction::Ingress) | (Ok(Point::ToStack), Direction::Egress) => {
                subject.local
            }
            (Ok(Point::ToNetwork | Point::ToOverlay), Direction::Egress)
            | (Ok(Point::FromNetwork | Point::FromOverlay | Point::ToStack), Direction::Ingress) => is_host,
            _ => false,
        }
    }

    fn side(&mut self, flow: &Flow<'_>, side: &Side<'_>, give: &mut impl FnMut(&Flow<'_>)) -> bool {
        let Self { policies, cache, rulings, world } = self;
        let (engine, reserved) = (&world.engine, cache.reserved());
        let counters = &policies.counters;
        let name = world.name(side.subject, reserved);
        let Some((subject, _)) = name.and_then(|name| engine.endpoint(name)) else {
            Policies::count(&counters.ends_unknown);
            return false;
        };
        if !engine.judges(subject, side.direction) {
            return false;
        }
        let (peer, address) = side.peer;
        if is_to_untold_backend(flow, side, reserved.world.identity) {
            Policies::count(&counters.backend_unknown);
            return false;
        }
        let Some(peer) = world.peer(peer, address, reserved) else {
            Policies::count(&counters.ends_unknown);
            return false;
        };
        let decision = engine.judge(subject, side.direction, peer, flow.protocol, port(flow));
        let Some(rules) = decision.rules else { return false };
        let known = rulings.of(policies, world, subject, side.direction, rules);
        known.hit();
        let Some(verdict) = &known.verdict else {
            Policies::count(&counters.observed);
            return false;
        };
        Policies::count(&counters.verdicts);
        let denies = verdict.told().denies;
        if denies {
            Policies::count(&counters.audited);
        }
        give(&Flow {
            record: &record(flow, side.direction, denies),
            policy: Some(verdict),
            link: None,
            drop: None,
            translated: flow.translated.filter(|translated| translated.source.is_none()),
            ..*flow
        });
        true
    }
}

/// Whether it is the first packet of a connection between two pods of this node, dropped before it was delivered. Of TCP
/// alone a packet says that it is the first.
fn opens_between_pods(flow: &Flow<'_>) -> bool {
    const SYN: u16 = 1 << 1;
    const ACK: u16 = 1 << 4;
    flow.protocol == TCP
        && flow.tcp_flags() & (SYN | ACK) == SYN
        && !flow.notes.has(Notes::SUM)
        && flow.source.local
        && flow.destination.local
        // Where it came in from a pod, in the node's own namespace.
        && flow.link.is_some_and(|link| link.kind == LinkKind::Pod)
}

/// What Hubble has of a verdict besides its policies.
fn record(flow: &Record, direction: Direction, denies: bool) -> Record {
    Record {
        event_type: Record::POLICY_EVENT,
        verdict: if denies { Verdict::Audit } else { Verdict::Forwarded } as u8,
        direction: match direction {
            Direction::Egress => TrafficDirection::Egress,
            Direction::Ingress => TrafficDirection::Ingress,
        } as u8,
        time_ns: flow.time_ns,
        source_ip: flow.source_ip,
        destination_ip: flow.destination_ip,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        protocol: flow.protocol,
        ip_version: flow.ip_version,
        flags_or_type: flow.flags_or_type,
        is_reply: Tristate::No,
        source_mac: flow.source_mac,
        destination_mac: flow.destination_mac,
        // What its packets are is told by the flow.
        ..Record::default()
    }
}

/// For the engine the port of ICMP is its type.
fn port(flow: &Record) -> u16 {
    match flow.protocol {
        TCP | UDP | SCTP => flow.destination_port,
        ICMP | ICMPV6 => flow.icmp().0.into(),
        _ => 0,
    }
}

/// What is no IP, and what IPv6 needs to work at all: neighbours, routers, and who listens to which group.
fn is_never_judged(flow: &Record) -> bool {
    const LISTENERS: [std::ops::RangeInclusive<u8>; 2] = [130..=137, 143..=143];
    flow.ip_version == 0
        || flow.protocol == ICMPV6 && LISTENERS.iter().any(|types| types.contains(&flow.icmp().0))
}

/// Whether it goes to a service's address, which is nobody's: who would answer it is what policies are about.
fn is_to_untold_backend(flow: &Flow<'_>, side: &Side<'_>, world: u32) -> bool {
    side.direction == Direction::Egress
        && flow.destination.identity == world
        && flow.destination_service.is_some()
        && flow.frontend().is_none()
}

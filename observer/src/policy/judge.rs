//! The stage: what policies say of a new connection, told beside its flows.
//!
//! The kernel judges a connection's first packet on each link; what it decided comes with the packet's record, and is
//! named here by the world that it decided by. Each side is told where the packet is told.
//!
//! Where the kernel does not judge, and in replays, it is done here: both sides at the delivery to a pod of this node,
//! else egress where it leaves a pod for elsewhere. The node has no link of its own; for it that is where its packets come
//! in or go out. What others drop between two pods of the node is told as a drop only, and its sender is judged there.

use super::{
    Policies, World,
    kernel::rules,
    rulings::{Known, Rulings},
};
use crate::{
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    flow::{Flow, LinkKind, Notes, Record, Tristate},
    policy_verdict::PolicyVerdict,
    track::Decided,
};
use observer_ebpf::policy::{decision, judged_flags, slot};
use observer_policy::{
    engine::RuleSetId,
    model::{Direction, ICMP, ICMPV6, SCTP, TCP, UDP},
};
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
    in_kernel: bool,
    published: Numbered<'a>,
    /// By which the kernel decided before, once it was needed.
    other: Option<Numbered<'a>>,
}

/// A world with its number.
type Numbered<'a> = (usize, RwLockReadGuard<'a, World>);

/// One side of a connection.
struct Side<'a> {
    direction: Direction,
    subject: &'a Arc<Endpoint>,
    peer: (&'a Arc<Endpoint>, IpAddr),
}

/// What was told of a flow besides itself.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// How many verdicts were given.
    pub(crate) verdicts: u64,
    /// Of a drop by policies why they deny it.
    pub(crate) denied_by: Option<Arc<PolicyVerdict>>,
}

impl Judge {
    pub(crate) fn new(policies: Arc<Policies>, cache: Arc<IpCache>) -> Self {
        Self { policies, cache, rulings: Rulings::default() }
    }

    /// For the next batch.
    pub(crate) fn begin(&mut self) -> Judging<'_> {
        let Self { policies, cache, rulings } = self;
        let in_kernel = policies.worlds.are_in_kernel();
        Judging { policies, cache, rulings, in_kernel, published: policies.worlds.read(), other: None }
    }
}

impl Judging<'_> {
    /// Gives the verdicts on a flow, if it is of a new connection, or was denied; `decided` is what the kernel
    /// said.
    #[inline]
    pub(crate) fn judge(
        &mut self,
        flow: &Flow<'_>,
        decided: Option<Decided<'_>>,
        give: &mut impl FnMut(&Flow<'_>),
    ) -> Told {
        let is_new = flow.trace_reason == TraceReason::New as u8;
        if self.in_kernel {
            match decided {
                Some(decided) if is_new || flow.is_drop() => return self.decided(flow, decided, give),
                None if flow.is_drop() => {}
                _ => return Told::default(),
            }
        }
        let is_again = decided.is_some_and(|decided| decided.again);
        if !is_again && (is_new || flow.is_drop() && opens_between_pods(flow)) {
            return Told { verdicts: self.connection(flow, give), denied_by: None };
        }
        Told::default()
    }

    /// What the kernel decided.
    fn decided(&mut self, flow: &Flow<'_>, decided: Decided<'_>, give: &mut impl FnMut(&Flow<'_>)) -> Told {
        let Decided { judged, again } = decided;
        let mut told = Told::default();
        let Some(number) = self.world_of(judged.generation) else {
            Policies::count(&self.policies.counters.forgotten);
            return told;
        };
        for (direction, decided) in [(Direction::Egress, judged.egress), (Direction::Ingress, judged.ingress)]
        {
            if decided & decision::JUDGED == 0 || !is_told_at(flow, direction) {
                continue;
            }
            let is_for_backend = direction == Direction::Egress && judged.flags & judged_flags::FRONTEND != 0;
            let denies = decided & decision::DENIED != 0 && flow.is_drop();
            if is_for_backend && flow.is_drop() && judged.flags & judged_flags::MIXED != 0 {
                // It is decided where the packet comes out, which it never does.
                continue;
            }
            let verdict = if decided & decision::UNKNOWN != 0 {
                Policies::count(&self.policies.counters.ends_unknown);
                let revision = self.world(number).revision;
                Some(self.rulings.of_nobody(direction, revision))
            } else if is_for_backend && !flow.is_drop() {
                self.of_backend(number, flow)
            } else if again {
                self.known(number, direction, rules(decided)).denial.clone()
            } else {
                self.ruled(number, direction, rules(decided), denies)
            };
            let Some(verdict) = verdict else { continue };
            if !again {
                let is_redirected = judged.flags & judged_flags::REDIRECTED != 0;
                self.give(flow, direction, &verdict, (denies, is_redirected), give);
                told.verdicts += 1;
            }
            if denies && told.denied_by.is_none() {
                told.denied_by = Some(verdict);
            }
        }
        told
    }

    /// The number of the world by which the kernel decided in a generation; nothing if that is gone.
    fn world_of(&mut self, generation: u32) -> Option<usize> {
        let (worlds, number) = (&self.policies.worlds, slot(generation) as usize);
        if number != self.published.0 && self.other.is_none() {
            self.other = worlds.try_read(number).map(|world| (number, world));
        }
        // After the guard was taken: from now on it stays what it is.
        let is_read = number == self.published.0 || self.other.is_some();
        (is_read && worlds.decided(number, generation)).then_some(number)
    }

    fn world(&self, number: usize) -> &World {
        match &self.other {
            Some((other, world)) if *other == number => world,
            _ => &self.published.1,
        }
    }

    /// What is told of a new connection to a service. The kernel judged all backends; by now it is known which one it is.
    fn of_backend(&mut self, number: usize, flow: &Flow<'_>) -> Option<Arc<PolicyVerdict>> {
        if flow.frontend().is_none() {
            // Where the packet comes out, a pod's own link may tell.
            Policies::count(&self.policies.counters.backend_unknown);
            return None;
        }
        let peer = (flow.destination, flow.destination_ip?);
        let side = Side { direction: Direction::Egress, subject: flow.source, peer };
        let rules = self.rules_of(number, flow, &side)?;
        self.ruled(number, side.direction, rules, false)
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
        let number = self.published.0;
        let mut given = 0;
        for (direction, subject, peer) in sides {
            if !self.is_told_here(flow, direction, subject) {
                continue;
            }
            if let Some(rules) = self.rules_of(number, flow, &Side { direction, subject, peer })
                && let Some(verdict) = self.ruled(number, direction, rules, false)
            {
                self.give(flow, direction, &verdict, (false, false), give);
                given += 1;
            }
        }
        given
    }

    /// Whether a side is on this node, and is judged where the flow was told.
    fn is_told_here(&self, flow: &Flow<'_>, direction: Direction, subject: &Arc<Endpoint>) -> bool {
        let is_host = subject.serial() == self.cache.reserved().host.serial();
        match (Point::try_from(i32::from(flow.observation_point)), direction) {
            // By policies of another time.
            (Ok(Point::UnknownPoint), _) if is_by_policies(flow) => subject.local || is_host,
            (Ok(Point::UnknownPoint), Direction::Egress) => flow.is_drop(),
            (Ok(Point::ToEndpoint), Direction::Egress) => subject.local || is_host,
            (Ok(Point::ToEndpoint), Direction::Ingress) | (Ok(Point::ToStack), Direction::Egress) => {
                subject.local
            }
            (Ok(Point::ToNetwork | Point::ToOverlay), Direction::Egress)
            | (Ok(Point::FromNetwork | Point::FromOverlay | Point::ToStack), Direction::Ingress) => is_host,
            _ => false,
        }
    }

    /// The rules that decide on a side, if any policy says something of it.
    fn rules_of(&self, number: usize, flow: &Flow<'_>, side: &Side<'_>) -> Option<RuleSetId> {
        let (world, reserved) = (self.world(number), self.cache.reserved());
        let (engine, counters) = (&world.engine, &self.policies.counters);
        let name = world.name(side.subject, reserved);
        let Some((subject, _)) = name.and_then(|name| engine.endpoint(name)) else {
            Policies::count(&counters.ends_unknown);
            return None;
        };
        if !engine.judges(subject, side.direction) {
            return None;
        }
        let (peer, address) = side.peer;
        if is_to_untold_backend(flow, side, reserved.world.identity) {
            Policies::count(&counters.backend_unknown);
            return None;
        }
        let Some(peer) = world.peer(peer, address, reserved) else {
            Policies::count(&counters.ends_unknown);
            return None;
        };
        engine.judge(subject, side.direction, peer, flow.protocol, port(flow)).rules
    }

    /// What is told where these rules decided, or, with `denies`, refused; nothing where policies are evaluated only.
    fn ruled(
        &mut self,
        number: usize,
        direction: Direction,
        rules: RuleSetId,
        denies: bool,
    ) -> Option<Arc<PolicyVerdict>> {
        let known = self.known(number, direction, rules);
        let verdict = if denies {
            known.hit_denied();
            known.denial.clone()
        } else {
            known.hit();
            known.verdict.clone()
        };
        if verdict.is_none() {
            Policies::count(&self.policies.counters.observed);
        }
        verdict
    }

    fn known(&mut self, number: usize, direction: Direction, rules: RuleSetId) -> &Known {
        let Self { policies, rulings, published, other, .. } = self;
        let world = match other {
            Some((other, world)) if *other == number => &**world,
            _ => &*published.1,
        };
        rulings.of(policies, (number, world), direction, rules)
    }

    fn give(
        &self,
        flow: &Flow<'_>,
        direction: Direction,
        verdict: &Arc<PolicyVerdict>,
        (is_denied, is_redirected): (bool, bool),
        give: &mut impl FnMut(&Flow<'_>),
    ) {
        let counters = &self.policies.counters;
        Policies::count(&counters.verdicts);
        let told = match (is_denied, verdict.told().denies) {
            (true, _) => {
                Policies::count(&counters.denied);
                Verdict::Dropped
            }
            (false, true) => {
                Policies::count(&counters.audited);
                Verdict::Audit
            }
            (false, false) if is_redirected => Verdict::Redirected,
            (false, false) => Verdict::Forwarded,
        };
        give(&Flow {
            record: &record(flow, direction, told),
            policy: Some(verdict),
            link: None,
            drop: None,
            translated: flow.translated.filter(|translated| translated.source.is_none()),
            ..*flow
        });
    }
}

/// Whether policies denied it, when it was seen.
fn is_by_policies(flow: &Flow<'_>) -> bool {
    flow.drop.is_some_and(|site| site.is_by_policies())
}

/// Whether what the kernel decided on a side is told with this flow: not where a packet is told that another point tells.
fn is_told_at(flow: &Flow<'_>, direction: Direction) -> bool {
    match Point::try_from(i32::from(flow.observation_point)) {
        Ok(Point::ToEndpoint | Point::ToStack | Point::ToProxy) => true,
        Ok(Point::ToNetwork | Point::ToOverlay) => direction == Direction::Egress,
        Ok(Point::FromNetwork | Point::FromOverlay) => direction == Direction::Ingress,
        _ => flow.is_drop(),
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
fn record(flow: &Record, direction: Direction, verdict: Verdict) -> Record {
    Record {
        event_type: Record::POLICY_EVENT,
        verdict: verdict as u8,
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

//! One record and what conntrack knows of it -> the flow that is told, or why it is not told.

use super::connection::Translation;
use crate::{
    decode::{DropEvent, End, FlowEvent, FlowReason, Hook, Packet},
    flow::{LinkKind, Notes, Tristate, Tunnel},
};
use observer_ebpf::flow_flags;
use observer_proto::flow::{TraceObservationPoint as Point, TraceReason, TrafficDirection};
use std::net::IpAddr;

const TCP: u8 = 6;

/// What the node's addresses are, as far as this stage must know.
pub trait Addresses {
    /// A pod of this node, at any port, whose link is watched: what goes to it is told when it is delivered.
    fn is_local_pod(&self, end: &End) -> bool;
    /// At an address of this node itself.
    fn is_node(&self, end: &End) -> bool;
    /// Whether a tunnel device of this node is watched: what the node carries is told there, or at a pod's link.
    fn has_tunnel(&self) -> bool;
}

/// The ends of a packet as a client should see them. Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The real source: the client before masquerading, the backend of a reply.
    pub source: Option<End>,
    /// The real destination: the backend, or the client of a reply.
    pub destination: Option<End>,
    /// The address that the source was masqueraded to, where the packet carried it (Hubble's `source_xlated`).
    pub source_xlated: Option<IpAddr>,
    /// What the client called, where that is not the backend.
    pub frontend: Option<End>,
}

impl Ends {
    #[inline]
    pub(super) fn new(packet: Option<&Packet>, translation: Option<&Translation>) -> Self {
        const UDP: u8 = 17;
        const SCTP: u8 = 132;
        let Some(seen) = packet.map(|packet| packet.tuple) else { return Self::default() };
        let (source, destination) = match translation {
            None => (seen.source, seen.destination),
            // Half of all packets go back, nobody can say which: no branch.
            Some(known) => {
                let ends = [known.client, known.backend];
                (ends[usize::from(!known.from_client)], ends[usize::from(known.from_client)])
            }
        };
        let frontend = translation.filter(|known| known.destination_translated()).map(|known| known.frontend);
        let source_xlated = translation
            .filter(|known| known.from_client && !seen.source.is_at(&known.client))
            .map(|_| seen.source.ip());
        // The echo identifier of ICMP stands in the place of ports for look-ups only.
        let has_ports = matches!(seen.protocol, TCP | UDP | SCTP);
        let shown = |end: End| if has_ports { end } else { end.with_port(0) };
        Self {
            source: Some(shown(source)),
            destination: Some(shown(destination)),
            source_xlated,
            frontend: frontend.map(shown),
        }
    }
}

/// A flow that is told.
#[derive(Clone, Debug)]
pub struct TrackedFlow<'a> {
    /// The record.
    pub event: &'a FlowEvent,
    /// Between whom it is.
    pub ends: &'a Ends,
    /// Whether it is an answer; always set.
    pub is_reply: Tristate,
    /// Hubble's direction, as the endpoint at this point sees the connection.
    pub direction: TrafficDirection,
    /// Where it was seen.
    pub point: Point,
    /// What it is in its connection.
    pub reason: TraceReason,
    /// Facts for `extensions`.
    pub notes: Notes,
    /// TCP retransmits of the connection so far, by local sockets.
    pub retransmits: u32,
}

/// A drop that is told; each is.
#[derive(Clone, Debug)]
pub struct TrackedDrop<'a> {
    /// The record.
    pub event: &'a DropEvent,
    /// Between whom the packet was.
    pub ends: &'a Ends,
    /// Hubble's direction, where one end is of this node; of what policies deny that of the side which denies it.
    pub direction: TrafficDirection,
    /// What it is in its connection, where that is known.
    pub reason: TraceReason,
    /// Policies denied a packet of the connection before, which was told.
    pub again: bool,
    /// TCP retransmits of the connection so far, by local sockets.
    pub retransmits: u32,
    /// Facts for `extensions`.
    pub notes: Notes,
}

/// Why a record is not told: another one tells of the same packet, or nobody here is a party to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppressed {
    /// From a pod to a local pod: told at the delivery.
    LocalDelivery,
    /// To a service address whose backend is a local pod, or an answer to a client that is one: told at the delivery.
    TranslatedLocal,
    /// A pod's packet under the node's address: told at the pod's link.
    Masqueraded,
    /// Passing through an uplink or tunnel between others, or to or from a pod whose link tells it.
    Forwarded,
    /// Inside a tunnel of this node, whose device or a pod's link tells it.
    Carried,
}

/// The flow that a record is, or why it is none.
#[inline]
pub(super) fn judge_flow<'a>(
    event: &'a FlowEvent,
    ends: &'a Ends,
    translation: Option<&Translation>,
    addresses: &impl Addresses,
) -> Result<TrackedFlow<'a>, Suppressed> {
    // What comes in goes to the proxy, and is delivered nowhere else.
    let to_proxy = event.hook == Hook::Ingress && event.flags.has(flow_flags::PROXIED);
    let mut point = match (event.link_kind, event.hook) {
        _ if to_proxy => Point::ToProxy,
        (LinkKind::Pod | LinkKind::Other, Hook::Egress) => Point::ToEndpoint,
        (LinkKind::Pod | LinkKind::Other, Hook::Ingress) => Point::ToStack,
        (LinkKind::Uplink, Hook::Ingress) => Point::FromNetwork,
        (LinkKind::Uplink, Hook::Egress) => Point::ToNetwork,
        (LinkKind::Tunnel, Hook::Ingress) => Point::FromOverlay,
        (LinkKind::Tunnel, Hook::Egress) => Point::ToOverlay,
    };
    let why = if to_proxy { None } else { suppressed(event, ends, point, translation, addresses) };
    if let Some(why) = why {
        let every_packet_is_told = event.reason == FlowReason::Packet && point == Point::ToStack;
        if !every_packet_is_told {
            return Err(why);
        }
        point = Point::FromEndpoint;
    }

    let guessed = event.flags.has(flow_flags::OPENER_GUESSED);
    let related = event.flags.has(flow_flags::RELATED);
    // The kernel side saw the opening packet, unless it says that it guessed: then conntrack knows better.
    let reply = !related
        && match translation {
            Some(known) if guessed => !known.from_client,
            _ => event.flags.has(flow_flags::REPLY),
        };
    let reason = if related {
        TraceReason::Related
    } else if reply {
        TraceReason::Reply
    } else if !guessed && is_first(event) {
        TraceReason::New
    } else {
        TraceReason::Established
    };
    let mut notes = Notes::default();
    let is_tcp = event.packet.is_some_and(|packet| packet.tuple.protocol == TCP);
    for (is_so, note) in [
        (guessed && is_tcp, Notes::PARTIAL),
        (guessed && !related && translation.is_none(), Notes::OPENER_GUESSED),
        (event.flags.has(flow_flags::FRAGMENT), Notes::FRAGMENT),
        (event.reason == FlowReason::Sweep, Notes::FINAL),
    ] {
        if is_so {
            notes.set(note);
        }
    }
    Ok(TrackedFlow {
        direction: direction(endpoint_is_source(point, ends, addresses), reply),
        is_reply: if reply { Tristate::Yes } else { Tristate::No },
        event,
        ends,
        point,
        reason,
        notes,
        retransmits: 0,
    })
}

/// What is told of a drop.
pub(super) fn judge_drop<'a>(
    event: &'a DropEvent,
    ends: &'a Ends,
    addresses: &impl Addresses,
) -> TrackedDrop<'a> {
    let mut notes = Notes::default();
    if event.sum {
        notes.set(Notes::SUM);
    }
    let direction = direction(local_end_is_source(ends, addresses), false);
    let reason = event.denied.map_or(TraceReason::Unknown, |denied| match denied.flags {
        flags if flags.has(flow_flags::RELATED) => TraceReason::Related,
        flags if flags.has(flow_flags::REPLY) => TraceReason::Reply,
        flags if flags.has(flow_flags::OPENER_GUESSED) => TraceReason::Established,
        _ => TraceReason::New,
    });
    if event.denied.is_some_and(|denied| denied.flags.has(flow_flags::FRAGMENT)) {
        notes.set(Notes::FRAGMENT);
    }
    TrackedDrop { direction, reason, again: false, event, ends, notes, retransmits: 0 }
}

/// Whether the record is of its connection's first packet, as far as the kernel side saw it.
pub(super) fn is_first(event: &FlowEvent) -> bool {
    match event.reason {
        FlowReason::New => true,
        FlowReason::Packet | FlowReason::Payload => event.packets == 1,
        FlowReason::Flags | FlowReason::Interval | FlowReason::Sweep => false,
    }
}

fn suppressed(
    event: &FlowEvent,
    ends: &Ends,
    point: Point,
    translation: Option<&Translation>,
    addresses: &impl Addresses,
) -> Option<Suppressed> {
    if let Some(tunnel) = &event.tunnel {
        return carried(event, tunnel, addresses);
    }
    let seen = event.packet.as_ref()?.tuple;
    let (source, destination) = (ends.source?, ends.destination?);
    let is_for_destination = seen.destination.is_at(&destination);
    match point {
        Point::ToEndpoint => None,
        _ if event.hook == Hook::Ingress => {
            let said_by_kernel = translation.is_none() && event.flags.has(flow_flags::TO_LOCAL_POD);
            if said_by_kernel || addresses.is_local_pod(&destination) {
                Some(match (point, is_for_destination) {
                    (Point::ToStack, true) => Suppressed::LocalDelivery,
                    (_, true) => Suppressed::Forwarded,
                    (Point::ToStack, false) => Suppressed::TranslatedLocal,
                    (_, false) if translation.is_some_and(|known| known.from_client) => {
                        Suppressed::TranslatedLocal
                    }
                    (_, false) => Suppressed::Masqueraded,
                })
            } else if point != Point::ToStack && translation.is_some() && !is_for_destination {
                // Called at a node's address or a service's, answered elsewhere: it only passes through.
                (!addresses.is_node(&destination)).then_some(Suppressed::Forwarded)
            } else {
                None
            }
        }
        _ if addresses.is_local_pod(&source) && !seen.source.is_at(&source) => Some(Suppressed::Masqueraded),
        _ if addresses.is_local_pod(&source) || event.flags.has(flow_flags::FORWARDED) => {
            Some(Suppressed::Forwarded)
        }
        _ => None,
    }
}

/// A tunneled packet's own ends are of another network than the link's, so the outer ones decide.
fn carried(event: &FlowEvent, tunnel: &Tunnel, addresses: &impl Addresses) -> Option<Suppressed> {
    let near = |(source, destination): (_, _)| if event.hook == Hook::Egress { source } else { destination };
    let is_ours = tunnel.ends.map(near).is_none_or(|(ip, port)| addresses.is_node(&End::new(ip, port)));
    let at_uplink = matches!(event.link_kind, LinkKind::Uplink | LinkKind::Tunnel);
    (at_uplink && is_ours && addresses.has_tunnel()).then_some(Suppressed::Carried)
}

/// Whether the endpoint at a point is the packet's source; nothing where there is no endpoint.
fn endpoint_is_source(point: Point, ends: &Ends, addresses: &impl Addresses) -> Option<bool> {
    match point {
        Point::ToEndpoint => Some(false),
        Point::ToStack | Point::FromEndpoint => Some(true),
        _ => local_end_is_source(ends, addresses),
    }
}

/// Whether the end on this node is the source; a pod goes before the node.
fn local_end_is_source(ends: &Ends, addresses: &impl Addresses) -> Option<bool> {
    let (source, destination) = (ends.source?, ends.destination?);
    if addresses.is_local_pod(&source) {
        Some(true)
    } else if addresses.is_local_pod(&destination) {
        Some(false)
    } else if addresses.is_node(&source) {
        Some(true)
    } else {
        addresses.is_node(&destination).then_some(false)
    }
}

fn direction(endpoint_is_source: Option<bool>, reply: bool) -> TrafficDirection {
    match endpoint_is_source {
        None => TrafficDirection::Unknown,
        Some(is_source) if is_source != reply => TrafficDirection::Egress,
        Some(_) => TrafficDirection::Ingress,
    }
}

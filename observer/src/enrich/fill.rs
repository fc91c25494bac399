//! A tracked event and the names of its ends -> the compact [`Flow`] that is stored.

use super::{Enricher, Packet as Named};
use crate::{
    decode::{Macs, Packet},
    flow::{Flow, Link, LinkKind, Tristate, Tunnel},
    track::{Ends, Tracked, TrackedDrop, TrackedFlow},
};
use observer_proto::flow::Verdict;
use std::{net::IpAddr, sync::Arc};

/// Hubble's event types (its monitor's message numbers).
mod event_type {
    pub(super) const DROP: u8 = 1;
    pub(super) const TRACE: u8 = 4;
}

/// Fills flows. Owned by the pipeline's thread.
#[derive(Debug)]
pub struct Filler {
    enricher: Enricher,
    /// Changes with every flow, so that ids of two daemons' lives never meet.
    uuid: u64,
}

impl Filler {
    /// With the names to look up in.
    pub fn new(enricher: Enricher) -> Self {
        let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self { enricher, uuid: high }
    }

    /// The flow that tells of `tracked`, seen on `link`.
    pub fn fill(&mut self, tracked: Tracked, link: Option<Arc<Link>>) -> Flow {
        self.uuid = self.uuid.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        match tracked {
            Tracked::Flow(flow) => self.trace(&flow, link),
            Tracked::Drop(drop) => self.drop(drop, link),
        }
    }

    fn trace(&mut self, tracked: &TrackedFlow, link: Option<Arc<Link>>) -> Flow {
        let event = &tracked.event;
        let reply = tracked.is_reply == Tristate::Yes;
        // What pods carry inside tunnels of their own has addresses that are not of this network; the pods are.
        let outer = event.tunnel.as_deref().filter(|_| event.link_kind == LinkKind::Pod);
        Flow {
            tcp_flags: event.tcp_flags,
            event_type: event_type::TRACE,
            verdict: Verdict::Forwarded as u8,
            direction: tracked.direction as u8,
            observation_point: tracked.point as u8,
            trace_reason: tracked.reason as u8,
            is_reply: tracked.is_reply,
            packets: event.packets,
            bytes: event.bytes,
            first_ns: event.first_ns,
            retransmits: u16::try_from(tracked.retransmits).unwrap_or(u16::MAX),
            resets: event.resets,
            tunnel: event.tunnel.clone(),
            notes: tracked.notes,
            link,
            ..self.named(event.time_ns, event.packet.as_ref(), event.macs, &tracked.ends, outer, reply)
        }
    }

    fn drop(&mut self, tracked: TrackedDrop, link: Option<Arc<Link>>) -> Flow {
        let event = tracked.event;
        Flow {
            tcp_flags: event.tcp_flags,
            event_type: event_type::DROP,
            verdict: Verdict::Dropped as u8,
            direction: tracked.direction as u8,
            packets: event.packets,
            bytes: event.bytes,
            first_ns: event.first_ns,
            retransmits: u16::try_from(tracked.retransmits).unwrap_or(u16::MAX),
            notes: tracked.notes,
            link,
            drop: Some(event.site),
            ..self.named(event.time_ns, event.packet.as_ref(), None, &tracked.ends, None, false)
        }
    }

    /// What drops and traces have in common: the headers and the names. With `outer`, its ends are named.
    fn named(
        &mut self,
        time_ns: i64,
        packet: Option<&Packet>,
        macs: Option<Macs>,
        ends: &Ends,
        outer: Option<&Tunnel>,
        reply: bool,
    ) -> Flow {
        let protocol = packet.map_or(0, |packet| packet.tuple.protocol);
        let end = |end: Option<crate::decode::End>| (end.map(|end| end.ip), end.map_or(0, |end| end.port));
        let (source, destination) = (end(ends.source), end(ends.destination));
        let some = |(ip, port): (IpAddr, u16)| (Some(ip), port);
        let outer_ends = outer.and_then(|tunnel| tunnel.ends).map(|(from, to)| (some(from), some(to)));
        let (named_source, named_destination) = outer_ends.unwrap_or((source, destination));
        let names = self.enricher.ends(&Named {
            time_ns,
            source: named_source,
            destination: named_destination,
            protocol: outer.map_or(protocol, |tunnel| tunnel.protocol),
            frontend: ends.frontend.map(|end| (end.ip, end.port)),
            is_reply: reply,
        });
        Flow {
            time_ns,
            uuid_high: self.uuid,
            source_ip: source.0,
            destination_ip: destination.0,
            source_xlated: ends.source_xlated,
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            ip_version: packet.map_or(0, |packet| packet.ip_version),
            tcp_flags: 0,
            icmp_type: packet.map_or(0, |packet| packet.icmp_type),
            icmp_code: packet.map_or(0, |packet| packet.icmp_code),
            event_type: 0,
            verdict: 0,
            direction: 0,
            observation_point: 0,
            trace_reason: 0,
            is_reply: Tristate::Unset,
            source_mac: macs.map_or([0; 6], |macs| macs.source),
            destination_mac: macs.map_or([0; 6], |macs| macs.destination),
            source: names.source,
            destination: names.destination,
            source_service: names.source_service,
            destination_service: names.destination_service,
            link: None,
            tunnel: None,
            drop: None,
            packets: 0,
            bytes: 0,
            first_ns: 0,
            retransmits: 0,
            resets: 0,
            notes: crate::flow::Notes::default(),
            frontend_ip: ends.frontend.map(|end| end.ip),
            frontend_port: ends.frontend.map_or(0, |end| end.port),
        }
    }
}

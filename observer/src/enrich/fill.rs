//! A tracked event and the names of its ends -> the compact [`Flow`] that is stored.

use super::{Ends as Names, Enricher, Packet as Named};
use crate::{
    decode::{End, Packet},
    flow::{Flow, Link, LinkKind, Translated, Tristate, Tunnel},
    track::{Ends, Tracked, TrackedDrop, TrackedFlow},
};
use hashbrown::HashMap;
use observer_proto::flow::Verdict;
use std::{net::IpAddr, sync::Arc};

/// Hubble's event types (its monitor's message numbers).
mod event_type {
    pub(super) const DROP: u8 = 1;
    pub(super) const TRACE: u8 = 4;
}

/// Services and node addresses that were called or stood in for pods lately; when there are more all are made anew.
const MOST_TRANSLATIONS: usize = 4096;

/// Fills flows. Owned by the pipeline's thread.
#[derive(Debug)]
pub struct Filler {
    enricher: Enricher,
    translations: HashMap<Translated, Arc<Translated>>,
}

impl Filler {
    /// With the names to look up in.
    pub fn new(enricher: Enricher) -> Self {
        Self { enricher, translations: HashMap::new() }
    }

    /// The flow that tells of `tracked`, seen on `link`.
    #[inline]
    pub fn fill(&mut self, tracked: &Tracked<'_>, link: Option<Arc<Link>>) -> Flow {
        let mut flow = match tracked {
            Tracked::Flow(flow) => self.trace(flow),
            Tracked::Drop(drop) => self.drop(drop),
        };
        flow.link = link;
        flow
    }

    #[inline]
    fn translated(&mut self, ends: &Ends) -> Option<Arc<Translated>> {
        if ends.source_xlated.is_none() && ends.frontend.is_none() {
            return None;
        }
        let frontend = ends.frontend.map(|end| (end.ip(), end.port()));
        let translated = Translated { source: ends.source_xlated, frontend };
        if self.translations.len() >= MOST_TRANSLATIONS {
            self.translations.clear();
        }
        let shared = self.translations.entry(translated).or_insert_with(|| Arc::new(translated));
        Some(Arc::clone(shared))
    }

    // Fields are set in the flow as it lies: it is moved as seldom as can be.
    fn trace(&mut self, tracked: &TrackedFlow<'_>) -> Flow {
        let event = tracked.event;
        let reply = tracked.is_reply == Tristate::Yes;
        // What pods carry inside tunnels of their own has addresses that are not of this network; the pods are.
        let outer = event.tunnel.as_deref().filter(|_| event.link_kind == LinkKind::Pod);
        let names = self.names(event.kernel_ns, event.packet.as_ref(), &tracked.ends, outer, reply);
        let mut flow = named(event.time_ns, event.packet.as_ref(), event.tcp_flags, &tracked.ends, names);
        flow.translated = self.translated(&tracked.ends);
        if let Some(macs) = event.macs {
            (flow.source_mac, flow.destination_mac) = (macs.source, macs.destination);
        }
        flow.event_type = event_type::TRACE;
        flow.verdict = Verdict::Forwarded as u8;
        flow.direction = tracked.direction as u8;
        flow.observation_point = tracked.point as u8;
        flow.trace_reason = tracked.reason as u8;
        flow.is_reply = tracked.is_reply;
        flow.packets = event.packets;
        flow.bytes = event.bytes;
        flow.first_ns = event.first_ns;
        flow.retransmits = u16::try_from(tracked.retransmits).unwrap_or(u16::MAX);
        flow.resets = event.resets;
        flow.tunnel.clone_from(&event.tunnel);
        flow.notes = tracked.notes;
        flow
    }

    fn drop(&mut self, tracked: &TrackedDrop<'_>) -> Flow {
        let event = tracked.event;
        let names = self.names(event.kernel_ns, event.packet.as_ref(), &tracked.ends, None, false);
        let mut flow = named(event.time_ns, event.packet.as_ref(), event.tcp_flags, &tracked.ends, names);
        flow.translated = self.translated(&tracked.ends);
        flow.event_type = event_type::DROP;
        flow.verdict = Verdict::Dropped as u8;
        flow.direction = tracked.direction as u8;
        flow.packets = event.packets;
        flow.bytes = event.bytes;
        flow.first_ns = event.first_ns;
        flow.retransmits = u16::try_from(tracked.retransmits).unwrap_or(u16::MAX);
        flow.notes = tracked.notes;
        flow.drop = Some(Arc::clone(&event.site));
        flow
    }

    /// The names of the ends; with `outer`, of its ends.
    #[inline]
    fn names(
        &mut self,
        kernel_ns: u64,
        packet: Option<&Packet>,
        ends: &Ends,
        outer: Option<&Tunnel>,
        is_reply: bool,
    ) -> Names {
        let of = |(ip, port): (IpAddr, u16)| Some(End::new(ip, port));
        let (source, destination) = match outer.and_then(|tunnel| tunnel.ends) {
            Some((source, destination)) => (of(source), of(destination)),
            None => (ends.source, ends.destination),
        };
        let protocol = packet.map_or(0, |packet| packet.tuple.protocol);
        self.enricher.ends(&Named {
            kernel_ns,
            source,
            destination,
            protocol: outer.map_or(protocol, |tunnel| tunnel.protocol),
            frontend: ends.frontend,
            is_reply,
        })
    }
}

/// What drops and traces have in common: the headers and the names.
#[inline]
fn named(time_ns: i64, packet: Option<&Packet>, tcp_flags: u16, ends: &Ends, names: Names) -> Flow {
    const TCP: u8 = 6;
    let protocol = packet.map_or(0, |packet| packet.tuple.protocol);
    let icmp = packet.map_or(0, |packet| u16::from_be_bytes([packet.icmp_type, packet.icmp_code]));
    let (source, destination) = (address(ends.source), address(ends.destination));
    Flow {
        time_ns,
        source_ip: source.0,
        destination_ip: destination.0,
        translated: None,
        source_port: source.1,
        destination_port: destination.1,
        protocol,
        ip_version: packet.map_or(0, |packet| packet.ip_version),
        flags_or_type: if protocol == TCP { tcp_flags } else { icmp },
        event_type: 0,
        verdict: 0,
        direction: 0,
        observation_point: 0,
        trace_reason: 0,
        is_reply: Tristate::Unset,
        source_mac: [0; 6],
        destination_mac: [0; 6],
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
    }
}

fn address(end: Option<End>) -> (Option<IpAddr>, u16) {
    (end.map(|end| end.ip()), end.map_or(0, |end| end.port()))
}

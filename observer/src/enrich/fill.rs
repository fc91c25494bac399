//! A tracked event and the names of its ends -> the compact [`Flow`] that is stored.

use super::{Ends as Names, Enricher, Packet as Named, learnt::LearntNames};
use crate::{
    decode::{End, Packet},
    flow::{Flow, Link, LinkKind, Record, Translated, Tristate, Tunnel},
    track::{Ends, Tracked, TrackedDrop, TrackedFlow},
};
use hashbrown::HashMap;
use observer_proto::flow::Verdict;
use std::{net::IpAddr, sync::Arc};

/// Services and node addresses that were called or stood in for pods lately; when there are more all are made anew.
const MOST_TRANSLATIONS: usize = 4096;

/// Fills flows. Owned by the pipeline's thread.
#[derive(Debug)]
pub struct Filler {
    enricher: Enricher,
    translations: HashMap<Translated, Arc<Translated>>,
    learnt: LearntNames,
}

impl Filler {
    /// With the names to look up in.
    pub fn new(enricher: Enricher) -> Self {
        let learnt = LearntNames::new(Arc::clone(enricher.resolved()));
        Self { enricher, translations: HashMap::new(), learnt }
    }

    /// From now on `name` stands beside the address `ip` in flows of `client`, which was told so by DNS at this kernel time.
    pub fn learn(&mut self, client: IpAddr, ip: IpAddr, name: &str, ttl: u32, kernel_ns: u64) {
        self.learnt.learn(client, ip, name, ttl, kernel_ns);
    }

    /// A server of DNS said so to `client`: policies that allow `name` allow `ip` from now on.
    pub fn resolve(&self, client: IpAddr, ip: IpAddr, name: &str, ttl: u32, kernel_ns: u64) {
        self.learnt.resolve(client, ip, name, ttl, kernel_ns);
    }

    /// Has policies forget the answers of DNS that have run out at this kernel time.
    pub(crate) fn forget_names(&self, now_ns: u64) {
        self.learnt.forget(now_ns);
    }

    /// Answers of DNS that there was no room for.
    pub fn names_turned_away(&self) -> u64 {
        self.learnt.turned_away()
    }

    /// Gives a flow of a record that is complete but for who is who; `kernel_ns` is its time.
    pub(crate) fn name<R>(
        &mut self,
        record: &Record,
        ends: &Ends,
        kernel_ns: u64,
        give: impl FnOnce(&Flow<'_>) -> R,
    ) -> R {
        let Self { enricher, translations, learnt } = self;
        let names = enricher.ends(&Named {
            kernel_ns,
            source: ends.source,
            destination: ends.destination,
            protocol: record.protocol,
            frontend: None,
            is_reply: record.is_reply == Tristate::Yes,
        });
        give(&Flow {
            record,
            source: names.source,
            destination: names.destination,
            source_service: names.source_service.as_ref(),
            destination_service: names.destination_service.as_ref(),
            link: None,
            tunnel: None,
            drop: None,
            policy: None,
            translated: translated(translations, ends, learnt, kernel_ns),
            l7: None,
        })
    }

    /// Gives the flow that tells of `tracked`, seen on `link`.
    #[inline]
    pub fn fill<R>(
        &mut self,
        tracked: &Tracked<'_>,
        link: Option<&Arc<Link>>,
        give: impl FnOnce(&Flow<'_>) -> R,
    ) -> R {
        let Self { enricher, translations, learnt } = self;
        // Its fields are set where it lies: it is moved as seldom as can be.
        let mut record = Record::default();
        let (kernel_ns, ends, names, tunnel, drop) = match tracked {
            Tracked::Flow(flow) => {
                let event = flow.event;
                trace(&mut record, flow);
                // What pods carry inside tunnels of their own has addresses that are not of this network; the pods are.
                let outer = event.tunnel.as_deref().filter(|_| event.link_kind == LinkKind::Pod);
                let reply = flow.is_reply == Tristate::Yes;
                let packet = event.packet.as_ref();
                let names = names(enricher, event.kernel_ns, packet, flow.ends, outer, reply);
                (event.kernel_ns, flow.ends, names, event.tunnel.as_ref(), None)
            }
            Tracked::Drop(drop) => {
                let event = drop.event;
                dropped(&mut record, drop);
                let names = names(enricher, event.kernel_ns, event.packet.as_ref(), drop.ends, None, false);
                (event.kernel_ns, drop.ends, names, None, Some(&event.site))
            }
        };
        give(&Flow {
            record: &record,
            source: names.source,
            destination: names.destination,
            source_service: names.source_service.as_ref(),
            destination_service: names.destination_service.as_ref(),
            link,
            tunnel,
            drop,
            policy: None,
            translated: translated(translations, ends, learnt, kernel_ns),
            l7: None,
        })
    }
}

#[inline]
fn trace(record: &mut Record, tracked: &TrackedFlow<'_>) {
    let event = tracked.event;
    headers(record, event.packet.as_ref(), event.tcp_flags, tracked.ends);
    if let Some(macs) = event.macs {
        (record.source_mac, record.destination_mac) = (macs.source, macs.destination);
    }
    record.time_ns = event.time_ns;
    record.event_type = Record::TRACE_EVENT;
    record.verdict = Verdict::Forwarded as u8;
    record.direction = tracked.direction as u8;
    record.observation_point = tracked.point as u8;
    record.trace_reason = tracked.reason as u8;
    record.is_reply = tracked.is_reply;
    record.packets = event.packets;
    record.bytes = event.bytes;
    record.first_ns = event.first_ns;
    record.retransmits = u16::try_from(tracked.retransmits).unwrap_or(u16::MAX);
    record.resets = event.resets;
    record.notes = tracked.notes;
}

#[inline]
fn dropped(record: &mut Record, tracked: &TrackedDrop<'_>) {
    let event = tracked.event;
    headers(record, event.packet.as_ref(), event.tcp_flags, tracked.ends);
    record.time_ns = event.time_ns;
    record.event_type = Record::DROP_EVENT;
    record.verdict = Verdict::Dropped as u8;
    record.direction = tracked.direction as u8;
    record.trace_reason = tracked.reason as u8;
    if let Some(macs) = event.denied.and_then(|denied| denied.macs) {
        (record.source_mac, record.destination_mac) = (macs.source, macs.destination);
    }
    record.packets = event.packets;
    record.bytes = event.bytes;
    record.first_ns = event.first_ns;
    record.retransmits = u16::try_from(tracked.retransmits).unwrap_or(u16::MAX);
    record.notes = tracked.notes;
}

/// What drops and traces have in common.
#[inline]
fn headers(record: &mut Record, packet: Option<&Packet>, tcp_flags: u16, ends: &Ends) {
    const TCP: u8 = 6;
    if let Some(packet) = packet {
        record.protocol = packet.tuple.protocol;
        record.ip_version = packet.ip_version;
        record.flags_or_type = u16::from_be_bytes([packet.icmp_type, packet.icmp_code]);
    }
    if record.protocol == TCP {
        record.flags_or_type = tcp_flags;
    }
    record.source_ip = ends.source.map(|end| end.ip());
    record.destination_ip = ends.destination.map(|end| end.ip());
    record.source_port = ends.source.map_or(0, |end| end.port());
    record.destination_port = ends.destination.map_or(0, |end| end.port());
}

/// The names of the ends; with `outer`, of its ends.
#[inline]
fn names<'a>(
    enricher: &'a mut Enricher,
    kernel_ns: u64,
    packet: Option<&Packet>,
    ends: &Ends,
    outer: Option<&Tunnel>,
    is_reply: bool,
) -> Names<'a> {
    let of = |(ip, port): (IpAddr, u16)| Some(End::new(ip, port));
    let (source, destination) = match outer.and_then(|tunnel| tunnel.ends) {
        Some((source, destination)) => (of(source), of(destination)),
        None => (ends.source, ends.destination),
    };
    let protocol = packet.map_or(0, |packet| packet.tuple.protocol);
    enricher.ends(&Named {
        kernel_ns,
        source,
        destination,
        protocol: outer.map_or(protocol, |tunnel| tunnel.protocol),
        frontend: ends.frontend,
        is_reply,
    })
}

#[inline]
fn translated<'a>(
    known: &'a mut HashMap<Translated, Arc<Translated>>,
    ends: &Ends,
    learnt: &mut LearntNames,
    kernel_ns: u64,
) -> Option<&'a Arc<Translated>> {
    let [source, destination] = [ends.source, ends.destination].map(|end| end.map(|end| end.ip()));
    let source_names = learnt.of(destination, source, kernel_ns).cloned();
    let destination_names = learnt.of(source, destination, kernel_ns).cloned();
    if ends.source_xlated.is_none()
        && ends.frontend.is_none()
        && source_names.is_none()
        && destination_names.is_none()
    {
        return None;
    }
    let translated = Translated {
        source: ends.source_xlated,
        frontend: ends.frontend.map(|end| (end.ip(), end.port())),
        source_names,
        destination_names,
    };
    if known.len() >= MOST_TRANSLATIONS {
        known.clear();
    }
    Some(known.entry(translated).or_insert_with_key(|translated| Arc::new(translated.clone())))
}

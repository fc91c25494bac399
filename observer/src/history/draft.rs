//! Flows on their way to a piece: what they have in common by numbers, the rest as it is.

use super::{
    forms::Form,
    numbers::{put, zigzag},
};
use crate::{
    endpoint::{Endpoint, Service},
    flow::{DropSite, Flow, Link, Notes, Record, Translated, Tristate, Tunnel},
    layer7::Layer7,
    policy_verdict::PolicyVerdict,
};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::{hash::Hash, net::IpAddr, ops::Range, sync::Arc};

/// The sections of a piece: first the lists, then a column for each number of a flow.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Ends,
    Sides,
    Traits,
    Macs,
    Services,
    Links,
    Tunnels,
    Drops,
    Policies,
    Translated,
    L7,
    Time,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    TraitsOf,
    MacsOf,
    Packets,
    Bytes,
    First,
    Retransmits,
    Resets,
    SourceService,
    DestinationService,
    LinkOf,
    TunnelOf,
    DropOf,
    PolicyOf,
    TranslatedOf,
    L7Of,
}

impl Section {
    /// How many there are.
    pub(super) const COUNT: usize = Self::L7Of as usize + 1;
}

/// What many flows have alike of their small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Traits {
    protocol: u8,
    ip_version: u8,
    event_type: u8,
    verdict: u8,
    direction: u8,
    observation_point: u8,
    trace_reason: u8,
    is_reply: Option<bool>,
    flags_or_type: u16,
    notes: u16,
}

impl Traits {
    fn of(record: &Record) -> Self {
        Self {
            protocol: record.protocol,
            ip_version: record.ip_version,
            event_type: record.event_type,
            verdict: record.verdict,
            direction: record.direction,
            observation_point: record.observation_point,
            trace_reason: record.trace_reason,
            is_reply: record.is_reply.as_option(),
            flags_or_type: record.flags_or_type,
            notes: record.notes.0,
        }
    }

    /// A record with these.
    pub(super) fn record(&self) -> Record {
        Record {
            protocol: self.protocol,
            ip_version: self.ip_version,
            event_type: self.event_type,
            verdict: self.verdict,
            direction: self.direction,
            observation_point: self.observation_point,
            trace_reason: self.trace_reason,
            is_reply: match self.is_reply {
                None => Tristate::Unset,
                Some(false) => Tristate::No,
                Some(true) => Tristate::Yes,
            },
            flags_or_type: self.flags_or_type,
            notes: Notes(self.notes),
            ..Record::default()
        }
    }
}

/// The number of an end, counted from 0, and its address.
pub(super) type Side = (u32, Option<IpAddr>);
/// Of the source and of the destination.
pub(super) type Macs = ([u8; 6], [u8; 6]);

/// Parts by their addresses, which are theirs alone while the list holds them. Numbers are counted from 1.
#[derive(Debug)]
struct Parts<T> {
    numbers: HashMap<usize, u32>,
    list: Vec<Arc<T>>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), list: Vec::new() }
    }
}

impl<T> Parts<T> {
    #[inline]
    fn number(&mut self, part: &Arc<T>, bytes: impl FnOnce(&T) -> usize, total: &mut usize) -> u32 {
        *self.numbers.entry(Arc::as_ptr(part).addr()).or_insert_with(|| {
            *total += bytes(part);
            self.list.push(Arc::clone(part));
            self.list.len() as u32
        })
    }

    #[inline]
    fn maybe(&mut self, part: Option<&Arc<T>>, bytes: impl FnOnce(&T) -> usize, total: &mut usize) -> u32 {
        part.map_or(0, |part| self.number(part, bytes, total))
    }
}

/// Values that are equal, likewise.
#[derive(Debug)]
struct Values<T> {
    numbers: HashMap<T, u32>,
    list: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), list: Vec::new() }
    }
}

impl<T: Copy + Eq + Hash> Values<T> {
    #[inline]
    fn number(&mut self, value: T) -> u32 {
        *self.numbers.entry(value).or_insert_with(|| {
            self.list.push(value);
            self.list.len() as u32
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    time_ns: i64,
    first_ns: i64,
    packets: u64,
    bytes: u64,
    source: u32,
    destination: u32,
    traits: u32,
    macs: u32,
    source_port: u16,
    destination_port: u16,
    retransmits: u16,
    resets: u16,
    source_service: u32,
    destination_service: u32,
    link: u32,
    tunnel: u32,
    drop: u32,
    policy: u32,
    translated: u32,
    l7: u32,
}

/// Flows with consecutive sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Draft {
    base: u64,
    rows: Vec<Row>,
    ends: Parts<Endpoint>,
    sides: Values<Side>,
    traits: Values<Traits>,
    macs: Values<Macs>,
    services: Parts<Service>,
    links: Parts<Link>,
    tunnels: Parts<Tunnel>,
    drops: Parts<DropSite>,
    policies: Parts<PolicyVerdict>,
    translated: Parts<Translated>,
    l7: Parts<Layer7>,
    /// What the parts take, by and large.
    bytes: usize,
}

/// Numbers of a whole draft as numbers of a part of it: the first that is met is 1.
#[derive(Debug, Default)]
struct Renumbered {
    new: Vec<u32>,
    /// Places in the whole list, in the new order.
    order: Vec<usize>,
}

impl Renumbered {
    fn of(count: usize) -> Self {
        Self { new: vec![0; count + 1], order: Vec::new() }
    }

    #[inline]
    fn get(&mut self, number: u32) -> u64 {
        if number == 0 {
            return 0;
        }
        let new = &mut self.new[number as usize];
        if *new == 0 {
            self.order.push(number as usize - 1);
            *new = self.order.len() as u32;
        }
        u64::from(*new)
    }
}

impl Draft {
    /// For flows from this sequence number on.
    pub(super) fn new(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// Sequence number of its first flow.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Of the flow that is next.
    pub(super) fn end(&self) -> u64 {
        self.base + self.len() as u64
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What it takes in memory, by and large.
    pub(super) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>() + self.bytes
    }

    /// Adds the flow that is next.
    pub(super) fn push(&mut self, flow: &Flow<'_>) {
        let record = flow.record;
        let total = &mut self.bytes;
        let texts = |end: &Endpoint| end.labels.iter().map(|label| label.len()).sum::<usize>() + 256;
        let source = self.ends.number(flow.source, texts, total) - 1;
        let destination = self.ends.number(flow.destination, texts, total) - 1;
        let row = Row {
            time_ns: record.time_ns,
            first_ns: record.first_ns,
            packets: record.packets,
            bytes: record.bytes,
            source: self.sides.number((source, record.source_ip)),
            destination: self.sides.number((destination, record.destination_ip)),
            traits: self.traits.number(Traits::of(record)),
            macs: self.macs.number((record.source_mac, record.destination_mac)),
            source_port: record.source_port,
            destination_port: record.destination_port,
            retransmits: record.retransmits,
            resets: record.resets,
            source_service: self.services.maybe(flow.source_service, |_| 128, total),
            destination_service: self.services.maybe(flow.destination_service, |_| 128, total),
            link: self.links.maybe(flow.link, |_| 64, total),
            tunnel: self.tunnels.maybe(flow.tunnel, |_| size_of::<Tunnel>(), total),
            drop: self.drops.maybe(flow.drop, |_| 128, total),
            policy: self.policies.maybe(flow.policy, PolicyVerdict::bytes, total),
            translated: self.translated.maybe(flow.translated, |_| 256, total),
            l7: self.l7.maybe(flow.l7, Layer7::bytes, total),
        };
        self.rows.push(row);
    }

    /// Earliest and latest time of the rows in this range.
    pub(super) fn times(&self, range: Range<usize>) -> (i64, i64) {
        let times = self.rows[range].iter().map(|row| row.time_ns);
        times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)))
    }

    /// The flows in this range as a piece's content.
    pub(super) fn encode(&self, range: Range<usize>) -> Vec<u8> {
        let mut lists = Lists::of(self);
        let mut columns: [Vec<u8>; Section::COUNT] = std::array::from_fn(|_| Vec::new());
        let rows = &self.rows[range];
        let mut before = 0_i64;
        let mut macs = Renumbered::of(self.macs.list.len());
        let mut traits = Renumbered::of(self.traits.list.len());
        for row in rows {
            let mut add = |section: Section, number| put(&mut columns[section as usize], number);
            add(Section::Time, zigzag(row.time_ns.wrapping_sub(before)));
            before = row.time_ns;
            add(Section::Source, lists.sides.get(row.source));
            add(Section::Destination, lists.sides.get(row.destination));
            add(Section::SourcePort, row.source_port.into());
            add(Section::DestinationPort, row.destination_port.into());
            add(Section::TraitsOf, traits.get(row.traits));
            add(Section::MacsOf, macs.get(row.macs));
            add(Section::Packets, row.packets);
            add(Section::Bytes, row.bytes);
            add(Section::First, zigzag(row.time_ns.wrapping_sub(row.first_ns)));
            add(Section::Retransmits, row.retransmits.into());
            add(Section::Resets, row.resets.into());
            add(Section::SourceService, lists.services.get(row.source_service));
            add(Section::DestinationService, lists.services.get(row.destination_service));
            add(Section::LinkOf, lists.links.get(row.link));
            add(Section::TunnelOf, lists.tunnels.get(row.tunnel));
            add(Section::DropOf, lists.drops.get(row.drop));
            add(Section::PolicyOf, lists.policies.get(row.policy));
            add(Section::TranslatedOf, lists.translated.get(row.translated));
            add(Section::L7Of, lists.l7.get(row.l7));
        }
        let mut ends = Renumbered::of(self.ends.list.len());
        values(&mut columns[Section::Sides as usize], &self.sides.list, &lists.sides.order, |out, side| {
            let (end, address) = *side;
            put(out, ends.get(end + 1) - 1);
            put_address(out, address);
        });
        values(&mut columns[Section::Traits as usize], &self.traits.list, &traits.order, |out, traits| {
            put_plain(out, traits);
        });
        values(&mut columns[Section::Macs as usize], &self.macs.list, &macs.order, |out, macs| {
            put_plain(out, macs);
        });
        parts(&mut columns[Section::Ends as usize], &self.ends, &ends);
        parts(&mut columns[Section::Services as usize], &self.services, &lists.services);
        parts(&mut columns[Section::Links as usize], &self.links, &lists.links);
        parts(&mut columns[Section::Tunnels as usize], &self.tunnels, &lists.tunnels);
        parts(&mut columns[Section::Drops as usize], &self.drops, &lists.drops);
        parts(&mut columns[Section::Policies as usize], &self.policies, &lists.policies);
        parts(&mut columns[Section::Translated as usize], &self.translated, &lists.translated);
        parts(&mut columns[Section::L7 as usize], &self.l7, &lists.l7);
        let mut content = Vec::with_capacity(columns.iter().map(|column| column.len() + 5).sum());
        for column in columns {
            put(&mut content, column.len() as u64);
            content.extend_from_slice(&column);
        }
        content
    }
}

/// New numbers of the parts.
struct Lists {
    sides: Renumbered,
    services: Renumbered,
    links: Renumbered,
    tunnels: Renumbered,
    drops: Renumbered,
    policies: Renumbered,
    translated: Renumbered,
    l7: Renumbered,
}

impl Lists {
    fn of(draft: &Draft) -> Self {
        Self {
            sides: Renumbered::of(draft.sides.list.len()),
            services: Renumbered::of(draft.services.list.len()),
            links: Renumbered::of(draft.links.list.len()),
            tunnels: Renumbered::of(draft.tunnels.list.len()),
            drops: Renumbered::of(draft.drops.list.len()),
            policies: Renumbered::of(draft.policies.list.len()),
            translated: Renumbered::of(draft.translated.list.len()),
            l7: Renumbered::of(draft.l7.list.len()),
        }
    }
}

/// A list: how many, then each.
fn values<T>(out: &mut Vec<u8>, list: &[T], order: &[usize], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    put(out, order.len() as u64);
    for place in order {
        write(out, &list[*place]);
    }
}

fn parts<T: Form>(out: &mut Vec<u8>, parts: &Parts<T>, numbers: &Renumbered) {
    values(out, &parts.list, &numbers.order, |out, part| part.write(out));
}

fn put_plain(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = postcard::to_io(value, out);
    debug_assert!(written.is_ok(), "a value that can't be written");
}

fn put_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => out.push(0),
        Some(IpAddr::V4(address)) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}

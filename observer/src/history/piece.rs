//! A piece's content read back: first what filters ask about, the flows only where they may pass.

use super::{
    draft::{Macs, Section, Side, Traits},
    forms::{self, Form},
    numbers::{Numbers, unzigzag},
};
use crate::{
    endpoint::{Endpoint, Service},
    flow::{DropSite, Flow, Link, Record, Translated, Tunnel},
    layer7::Layer7,
    policy_verdict::PolicyVerdict,
    store::{self, Store},
};
use hashbrown::HashMap;
use observer_proto::filter::{Column, Columns};
use std::{net::IpAddr, sync::Arc};

/// Ends that pieces had, by their form: what was found out about one need not be found out again.
#[derive(Debug, Default)]
pub struct KnownEnds(HashMap<Box<[u8]>, Arc<Endpoint>>);

impl KnownEnds {
    /// Those of a large node; when there are more all are forgotten.
    const MOST: usize = 4096;

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Option<(Arc<Endpoint>, &'a [u8])> {
        let (end, rest) = Endpoint::read(bytes)?;
        let form = bytes.get(..bytes.len() - rest.len()).filter(|form| !form.is_empty())?;
        if let Some(known) = self.0.get(form) {
            return Some((Arc::clone(known), rest));
        }
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        let end = Arc::new(end);
        self.0.insert(form.into(), Arc::clone(&end));
        Some((end, rest))
    }
}

/// Flows with consecutive sequence numbers, as they stand on the disk.
#[derive(Debug)]
pub struct Piece {
    base: u64,
    count: usize,
    content: Vec<u8>,
    /// Where each section begins and ends.
    sections: [(usize, usize); Section::COUNT],
    ends: Vec<Arc<Endpoint>>,
    sides: Vec<Side>,
    traits: Vec<Record>,
    columns: Box<[u32]>,
}

impl Piece {
    /// Checks what filters need of it. Nothing where it can't be read.
    pub(super) fn open(base: u64, count: usize, content: Vec<u8>, known: &mut KnownEnds) -> Option<Self> {
        let sections = sections(&content)?;
        let mut piece = Self {
            base,
            count,
            content,
            sections,
            ends: Vec::new(),
            sides: Vec::new(),
            traits: Vec::new(),
            columns: Box::default(),
        };
        piece.ends = piece.list(Section::Ends, |bytes| known.read(bytes))?;
        let most = piece.ends.len();
        piece.sides = piece.list(Section::Sides, |bytes| side(bytes, most))?;
        piece.traits = piece.list(Section::Traits, |bytes| {
            let (traits, rest) = postcard::take_from_bytes::<Traits>(bytes).ok()?;
            Some((traits.record(), rest))
        })?;
        piece.columns = piece.read_columns()?;
        Some(piece)
    }

    /// Sequence number of its first flow.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The ends that its flows have.
    pub fn ends(&self) -> &[Arc<Endpoint>] {
        &self.ends
    }

    /// For filters, of all its flows.
    pub fn columns(&self) -> Columns<'_> {
        std::array::from_fn(|column| {
            self.columns.get(column * self.count..(column + 1) * self.count).unwrap_or_default()
        })
    }

    /// Its flows in a store of their own, by their sequence numbers. Nothing where they can't be read.
    pub fn store(&self) -> Option<Arc<Store>> {
        let lists = Lists {
            macs: self.list(Section::Macs, |bytes| postcard::take_from_bytes::<Macs>(bytes).ok())?,
            services: self.parts(Section::Services)?,
            links: self.parts(Section::Links)?,
            tunnels: self.parts(Section::Tunnels)?,
            drops: self.parts(Section::Drops)?,
            policies: self.parts(Section::Policies)?,
            translated: self.parts(Section::Translated)?,
            l7: self.parts(Section::L7)?,
        };
        let (store, mut writer) = Store::read_back(self.base);
        let mut read = self.rows();
        let mut time_ns = 0_i64;
        for _ in 0..self.count {
            let row = read.next(&mut time_ns, &self.sides, &self.traits, &lists.macs)?;
            let flow = Flow {
                record: &row.record,
                source: self.ends.get(row.source)?,
                destination: self.ends.get(row.destination)?,
                source_service: part(&lists.services, &mut read.source_service)?,
                destination_service: part(&lists.services, &mut read.destination_service)?,
                link: part(&lists.links, &mut read.link)?,
                tunnel: part(&lists.tunnels, &mut read.tunnel)?,
                drop: part(&lists.drops, &mut read.drop)?,
                policy: part(&lists.policies, &mut read.policy)?,
                translated: part(&lists.translated, &mut read.translated)?,
                l7: part(&lists.l7, &mut read.l7)?,
            };
            writer.add(&flow);
        }
        writer.publish();
        Some(store)
    }

    fn section(&self, section: Section) -> &[u8] {
        let (begin, end) = self.sections[section as usize];
        self.content.get(begin..end).unwrap_or_default()
    }

    fn numbers(&self, section: Section) -> Numbers<'_> {
        Numbers(self.section(section))
    }

    fn list<T>(&self, section: Section, mut read: impl FnMut(&[u8]) -> Option<(T, &[u8])>) -> Option<Vec<T>> {
        let (count, mut bytes) = counted(self.section(section))?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let (value, rest) = read(bytes)?;
            list.push(value);
            bytes = rest;
        }
        bytes.is_empty().then_some(list)
    }

    fn parts<T: Form>(&self, section: Section) -> Option<Vec<Arc<T>>> {
        let (count, bytes) = counted(self.section(section))?;
        forms::read_all(count, bytes)
    }

    fn read_columns(&self) -> Option<Box<[u32]>> {
        // As many flows as it says, before there is memory for them: each has a byte in each column.
        if self.section(Section::Time).len() < self.count {
            return None;
        }
        let mut read = self.rows();
        let mut columns = vec![0; Column::COUNT * self.count];
        for place in 0..self.count {
            let (source, destination, record) = read.ends(&self.sides, &self.traits)?;
            let serials = [source, destination].map(|(end, _)| Some(self.ends.get(end as usize)?.serial()));
            let [Some(source_serial), Some(destination_serial)] = serials else { return None };
            let glance = store::glance(&record, [source_serial, destination_serial]);
            for (column, number) in glance.into_iter().enumerate() {
                columns[column * self.count + place] = number;
            }
        }
        Some(columns.into())
    }

    fn rows(&self) -> Rows<'_> {
        Rows {
            time: self.numbers(Section::Time),
            source: self.numbers(Section::Source),
            destination: self.numbers(Section::Destination),
            source_port: self.numbers(Section::SourcePort),
            destination_port: self.numbers(Section::DestinationPort),
            traits: self.numbers(Section::TraitsOf),
            macs: self.numbers(Section::MacsOf),
            packets: self.numbers(Section::Packets),
            bytes: self.numbers(Section::Bytes),
            first: self.numbers(Section::First),
            retransmits: self.numbers(Section::Retransmits),
            resets: self.numbers(Section::Resets),
            source_service: self.numbers(Section::SourceService),
            destination_service: self.numbers(Section::DestinationService),
            link: self.numbers(Section::LinkOf),
            tunnel: self.numbers(Section::TunnelOf),
            drop: self.numbers(Section::DropOf),
            policy: self.numbers(Section::PolicyOf),
            translated: self.numbers(Section::TranslatedOf),
            l7: self.numbers(Section::L7Of),
        }
    }
}

/// What flows of a piece have in common, beside what filters ask about.
struct Lists {
    macs: Vec<Macs>,
    services: Vec<Arc<Service>>,
    links: Vec<Arc<Link>>,
    tunnels: Vec<Arc<Tunnel>>,
    drops: Vec<Arc<DropSite>>,
    policies: Vec<Arc<PolicyVerdict>>,
    translated: Vec<Arc<Translated>>,
    l7: Vec<Arc<Layer7>>,
}

/// The columns, read row by row.
struct Rows<'a> {
    time: Numbers<'a>,
    source: Numbers<'a>,
    destination: Numbers<'a>,
    source_port: Numbers<'a>,
    destination_port: Numbers<'a>,
    traits: Numbers<'a>,
    macs: Numbers<'a>,
    packets: Numbers<'a>,
    bytes: Numbers<'a>,
    first: Numbers<'a>,
    retransmits: Numbers<'a>,
    resets: Numbers<'a>,
    source_service: Numbers<'a>,
    destination_service: Numbers<'a>,
    link: Numbers<'a>,
    tunnel: Numbers<'a>,
    drop: Numbers<'a>,
    policy: Numbers<'a>,
    translated: Numbers<'a>,
    l7: Numbers<'a>,
}

/// A flow's record, and its ends by number.
struct Row {
    record: Record,
    source: usize,
    destination: usize,
}

impl Rows<'_> {
    /// Both sides, and of the record what columns need.
    #[inline]
    fn ends(&mut self, sides: &[Side], traits: &[Record]) -> Option<(Side, Side, Record)> {
        let source = *one(sides, &mut self.source)?;
        let destination = *one(sides, &mut self.destination)?;
        let record = Record {
            source_ip: source.1,
            destination_ip: destination.1,
            source_port: self.source_port.next_as()?,
            destination_port: self.destination_port.next_as()?,
            ..*one(traits, &mut self.traits)?
        };
        Some((source, destination, record))
    }

    #[inline]
    fn next(&mut self, time_ns: &mut i64, sides: &[Side], traits: &[Record], macs: &[Macs]) -> Option<Row> {
        let ((source, _), (destination, _), record) = self.ends(sides, traits)?;
        *time_ns = time_ns.wrapping_add(unzigzag(self.time.next()?));
        let (source_mac, destination_mac) = *one(macs, &mut self.macs)?;
        let record = Record {
            time_ns: *time_ns,
            source_mac,
            destination_mac,
            packets: self.packets.next()?,
            bytes: self.bytes.next()?,
            first_ns: time_ns.wrapping_sub(unzigzag(self.first.next()?)),
            retransmits: self.retransmits.next_as()?,
            resets: self.resets.next_as()?,
            ..record
        };
        Some(Row { record, source: source as usize, destination: destination as usize })
    }
}

/// What the next number stands for; there is no 0.
#[inline]
fn one<'l, T>(list: &'l [T], numbers: &mut Numbers<'_>) -> Option<&'l T> {
    let number: usize = numbers.next_as()?;
    list.get(number.checked_sub(1)?)
}

/// What the next number stands for, 0 for nothing.
#[inline]
#[expect(clippy::option_option, reason = "nothing where it can't be read, and nothing where there is none")]
fn part<'l, T>(list: &'l [T], numbers: &mut Numbers<'_>) -> Option<Option<&'l T>> {
    match numbers.next_as::<usize>()? {
        0 => Some(None),
        number => list.get(number - 1).map(Some),
    }
}

fn sections(content: &[u8]) -> Option<[(usize, usize); Section::COUNT]> {
    let mut rest = Numbers(content);
    let mut sections = [(0, 0); Section::COUNT];
    for section in &mut sections {
        let bytes = rest.bytes()?;
        let end = content.len() - rest.0.len();
        *section = (end - bytes.len(), end);
    }
    rest.0.is_empty().then_some(sections)
}

/// How many there are, and their bytes: each takes one at least.
fn counted(section: &[u8]) -> Option<(usize, &[u8])> {
    let mut numbers = Numbers(section);
    let count = numbers.next_as::<usize>()?;
    (count <= numbers.0.len()).then_some((count, numbers.0))
}

fn side(bytes: &[u8], ends: usize) -> Option<(Side, &[u8])> {
    let mut numbers = Numbers(bytes);
    let end: u32 = numbers.next_as()?;
    if end as usize >= ends {
        return None;
    }
    let (kind, rest) = numbers.0.split_first()?;
    let (address, rest) = match kind {
        0 => (None, rest),
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Some(IpAddr::from(*octets)), rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Some(IpAddr::from(*octets)), rest)
        }
        _ => return None,
    };
    Some(((end, address), rest))
}

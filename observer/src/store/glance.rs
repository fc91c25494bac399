//! What most filters ask of a flow, apart from it, in columns: a walk through all flows reads 4 bytes of each for what it
//! is asked.

use super::{
    ends::Ends,
    parts::{Kept, Part},
    segment::{Block, Segment},
};
use crate::{
    endpoint::Endpoint,
    flow::{Flow, Link, Notes, Record},
};
use observer_proto::filter::{Column, Columns, L4, LOT, traits};
use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
    ops::Range,
    sync::Arc,
};

/// A flow's numbers, by [`Column`].
pub(crate) type Glance = [u32; Column::COUNT];

/// Of a flow with these ends.
#[inline]
pub(crate) fn glance(flow: &Record, [source, destination]: [NonZeroU64; 2]) -> Glance {
    let serial = |serial: NonZeroU64| u32::try_from(serial.get()).unwrap_or(0);
    let v4 = |ip: Option<IpAddr>| match ip {
        Some(IpAddr::V4(ip)) => ip.to_bits(),
        _ => 0,
    };
    let (source_port, destination_port) = ports(flow).unwrap_or_default();
    let mut glance = Glance::default();
    glance[Column::Source as usize] = serial(source);
    glance[Column::Destination as usize] = serial(destination);
    glance[Column::SourceV4 as usize] = v4(flow.source_ip);
    glance[Column::DestinationV4 as usize] = v4(flow.destination_ip);
    glance[Column::Ports as usize] = u32::from(source_port) << 16 | u32::from(destination_port);
    glance[Column::Traits as usize] = traits(
        flow.verdict,
        l4(flow),
        flow.is_reply.as_option(),
        flow.direction,
        ip_version(flow),
        tcp_flags(flow),
    );
    glance
}

/// The transport protocol, where Hubble has a name for it.
pub(crate) fn l4(flow: &Record) -> Option<L4> {
    let protocol = if flow.ip_version == 0 { 0 } else { flow.protocol };
    Some(match protocol {
        1 => L4::IcmpV4,
        2 => L4::Igmp,
        6 => L4::Tcp,
        17 => L4::Udp,
        58 => L4::IcmpV6,
        112 => L4::Vrrp,
        132 => L4::Sctp,
        _ => return None,
    })
}

/// `flow.IPVersion`.
pub(crate) fn ip_version(flow: &Record) -> u8 {
    match flow.ip_version {
        4 => 1,
        6 => 2,
        _ => 0,
    }
}

/// Of the source and of the destination. A later fragment's are 0, as clients see them: it has the protocol.
pub(crate) fn ports(flow: &Record) -> Option<(u16, u16)> {
    let has_ports = matches!(flow.protocol, 6 | 17 | 132);
    let is_fragment = flow.notes.has(Notes::FRAGMENT);
    has_ports.then_some(if is_fragment { (0, 0) } else { (flow.source_port, flow.destination_port) })
}

/// The flags of a TCP packet that has its header.
pub(crate) fn tcp_flags(flow: &Record) -> Option<u16> {
    // What is said in a connection is of no one packet.
    (flow.protocol == 6 && !flow.notes.has(Notes::FRAGMENT) && !flow.is_l7()).then_some(flow.tcp_flags())
}

/// The glances of some flows, column by column.
#[derive(Debug)]
pub(super) struct Glances {
    numbers: Box<[u32]>,
    flows: usize,
}

impl Glances {
    pub(super) fn new(glances: &[Glance]) -> Self {
        let mut numbers = Vec::with_capacity(Column::COUNT * glances.len());
        for column in 0..Column::COUNT {
            numbers.extend(glances.iter().map(|glance| glance[column]));
        }
        Self { numbers: numbers.into_boxed_slice(), flows: glances.len() }
    }

    fn get(&self, column: Column, index: usize) -> u32 {
        self.numbers.get(column as usize * self.flows + index).copied().unwrap_or(0)
    }

    fn columns(&self, from: usize, count: usize) -> Columns<'_> {
        std::array::from_fn(|column| {
            let begin = column * self.flows + from;
            self.numbers.get(begin..begin + count).unwrap_or_default()
        })
    }
}

/// A flow in the store.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its sequence number.
    pub sequence: u64,
    kept: &'a Kept,
    segment: &'a Segment,
    glances: &'a Glances,
    index: usize,
}

impl<'a> Stored<'a> {
    /// The flow at this place of a block, which must be one.
    #[inline]
    pub(super) fn new(segment: &'a Segment, block: &'a Block, index: usize) -> Self {
        let kept = &block.flows()[index];
        Self { sequence: block.base() + index as u64, kept, segment, glances: block.glances(), index }
    }

    /// What it tells by itself.
    #[inline]
    pub fn record(&self) -> &'a Record {
        &self.kept.record
    }

    /// With what it has in common with others.
    #[inline]
    pub fn flow(&self) -> Flow<'a> {
        let Kept { record, numbers } = self.kept;
        let segment = self.segment;
        let [around, cause] = [numbers.around, numbers.cause].map(|number| segment.part(number));
        let several = cause.and_then(Part::several);
        Flow {
            record,
            source: self.source(),
            destination: self.destination(),
            source_service: segment.part(numbers.source_service).and_then(Part::service),
            destination_service: segment.part(numbers.destination_service).and_then(Part::service),
            link: self.link(),
            tunnel: around.and_then(Part::tunnel),
            drop: cause.and_then(Part::drop).or_else(|| several?.drop.as_ref()),
            policy: cause
                .and_then(Part::policy)
                .or_else(|| around.and_then(Part::policy))
                .or_else(|| several?.policy.as_ref()),
            translated: segment.part(numbers.translated).and_then(Part::translated),
            l7: cause.and_then(Part::l7).or_else(|| several?.l7.as_ref()),
        }
    }

    /// The interface it was seen on.
    #[inline]
    pub fn link(&self) -> Option<&'a Arc<Link>> {
        self.segment.part(self.kept.numbers.link).and_then(Part::link)
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> &'a Arc<Endpoint> {
        self.segment.end(self.kept.numbers.source)
    }

    /// Who it is for.
    #[inline]
    pub fn destination(&self) -> &'a Arc<Endpoint> {
        self.segment.end(self.kept.numbers.destination)
    }

    /// The number of the source's endpoint, [`crate::endpoint::Endpoint::serial`].
    #[inline]
    pub fn source_serial(&self) -> NonZeroU64 {
        self.serial(Column::Source).unwrap_or_else(|| self.source().serial())
    }

    /// The number of the destination's endpoint.
    #[inline]
    pub fn destination_serial(&self) -> NonZeroU64 {
        self.serial(Column::Destination).unwrap_or_else(|| self.destination().serial())
    }

    #[inline]
    fn serial(&self, column: Column) -> Option<NonZeroU64> {
        NonZeroU64::new(self.glances.get(column, self.index).into())
    }

    /// The source's address.
    #[inline]
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.v4(Column::SourceV4).or(self.record().source_ip)
    }

    /// The destination's address.
    #[inline]
    pub fn destination_ip(&self) -> Option<IpAddr> {
        self.v4(Column::DestinationV4).or(self.record().destination_ip)
    }

    #[inline]
    fn v4(&self, column: Column) -> Option<IpAddr> {
        match self.glances.get(column, self.index) {
            0 => None,
            bits => Some(Ipv4Addr::from_bits(bits).into()),
        }
    }
}

/// Up to [`Lot::MOST`] flows with consecutive sequence numbers.
#[derive(Clone, Copy, Debug)]
pub struct Lot<'a> {
    segment: &'a Segment,
    block: &'a Block,
    from: usize,
    count: usize,
}

impl<'a> Lot<'a> {
    /// The most flows of one.
    pub const MOST: usize = LOT;

    /// Of the flows of `block` those from this place on that are no more than a lot.
    pub(super) fn new(segment: &'a Segment, block: &'a Block, from: usize) -> Self {
        Self { segment, block, from, count: (block.flows().len() - from).min(LOT) }
    }

    /// Sequence number of the first.
    pub fn first(&self) -> u64 {
        self.block.base() + self.from as u64
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// For filters.
    pub fn columns(&self) -> Columns<'a> {
        self.block.glances().columns(self.from, self.count)
    }

    /// Of all flows that lie with it in memory, with their sequence numbers, where a walk back comes to them.
    pub fn columns_ahead(&self) -> Option<(Columns<'a>, Range<u64>)> {
        let (base, glances) = (self.block.base(), self.block.glances());
        let is_last = self.from + self.count == glances.flows;
        is_last.then(|| (glances.columns(0, glances.flows), base..base + glances.flows as u64))
    }

    /// The flow at this place, below [`Lot::count`].
    #[inline]
    pub fn get(&self, place: usize) -> Stored<'a> {
        Stored::new(self.segment, self.block, self.from + place)
    }

    /// Oldest first.
    #[inline]
    pub fn flows(&self) -> impl Iterator<Item = Stored<'a>> {
        let lot = *self;
        (0..lot.count).map(move |place| lot.get(place))
    }

    /// All ends that its flows have, and others.
    pub fn ends(&self) -> &'a Ends {
        self.segment.ends()
    }
}

//! What a record says, in checked types.

use super::{
    Clock, DecodeError,
    tuple::{End, Tuple},
};
use crate::flow::{DropSite, LinkKind, Tunnel, TunnelKind};
use observer_ebpf::{
    self as abi, DeniedRecord, DropRecord, FactRecord, FlowRecord, JudgedFlowRecord, PayloadRecord,
    TunneledFlowRecord, drop_flags, flow_flags, flow_reason, hook, link_kind, payload_kind, policy::Judged,
    tunnel_kind,
};
use std::sync::Arc;

/// One record.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet of a connection, and the connection's totals.
    Flow(FlowEvent),
    /// A dropped packet, or a sum of them.
    Drop(DropEvent),
    /// Counted facts of a TCP connection.
    Fact(FactEvent),
}

impl Event {
    /// Kernel time (`CLOCK_MONOTONIC`, nanoseconds) of the record.
    pub fn kernel_ns(&self) -> u64 {
        match self {
            Self::Flow(flow) => flow.kernel_ns,
            Self::Drop(drop) => drop.kernel_ns,
            Self::Fact(fact) => fact.kernel_ns,
        }
    }

    /// The headers that the record is about.
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Flow(flow) => flow.packet.as_ref(),
            Self::Drop(drop) => drop.packet.as_ref(),
            Self::Fact(fact) => fact.packet.as_ref(),
        }
    }
}

/// A packet's headers, as far as they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its ends.
    pub tuple: Tuple,
    /// 4 or 6.
    pub ip_version: u8,
    /// ICMP type, 0 where it is no ICMP.
    pub icmp_type: u8,
    /// ICMP code, likewise.
    pub icmp_code: u8,
}

impl Packet {
    /// Nothing where the packet is not IP.
    #[inline]
    fn new(tuple: &abi::Tuple) -> Result<Option<Self>, DecodeError> {
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let is_v6 = match tuple.ip_version {
            0 => return Ok(None),
            4 if tuple.source.starts_with(&MAPPED) && tuple.destination.starts_with(&MAPPED) => false,
            6 => true,
            value => return Err(DecodeError::Field { field: "tuple.ip_version", value }),
        };
        Ok(Some(Self {
            tuple: Tuple {
                source: End::of_octets(tuple.source, is_v6, tuple.source_port),
                destination: End::of_octets(tuple.destination, is_v6, tuple.destination_port),
                protocol: tuple.protocol,
            },
            ip_version: tuple.ip_version,
            icmp_type: tuple.icmp_type,
            icmp_code: tuple.icmp_code,
        }))
    }
}

/// Which way a packet crossed a link, seen from the node (tcx's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Into the node's stack.
    Ingress,
    /// Out of the node's stack.
    Egress,
}

/// Why a flow record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowReason {
    /// The connection's first packet on this link.
    New,
    /// A TCP flag not seen before in this direction.
    Flags,
    /// The connection is active and the last record is old.
    Interval,
    /// Every packet is told.
    Packet,
    /// The last totals of a connection that fell silent.
    Sweep,
    /// What is inside the packet is told, not the packet.
    Payload,
}

/// What a payload looks like by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// HTTP without TLS.
    Http,
    /// DNS; over TCP with the length before each message.
    Dns,
    /// The beginning of TLS.
    Tls,
}

/// The first bytes inside a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What they look like.
    pub kind: PayloadKind,
    /// TCP's sequence number of the first one.
    pub sequence: u32,
    /// How many there are in the packet.
    pub length: u32,
    /// Those that were copied.
    pub bytes: Box<[u8]>,
}

/// The bits of [`observer_ebpf::flow_flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowFlags(pub u16);

impl FlowFlags {
    /// Whether any of these bits of [`observer_ebpf::flow_flags`] is set.
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// The MAC addresses of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// Who sent the frame.
    pub source: [u8; 6],
    /// Who it is for.
    pub destination: [u8; 6],
}

/// A packet of a connection, and the connection's totals so far on this link.
#[derive(Clone, Debug)]
pub struct FlowEvent {
    /// Unix time, nanoseconds.
    pub time_ns: i64,
    /// Kernel time, nanoseconds.
    pub kernel_ns: u64,
    /// The packet's headers, nothing where it is not IP.
    pub packet: Option<Packet>,
    /// The link's index in the node's namespace.
    pub ifindex: u32,
    /// What stands behind the link.
    pub link_kind: LinkKind,
    /// Which way it crossed the link.
    pub hook: Hook,
    /// Why it is told.
    pub reason: FlowReason,
    /// What the kernel side found out.
    pub flags: FlowFlags,
    /// TCP flags, FIN in bit 0 up to NS in bit 8.
    pub tcp_flags: u16,
    /// VLAN tag with the priority bits, 0 where there is none.
    pub vlan_tci: u16,
    /// The frame's MAC addresses, where it has any.
    pub macs: Option<Macs>,
    /// What is around the packet, where it was carried inside another.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Length of this packet, bytes.
    pub packet_len: u32,
    /// RST segments of the connection on this link so far, both ways.
    pub resets: u16,
    /// Packets of the connection in this packet's direction on this link.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unix time when the connection was first seen on this link, nanoseconds.
    pub first_ns: i64,
    /// What the kernel side decided of the connection, where policies say anything of it.
    pub judged: Option<Judged>,
    /// What is inside, where that is what is told.
    pub payload: Option<Box<Payload>>,
}

impl FlowEvent {
    pub(super) fn payload(record: &PayloadRecord, bytes: &[u8], clock: &Clock) -> Result<Self, DecodeError> {
        let kind = match record.payload {
            payload_kind::HTTP => PayloadKind::Http,
            payload_kind::DNS => PayloadKind::Dns,
            payload_kind::TLS => PayloadKind::Tls,
            value => return Err(DecodeError::Field { field: "payload", value }),
        };
        let PayloadRecord { sequence, length, .. } = *record;
        let payload = Box::new(Payload { kind, sequence, length, bytes: bytes.into() });
        if record.flow.reason != flow_reason::PAYLOAD {
            return Err(DecodeError::Field { field: "reason", value: record.flow.reason });
        }
        // A reason that only these records have.
        let flow = FlowRecord { reason: flow_reason::PACKET, ..record.flow };
        Ok(Self { reason: FlowReason::Payload, payload: Some(payload), ..Self::new(&flow, clock)? })
    }

    pub(super) fn judged(record: &JudgedFlowRecord, clock: &Clock) -> Result<Self, DecodeError> {
        Ok(Self { judged: Some(record.judged), ..Self::new(&record.flow, clock)? })
    }

    pub(super) fn tunneled(record: &TunneledFlowRecord, clock: &Clock) -> Result<Self, DecodeError> {
        let tunnel = Some(Arc::new(tunnel(&record.tunnel)?));
        Ok(Self { tunnel, ..Self::new(&record.flow, clock)? })
    }

    #[inline]
    pub(super) fn new(record: &FlowRecord, clock: &Clock) -> Result<Self, DecodeError> {
        Ok(Self {
            time_ns: clock.unix(record.header.time_ns),
            kernel_ns: record.header.time_ns,
            packet: Packet::new(&record.tuple)?,
            ifindex: record.ifindex,
            link_kind: link(record.link_kind)?,
            hook: crossed(record.hook)?,
            reason: match record.reason {
                flow_reason::NEW => FlowReason::New,
                flow_reason::FLAGS => FlowReason::Flags,
                flow_reason::INTERVAL => FlowReason::Interval,
                flow_reason::PACKET => FlowReason::Packet,
                flow_reason::SWEEP => FlowReason::Sweep,
                value => return Err(DecodeError::Field { field: "reason", value }),
            },
            flags: FlowFlags(record.flags),
            tcp_flags: u16::from(record.tcp_flags) | u16::from(record.tcp_flags_high & 1) << 8,
            vlan_tci: record.vlan_tci,
            macs: (record.flags & flow_flags::ETHERNET != 0)
                .then_some(Macs { source: record.source_mac, destination: record.destination_mac }),
            tunnel: None,
            packet_len: record.packet_len,
            resets: record.resets,
            packets: record.packets,
            bytes: record.bytes,
            first_ns: clock.unix(record.first_ns),
            judged: None,
            payload: None,
        })
    }
}

#[inline]
fn link(kind: u8) -> Result<LinkKind, DecodeError> {
    match kind {
        link_kind::POD => Ok(LinkKind::Pod),
        link_kind::UPLINK => Ok(LinkKind::Uplink),
        link_kind::TUNNEL => Ok(LinkKind::Tunnel),
        value => Err(DecodeError::Field { field: "link_kind", value }),
    }
}

#[inline]
fn crossed(way: u8) -> Result<Hook, DecodeError> {
    match way {
        hook::INGRESS => Ok(Hook::Ingress),
        hook::EGRESS => Ok(Hook::Egress),
        value => Err(DecodeError::Field { field: "hook", value }),
    }
}

fn tunnel(record: &abi::Tunnel) -> Result<Tunnel, DecodeError> {
    let kind = match record.kind {
        0 => TunnelKind::Forgotten,
        tunnel_kind::VXLAN => TunnelKind::Vxlan,
        tunnel_kind::GENEVE => TunnelKind::Geneve,
        tunnel_kind::GRE => TunnelKind::Gre,
        tunnel_kind::IP => TunnelKind::IpInIp,
        value => return Err(DecodeError::Field { field: "tunnel.kind", value }),
    };
    let ends = Packet::new(&record.tuple)?.map(|packet| {
        let end = |end: End| (end.ip(), end.port());
        (end(packet.tuple.source), end(packet.tuple.destination))
    });
    Ok(Tunnel { kind, protocol: record.tuple.protocol, ends, vni: record.vni })
}

/// A dropped packet, or the sum of further ones like it.
#[derive(Clone, Debug)]
pub struct DropEvent {
    /// Unix time, nanoseconds.
    pub time_ns: i64,
    /// Kernel time, nanoseconds.
    pub kernel_ns: u64,
    /// The packet's headers, nothing where it is not IP or could not be read.
    pub packet: Option<Packet>,
    /// Why and where.
    pub site: Arc<DropSite>,
    /// The device's index in the namespace that dropped it; 0 = no device.
    pub ifindex: u32,
    /// Inode number of that network namespace; 0 = unknown.
    pub netns: u32,
    /// Length of the packet, bytes.
    pub packet_len: u32,
    /// The EtherType.
    pub ether_type: u16,
    /// TCP flags, FIN in bit 0.
    pub tcp_flags: u16,
    /// This is a sum of further drops like an earlier one.
    pub sum: bool,
    /// The packet belonged to a local socket.
    pub socket: bool,
    /// Packets this stands for.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unix time of the first of them, nanoseconds.
    pub first_ns: i64,
    /// Of a packet that policies denied.
    pub denied: Option<Denied>,
}

/// What is known of a packet that the flow programs dropped, since policies deny its connection.
#[derive(Clone, Copy, Debug)]
pub struct Denied {
    /// What the kernel side decided.
    pub judged: Judged,
    /// What the kernel side found out about the packet.
    pub flags: FlowFlags,
    /// The frame's MAC addresses, where it has any.
    pub macs: Option<Macs>,
}

impl DropEvent {
    pub(super) fn denied(
        record: &DeniedRecord,
        site: Arc<DropSite>,
        clock: &Clock,
    ) -> Result<Self, DecodeError> {
        // Where it was dropped says the link, and which way the side that denies it; only nonsense is looked for.
        link(record.link_kind)?;
        crossed(record.hook)?;
        let denied = Denied {
            judged: record.judged,
            flags: FlowFlags(record.flow_flags),
            macs: (record.flow_flags & flow_flags::ETHERNET != 0)
                .then_some(Macs { source: record.source_mac, destination: record.destination_mac }),
        };
        Ok(Self { denied: Some(denied), ..Self::new(&record.drop, site, clock)? })
    }

    pub(super) fn new(record: &DropRecord, site: Arc<DropSite>, clock: &Clock) -> Result<Self, DecodeError> {
        let parsed = record.flags & drop_flags::PARSED != 0;
        Ok(Self {
            time_ns: clock.unix(record.header.time_ns),
            kernel_ns: record.header.time_ns,
            packet: if parsed { Packet::new(&record.tuple)? } else { None },
            site,
            ifindex: record.ifindex,
            netns: record.netns,
            packet_len: record.packet_len,
            ether_type: record.ether_type,
            tcp_flags: u16::from(record.tcp_flags),
            sum: record.flags & drop_flags::SUM != 0,
            socket: record.flags & drop_flags::SOCKET != 0,
            packets: record.packets,
            bytes: record.bytes,
            first_ns: clock.unix(record.first_ns),
            denied: None,
        })
    }
}

/// Counted facts of a local TCP socket's connection.
#[derive(Clone, Debug)]
pub struct FactEvent {
    /// Unix time, nanoseconds.
    pub time_ns: i64,
    /// Kernel time, nanoseconds.
    pub kernel_ns: u64,
    /// The connection as the socket has it, the local end first.
    pub packet: Option<Packet>,
    /// Inode number of the socket's network namespace; 0 = unknown.
    pub netns: u32,
    /// Segments sent again, in all.
    pub retransmits: u32,
    /// A connect ended without a connection.
    pub connect_failed: bool,
}

impl FactEvent {
    pub(super) fn new(record: &FactRecord, clock: &Clock) -> Result<Self, DecodeError> {
        Ok(Self {
            time_ns: clock.unix(record.header.time_ns),
            kernel_ns: record.header.time_ns,
            packet: Packet::new(&record.tuple)?,
            netns: record.netns,
            retransmits: u32::try_from(record.retransmits).unwrap_or(u32::MAX),
            connect_failed: record.failed_connects != 0,
        })
    }
}

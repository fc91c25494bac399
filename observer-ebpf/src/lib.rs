//! What the eBPF programs and the daemon share: the records in the rings, the keys and values of the maps; and the
//! programs' packet parser, which is here so that the host can test it.
//!
//! Everything is `repr(C)` without implicit padding (a map key with padding bytes compares equal to nothing), fixed in
//! size, and read by the daemon with zerocopy. [`ABI_VERSION`] stands in every record: a daemon never reads records of
//! programs that another version left pinned.
#![no_std]

#[cfg(any(test, fuzzing))]
extern crate std;

pub mod bench;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod lines;
pub mod parse;
pub mod policy;
pub mod proxy;
mod tables;

use policy::Judged;
pub use tables::*;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Raised by every change of a record. Maps are read by the daemon that made them only.
pub const ABI_VERSION: u8 = 3;

/// What a record is; the first byte of each.
pub mod kind {
    /// A [`super::FlowRecord`].
    pub const FLOW: u8 = 1;
    /// A [`super::DropRecord`].
    pub const DROP: u8 = 2;
    /// A [`super::FactRecord`].
    pub const FACT: u8 = 3;
    /// A [`super::TunneledFlowRecord`].
    pub const TUNNELED_FLOW: u8 = 4;
    /// A [`super::JudgedFlowRecord`].
    pub const JUDGED_FLOW: u8 = 5;
    /// A [`super::DeniedRecord`].
    pub const DENIED: u8 = 6;
    /// A [`super::PayloadRecord`], with the bytes that were copied behind it.
    pub const PAYLOAD: u8 = 7;
}

/// The start of every record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u8,
    /// [`ABI_VERSION`] of the program that wrote it.
    pub version: u8,
    /// Size of the whole record in bytes.
    pub size: u16,
    /// The CPU it was written on.
    pub cpu: u32,
    /// `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`, nanoseconds) when the packet was seen.
    pub time_ns: u64,
}

/// The two ends of a packet as they stand in its headers.
///
/// IPv4 addresses are IPv4-mapped IPv6 (`::ffff:a.b.c.d`). Ports are in host order; for ICMP echo both are the echo
/// identifier, for other ICMP and other protocols 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tuple {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IANA protocol number of the last header found, 0 where the packet is not IP.
    pub protocol: u8,
    /// 4, 6, or 0 where the packet is not IP.
    pub ip_version: u8,
    /// ICMP type, else 0.
    pub icmp_type: u8,
    /// ICMP code, else 0.
    pub icmp_code: u8,
}

/// Which way a packet crosses a link, as tcx names it: seen from the node, not from the pod behind the link.
pub mod hook {
    /// Into the node's stack: what a pod sends, or what arrives on an uplink.
    pub const INGRESS: u8 = 1;
    /// Out of the node's stack: what is delivered to a pod, or leaves on an uplink.
    pub const EGRESS: u8 = 2;
}

/// What stands behind a link.
pub mod link_kind {
    /// A pod, or any other network namespace at the far end of a veth.
    pub const POD: u8 = 1;
    /// The outside network.
    pub const UPLINK: u8 = 2;
    /// Other nodes, through an overlay (VXLAN, Geneve, ...).
    pub const TUNNEL: u8 = 3;
    /// A bridge of pods alone, of which no packet is told: the way to the proxy leads through it.
    pub const BRIDGE: u8 = 4;
}

/// Why a flow record was written.
pub mod flow_reason {
    /// The first packet of a connection on this link.
    pub const NEW: u8 = 1;
    /// A TCP flag not seen before in this direction (which includes the first reply).
    pub const FLAGS: u8 = 2;
    /// The connection is active and the last record is older than the interval.
    pub const INTERVAL: u8 = 3;
    /// Aggregation `none`: every packet has a record.
    pub const PACKET: u8 = 4;
    /// Written by the daemon's sweep: what was counted since the last record of a connection that fell silent.
    pub const SWEEP: u8 = 5;
    /// Of a [`super::PayloadRecord`]: what is inside the packet is told, not the packet.
    pub const PAYLOAD: u8 = 6;
}

/// Facts about a flow record, as bits.
pub mod flow_flags {
    /// The packet goes from the connection's responder to its opener.
    pub const REPLY: u16 = 1 << 0;
    /// The connection was met in its middle: who opened it is a guess (see the opener rules in ARCHITECTURE.md).
    pub const OPENER_GUESSED: u16 = 1 << 1;
    /// An ICMP error about another connection.
    pub const RELATED: u16 = 1 << 2;
    /// A fragment that is not the first: its ports come from its first fragment, or are 0.
    pub const FRAGMENT: u16 = 1 << 3;
    /// The frame carried an Ethernet header (it does not on a tunnel of layer 3).
    pub const ETHERNET: u16 = 1 << 4;
    /// The packet was forwarded by this node (`ingress_ifindex` is set), not made by one of its processes.
    pub const FORWARDED: u16 = 1 << 5;
    /// The destination is an address of a local pod, as the node's own table says.
    pub const TO_LOCAL_POD: u16 = 1 << 6;
    /// The proxy has the connection: what comes in goes there.
    pub const PROXIED: u16 = 1 << 8;
}

/// One flow event: a packet that was worth telling of, and the connection's totals so far on this link.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowRecord {
    /// Kind, version, size, time.
    pub header: Header,
    /// The packet's ends.
    pub tuple: Tuple,
    /// The link's index in the node's namespace.
    pub ifindex: u32,
    /// Length of this packet (`skb->len`), bytes.
    pub packet_len: u32,
    /// [`flow_flags`].
    pub flags: u16,
    /// VLAN id with the priority bits, 0 where there is none.
    pub vlan_tci: u16,
    /// One of [`hook`].
    pub hook: u8,
    /// One of [`link_kind`].
    pub link_kind: u8,
    /// One of [`flow_reason`].
    pub reason: u8,
    /// TCP flags of this packet: CWR ECE URG ACK PSH RST SYN FIN from the highest bit down.
    pub tcp_flags: u8,
    /// Source MAC, where [`flow_flags::ETHERNET`] is set.
    pub source_mac: [u8; 6],
    /// Destination MAC.
    pub destination_mac: [u8; 6],
    /// TCP's NS bit in bit 0; the rest is 0.
    pub tcp_flags_high: u8,
    /// Always 0.
    pub pad: u8,
    /// RST segments of the connection on this link, both ways, up to `u16::MAX`.
    pub resets: u16,
    /// Packets (GSO segments) of the connection in this packet's direction on this link, this one included.
    pub packets: u64,
    /// Bytes (`skb->len`) likewise.
    pub bytes: u64,
    /// When the connection was first seen on this link, as [`Header::time_ns`].
    pub first_ns: u64,
}

/// How a packet was carried inside another.
pub mod tunnel_kind {
    /// VXLAN.
    pub const VXLAN: u8 = 1;
    /// Geneve.
    pub const GENEVE: u8 = 2;
    /// GRE.
    pub const GRE: u8 = 3;
    /// IP in IP.
    pub const IP: u8 = 4;
}

/// The headers around a packet that was carried inside another; of several, the outermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tunnel {
    /// The outer ends.
    pub tuple: Tuple,
    /// Network identifier of VXLAN and Geneve, key of GRE, else 0.
    pub vni: u32,
    /// One of [`tunnel_kind`]; 0 where it is not known any more.
    pub kind: u8,
    /// 1 where it was around a packet from [`FlowKey::remote`].
    pub from_remote: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

/// A [`FlowRecord`] of a packet inside another.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TunneledFlowRecord {
    /// The packet inside; its header tells the size of this record.
    pub flow: FlowRecord,
    /// What is around it.
    pub tunnel: Tunnel,
}

/// A [`FlowRecord`] of the first packet of a connection that policies say something about.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct JudgedFlowRecord {
    /// The packet; its header tells the size of this record.
    pub flow: FlowRecord,
    /// What policies say.
    pub judged: Judged,
}

/// A packet that the flow programs dropped, since policies deny its connection. Further ones of the connection are summed
/// as other drops are.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DeniedRecord {
    /// The packet; its header tells the size of this record, its reason is one of [`policy::POLICY_DENIED`] and
    /// [`policy::POLICY_DENY`].
    pub drop: DropRecord,
    /// What policies say.
    pub judged: Judged,
    /// Source MAC, where there is one.
    pub source_mac: [u8; 6],
    /// Destination MAC.
    pub destination_mac: [u8; 6],
    /// One of [`hook`].
    pub hook: u8,
    /// One of [`link_kind`].
    pub link_kind: u8,
    /// [`flow_flags`].
    pub flow_flags: u16,
}

/// What a payload looks like by its first bytes.
pub mod payload_kind {
    /// HTTP/1, or HTTP/2 without TLS.
    pub const HTTP: u8 = 1;
    /// DNS; of TCP with the length before each message.
    pub const DNS: u8 = 2;
    /// A handshake of TLS, or an alert in its place.
    pub const TLS: u8 = 3;
}

/// The first bytes inside a packet, at most [`MOST_PAYLOAD`], which stand behind it. Its header tells the size of both.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PayloadRecord {
    /// The packet, with the sum of `packets`, and without `bytes`, `resets` and MAC addresses.
    pub flow: FlowRecord,
    /// TCP's sequence number of the first byte; of UDP 0.
    pub sequence: u32,
    /// How many bytes are inside the packet.
    pub length: u32,
    /// How many of them were copied.
    pub copied: u16,
    /// One of [`payload_kind`].
    pub payload: u8,
    /// Always 0.
    pub pad: u8,
    /// What stands before them in the packet. The kernel copies no single byte where it can't be sure that there is one.
    pub before: [u8; 4],
}

/// The most bytes that are copied of a packet.
pub const MOST_PAYLOAD: usize = 4096;

/// Facts about a drop record, as bits.
pub mod drop_flags {
    /// [`super::DropRecord::tuple`] could be read from the packet.
    pub const PARSED: u16 = 1 << 0;
    /// A sum of further drops of the same reason and tuple, written by the daemon's sweep.
    pub const SUM: u16 = 1 << 1;
    /// The packet belonged to a local socket (`skb->sk` was set).
    pub const SOCKET: u16 = 1 << 2;
}

/// One dropped packet, or the sum of further ones like it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DropRecord {
    /// Kind, version, size, time.
    pub header: Header,
    /// The packet's ends, where [`drop_flags::PARSED`] is set.
    pub tuple: Tuple,
    /// The kernel's `skb_drop_reason`; its name is in this kernel's BTF and nowhere else.
    pub reason: u32,
    /// `skb->dev`'s index, 0 where the packet had no device.
    pub ifindex: u32,
    /// Inode number of the network namespace that dropped it, 0 where unknown.
    pub netns: u32,
    /// `skb->len`, bytes.
    pub packet_len: u32,
    /// Address in the kernel of the code that dropped it, 0 where unknown.
    pub location: u64,
    /// [`drop_flags`].
    pub flags: u16,
    /// `skb->protocol`, the EtherType, in host order.
    pub ether_type: u16,
    /// TCP flags as in [`FlowRecord::tcp_flags`].
    pub tcp_flags: u8,
    /// Always 0.
    pub pad: [u8; 3],
    /// Packets this record stands for.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first of them was dropped, as [`Header::time_ns`].
    pub first_ns: u64,
    /// Cookie of the network namespace, which is never used again as inode numbers are; 0 where unknown.
    pub netns_cookie: u64,
}

/// Counted facts about a TCP connection, written by the daemon's sweep when they changed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FactRecord {
    /// Kind, version, size; the time is that of the last fact.
    pub header: Header,
    /// The connection as its socket sees it: the source is the socket's own end.
    pub tuple: Tuple,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Always 0.
    pub pad: u32,
    /// Segments sent again, in all.
    pub retransmits: u64,
    /// Connects that ended without a connection, in all.
    pub failed_connects: u64,
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<FactRecord>() == 80);
const _: () = assert!(size_of::<Tuple>() == 40);
const _: () = assert!(size_of::<FlowRecord>() == 112);
const _: () = assert!(size_of::<TunneledFlowRecord>() == 160);
const _: () = assert!(size_of::<JudgedFlowRecord>() == 128);
const _: () = assert!(size_of::<DeniedRecord>() == 152);
const _: () = assert!(size_of::<DropRecord>() == 120);
const _: () = assert!(size_of::<PayloadRecord>() == 128);

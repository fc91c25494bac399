//! Keys and values of the maps that the daemon shares with the programs, and the globals frozen at load.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::lines::Words;
use crate::parse::{ICMP, ICMPV6, TCP, UDP};
use crate::proxy::LinkWay;

/// How much of the traffic becomes records; the numbers of [`Config::aggregation`].
pub mod aggregation {
    /// A record for every packet at every hook.
    pub const NONE: u32 = 0;
    /// A record for every packet, at one hook each.
    pub const LOW: u32 = 1;
    /// New connections, each new TCP flag, and one record an interval while active.
    pub const MEDIUM: u32 = 2;
    /// New connections, the first reply, FIN and RST.
    pub const MAXIMUM: u32 = 3;
}

/// What the flow programs are told before load; the verifier sees constants.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Config {
    /// One of [`aggregation`].
    pub aggregation: u32,
    /// First port of `net.ipv4.ip_local_port_range`.
    pub ephemeral_low: u16,
    /// Last port of it.
    pub ephemeral_high: u16,
    /// Time between two records of an active connection in aggregation medium, nanoseconds.
    pub interval_ns: u64,
    /// Nanoseconds for one more new-flow record on a CPU; 0 = no cap.
    pub new_flow_cost_ns: u64,
    /// How many new-flow records a CPU may write at once.
    pub new_flow_burst: u64,
    /// 1 where the kernel has `bpf_ktime_get_coarse_ns`.
    pub coarse_clock: u32,
    /// The number of the drop reason that says nothing, `NOT_SPECIFIED`; 0 where the kernel has no reasons.
    pub not_specified: u32,
    /// The numbers of `TC_INGRESS` and `TC_EGRESS`, of which the programs' own drops are; 0 where the kernel has none.
    pub tc_reasons: [u32; 2],
    /// 1 where a pod that nobody knows is refused.
    pub unknown_denied: u32,
    /// Inode number of the node's network namespace.
    pub netns: u32,
    /// Kernel time up to which connections are taken for such as began before the programs ran: of those of UDP too the
    /// opener is guessed then, and not only of those of TCP.
    pub midway_until_ns: u64,
    /// What is looked for inside packets, bits of [`l7`]; 0 = nothing is.
    pub l7: u32,
    /// Nanoseconds for one more KiB of payload on a CPU; 0 = no cap.
    pub payload_cost_ns: u32,
}

/// Bits of [`Config::l7`].
pub mod l7 {
    /// DNS.
    pub const DNS: u32 = 1 << 0;
    /// HTTP.
    pub const HTTP: u32 = 1 << 1;
    /// Beginnings of TLS.
    pub const TLS: u32 = 1 << 2;
}

/// The most ports that can be named.
pub const MOST_PAYLOAD_PORTS: usize = 16;

/// Where something is looked for inside packets, told before load as [`Config`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PayloadPorts {
    /// What is looked for at some ports only, bits of [`l7`]; all else is looked for at any.
    pub limited: u32,
    /// These ports; those behind the last one are 0.
    pub ports: [PayloadPort; MOST_PAYLOAD_PORTS],
}

/// What is looked for where either end has this port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PayloadPort {
    /// The port.
    pub port: u16,
    /// Bits of [`l7`].
    pub l7: u16,
}

/// Where the fields are in this kernel's structs, in bytes. From BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "each is named struct_field after the kernel's own names")]
pub struct Offsets {
    pub skb_dev: u32,
    pub skb_head: u32,
    pub skb_data: u32,
    pub skb_tail: u32,
    pub skb_transport_header: u32,
    pub skb_network_header: u32,
    pub skb_len: u32,
    pub skb_protocol: u32,
    pub skb_sk: u32,
    /// Of the part that tc programs may write, `qdisc_skb_cb.data`; 0 where the kernel does not say.
    pub skb_cb: u32,
    pub dev_ifindex: u32,
    pub dev_net: u32,
    pub net_inum: u32,
    pub net_cookie: u32,
    pub sk_net: u32,
    pub sk_family: u32,
    pub inet_sport: u32,
    pub sk_dport: u32,
    pub sk_daddr: u32,
    pub sk_rcv_saddr: u32,
    pub sk_v6_daddr: u32,
    pub sk_v6_rcv_saddr: u32,
    pub sk_protocol: u32,
    pub trace_reason: u32,
}

/// What the daemon changes while the programs run.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Settings {
    /// Which of the two drop tables the program writes: 0 or 1.
    pub generation: u32,
    /// 1 = drops of every namespace are told, not only of the watched ones.
    pub host_wide: u32,
}

/// A link, with its traffic: one copy on each CPU, each under its own `kind` and `layer3`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LinkState {
    /// One of [`crate::link_kind`].
    pub kind: u32,
    /// 1 where frames have no Ethernet header.
    pub layer3: u32,
    /// How packets come from there to the node's own sockets.
    pub way: LinkWay,
    /// What came in (`[0]`) and went out (`[1]`), as tcx names it.
    pub traffic: [LinkTraffic; 2],
}

/// Exact sums of one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LinkTraffic {
    /// Packets (GSO segments), all of them.
    pub packets: u64,
    /// Bytes (`skb->len`).
    pub bytes: u64,
    /// Packets of those that are not IP.
    pub not_ip: u64,
    /// Packets of those whose headers end too early or contradict themselves.
    pub malformed: u64,
}

/// One connection on one link; both of its directions have this key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowKey {
    /// The address on the near side: the pod's, or on uplinks and tunnels the node's.
    pub local: [u8; 16],
    /// The other address.
    pub remote: [u8; 16],
    /// The link, with [`INSIDE_TUNNEL`] where the packets are carried inside others.
    pub ifindex: u32,
    /// Port with `local`.
    pub local_port: u16,
    /// Port with `remote`. Of ICMP echoes, both of whose ports are the identifier, what is asked for, with
    /// [`ASKED_BY_REMOTE`]: else who was asked could ask back as if that were the answer.
    pub remote_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// The lower 24 bits of [`crate::Tunnel::vni`]: tenants of an overlay may have the same addresses.
    pub vni: [u8; 3],
}

/// In [`FlowKey::remote_port`] of ICMP echoes, above the request's type: the remote side asks.
pub const ASKED_BY_REMOTE: u16 = 1 << 8;

impl FlowKey {
    /// With the ports that its packets have.
    #[must_use]
    pub fn with_ports(self) -> Self {
        let icmp = self.protocol == ICMP || self.protocol == ICMPV6;
        Self { remote_port: if icmp { self.local_port } else { self.remote_port }, ..self }
    }
}

/// In [`FlowKey::ifindex`], which the kernel keeps below 2^31.
pub const INSIDE_TUNNEL: u32 = 1 << 31;

/// The key of a connection of TCP or UDP that is inside no tunnel: a third of the other's size, which the kernel takes less
/// time to hash, and what every packet over IPv4 needs stands in two cache lines of the kernel's.
///
/// Of IPv6 two connections may have the same: the second one is in the other table then. Since the ports are in it, too, such
/// are only found by looking for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ShortKey {
    /// As [`FlowKey::local`]; of IPv6 [`folded`].
    pub local: [u8; 4],
    /// As [`FlowKey::remote`]; of IPv6 [`folded`].
    pub remote: [u8; 4],
    /// The link, with [`SHORT_UDP`] and [`SHORT_IPV6`].
    pub ifindex: u32,
    /// Port with `local`.
    pub local_port: u16,
    /// Port with `remote`.
    pub remote_port: u16,
}

/// In [`ShortKey::ifindex`], which the kernel keeps below 2^31: the protocol is UDP.
pub const SHORT_UDP: u32 = 1 << 31;
/// In [`ShortKey::ifindex`]: IPv6. Connections of links whose index has this bit have no short key.
pub const SHORT_IPV6: u32 = 1 << 30;

/// An IPv6 address, as two numbers of the machine's, in one. Of those that have the first twelve bytes in common no two are
/// folded to the same.
#[inline]
#[must_use]
pub const fn folded([first, last]: Words) -> [u8; 4] {
    // Odd, so that no bit is lost; the upper half of each product depends on all bytes.
    let mixed = (first ^ first >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (last ^ mixed).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed >> 32) as u32).to_ne_bytes()
}

/// The ends of a connection that has a [`ShortKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Ends {
    /// [`FlowKey::local`].
    pub local: [u8; 16],
    /// [`FlowKey::remote`].
    pub remote: [u8; 16],
}

impl ShortKey {
    /// The key of a connection over IPv6 that stands in the table of all others, since another one has it.
    #[must_use]
    pub fn of_twin(key: &FlowKey) -> Option<Self> {
        if key.protocol != TCP && key.protocol != UDP || key.ifindex & (INSIDE_TUNNEL | SHORT_IPV6) != 0 {
            return None;
        }
        Some(Self {
            local: folded(zerocopy::transmute!(key.local)),
            remote: folded(zerocopy::transmute!(key.remote)),
            ifindex: key.ifindex | SHORT_IPV6 | if key.protocol == UDP { SHORT_UDP } else { 0 },
            local_port: key.local_port,
            remote_port: key.remote_port,
        })
    }

    /// With the ends that stand beside it.
    #[must_use]
    pub const fn between(self, ends: Ends) -> FlowKey {
        FlowKey {
            local: ends.local,
            remote: ends.remote,
            ifindex: self.ifindex & !(SHORT_UDP | SHORT_IPV6),
            local_port: self.local_port,
            remote_port: self.remote_port,
            protocol: if self.ifindex & SHORT_UDP == 0 { TCP } else { UDP },
            vni: [0; 3],
        }
    }
}

/// One direction of a connection on one link: all that most packets need of the table, half a cache line.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowDirection {
    /// Packets (GSO segments).
    pub packets: u64,
    /// Bytes (`skb->len`).
    pub bytes: u64,
    /// The [`tick`] of the last packet; may be 10 ms behind.
    pub last: u32,
    /// The [`tick`] of the last record, 0 = never.
    pub told: u32,
    /// The generation of local addresses and policies by which `flags` were decided.
    pub generation: u32,
    /// TCP flags seen so far, [`payload_state`], and [`SEEN`].
    pub seen: u16,
    /// [`crate::flow_flags`] of the last packet, without those of its frame; and [`TELLABLE`].
    pub flags: u8,
    /// TCP flags of the last packet.
    pub tcp_flags: u8,
}

/// In [`FlowDirection::seen`]: a packet went this way.
pub const SEEN: u16 = 1 << 15;

/// In [`FlowDirection::seen`], above the flags: what its payload was found to be. Below [`PLAIN`](payload_state::PLAIN), how many packets
/// looked like nothing that is read.
pub mod payload_state {
    /// The bits.
    pub const MASK: u16 = 7 << 8;
    /// One packet more.
    pub const ONE: u16 = 1 << 8;
    /// It is looked at no more.
    pub const PLAIN: u16 = 3 << 8;
    /// HTTP.
    pub const HTTP: u16 = 4 << 8;
    /// DNS.
    pub const DNS: u16 = 5 << 8;
    /// A hello of TLS that goes on; behind it nothing is looked at.
    pub const TLS: u16 = 6 << 8;
}

/// In [`FlowDirection::flags`]: this direction is told of on this link.
pub const TELLABLE: u8 = 1 << 7;

/// In [`FlowDirection::flags`], in the place of one that is of frames: policies deny this direction, and it is dropped.
pub const DENIED: u8 = 1 << 4;
const _: () = assert!(DENIED as u16 == crate::flow_flags::ETHERNET);

/// Time in steps of 2^20 ns, about a millisecond, in a number that begins again after 52 days.
#[must_use]
pub const fn tick(ns: u64) -> u32 {
    (ns >> 20) as u32
}

/// Steps from `earlier` to `now`. The clocks of two processors may differ, so what is up to a minute ahead is now.
#[must_use]
pub const fn ticks_since(now: u32, earlier: u32) -> u32 {
    let ticks = now.wrapping_sub(earlier);
    if ticks > u32::MAX - (1 << 16) { 0 } else { ticks }
}

/// A connection on one link.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowValue {
    /// From local to remote (`[0]`) and back (`[1]`).
    pub directions: [FlowDirection; 2],
    /// When the connection was first seen; up to 10 ms early where its first packet was denied.
    pub first_ns: u64,
    /// The lower half of each direction's `packets` in its last record.
    pub told_packets: [u32; 2],
    /// RST segments seen, both ways, up to `u16::MAX`.
    pub resets: u16,
    /// Index in `directions` of what the opener sends.
    pub opener: u8,
    /// 1 where `opener` is a guess.
    pub guessed: u8,
    /// 1 where the node forwards this connection out of an uplink: its replies are not for the node.
    pub forwarded: u8,
    /// One of [`crate::link_kind`].
    pub link_kind: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Not 0 where the proxy has the connection: what comes in on the link goes there. 1 by enforced policies, 3 by audited ones
    /// alone, 4 where the proxy opened it. 2 where it should have it, and was open before: it is reset.
    pub proxied: u8,
    /// Of ICMP each direction's type and code, of the last packet. Of HTTP how many bytes of each may still be of a head that
    /// was begun.
    pub icmp: [[u8; 2]; 2],
    /// Where connections are judged: the addresses of the tunnel that it was last judged in, folded; else 0.
    pub carrier: u32,
}

impl FlowValue {
    /// A direction's packets in its last record.
    #[must_use]
    pub fn told_packets(&self, direction: usize) -> u64 {
        let packets = self.directions[direction].packets;
        packets.saturating_sub(u64::from((packets as u32).wrapping_sub(self.told_packets[direction])))
    }
}

/// The value beside a [`ShortKey`], in whole cache lines.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ShortValue {
    /// The connection.
    pub flow: FlowValue,
    /// Whose it is.
    pub ends: Ends,
}

/// Of an entry of the kernel's LRU hash tables, what stands before the key: since the entries stand side by side, and the
/// table at the start of a page, this says which fields share a cache line.
const ENTRY_HEADER: usize = 48;
const _: () = assert!((ENTRY_HEADER + size_of::<ShortKey>()).is_multiple_of(64));
const _: () = assert!((ENTRY_HEADER + size_of::<ShortKey>() + size_of::<ShortValue>()).is_multiple_of(64));
const _: () = assert!(
    (ENTRY_HEADER + size_of::<FlowKey>().next_multiple_of(8) + size_of::<FlowValue>()).is_multiple_of(64)
);
const _: () = assert!(size_of::<[FlowDirection; 2]>() == 64);

/// A first fragment; its value is the ports (source, destination).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// IP identification.
    pub id: u32,
    /// IANA protocol number.
    pub protocol: u32,
}

/// Drops of the same kind, told once a generation and summed then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DropKey {
    /// The packet's ends.
    pub tuple: crate::Tuple,
    /// `skb_drop_reason`.
    pub reason: u32,
    /// Namespace.
    pub netns: u32,
    /// Link.
    pub ifindex: u32,
}

/// The sum of the drops after the first one of a generation.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DropValue {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the first one of the generation was dropped.
    pub first_ns: u64,
    /// When the last one was dropped.
    pub last_ns: u64,
    /// Address of the code that dropped the first one.
    pub location: u64,
    /// Cookie of the namespace.
    pub netns_cookie: u64,
    /// Length of the first one.
    pub packet_len: u32,
    /// [`crate::drop_flags`].
    pub flags: u16,
    /// EtherType.
    pub ether_type: u16,
    /// TCP flags of the first one.
    pub tcp_flags: u8,
    /// Always 0.
    pub pad: [u8; 7],
}

/// A TCP connection as its socket sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FactKey {
    /// Source is the socket's own end.
    pub tuple: crate::Tuple,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FactValue {
    /// Segments sent again.
    pub retransmits: u64,
    /// Connects that ended without a connection.
    pub failed_connects: u64,
    /// When the last of these was.
    pub last_ns: u64,
}

/// The programs that count, as index of the counters' map.
pub mod program {
    /// Flow program at ingress.
    pub const INGRESS: u32 = 0;
    /// Flow program at egress.
    pub const EGRESS: u32 = 1;
    /// Drop program.
    pub const DROP: u32 = 2;
    /// Socket facts.
    pub const FACTS: u32 = 3;
    /// What of both flow programs tells of packets that policies deny.
    pub const DENIED: u32 = 4;
    /// How many there are.
    pub const COUNT: u32 = 5;
}

/// What one program did on one CPU. `made = submitted + ring_full`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Counters {
    /// Times it ran.
    pub runs: u64,
    /// Records it had to write, counted before the ring was asked for room.
    pub made: u64,
    /// Records it gave to the ring.
    pub submitted: u64,
    /// Records the ring had no room for: lost.
    pub ring_full: u64,
    /// Suppressed: packets that aggregation left without a record of their own.
    pub aggregated: u64,
    /// Suppressed: packets whose new-flow record was over the cap.
    pub new_flow_cap: u64,
    /// TCP connections met in the middle: older than the daemon, or evicted from the full table.
    pub met_midway: u64,
    /// Suppressed: drops that went into a sum.
    pub summed: u64,
    /// Suppressed: drops whose reason is noise, of a namespace nobody watches, or that the flow programs told.
    pub ignored: u64,
    /// Times a table had no room: the packet was judged by itself.
    pub table_full: u64,
    /// Suppressed: packets whose payload was over the cap.
    pub payload_cap: u64,
    /// Open connections that were reset, since their requests are to be judged from now on.
    pub reset: u64,
}

#[cfg(test)]
mod tests;

//! The kernel's drop reasons by name, and the nearest of Hubble's.
//!
//! Hubble's clients print a text chosen by Hubble's own number, so no kernel number may pass through: what is mapped here
//! goes into `drop_reason_desc` and `sub_type`, the kernel's own name stands beside it in Summary and `extensions`.

use crate::flow::DropSite;
use hashbrown::HashMap;
use observer_ebpf::policy::{POLICY_DENY, POLICY_REASON};
use observer_proto::flow::DropReason as Hubble;
use std::borrow::Cow;

/// The names that this kernel's BTF gives to its `skb_drop_reason` numbers.
#[derive(Clone, Debug, Default)]
pub struct DropReasons {
    names: HashMap<u32, String>,
}

impl DropReasons {
    /// From (number, name); names may carry BTF's prefix `SKB_DROP_REASON_`.
    pub fn new(names: impl IntoIterator<Item = (u32, String)>) -> Self {
        let names = names.into_iter().map(|(number, name)| (number, short(&name).to_owned())).collect();
        Self { names }
    }

    /// What is shown of a drop for this reason at this place.
    pub(super) fn site(&self, reason: u32, location: Result<String, &'static str>) -> DropSite {
        let location = location.map_err(Cow::Borrowed);
        if reason & POLICY_REASON != 0 {
            let hubble_reason = if reason == POLICY_DENY { Hubble::PolicyDeny } else { Hubble::PolicyDenied };
            return DropSite { kernel_reason: String::new(), hubble_reason: hubble_reason as u16, location };
        }
        let kernel_reason = match self.names.get(&reason) {
            Some(name) => name.clone(),
            None if self.names.is_empty() => UNKNOWN.to_owned(),
            None => format!("reason {reason}"),
        };
        let symbol = location.as_deref().unwrap_or_default();
        let hubble_reason = nearest_hubble_reason(&kernel_reason, symbol) as u16;
        DropSite { kernel_reason, hubble_reason, location }
    }
}

/// Stands for a reason where the kernel tells none: before 5.17.
const UNKNOWN: &str = "unknown on this kernel";

fn short(name: &str) -> &str {
    name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name)
}

/// What an unknown reason is told as. Hubble's own "unknown", 0, prints as "Success", which a drop is not; "Invalid
/// packet" blames the packet, but no other of Hubble's texts says less.
const NO_NEAR_REASON: Hubble = Hubble::InvalidPacketDropped;

/// Hubble's nearest reason for a kernel reason (with or without its prefix) at a place (`symbol+0xoffset` or empty).
pub fn nearest_hubble_reason(kernel_reason: &str, symbol: &str) -> Hubble {
    let name = short(kernel_reason);
    // The kernel has no reason for an expired TTL: the two forwarding functions report it as a bad header (up to 6.18).
    if name == "IP_INHDR" && (symbol.starts_with("ip_forward") || symbol.starts_with("ip6_forward")) {
        return Hubble::TtlExceeded;
    }
    // Nor has it one for what a route discards, and for IPv6's unresolved neighbours none either.
    let places: [&[(&str, Hubble)]; 2] = match name {
        "NOT_SPECIFIED" => [&UNSPECIFIED, &[]],
        UNKNOWN => [&UNSPECIFIED, &UNREASONED],
        _ => [&[], &[]],
    };
    if let Some((_, hubble)) = places.into_iter().flatten().find(|(function, _)| symbol.starts_with(function))
    {
        return *hubble;
    }
    NEAREST.iter().find(|(_, names)| names.contains(&name)).map_or(NO_NEAR_REASON, |(hubble, _)| *hubble)
}

/// Functions that free with no reason (up to 6.18) and do so for one only.
const UNSPECIFIED: [(&str, Hubble); 4] = [
    // IPv4: `blackhole` and `prohibit` routes; IPv6: `blackhole`, each way.
    ("ip_error+", Hubble::FibLookupFailed),
    ("dst_discard", Hubble::FibLookupFailed),
    // Calls IPv6's own function last, whose place is taken by a tail call.
    ("neigh_invalidate+", Hubble::UnknownL3TargetAddress),
    ("ndisc_error_report+", Hubble::UnknownL3TargetAddress),
];

/// Functions that nearly always free for one cause, where only the place tells (5.10). A forwarding function has several.
const UNREASONED: [(&str, Hubble); 6] = [
    ("nf_hook_slow+", Hubble::PolicyDenied),
    ("tcp_v4_rcv+", Hubble::SocketLookupFailed),
    ("tcp_v6_rcv+", Hubble::SocketLookupFailed),
    ("__udp4_lib_rcv+", Hubble::SocketLookupFailed),
    ("__udp6_lib_rcv+", Hubble::SocketLookupFailed),
    ("ip6_pkt_drop+", Hubble::FibLookupFailed),
];

/// Names of `enum skb_drop_reason` up to 6.18 with those that older kernels had (from 5.17), and Open vSwitch's.
#[expect(
    deprecated,
    reason = "no other number of Hubble's says that a MAC address was wrong, and clients still print it"
)]
static NEAREST: &[(Hubble, &[&str])] = &[
    // Somebody's rule, filter or program said no. To a reader of "Policy denied" that is what happened; which firewall it
    // was, the kernel's name tells.
    (
        Hubble::PolicyDenied,
        &[
            "NETFILTER_DROP",
            "BPF_CGROUP_EGRESS",
            "SECURITY_HOOK",
            "SOCKET_FILTER",
            "XFRM_POLICY",
            "TC_EGRESS",
            "TC_INGRESS",
            "XDP",
            "TAP_FILTER",
            "TAP_TXFILTER",
            "ARP_PVLAN_DISABLE",
            "OVS_DROP_EXPLICIT",
            "OVS_DROP_EXPLICIT_WITH_ERROR",
            "OVS_DROP_LAST_ACTION",
        ],
    ),
    // Nobody listens, or no longer.
    (
        Hubble::SocketLookupFailed,
        &[
            "NO_SOCKET",
            "SOCKET_CLOSE",
            "TCP_CLOSE",
            "TCP_ABORT_ON_DATA",
            "QUEUE_PURGE",
            "UNIX_DISCONNECT",
            "UNIX_SKIP_OOB",
        ],
    ),
    (Hubble::FibLookupFailed, &["IP_INNOROUTES", "IP_OUTNOROUTES"]),
    // The text of this number is "Fragmentation needed"; its enum name is a leftover.
    (Hubble::CtMissingTcpAckFlag, &["PKT_TOO_BIG"]),
    (Hubble::TtlExceeded, &["TCP_MINTTL", "OVS_DROP_IP_TTL"]),
    // The next hop has no link address, or no port leads to it.
    (
        Hubble::UnknownL3TargetAddress,
        &[
            "NEIGH_CREATEFAIL",
            "NEIGH_FAILED",
            "NEIGH_DEAD",
            "NEIGH_HH_FILLFAIL",
            "NO_TX_TARGET",
            "VXLAN_NO_REMOTE",
        ],
    ),
    (Hubble::StaleOrUnroutableIp, &["IP_INVALID_DEST", "IP_INADDRERRORS", "BRIDGE_INGRESS_STP_STATE"]),
    (Hubble::InvalidSourceIp, &["IP_RPFILTER", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET"]),
    (Hubble::InvalidSourceMac, &["MAC_INVALID_SOURCE", "LOCAL_MAC", "VXLAN_ENTRY_EXISTS"]),
    (Hubble::InvalidDestinationMac, &["OTHERHOST", "UNICAST_IN_L2_MULTICAST"]),
    (Hubble::ErrorWhileCorrectingL3Checksum, &["IP_CSUM"]),
    (Hubble::ErrorWhileCorrectingL4Checksum, &["TCP_CSUM", "UDP_CSUM", "ICMP_CSUM", "SKB_CSUM"]),
    // A queue, a buffer, memory or a budget was full: congestion, for which Hubble has this one text.
    (
        Hubble::DropRateLimited,
        &[
            "SOCKET_RCVBUFF",
            "SOCKET_BACKLOG",
            "PROTO_MEM",
            "TCP_LISTEN_OVERFLOW",
            "TCP_ZEROWINDOW",
            "TCP_OFO_QUEUE_PRUNE",
            "TCP_OFO_DROP",
            "NEIGH_QUEUEFULL",
            "QDISC_DROP",
            "QDISC_OVERLIMIT",
            "QDISC_CONGESTED",
            "CAKE_FLOOD",
            "FQ_BAND_LIMIT",
            "FQ_FLOW_LIMIT",
            "DUALPI2_STEP_DROP",
            "CPU_BACKLOG",
            "FULL_RING",
            "NOMEM",
            "PFMEMALLOC",
            "OVS_DROP_METER",
        ],
    ),
    (Hubble::ReachedEdtRateLimitingDropHorizon, &["FQ_HORIZON_LIMIT"]),
    (Hubble::CtTruncatedOrInvalidHeader, &["PKT_TOO_SMALL", "HDR_TRUNC", "DEV_HDR"]),
    (Hubble::FirstLogicalDatagramFragmentNotFound, &["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"]),
    (Hubble::IpFragmentationNotSupported, &["OVS_DROP_FRAG_L2_TOO_LONG", "OVS_DROP_FRAG_INVALID_PROTO"]),
    (Hubble::InvalidIpv6ExtensionHeader, &["IPV6_BAD_EXTHDR"]),
    (
        Hubble::ForbiddenIcmpv6Message,
        &[
            "IPV6_NDISC_FRAG",
            "IPV6_NDISC_HOP_LIMIT",
            "IPV6_NDISC_BAD_CODE",
            "IPV6_NDISC_BAD_OPTIONS",
            "IPV6_NDISC_NS_OTHERHOST",
        ],
    ),
    (Hubble::UnknownL4Protocol, &["IP_NOPROTO", "INVALID_PROTO"]),
    (Hubble::UnsupportedL3Protocol, &["UNHANDLED_PROTO", "PTYPE_ABSENT", "IPV6DISABLED"]),
    (
        Hubble::UnsupportedL2Protocol,
        &["MAC_IEEE_MAC_CONTROL", "CAN_RX_INVALID_FRAME", "CANFD_RX_INVALID_FRAME", "CANXL_RX_INVALID_FRAME"],
    ),
    (Hubble::InvalidVni, &["VXLAN_VNI_NOT_FOUND"]),
    (Hubble::ErrorRetrievingTunnelKey, &["VXLAN_INVALID_HDR", "TUNNEL_TXINFO"]),
    (Hubble::NoTunnelOrEncapsulationEndpoint, &["OVS_DROP_TUNNEL_TX_ERROR"]),
    // TCP MD5 and TCP-AO: the segment was not signed as the socket demands.
    (
        Hubble::AuthRequired,
        &[
            "TCP_AUTH_HDR",
            "TCP_MD5NOTFOUND",
            "TCP_MD5UNEXPECTED",
            "TCP_MD5FAILURE",
            "TCP_AONOTFOUND",
            "TCP_AOUNEXPECTED",
            "TCP_AOKEYNOTFOUND",
            "TCP_AOFAILURE",
        ],
    ),
    // PSP: the socket demands encryption that the packet doesn't have.
    (Hubble::UnencryptedTraffic, &["PSP_INPUT", "PSP_OUTPUT"]),
    (
        Hubble::InvalidTcBuffer,
        &["TC_COOKIE_ERROR", "TC_ERROR", "TC_CHAIN_NOTFOUND", "TC_RECLASSIFY_LOOP", "PACKET_SOCK_ERROR"],
    ),
    (Hubble::ErrorWritingToPacket, &["SKB_GSO_SEG", "SKB_UCOPY_FAULT"]),
    (Hubble::DropHostNotReady, &["DEV_READY"]),
    (Hubble::UnknownConnectionTrackingState, &["OVS_DROP_CONNTRACK"]),
    // The packet itself, or its place in the connection, is not valid; then the reasons that say nothing.
    (
        NO_NEAR_REASON,
        &[
            "IP_INHDR",
            "DUP_FRAG",
            "IP_TUNNEL_ECN",
            "RECURSION_LIMIT",
            "TCP_FLAGS",
            "TCP_OLD_DATA",
            "TCP_OVERWINDOW",
            "TCP_OFOMERGE",
            "TCP_RFC7323_PAWS",
            "TCP_RFC7323_PAWS_ACK",
            "TCP_RFC7323_TW_PAWS",
            "TCP_RFC7323_TSECR",
            "TCP_OLD_SEQUENCE",
            "TCP_INVALID_SEQUENCE",
            "TCP_INVALID_END_SEQUENCE",
            "TCP_INVALID_ACK_SEQUENCE",
            "TCP_RESET",
            "TCP_INVALID_SYN",
            "TCP_FASTOPEN",
            "TCP_OLD_ACK",
            "TCP_TOO_OLD_ACK",
            "TCP_ACK_UNSENT_DATA",
            "NOT_SPECIFIED",
            "SKB_NOT_DROPPED_YET",
            "SKB_CONSUMED",
            "MAX",
            "SUBSYS_MASK",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn kernel_names() -> Vec<&'static str> {
        include_str!("../../../testdata/kernel/drop-reasons-6.18.txt").lines().collect()
    }

    #[test]
    fn each_reason_of_this_kernel_is_placed() {
        let placed: HashSet<&str> = NEAREST.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let missing: Vec<_> =
            kernel_names().into_iter().filter(|name| !placed.contains(short(name))).collect();
        assert_eq!(missing, Vec::<&str>::new());
        assert!(kernel_names().len() >= 130);
    }

    #[test]
    fn a_filter_takes_each_reason() {
        for name in NEAREST.iter().flat_map(|(_, names)| *names) {
            let is_none = ["SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "MAX", "SUBSYS_MASK"].contains(name);
            assert_eq!(observer_proto::filter::drop_reason_number(name).is_none(), is_none, "{name}");
        }
    }

    #[test]
    fn where_the_kernel_tells_no_reason_the_place_does() {
        let site = |symbol: &str| DropReasons::default().site(0, Ok(symbol.to_owned()));
        for (symbol, hubble) in [
            ("nf_hook_slow+0x98", Hubble::PolicyDenied),
            ("__udp4_lib_rcv+0x7d5", Hubble::SocketLookupFailed),
            ("ip_error+0x1b5", Hubble::FibLookupFailed),
            ("ip_rcv_core+0x10", NO_NEAR_REASON),
        ] {
            let site = site(symbol);
            assert_eq!(
                (site.kernel_reason.as_str(), site.hubble_reason),
                (UNKNOWN, hubble as u16),
                "{symbol}"
            );
        }
        let named = DropReasons::new([(2, "SKB_DROP_REASON_NOT_SPECIFIED".to_owned())]);
        assert_eq!(named.site(7, Err("")).kernel_reason, "reason 7");
    }

    #[test]
    fn no_reason_is_placed_twice() {
        let mut seen = HashSet::new();
        for name in NEAREST.iter().flat_map(|(_, names)| *names) {
            assert!(seen.insert(name), "{name} stands twice");
        }
    }

    #[test]
    fn each_number_has_a_text_in_hubble() {
        let table = include_str!("../../../testdata/hubble-api/drop-reasons.tsv");
        let texts: HashSet<i32> = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split('\t').next()?.parse().ok())
            .filter(|number| *number != 0)
            .collect();
        for (hubble, names) in NEAREST {
            assert!(texts.contains(&(*hubble as i32)), "{names:?}");
            assert!(u8::try_from(*hubble as i32).is_ok(), "sub_type is read as a byte");
        }
    }

    #[test]
    fn nearest() {
        for (name, symbol, number) in [
            ("SKB_DROP_REASON_NETFILTER_DROP", "nf_hook_slow+0x9a", 133),
            ("NO_SOCKET", "", 178),
            ("IP_INNOROUTES", "", 169),
            ("PKT_TOO_BIG", "", 136),
            ("NEIGH_FAILED", "neigh_invalidate+0x1", 150),
            ("IP_RPFILTER", "", 132),
            ("IP_INHDR", "ip_forward+0x2c0", 196),
            ("IP_INHDR", "ip6_forward+0x10", 196),
            ("IP_INHDR", "ip_rcv_core+0x10", 134),
            ("IP_INHDR", "", 134),
            ("NOT_SPECIFIED", "ip_error+0x94", 169),
            ("NOT_SPECIFIED", "dst_discard_out+0x14", 169),
            ("NOT_SPECIFIED", "neigh_invalidate+0x7e", 150),
            ("NOT_SPECIFIED", "ip6_mc_input+0x15e", 134),
            ("A_REASON_OF_TOMORROW", "", 134),
        ] {
            assert_eq!(nearest_hubble_reason(name, symbol) as i32, number, "{name} at {symbol}");
        }
    }
}

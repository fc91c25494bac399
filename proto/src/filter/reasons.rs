//! The names that `--drop-reason-desc` takes: Hubble's, and the kernel's own, which Observer's flows carry beside them.
//!
//! A filter has numbers. The kernel's names are given numbers that Hubble has none of: a hash, since each kernel numbers its
//! reasons anew. An enum of protobuf takes any number, and no flow of Hubble's own servers has one of these: there nothing is
//! found by them, and nothing refused.

use super::{marks::hash, view::FlowView};
use crate::flow::DropReason;

/// Any reason of the kernel's: what was not dropped by policies.
const KERNEL: &str = "KERNEL";
/// Its number, above which those of the kernel's names are.
const ANY_OF_KERNEL: i32 = 0x4000_0000;
/// Of the kernel's names in its sources.
const PREFIX: &str = "SKB_DROP_REASON_";

/// All names: Hubble's, then the kernel's.
pub fn drop_reasons() -> impl Iterator<Item = &'static str> {
    let of_hubble = (0..=i32::from(u8::MAX)).filter_map(|number| DropReason::try_from(number).ok());
    of_hubble.map(|reason| reason.as_str_name()).chain([KERNEL]).chain(OF_KERNEL.iter().copied())
}

/// The number of a name in a filter; none of what is no reason. With its prefix a name is taken as it is, for kernels that
/// are newer than the names known here.
pub fn drop_reason_number(name: &str) -> Option<i32> {
    if let Some(reason) = DropReason::from_str_name(name) {
        return Some(reason as i32);
    }
    match name.strip_prefix(PREFIX) {
        _ if name == KERNEL => Some(ANY_OF_KERNEL),
        Some(short) if !short.is_empty() => Some(of_kernel(short)),
        _ => OF_KERNEL.contains(&name).then(|| of_kernel(name)),
    }
}

/// The number of a reason of the kernel's, without prefix.
fn of_kernel(name: &str) -> i32 {
    let below = (ANY_OF_KERNEL - 1).cast_unsigned();
    ANY_OF_KERNEL | (hash(name) & below).max(1).cast_signed()
}

/// Whether a drop has one of these.
pub(super) fn fit<F: FlowView>(numbers: &[i32], flow: &F) -> bool {
    if numbers.contains(&flow.drop_reason_desc()) {
        return true;
    }
    if numbers.iter().all(|number| *number < ANY_OF_KERNEL) {
        return false;
    }
    let reason = flow.kernel_drop_reason();
    !reason.is_empty() && (numbers.contains(&ANY_OF_KERNEL) || numbers.contains(&of_kernel(&reason)))
}

/// Of `enum skb_drop_reason` up to Linux 6.18 with those that older kernels had (from 5.17), and Open vSwitch's.
static OF_KERNEL: &[&str] = &[
    "ARP_PVLAN_DISABLE",
    "BPF_CGROUP_EGRESS",
    "BRIDGE_INGRESS_STP_STATE",
    "CAKE_FLOOD",
    "CANFD_RX_INVALID_FRAME",
    "CANXL_RX_INVALID_FRAME",
    "CAN_RX_INVALID_FRAME",
    "CPU_BACKLOG",
    "DEV_HDR",
    "DEV_READY",
    "DUALPI2_STEP_DROP",
    "DUP_FRAG",
    "FQ_BAND_LIMIT",
    "FQ_FLOW_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FRAG_REASM_TIMEOUT",
    "FRAG_TOO_FAR",
    "FULL_RING",
    "HDR_TRUNC",
    "ICMP_CSUM",
    "INVALID_PROTO",
    "IPV6DISABLED",
    "IPV6_BAD_EXTHDR",
    "IPV6_NDISC_BAD_CODE",
    "IPV6_NDISC_BAD_OPTIONS",
    "IPV6_NDISC_FRAG",
    "IPV6_NDISC_HOP_LIMIT",
    "IPV6_NDISC_NS_OTHERHOST",
    "IP_CSUM",
    "IP_INADDRERRORS",
    "IP_INHDR",
    "IP_INNOROUTES",
    "IP_INVALID_DEST",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_LOCAL_SOURCE",
    "IP_NOPROTO",
    "IP_OUTNOROUTES",
    "IP_RPFILTER",
    "IP_TUNNEL_ECN",
    "LOCAL_MAC",
    "MAC_IEEE_MAC_CONTROL",
    "MAC_INVALID_SOURCE",
    "NEIGH_CREATEFAIL",
    "NEIGH_DEAD",
    "NEIGH_FAILED",
    "NEIGH_HH_FILLFAIL",
    "NEIGH_QUEUEFULL",
    "NETFILTER_DROP",
    "NOMEM",
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "NO_TX_TARGET",
    "OTHERHOST",
    "OVS_DROP_CONNTRACK",
    "OVS_DROP_EXPLICIT",
    "OVS_DROP_EXPLICIT_WITH_ERROR",
    "OVS_DROP_FRAG_INVALID_PROTO",
    "OVS_DROP_FRAG_L2_TOO_LONG",
    "OVS_DROP_IP_TTL",
    "OVS_DROP_LAST_ACTION",
    "OVS_DROP_METER",
    "OVS_DROP_TUNNEL_TX_ERROR",
    "PACKET_SOCK_ERROR",
    "PFMEMALLOC",
    "PKT_TOO_BIG",
    "PKT_TOO_SMALL",
    "PROTO_MEM",
    "PSP_INPUT",
    "PSP_OUTPUT",
    "PTYPE_ABSENT",
    "QDISC_CONGESTED",
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QUEUE_PURGE",
    "RECURSION_LIMIT",
    "SECURITY_HOOK",
    "SKB_CSUM",
    "SKB_GSO_SEG",
    "SKB_UCOPY_FAULT",
    "SOCKET_BACKLOG",
    "SOCKET_CLOSE",
    "SOCKET_FILTER",
    "SOCKET_RCVBUFF",
    "TAP_FILTER",
    "TAP_TXFILTER",
    "TCP_ABORT_ON_DATA",
    "TCP_ACK_UNSENT_DATA",
    "TCP_AOFAILURE",
    "TCP_AOKEYNOTFOUND",
    "TCP_AONOTFOUND",
    "TCP_AOUNEXPECTED",
    "TCP_AUTH_HDR",
    "TCP_CLOSE",
    "TCP_CSUM",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_INVALID_END_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_INVALID_SYN",
    "TCP_LISTEN_OVERFLOW",
    "TCP_MD5FAILURE",
    "TCP_MD5NOTFOUND",
    "TCP_MD5UNEXPECTED",
    "TCP_MINTTL",
    "TCP_OFOMERGE",
    "TCP_OFO_DROP",
    "TCP_OFO_QUEUE_PRUNE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_OVERWINDOW",
    "TCP_RESET",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_PAWS_ACK",
    "TCP_RFC7323_TSECR",
    "TCP_RFC7323_TW_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ZEROWINDOW",
    "TC_CHAIN_NOTFOUND",
    "TC_COOKIE_ERROR",
    "TC_EGRESS",
    "TC_ERROR",
    "TC_INGRESS",
    "TC_RECLASSIFY_LOOP",
    "TUNNEL_TXINFO",
    "UDP_CSUM",
    "UNHANDLED_PROTO",
    "UNICAST_IN_L2_MULTICAST",
    "UNIX_DISCONNECT",
    "UNIX_SKIP_OOB",
    "VXLAN_ENTRY_EXISTS",
    "VXLAN_INVALID_HDR",
    "VXLAN_NO_REMOTE",
    "VXLAN_VNI_NOT_FOUND",
    "XDP",
    "XFRM_POLICY",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_name_has_a_number_of_its_own() {
        let numbers: HashSet<i32> = drop_reasons().filter_map(drop_reason_number).collect();
        assert_eq!(numbers.len(), drop_reasons().count());
        for name in drop_reasons() {
            let is_of_hubble = DropReason::from_str_name(name).is_some();
            assert_eq!(drop_reason_number(name) < Some(ANY_OF_KERNEL), is_of_hubble, "{name}");
        }
    }

    #[test]
    fn each_reason_of_this_kernel_has_one() {
        for name in include_str!("../../../testdata/kernel/drop-reasons-6.18.txt").lines() {
            // Limits of the enum, and what is no drop, have other prefixes or these words.
            let Some(short) = name.strip_prefix(PREFIX).filter(|name| !["MAX", "SUBSYS_MASK"].contains(name))
            else {
                continue;
            };
            assert_eq!(drop_reason_number(short), drop_reason_number(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_has_none() {
        for name in ["", "netfilter_drop", "SKB_DROP_REASON_", "kernel", "reason 7", "unknown on this kernel"]
        {
            assert_eq!(drop_reason_number(name), None, "{name}");
        }
        assert!(drop_reason_number("SKB_DROP_REASON_OF_TOMORROW") > Some(ANY_OF_KERNEL));
    }
}

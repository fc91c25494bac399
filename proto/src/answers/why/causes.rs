//! What a drop's reason means for who looks for the cause, and where to look next.

use crate::{
    Facts,
    answers::ends,
    flow::{DropReason, Flow},
    names,
};
use serde::Serialize;

/// The cause of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rule of nftables or iptables.
    Firewall,
    /// A network policy.
    Policy,
    /// A network policy, of what was asked in a connection that it allows.
    Request,
    /// An eBPF, tc or XDP program, or a security module.
    Program,
    /// No socket for it.
    NothingListens,
    /// No route.
    NoRoute,
    /// A route that discards.
    RouteDiscards,
    /// The TTL or hop limit ran out.
    TtlExceeded,
    /// Larger than the next link takes.
    TooBig,
    /// Nobody answers at link level.
    NoNeighbour,
    /// The source address may not come from there.
    SourceRefused,
    /// A queue or buffer had no room.
    Congestion,
    /// None of these; the reason stands beside it.
    Other,
}

/// By the kernel's name of the reason.
const BY_KERNEL_REASON: &[(Cause, &[&str])] = &[
    (
        Cause::Program,
        &[
            "TC_INGRESS",
            "TC_EGRESS",
            "XDP",
            "BPF_CGROUP_EGRESS",
            "SECURITY_HOOK",
            "SOCKET_FILTER",
            "TAP_FILTER",
        ],
    ),
    (Cause::NothingListens, &["NO_SOCKET"]),
    (Cause::NoRoute, &["IP_INNOROUTES", "IP_OUTNOROUTES"]),
    (Cause::TooBig, &["PKT_TOO_BIG"]),
    (Cause::NoNeighbour, &["NEIGH_CREATEFAIL", "NEIGH_FAILED", "NEIGH_DEAD", "NEIGH_QUEUEFULL"]),
    (Cause::SourceRefused, &["IP_RPFILTER", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET"]),
    (
        Cause::Congestion,
        &[
            "QDISC_DROP",
            "QDISC_OVERLIMIT",
            "QDISC_CONGESTED",
            "CAKE_FLOOD",
            "FQ_BAND_LIMIT",
            "FQ_FLOW_LIMIT",
            "SOCKET_RCVBUFF",
            "SOCKET_BACKLOG",
            "SOCKET_RCVQ_FULL",
            "TCP_LISTEN_OVERFLOW",
            "CPU_BACKLOG",
            "FULL_RING",
            "PROTO_MEM",
            "NOMEM",
        ],
    ),
];

/// By where it was dropped, where the kernel gives no reason or tells none; the beginning of the function's name.
const BY_FUNCTION: &[(Cause, &[&str])] = &[
    (Cause::RouteDiscards, &["ip_error", "dst_discard"]),
    (Cause::NoNeighbour, &["neigh_invalidate", "ndisc_error_report", "arp_error_report"]),
];

/// By Hubble's reason, which every server tells.
const BY_HUBBLE_REASON: &[(Cause, &[DropReason])] = &[
    (Cause::Policy, &[DropReason::PolicyDenied, DropReason::PolicyDeny, DropReason::AuthRequired]),
    (Cause::NothingListens, &[DropReason::SocketLookupFailed]),
    (Cause::NoRoute, &[DropReason::FibLookupFailed]),
    (Cause::TtlExceeded, &[DropReason::TtlExceeded]),
    (Cause::NoNeighbour, &[DropReason::UnknownL3TargetAddress]),
    (Cause::SourceRefused, &[DropReason::InvalidSourceIp]),
];

/// "Fragmentation needed": the name of this number is a leftover.
const FRAGMENTATION_NEEDED: i32 = 136;

impl Cause {
    pub(super) fn of(flow: &Flow, facts: &Facts) -> Self {
        if ends::is_l7(flow) {
            return Self::Request;
        }
        if facts.is_by_firewall() {
            return Self::Firewall;
        }
        let kernel_reason = facts.kernel_reason.as_str();
        let by_reason = BY_KERNEL_REASON.iter().find(|(_, reasons)| reasons.contains(&kernel_reason));
        let by_function = || {
            let starts = |names: &&[&str]| names.iter().any(|name| facts.kernel_location.starts_with(name));
            BY_FUNCTION.iter().find(|(_, names)| facts.is_place_alone() && starts(names))
        };
        if let Some((cause, _)) = by_reason.or_else(by_function) {
            return *cause;
        }
        if flow.drop_reason_desc == FRAGMENTATION_NEEDED {
            return Self::TooBig;
        }
        let hubble = flow.drop_reason_desc();
        let by_hubble = BY_HUBBLE_REASON.iter().find(|(_, reasons)| reasons.contains(&hubble));
        match by_hubble {
            // Hubble's word nearest to the kernel's; of what policies drop the kernel gives no reason.
            Some((Self::Policy, _)) if !kernel_reason.is_empty() => Self::Other,
            Some((cause, _)) => *cause,
            None => Self::Other,
        }
    }
}

/// What a sentence about a cause needs to know.
pub(super) struct Place<'a> {
    /// `n1`, or empty.
    pub(super) node: &'a str,
    /// The destination as it is shown.
    pub(super) to: &'a str,
    pub(super) address: &'a str,
    /// `9000/TCP`.
    pub(super) port: &'a str,
    /// The kernel's reason, else Hubble's.
    pub(super) reason: &'a str,
    /// Whether the client was told by a reset.
    pub(super) is_told: bool,
    pub(super) policies: &'a str,
}

impl Cause {
    /// What happens, as the end of "A can't reach B: ".
    pub(super) fn sentence(self, place: &Place<'_>) -> String {
        let Place { to, address, port, reason, .. } = place;
        let node = if place.node.is_empty() { "a node".to_owned() } else { format!("node {}", place.node) };
        match self {
            Self::Firewall if place.is_told => {
                format!(
                    "a firewall rule (nftables or iptables) on {node} rejects it; the client gets a reset"
                )
            }
            Self::Firewall => format!("a firewall rule (nftables or iptables) on {node} drops it"),
            Self::Policy if place.policies.is_empty() => {
                "a network policy denies it; the flow names none".to_owned()
            }
            Self::Policy => format!("a network policy denies it: {}", place.policies),
            Self::Request if place.policies.is_empty() => {
                "a network policy refuses requests; the flow names none".to_owned()
            }
            Self::Request => format!("a network policy refuses requests: {}", place.policies),
            Self::Program => format!("an eBPF program, tc filter or security module on {node} drops it"),
            Self::NothingListens => format!("nothing listens on {port} of {to}"),
            Self::NoRoute => format!("{node} has no route to {address}"),
            Self::RouteDiscards => {
                format!(
                    "a route on {node} discards what is for {address} (blackhole, prohibit or unreachable)"
                )
            }
            Self::TtlExceeded => {
                format!("the packet's TTL runs out on {node}: a routing loop, or a sender that sets it low")
            }
            Self::TooBig => {
                format!("the packet is larger than the next link of {node} takes (MTU), and may not be split")
            }
            Self::NoNeighbour => {
                format!(
                    "{node} finds nobody with {address} on the link (ARP, neighbour discovery): the host is down or the address unused"
                )
            }
            Self::SourceRefused => format!(
                "{node} takes no packet with this source address from that link (reverse path filter)"
            ),
            Self::Congestion => "a queue or buffer was full".to_owned(),
            Self::Other => format!("it is dropped: {reason}"),
        }
    }

    /// A command, or a place to look at.
    pub(super) fn advice(self, place: &Place<'_>) -> String {
        let Place { to, address, port, .. } = place;
        let node = if place.node.is_empty() { "the node".to_owned() } else { place.node.to_owned() };
        let sockets = if port.ends_with("UDP") { "ss -lun" } else { "ss -ltn" };
        match self {
            Self::Firewall => {
                format!("on {node}: nft list ruleset; iptables-save; look for {port} and {address}")
            }
            Self::Policy if place.policies.is_empty() => {
                format!("look at the policies that select {to}, and at those that select the client")
            }
            Self::Policy => show(place.policies),
            Self::Request => format!("observe --verdict DROPPED -t l7 --to-ip {address}"),
            Self::Program => format!("on {node}: bpftool net; tc filter show dev LINK ingress"),
            Self::NothingListens => {
                format!("in {to}: {sockets}; is the server up, on this port and address?")
            }
            Self::NoRoute => format!("on {node}: ip route get {address}"),
            // Of a blackhole `ip route get` says "Invalid argument" only.
            Self::RouteDiscards => {
                let family = if address.contains(':') { " -6" } else { "" };
                format!("on {node}: ip{family} route show match {address}")
            }
            Self::TtlExceeded => format!("from the client: traceroute {address}"),
            Self::TooBig => format!("on {node}: ip route get {address}; ip link; compare MTUs"),
            Self::NoNeighbour => format!("on {node}: ip neigh show {address}"),
            Self::SourceRefused => {
                format!("on {node}: sysctl net.ipv4.conf.all.rp_filter; ip route get the client's address")
            }
            Self::Congestion | Self::Other => format!("observe -f --verdict DROPPED --to-ip {address}"),
        }
    }
}

/// A command for each policy, since it takes one.
pub(super) fn show(policies: &str) -> String {
    let shown = policies.split(' ').map(|name| format!("observe policy show {name}"));
    shown.collect::<Vec<_>>().join("; ")
}

/// The kernel's reason, else Hubble's words.
pub(super) fn reason(flow: &Flow, kernel_reason: &str) -> String {
    if !kernel_reason.is_empty() {
        return kernel_reason.to_owned();
    }
    if let Some(refused) = ends::refused(flow) {
        return refused.to_owned();
    }
    // Of a verdict it says what of a policy matched.
    let sub_type =
        flow.event_type.filter(|event| event.r#type == names::EVENT_DROP).map(|event| event.sub_type);
    let number = sub_type.unwrap_or(flow.drop_reason_desc);
    names::drop_reason_text(number).map_or_else(|| format!("reason {number}"), str::to_owned)
}

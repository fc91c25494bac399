//! One field of a filter, compiled.

use super::{
    address::Addresses,
    compile::InvalidFilter,
    go,
    http::Http,
    labels::Selector,
    names::NamespacedName,
    patterns::{Glob, NodePattern},
    reasons,
    view::{FlowView, L4, L7, Side},
};
use crate::flow::{EventTypeFilter, NetworkInterface, Verdict};
use regex::Regex;

#[derive(Clone, Debug)]
pub(super) enum Condition {
    Verdict(Vec<i32>),
    EventType(Vec<EventTypeFilter>),
    Reply(Vec<bool>),
    Protocol(Vec<Protocol>),
    Direction(Vec<i32>),
    IpVersion(Vec<i32>),
    DropReason(Vec<i32>),
    TcpFlags(Vec<u16>),
    Encrypted(Vec<bool>),
    Uuid(Vec<String>),
    TraceId(Vec<String>),
    IpTraceId(Vec<u64>),
    Interface(Vec<NetworkInterface>),
    XlatedIp(Addresses),
    NodeName(Vec<NodePattern>),
    NodeLabels(Vec<Selector>),
    DnsQuery(Vec<Regex>),
    Port(Side, Vec<u16>),
    Ip(Side, Addresses),
    /// The number of the question in [`EndpointTests`].
    Endpoint(Side, usize),
    Service(Side, Vec<NamespacedName>),
    Fqdn(Side, Vec<Glob>),
    Http(Http),
}

impl Condition {
    /// What is asked first: one look at a number, then at an end, then at text.
    pub(super) fn cost(&self) -> u8 {
        match self {
            Self::Verdict(_)
            | Self::EventType(_)
            | Self::Reply(_)
            | Self::Protocol(_)
            | Self::Direction(_)
            | Self::IpVersion(_)
            | Self::DropReason(_)
            | Self::TcpFlags(_)
            | Self::Encrypted(_)
            | Self::IpTraceId(_)
            | Self::Port(..) => 0,
            Self::Ip(..) | Self::XlatedIp(_) | Self::Endpoint(..) => 1,
            _ => 2,
        }
    }

    /// `endpoint` answers the questions about an end.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a walk through all flows asks little else: a call takes longer than both"
    )]
    pub(super) fn matches<F: FlowView>(
        &self,
        flow: &F,
        endpoint: &mut impl FnMut(Side, usize) -> bool,
    ) -> bool {
        match self {
            Self::Endpoint(side, test) => endpoint(*side, *test),
            Self::Ip(side, addresses) => addresses.matches(flow.ip(*side)),
            Self::Verdict(list) => list.contains(&flow.verdict()),
            Self::Protocol(list) => list.iter().any(|p| p.matches(flow)),
            Self::Port(side, list) => flow.port(*side).is_some_and(|p| list.contains(&p)),
            _ => self.matches_other(flow),
        }
    }

    #[inline(never)]
    fn matches_other<F: FlowView>(&self, flow: &F) -> bool {
        match self {
            Self::EventType(list) => flow.event_type().is_some_and(|(kind, sub)| {
                list.iter()
                    .any(|f| (f.r#type == 0 || f.r#type == kind) && (!f.match_sub_type || f.sub_type == sub))
            }),
            // Hubble: a drop of unknown direction counts as "no reply", anything else unknown as neither.
            Self::Reply(list) => match flow.is_reply() {
                Some(reply) => list.contains(&reply),
                None => flow.verdict() == Verdict::Dropped as i32 && list.contains(&false),
            },
            Self::Direction(list) => list.contains(&flow.traffic_direction()),
            Self::IpVersion(list) => list.contains(&flow.ip_version()),
            Self::DropReason(list) => flow.verdict() == Verdict::Dropped as i32 && reasons::fit(list, flow),
            Self::TcpFlags(list) => {
                flow.tcp_flags().is_some_and(|flags| list.iter().any(|f| flags & f == *f))
            }
            Self::Encrypted(list) => list.contains(&flow.encrypted()),
            Self::Uuid(list) => {
                let uuid = flow.uuid();
                list.iter().any(|u| *u == uuid)
            }
            Self::TraceId(list) => list.iter().any(|id| id == flow.trace_id().unwrap_or_default()),
            Self::IpTraceId(list) => list.contains(&flow.ip_trace_id()),
            Self::Interface(list) => flow.interface().is_some_and(|(index, name)| {
                list.iter()
                    .any(|f| (f.index == 0 || f.index == index) && (f.name.is_empty() || f.name == name))
            }),
            Self::XlatedIp(addresses) => addresses.matches(flow.source_ip_xlated()),
            Self::NodeName(list) => match flow.node_name() {
                "" => false,
                name => list.iter().any(|pattern| pattern.matches(name)),
            },
            Self::NodeLabels(list) => list.iter().any(|s| s.matches(|| flow.node_labels())),
            Self::DnsQuery(list) => flow.dns_query().is_some_and(|q| list.iter().any(|r| r.is_match(q))),
            // See above.
            Self::Endpoint(..) | Self::Ip(..) | Self::Verdict(_) | Self::Protocol(_) | Self::Port(..) => {
                false
            }
            Self::Service(side, list) => flow
                .service(*side)
                .is_some_and(|(namespace, name)| NamespacedName::any(list, namespace, name)),
            Self::Fqdn(side, list) => {
                flow.names(*side).any(|name| list.iter().any(|glob| glob.matches(name)))
            }
            Self::Http(condition) => flow.http().is_some_and(|http| condition.matches(http)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Transport(L4),
    AnyIcmp,
    Application(L7),
}

impl Protocol {
    pub(super) fn compile(name: &str) -> Result<Self, InvalidFilter> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "icmp" => Self::AnyIcmp,
            "icmpv4" => Self::Transport(L4::IcmpV4),
            "icmpv6" => Self::Transport(L4::IcmpV6),
            "tcp" => Self::Transport(L4::Tcp),
            "udp" => Self::Transport(L4::Udp),
            "sctp" => Self::Transport(L4::Sctp),
            "vrrp" => Self::Transport(L4::Vrrp),
            "igmp" => Self::Transport(L4::Igmp),
            "dns" => Self::Application(L7::Dns),
            "http" => Self::Application(L7::Http),
            "kafka" => Self::Application(L7::Kafka),
            "tls" => Self::Application(L7::Tls),
            _ => {
                return Err(InvalidFilter::new(format!(
                    "invalid protocol filter: unknown protocol: {}",
                    go::quote(name)
                )));
            }
        })
    }

    fn matches<F: FlowView>(self, flow: &F) -> bool {
        match self {
            Self::Transport(l4) => flow.l4() == Some(l4),
            Self::AnyIcmp => matches!(flow.l4(), Some(L4::IcmpV4 | L4::IcmpV6)),
            Self::Application(l7) => flow.l7() == Some(l7),
        }
    }
}

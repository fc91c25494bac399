//! Checks filter messages once and makes of them what cannot fail any more.

use super::{
    address::Addresses,
    endpoint::{EndpointTest, EndpointTests, Memo},
    flag_values::tcp_flag_bits,
    go,
    http::{Http, Status, check_event_types},
    labels::Selector,
    names::NamespacedName,
    patterns,
    view::{FlowView, L4, L7, Side},
};
use crate::flow::{EventTypeFilter, FlowFilter, NetworkInterface, Verdict};
use prost::Message as _;
use regex::Regex;

/// The most filters in one list.
pub const LIMIT_FILTERS: usize = 128;
/// The most bytes of one filter, as encoded.
pub const LIMIT_BYTES: usize = 64 * 1024;
/// The most regular expressions in one field.
pub const LIMIT_EXPRESSIONS: usize = 32;

/// A filter that can't be used. Displays as Hubble's own text, where Hubble refuses it too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct InvalidFilter {
    text: String,
    is_limit: bool,
}

impl InvalidFilter {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_limit: false }
    }

    fn limit(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_limit: true }
    }

    /// Whether it is refused by a limit or a gap of ours (gRPC `INVALID_ARGUMENT`); else Hubble refuses it with the same
    /// text (gRPC `UNKNOWN`, which its command line prints bare).
    pub fn is_limit(&self) -> bool {
        self.is_limit
    }
}

/// Compiled white- and blacklist.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    whitelist: Vec<Filter>,
    blacklist: Vec<Filter>,
    endpoint_tests: EndpointTests,
}

impl Filters {
    /// Checks and compiles both lists.
    pub fn compile(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, InvalidFilter> {
        let mut endpoint_tests = EndpointTests::default();
        let mut list = |name: &str, filters: &[FlowFilter]| {
            if filters.len() > LIMIT_FILTERS {
                return Err(InvalidFilter::limit(format!(
                    "{name}: {} filters are more than the limit of {LIMIT_FILTERS}",
                    filters.len()
                )));
            }
            filters.iter().map(|f| Filter::compile(name, f, &mut endpoint_tests)).collect()
        };
        let (whitelist, blacklist) = (list("whitelist", whitelist)?, list("blacklist", blacklist)?);
        Ok(Self { whitelist, blacklist, endpoint_tests })
    }

    /// Whether every flow passes.
    pub fn pass_all(&self) -> bool {
        self.whitelist.is_empty() && self.blacklist.is_empty()
    }

    /// Any of the whitelist, or it is empty; and none of the blacklist.
    pub fn matches<F: FlowView>(&self, flow: &F) -> bool {
        self.decide(flow, &mut |side, test| self.endpoint_tests.ask(test, flow.endpoint(side)))
    }

    /// For many flows with few endpoints.
    pub fn matcher(self) -> Matcher {
        Matcher { filters: self, memo: Memo::default() }
    }

    #[inline]
    fn decide<F: FlowView>(&self, flow: &F, endpoint: &mut impl FnMut(Side, usize) -> bool) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|f| f.matches(flow, endpoint)))
            && !self.blacklist.iter().any(|f| f.matches(flow, endpoint))
    }
}

/// [`Filters`] that remember what they found out about an endpoint, where it has a number (`EndpointView::serial`).
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    filters: Filters,
    memo: Memo,
}

impl Matcher {
    /// As [`Filters::matches`].
    #[inline]
    pub fn matches<F: FlowView>(&mut self, flow: &F) -> bool {
        let Self { filters, memo } = self;
        filters.decide(flow, &mut |side, test| memo.ask(&filters.endpoint_tests, test, flow.endpoint(side)))
    }
}

/// All conditions hold. Cheap ones stand first.
#[derive(Clone, Debug)]
struct Filter(Vec<Condition>);

impl Filter {
    #[inline]
    fn matches<F: FlowView>(&self, flow: &F, endpoint: &mut impl FnMut(Side, usize) -> bool) -> bool {
        self.0.iter().all(|condition| condition.matches(flow, endpoint))
    }

    fn compile(list: &str, filter: &FlowFilter, tests: &mut EndpointTests) -> Result<Self, InvalidFilter> {
        let bytes = filter.encoded_len();
        if bytes > LIMIT_BYTES {
            return Err(InvalidFilter::limit(format!(
                "{list}: a filter of {bytes} bytes is more than the limit of {LIMIT_BYTES}"
            )));
        }
        if filter.experimental.as_ref().is_some_and(|e| !e.cel_expression.is_empty()) {
            return Err(InvalidFilter::limit(
                "experimental.cel_expression: CEL filters are not supported; use the other filter fields",
            ));
        }
        let mut conditions = Vec::new();
        plain_fields(filter, &mut conditions)?;
        for side in [Side::Source, Side::Destination] {
            side_fields(filter, side, tests, &mut conditions)?;
        }
        http_fields(filter, &mut conditions)?;
        Ok(Self(conditions))
    }
}

/// Pushes a condition if the field is set at all.
fn push<T>(
    field: &[T],
    conditions: &mut Vec<Condition>,
    make: impl FnOnce(&[T]) -> Result<Condition, InvalidFilter>,
) -> Result<(), InvalidFilter> {
    if !field.is_empty() {
        conditions.push(make(field)?);
    }
    Ok(())
}

fn plain_fields(f: &FlowFilter, out: &mut Vec<Condition>) -> Result<(), InvalidFilter> {
    push(&f.verdict, out, |v| Ok(Condition::Verdict(v.to_vec())))?;
    push(&f.event_type, out, |v| Ok(Condition::EventType(v.to_vec())))?;
    push(&f.reply, out, |v| Ok(Condition::Reply(v.to_vec())))?;
    push(&f.protocol, out, |v| {
        Ok(Condition::Protocol(v.iter().map(|p| Protocol::compile(p)).collect::<Result<_, _>>()?))
    })?;
    push(&f.traffic_direction, out, |v| Ok(Condition::Direction(v.to_vec())))?;
    push(&f.ip_version, out, |v| Ok(Condition::IpVersion(v.to_vec())))?;
    push(&f.drop_reason_desc, out, |v| Ok(Condition::DropReason(v.to_vec())))?;
    push(&f.tcp_flags, out, |v| Ok(Condition::TcpFlags(v.iter().map(tcp_flag_bits).collect())))?;
    push(&f.encrypted, out, |v| Ok(Condition::Encrypted(v.to_vec())))?;
    push(&f.uuid, out, |v| Ok(Condition::Uuid(v.to_vec())))?;
    push(&f.trace_id, out, |v| Ok(Condition::TraceId(v.to_vec())))?;
    push(&f.ip_trace_id, out, |v| Ok(Condition::IpTraceId(v.to_vec())))?;
    push(&f.interface, out, |v| Ok(Condition::Interface(v.to_vec())))?;
    push(&f.source_ip_xlated, out, |v| Ok(Condition::XlatedIp(Addresses::compile(v)?)))?;
    push(&f.node_name, out, |v| Ok(Condition::NodeName(patterns::node_name(v)?)))?;
    push(&f.node_labels, out, |v| Ok(Condition::NodeLabels(Selector::compile(v, "node label")?)))?;
    push(&f.dns_query, out, |v| {
        check_expressions("dns_query", v)?;
        let queries = v.iter().map(|q| patterns::expression("DNS query", q)).collect::<Result<_, _>>()?;
        Ok(Condition::DnsQuery(queries))
    })
}

fn side_fields(
    f: &FlowFilter,
    side: Side,
    tests: &mut EndpointTests,
    out: &mut Vec<Condition>,
) -> Result<(), InvalidFilter> {
    let mut endpoint = |test| Condition::Endpoint(side, tests.add(test));
    let source = side == Side::Source;
    let name = if source { "source" } else { "destination" };
    macro_rules! field {
        ($source:ident, $destination:ident) => {
            if source { &f.$source } else { &f.$destination }
        };
    }
    push(field!(source_port, destination_port), out, |v| {
        let ports = v.iter().map(|p| match go::parse_uint(p, 16) {
            Ok(port) => Ok(port as u16),
            Err(why) => Err(InvalidFilter::new(format!(
                "invalid {name} port filter: invalid port {}: {why}",
                go::quote(p)
            ))),
        });
        Ok(Condition::Port(side, ports.collect::<Result<_, _>>()?))
    })?;
    push(field!(source_ip, destination_ip), out, |v| Ok(Condition::Ip(side, Addresses::compile(v)?)))?;
    push(field!(source_identity, destination_identity), out, |v| {
        Ok(endpoint(EndpointTest::Identity(v.to_vec())))
    })?;
    push(field!(source_pod, destination_pod), out, |v| {
        Ok(endpoint(EndpointTest::Pod(NamespacedName::compile(v)?)))
    })?;
    push(field!(source_service, destination_service), out, |v| {
        let names = NamespacedName::compile(v)
            .map_err(|e| InvalidFilter::new(format!("invalid {name} service filter: {e}")))?;
        Ok(Condition::Service(side, names))
    })?;
    push(field!(source_workload, destination_workload), out, |v| {
        Ok(endpoint(EndpointTest::Workload(v.to_vec())))
    })?;
    push(field!(source_cluster_name, destination_cluster_name), out, |v| {
        if v.iter().any(String::is_empty) {
            return Err(InvalidFilter::new(format!("invalid {name} cluster filter: name must not be empty")));
        }
        Ok(endpoint(EndpointTest::Cluster(v.to_vec())))
    })?;
    push(field!(source_label, destination_label), out, |v| {
        Ok(endpoint(EndpointTest::Labels(Selector::compile(v, &format!("{name} label"))?)))
    })?;
    push(field!(source_fqdn, destination_fqdn), out, |v| {
        Ok(Condition::Fqdn(side, patterns::fqdn(v, &format!("{name} FQDN"))?))
    })
}

fn http_fields(f: &FlowFilter, out: &mut Vec<Condition>) -> Result<(), InvalidFilter> {
    push(&f.http_status_code, out, |v| {
        check_event_types(&f.event_type, "status code")?;
        Ok(Condition::Http(Http::Status(v.iter().map(|s| Status::compile(s)).collect::<Result<_, _>>()?)))
    })?;
    push(&f.http_method, out, |v| {
        check_event_types(&f.event_type, "method")?;
        Ok(Condition::Http(Http::Method(v.to_vec())))
    })?;
    push(&f.http_path, out, |v| {
        check_event_types(&f.event_type, "path")?;
        check_expressions("http_path", v)?;
        Ok(Condition::Http(Http::Path(Http::expressions("http path", v)?)))
    })?;
    push(&f.http_url, out, |v| {
        check_event_types(&f.event_type, "url")?;
        check_expressions("http_url", v)?;
        Ok(Condition::Http(Http::Url(Http::expressions("http url", v)?)))
    })?;
    push(&f.http_header, out, |v| {
        check_event_types(&f.event_type, "header")?;
        Ok(Condition::Http(Http::Header(v.to_vec())))
    })
}

fn check_expressions(field: &str, values: &[String]) -> Result<(), InvalidFilter> {
    if values.len() > LIMIT_EXPRESSIONS {
        return Err(InvalidFilter::limit(format!(
            "{field}: {} expressions are more than the limit of {LIMIT_EXPRESSIONS}",
            values.len()
        )));
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Condition {
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
    NodeName(Regex),
    NodeLabels(Vec<Selector>),
    DnsQuery(Vec<Regex>),
    Port(Side, Vec<u16>),
    Ip(Side, Addresses),
    /// The number of the question in [`EndpointTests`].
    Endpoint(Side, usize),
    Service(Side, Vec<NamespacedName>),
    Fqdn(Side, Regex),
    Http(Http),
}

impl Condition {
    /// `endpoint` answers the questions about an end.
    #[inline]
    fn matches<F: FlowView>(&self, flow: &F, endpoint: &mut impl FnMut(Side, usize) -> bool) -> bool {
        match self {
            Self::Verdict(list) => list.contains(&flow.verdict()),
            Self::EventType(list) => {
                let (kind, sub) = flow.event_type();
                list.iter()
                    .any(|f| (f.r#type == 0 || f.r#type == kind) && (!f.match_sub_type || f.sub_type == sub))
            }
            // Hubble: a drop of unknown direction counts as "no reply", anything else unknown as neither.
            Self::Reply(list) => match flow.is_reply() {
                Some(reply) => list.contains(&reply),
                None => flow.verdict() == Verdict::Dropped as i32 && list.contains(&false),
            },
            Self::Protocol(list) => list.iter().any(|p| p.matches(flow)),
            Self::Direction(list) => list.contains(&flow.traffic_direction()),
            Self::IpVersion(list) => list.contains(&flow.ip_version()),
            Self::DropReason(list) => {
                flow.verdict() == Verdict::Dropped as i32 && list.contains(&flow.drop_reason_desc())
            }
            Self::TcpFlags(list) => {
                flow.tcp_flags().is_some_and(|flags| list.iter().any(|f| flags & f == *f))
            }
            Self::Encrypted(list) => flow.encrypted().is_some_and(|e| list.contains(&e)),
            Self::Uuid(list) => {
                let uuid = flow.uuid();
                list.iter().any(|u| *u == uuid)
            }
            Self::TraceId(list) => flow.trace_id().is_some_and(|id| list.iter().any(|t| t == id)),
            Self::IpTraceId(list) => list.contains(&flow.ip_trace_id()),
            Self::Interface(list) => flow.interface().is_some_and(|(index, name)| {
                list.iter()
                    .any(|f| (f.index == 0 || f.index == index) && (f.name.is_empty() || f.name == name))
            }),
            Self::XlatedIp(addresses) => addresses.matches(flow.source_ip_xlated()),
            Self::NodeName(pattern) => match flow.node_name() {
                "" => false,
                name if name.contains('/') => pattern.is_match(name),
                name => pattern.is_match(&format!("default/{name}")),
            },
            Self::NodeLabels(list) => list.iter().any(|s| s.matches(|| flow.node_labels())),
            Self::DnsQuery(list) => flow.dns_query().is_some_and(|q| list.iter().any(|r| r.is_match(q))),
            Self::Port(side, list) => flow.port(*side).is_some_and(|p| list.contains(&p)),
            Self::Ip(side, addresses) => addresses.matches(flow.ip(*side)),
            Self::Endpoint(side, test) => endpoint(*side, *test),
            Self::Service(side, list) => flow
                .service(*side)
                .is_some_and(|(namespace, name)| NamespacedName::any(list, namespace, name)),
            Self::Fqdn(side, pattern) => flow.names(*side).any(|n| pattern.is_match(n)),
            Self::Http(condition) => flow.http().is_some_and(|http| condition.matches(http)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Transport(L4),
    AnyIcmp,
    Application(L7),
}

impl Protocol {
    fn compile(name: &str) -> Result<Self, InvalidFilter> {
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

//! Checks filter messages once and makes of them what cannot fail any more.

use super::{
    address::Addresses,
    condition::{Condition, Protocol},
    endpoint::{EndpointTest, EndpointTests},
    expression::{self, Refused},
    flag_values::tcp_flag_bits,
    go,
    http::{Http, Status, check_event_types},
    labels::Selector,
    names::NamespacedName,
    patterns::{self, NodePattern},
    view::{FlowView, Side},
};
use crate::flow::FlowFilter;
use prost::Message as _;
use regex::Regex;

/// The most filters in one list.
pub const LIMIT_FILTERS: usize = 128;
/// The most bytes of one filter, as encoded.
pub const LIMIT_BYTES: usize = 64 * 1024;
/// The most regular expressions in both lists together.
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
    pub(super) whitelist: Vec<Filter>,
    pub(super) blacklist: Vec<Filter>,
    pub(super) endpoint_tests: EndpointTests,
}

impl Filters {
    /// Checks and compiles both lists.
    pub fn compile(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, InvalidFilter> {
        let mut compiler = Compiler::default();
        let mut list = |name: &str, filters: &[FlowFilter]| {
            if filters.len() > LIMIT_FILTERS {
                return Err(InvalidFilter::limit(format!(
                    "{name}: {} filters are more than the limit of {LIMIT_FILTERS}",
                    filters.len()
                )));
            }
            filters.iter().map(|filter| compiler.filter(name, filter)).collect()
        };
        let (whitelist, blacklist) = (list("whitelist", whitelist)?, list("blacklist", blacklist)?);
        Ok(Self { whitelist, blacklist, endpoint_tests: compiler.tests })
    }

    /// Whether every flow passes.
    pub fn pass_all(&self) -> bool {
        self.whitelist.is_empty() && self.blacklist.is_empty()
    }

    /// Any of the whitelist, or it is empty; and none of the blacklist.
    pub fn matches<F: FlowView>(&self, flow: &F) -> bool {
        self.decide(flow, &mut |side, test| self.endpoint_tests.ask(test, flow.endpoint(side)))
    }

    #[inline]
    pub(super) fn decide<F: FlowView>(
        &self,
        flow: &F,
        endpoint: &mut impl FnMut(Side, usize) -> bool,
    ) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|f| f.matches(flow, endpoint)))
            && !self.blacklist.iter().any(|f| f.matches(flow, endpoint))
    }
}

/// All conditions hold. Cheap ones stand first.
#[derive(Clone, Debug)]
pub(super) struct Filter(pub(super) Vec<Condition>);

impl Filter {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see Condition::matches")]
    fn matches<F: FlowView>(&self, flow: &F, endpoint: &mut impl FnMut(Side, usize) -> bool) -> bool {
        self.0.iter().all(|condition| condition.matches(flow, endpoint))
    }
}

/// Compiles the filters of a request.
#[derive(Default)]
struct Compiler {
    tests: EndpointTests,
    /// Regular expressions so far.
    expressions: usize,
    conditions: Vec<Condition>,
}

type Checked<T> = Result<T, InvalidFilter>;

impl Compiler {
    fn filter(&mut self, list: &str, filter: &FlowFilter) -> Checked<Filter> {
        let bytes = filter.encoded_len();
        if bytes > LIMIT_BYTES {
            return Err(InvalidFilter::limit(format!(
                "{list}: a filter of {bytes} bytes is more than the limit of {LIMIT_BYTES}"
            )));
        }
        self.fields(filter)?;
        let mut conditions = std::mem::take(&mut self.conditions);
        conditions.sort_by_key(Condition::cost);
        Ok(Filter(conditions))
    }

    /// In Hubble's order: of several faults it tells the first.
    fn fields(&mut self, f: &FlowFilter) -> Checked<()> {
        use Side::{Destination, Source};
        self.add(&f.uuid, |_, v| Ok(Condition::Uuid(v.to_vec())))?;
        self.add(&f.event_type, |_, v| Ok(Condition::EventType(v.to_vec())))?;
        self.add(&f.verdict, |_, v| Ok(Condition::Verdict(v.to_vec())))?;
        self.add(&f.drop_reason_desc, |_, v| Ok(Condition::DropReason(v.to_vec())))?;
        self.add(&f.reply, |_, v| Ok(Condition::Reply(v.to_vec())))?;
        self.add(&f.encrypted, |_, v| Ok(Condition::Encrypted(v.to_vec())))?;
        for (side, list) in [(Source, &f.source_identity), (Destination, &f.destination_identity)] {
            self.add(list, |c, v| Ok(c.endpoint(side, EndpointTest::Identity(v.to_vec()))))?;
        }
        self.add(&f.protocol, |_, v| {
            Ok(Condition::Protocol(v.iter().map(|p| Protocol::compile(p)).collect::<Checked<_>>()?))
        })?;
        for (side, list) in [(Source, &f.source_ip), (Destination, &f.destination_ip)] {
            self.add(list, |_, v| Ok(Condition::Ip(side, Addresses::compile(v)?)))?;
        }
        self.add(&f.source_ip_xlated, |_, v| Ok(Condition::XlatedIp(Addresses::compile(v)?)))?;
        for (side, list) in [(Source, &f.source_pod), (Destination, &f.destination_pod)] {
            self.add(list, |c, v| Ok(c.endpoint(side, EndpointTest::Pod(NamespacedName::compile(v)?))))?;
        }
        for (side, list) in [(Source, &f.source_workload), (Destination, &f.destination_workload)] {
            self.add(list, |c, v| Ok(c.endpoint(side, EndpointTest::Workload(v.to_vec()))))?;
        }
        for (side, list) in [(Source, &f.source_service), (Destination, &f.destination_service)] {
            self.add(list, |_, v| {
                let names = NamespacedName::compile(v).map_err(|e| {
                    InvalidFilter::new(format!("invalid {} service filter: {e}", side.name()))
                })?;
                Ok(Condition::Service(side, names))
            })?;
        }
        for (side, list) in [(Source, &f.source_fqdn), (Destination, &f.destination_fqdn)] {
            self.add(list, |_, v| Ok(Condition::Fqdn(side, patterns::fqdn(v)?)))?;
        }
        self.add(&f.dns_query, |c, v| {
            let what = |_: &str| "invalid DNS query filter: failed to compile regexp: ".to_owned();
            Ok(Condition::DnsQuery(c.expressions("dns_query", v, what)?))
        })?;
        for (side, list) in [(Source, &f.source_label), (Destination, &f.destination_label)] {
            self.add(list, |c, v| {
                let selectors = Selector::compile(v, &format!("{} label", side.name()))?;
                Ok(c.endpoint(side, EndpointTest::Labels(selectors)))
            })?;
        }
        self.add(&f.node_labels, |_, v| Ok(Condition::NodeLabels(Selector::compile(v, "node label")?)))?;
        for (side, list) in [(Source, &f.source_port), (Destination, &f.destination_port)] {
            self.add(list, |_, v| Ok(Condition::Port(side, ports(side, v)?)))?;
        }
        self.http_fields(f)?;
        self.add(&f.tcp_flags, |_, v| Ok(Condition::TcpFlags(v.iter().map(tcp_flag_bits).collect())))?;
        self.add(&f.node_name, |_, v| {
            let patterns = v.iter().map(|name| NodePattern::compile(name));
            Ok(Condition::NodeName(patterns.collect::<Checked<_>>()?))
        })?;
        for (side, list) in [(Source, &f.source_cluster_name), (Destination, &f.destination_cluster_name)] {
            self.add(list, |c, v| {
                if v.iter().any(String::is_empty) {
                    return Err(InvalidFilter::new("invalid filter, name must not be empty"));
                }
                Ok(c.endpoint(side, EndpointTest::Cluster(v.to_vec())))
            })?;
        }
        self.add(&f.ip_version, |_, v| Ok(Condition::IpVersion(v.to_vec())))?;
        self.add(&f.trace_id, |_, v| Ok(Condition::TraceId(v.to_vec())))?;
        self.add(&f.traffic_direction, |_, v| Ok(Condition::Direction(v.to_vec())))?;
        if f.experimental.as_ref().is_some_and(|e| !e.cel_expression.is_empty()) {
            return Err(InvalidFilter::new(
                "experimental.cel_expression: CEL filters are not supported; use the other filter fields",
            ));
        }
        self.add(&f.interface, |_, v| Ok(Condition::Interface(v.to_vec())))?;
        self.add(&f.ip_trace_id, |_, v| Ok(Condition::IpTraceId(v.to_vec())))
    }

    fn http_fields(&mut self, f: &FlowFilter) -> Checked<()> {
        let types = &f.event_type;
        self.add(&f.http_status_code, |_, v| {
            check_event_types(types, "status code")?;
            Ok(Condition::Http(Http::Status(v.iter().map(|s| Status::compile(s)).collect::<Checked<_>>()?)))
        })?;
        self.add(&f.http_method, |_, v| {
            check_event_types(types, "method")?;
            Ok(Condition::Http(Http::Method(v.to_vec())))
        })?;
        self.add(&f.http_path, |c, v| {
            check_event_types(types, "path")?;
            let what = |pattern: &str| format!("invalid http path filter: {pattern}: ");
            Ok(Condition::Http(Http::Path(c.expressions("http_path", v, what)?)))
        })?;
        self.add(&f.http_url, |c, v| {
            check_event_types(types, "url")?;
            let what = |pattern: &str| format!("invalid http url filter: {pattern}: ");
            Ok(Condition::Http(Http::Url(c.expressions("http_url", v, what)?)))
        })?;
        self.add(&f.http_header, |_, v| {
            check_event_types(types, "headers")?;
            Ok(Condition::Http(Http::Header(v.to_vec())))
        })
    }

    /// Adds a condition if the field is set at all.
    fn add<T>(
        &mut self,
        field: &[T],
        make: impl FnOnce(&mut Self, &[T]) -> Checked<Condition>,
    ) -> Checked<()> {
        if !field.is_empty() {
            let condition = make(self, field)?;
            self.conditions.push(condition);
        }
        Ok(())
    }

    fn endpoint(&mut self, side: Side, test: EndpointTest) -> Condition {
        Condition::Endpoint(side, self.tests.add(test))
    }

    fn expressions(
        &mut self,
        field: &str,
        patterns: &[String],
        what: impl Fn(&str) -> String,
    ) -> Checked<Vec<Regex>> {
        self.expressions += patterns.len();
        if self.expressions > LIMIT_EXPRESSIONS {
            return Err(InvalidFilter::limit(format!(
                "{field}: more than {LIMIT_EXPRESSIONS} regular expressions in one request"
            )));
        }
        let compile = |pattern: &String| {
            expression::compile(pattern).map_err(|refused| match refused {
                Refused::Syntax(why) => InvalidFilter::new(what(pattern) + &why),
                Refused::TooLarge => InvalidFilter::limit(format!(
                    "{field}: the expression {} is too large when compiled",
                    quote_short(pattern)
                )),
            })
        };
        patterns.iter().map(compile).collect()
    }
}

fn ports(side: Side, values: &[String]) -> Checked<Vec<u16>> {
    let port = |text: &String| match go::parse_uint(text, 16) {
        Ok(port) => Ok(port as u16),
        Err(why) => Err(InvalidFilter::new(format!(
            "invalid {} port filter: invalid port {}: {why}",
            side.name(),
            go::quote(text)
        ))),
    };
    values.iter().map(port).collect()
}

/// Its beginning, quoted.
fn quote_short(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => go::quote(&text[..end]) + "...",
        None => go::quote(text),
    }
}

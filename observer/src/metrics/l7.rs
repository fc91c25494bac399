//! What was said by HTTP and DNS, counted as Hubble's plugins do.

use super::{
    context::{Value, Values},
    plugin::{Count, Options},
    series::{Amount, Family},
};
use crate::{
    flow::{Flow, Tristate},
    layer7::Layer7,
};
use observer_proto::flow::{Dns, Http, L7FlowType, TrafficDirection, Verdict};
use std::time::Duration;

/// With option `query`.
pub(super) const DNS_BY_QUERY: [Family; 3] = [
    DNS[0].with(&["rcode", "qtypes", "ips_returned", "query"]),
    DNS[1].with(&["rcode", "qtypes", "ips_returned", "query"]),
    DNS[2].with(&["type", "qtypes", "query"]),
];
pub(super) const DNS: [Family; 3] = [
    Family::counter("hubble_dns_queries_total", "Queries of DNS.", &["rcode", "qtypes", "ips_returned"]),
    Family::counter("hubble_dns_responses_total", "Answers of DNS.", &["rcode", "qtypes", "ips_returned"]),
    Family::counter(
        "hubble_dns_response_types_total",
        "Records in answers of DNS, by type.",
        &["type", "qtypes"],
    ),
];
const DURATION: Family = Family::histogram(
    "hubble_http_request_duration_seconds",
    "Time between requests of HTTP and their responses.",
    &["method", "reporter"],
);
pub(super) const HTTP: [Family; 3] = [
    Family::counter("hubble_http_requests_total", "Requests of HTTP.", &["method", "protocol", "reporter"]),
    Family::counter(
        "hubble_http_responses_total",
        "Responses of HTTP.",
        &["method", "protocol", "status", "reporter"],
    ),
    DURATION,
];
pub(super) const HTTP_V2: [Family; 2] = [
    Family::counter(
        "hubble_http_requests_total",
        "Requests of HTTP that were answered.",
        &["method", "protocol", "status", "reporter"],
    ),
    DURATION,
];

/// Counts a query or an answer.
pub(super) fn dns<'a>(flow: &Flow<'a>, options: Options, mut give: impl FnMut(usize, Count<'a>)) {
    let Some(dns) = flow.l7.and_then(|l7| l7.dns()) else { return };
    if options.ignore_aaaa && dns.qtypes == ["AAAA"] {
        return;
    }
    let is_denied = flow.verdict == Verdict::Dropped as u8;
    let is_answer = !is_denied && flow.is_reply == Tristate::Yes;
    let rcode = match (is_denied, is_answer) {
        (true, _) => "Policy denied",
        (_, true) => rcode(dns),
        _ => "",
    };
    let ips = u16::try_from(dns.ips.len()).unwrap_or(u16::MAX);
    let asked = |first: [Value<'a>; 3], own: usize| {
        let mut values = Values::new();
        first.into_iter().take(own).for_each(|value| values.push(value));
        if options.query {
            values.push(Value::Text(&dns.query));
        }
        Count::of(values)
    };
    let qtypes = Value::List(&dns.qtypes);
    give(usize::from(is_answer), asked([Value::Text(rcode), qtypes, Value::Number(ips)], 3));
    if is_answer {
        for kind in &dns.rrtypes {
            give(2, asked([Value::Text(kind), qtypes, Value::Text("")], 2));
        }
    }
}

/// Counts requests, and responses with the time until they came.
pub(super) fn http<'a>(flow: &Flow<'a>, options: Options, mut give: impl FnMut(usize, Count<'a>)) {
    let Some((l7, http)) = flow.l7.and_then(|l7| Some((l7, l7.http()?))) else { return };
    let reporter = reporter(flow);
    let count = |own: &[Value<'a>], amount| Count {
        amount,
        trace: trace(l7, options),
        ..Count::of(own.iter().copied().collect())
    };
    let [method, protocol] = [&http.method, &http.protocol].map(|text| Value::Text(text));
    match l7.message().r#type() {
        L7FlowType::Request => give(0, count(&[method, protocol, reporter], Amount::Count(1))),
        L7FlowType::Response => {
            give(1, count(&[method, protocol, status(http), reporter], Amount::Count(1)));
            give(2, count(&[method, reporter], latency(l7)));
        }
        _ => {}
    }
}

/// Counts requests when they are answered, by who asked and who was asked.
pub(super) fn http_v2<'a>(flow: &Flow<'a>, options: Options, mut give: impl FnMut(usize, Count<'a>)) {
    let Some((l7, http)) = flow.l7.and_then(|l7| Some((l7, l7.http()?))) else { return };
    if l7.message().r#type() != L7FlowType::Response {
        return;
    }
    let reporter = reporter(flow);
    let count = |own: &[Value<'a>], amount| Count {
        amount,
        trace: trace(l7, options),
        is_turned: true,
        ..Count::of(own.iter().copied().collect())
    };
    let [method, protocol] = [&http.method, &http.protocol].map(|text| Value::Text(text));
    give(0, count(&[method, protocol, status(http), reporter], Amount::Count(1)));
    give(1, count(&[method, reporter], latency(l7)));
}

fn trace(l7: &Layer7, options: Options) -> Option<&str> {
    l7.trace_id().filter(|_| options.exemplars)
}

fn latency(l7: &Layer7) -> Amount {
    Amount::Time(Duration::from_nanos(l7.message().latency_ns))
}

fn status(http: &Http) -> Value<'static> {
    Value::Number(u16::try_from(http.code).unwrap_or(u16::MAX))
}

fn reporter(flow: &Flow<'_>) -> Value<'static> {
    Value::Text(match TrafficDirection::try_from(i32::from(flow.direction)) {
        Ok(TrafficDirection::Egress) => "client",
        Ok(TrafficDirection::Ingress) => "server",
        _ => "unknown",
    })
}

/// RFC 6895, in the words of Hubble's metrics, which are not quite those of its flows.
fn rcode(dns: &Dns) -> &'static str {
    const NAMES: [&str; 12] = [
        "No Error",
        "Format Error",
        "Server Failure",
        "Non-Existent Domain",
        "Not Implemented",
        "Query Refused",
        "Name Exists when it should not",
        "RR Set Exists when it should not",
        "RR Set that should exist does not",
        "Not Authorized",
        "Name not contained in zone",
        "DSO-TYPE Not Implemented",
    ];
    // Those from 16 on need more than the header's four bits.
    NAMES.get(dns.rcode as usize).copied().unwrap_or("")
}

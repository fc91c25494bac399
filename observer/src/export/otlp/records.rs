//! Hubble's messages -> records of OpenTelemetry's logs.
//!
//! Names of attributes are OpenTelemetry's where it has them. It has one pod for a record, and a flow has two: what is of
//! one end stands behind `source.` and `destination.`, what is of the flow behind `flow.`.

use crate::serve::NodeInfo;
use observer_proto::{
    Facts,
    flow::{
        Endpoint, Flow, IpVersion, L7FlowType, LostEvent, Policy, Service, TrafficDirection, Verdict,
        layer4::Protocol, layer7::Record,
    },
    names,
    observer::{ExportEvent, export_event::ResponseTypes},
    text::{self, Options},
};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message as _;
use prost_types::{Struct, Timestamp, value::Kind};

/// Attributes that are there.
#[derive(Debug, Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: impl Into<String>, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.into(), value, ..KeyValue::default() });
    }

    /// An empty text is none.
    fn text(&mut self, key: impl Into<String>, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.add(key, Value::StringValue(text));
        }
    }

    /// 0 is none.
    fn number(&mut self, key: impl Into<String>, number: impl TryInto<i64>) {
        if let Ok(number) = number.try_into()
            && number != 0
        {
            self.add(key, Value::IntValue(number));
        }
    }

    fn list(&mut self, key: impl Into<String>, texts: impl Iterator<Item = String>) {
        let value = |text| AnyValue { value: Some(Value::StringValue(text)) };
        let values: Vec<AnyValue> = texts.map(value).collect();
        if !values.is_empty() {
            self.add(key, Value::ArrayValue(ArrayValue { values }));
        }
    }
}

/// What is the same for all records of a node; what the configuration says is stronger.
pub(super) fn resource(node: &NodeInfo, given: &[(String, String)]) -> Resource {
    let mut attributes = Attributes::default();
    let own = [
        ("service.name", "observer"),
        ("service.version", &node.version),
        ("k8s.cluster.name", &node.cluster),
        ("k8s.node.name", &node.name),
    ];
    for (key, value) in own {
        if !given.iter().any(|(name, _)| name == key) {
            attributes.text(key, value);
        }
    }
    for (key, value) in given {
        attributes.text(key.clone(), value);
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// The record of what is exported; agent's and debug events are not.
pub(in crate::export) fn record(event: &ExportEvent) -> Option<LogRecord> {
    let time = event.time.as_ref().map_or(0, nanoseconds);
    let record = match event.response_types.as_ref()? {
        ResponseTypes::Flow(flow) => of_flow(flow),
        ResponseTypes::LostEvents(lost) => of_loss(lost),
        _ => return None,
    };
    Some(LogRecord { time_unix_nano: time, observed_time_unix_nano: time, ..record })
}

fn nanoseconds(time: &Timestamp) -> u64 {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    u64::try_from(nanoseconds).unwrap_or(0)
}

fn severity(number: SeverityNumber, text: &str) -> LogRecord {
    LogRecord { severity_number: number.into(), severity_text: text.to_owned(), ..LogRecord::default() }
}

fn of_loss(lost: &LostEvent) -> LogRecord {
    let mut attributes = Attributes::default();
    let source = lost.source().as_str_name();
    attributes.text("lost_events.source", source);
    attributes.number("lost_events.count", lost.num_events_lost);
    LogRecord {
        event_name: "hubble.lost_events".to_owned(),
        body: Some(body(format!("EVENTS LOST: {source} {}", lost.num_events_lost))),
        attributes: attributes.0,
        ..severity(SeverityNumber::Warn, "WARN")
    }
}

fn of_flow(flow: &Flow) -> LogRecord {
    let mut attributes = Attributes::default();
    attributes.text("log.record.uid", &*flow.uuid);
    if flow.verdict != 0 {
        attributes.text("flow.verdict", flow.verdict().as_str_name());
    }
    if flow.drop_reason_desc != 0 {
        attributes.text("flow.drop_reason", flow.drop_reason_desc().as_str_name());
    }
    if let Some(kind) = flow.event_type {
        attributes.text("flow.event_type", names::event_type_name(kind.r#type).unwrap_or_default());
        if flow.trace_observation_point != 0 {
            let point = names::trace_point_name(kind.sub_type).unwrap_or_default();
            attributes.text("flow.observation_point", point);
        }
    }
    if let Some(is_reply) = flow.is_reply {
        attributes.add("flow.is_reply", Value::BoolValue(is_reply));
    }
    match flow.traffic_direction() {
        TrafficDirection::Ingress => attributes.text("network.io.direction", "receive"),
        TrafficDirection::Egress => attributes.text("network.io.direction", "transmit"),
        TrafficDirection::Unknown => {}
    }
    addresses(flow, &mut attributes);
    end("source", flow.source.as_ref(), flow.source_service.as_ref(), &flow.source_names, &mut attributes);
    let service = flow.destination_service.as_ref();
    end("destination", flow.destination.as_ref(), service, &flow.destination_names, &mut attributes);
    said(flow, &mut attributes);
    for (key, policies) in [
        ("flow.policies.egress_allowed_by", &flow.egress_allowed_by),
        ("flow.policies.ingress_allowed_by", &flow.ingress_allowed_by),
        ("flow.policies.egress_denied_by", &flow.egress_denied_by),
        ("flow.policies.ingress_denied_by", &flow.ingress_denied_by),
    ] {
        let name = |policy: &Policy| match policy.namespace.as_str() {
            "" => policy.name.clone(),
            namespace => format!("{namespace}/{}", policy.name),
        };
        attributes.list(key, policies.iter().map(name));
    }
    if let Some(interface) = &flow.interface {
        attributes.text("network.interface.name", &*interface.name);
    }
    if let Some(sums) = flow.aggregate {
        attributes.number("flow.aggregate.ingress", sums.ingress_flow_count);
        attributes.number("flow.aggregate.egress", sums.egress_flow_count);
        attributes.number("flow.aggregate.unknown_direction", sums.unknown_direction_flow_count);
    }
    extensions(flow, &mut attributes);
    let bad = [Verdict::Dropped, Verdict::Error, Verdict::Audit].contains(&flow.verdict());
    let record =
        if bad { severity(SeverityNumber::Warn, "WARN") } else { severity(SeverityNumber::Info, "INFO") };
    LogRecord {
        event_name: "hubble.flow".to_owned(),
        body: Some(body(sentence(flow))),
        attributes: attributes.0,
        trace_id: trace(flow).unwrap_or_default(),
        ..record
    }
}

fn body(text: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text)) }
}

/// Hubble's line of text, without the time, which stands in the record.
fn sentence(flow: &Flow) -> String {
    let mut line = String::new();
    // Writing to a String can't fail.
    let _ = text::flow(Options::default(), flow, &mut line);
    let sentence = line.split_once(": ").map_or(line.as_str(), |(_, sentence)| sentence);
    sentence.trim_end().to_owned()
}

fn addresses(flow: &Flow, attributes: &mut Attributes) {
    if let Some(ip) = &flow.ip {
        attributes.text("source.address", &*ip.source);
        attributes.text("destination.address", &*ip.destination);
        match ip.ip_version() {
            IpVersion::IPv4 => attributes.text("network.type", "ipv4"),
            IpVersion::IPv6 => attributes.text("network.type", "ipv6"),
            IpVersion::IpNotUsed => {}
        }
    }
    let (name, ports) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => ("tcp", Some((tcp.source_port, tcp.destination_port))),
        Some(Protocol::Udp(udp)) => ("udp", Some((udp.source_port, udp.destination_port))),
        Some(Protocol::Sctp(sctp)) => ("sctp", Some((sctp.source_port, sctp.destination_port))),
        Some(Protocol::IcmPv4(_)) => ("icmp", None),
        Some(Protocol::IcmPv6(_)) => ("icmpv6", None),
        Some(Protocol::Vrrp(_)) => ("vrrp", None),
        Some(Protocol::Igmp(_)) => ("igmp", None),
        None => ("", None),
    };
    attributes.text("network.transport", name);
    if let Some((source, destination)) = ports {
        attributes.number("source.port", source);
        attributes.number("destination.port", destination);
    }
}

/// Who stands at one end.
fn end(
    side: &'static str,
    end: Option<&Endpoint>,
    service: Option<&Service>,
    names: &[String],
    attributes: &mut Attributes,
) {
    let key = |name: &str| format!("{side}.{name}");
    if let Some(end) = end {
        attributes.text(key("k8s.namespace.name"), &*end.namespace);
        attributes.text(key("k8s.pod.name"), &*end.pod_name);
        if let Some(workload) = end.workloads.first() {
            attributes.text(key("k8s.workload.name"), &*workload.name);
            attributes.text(key("k8s.workload.kind"), &*workload.kind);
        }
        attributes.number(key("identity"), end.identity);
        attributes.list(key("labels"), end.labels.iter().cloned());
    }
    if let Some(service) = service {
        attributes.text(key("k8s.service.name"), &*service.name);
        attributes.text(key("k8s.service.namespace"), &*service.namespace);
    }
    attributes.list(key("dns.names"), names.iter().cloned());
}

/// What was said inside a connection.
fn said(flow: &Flow, attributes: &mut Attributes) {
    let Some(l7) = &flow.l7 else { return };
    match l7.r#type() {
        L7FlowType::Request => attributes.text("flow.l7.type", "request"),
        L7FlowType::Response => attributes.text("flow.l7.type", "response"),
        _ => {}
    }
    attributes.number("flow.l7.latency_ns", l7.latency_ns);
    match &l7.record {
        Some(Record::Http(http)) => {
            attributes.text("network.protocol.name", "http");
            let version = http.protocol.strip_prefix("HTTP/").unwrap_or_default();
            attributes.text("network.protocol.version", version);
            attributes.text("http.request.method", &*http.method);
            attributes.number("http.response.status_code", http.code);
            attributes.text("url.full", &*http.url);
        }
        Some(Record::Dns(dns)) => {
            attributes.text("network.protocol.name", "dns");
            attributes.text("dns.question.name", &*dns.query);
            attributes.list("dns.question.types", dns.qtypes.iter().cloned());
            attributes.list("dns.answers", dns.ips.iter().cloned());
            if l7.r#type() == L7FlowType::Response {
                attributes.add("dns.response_code", Value::IntValue(dns.rcode.into()));
            }
        }
        _ => {
            // Whose name and version stand among the extensions.
            if Facts::of(flow).is_of_tls() {
                attributes.text("network.protocol.name", "tls");
            }
        }
    }
}

/// The trace's sixteen bytes.
fn trace(flow: &Flow) -> Option<Vec<u8>> {
    let id = &flow.trace_context.as_ref()?.parent.as_ref()?.trace_id;
    let digits = (id.len() == 32).then(|| id.as_bytes().chunks_exact(2))?;
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

/// What Hubble has no field for: packets, bytes, the kernel's own reason and the like.
fn extensions(flow: &Flow, attributes: &mut Attributes) {
    let Some(any) = &flow.extensions else { return };
    let Ok(Struct { fields }) = Struct::decode(&*any.value) else { return };
    for (key, value) in fields {
        let key = format!("flow.extensions.{key}");
        match value.kind {
            // They are whole numbers.
            Some(Kind::NumberValue(number)) => attributes.add(key, Value::IntValue(number as i64)),
            Some(Kind::StringValue(text)) => attributes.text(key, text),
            Some(Kind::BoolValue(value)) => attributes.add(key, Value::BoolValue(value)),
            _ => {}
        }
    }
}

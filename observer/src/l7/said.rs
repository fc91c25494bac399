//! Requests and responses -> Hubble's messages.

use super::Redaction;
use crate::{
    enrich::Filler,
    flow::{Flow, Notes, Record, Tristate},
    layer7::{Layer7, Tls},
    track::TrackedFlow,
};
use observer_l7::{
    DnsTold, TlsTold, Told,
    dns::{Data, Message, type_name as known_type},
    head::{Head, Start, field},
    tls::{self, First},
};
use observer_proto::flow::{
    self as wire, Dns, Http, HttpHeader, L7FlowType, TrafficDirection, layer7::Record as Kind,
};
use std::sync::Arc;

/// The port of DNS.
const DNS: u16 = 53;
/// Who saw it: Hubble's own sources are its proxies.
const SOURCE: &str = "observer";

/// Something that was said.
#[derive(Clone, Debug)]
pub struct Said {
    /// What.
    pub l7: Arc<Layer7>,
    /// Whether it answers.
    pub is_response: bool,
}

impl Said {
    /// Has flows between who asked and the addresses that DNS answers show the name that was asked for, and policies allow them by it.
    pub fn learn(&self, tracked: &TrackedFlow<'_>, filler: &mut Filler) {
        let answer = self.l7.dns().filter(|dns| self.is_response && dns.rcode == 0);
        let (Some(dns), Some(client)) = (answer, tracked.ends.destination) else { return };
        // Elsewhere anybody may say anything.
        let is_server = tracked.ends.source.is_some_and(|server| server.port() == DNS);
        for ip in dns.ips.iter().filter_map(|ip| ip.parse().ok()) {
            filler.learn(client.ip(), ip, &dns.query, dns.ttl, tracked.event.kernel_ns);
            if is_server {
                filler.resolve(client.ip(), ip, &dns.query, dns.ttl, tracked.event.kernel_ns);
            }
        }
    }

    /// Gives the flow that tells it, made of that of the packet: as Hubble has it, without what is of packets.
    pub fn flow<R>(&self, packet: &Flow<'_>, give: impl FnOnce(&Flow<'_>) -> R) -> R {
        let is_reply = if self.is_response { Tristate::Yes } else { Tristate::No };
        let record = Record {
            event_type: Record::L7_EVENT,
            is_reply,
            // What was said knows better than a guess by ports.
            direction: if is_reply == packet.is_reply { packet.direction } else { turned(packet.direction) },
            flags_or_type: 0,
            observation_point: 0,
            trace_reason: 0,
            source_mac: [0; 6],
            destination_mac: [0; 6],
            packets: 0,
            bytes: 0,
            first_ns: 0,
            resets: 0,
            retransmits: 0,
            notes: Notes::default(),
            ..*packet.record
        };
        give(&Flow { record: &record, tunnel: None, l7: Some(&self.l7), ..*packet })
    }
}

fn turned(direction: u8) -> u8 {
    const INGRESS: u8 = TrafficDirection::Ingress as u8;
    const EGRESS: u8 = TrafficDirection::Egress as u8;
    match direction {
        INGRESS => EGRESS,
        EGRESS => INGRESS,
        other => other,
    }
}

/// What a response's flow has of its request.
#[derive(Debug)]
pub(super) struct Asked {
    method: String,
    url: String,
    trace_id: Box<str>,
}

pub(super) struct Teller<'a> {
    pub(super) redaction: &'a Redaction,
    pub(super) said: &'a mut Vec<Said>,
}

impl Teller<'_> {
    fn tell(&mut self, record: Kind, trace_id: &str, latency_ns: Option<u64>, is_response: bool) {
        let kind = if is_response { L7FlowType::Response } else { L7FlowType::Request };
        let message =
            wire::Layer7 { r#type: kind.into(), latency_ns: latency_ns.unwrap_or(0), record: Some(record) };
        self.said.push(Said { l7: Arc::new(Layer7::new(message, trace_id)), is_response });
    }

    fn http(&self, head: &Head<'_>, code: u16, method: &str, url: &str) -> Http {
        let headers = head.fields.iter().map(|field| HttpHeader {
            key: field.name.to_owned(),
            value: self.redaction.field(field.name, field.value).into_owned(),
        });
        Http {
            code: code.into(),
            method: method.to_owned(),
            url: url.to_owned(),
            protocol: if head.minor == 0 { "HTTP/1.0" } else { "HTTP/1.1" }.to_owned(),
            headers: headers.collect(),
        }
    }
}

impl Told for Teller<'_> {
    type Asked = Asked;

    fn request(&mut self, head: &Head<'_>) -> Asked {
        let (method, target) = match head.start {
            Start::Request { method, target } => (method, target),
            Start::Response { .. } => ("", ""),
        };
        let url = self.redaction.url(target, field(head.fields, "host"));
        let trace_id = field(head.fields, "traceparent").and_then(trace_id).unwrap_or_default();
        let http = self.http(head, 0, method, &url);
        self.tell(Kind::Http(http), trace_id, None, false);
        Asked { method: method.to_owned(), url, trace_id: trace_id.into() }
    }

    fn response(&mut self, head: &Head<'_>, asked: Asked, latency_ns: u64) {
        let code = match head.start {
            Start::Response { code } => code,
            Start::Request { .. } => 0,
        };
        let http = self.http(head, code, &asked.method, &asked.url);
        self.tell(Kind::Http(http), &asked.trace_id, Some(latency_ns), true);
    }
}

/// Of `00-<32 digits>-<16 digits>-<2 digits>`, W3C's trace context, the first digits.
pub(crate) fn trace_id(traceparent: &[u8]) -> Option<&str> {
    let mut parts = std::str::from_utf8(traceparent).ok()?.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_id = version.len() == 2 && id.len() == 32 && is_hex(id) && id.bytes().any(|b| b != b'0');
    (is_id && is_hex(version) && parts.next()?.len() == 16).then_some(id)
}

impl DnsTold for Teller<'_> {
    fn message(&mut self, message: &Message<'_>, latency_ns: Option<u64>) {
        let dns = dns(message, SOURCE);
        self.tell(Kind::Dns(dns), "", latency_ns, message.is_response());
    }
}

/// A message as Hubble has it; `source` is who saw it.
pub(crate) fn dns(message: &Message<'_>, source: &str) -> Dns {
    let mut dns = Dns { observation_source: source.to_owned(), ..Dns::default() };
    for question in message.questions().flatten() {
        if dns.query.is_empty() {
            dns.query = question.name.to_string();
        }
        dns.qtypes.push(type_name(question.kind));
    }
    if message.is_response() {
        dns.rcode = message.rcode().into();
        let mut ttl = None;
        for answer in message.answers().flatten() {
            match answer.data {
                Data::Address(ip) => dns.ips.push(ip.to_string()),
                Data::Alias(name) => dns.cnames.push(name.to_string()),
                Data::Other(_) => {}
            }
            dns.rrtypes.push(type_name(answer.kind));
            ttl = Some(ttl.map_or(answer.ttl, |least: u32| least.min(answer.ttl)));
        }
        dns.ttl = ttl.unwrap_or(0);
    }
    dns
}

impl TlsTold for Teller<'_> {
    /// The server's name.
    type Asked = String;

    fn hello(&mut self, hello: First<'_>) -> String {
        let tls = tls(hello, String::new());
        let server_name = tls.server_name.clone();
        self.said.push(Said { l7: Arc::new(Layer7::tls_began(tls, false, 0)), is_response: false });
        server_name
    }

    fn answer(&mut self, answer: First<'_>, asked: Option<(String, u64)>) {
        let (server_name, latency_ns) = asked.unwrap_or_default();
        let l7 = Layer7::tls_began(tls(answer, server_name), true, latency_ns);
        self.said.push(Said { l7: Arc::new(l7), is_response: true });
    }
}

/// With the name that was asked for, where it doesn't say it itself.
fn tls(first: First<'_>, server_name: String) -> Tls {
    match first {
        First::Client { server_name, version } => Tls {
            server_name: server_name.map(|name| name.to_string()).unwrap_or_default(),
            version: Some(version.name()),
            alert: None,
        },
        First::Server { version } => Tls { server_name, version: Some(version.name()), alert: None },
        First::Alert(number) => {
            let alert = tls::alert_name(number).map_or_else(|| number.to_string(), str::to_owned);
            Tls { server_name, version: None, alert: Some(alert) }
        }
    }
}

fn type_name(kind: u16) -> String {
    known_type(kind).unwrap_or("Unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_those_of_the_standard() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (text, expected) in [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (format!("cc-{id}-00f067aa0ba902b7-01-more"), Some(id)),
            (format!("00-{id}"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()), None),
            ("x".to_owned(), None),
        ] {
            assert_eq!(trace_id(text.as_bytes()), expected, "{text}");
        }
    }
}

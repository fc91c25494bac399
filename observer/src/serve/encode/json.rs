//! A flow as Hubble's JSON line: fields in the order of their declaration, byte for byte what `observer_proto::json` makes
//! of the protobuf.

use super::{
    EMITTER, NodeInfo, UDP,
    extensions::{self, Entries},
    ip_version, layer4, seconds_and_nanos, text, tunnel_protocol,
};
use crate::{
    endpoint::Service,
    flow::{Flow, Notes, Tristate, Tunnel},
};
use observer_proto::{
    flow as proto,
    json::{Calendar, double, escaped, unsigned},
};
use std::{net::IpAddr, sync::Arc};

/// What all flows of a node have in common; each piece begins with the comma before it.
#[derive(Debug)]
pub(super) struct Fixed {
    emitter: Box<[u8]>,
    /// `Type`, `node_name`, `node_labels`.
    node: Box<[u8]>,
    /// The same of a request or response.
    node_l7: Box<[u8]>,
    /// The response's own `node_name`, up to the quote that opens its `time`.
    response: Box<[u8]>,
}

impl Fixed {
    pub(super) fn new(node: &NodeInfo, node_labels: &[String]) -> Self {
        let (mut emitter, mut response) = (Vec::new(), Vec::new());
        emitter.extend_from_slice(b",\"emitter\":");
        object(&mut emitter, |out| {
            string(out, b",\"name\":", EMITTER);
            string(out, b",\"version\":", &node.version);
        });
        let fields = |kind: proto::FlowType| {
            let mut fields = Vec::new();
            name(&mut fields, b",\"Type\":", kind.as_str_name());
            string(&mut fields, b",\"node_name\":", &node.full_name());
            for (at, label) in node_labels.iter().enumerate() {
                fields.extend_from_slice(if at == 0 { b",\"node_labels\":[" } else { b"," });
                quoted(&mut fields, |out| escaped(label, out));
            }
            if !node_labels.is_empty() {
                fields.push(b']');
            }
            fields.into_boxed_slice()
        };
        string(&mut response, b",\"node_name\":", &node.full_name());
        response.extend_from_slice(b",\"time\":\"");
        Self {
            emitter: emitter.into(),
            node: fields(proto::FlowType::L3L4),
            node_l7: fields(proto::FlowType::L7),
            response: response.into(),
        }
    }

    /// Appends the response that holds the flow.
    pub(super) fn line(&self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>, calendar: &mut Calendar) {
        out.extend_from_slice(b"{\"flow\":{\"time\":\"");
        let (seconds, nanos) = seconds_and_nanos(flow.time_ns);
        let at = out.len();
        // Nanoseconds in 64 bits reach from 1677 to 2262.
        let _ = calendar.write(seconds, nanos, out);
        let time = at..out.len();
        self.fields_after_time(out, sequence, flow, calendar);
        out.push(b'}');
        out.extend_from_slice(&self.response);
        out.extend_from_within(time);
        out.extend_from_slice(b"\"}");
    }

    fn fields_after_time(&self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>, calendar: &mut Calendar) {
        let dropped = flow.is_drop();
        out.extend_from_slice(b"\",\"uuid\":\"");
        out.extend_from_slice(&text::uuid(sequence));
        out.push(b'"');
        out.extend_from_slice(&self.emitter);
        enumeration::<proto::Verdict>(out, b",\"verdict\":", flow.verdict.into());
        number(out, b",\"drop_reason\":", flow.drop_reason().into());
        if flow.has_macs() {
            out.extend_from_slice(b",\"ethernet\":{\"source\":\"");
            out.extend_from_slice(&text::mac(flow.source_mac));
            out.extend_from_slice(b"\",\"destination\":\"");
            out.extend_from_slice(&text::mac(flow.destination_mac));
            out.extend_from_slice(b"\"}");
        }
        if flow.ip_version != 0 {
            out.extend_from_slice(b",\"IP\":");
            object(out, |out| ip_header(out, flow));
            transport(out, flow);
        }
        if let Some(around) = flow.tunnel {
            out.extend_from_slice(b",\"tunnel\":");
            object(out, |out| tunnel(out, around));
        }
        out.extend_from_slice(b",\"source\":");
        out.extend_from_slice(flow.source.json());
        out.extend_from_slice(b",\"destination\":");
        out.extend_from_slice(flow.destination.json());
        out.extend_from_slice(if flow.is_l7() { &self.node_l7 } else { &self.node });
        names(out, b",\"source_names\":[", flow.source_names());
        names(out, b",\"destination_names\":[", flow.destination_names());
        if let Some(l7) = flow.l7 {
            out.extend_from_slice(b",\"l7\":");
            // Numbers and text, which all have a JSON form.
            let json = observer_proto::json::line(l7.message()).unwrap_or_else(|_| "{}".to_owned());
            out.extend_from_slice(json.as_bytes());
        }
        if flow.is_reply == Tristate::Yes {
            out.extend_from_slice(b",\"reply\":true");
        }
        out.extend_from_slice(b",\"event_type\":");
        object(out, |out| {
            number(out, b",\"type\":", flow.event_type.into());
            number(out, b",\"sub_type\":", flow.event_sub_type().into());
        });
        service(out, b",\"source_service\":", flow.source_service);
        service(out, b",\"destination_service\":", flow.destination_service);
        enumeration::<proto::TrafficDirection>(out, b",\"traffic_direction\":", flow.direction.into());
        if let Some(policy) = flow.policy.filter(|_| !dropped) {
            number(out, b",\"policy_match_type\":", policy.told().match_type.into());
        }
        if !dropped {
            let point = flow.observation_point.into();
            enumeration::<proto::TraceObservationPoint>(out, b",\"trace_observation_point\":", point);
        }
        enumeration::<proto::TraceReason>(out, b",\"trace_reason\":", flow.trace_reason.into());
        enumeration::<proto::DropReason>(out, b",\"drop_reason_desc\":", flow.drop_reason().into());
        out.extend_from_slice(match flow.is_reply {
            Tristate::Unset => b"",
            Tristate::No => b",\"is_reply\":false",
            Tristate::Yes => b",\"is_reply\":true",
        });
        if let Some(link) = flow.link {
            out.extend_from_slice(b",\"interface\":");
            object(out, |out| {
                number(out, b",\"index\":", link.index.into());
                string(out, b",\"name\":", &link.name);
            });
        }
        if let Some(id) = flow.l7.and_then(|l7| l7.trace_id()) {
            out.extend_from_slice(b",\"trace_context\":{\"parent\":{");
            let at = out.len();
            string(out, b",\"trace_id\":", id);
            out.remove(at);
            out.extend_from_slice(b"}}");
        }
        out.extend_from_slice(b",\"Summary\":");
        quoted(out, |out| summary(out, flow));
        if extensions::has_any(flow) {
            out.extend_from_slice(b",\"extensions\":{\"@type\":\"");
            out.extend_from_slice(extensions::TYPE_URL.as_bytes());
            out.extend_from_slice(b"\",\"value\":");
            object(out, |out| extensions::write(flow, calendar, &mut Struct(out)));
            out.push(b'}');
        }
        if let Some(policy) = flow.policy {
            out.extend_from_slice(policy.json());
        }
    }
}

fn ip_header(out: &mut Vec<u8>, flow: &Flow<'_>) {
    let address = |out: &mut Vec<u8>, key: &[u8], ip: Option<IpAddr>| {
        if let Some(ip) = ip {
            out.extend_from_slice(key);
            quoted(out, |out| text::ip(out, ip));
        }
    };
    address(out, b",\"source\":", flow.source_ip);
    address(out, b",\"source_xlated\":", flow.source_xlated());
    address(out, b",\"destination\":", flow.destination_ip);
    name(out, b",\"ipVersion\":", ip_version(flow.ip_version == 6).as_str_name());
}

/// What is around the packet, the outermost headers.
fn tunnel(out: &mut Vec<u8>, tunnel: &Tunnel) {
    enumeration::<proto::tunnel::Protocol>(out, b",\"protocol\":", tunnel_protocol(tunnel) as i32);
    if let Some(((source, source_port), (destination, destination_port))) = tunnel.ends {
        out.extend_from_slice(b",\"IP\":");
        object(out, |out| {
            for (key, ip) in [(&b",\"source\":"[..], source), (b",\"destination\":", destination)] {
                out.extend_from_slice(key);
                quoted(out, |out| text::ip(out, ip));
            }
            name(out, b",\"ipVersion\":", ip_version(source.is_ipv6()).as_str_name());
        });
        if tunnel.protocol == UDP {
            out.extend_from_slice(b",\"l4\":{\"UDP\":");
            object(out, |out| {
                number(out, b",\"source_port\":", source_port.into());
                number(out, b",\"destination_port\":", destination_port.into());
            });
            out.push(b'}');
        }
    }
    number(out, b",\"vni\":", tunnel.vni.into());
}

/// A later fragment has the protocol, but no ports and no flags.
fn transport(out: &mut Vec<u8>, flow: &Flow<'_>) {
    const FLAGS: [&[u8]; 9] = [
        b",\"FIN\":true",
        b",\"SYN\":true",
        b",\"RST\":true",
        b",\"PSH\":true",
        b",\"ACK\":true",
        b",\"URG\":true",
        b",\"ECE\":true",
        b",\"CWR\":true",
        b",\"NS\":true",
    ];
    let Some((message, field)) = layer4(flow.protocol) else { return };
    let fragment = flow.notes.has(Notes::FRAGMENT);
    out.extend_from_slice(b",\"l4\":{\"");
    out.extend_from_slice(message.as_bytes());
    out.extend_from_slice(b"\":");
    object(out, |out| match field {
        _ if fragment => {}
        1 | 2 | 5 => {
            number(out, b",\"source_port\":", flow.source_port.into());
            number(out, b",\"destination_port\":", flow.destination_port.into());
            if field == 1 && !flow.is_l7() {
                out.extend_from_slice(b",\"flags\":");
                object(out, |out| {
                    for (bit, set) in FLAGS.iter().enumerate() {
                        if flow.tcp_flags() >> bit & 1 == 1 {
                            out.extend_from_slice(set);
                        }
                    }
                });
            }
        }
        3 | 4 => {
            number(out, b",\"type\":", flow.icmp().0.into());
            number(out, b",\"code\":", flow.icmp().1.into());
        }
        7 => number(out, b",\"type\":", flow.icmp().0.into()),
        _ => {}
    });
    out.push(b'}');
}

fn service(out: &mut Vec<u8>, key: &[u8], service: Option<&Arc<Service>>) {
    if let Some(service) = service {
        out.extend_from_slice(key);
        object(out, |out| {
            string(out, b",\"name\":", &service.name);
            string(out, b",\"namespace\":", &service.namespace);
        });
    }
}

fn names(out: &mut Vec<u8>, key: &[u8], names: &[Box<str>]) {
    for (place, name) in names.iter().enumerate() {
        out.extend_from_slice(if place == 0 { key } else { b"," });
        quoted(out, |out| escaped(name, out));
    }
    if !names.is_empty() {
        out.push(b']');
    }
}

fn summary(out: &mut Vec<u8>, flow: &Flow<'_>) {
    if let Some(l7) = flow.l7 {
        let mut text = Vec::new();
        text::l7_summary(&mut text, l7);
        return escaped(&String::from_utf8_lossy(&text), out);
    }
    text::packet_summary(out, flow);
    if let Some(site) = flow.drop.filter(|site| !site.is_by_policies()) {
        out.extend_from_slice(b"; ");
        escaped(&site.kernel_reason, out);
        if let Ok(location) = &site.location {
            out.extend_from_slice(b" at ");
            escaped(location, out);
        }
    }
}

/// Fields that each begin with a comma, the first one's replaced by the bracket.
#[inline]
fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    fields(out);
    if out.len() == at {
        out.push(b'{');
    }
    out[at] = b'{';
    out.push(b'}');
}

#[inline]
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// A number; 0 is the default and is left out.
#[inline]
fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    if value != 0 {
        out.extend_from_slice(key);
        unsigned(value, out);
    }
}

/// A text; an empty one is the default and is left out.
#[inline]
fn string(out: &mut Vec<u8>, key: &[u8], text: &str) {
    if !text.is_empty() {
        out.extend_from_slice(key);
        quoted(out, |out| escaped(text, out));
    }
}

/// The name of an enum's value, which needs no escape.
#[inline]
fn name(out: &mut Vec<u8>, key: &[u8], name: &str) {
    out.extend_from_slice(key);
    quoted(out, |out| out.extend_from_slice(name.as_bytes()));
}

/// Enums whose values have names.
trait Named: TryFrom<i32> {
    fn name(self) -> &'static str;
}

macro_rules! named {
    ($($kind:ty),*) => {
        $(impl Named for $kind {
            fn name(self) -> &'static str {
                self.as_str_name()
            }
        })*
    };
}
named!(
    proto::Verdict,
    proto::TrafficDirection,
    proto::DropReason,
    proto::TraceObservationPoint,
    proto::TraceReason,
    proto::tunnel::Protocol
);

/// An enum by name, by number where it has no name; 0 is the default and is left out.
#[inline]
fn enumeration<E: Named>(out: &mut Vec<u8>, key: &[u8], value: i32) {
    match E::try_from(value) {
        _ if value == 0 => {}
        Ok(known) => name(out, key, known.name()),
        Err(_) => number(out, key, u64::from(value.unsigned_abs())),
    }
}

/// The entries of a `google.protobuf.Struct`, which in JSON are an object's fields.
struct Struct<'a>(&'a mut Vec<u8>);

impl Struct<'_> {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0
    }
}

impl Entries for Struct<'_> {
    #[inline]
    fn number(&mut self, key: &'static str, number: u64) {
        /// Above it a double is not exact, so the digits are those of the double.
        const EXACT: u64 = 1 << 53;
        match number {
            0 => {}
            1..=EXACT => unsigned(number, self.key(key)),
            _ => double(number as f64, self.key(key)),
        }
    }

    fn yes(&mut self, key: &'static str) {
        self.key(key).extend_from_slice(b"true");
    }

    fn text(&mut self, key: &'static str, text: &str) {
        quoted(self.key(key), |out| escaped(text, out));
    }

    #[inline]
    fn plain(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        quoted(self.key(key), write);
    }
}

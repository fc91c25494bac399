//! A stored flow as Hubble's `GetFlowsResponse`: pieces copied into one buffer, no message tree.
//!
//! Which event fills which field follows Hubble: a trace has a point and a reason, a drop a drop reason, both have ends,
//! addresses and a Summary. The emitter is named `Observer`: clients show it, none decides by it.

use super::{extensions, mask::Mask, tunnel, wire};
use crate::flow::{Flow, Notes, Tristate};
use observer_proto::{
    flow as proto, observer as api,
    summary::{self, Packet},
};
use prost::Message as _;
use std::{io::Write as _, net::IpAddr, sync::Arc};

/// The node that the flows were seen on, and the server's version.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The cluster's name; `default` where there is no other.
    pub cluster: String,
    /// The node's own name.
    pub name: String,
    /// The node's labels, `key=value`, sorted.
    pub labels: Vec<String>,
    /// The server's version (semver, no `v`).
    pub version: String,
}

impl NodeInfo {
    /// `cluster/node`, as in `flow.node_name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }
}

/// `flow.Flow`'s field numbers that are used more than once.
mod field {
    pub(super) const TIME: u32 = 1;
    pub(super) const NODE_NAME: u32 = 11;
    pub(super) const RESPONSE_FLOW: u32 = 1;
    pub(super) const RESPONSE_NODE_NAME: u32 = 1000;
    pub(super) const RESPONSE_TIME: u32 = 1001;
}

/// Length of a gRPC message's head: a flag byte and the length.
const GRPC_HEAD: usize = 5;

/// Encodes flows one after the other; keeps its buffers.
#[derive(Clone, Debug)]
pub struct Encoder {
    node_name: Arc<str>,
    /// `node_labels`, field by field, then `emitter`.
    node_fields: Arc<[u8]>,
    flow: Vec<u8>,
    masked: Vec<u8>,
}

impl Encoder {
    /// For the flows of one node.
    pub fn new(node: &NodeInfo) -> Self {
        let mut fields = Vec::new();
        for label in &node.labels {
            wire::bytes(&mut fields, 37, label.as_bytes());
        }
        wire::nested(&mut fields, 41, |out| {
            wire::text(out, 1, "Observer");
            wire::text(out, 2, &node.version);
        });
        Self {
            node_name: node.full_name().into(),
            node_fields: fields.into(),
            flow: Vec::with_capacity(2048),
            masked: Vec::new(),
        }
    }

    /// `cluster/node`.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The flow as an encoded `flow.Flow`.
    pub fn flow(&mut self, sequence: u64, flow: &Flow) -> &[u8] {
        self.flow.clear();
        write_flow(&mut self.flow, sequence, flow, &self.node_name, &self.node_fields);
        &self.flow
    }

    /// Appends the flow to `out` as one gRPC message.
    pub fn response(&mut self, out: &mut Vec<u8>, sequence: u64, flow: &Flow, mask: Option<&Mask>) {
        self.flow(sequence, flow);
        let message = if let Some(mask) = mask {
            self.masked.clear();
            mask.apply(&self.flow, &mut self.masked);
            &self.masked
        } else {
            &self.flow
        };
        grpc_message(out, |out| {
            wire::bytes(out, field::RESPONSE_FLOW, message);
            // Hubble copies both from the flow as it is after the mask.
            let find = |number| wire::fields(message).find(|f| f.number == number).and_then(|f| f.content);
            let name = if mask.is_none() { Some(self.node_name.as_bytes()) } else { find(field::NODE_NAME) };
            if let Some(name) = name {
                wire::bytes(out, field::RESPONSE_NODE_NAME, name);
            }
            if let Some(time) = find(field::TIME) {
                wire::bytes(out, field::RESPONSE_TIME, time);
            }
        });
    }

    /// Appends a loss to `out` as one gRPC message. Times are Unix times in nanoseconds.
    pub fn lost(&self, out: &mut Vec<u8>, source: proto::LostEventSource, count: u64, first: i64, last: i64) {
        let response = api::GetFlowsResponse {
            node_name: self.node_name.to_string(),
            time: Some(proto_time(last)),
            response_types: Some(api::get_flows_response::ResponseTypes::LostEvents(proto::LostEvent {
                source: source.into(),
                num_events_lost: count,
                cpu: None,
                first: Some(proto_time(first)),
                last: Some(proto_time(last)),
            })),
        };
        grpc_message(out, |out| out.extend_from_slice(&response.encode_to_vec()));
    }
}

/// Nanoseconds as the message.
pub(super) fn proto_time(time_ns: i64) -> prost_types::Timestamp {
    const SECOND: i64 = 1_000_000_000;
    prost_types::Timestamp { seconds: time_ns.div_euclid(SECOND), nanos: time_ns.rem_euclid(SECOND) as i32 }
}

/// The uuid of a flow: RFC 9562 version 4 in form, unique by the sequence number in its second half.
pub(super) fn uuid_text(high: u64, sequence: u64) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let high = high & !0xf000 | 0x4000;
    let low = sequence & (u64::MAX >> 2) | 1 << 63;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for byte in high.to_be_bytes().into_iter().chain(low.to_be_bytes()) {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

fn grpc_message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; GRPC_HEAD]);
    write(out);
    let len = (out.len() - at - GRPC_HEAD) as u32;
    out[at + 1..at + GRPC_HEAD].copy_from_slice(&len.to_be_bytes());
}

/// Fields in the order of their numbers, as every protobuf library writes them.
fn write_flow(out: &mut Vec<u8>, sequence: u64, flow: &Flow, node_name: &str, node_fields: &[u8]) {
    let dropped = flow.is_drop();
    wire::nested(out, field::TIME, |out| timestamp(out, flow.time_ns));
    wire::number(out, 2, flow.verdict.into());
    if dropped {
        wire::number(out, 3, flow.drop_reason().into());
    }
    if flow.ethernet {
        wire::nested(out, 4, |out| {
            wire::nested(out, 1, |out| mac(out, flow.source_mac));
            wire::nested(out, 2, |out| mac(out, flow.destination_mac));
        });
    }
    if flow.ip_version != 0 {
        wire::nested(out, 5, |out| ip_header(out, flow));
        layer4(out, flow);
    }
    wire::bytes(out, 8, flow.source.encoded());
    wire::bytes(out, 9, flow.destination.encoded());
    wire::number(out, 10, proto::FlowType::L3L4 as u64);
    wire::text(out, field::NODE_NAME, node_name);
    wire::number(out, 16, (flow.is_reply == Tristate::Yes).into());
    wire::nested(out, 19, |out| {
        wire::number(out, 1, flow.event_type.into());
        wire::number(out, 2, flow.event_sub_type().into());
    });
    for (number, service) in [(20, &flow.source_service), (21, &flow.destination_service)] {
        if let Some(service) = service {
            wire::nested(out, number, |out| {
                wire::text(out, 1, &service.name);
                wire::text(out, 2, &service.namespace);
            });
        }
    }
    wire::number(out, 22, flow.direction.into());
    if !dropped {
        wire::number(out, 24, flow.observation_point.into());
    }
    if dropped {
        wire::number(out, 25, flow.drop_reason().into());
    }
    if let Some(is_reply) = flow.is_reply.as_option() {
        wire::nested(out, 26, |out| wire::number(out, 1, is_reply.into()));
    }
    if let Some(link) = &flow.link {
        wire::nested(out, 28, |out| {
            wire::number(out, 1, link.index.into());
            wire::text(out, 2, &link.name);
        });
    }
    wire::bytes(out, 34, &uuid_text(flow.uuid_high, sequence));
    if !dropped {
        wire::number(out, 36, flow.trace_reason.into());
    }
    if let Some(tunnel) = &flow.tunnel {
        wire::nested(out, 39, |out| tunnel::write(out, tunnel));
    }
    out.extend_from_slice(node_fields);
    wire::nested(out, 100_000, |out| summary_text(out, flow));
    extensions::write(out, flow);
}

fn timestamp(out: &mut Vec<u8>, time_ns: i64) {
    let time = proto_time(time_ns);
    wire::number(out, 1, time.seconds as u64);
    wire::number(out, 2, time.nanos as u64);
}

fn ip_header(out: &mut Vec<u8>, flow: &Flow) {
    let address = |out: &mut Vec<u8>, field, ip: Option<IpAddr>| {
        if let Some(ip) = ip {
            wire::nested(out, field, |out| ip_text(out, ip));
        }
    };
    address(out, 1, flow.source_ip);
    address(out, 2, flow.destination_ip);
    wire::number(
        out,
        3,
        if flow.ip_version == 6 { proto::IpVersion::IPv6 } else { proto::IpVersion::IPv4 } as u64,
    );
    address(out, 5, flow.source_xlated);
}

/// IANA protocol numbers with a message of their own, and the field of that message in `Layer4`.
fn layer4_field(protocol: u8) -> Option<u32> {
    Some(match protocol {
        6 => 1,
        17 => 2,
        1 => 3,
        58 => 4,
        132 => 5,
        112 => 6,
        2 => 7,
        _ => return None,
    })
}

/// A later fragment has the protocol, which clients need to draw a link, but no ports and no flags.
fn layer4(out: &mut Vec<u8>, flow: &Flow) {
    let Some(field) = layer4_field(flow.protocol) else { return };
    let fragment = flow.notes.has(Notes::FRAGMENT);
    wire::nested(out, 6, |out| {
        wire::nested(out, field, |out| match field {
            _ if fragment => {}
            1 | 2 | 5 => {
                wire::number(out, 1, flow.source_port.into());
                wire::number(out, 2, flow.destination_port.into());
                if field == 1 {
                    // The bits stand in the order of the fields of TCPFlags.
                    wire::nested(out, 3, |out| {
                        for bit in 0..9 {
                            wire::number(out, bit + 1, (flow.tcp_flags >> bit & 1).into());
                        }
                    });
                }
            }
            3 | 4 => {
                wire::number(out, 1, flow.icmp_type.into());
                wire::number(out, 2, flow.icmp_code.into());
            }
            // IGMP's type; the group is not recorded.
            7 => wire::number(out, 1, flow.icmp_type.into()),
            _ => {}
        });
    });
}

/// `TCP Flags: SYN; NETFILTER_DROP at nf_hook_slow+0xab`; a later fragment is bare IP.
fn summary_text(out: &mut Vec<u8>, flow: &Flow) {
    let protocol = if flow.notes.has(Notes::FRAGMENT) { 0 } else { flow.protocol };
    let packet =
        Packet::from_numbers(flow.ip_version, protocol, flow.tcp_flags, flow.icmp_type, flow.icmp_code);
    // Writing to a Vec can't fail.
    let _ = summary::write(packet, &mut wire::Text(out));
    if let Some(site) = &flow.drop {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(site.kernel_reason.as_bytes());
        if let Ok(location) = &site.location {
            out.extend_from_slice(b" at ");
            out.extend_from_slice(location.as_bytes());
        }
    }
}

pub(super) fn ip_text(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            // The formatter of the standard library takes several times as long.
            let (mut text, mut len) = ([b'.'; 15], 0);
            for (index, octet) in ip.octets().into_iter().enumerate() {
                len += usize::from(index > 0);
                for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
                    if octet >= least {
                        text[len] = b'0' + digit;
                        len += 1;
                    }
                }
            }
            out.extend_from_slice(&text[..len]);
        }
        IpAddr::V6(ip) => {
            // Writing to a Vec can't fail.
            let _ = write!(out, "{ip}");
        }
    }
}

fn mac(out: &mut Vec<u8>, mac: [u8; 6]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b':'; 17];
    for (place, byte) in text.chunks_mut(3).zip(mac) {
        place[0] = HEX[usize::from(byte >> 4)];
        place[1] = HEX[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text);
}

//! A stored flow as Hubble's `GetFlowsResponse`, in protobuf and in JSON: pieces copied into one buffer, no message tree.
//!
//! Which event fills which field follows Hubble: a trace has a point and a reason, a drop a drop reason, a policy verdict its
//! policies, all have ends, addresses and a Summary. The emitter is named `Observer`: clients show it, none decides by it.

mod extensions;
mod json;
mod protobuf;
mod text;

pub(super) use text::{begin_life, uuid as uuid_text};

use super::{mask::Mask, wire};
use crate::{
    enrich::{LabelsNow, NodeLabels},
    flow::{Flow, Tunnel, TunnelKind},
};
use observer_proto::{flow as proto, json::Calendar, observer as api};
use prost::Message as _;
use std::sync::Arc;

/// The node that the flows were seen on, and the server's version.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The cluster's name; `default` where there is no other.
    pub cluster: String,
    /// The node's own name.
    pub name: String,
    /// The node's labels. A flow has those of when it is told.
    pub labels: NodeLabels,
    /// The server's version (semver, no `v`).
    pub version: String,
}

impl NodeInfo {
    /// `cluster/node`, as in `flow.node_name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }
}

/// Numbers of `GetFlowsResponse`'s fields.
mod field {
    pub(super) const FLOW: u32 = 1;
    pub(super) const NODE_NAME: u32 = 1000;
    pub(super) const TIME: u32 = 1001;
}

/// Length of a gRPC message's head: a flag byte and the length.
pub(crate) const GRPC_HEAD: usize = 5;
const UDP: u8 = 17;
const EMITTER: &str = "Observer";

/// What all flows of a node have in common.
#[derive(Clone, Debug)]
struct Fixed {
    /// The node's.
    labels: Arc<Vec<String>>,
    protobuf: Arc<protobuf::Fixed>,
    json: Arc<json::Fixed>,
}

impl Fixed {
    fn new(node: &NodeInfo, labels: &Arc<Vec<String>>) -> Self {
        Self {
            labels: Arc::clone(labels),
            protobuf: Arc::new(protobuf::Fixed::new(node, labels)),
            json: Arc::new(json::Fixed::new(node, labels)),
        }
    }
}

/// Encodes flows one after the other; keeps its buffers.
#[derive(Clone, Debug)]
pub struct Encoder {
    node: Arc<NodeInfo>,
    node_name: Arc<str>,
    labels: LabelsNow,
    fixed: Fixed,
    calendar: Calendar,
    flow: Vec<u8>,
    masked: Vec<u8>,
}

impl Encoder {
    /// For the flows of one node.
    pub fn new(node: &NodeInfo) -> Self {
        let mut labels = node.labels.follow();
        Self {
            node: Arc::new(node.clone()),
            node_name: node.full_name().into(),
            fixed: Fixed::new(node, labels.load()),
            labels,
            calendar: Calendar::default(),
            flow: Vec::new(),
            masked: Vec::new(),
        }
    }

    /// `cluster/node`.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Takes the node's labels as they are now.
    fn renew(&mut self) {
        let labels = self.labels.load();
        if !Arc::ptr_eq(labels, &self.fixed.labels) {
            self.fixed = Fixed::new(&self.node, labels);
        }
    }

    /// Appends the flow to `out` as one gRPC message.
    pub fn response(&mut self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>, mask: Option<&Mask>) {
        self.renew();
        if let Some(mask) = mask {
            return self.masked(out, sequence, flow, mask);
        }
        let Self { fixed: Fixed { protobuf, .. }, calendar, node_name, .. } = self;
        grpc_message(out, |out| {
            wire::nested_long(out, field::FLOW, |out| protobuf.flow(out, sequence, flow, calendar));
            wire::bytes(out, field::NODE_NAME, node_name.as_bytes());
            wire::nested(out, field::TIME, |out| protobuf::timestamp(out, flow.time_ns));
        });
    }

    fn masked(&mut self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>, mask: &Mask) {
        self.flow.clear();
        self.masked.clear();
        self.fixed.protobuf.flow(&mut self.flow, sequence, flow, &mut self.calendar);
        mask.apply(&self.flow, &mut self.masked);
        let message = &self.masked;
        grpc_message(out, |out| {
            wire::bytes(out, field::FLOW, message);
            // Hubble copies both from the flow as it is after the mask.
            let find = |number| wire::fields(message).find(|f| f.number == number).and_then(|f| f.content);
            if let Some(name) = find(protobuf::NODE_NAME) {
                wire::bytes(out, field::NODE_NAME, name);
            }
            if let Some(time) = find(protobuf::TIME) {
                wire::bytes(out, field::TIME, time);
            }
        });
    }

    /// Appends the flow to `out` as Hubble's JSON line, without a newline: the response's, which is the exporter's too.
    pub fn json_line(&mut self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>) {
        self.renew();
        self.fixed.json.line(out, sequence, flow, &mut self.calendar);
    }

    /// Appends a loss to `out` as one gRPC message. Times are Unix times in nanoseconds.
    pub fn lost(&self, out: &mut Vec<u8>, source: proto::LostEventSource, count: u64, first: i64, last: i64) {
        let response = self.lost_response(source, count, first, last);
        grpc_message(out, |out| out.extend_from_slice(&response.encode_to_vec()));
    }

    fn lost_response(
        &self,
        source: proto::LostEventSource,
        count: u64,
        first: i64,
        last: i64,
    ) -> api::GetFlowsResponse {
        api::GetFlowsResponse {
            node_name: self.node_name.to_string(),
            time: Some(proto_time(last)),
            response_types: Some(api::get_flows_response::ResponseTypes::LostEvents(proto::LostEvent {
                source: source.into(),
                num_events_lost: count,
                cpu: None,
                first: Some(proto_time(first)),
                last: Some(proto_time(last)),
            })),
        }
    }
}

/// Nanoseconds as the message.
pub(crate) fn proto_time(time_ns: i64) -> prost_types::Timestamp {
    let (seconds, nanos) = seconds_and_nanos(time_ns);
    prost_types::Timestamp { seconds, nanos: nanos as i32 }
}

fn seconds_and_nanos(time_ns: i64) -> (i64, i64) {
    const SECOND: i64 = 1_000_000_000;
    (time_ns.div_euclid(SECOND), time_ns.rem_euclid(SECOND))
}

/// IANA protocol numbers that have a message of their own in `flow.Layer4`: that message's name and field number.
fn layer4(protocol: u8) -> Option<(&'static str, u32)> {
    Some(match protocol {
        6 => ("TCP", 1),
        17 => ("UDP", 2),
        1 => ("ICMPv4", 3),
        58 => ("ICMPv6", 4),
        132 => ("SCTP", 5),
        112 => ("VRRP", 6),
        2 => ("IGMP", 7),
        _ => return None,
    })
}

fn ip_version(is_ipv6: bool) -> proto::IpVersion {
    if is_ipv6 { proto::IpVersion::IPv6 } else { proto::IpVersion::IPv4 }
}

/// Hubble has names for two; what the others are stands in `extensions`.
fn tunnel_protocol(tunnel: &Tunnel) -> proto::tunnel::Protocol {
    match tunnel.kind {
        TunnelKind::Vxlan => proto::tunnel::Protocol::Vxlan,
        TunnelKind::Geneve => proto::tunnel::Protocol::Geneve,
        TunnelKind::Gre | TunnelKind::IpInIp | TunnelKind::Forgotten => proto::tunnel::Protocol::Unknown,
    }
}

fn grpc_message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; GRPC_HEAD]);
    write(out);
    let len = (out.len() - at - GRPC_HEAD) as u32;
    out[at + 1..at + GRPC_HEAD].copy_from_slice(&len.to_be_bytes());
}

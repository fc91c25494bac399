//! `flow.Flow` as protobuf: fields in the order of their numbers, as every library writes them.

use super::{
    super::wire,
    EMITTER, NodeInfo, UDP,
    extensions::{self, Entries},
    ip_version, layer4, seconds_and_nanos, text, tunnel_protocol,
};
use crate::flow::{Flow, Notes, Tristate, Tunnel};
use observer_proto::{flow as proto, json::Calendar};
use std::net::IpAddr;

/// Field numbers that are used more than once.
pub(super) const TIME: u32 = 1;
pub(super) const NODE_NAME: u32 = 11;

/// What all flows of a node have in common.
#[derive(Debug)]
pub(super) struct Fixed {
    /// `Type` and `node_name`.
    node: Box<[u8]>,
    /// The same of a request or response.
    node_l7: Box<[u8]>,
    /// `node_labels`, field by field.
    labels: Box<[u8]>,
    emitter: Box<[u8]>,
}

impl Fixed {
    pub(super) fn new(node: &NodeInfo, node_labels: &[String]) -> Self {
        let (mut labels, mut emitter) = (Vec::new(), Vec::new());
        let name = |kind: proto::FlowType| {
            let mut name = Vec::new();
            wire::number(&mut name, 10, kind as u64);
            wire::text(&mut name, NODE_NAME, &node.full_name());
            name.into_boxed_slice()
        };
        for label in node_labels {
            wire::bytes(&mut labels, 37, label.as_bytes());
        }
        wire::nested(&mut emitter, 41, |out| {
            wire::text(out, 1, EMITTER);
            wire::text(out, 2, &node.version);
        });
        Self {
            node: name(proto::FlowType::L3L4),
            node_l7: name(proto::FlowType::L7),
            labels: labels.into(),
            emitter: emitter.into(),
        }
    }

    /// Appends the flow.
    pub(super) fn flow(&self, out: &mut Vec<u8>, sequence: u64, flow: &Flow<'_>, calendar: &mut Calendar) {
        let dropped = flow.is_drop();
        wire::nested(out, TIME, |out| timestamp(out, flow.time_ns));
        wire::number(out, 2, flow.verdict.into());
        wire::number(out, 3, flow.drop_reason().into());
        if flow.has_macs() {
            wire::nested(out, 4, |out| {
                wire::bytes(out, 1, &text::mac(flow.source_mac));
                wire::bytes(out, 2, &text::mac(flow.destination_mac));
            });
        }
        if flow.ip_version != 0 {
            wire::nested(out, 5, |out| ip_header(out, flow));
            transport(out, flow);
        }
        wire::bytes(out, 8, flow.source.encoded());
        wire::bytes(out, 9, flow.destination.encoded());
        out.extend_from_slice(if flow.is_l7() { &self.node_l7 } else { &self.node });
        for (number, names) in [(13, flow.source_names()), (14, flow.destination_names())] {
            for name in names {
                wire::bytes(out, number, name.as_bytes());
            }
        }
        if let Some(l7) = flow.l7 {
            wire::nested_long(out, 15, |out| append(out, l7.message()));
        }
        wire::number(out, 16, (flow.is_reply == Tristate::Yes).into());
        wire::nested(out, 19, |out| {
            wire::number(out, 1, flow.event_type.into());
            wire::number(out, 2, flow.event_sub_type().into());
        });
        for (number, service) in [(20, flow.source_service), (21, flow.destination_service)] {
            if let Some(service) = service {
                wire::nested(out, number, |out| {
                    wire::text(out, 1, &service.name);
                    wire::text(out, 2, &service.namespace);
                });
            }
        }
        wire::number(out, 22, flow.direction.into());
        if let Some(policy) = flow.policy.filter(|_| !dropped) {
            wire::number(out, 23, policy.told().match_type.into());
        }
        if !dropped {
            wire::number(out, 24, flow.observation_point.into());
        }
        wire::number(out, 25, flow.drop_reason().into());
        if let Some(is_reply) = flow.is_reply.as_option() {
            wire::nested(out, 26, |out| wire::number(out, 1, is_reply.into()));
        }
        if let Some(link) = flow.link {
            wire::nested(out, 28, |out| {
                wire::number(out, 1, link.index.into());
                wire::text(out, 2, &link.name);
            });
        }
        if let Some(id) = flow.l7.and_then(|l7| l7.trace_id()) {
            wire::nested(out, 30, |out| wire::nested(out, 1, |out| wire::text(out, 1, id)));
        }
        wire::bytes(out, 34, &text::uuid(sequence));
        wire::number(out, 36, flow.trace_reason.into());
        out.extend_from_slice(&self.labels);
        if let Some(around) = flow.tunnel {
            wire::nested(out, 39, |out| tunnel(out, around));
        }
        out.extend_from_slice(&self.emitter);
        if let Some(policy) = flow.policy {
            out.extend_from_slice(policy.protobuf());
        }
        wire::nested(out, 100_000, |out| summary(out, flow));
        if extensions::has_any(flow) {
            wire::nested_long(out, 150_000, |out| {
                wire::text(out, 1, extensions::TYPE_URL);
                wire::nested(out, 2, |out| extensions::write(flow, calendar, &mut Struct(out)));
            });
        }
    }
}

/// Appends a message of a library's.
fn append(out: &mut Vec<u8>, message: &impl prost::Message) {
    // A Vec has room for anything.
    let _ = message.encode(out);
}

/// A `google.protobuf.Timestamp`.
pub(super) fn timestamp(out: &mut Vec<u8>, time_ns: i64) {
    let (seconds, nanos) = seconds_and_nanos(time_ns);
    wire::number(out, 1, seconds as u64);
    wire::number(out, 2, nanos as u64);
}

fn ip_header(out: &mut Vec<u8>, flow: &Flow<'_>) {
    let address = |out: &mut Vec<u8>, field, ip: Option<IpAddr>| {
        if let Some(ip) = ip {
            wire::nested(out, field, |out| text::ip(out, ip));
        }
    };
    address(out, 1, flow.source_ip);
    address(out, 2, flow.destination_ip);
    wire::number(out, 3, ip_version(flow.ip_version == 6) as u64);
    address(out, 5, flow.source_xlated());
}

/// What is around the packet, the outermost headers.
fn tunnel(out: &mut Vec<u8>, tunnel: &Tunnel) {
    wire::number(out, 1, tunnel_protocol(tunnel) as u64);
    if let Some(((source, source_port), (destination, destination_port))) = tunnel.ends {
        wire::nested(out, 2, |out| {
            wire::nested(out, 1, |out| text::ip(out, source));
            wire::nested(out, 2, |out| text::ip(out, destination));
            wire::number(out, 3, ip_version(source.is_ipv6()) as u64);
        });
        if tunnel.protocol == UDP {
            wire::nested(out, 3, |out| {
                wire::nested(out, 2, |out| {
                    wire::number(out, 1, source_port.into());
                    wire::number(out, 2, destination_port.into());
                });
            });
        }
    }
    wire::number(out, 4, tunnel.vni.into());
}

/// A later fragment has the protocol, which clients need to draw a link, but no ports and no flags.
fn transport(out: &mut Vec<u8>, flow: &Flow<'_>) {
    let Some((_, field)) = layer4(flow.protocol) else { return };
    let fragment = flow.notes.has(Notes::FRAGMENT);
    wire::nested(out, 6, |out| {
        wire::nested(out, field, |out| match field {
            _ if fragment => {}
            1 | 2 | 5 => {
                wire::number(out, 1, flow.source_port.into());
                wire::number(out, 2, flow.destination_port.into());
                if field == 1 && !flow.is_l7() {
                    // The bits stand in the order of the fields of TCPFlags.
                    wire::nested(out, 3, |out| {
                        for bit in 0..9 {
                            wire::number(out, bit + 1, (flow.tcp_flags() >> bit & 1).into());
                        }
                    });
                }
            }
            3 | 4 => {
                wire::number(out, 1, flow.icmp().0.into());
                wire::number(out, 2, flow.icmp().1.into());
            }
            // IGMP's type; the group is not recorded.
            7 => wire::number(out, 1, flow.icmp().0.into()),
            _ => {}
        });
    });
}

/// `TCP Flags: SYN; NETFILTER_DROP at nf_hook_slow+0xab`.
fn summary(out: &mut Vec<u8>, flow: &Flow<'_>) {
    if let Some(l7) = flow.l7 {
        return text::l7_summary(out, l7);
    }
    text::packet_summary(out, flow);
    if let Some(site) = flow.drop.filter(|site| !site.is_by_policies()) {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(site.kernel_reason.as_bytes());
        if let Ok(location) = &site.location {
            out.extend_from_slice(b" at ");
            out.extend_from_slice(location.as_bytes());
        }
    }
}

/// A `google.protobuf.Struct`; its fields are entries of a map from text to `google.protobuf.Value`.
struct Struct<'a>(&'a mut Vec<u8>);

/// Fields of `google.protobuf.Value`.
mod value {
    pub(super) const NUMBER: u32 = 2;
    pub(super) const STRING: u32 = 3;
    pub(super) const BOOL: u32 = 4;
}

/// Tags of an entry and of what is in it.
const ENTRY: u8 = 1 << 3 | wire::LENGTH as u8;
const KEY: u8 = 1 << 3 | wire::LENGTH as u8;
const VALUE: u8 = 2 << 3 | wire::LENGTH as u8;

impl Struct<'_> {
    #[inline]
    fn entry(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        wire::nested(self.0, 1, |out| {
            wire::bytes(out, 1, key.as_bytes());
            wire::nested(out, 2, value);
        });
    }
}

impl Entries for Struct<'_> {
    /// Exact up to 2^53, as any number in JSON.
    #[inline]
    fn number(&mut self, key: &'static str, number: u64) {
        if number == 0 {
            return;
        }
        // As `entry` writes it, with lengths that are known before: no key has more than 100 bytes.
        let [len, value_len] = [key.len() as u8, 1 + size_of::<f64>() as u8];
        let out = &mut *self.0;
        out.extend_from_slice(&[ENTRY, len + value_len + 4, KEY, len]);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&[VALUE, value_len]);
        wire::double(out, value::NUMBER, number as f64);
    }

    fn yes(&mut self, key: &'static str) {
        self.entry(key, |out| wire::number(out, value::BOOL, 1));
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.entry(key, |out| wire::bytes(out, value::STRING, text.as_bytes()));
    }

    #[inline]
    fn plain(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.entry(key, |out| wire::nested(out, value::STRING, write));
    }
}

//! What flows can be grouped by. A field is named as the filter flag that selects its values, where there is one.

use super::ends;
use crate::{
    Facts,
    flow::{Flow, Policy, TrafficDirection, Verdict},
    names,
    text::{
        Shown,
        parts::{self, End},
    },
};
use std::fmt;

/// A field.
#[derive(Clone, Copy)]
pub struct Field {
    /// As it is asked for.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    read: fn(&Flow, &Facts) -> String,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Field {
    /// Its value in a flow, as it was sent; empty where the flow has none.
    pub fn of(&self, flow: &Flow, facts: &Facts) -> String {
        (self.read)(flow, facts)
    }
}

const fn field(name: &'static str, help: &'static str, read: fn(&Flow, &Facts) -> String) -> Field {
    Field { name, help, read }
}

const S: End = End::Source;
const D: End = End::Destination;

/// All of them.
pub const FIELDS: &[Field] = &[
    field("from", "the source as lines show it: pod, service, DNS name or address", |f, _| ends::shown(f, S)),
    field("to", "the destination likewise", |f, _| ends::shown(f, D)),
    field("client", "the workload that called, whichever way a packet goes", |f, _| {
        ends::workload(f, ends::callers(f).0)
    }),
    field("server", "the workload that was called", |f, _| ends::workload(f, ends::callers(f).1)),
    field("port", "the server's port and protocol", |f, _| {
        ends::port(ends::protocol(f), ends::callers(f).1.port(f))
    }),
    field("from-pod", "the source's pod", |f, _| ends::pod(f, S)),
    field("to-pod", "the destination's pod", |f, _| ends::pod(f, D)),
    field("from-namespace", "the source's namespace", |f, _| ends::namespace(f, S)),
    field("to-namespace", "the destination's namespace", |f, _| ends::namespace(f, D)),
    field("from-workload", "the source's workload", |f, _| ends::workload(f, S)),
    field("to-workload", "the destination's workload", |f, _| ends::workload(f, D)),
    field("from-service", "the service that stands for the source", |f, _| ends::service(f, S)),
    field("to-service", "the service that was called", |f, _| ends::service(f, D)),
    field("from-ip", "the source's address", |f, _| ends::address(f, S).to_owned()),
    field("to-ip", "the destination's address", |f, _| ends::address(f, D).to_owned()),
    field("from-port", "the source's port", |f, _| number(S.port(f))),
    field("to-port", "the destination's port", |f, _| number(D.port(f))),
    field("from-identity", "the source's security identity", |f, _| identity(f, S)),
    field("to-identity", "the destination's security identity", |f, _| identity(f, D)),
    field("protocol", "TCP, UDP, ICMPv4 and the like", |f, _| ends::protocol(f).to_owned()),
    field("verdict", "FORWARDED, DROPPED and the like", |f, _| {
        Verdict::try_from(f.verdict).map_or_else(|_| f.verdict.to_string(), |v| v.as_str_name().to_owned())
    }),
    field("type", "the kind of event, as the last but one column of a line", |f, _| {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = parts::event_type(&Shown::of(f), &mut text);
        text
    }),
    field("reason", "why a packet was dropped: the kernel's name, else Hubble's", |f, facts| {
        ends::reason(f, &facts.kernel_reason).into_owned()
    }),
    field("drop-reason-desc", "why a packet was dropped: Hubble's name", |f, _| {
        ends::reason_name(f).into_owned()
    }),
    field("location", "the kernel's function that dropped a packet", |_, facts| {
        facts.kernel_function().to_owned()
    }),
    field("policy", "the policies that allowed or denied it", |f, _| policies(f)),
    field("traffic-direction", "INGRESS or EGRESS", |f, _| match f.traffic_direction() {
        TrafficDirection::Unknown => String::new(),
        direction => direction.as_str_name().to_owned(),
    }),
    field("reply", "whether it is a reply", |f, _| f.is_reply.map_or_else(String::new, |is| is.to_string())),
    field("interface", "the link that it was seen on", |f, _| {
        f.interface.as_ref().map_or_else(String::new, |interface| interface.name.clone())
    }),
    field("node-name", "the node that saw it", |f, _| f.node_name.clone()),
];

/// Reads `from-pod,to-pod,port`; the error says which there are.
pub fn parse(text: &str) -> Result<Vec<Field>, String> {
    let find = |name: &str| {
        FIELDS.iter().find(|field| field.name == name).copied().ok_or_else(|| {
            let known: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
            format!("there is no field {name:?}; the fields are {}", known.join(", "))
        })
    };
    text.split(',').map(|name| find(name.trim())).collect()
}

/// All policies of a flow, as `namespace/name`.
pub(super) fn policies(flow: &Flow) -> String {
    let lists =
        [&flow.ingress_denied_by, &flow.egress_denied_by, &flow.ingress_allowed_by, &flow.egress_allowed_by];
    let mut names: Vec<String> = lists.into_iter().flatten().map(policy).collect();
    names.dedup();
    names.join(" ")
}

/// Those that deny it.
pub(super) fn denying(flow: &Flow) -> impl Iterator<Item = &Policy> {
    flow.ingress_denied_by.iter().chain(&flow.egress_denied_by)
}

pub(super) fn policy(policy: &Policy) -> String {
    if policy.namespace.is_empty() {
        policy.name.clone()
    } else {
        format!("{}/{}", policy.namespace, policy.name)
    }
}

fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn identity(flow: &Flow, end: End) -> String {
    let identity = end.endpoint(flow).map_or(0, |endpoint| endpoint.identity);
    names::reserved_identity_name(identity).map_or_else(|| identity.to_string(), str::to_owned)
}

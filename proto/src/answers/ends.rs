//! Names of a flow's ends, and which end called the other.

use crate::{
    flow::{Flow, TraceObservationPoint, Verdict, layer4::Protocol},
    names,
    text::{
        Options, Shown,
        parts::{self, End},
        wide::words,
    },
};
use std::borrow::Cow;

/// The end that called, and the one that was called.
pub(super) fn callers(flow: &Flow) -> (End, End) {
    if words::is_client(flow, End::Destination) && !words::is_client(flow, End::Source) {
        (End::Destination, End::Source)
    } else {
        (End::Source, End::Destination)
    }
}

/// As lines of flows name it: the pod, the service, the DNS name, else the address.
pub(super) fn shown(flow: &Flow, end: End) -> String {
    parts::name(Options::default(), &Shown::of(flow), end)
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

/// `namespace/name`; empty where it is no pod's.
pub(super) fn pod(flow: &Flow, end: End) -> String {
    end.endpoint(flow).map_or_else(String::new, |e| qualified(&e.namespace, &e.pod_name))
}

/// What outlives a pod, named as the daemon's statistics do: `namespace/workload`; without a workload the pod; else the
/// CIDR or the reserved name.
pub(super) fn workload(flow: &Flow, end: End) -> String {
    let Some(endpoint) = end.endpoint(flow) else { return "unknown".to_owned() };
    let name = endpoint.workloads.first().map_or(&endpoint.pod_name, |workload| &workload.name);
    if !name.is_empty() {
        return qualified(&endpoint.namespace, name);
    }
    let label = |prefix: &str| endpoint.labels.iter().find(|label| label.starts_with(prefix));
    match (label("cidr:"), label("reserved:")) {
        (Some(cidr), _) => cidr.clone(),
        (None, Some(reserved)) => reserved["reserved:".len()..].to_owned(),
        (None, None) => names::reserved_identity_name(endpoint.identity).unwrap_or("unknown").to_owned(),
    }
}

/// `namespace/name`; empty without one.
pub(super) fn service(flow: &Flow, end: End) -> String {
    end.service(flow).map_or_else(String::new, |service| qualified(&service.namespace, &service.name))
}

/// Empty where it has none.
pub(super) fn namespace(flow: &Flow, end: End) -> String {
    end.endpoint(flow).map(|e| e.namespace.clone()).unwrap_or_default()
}

pub(super) fn address(flow: &Flow, end: End) -> &str {
    flow.ip.as_ref().map_or("", |ip| match end {
        End::Source => &ip.source,
        End::Destination => &ip.destination,
    })
}

/// `TCP` and the like; empty for what is not IP, or of which the flow doesn't tell.
pub(super) fn protocol(flow: &Flow) -> &'static str {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(_)) => "TCP",
        Some(Protocol::Udp(_)) => "UDP",
        Some(Protocol::Sctp(_)) => "SCTP",
        Some(Protocol::IcmPv4(_)) => "ICMPv4",
        Some(Protocol::IcmPv6(_)) => "ICMPv6",
        Some(Protocol::Vrrp(_)) => "VRRP",
        Some(Protocol::Igmp(_)) => "IGMP",
        None => "",
    }
}

/// `8080/TCP`, or the protocol alone where it has no ports.
pub(super) fn port(protocol: &str, port: u32) -> String {
    match (protocol, port) {
        ("", 0) => "-".to_owned(),
        (protocol, 0) => protocol.to_owned(),
        ("", port) => port.to_string(),
        (protocol, port) => format!("{port}/{protocol}"),
    }
}

pub(super) fn is_drop(flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| event.r#type == names::EVENT_DROP)
        || flow.verdict == Verdict::Dropped as i32
}

/// What policies say of a connection.
pub(super) fn is_verdict(flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| event.r#type == names::EVENT_POLICY_VERDICT)
}

/// What was said inside a connection, whose packets other flows tell.
pub(super) fn is_l7(flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| event.r#type == names::EVENT_L7)
}

/// What is no packet: other flows tell of that, or none.
pub(super) fn is_apart(flow: &Flow) -> bool {
    is_verdict(flow) || is_l7(flow)
}

/// A packet told where a pod sends it is told again where it is delivered or leaves.
pub(super) fn is_told_again(flow: &Flow) -> bool {
    flow.trace_observation_point == TraceObservationPoint::FromEndpoint as i32
}

/// Of a request that was refused what it was: there is no reason of a drop for it.
pub(super) fn refused(flow: &Flow) -> Option<&'static str> {
    is_l7(flow).then(|| super::refused::reason(flow.l7.as_ref()))
}

/// The kernel's own reason of a drop; where the server tells none, Hubble's name; empty for no drop.
pub(super) fn reason<'a>(flow: &Flow, kernel_reason: &'a str) -> Cow<'a, str> {
    if !is_drop(flow) {
        return "".into();
    }
    if !kernel_reason.is_empty() {
        return kernel_reason.into();
    }
    refused(flow).map_or_else(|| reason_name(flow), Cow::from)
}

/// Hubble's name for the reason of a drop; empty for no drop.
pub(super) fn reason_name(flow: &Flow) -> Cow<'static, str> {
    if !is_drop(flow) {
        return "".into();
    }
    match names::drop_reason_name(flow.drop_reason_desc) {
        Some(name) => name.into(),
        None => format!("reason {}", flow.drop_reason_desc).into(),
    }
}

fn qualified(namespace: &str, name: &str) -> String {
    match (namespace, name) {
        (_, "") => String::new(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

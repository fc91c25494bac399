//! What policies say of a flow's connection, rule by rule: asked of the daemon, and kept for the flow that it was asked for.

use observer_proto::{
    control::{ExplainPolicyRequest, PolicyEnd, policy_end},
    flow::{Endpoint, Flow, layer4::Protocol},
    names,
};

/// The question about one flow, and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// The flow.
    pub uuid: String,
    /// What was said, for people; or why nothing can be said. None yet, if none.
    pub told: Option<Result<String, String>>,
}

/// What is to be asked about a flow; none for what no policy judges.
pub(crate) fn question(flow: &Flow) -> Option<ExplainPolicyRequest> {
    let (protocol, source_port, port) = match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => (6, tcp.source_port, tcp.destination_port),
        Protocol::Udp(udp) => (17, udp.source_port, udp.destination_port),
        Protocol::Sctp(sctp) => (132, sctp.source_port, sctp.destination_port),
        Protocol::IcmPv4(icmp) => (1, icmp.r#type, icmp.r#type),
        Protocol::IcmPv6(icmp) => (58, icmp.r#type, icmp.r#type),
        _ => return None,
    };
    let ip = flow.ip.as_ref()?;
    let ends = [(flow.source.as_ref(), &ip.source), (flow.destination.as_ref(), &ip.destination)];
    let [source, destination] =
        ends.map(|(own, at)| Some(PolicyEnd { end: Some(end(own, at)), at: at.clone() }));
    // Policies judge who opened the connection.
    let (source, destination, port) = if flow.is_reply == Some(true) {
        (destination, source, source_port)
    } else {
        (source, destination, port)
    };
    Some(ExplainPolicyRequest { source, destination, protocol, port, request: None })
}

fn end(endpoint: Option<&Endpoint>, address: &str) -> policy_end::End {
    let endpoint = endpoint.filter(|endpoint| !endpoint.pod_name.is_empty() || endpoint.identity > 0);
    match endpoint {
        Some(pod) if !pod.pod_name.is_empty() => {
            policy_end::End::Pod(format!("{}/{}", pod.namespace, pod.pod_name))
        }
        Some(reserved) => match names::reserved_identity_name(reserved.identity) {
            Some(name @ ("host" | "remote-node" | "kube-apiserver")) => {
                policy_end::End::Entity(name.to_owned())
            }
            _ => policy_end::End::Address(address.to_owned()),
        },
        None => policy_end::End::Address(address.to_owned()),
    }
}

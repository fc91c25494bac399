//! Connections as recorded flows tell them: both ends, port, and what became of it.

use observer_policy::{engine::Engine, label::Labels, world::Endpoint};
use observer_proto::{
    Facts,
    flow::{DropReason, Endpoint as WireEndpoint, Flow, FlowType, Verdict, layer4::Protocol},
};
use std::{net::IpAddr, sync::Arc};

/// What a recording says became of a connection; the greater is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Recorded {
    Passed,
    /// Dropped, but by no policy.
    Dropped,
    /// A policy denied it, or would have in another mode.
    Denied,
}

/// An end that policies know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    /// The engine's name for it; `None` for the world.
    pub(super) name: Option<Arc<str>>,
    pub(super) address: IpAddr,
    /// What it is counted under.
    pub(super) group: Arc<str>,
}

/// One end, and the endpoint that has to be made known for it.
pub(super) struct Told {
    pub(super) end: End,
    pub(super) endpoint: Option<Endpoint>,
}

/// A connection.
pub(super) struct Connection {
    pub(super) source: Told,
    pub(super) destination: Told,
    pub(super) ports: (u16, u16),
    pub(super) protocol: u8,
    pub(super) recorded: Recorded,
}

/// Why a flow was not judged.
pub(super) const REPLY: &str = "replies, and what is no packet of a connection";
const REQUEST: &str = "requests within connections (L7)";
const NO_PORT: &str = "no protocol and port";
const NO_ADDRESS: &str = "no address at an end";
const NO_LABELS: &str = "a pod without labels that the inventory doesn't know";
const UNKNOWN: &str = "an end that nobody knows";

impl Connection {
    /// Reads a flow; the error is the reason why it can't be judged. The engine knows the inventory.
    pub(super) fn of(flow: &Flow, engine: &Engine) -> Result<Self, &'static str> {
        if flow.r#type() == FlowType::L7 {
            return Err(REQUEST);
        }
        if flow.is_reply == Some(true) || matches!(flow.r#type(), FlowType::Sock) {
            return Err(REPLY);
        }
        let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()).ok_or(NO_PORT)?;
        let (protocol, ports) = match l4 {
            Protocol::Tcp(tcp) => (6, (tcp.source_port, tcp.destination_port)),
            Protocol::Udp(udp) => (17, (udp.source_port, udp.destination_port)),
            Protocol::Sctp(sctp) => (132, (sctp.source_port, sctp.destination_port)),
            Protocol::IcmPv4(icmp) => (1, (0, icmp.r#type)),
            Protocol::IcmPv6(icmp) => (58, (0, icmp.r#type)),
            _ => return Err(NO_PORT),
        };
        let ports = (ports.0 as u16, u16::try_from(ports.1).map_err(|_| NO_PORT)?);
        let ip = flow.ip.as_ref().ok_or(NO_ADDRESS)?;
        Ok(Self {
            source: end(flow.source.as_ref(), &ip.source, engine)?,
            destination: end(flow.destination.as_ref(), &ip.destination, engine)?,
            ports,
            protocol,
            recorded: recorded(flow),
        })
    }
}

fn recorded(flow: &Flow) -> Recorded {
    match flow.verdict() {
        Verdict::Audit => Recorded::Denied,
        // Hubble has one reason for policies and for firewalls, of which the kernel tells.
        Verdict::Dropped if !Facts::of(flow).kernel_reason.is_empty() => Recorded::Dropped,
        Verdict::Dropped => match flow.drop_reason_desc() {
            DropReason::PolicyDenied | DropReason::PolicyDeny => Recorded::Denied,
            _ => Recorded::Dropped,
        },
        Verdict::Error => Recorded::Dropped,
        _ => Recorded::Passed,
    }
}

/// By the inventory if it has a pod of that name; else by the flow's own labels; else by the inventory's addresses.
fn end(told: Option<&WireEndpoint>, address: &str, engine: &Engine) -> Result<Told, &'static str> {
    let address: IpAddr = address.parse().map_err(|_| NO_ADDRESS)?;
    let nobody = WireEndpoint::default();
    let told = told.unwrap_or(&nobody);
    let known = |name: &str, group: &str| {
        let end = End { name: Some(name.into()), address, group: group.into() };
        Told { end, endpoint: None }
    };
    let made = |name: String, group: &str, labels: &[String]| {
        let endpoint =
            Endpoint { labels: Labels::parse(labels), addresses: vec![address], ports: Vec::new() };
        let end = End { name: Some(name.into()), address, group: group.into() };
        Told { end, endpoint: Some(endpoint) }
    };
    if !told.pod_name.is_empty() {
        let name = format!("{}/{}", told.namespace, told.pod_name);
        let workload = told.workloads.first().filter(|workload| !workload.name.is_empty());
        let group = workload.map_or_else(|| name.clone(), |w| format!("{}/{}", told.namespace, w.name));
        if engine.endpoint(&name).is_some() {
            return Ok(known(&name, &group));
        }
        return if told.labels.is_empty() { Err(NO_LABELS) } else { Ok(made(name, &group, &told.labels)) };
    }
    if let Some(name) = engine.name_at(address) {
        return Ok(known(name, name));
    }
    let labels = Labels::parse(&told.labels);
    // Hubble's reserved identities: world, and the world's of each family.
    if labels.is_world()
        || labels.iter().any(|label| &*label.source == "cidr")
        || [2, 9, 10].contains(&told.identity)
    {
        return Ok(Told { end: End { name: None, address, group: "world".into() }, endpoint: None });
    }
    let reserved = labels.iter().find(|label| &*label.source == "reserved" && &*label.key != "unknown");
    match reserved {
        Some(label) => Ok(made(format!("{}:{address}", label.key), &label.key, &told.labels)),
        None => Err(UNKNOWN),
    }
}

//! From what a request calls an end to what the engine calls it.

use super::words;
use crate::{
    engine::{Engine, PeerId, SubjectId},
    label::{K8S, NAMESPACE},
    world::{self, Endpoint, ServicePort, Target},
};
use observer_proto::control::{PolicyEnd, PolicyParty, policy_end::End};
use std::net::IpAddr;

/// Entities that can be asked about.
const ENTITIES: &str = "host, remote-node, kube-apiserver or world";
/// The most names that an error lists.
const MAX_NAMES: usize = 5;

/// An end that was found.
pub(super) struct Found {
    /// `None`: no policy selects it.
    pub(super) subject: Option<SubjectId>,
    pub(super) peer: PeerId,
    pub(super) party: PolicyParty,
    /// Whether its address is of no rule since it is an entity.
    pub(super) any_address: bool,
}

/// Finds an end; of a pod's addresses the one it is asked about, else that of the `other` end's family. The error says what
/// would be right.
pub(super) fn find(engine: &Engine, end: &PolicyEnd, other: &PolicyEnd) -> Result<Found, String> {
    let address =
        || (end.at.parse().ok().map(|at: IpAddr| at.to_canonical()), family(end).or_else(|| family(other)));
    match &end.end {
        Some(End::Pod(name)) => {
            let (name, others) = pod(engine, name)?;
            named(engine, &name, address()).map(|mut found| {
                found.party.others = others;
                found
            })
        }
        Some(End::Address(text)) => {
            let address: IpAddr = text.parse().map_err(|_| {
                format!("{:?} is no address; write one such as 10.0.0.3 or fd00::3", text.as_str())
            })?;
            Ok(at(engine, address.to_canonical()))
        }
        Some(End::Entity(name)) => entity(engine, name, address()),
        None => Err("an end is missing; give a pod, an address or an entity".to_owned()),
    }
}

/// What an address of a service stands for.
pub(super) struct Service {
    /// One of those behind it with its port, where there are any: policies judge that.
    pub(super) behind: Option<(PolicyEnd, u16)>,
    /// Who that is, and who else there is.
    pub(super) note: String,
}

/// The service that an end is an address of.
pub(super) fn service(engine: &Engine, end: &PolicyEnd, protocol: u8, port: u16) -> Option<Service> {
    let Some(End::Address(text)) = &end.end else { return None };
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    let service = engine.surroundings().services.iter().find(|one| one.addresses.contains(&address))?;
    let name = format!("{address} is the service {}/{}", service.namespace, service.name);
    let word = words::protocol(protocol);
    let Some(called) = service.ports.iter().find(|one| (one.port, one.protocol) == (port, protocol)) else {
        return Some(Service { behind: None, note: format!("{name}, which has no port {port}/{word}") });
    };
    let mut found = backends(engine, service, called);
    found.retain(|(_, ip, _)| ip.is_ipv6() == address.is_ipv6());
    found.sort_unstable();
    let Some(&(kind, ip, port)) = found.first() else {
        return Some(Service { behind: None, note: format!("{name}, behind which nobody stands") });
    };
    let alike = found.iter().filter(|(other, _, number)| (*other, *number) == (kind, port)).count();
    let others = match (alike - 1, found.len() - alike) {
        (0, 0) => String::new(),
        (alike, 0) => format!(", and {alike} more alike"),
        (_, others) => format!("; of {others} more, which are other pods, ask by --to-pod"),
    };
    let who = engine.name_at(ip).map_or_else(|| ip.to_string(), str::to_owned);
    let end = PolicyEnd { end: Some(End::Address(ip.to_string())), at: String::new() };
    let note = format!("{name}: judged is what stands behind it, {who} at {port}/{word}{others}");
    Some(Service { behind: Some((end, port)), note })
}

/// Kind, address and port of each.
fn backends(engine: &Engine, service: &world::Service, called: &ServicePort) -> Vec<(u32, IpAddr, u16)> {
    if service.selector.is_empty() {
        let Target::Number(port) = called.target else { return Vec::new() };
        return service.backends.iter().map(|ip| (engine.peer_at(*ip).0, *ip, port)).collect();
    }
    let is_selected = |endpoint: &Endpoint| {
        let mut labels = service.selector.iter();
        endpoint.labels.get(K8S, NAMESPACE) == Some(&*service.namespace)
            && labels.all(|(key, value)| endpoint.labels.get(K8S, key) == Some(&**value))
    };
    let port = |endpoint: &Endpoint| match &called.target {
        Target::Number(number) => Some(*number),
        Target::Name(name) => {
            let mut ports = endpoint.ports.iter();
            ports.find(|one| one.name == *name && one.protocol == called.protocol).map(|one| one.port)
        }
    };
    let selected = engine.known().filter(|(.., endpoint)| is_selected(endpoint));
    let with_port = selected.filter_map(|(_, kind, endpoint)| Some((kind, port(endpoint)?, endpoint)));
    with_port.flat_map(|(kind, port, pod)| pod.addresses.iter().map(move |ip| (kind, *ip, port))).collect()
}

/// Whether an end is known to be IPv6.
fn family(end: &PolicyEnd) -> Option<bool> {
    let text = if let Some(End::Address(text)) = &end.end { text } else { &end.at };
    text.parse().ok().map(|address: IpAddr| address.to_canonical().is_ipv6())
}

/// An address that is wanted, and whether one of IPv6 is where it is none of the end's.
type Wanted = (Option<IpAddr>, Option<bool>);

fn at(engine: &Engine, address: IpAddr) -> Found {
    let (name, labels) = engine.at(address);
    let party = PolicyParty {
        name: name.map(ToString::to_string).unwrap_or_default(),
        address: address.to_string(),
        labels: labels.iter().map(ToString::to_string).collect(),
        others: 0,
    };
    Found { subject: engine.subject_at(address), peer: engine.peer_at(address), party, any_address: false }
}

/// An endpoint by its name, at one of its addresses.
fn named(engine: &Engine, name: &str, (at, ipv6): Wanted) -> Result<Found, String> {
    let ((subject, own), endpoint) = engine
        .endpoint(name)
        .zip(engine.endpoint_named(name))
        .ok_or_else(|| format!("no endpoint is named {name}"))?;
    let addresses = &endpoint.addresses;
    let wanted = addresses.iter().find(|address| Some(**address) == at);
    let of_family = || addresses.iter().find(|address| ipv6.is_none_or(|ipv6| address.is_ipv6() == ipv6));
    let own_address = wanted.or_else(of_family).or(addresses.first()).filter(|address| {
        // Another endpoint may have it by now.
        engine.at(**address).0.is_some_and(|owner| **owner == *name)
    });
    let party = PolicyParty {
        name: name.to_owned(),
        address: own_address.map(ToString::to_string).unwrap_or_default(),
        labels: endpoint.labels.iter().map(ToString::to_string).collect(),
        others: 0,
    };
    let peer = own_address.map_or(own, |address| engine.peer_at(*address));
    Ok(Found { subject: Some(subject), peer, party, any_address: false })
}

/// A pod by its name or by how the names of pods begin that policies can't tell apart; how many others those are.
fn pod(engine: &Engine, asked: &str) -> Result<(String, u64), String> {
    let Some((_, name)) = asked.split_once('/').filter(|(namespace, _)| !namespace.is_empty()) else {
        return Err(format!("{asked:?} is no pod; write namespace/name"));
    };
    if engine.endpoint(asked).is_some() {
        return Ok((asked.to_owned(), 0));
    }
    let mut found: Vec<(&str, u32)> = engine
        .known()
        .filter(|(own, ..)| !name.is_empty() && own.starts_with(asked))
        .map(|(own, kind, _)| (&**own, kind))
        .collect();
    found.sort_unstable();
    let Some(&(first, kind)) = found.first() else {
        return Err(format!("no pod {asked} is known; name one of the inventory, or give its address"));
    };
    if found.iter().any(|(_, other)| *other != kind) {
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).take(MAX_NAMES).collect();
        let more = if found.len() > MAX_NAMES { ", ..." } else { "" };
        let names = names.join(", ");
        return Err(format!("{asked} could be pods with different labels or ports: {names}{more}; name one"));
    }
    Ok((first.to_owned(), found.len() as u64 - 1))
}

fn entity(engine: &Engine, name: &str, wanted: Wanted) -> Result<Found, String> {
    if name == "world" {
        let party = PolicyParty { name: name.to_owned(), ..PolicyParty::default() };
        return Ok(Found { subject: None, peer: engine.world(), party, any_address: true });
    }
    if !["host", "remote-node", "kube-apiserver"].contains(&name) {
        return Err(format!("{name:?} is no entity that can be asked about; write {ENTITIES}"));
    }
    let mut found: Vec<&str> = engine
        .known()
        .filter(|(_, _, endpoint)| endpoint.labels.is_reserved(name))
        .map(|(own, ..)| &**own)
        .collect();
    found.sort_unstable();
    match found.first() {
        Some(first) => named(engine, first, wanted),
        None => Err(format!("no {name} is known; give its address")),
    }
}

//! What the kernel's maps are to hold: a world's tables, with the bits that the programs look at.

use crate::{
    capture::{CaptureError, PolicyMaps, PolicyTables},
    enrich::source::{ServiceEntry, ServicePort, TargetPort},
};
use hashbrown::HashMap;
use ipnet::IpNet;
use observer_ebpf::{
    parse::mapped,
    policy::{
        MOST_BACKENDS, NO_TABLE, OTHERS, PolicyBackend, PolicyBackends, PolicyCut, PolicyEndpoint,
        PolicyFrontend, PolicyRowKey, decision, endpoint_flags,
    },
};
use observer_policy::{
    engine::{At, Decision, Engine, RuleSetId, Touched, Verdict},
    label::{K8S, Labels, NAMESPACE},
    world::{Endpoint, NamedPort},
};
use std::{fmt, net::IpAddr, sync::Arc};

/// Addresses of endpoints that the maps are given; those of other nodes beyond are judged as the world's.
const MOST_ENDPOINTS: usize = 1 << 18;
/// Addresses and ports of services; those beyond are judged as the world's.
const MOST_FRONTENDS: usize = 1 << 16;

/// The kernel's side of policies: two slots of tables, one in force.
pub(crate) trait Kernel: Send + fmt::Debug {
    /// See [`PolicyMaps::write`], and [`PolicyMaps::write_addresses`] where it can differ by these only.
    fn write(
        &mut self,
        slot: u32,
        wanted: &PolicyTables,
        only: Option<&[[u8; 16]]>,
    ) -> Result<(), CaptureError>;
    /// See [`PolicyMaps::flip`].
    fn flip(&mut self) -> Result<u32, CaptureError>;
    /// See [`PolicyMaps::wait_for_programs`].
    fn wait_for_programs(&self) -> Result<(), CaptureError>;
    /// See [`PolicyMaps::generation`].
    fn generation(&self) -> u32;
}

impl Kernel for PolicyMaps {
    fn write(
        &mut self,
        slot: u32,
        wanted: &PolicyTables,
        only: Option<&[[u8; 16]]>,
    ) -> Result<(), CaptureError> {
        match only {
            Some(addresses) => self.write_addresses(slot, wanted, addresses),
            None => self.write(slot, wanted),
        }
    }

    fn flip(&mut self) -> Result<u32, CaptureError> {
        self.flip()
    }

    fn wait_for_programs(&self) -> Result<(), CaptureError> {
        self.wait_for_programs()
    }

    fn generation(&self) -> u32 {
        self.generation()
    }
}

/// What a slot is to hold.
#[derive(Debug)]
pub struct Made {
    /// The tables.
    pub tables: PolicyTables,
    /// How many addresses of names found no room in them.
    pub left_out: usize,
    /// Of addresses of endpoints, those alone that may differ from what was made before.
    pub only: Option<Vec<[u8; 16]>>,
}

impl Made {
    /// What a slot is to hold now, which was to hold `before` when its engine was asked last.
    pub fn anew(
        before: Option<Self>,
        engine: &mut Engine,
        known: &[ServiceEntry],
        is_local: impl Fn(&str) -> bool,
    ) -> Self {
        let touched = engine.touched();
        let Some(mut made) = before.filter(|made| made.left_out == 0) else {
            return Self::whole(engine, known, is_local);
        };
        let Touched::Addresses(addresses) = touched else { return Self::whole(engine, known, is_local) };
        if made.tables.endpoints.len() + addresses.len() > MOST_ENDPOINTS {
            return Self::whole(engine, known, is_local);
        }
        let Self { tables, left_out, only } = &mut made;
        for &address in &addresses {
            match engine.owner(address) {
                Some((name, at)) => tables.endpoints.insert(octets(address), endpoint(name, at, &is_local)),
                None => tables.endpoints.remove(&octets(address)),
            };
        }
        tables.frontends.clear();
        tables.backends.clear();
        *left_out = services(engine, known, tables);
        *only = Some(addresses.into_iter().map(octets).collect());
        made
    }

    /// Without what a change of addresses doesn't need, once it is written: after another one it is made anew.
    pub fn keep_addresses(&mut self) {
        let Self { tables: PolicyTables { nets, sides, rows, cuts, .. }, .. } = self;
        (*nets, *rows) = (HashMap::new(), HashMap::new());
        (*sides, *cuts) = (Vec::new(), Vec::new());
    }

    fn whole(engine: &Engine, known: &[ServiceEntry], is_local: impl Fn(&str) -> bool) -> Self {
        let (tables, left_out) = tables(engine, known, is_local);
        Self { tables, left_out, only: None }
    }
}

/// All that the kernel needs to judge as the engine does, and how many addresses of names found no room in it, of which
/// those that are of this node by their endpoint's name are the last.
pub fn tables(
    engine: &Engine,
    known: &[ServiceEntry],
    is_local: impl Fn(&str) -> bool,
) -> (PolicyTables, usize) {
    let mut tables = PolicyTables::default();
    let left_out = endpoints(engine, is_local, &mut tables);
    for (net, peer) in engine.world_nets() {
        if let Some(key) = net_key(net) {
            tables.nets.insert(key, peer.0);
        }
    }
    for (subject, sides) in engine.sides() {
        let place = subject.0 as usize;
        if tables.sides.len() <= place {
            tables.sides.resize(place + 1, [NO_TABLE; 2]);
        }
        tables.sides[place] = sides.map(|table| table.map_or(NO_TABLE, |table| table.0));
    }
    for rows in engine.tables() {
        let cut = |(from, decision): &(u32, Decision)| PolicyCut { from: *from, decision: bits(decision) };
        let cuts: Vec<_> = rows.cuts().iter().map(cut).collect();
        let (mut placed, mut start) = (HashMap::new(), 0);
        // In their order, so that a table that is made anew stands as it stood.
        for row in cuts.chunk_by(|_, next| next.from != 0) {
            placed.insert(start, tables.place_row(row));
            start += row.len();
        }
        for (peer, place) in rows.places() {
            let key = PolicyRowKey { table: rows.table.0, peer: peer.map_or(OTHERS, |peer| peer.0) };
            tables.rows.insert(key, placed[&place.start]);
        }
    }
    let left_out = left_out + services(engine, known, &mut tables);
    (tables, left_out)
}

/// As the programs have it.
pub(super) fn bits(decided: &Decision) -> u32 {
    let mut bits = decision::JUDGED;
    for (is_so, bit) in [
        (!decided.enforced.passes(), decision::DENIED),
        (decided.enforced == Verdict::Denied, decision::BY_RULE),
        (decided.enforced == Verdict::Requests, decision::REQUESTS),
        (decided.audited == Verdict::Requests, decision::AUDIT_REQUESTS),
        (!decided.all.passes(), decision::AUDITED),
    ] {
        if is_so {
            bits |= bit;
        }
    }
    // More rules than there are numbers would not fit into memory.
    bits | decided.rules.map_or(0, |rules| rules.0 & decision::RULES)
}

/// The rules that were decided by.
pub(super) fn rules(decided: u32) -> RuleSetId {
    RuleSetId(decided & decision::RULES)
}

fn endpoints(engine: &Engine, is_local: impl Fn(&str) -> bool, tables: &mut PolicyTables) -> usize {
    let mut addresses: Vec<_> = engine.addresses().collect();
    let left_out = addresses.len().saturating_sub(MOST_ENDPOINTS);
    if left_out > 0 {
        // What this node's own pods send and are sent is judged at all only where they are known.
        addresses.sort_unstable_by_key(|(address, name, at)| (!at.is_host, !is_local(name), *address));
        addresses.truncate(MOST_ENDPOINTS);
    }
    let endpoint =
        |(address, name, at): (IpAddr, &Arc<str>, At)| (octets(address), endpoint(name, at, &is_local));
    tables.endpoints = addresses.into_iter().map(endpoint).collect();
    left_out
}

fn endpoint(name: &str, at: At, is_local: impl Fn(&str) -> bool) -> PolicyEndpoint {
    let host = if at.is_host { endpoint_flags::HOST } else { 0 };
    let node = if at.is_node { endpoint_flags::NODE } else { 0 };
    let local = if !at.is_node && is_local(name) { endpoint_flags::LOCAL } else { 0 };
    PolicyEndpoint { peer: at.peer.0, subject: at.subject.0, flags: host | node | local }
}

/// An address as the programs have it.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Nothing for a net of IPv6 that lies where IPv4 is mapped to: no packet has such addresses.
fn net_key(net: IpNet) -> Option<(u8, [u8; 16])> {
    match net {
        IpNet::V4(net) => Some((96 + net.prefix_len(), mapped(net.network().octets()))),
        IpNet::V6(net) if net.prefix_len() >= 96 && net.network().to_ipv4_mapped().is_some() => None,
        IpNet::V6(net) => Some((net.prefix_len(), net.network().octets())),
    }
}

/// The services' addresses with what stands behind them; how many found no room.
fn services(engine: &Engine, known: &[ServiceEntry], tables: &mut PolicyTables) -> usize {
    if known.is_empty() {
        return 0;
    }
    // Pods by their namespace and what is the same of them.
    let mut kinds: HashMap<_, (&Labels, Vec<&Endpoint>)> = HashMap::new();
    for (_, kind, endpoint) in engine.endpoints() {
        kinds.entry(kind).or_insert_with(|| (&endpoint.labels, Vec::new())).1.push(endpoint);
    }
    let mut of_namespace: HashMap<_, Vec<_>> = HashMap::new();
    for kind in kinds.values() {
        of_namespace.entry(kind.0.get(K8S, NAMESPACE)).or_default().push(kind);
    }
    let own: Vec<IpAddr> =
        engine.addresses().filter(|(.., at)| at.is_host).map(|(address, ..)| address).collect();
    let mut left_out = 0;
    for service in known {
        let near = of_namespace.get(&Some(&*service.namespace)).into_iter().flatten();
        let chosen = near.filter(|(labels, _)| service.slices.is_none() && selects(service, labels));
        let pods: Vec<&Endpoint> = chosen.flat_map(|(_, pods)| pods).copied().collect();
        for port in &service.ports {
            let called = service.addresses.iter().map(|address| (address.to_canonical(), port.port));
            let at_node = port.node_port.into_iter().flat_map(|port| own.iter().map(move |ip| (*ip, port)));
            for (address, number) in called.chain(at_node) {
                let (address, is_ipv6) = (octets(address), address.is_ipv6());
                let frontend = PolicyFrontend { address, port: number, protocol: port.protocol, pad: 0 };
                if tables.frontends.len() >= MOST_FRONTENDS {
                    left_out += 1;
                    continue;
                }
                let mut backends = match service.behind(port, is_ipv6) {
                    Some(told) => in_order(told),
                    None => in_order(selected(&pods, port, is_ipv6)),
                };
                let found =
                    PolicyBackends { begin: tables.backends.len() as u32, len: backends.len() as u32 };
                tables.frontends.insert(frontend, found);
                if found.len <= MOST_BACKENDS {
                    tables.backends.append(&mut backends);
                }
            }
        }
    }
    left_out
}

/// Whether a service selects pods of its namespace with these labels.
fn selects(service: &ServiceEntry, labels: &Labels) -> bool {
    !service.selector.is_empty()
        && service.selector.iter().all(|(key, value)| labels.get(K8S, key) == Some(&**value))
}

/// Where packets to a service's port come out at the pods that it selects.
fn selected(pods: &[&Endpoint], port: &ServicePort, is_ipv6: bool) -> Vec<(IpAddr, u16)> {
    let target = |pod: &Endpoint| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let name = name.to_lowercase();
            let named = |known: &&NamedPort| *known.name == *name && known.protocol == port.protocol;
            pod.ports.iter().find(named).map(|known| known.port)
        }
    };
    let found = pods.iter().filter_map(|pod| Some((pod, target(pod)?)));
    let addresses = found.flat_map(|(pod, port)| pod.addresses.iter().map(move |ip| (*ip, port)));
    addresses.filter(|(address, _)| address.is_ipv6() == is_ipv6).collect()
}

/// So that the same ones are written once only. Slices may have an endpoint twice for a moment.
fn in_order(found: Vec<(IpAddr, u16)>) -> Vec<PolicyBackend> {
    let backend = |(ip, port)| PolicyBackend { address: octets(ip), port, pad: [0; 2] };
    let mut found: Vec<PolicyBackend> = found.into_iter().map(backend).collect();
    found.sort_unstable_by_key(|backend| (backend.address, backend.port));
    found.dedup();
    found
}

#[cfg(test)]
mod tests;

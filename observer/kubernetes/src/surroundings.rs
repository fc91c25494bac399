//! Nodes, services, CIDR groups and what serves the API: what is looked up besides pods.

use crate::object::{self, IntOrString, protocol};
use ipnet::IpNet;
use observer_inventory::{CidrGroup, Node, ServiceEntry, ServicePort, TargetPort, labels::LabelMap};
use observer_policy::{MODE_ANNOTATION, model::Mode};
use std::{collections::BTreeMap, net::IpAddr};

/// Objects by name, of which a list says at its end which are gone.
#[derive(Debug)]
pub(crate) struct Listed<V> {
    items: BTreeMap<Box<str>, (V, u32)>,
    round: u32,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), round: 0 }
    }
}

impl<V: PartialEq> Listed<V> {
    /// Whether that is new.
    pub(crate) fn apply(&mut self, name: &str, value: V) -> bool {
        let Some(known) = self.items.get_mut(name) else {
            self.items.insert(name.into(), (value, self.round));
            return true;
        };
        let is_new = known.0 != value;
        *known = (value, self.round);
        is_new
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.items.remove(name).is_some()
    }

    pub(crate) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Takes out what was not listed; whether there was any.
    pub(crate) fn end(&mut self) -> bool {
        let before = self.items.len();
        let round = self.round;
        self.items.retain(|_, (_, seen)| *seen == round);
        self.items.len() < before
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.items.get(name).map(|(value, _)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.items.iter().map(|(name, (value, _))| (&**name, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.items.values().map(|(value, _)| value)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }
}

/// What a namespace says of what is in it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Namespace {
    pub(crate) labels: LabelMap,
    /// The mode of policies that say none; an annotation that is no mode says none either.
    pub(crate) mode: Option<Mode>,
}

impl From<object::Named> for Namespace {
    fn from(object::Named { metadata }: object::Named) -> Self {
        let mode = metadata.annotations.get(MODE_ANNOTATION).and_then(|text| text.parse().ok());
        Self { labels: metadata.labels, mode }
    }
}

pub(crate) fn host(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast())
}

pub(crate) fn node(node: object::Node) -> Node {
    let of_host = |address: &&object::NodeAddress| address.kind.ends_with("IP");
    let addresses = node.status.addresses.iter().filter(of_host);
    Node {
        name: node.metadata.name,
        addresses: addresses.filter_map(|address| host(&address.address)).collect(),
        labels: node.metadata.labels,
        peer: None,
    }
}

/// None where clients call none of its addresses.
pub(crate) fn service(service: object::Service) -> ServiceEntry {
    let object::Service { metadata, spec, status } = service;
    let cluster = if spec.cluster_ips.is_empty() { vec![spec.cluster_ip] } else { spec.cluster_ips };
    let outside =
        spec.external_ips.into_iter().chain(status.load_balancer.ingress.into_iter().map(|at| at.ip));
    // A headless one has `None` in the place of its address.
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in cluster.into_iter().chain(outside).filter_map(|text| host(&text)) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    let ports = spec.ports.into_iter().filter_map(|port| {
        Some(ServicePort {
            protocol: protocol(&port.protocol)?,
            target: match port.target_port {
                Some(IntOrString::Int(number)) if number != 0 => TargetPort::Number(number),
                Some(IntOrString::String(name)) if !name.is_empty() => TargetPort::Name(name),
                _ => TargetPort::Number(port.port),
            },
            node_port: Some(port.node_port).filter(|port| *port != 0),
            name: port.name,
            port: port.port,
        })
    });
    ServiceEntry {
        ports: ports.collect(),
        addresses,
        namespace: metadata.namespace,
        name: metadata.name,
        selector: spec.selector,
        labels: metadata.labels,
        slices: None,
    }
}

pub(crate) fn cidr_group(group: object::CidrGroup) -> CidrGroup {
    let cidr = |text: &String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.ok().map(|net| net.trunc())
    };
    CidrGroup {
        cidrs: group.spec.external_cidrs.iter().filter_map(cidr).collect(),
        name: group.metadata.name,
        labels: group.metadata.labels,
    }
}

//! What is looked up by address besides pods: nodes, services, CIDRs. Built whole, swapped whole.

use super::{identity, identity::Identities, reserved::Reserved, source::Surroundings};
use crate::endpoint::{Endpoint, Service, Text};
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;
use std::{net::IpAddr, sync::Arc};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// What the addresses of nodes stand for.
pub(super) type Nodes = HashMap<IpAddr, Arc<Endpoint>>;

/// An immutable state of the tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) nodes: Nodes,
    services: HashMap<(IpAddr, u16, u8), Named>,
    service_ips: HashSet<IpAddr>,
    cidrs: JointPrefixMap<IpNet, Arc<Endpoint>>,
    /// This node's addresses.
    pub(super) own: Vec<IpAddr>,
}

/// Who stands behind an address with a port.
#[derive(Debug)]
struct Named {
    service: Arc<Service>,
    /// Listens on the node itself, not a service that others declared.
    listens: bool,
}

impl Tables {
    /// From all sources, those of greater precedence last.
    pub(super) fn build<'a>(
        all: impl Iterator<Item = &'a Surroundings> + Clone,
        own_node: &str,
        identities: &mut Identities,
        reserved: &Reserved,
    ) -> Self {
        let mut tables = Self::default();
        let nodes = all.clone().flat_map(|from| &from.nodes);
        let addresses = |own: bool| {
            let nodes = nodes.clone().filter(move |node| (node.name == own_node) == own);
            nodes.flat_map(|node| node.addresses.iter().map(IpAddr::to_canonical))
        };
        tables.nodes.extend(addresses(false).map(|ip| (ip, Arc::clone(&reserved.remote_node))));
        let apiservers = all.clone().flat_map(|from| &from.kube_apiservers);
        tables.nodes.extend(apiservers.map(|ip| (ip.to_canonical(), Arc::clone(&reserved.kube_apiserver))));
        // Last, because the node itself knows best what is its own.
        tables.nodes.extend(addresses(true).map(|ip| (ip, Arc::clone(&reserved.host))));
        tables.own = addresses(true).collect();
        tables.own.sort_unstable();
        tables.own.dedup();

        // What was declared is right about an address that also something on the node listens on, such as a proxy.
        let listeners = all.clone().flat_map(|from| &from.listeners).map(|entry| (entry, true));
        let services = all.clone().flat_map(|from| &from.services).map(|entry| (entry, false));
        for (entry, listens) in listeners.chain(services) {
            let service = Arc::new(Service { namespace: entry.namespace.clone(), name: entry.name.clone() });
            for (ip, port) in entry.addresses.iter().flat_map(|ip| entry.ports.iter().map(move |p| (ip, p))) {
                let key = (ip.to_canonical(), port.port, port.protocol);
                tables.services.insert(key, Named { service: Arc::clone(&service), listens });
                tables.service_ips.insert(key.0);
            }
        }

        let groups: Vec<_> = all.flat_map(|from| from.cidr_groups.iter().cloned()).collect();
        let cidrs = groups.iter().flat_map(|group| group.cidrs.iter().copied());
        for (cidr, identity) in identities.set_cidrs(cidrs) {
            let labels = identity::cidr_labels(cidr, &groups).into_iter().map(Text::from).collect();
            tables.cidrs.insert(cidr, Arc::new(Endpoint { identity, labels, ..Endpoint::default() }));
        }
        tables
    }

    pub(super) fn cidr(&self, ip: IpAddr) -> Option<&Arc<Endpoint>> {
        self.cidrs.get_lpm(&IpNet::from(ip)).map(|(_, endpoint)| endpoint)
    }

    /// What a CIDR of this address alone stands for.
    pub(super) fn host(&self, ip: IpAddr) -> Option<&Arc<Endpoint>> {
        self.cidrs.get(&IpNet::from(ip))
    }

    /// Addresses of which one by itself says something here, or in the other.
    pub(super) fn singles_that_differ<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> {
        let one_way = |a: &'a Self, b: &'a Self| {
            let nodes = a.nodes.keys().filter(|ip| !b.nodes.contains_key(*ip)).copied();
            let is_one = |cidr: &IpNet| cidr.prefix_len() == cidr.max_prefix_len();
            let cidrs = a.cidrs().filter(move |(cidr, _)| is_one(cidr)).map(|(cidr, _)| cidr.addr());
            nodes.chain(cidrs.filter(|ip| b.host(*ip).is_none()))
        };
        let mut all: Vec<_> = one_way(self, other).chain(one_way(other, self)).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// All CIDRs that have an identity.
    pub(super) fn cidrs(&self) -> impl Iterator<Item = (IpNet, &Arc<Endpoint>)> {
        self.cidrs.iter()
    }

    /// Protocol 0 is an unknown one: TCP is tried before UDP, as Hubble does.
    pub(super) fn service(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<&Arc<Service>> {
        self.named(ip, port, protocol).map(|named| &named.service)
    }

    /// The same for an address that was translated: what listens on it here got nothing.
    pub(super) fn frontend(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<&Arc<Service>> {
        self.named(ip, port, protocol).filter(|named| !named.listens).map(|named| &named.service)
    }

    fn named(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<&Named> {
        match protocol {
            0 => [TCP, UDP, SCTP].iter().find_map(|&protocol| self.services.get(&(ip, port, protocol))),
            _ => self.services.get(&(ip, port, protocol)),
        }
    }

    /// Whether a service has this address, on whichever port.
    pub(super) fn is_service(&self, ip: IpAddr) -> bool {
        self.service_ips.contains(&ip)
    }

    pub(super) fn service_ports(&self) -> Vec<(IpAddr, u16, u8)> {
        let mut ports: Vec<_> = self.services.keys().copied().collect();
        ports.sort_unstable();
        ports
    }
}

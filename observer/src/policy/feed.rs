//! From the IP cache's pods, nodes, services and groups to the engine's endpoints and surroundings: what changed of them.

use super::world::{HOST, KUBE_APISERVER, NODE};
use crate::enrich::{
    ipcache::{IpCache, Standing},
    source::{Node, Surroundings},
};
use hashbrown::{HashMap, HashSet};
use observer_policy::{
    label::{K8S, Label, Labels, RESERVED},
    world::{self, Endpoint},
};
use std::{net::IpAddr, num::NonZeroU64, sync::Arc};

/// What changed of endpoints and surroundings, and the names of versions of endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Fed {
    pub(super) endpoints: Vec<(Arc<str>, Option<Endpoint>)>,
    pub(super) names: Vec<(NonZeroU64, Option<Arc<str>>)>,
    pub(super) surroundings: Option<world::Surroundings>,
}

/// What the engine was told.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// As of which change of the names.
    generation: Option<u64>,
    pods: HashMap<Arc<str>, (NonZeroU64, Vec<IpAddr>)>,
    others: HashMap<Arc<str>, Endpoint>,
    surroundings: world::Surroundings,
}

impl Feed {
    /// What is new since the last call, if anything can be.
    pub(super) fn changes(&mut self, cache: &IpCache) -> Option<Fed> {
        // Before the look: what changes in between is looked at again.
        let generation = Some(cache.generation());
        if self.generation == generation {
            return None;
        }
        self.generation = generation;
        let mut fed = Fed::default();
        let (pods, around) = cache.standing();
        self.pods(pods, &mut fed);
        self.others(others(&around, cache.node()), &mut fed);
        let surroundings = surroundings(&around);
        if surroundings != self.surroundings {
            self.surroundings.clone_from(&surroundings);
            fed.surroundings = Some(surroundings);
        }
        Some(fed)
    }

    fn pods(&mut self, pods: Vec<Standing>, fed: &mut Fed) {
        let mut there: HashSet<Arc<str>> = HashSet::new();
        let mut gone_serials: HashMap<NonZeroU64, Arc<str>> =
            self.pods.iter().map(|(name, (serial, _))| (*serial, Arc::clone(name))).collect();
        for Standing { endpoint, addresses } in pods {
            let mut name = format!("{}/{}", endpoint.namespace, endpoint.pod_name);
            if there.contains(name.as_str()) {
                // Two sources, or two pods one after the other, at different addresses.
                name = format!("{name}#{}", endpoint.serial());
            }
            let name: Arc<str> = name.into();
            let told = (endpoint.serial(), addresses);
            gone_serials.remove(&told.0);
            if self.pods.get(&name) != Some(&told) {
                let addresses = told.1.clone();
                let endpoint =
                    Endpoint { labels: Labels::parse(&*endpoint.labels), addresses, ports: Vec::new() };
                fed.endpoints.push((Arc::clone(&name), Some(endpoint)));
                fed.names.push((told.0, Some(Arc::clone(&name))));
                self.pods.insert(Arc::clone(&name), told);
            }
            there.insert(name);
        }
        fed.names.extend(gone_serials.into_keys().map(|serial| (serial, None)));
        self.pods.retain(|name, _| {
            let stays = there.contains(name);
            if !stays {
                fed.endpoints.push((Arc::clone(name), None));
            }
            stays
        });
    }

    fn others(&mut self, others: HashMap<Arc<str>, Endpoint>, fed: &mut Fed) {
        let gone = self.others.keys().filter(|name| !others.contains_key(*name));
        fed.endpoints.extend(gone.map(|name| (Arc::clone(name), None)));
        let new = others.iter().filter(|(name, endpoint)| self.others.get(*name) != Some(*endpoint));
        fed.endpoints.extend(new.map(|(name, endpoint)| (Arc::clone(name), Some(endpoint.clone()))));
        self.others = others;
    }
}

/// Nodes, and what serves the Kubernetes API.
fn others(around: &Surroundings, own_node: &str) -> HashMap<Arc<str>, Endpoint> {
    let reserved = |name: &str| Label { key: name.into(), source: RESERVED.into(), value: "".into() };
    let mut others: HashMap<Arc<str>, Endpoint> = HashMap::new();
    let mut put = |name: Arc<str>, labels: Vec<Label>, addresses: &[IpAddr]| {
        let known = others.entry(name).or_default();
        known.labels = known.labels.iter().cloned().chain(labels).collect();
        known.addresses.extend(addresses.iter().map(IpAddr::to_canonical));
        known.addresses.sort_unstable();
        known.addresses.dedup();
    };
    // It has an identity also where nobody has told of it.
    put(HOST.into(), vec![reserved("host")], &[]);
    let own: HashSet<IpAddr> = own_addresses(around, own_node).collect();
    for Node { name, addresses, labels, .. } in &around.nodes {
        let is_own = name == own_node;
        let label = |(key, value): (&String, &String)| Label {
            key: key.as_str().into(),
            source: K8S.into(),
            value: value.as_str().into(),
        };
        let mut labels: Vec<Label> = labels.iter().map(label).collect();
        labels.push(reserved(if is_own { "host" } else { "remote-node" }));
        let serves_api = addresses.iter().any(|address| around.kube_apiservers.contains(address));
        labels.extend(serves_api.then(|| reserved("kube-apiserver")));
        let of_another = |address: &&IpAddr| is_own || !own.contains(&address.to_canonical());
        let addresses: Vec<IpAddr> = addresses.iter().filter(of_another).copied().collect();
        put(if is_own { HOST.into() } else { format!("{NODE}{name}").into() }, labels, &addresses);
    }
    let of_nodes: HashSet<IpAddr> =
        around.nodes.iter().flat_map(|node| node.addresses.iter().map(IpAddr::to_canonical)).collect();
    let outside = around.kube_apiservers.iter().filter(|ip| !of_nodes.contains(&ip.to_canonical()));
    let outside: Vec<IpAddr> = outside.copied().collect();
    if !outside.is_empty() {
        // The identity that the IP cache gives them.
        put(KUBE_APISERVER.into(), vec![reserved("kube-apiserver"), reserved("remote-node")], &outside);
    }
    others
}

fn own_addresses(around: &Surroundings, own_node: &str) -> impl Iterator<Item = IpAddr> {
    let own = around.nodes.iter().filter(move |node| node.name == own_node);
    own.flat_map(|node| node.addresses.iter().map(IpAddr::to_canonical))
}

/// What rules refer to besides endpoints. Names are not resolved yet.
fn surroundings(around: &Surroundings) -> world::Surroundings {
    let groups = around.cidr_groups.iter().map(|group| world::CidrGroup {
        name: group.name.as_str().into(),
        nets: group.cidrs.clone(),
        ..world::CidrGroup::default()
    });
    let services = around.services.iter().map(|service| world::Service {
        namespace: service.namespace.as_str().into(),
        name: service.name.as_str().into(),
        selector: service
            .selector
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
        ..world::Service::default()
    });
    world::Surroundings {
        groups: groups.collect(),
        services: services.collect(),
        ..world::Surroundings::default()
    }
}

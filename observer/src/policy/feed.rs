//! From the IP cache's pods, nodes, services and groups to the engine's endpoints and surroundings: what changed of them.

use super::world::{KUBE_APISERVER, Named};
use crate::enrich::{
    ipcache::{Besides, IpCache, Standing},
    source::{ServiceEntry, Surroundings},
};
use hashbrown::{HashMap, HashSet};
use observer_inventory::policy::{self as seen, HOST};
use observer_kubernetes::Backends;
use observer_policy::{
    label::{Labels, RESERVED},
    model::Mode,
    world::{self, Endpoint},
};
use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU64, sync::Arc};

/// What changed of endpoints and surroundings, and the names of versions of endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Fed {
    pub(super) endpoints: Vec<(Arc<str>, Option<Endpoint>)>,
    pub(super) names: Vec<(NonZeroU64, Option<Named>)>,
    pub(super) surroundings: Option<world::Surroundings>,
    pub(super) services: Option<Arc<[ServiceEntry]>>,
}

impl Fed {
    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self { endpoints, names, surroundings, services } = self;
        endpoints.is_empty() && names.is_empty() && surroundings.is_none() && services.is_none()
    }

    /// Both, of each name what is said later.
    pub(super) fn then(mut self, mut later: Self) -> Self {
        let again: HashSet<_> = later.endpoints.iter().map(|(name, _)| Arc::clone(name)).collect();
        self.endpoints.retain(|(name, _)| !again.contains(name));
        self.endpoints.append(&mut later.endpoints);
        let again: HashSet<_> = later.names.iter().map(|(serial, _)| *serial).collect();
        self.names.retain(|(serial, _)| !again.contains(serial));
        self.names.append(&mut later.names);
        Self {
            surroundings: later.surroundings.or(self.surroundings),
            services: later.services.or(self.services),
            ..self
        }
    }
}

/// What the engine was told of a pod.
#[derive(Debug, PartialEq)]
struct Told {
    /// The version of its endpoint.
    serial: NonZeroU64,
    addresses: Vec<IpAddr>,
    besides: Arc<Besides>,
}

/// What the engine was told.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// As of which change of the names, and of those of DNS.
    generation: Option<(u64, u64)>,
    /// Who stands behind services, where somebody tells.
    backends: Option<Arc<Backends>>,
    /// As of which change.
    backed: u64,
    /// The node's links' own addresses.
    own: Vec<IpAddr>,
    pods: HashMap<Arc<str>, Told>,
    others: HashMap<Arc<str>, Endpoint>,
    surroundings: world::Surroundings,
    services: Arc<[ServiceEntry]>,
    /// Of policies, by namespace.
    modes: BTreeMap<String, Mode>,
}

impl Feed {
    /// Nothing was told yet.
    pub(super) fn new(backends: Option<Arc<Backends>>) -> Self {
        Self { backends, ..Self::default() }
    }

    /// As of which change the names of DNS were looked at last.
    pub(super) fn resolved(&self) -> u64 {
        self.generation.map_or(0, |(_, resolved)| resolved)
    }

    /// The modes that namespaces say, as of the last change.
    pub(super) fn modes(&self) -> &BTreeMap<String, Mode> {
        &self.modes
    }

    /// What is new since the last call, if anything can be; `own` are the addresses of the node's links.
    pub(super) fn changes(&mut self, cache: &IpCache, own: &[IpAddr]) -> Option<Fed> {
        // Before the look: what changes in between is looked at again.
        let resolved = cache.resolved();
        let generation = Some((cache.generation(), resolved.generation()));
        let backed = self.backends.as_ref().map_or(0, |backends| backends.generation());
        if self.generation == generation && self.backed == backed && self.own == own {
            return None;
        }
        self.backed = backed;
        self.generation = generation;
        self.own = own.to_vec();
        let mut fed = Fed::default();
        let (pods, mut around) = cache.standing();
        if let Some(backends) = &self.backends {
            backends.join(&mut around.services);
        }
        self.pods(pods, &mut fed);
        self.others(others(&around, cache.node(), own), &mut fed);
        self.modes.clone_from(&around.policy_modes);
        let names = resolved.names();
        let surroundings = world::Surroundings { names, ..seen::surroundings(&around) };
        if surroundings != self.surroundings {
            self.surroundings.clone_from(&surroundings);
            fed.surroundings = Some(surroundings);
        }
        if *around.services != *self.services {
            self.services = around.services.into();
            fed.services = Some(Arc::clone(&self.services));
        }
        Some(fed)
    }

    fn pods(&mut self, pods: Vec<Standing>, fed: &mut Fed) {
        let mut there: HashSet<Arc<str>> = HashSet::new();
        let mut gone_serials: HashMap<NonZeroU64, Arc<str>> =
            self.pods.iter().map(|(name, told)| (told.serial, Arc::clone(name))).collect();
        for Standing { endpoint, addresses, besides } in pods {
            let mut name = format!("{}/{}", endpoint.namespace, endpoint.pod_name);
            if there.contains(name.as_str()) {
                // Two sources, or two pods one after the other, at different addresses.
                name = format!("{name}#{}", endpoint.serial());
            }
            let name: Arc<str> = name.into();
            let told = Told { serial: endpoint.serial(), addresses, besides };
            gone_serials.remove(&told.serial);
            if self.pods.get(&name) != Some(&told) {
                let labels = endpoint.labels.iter().chain(&told.besides.labels);
                let seen = seen::endpoint(labels, &told.besides.ports, told.addresses.clone());
                fed.endpoints.push((Arc::clone(&name), Some(seen)));
                fed.names.push((told.serial, Some((Arc::clone(&name), endpoint.local))));
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
pub(super) fn others(around: &Surroundings, own_node: &str, links: &[IpAddr]) -> HashMap<Arc<str>, Endpoint> {
    let mut others: HashMap<Arc<str>, Endpoint> = HashMap::new();
    let mut put = |name: Arc<str>, endpoint: Endpoint| {
        let known = others.entry(name).or_default();
        known.labels = known.labels.iter().chain(endpoint.labels.iter()).cloned().collect();
        known.addresses.extend(endpoint.addresses.iter().map(IpAddr::to_canonical));
        known.addresses.sort_unstable();
        known.addresses.dedup();
    };
    let reserved = |names: &[&str], addresses: Vec<IpAddr>| Endpoint {
        labels: Labels::parse(names.iter().map(|name| format!("{RESERVED}:{name}"))),
        addresses,
        ports: Vec::new(),
    };
    // It has an identity also where nobody has told of it.
    put(HOST.into(), reserved(&["host"], links.to_vec()));
    let of = |is_own: bool| {
        let nodes = around.nodes.iter().filter(move |node| (node.name == own_node) == is_own);
        nodes.flat_map(|node| node.addresses.iter().map(IpAddr::to_canonical)).collect::<HashSet<_>>()
    };
    let (mut own, far) = (of(true), of(false));
    own.extend(links.iter().map(IpAddr::to_canonical));
    for node in &around.nodes {
        let is_own = node.name == own_node;
        let mut endpoint = seen::of_node(node, is_own, &around.kube_apiservers);
        // The node itself knows best what is its own.
        endpoint.addresses.retain(|address| is_own || !own.contains(&address.to_canonical()));
        put(seen::node_name(node, is_own), endpoint);
    }
    let is_outside = |address: &&IpAddr| {
        let address = address.to_canonical();
        !own.contains(&address) && !far.contains(&address)
    };
    let outside: Vec<IpAddr> = around.kube_apiservers.iter().filter(is_outside).copied().collect();
    if !outside.is_empty() {
        // The identity that the IP cache gives them.
        put(KUBE_APISERVER.into(), reserved(&["kube-apiserver", "remote-node"], outside));
    }
    others
}

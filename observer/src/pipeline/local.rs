//! What is of this node: addresses, for the kernel's table and for `track`; links by index, for the flows.

use crate::{
    capture::{self, Capture, CaptureError, LinkTable},
    decode::End,
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    flow::{Flow, Link, LinkKind},
    track::{Addresses, Tracked},
};
use hashbrown::{HashMap, HashSet};
use observer_proto::flow::TraceObservationPoint as Point;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Addresses of this node's pods, and its own.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// With port 0, as all here.
    pods: HashSet<End>,
    nodes: HashSet<End>,
    has_tunnel: bool,
    /// As of which change of the names; nothing where the links changed since.
    generation: Option<u64>,
    of_links: Vec<IpAddr>,
    /// Whether the programs don't know of the last change yet.
    untold: bool,
}

impl Local {
    /// The links' own addresses are these.
    pub(super) fn set_links(&mut self, links: &LinkTable) {
        self.of_links.clone_from(&links.node_addresses);
        let attached_tunnel =
            |link: &capture::Link| link.kind == capture::LinkKind::Tunnel && link.error.is_none();
        self.has_tunnel = links.links.iter().any(attached_tunnel);
        self.generation = None;
    }

    /// Whether the names or the links changed since the last [`Local::refresh`].
    pub(super) fn is_outdated(&self, cache: &IpCache) -> bool {
        self.generation != Some(cache.generation())
    }

    /// Takes the lists again where something changed.
    pub(super) fn refresh(&mut self, cache: &IpCache) {
        let generation = Some(cache.generation());
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        self.untold = true;
        let end = |ip| End::new(ip, 0);
        let nodes = cache.node_addresses().into_iter().chain(self.of_links.iter().copied());
        self.nodes = nodes.map(end).collect();
        self.pods = cache.local_pod_addresses().into_iter().map(end).collect();
        // A host-network pod's address is the node's.
        self.pods.retain(|end| !self.nodes.contains(end));
    }

    /// Gives the lists to the programs, if they don't have them.
    pub(super) fn tell(&mut self, capture: &Capture, cache: &IpCache) -> Result<(), CaptureError> {
        if !std::mem::take(&mut self.untold) {
            return Ok(());
        }
        let list = |set: &HashSet<End>| set.iter().map(End::ip).collect::<Vec<_>>();
        capture.set_local_addresses(&list(&self.pods), &list(&self.nodes))?;
        let ports: HashSet<(u8, u16)> =
            cache.service_ports().into_iter().map(|(_, port, protocol)| (protocol, port)).collect();
        capture.set_service_ports(&ports.into_iter().collect::<Vec<_>>())
    }
}

impl Addresses for Local {
    fn is_local_pod(&self, end: &End) -> bool {
        self.pods.contains(&end.with_port(0))
    }

    fn is_node(&self, end: &End) -> bool {
        self.nodes.contains(&end.with_port(0))
    }

    fn has_tunnel(&self) -> bool {
        self.has_tunnel
    }
}

/// Who stands behind each pod link, as its traffic tells; for status.
#[derive(Debug, Default)]
pub(crate) struct BehindLinks(Mutex<HashMap<u32, Arc<Endpoint>>>);

impl BehindLinks {
    /// `namespace/name`, empty where nothing was seen yet.
    pub(crate) fn name(&self, ifindex: u32) -> String {
        self.endpoint(ifindex).map_or_else(String::new, |e| format!("{}/{}", e.namespace, e.pod_name))
    }

    /// The pod, where it was seen.
    pub(crate) fn endpoint(&self, ifindex: u32) -> Option<Arc<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&ifindex).cloned()
    }
}

/// The links that flows name. One that is gone is remembered until its index is another's.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) known: KnownLinks,
    pub(super) learnt: Learnt,
}

/// Links by index.
#[derive(Debug, Default)]
pub(super) struct KnownLinks {
    by_index: HashMap<u32, Arc<Link>>,
    /// The node's own network namespace: a drop elsewhere has another namespace's index.
    netns: u32,
}

/// Who is behind pod links.
#[derive(Debug)]
pub(super) struct Learnt {
    behind: Arc<BehindLinks>,
    /// What `behind` holds, to look at without its lock.
    by_index: HashMap<u32, Arc<Endpoint>>,
}

/// Indices only grow; a namespace that has made this many links is churned on purpose.
const MOST_LINKS: usize = 65_536;

impl Links {
    pub(super) fn new(behind: Arc<BehindLinks>) -> Self {
        Self { known: KnownLinks::default(), learnt: Learnt { behind, by_index: HashMap::new() } }
    }

    /// Takes in the links as they are now.
    pub(super) fn refresh(&mut self, table: &LinkTable) {
        let Self { known: KnownLinks { by_index, netns }, learnt } = self;
        *netns = table.netns;
        if by_index.len() > MOST_LINKS {
            by_index.clear();
            learnt.clear();
        }
        for link in &table.links {
            let known = by_index.get(&link.ifindex);
            if known.is_none_or(|known| known.name != link.name || known.kind != kind(link.kind)) {
                let shown = Link { index: link.ifindex, name: link.name.clone(), kind: kind(link.kind) };
                by_index.insert(link.ifindex, Arc::new(shown));
            }
        }
    }
}

impl KnownLinks {
    /// The link that an event was seen on.
    pub(super) fn of(&self, tracked: &Tracked<'_>) -> Option<&Arc<Link>> {
        let index = match tracked {
            Tracked::Flow(flow) => flow.event.ifindex,
            // The programs are on links of the node only.
            Tracked::Drop(drop) if drop.event.netns == self.netns || drop.event.site.is_by_policies() => {
                drop.event.ifindex
            }
            Tracked::Drop(_) => return None,
        };
        self.by_index.get(&index)
    }
}

impl Learnt {
    /// Remembers who a pod link leads to.
    pub(super) fn learn(&mut self, flow: &Flow<'_>) {
        let Some(link) = flow.link.filter(|link| link.kind == LinkKind::Pod) else { return };
        if flow.tunnel.is_some() {
            return;
        }
        let delivered = flow.observation_point == Point::ToEndpoint as u8;
        let pod = if delivered { flow.destination } else { flow.source };
        let known = self.by_index.get(&link.index).is_some_and(|known| Arc::ptr_eq(known, pod));
        if !known && !pod.pod_name.is_empty() && !flow.is_drop() {
            self.by_index.insert(link.index, Arc::clone(pod));
            self.behind.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link.index, Arc::clone(pod));
        }
    }

    fn clear(&mut self) {
        self.by_index.clear();
        self.behind.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn kind(kind: capture::LinkKind) -> LinkKind {
    match kind {
        capture::LinkKind::Pod => LinkKind::Pod,
        capture::LinkKind::Uplink => LinkKind::Uplink,
        capture::LinkKind::Tunnel => LinkKind::Tunnel,
        capture::LinkKind::Bridge => LinkKind::Other,
    }
}

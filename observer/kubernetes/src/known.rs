//! All that the API has told, joined: pods with their namespaces' labels, nodes with the daemons on them.

use crate::{
    Config, Shown,
    backends::Backends,
    board::{Board, State},
    object::{self, Event, Named, Resource, read},
    peers::Peers,
    pods::{Batch, Pods},
    policies::ApiPolicies,
    surroundings::{self, Listed, Namespace},
};
use hashbrown::HashSet;
use observer_inventory::{CidrGroup, Node, Peer, ServiceEntry, Surroundings};
use std::{net::IpAddr, sync::Arc};
use tokio::time::Instant;

/// When a change happened: until now, and
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// at any time: nothing was known before.
    Ever,
    /// after this time, up to which all was told. A connection may hold up what it carries, and nobody tells for how long.
    Then(Instant),
    /// not before.
    Now,
}

/// Who is told.
pub trait Sink: Send {
    /// Pods that are new, changed or gone. Those of one batch come in no known order.
    fn pods(&mut self, batch: Batch, since: Since);
    /// All else, as it is now.
    fn surroundings(&mut self, surroundings: Surroundings);
    /// All pods have been told once: who is not among them is no pod.
    fn pods_are_complete(&mut self);
    /// What was told is what is in force now.
    fn confirm(&mut self);
}

/// The service, by namespace and name, behind which is what serves the API.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// All that was told.
pub(crate) struct Known {
    node: String,
    cluster: String,
    sink: Box<dyn Sink>,
    board: Arc<Board>,
    pods: Pods,
    /// Up to when all of pods was told.
    pods_heard: Since,
    /// A list of pods goes on: what it tells waits for its end.
    pods_begun: bool,
    /// It has ended, but pods' labels are not known yet.
    pods_wait: Option<Since>,
    peers: Peers,
    namespaces: Listed<Namespace>,
    has_labels: bool,
    /// Those whose labels changed in a list that goes on.
    relabelled: HashSet<Box<str>>,
    nodes: Listed<Node>,
    services: Listed<ServiceEntry>,
    backends: Arc<Backends>,
    kube_apiservers: Vec<IpAddr>,
    groups: Listed<CidrGroup>,
    policies: Option<Arc<ApiPolicies>>,
    /// Something besides pods has changed.
    is_dirty: bool,
}

impl Known {
    pub(crate) fn new(config: &Config, shown: Shown, sink: Box<dyn Sink>) -> Self {
        let Shown { board, policies, backends } = shown;
        Self {
            node: config.node.clone(),
            cluster: config.cluster.clone(),
            sink,
            board,
            pods: Pods::default(),
            pods_heard: Since::Ever,
            pods_begun: false,
            pods_wait: None,
            peers: Peers::new(config.peers.clone()),
            namespaces: Listed::default(),
            has_labels: false,
            relabelled: HashSet::new(),
            nodes: Listed::default(),
            services: Listed::default(),
            backends,
            kube_apiservers: Vec::new(),
            groups: Listed::default(),
            policies,
            is_dirty: true,
        }
    }

    /// All objects of a resource are told anew.
    pub(crate) fn begin(&mut self, resource: Resource) {
        match resource {
            Resource::Pods => {
                self.pods.begin();
                (self.pods_begun, self.pods_wait) = (true, None);
            }
            Resource::Namespaces => self.namespaces.begin(),
            Resource::Nodes => self.nodes.begin(),
            Resource::Services => self.services.begin(),
            Resource::EndpointSlices => self.backends.begin(),
            Resource::CidrGroups => self.groups.begin(),
            _ => self.policies(|policies| policies.begin(resource)),
        }
    }

    /// A watch goes on where it ended.
    pub(crate) fn goes_on(&mut self, resource: Resource) {
        self.board.heard(resource, self.len(resource));
    }

    /// All were told.
    pub(crate) fn end(&mut self, resource: Resource) {
        self.take_out(resource);
        self.board.synced(resource, self.len(resource));
        self.look_at_policies();
        self.is_dirty |= !self.board.is_all_told();
    }

    /// The end of a list: what it lacks is gone.
    fn take_out(&mut self, resource: Resource) {
        match resource {
            Resource::Pods => {
                self.is_dirty |= self.peers.end(self.pods.round());
                self.pods_wait = Some(self.pods_heard);
                self.tell_listed();
            }
            Resource::Namespaces => {
                self.is_dirty |= self.namespaces.end();
                self.namespaces_are_known();
            }
            Resource::Nodes => self.is_dirty |= self.nodes.end(),
            Resource::Services => self.is_dirty |= self.services.end(),
            Resource::EndpointSlices => {
                self.backends.end();
                self.look_at_api_servers();
            }
            Resource::CidrGroups => self.is_dirty |= self.groups.end(),
            _ => self.policies(|policies| policies.end(resource)),
        }
    }

    /// The API server does not know this resource: there are none.
    pub(crate) fn none(&mut self, resource: Resource) {
        self.begin(resource);
        self.take_out(resource);
        self.board.absent(resource);
        self.look_at_policies();
        self.is_dirty |= !self.board.is_all_told();
    }

    /// It can't be had now. Pods are told without the labels of namespaces then.
    pub(crate) fn can_not_have(&mut self, resource: Resource) {
        if resource == Resource::Namespaces {
            self.namespaces_are_known();
        }
        self.is_dirty |= !self.board.is_all_told();
    }

    fn namespaces_are_known(&mut self) {
        if std::mem::replace(&mut self.has_labels, true) {
            self.relabel();
        } else {
            self.relabelled.clear();
            self.tell_listed();
        }
    }

    fn look_at_api_servers(&mut self) {
        let now = self.backends.addresses(API_SERVER.0, API_SERVER.1);
        self.is_dirty |= now != self.kube_apiservers;
        self.kube_apiservers = now;
    }

    fn tell_listed(&mut self) {
        if !self.has_labels {
            return;
        }
        let Some(since) = self.pods_wait.take() else { return };
        self.pods_begun = false;
        self.pods_heard = Since::Then(Instant::now());
        let (sink, namespaces) = (&mut self.sink, &self.namespaces);
        self.pods.end(namespaces, &self.cluster, |batch| sink.pods(batch, since));
        sink.pods_are_complete();
    }

    fn relabel(&mut self) {
        let relabelled = std::mem::take(&mut self.relabelled);
        if relabelled.is_empty() {
            return;
        }
        self.pods.again(&relabelled);
        if !self.pods_begun {
            let (sink, namespaces) = (&mut self.sink, &self.namespaces);
            self.pods.all_news(namespaces, &self.cluster, |batch| sink.pods(batch, Since::Now));
        }
    }

    fn policies(&self, tell: impl FnOnce(&ApiPolicies)) {
        if let Some(policies) = &self.policies {
            tell(policies);
        }
    }

    /// Policies count together, once all have been told.
    fn look_at_policies(&self) {
        let of_policies = Resource::ALL.into_iter().filter(|resource| resource.is_policy());
        let mut states = of_policies.filter_map(|resource| self.board.of(resource));
        if states.all(|one| one.lists > 0 || one.state == State::Absent) {
            self.policies(ApiPolicies::complete);
        }
    }

    /// Takes what a watch tells, and gives the version of that; `is_list` while the list with which it began goes on.
    pub(crate) fn take(
        &mut self,
        resource: Resource,
        event: &Event<'_>,
        is_list: bool,
    ) -> Result<String, serde_json::Error> {
        let version = match (event, resource) {
            (Event::Applied(object), Resource::Pods) => {
                let pod: object::Pod = read(object)?;
                self.is_dirty |= self.peers.apply(&pod, self.pods.round());
                let (uid, version) = (pod.metadata.uid.clone(), pod.metadata.resource_version.clone());
                if self.pods.apply(pod, &self.node)
                    && !self.pods_begun
                    && let Some(pod) = self.pods.news(&uid, &self.namespaces, &self.cluster)
                {
                    self.sink.pods(Batch { pods: vec![pod], gone: Vec::new() }, self.pods_heard);
                }
                version
            }
            (Event::Deleted(object), Resource::Pods) => {
                let Named { metadata } = read(object)?;
                self.is_dirty |= self.peers.remove(&metadata.uid);
                if self.pods.remove(&metadata.uid) {
                    self.sink.pods(Batch { pods: Vec::new(), gone: vec![metadata.uid] }, self.pods_heard);
                }
                metadata.resource_version
            }
            (Event::Applied(object), Resource::Namespaces) => {
                let named: Named = read(object)?;
                let name: Box<str> = named.metadata.name.as_str().into();
                let version = named.metadata.resource_version.clone();
                let namespace = Namespace::from(named);
                let before = self.namespaces.get(&name);
                let is_relabelled = before.is_none_or(|before| before.labels != namespace.labels);
                self.is_dirty |= before.and_then(|before| before.mode) != namespace.mode;
                self.namespaces.apply(&name, namespace);
                if is_relabelled && self.has_labels {
                    self.relabelled.insert(name);
                }
                if !is_list {
                    self.relabel();
                }
                version
            }
            (Event::Applied(object), Resource::Nodes) => {
                let node: object::Node = read(object)?;
                let version = node.metadata.resource_version.clone();
                let node = surroundings::node(node);
                self.is_dirty |= self.nodes.apply(&node.name.clone(), node);
                version
            }
            (Event::Applied(object), Resource::Services) => {
                let service: object::Service = read(object)?;
                let version = service.metadata.resource_version.clone();
                let service = surroundings::service(service);
                let name = format!("{}/{}", service.namespace, service.name);
                self.is_dirty |= self.services.apply(&name, service);
                version
            }
            (Event::Applied(object), Resource::EndpointSlices) => {
                let slice: object::EndpointSlice = read(object)?;
                let version = slice.metadata.resource_version.clone();
                let is_near = slice.metadata.namespace == API_SERVER.0;
                // Those of a list are looked at together.
                if self.backends.apply(slice) && is_near && !is_list {
                    self.look_at_api_servers();
                }
                version
            }
            (Event::Applied(object), Resource::CidrGroups) => {
                let group: object::CidrGroup = read(object)?;
                let version = group.metadata.resource_version.clone();
                let group = surroundings::cidr_group(group);
                self.is_dirty |= self.groups.apply(&group.name.clone(), group);
                version
            }
            (Event::Applied(object), _) => match &self.policies {
                Some(policies) => policies.apply(resource, object)?,
                None => String::new(),
            },
            (Event::Deleted(object), _) => {
                let Named { metadata } = read(object)?;
                let name = metadata.name.as_str();
                self.is_dirty |= match resource {
                    Resource::Namespaces => self.namespaces.remove(name),
                    Resource::Nodes => self.nodes.remove(name),
                    Resource::Services => self.services.remove(&format!("{}/{name}", metadata.namespace)),
                    Resource::EndpointSlices => {
                        self.backends.remove(&metadata.namespace, name);
                        self.look_at_api_servers();
                        false
                    }
                    Resource::CidrGroups => self.groups.remove(name),
                    _ => {
                        self.policies(|policies| policies.remove(resource, &metadata));
                        false
                    }
                };
                metadata.resource_version
            }
            (Event::Bookmark(..) | Event::Ended(_), _) => String::new(),
        };
        Ok(version)
    }

    /// The API server said something of this resource.
    pub(crate) fn heard(&mut self, resource: Resource) {
        self.board.heard(resource, self.len(resource));
        if resource == Resource::Pods && !self.pods_begun {
            self.pods_heard = Since::Then(Instant::now());
            self.sink.confirm();
        }
    }

    fn len(&self, resource: Resource) -> usize {
        match resource {
            Resource::Pods => self.pods.len(),
            Resource::Namespaces => self.namespaces.len(),
            Resource::Nodes => self.nodes.len(),
            Resource::Services => self.services.len(),
            Resource::EndpointSlices => self.backends.len(),
            Resource::CidrGroups => self.groups.len(),
            _ => self.policies.as_ref().map_or(0, |policies| policies.len(resource)),
        }
    }

    /// Whether anything besides pods has changed.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Tells what changed besides pods, if anything did.
    pub(crate) fn flush(&mut self) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        let peers = self.peers.by_node();
        let nodes = self.nodes.values().map(|node| {
            let peer = peers
                .get(node.name.as_str())
                .map(|address| Peer { cluster: self.cluster.clone(), address: address.to_string() });
            Node { peer, ..node.clone() }
        });
        let modes = self.namespaces.iter().filter_map(|(name, of)| Some((name.to_owned(), of.mode?)));
        let surroundings = Surroundings {
            nodes: nodes.collect(),
            kube_apiservers: self.kube_apiservers.clone(),
            services: self.services.values().cloned().collect(),
            listeners: Vec::new(),
            cidr_groups: self.groups.values().cloned().collect(),
            policy_modes: modes.collect(),
        };
        self.sink.surroundings(surroundings);
        if !self.board.is_all_told() && !self.pods_begun && self.board.untold().is_empty() {
            self.board.tell_all_told();
        }
    }
}

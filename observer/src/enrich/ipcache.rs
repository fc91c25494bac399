//! The IP cache: who an address belonged to at a time, for readers that never wait and never fail.

mod held;
mod standing;

pub use held::{Held, HeldBy};
pub use standing::{Besides, Standing};

use super::{
    NodeLabels,
    claims::{self, Claims, Owner},
    identity::Identities,
    reserved::Reserved,
    resolved::Resolved,
    source::{Change, Journal, Node, Pod, Rank, Snapshot, Surroundings, Window},
    tables::Tables,
    told::{Naming, Shown, Told},
};
use crate::{
    endpoint::{Encoded, Endpoint, Service, Text, Workload},
    events::Events,
};
use arc_swap::ArcSwap;
use observer_inventory::shared::{Interner, Uid};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// Addresses, identities and names, from all sources.
///
/// Readers see a change at once. Who keeps copies (the kernel's maps) compares [`IpCache::generation`] as often as it
/// wants to be up to date, and takes the lists anew when it differs.
#[derive(Debug)]
pub struct IpCache {
    node: String,
    claims: Claims,
    tables: ArcSwap<Tables>,
    reserved: Reserved,
    writer: Mutex<Writer>,
    generation: AtomicU64,
    /// See [`Change::Awaited`]; a bit a source.
    awaited: AtomicU64,
    /// See [`IpCache::confirm`].
    confirmed: [AtomicU64; Rank::ALL.len()],
    journal: Option<Arc<dyn Journal>>,
    nodes: watch::Sender<Arc<[Node]>>,
    node_labels: NodeLabels,
    resolved: Arc<Resolved>,
}

/// What is known of an address.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) endpoint: Arc<Endpoint>,
    /// Times at which it was so, kernel nanoseconds.
    pub(super) when: Range<u64>,
    /// Whether any service has this address now.
    pub(super) is_service: bool,
}

/// The state that only changes need.
#[derive(Debug, Default)]
struct Writer {
    identities: Identities,
    /// Of each source.
    pods: [HashMap<Uid, Known>; Rank::ALL.len()],
    endpoint_ids: HashSet<u16>,
    surroundings: BTreeMap<Rank, Surroundings>,
    batch: u64,
    told: Told,
    /// Of clusters and namespaces.
    names: Interner<str>,
    // Replicas of a workload have these in common.
    workloads: Interner<[Workload]>,
    besides: Interner<Besides>,
}

/// A pod as it stands.
#[derive(Debug)]
struct Known {
    endpoint: Arc<Endpoint>,
    /// What it claimed and still has in its status, even if another pod claimed it since.
    ips: SmallVec<[IpAddr; 1]>,
    finished: bool,
    besides: Arc<Besides>,
}

impl Known {
    fn shown(&self) -> Shown<'_> {
        Shown { endpoint: &self.endpoint, finished: self.finished }
    }
}

impl IpCache {
    /// An empty cache for the node of this name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            claims: Claims::default(),
            tables: ArcSwap::default(),
            reserved: Reserved::default(),
            writer: Mutex::default(),
            generation: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            confirmed: Default::default(),
            journal: None,
            nodes: watch::Sender::new(Arc::default()),
            node_labels: NodeLabels::default(),
            resolved: Arc::default(),
        }
    }

    /// An empty cache whose changes are kept by `journal` too.
    pub fn with_journal(node: impl Into<String>, journal: Option<Arc<dyn Journal>>) -> Self {
        Self { journal, ..Self::new(node) }
    }

    // === for readers ===

    /// Who had this address at this time (kernel nanoseconds); never the wrong one, at worst `reserved:unknown`. It is
    /// looked up as it stands in a header: an IPv6 packet from `::ffff:10.0.0.1`, which RFC 4291 allows on no wire, is not
    /// of the pod that has 10.0.0.1.
    pub fn lookup(&self, ip: IpAddr, at_kernel_ns: u64) -> Arc<Endpoint> {
        self.owner(ip, at_kernel_ns).0
    }

    /// As [`IpCache::lookup`], with what spares asking again while [`IpCache::generation`] stays.
    pub(super) fn find(&self, ip: IpAddr, at_kernel_ns: u64) -> Found {
        let (endpoint, when) = self.owner(ip, at_kernel_ns);
        Found { endpoint, when, is_service: self.tables.load().is_service(ip) }
    }

    fn owner(&self, ip: IpAddr, at: u64) -> (Arc<Endpoint>, Range<u64>) {
        let (owner, when) = self.claims.owner(ip, at);
        let endpoint = match owner {
            Owner::Node(endpoint) | Owner::Pod(endpoint) => endpoint,
            Owner::Uncertain => Arc::clone(&self.reserved.unknown),
            Owner::Never if ip.is_loopback() => Arc::clone(&self.reserved.host),
            // Neither is outside the cluster, and without the link nobody can say whose it is.
            Owner::Never if ip.is_unspecified() || is_link_local(ip) => Arc::clone(&self.reserved.unknown),
            Owner::Never => Arc::clone(self.tables.load().cidr(ip).unwrap_or_else(|| {
                let is_known = self.awaited.load(Ordering::Relaxed) == 0;
                if is_known { &self.reserved.world } else { &self.reserved.unknown }
            })),
        };
        (endpoint, when)
    }

    /// The service with this address and port. Protocol 0: TCP, then UDP, then SCTP.
    pub fn service(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<Arc<Service>> {
        self.tables.load().service(ip, port, protocol).cloned()
    }

    /// The service whose translated address and port this is.
    pub fn frontend(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<Arc<Service>> {
        self.tables.load().frontend(ip, port, protocol).cloned()
    }

    /// What DNS told of the names that policies allow.
    pub(crate) fn resolved(&self) -> &Arc<Resolved> {
        &self.resolved
    }

    /// The endpoints that are no pods.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// Whether a pod of this name is known now, finished ones too.
    pub fn known_pod(&self, namespace: &str, name: &str) -> bool {
        let writer = self.writer();
        writer.pods().any(|pod| pod.endpoint.pod_name == name && pod.endpoint.namespace == namespace)
    }

    /// The UID of a pod of this name, as the greatest source has it; one that has not finished before one that has.
    pub(crate) fn uid_of(&self, namespace: &str, name: &str) -> Option<String> {
        let writer = self.writer();
        let is_it = |pod: &Known| pod.endpoint.pod_name == name && pod.endpoint.namespace == namespace;
        let mut best_first = writer.pods.iter().rev();
        best_first.find_map(|pods| {
            let those = pods.iter().filter(|(_, pod)| is_it(pod));
            those.max_by_key(|(_, pod)| !pod.finished).map(|(uid, _)| uid.to_string())
        })
    }

    /// Takes the pods that are known now, finished ones too, out of these, which are names by namespace.
    pub fn take_out_known(&self, pods: &mut HashMap<String, HashSet<String>>) {
        for known in self.writer().pods() {
            if let Some(names) = pods.get_mut(&*known.endpoint.namespace) {
                names.remove(&*known.endpoint.pod_name);
            }
        }
    }

    /// Raised after every batch that changed something.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Addresses of the pods on this node, sorted: for the kernel's table.
    pub fn local_pod_addresses(&self) -> Vec<IpAddr> {
        let writer = self.writer();
        let local = writer.pods().filter(|pod| pod.endpoint.local);
        let mut ips: Vec<_> = local.flat_map(|pod| pod.ips.iter().copied()).collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }

    /// This node's own addresses, sorted.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        self.tables.load().own.clone()
    }

    /// All service addresses with port and IANA protocol number, sorted.
    pub fn service_ports(&self) -> Vec<(IpAddr, u16, u8)> {
        self.tables.load().service_ports()
    }

    /// The labels that a pod identity stands for now.
    pub fn identity_labels(&self, identity: u32) -> Option<Arc<[Text]>> {
        self.writer().identities.labels(identity)
    }

    /// How often a label set had to take another number than its first.
    pub fn identity_collisions(&self) -> u64 {
        self.writer().identities.collisions()
    }

    /// All nodes, as they are and become.
    pub fn nodes(&self) -> watch::Receiver<Arc<[Node]>> {
        self.nodes.subscribe()
    }

    /// This node's labels, as they are and become.
    pub fn node_labels(&self) -> NodeLabels {
        self.node_labels.clone()
    }

    /// What happens to the names, and what others tell of the daemon.
    pub fn events(&self) -> Arc<Events> {
        Arc::clone(&self.writer().told.0)
    }

    /// When each source was last seen to be what is in force, kernel time; those that never were are left out.
    pub(crate) fn confirmed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Rank::ALL.iter().zip(&self.confirmed);
        all.map(|((_, name), at)| (*name, at.load(Ordering::Relaxed))).filter(|(_, at)| *at > 0)
    }

    // === for sources ===

    /// What the source says was in force at this time; a source that can't be read does not say so.
    pub(crate) fn confirm(&self, rank: Rank, at_kernel_ns: u64) {
        self.confirmed[rank as usize].store(at_kernel_ns, Ordering::Relaxed);
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Makes a change, and keeps it where there is a journal.
    pub fn apply(&self, change: Change) {
        match &self.journal {
            Some(journal) => journal.keep(&change, &mut || self.make(change.clone())),
            None => _ = self.make(change),
        }
    }

    /// See [`Change::All`].
    pub fn replace(&self, rank: Rank, snapshot: Snapshot, window: Window) {
        self.apply(Change::All(rank, snapshot, window));
    }

    /// See [`Change::Pod`].
    pub fn upsert_pod(&self, rank: Rank, pod: Pod, window: Window) {
        self.apply(Change::Pod(rank, pod, window));
    }

    /// See [`Change::Gone`].
    pub fn remove_pod(&self, rank: Rank, uid: &str, window: Window) {
        self.apply(Change::Gone(rank, uid.to_owned(), window));
    }

    /// See [`Change::Surroundings`]. Builds the tables anew: batch the changes.
    pub fn set_surroundings(&self, rank: Rank, surroundings: Surroundings) {
        self.apply(Change::Surroundings(rank, surroundings));
    }

    /// Whether something changed.
    fn make(&self, change: Change) -> bool {
        let mut writer = self.writer();
        writer.batch += 1;
        let tables = self.tables.load();
        let naming = Naming { claims: &self.claims, tables: &tables };
        let changed = match change {
            Change::All(rank, snapshot, window) => self.take_all(&mut writer, naming, rank, snapshot, window),
            Change::Pod(rank, pod, window) => writer.upsert(naming, rank, pod, window),
            Change::Gone(rank, uid, window) => writer.remove(naming, rank, &Uid::from(&*uid), window),
            Change::Surroundings(rank, surroundings) => self.surround(&mut writer, rank, surroundings),
            Change::Pods(rank, pods, gone, window) => {
                let mut changed = false;
                // The new before the old is removed, so that a successor's claim is seen as such.
                for pod in pods {
                    changed |= writer.upsert(naming, rank, pod, window);
                }
                for uid in gone {
                    changed |= writer.remove(naming, rank, &Uid::from(&*uid), window);
                }
                changed
            }
            Change::Awaited(rank, is_awaited) => {
                let bit = 1 << rank as u64;
                let before = if is_awaited {
                    self.awaited.fetch_or(bit, Ordering::Relaxed)
                } else {
                    self.awaited.fetch_and(!bit, Ordering::Relaxed)
                };
                (before & bit != 0) != is_awaited
            }
        };
        self.generation.fetch_add(u64::from(changed), Ordering::Release);
        changed
    }

    fn take_all(
        &self,
        writer: &mut Writer,
        naming: Naming<'_>,
        rank: Rank,
        snapshot: Snapshot,
        window: Window,
    ) -> bool {
        let mut changed = false;
        let mut gone: HashSet<Uid> = writer.pods[rank as usize].keys().cloned().collect();
        for pod in snapshot.pods {
            gone.remove(&Uid::from(&*pod.uid));
            changed |= writer.upsert(naming, rank, pod, window);
        }
        for uid in gone {
            changed |= writer.remove(naming, rank, &uid, window);
        }
        changed | self.surround(writer, rank, snapshot.surroundings)
    }

    fn surround(&self, writer: &mut Writer, rank: Rank, surroundings: Surroundings) -> bool {
        if writer.surroundings.get(&rank) == Some(&surroundings) {
            return false;
        }
        writer.told.services(writer.surroundings.get(&rank), &surroundings);
        writer.surroundings.insert(rank, surroundings);
        let Writer { surroundings, identities, told, .. } = writer;
        self.nodes.send_if_modified(|known| {
            let nodes = surroundings.values().flat_map(|from| &from.nodes);
            let changed = !nodes.clone().eq(known.iter());
            if changed {
                *known = nodes.cloned().collect();
            }
            changed
        });
        self.node_labels.set(&self.node, surroundings.values());
        let tables = Tables::build(surroundings.values(), &self.node, identities, &self.reserved);
        let before = self.tables.load();
        let names = Naming { claims: &self.claims, tables: &before }.of(before.singles_that_differ(&tables));
        self.claims.set_nodes(&before.nodes, &tables.nodes);
        told.nets(&before, &tables);
        told.addresses(names, Naming { claims: &self.claims, tables: &tables });
        self.tables.store(Arc::new(tables));
        true
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn pods(&self) -> impl Iterator<Item = &Known> {
        self.pods.iter().flat_map(HashMap::values)
    }

    fn upsert(&mut self, naming: Naming<'_>, rank: Rank, mut pod: Pod, window: Window) -> bool {
        let Naming { claims, .. } = naming;
        let uid = Uid::from(&*pod.uid);
        let old = self.pods[rank as usize].remove(&uid);
        let change = claims::Change { rank, window, batch: self.batch };
        // A phase never goes back: a late event of a finished pod claims nothing.
        let finished = pod.finished || old.as_ref().is_some_and(|old| old.finished);
        let has_own = !finished && !pod.host_network;
        let mut ips: SmallVec<[IpAddr; 1]> =
            pod.ips.iter().filter(|_| has_own).map(IpAddr::to_canonical).collect();
        ips.sort_unstable();
        ips.dedup();
        ips.shrink_to_fit();

        let besides = self.besides.get(Besides {
            labels: std::mem::take(&mut pod.other_labels).into_iter().map(Text::from).collect(),
            ports: std::mem::take(&mut pod.ports).into(),
        });
        let endpoint = self.endpoint(old.as_ref().map(|old| &*old.endpoint), pod);
        let same = old.as_ref().is_some_and(|old| old.endpoint == endpoint);
        // One for all its claims.
        let endpoint = old.as_ref().filter(|_| same).map_or(endpoint, |old| Arc::clone(&old.endpoint));
        let old_ips = old.as_ref().map_or(&[][..], |old| &old.ips);
        let touched = old_ips.iter().filter(|ip| !ips.contains(ip)).chain(&ips).copied();
        let is_touched = !same || *old_ips != *ips;
        let names = naming.of(touched.filter(|_| is_touched));
        for &ip in &ips {
            match old.as_ref().filter(|old| old.ips.contains(&ip)) {
                None => claims.open(ip, change, &endpoint),
                Some(old) if !same => claims.renew(ip, change, &old.endpoint, &endpoint),
                Some(_) => {}
            }
        }
        if let Some(old) = &old {
            for &ip in old.ips.iter().filter(|ip| !ips.contains(ip)) {
                claims.close(ip, change, &old.endpoint);
            }
        }
        let before = old.as_ref().map(Known::shown);
        self.told.pod(before, Some(Shown { endpoint: &endpoint, finished }));
        self.told.addresses(names, naming);
        let just_finished = finished && old.as_ref().is_some_and(|old| !old.finished);
        let more = old.as_ref().is_some_and(|old| !Arc::ptr_eq(&old.besides, &besides));
        let changed = !same || *old_ips != *ips || just_finished || more;
        self.pods[rank as usize].insert(uid, Known { endpoint, ips, finished, besides });
        changed
    }

    fn remove(&mut self, naming: Naming<'_>, rank: Rank, uid: &Uid, window: Window) -> bool {
        let Some(known) = self.pods[rank as usize].remove(uid) else { return false };
        let names = naming.of(known.ips.iter().copied());
        let change = claims::Change { rank, window, batch: self.batch };
        for &ip in &known.ips {
            naming.claims.close(ip, change, &known.endpoint);
        }
        self.told.pod(Some(known.shown()), None);
        self.told.addresses(names, naming);
        self.identities.release(known.endpoint.identity);
        self.endpoint_ids.remove(&(known.endpoint.id as u16));
        true
    }

    /// The endpoint of a pod; the old one where nothing of it changed.
    fn endpoint(&mut self, old: Option<&Endpoint>, pod: Pod) -> Arc<Endpoint> {
        // Acquired before the old set is released, so that an unchanged set keeps its number.
        let shared = self.identities.acquire(&pod.labels);
        if let Some(old) = old {
            self.identities.release(old.identity);
        }
        let id = match old.map(|old| old.id) {
            Some(id) if id != 0 => id,
            _ if pod.local => self.endpoint_id(&pod.uid),
            _ => 0,
        };
        let Pod { cluster, namespace, name, local, labels, workloads, .. } = pod;
        let (identity, labels) = shared.unwrap_or_else(|| (0, labels.into_iter().map(Text::from).collect()));
        Arc::new(Endpoint {
            id,
            identity,
            cluster: self.names.get(cluster).into(),
            namespace: self.names.get(namespace).into(),
            labels,
            pod_name: name,
            workloads: self.workloads.get(workloads),
            local,
            encoded: Encoded::default(),
        })
    }

    /// A free number in 1..=65535, by the UID, so that it mostly outlives a restart of the daemon. 0 when all are taken.
    fn endpoint_id(&mut self, uid: &str) -> u32 {
        let first = super::identity::candidate(&[uid.to_owned()], 0) as u16;
        let free = (0..=u16::MAX)
            .map(|n| first.wrapping_add(n))
            .find(|&id| id != 0 && !self.endpoint_ids.contains(&id));
        free.map_or(0, |id| {
            self.endpoint_ids.insert(id);
            u32::from(id)
        })
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;

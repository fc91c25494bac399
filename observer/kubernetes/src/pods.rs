//! All pods of the cluster, each as a compact record: what replicas of one workload have in common is there once.

use crate::{
    object::{self, Owner, protocol},
    surroundings::{Listed, Namespace},
};
use hashbrown::{HashMap, HashSet};
use observer_inventory::{
    Pod, PodPort, Workload,
    labels::{self, LabelMap},
    shared::{Interner, Text, Uid},
    workload,
};
use smallvec::SmallVec;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What of a pod does not differ between replicas, mostly.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    namespace: Arc<str>,
    account: Arc<str>,
    /// Keys and values in turn, each ended by a NUL, which neither can hold: one allocation, where a map has many.
    labels: Box<str>,
    workload: Option<(Arc<str>, Box<str>)>,
    /// Name, IANA protocol number and port.
    ports: Box<[(Arc<str>, u8, u16)]>,
    host_network: bool,
    local: bool,
}

/// What is known of a pod.
#[derive(Debug)]
struct Record {
    /// The same memory as of the name that was told.
    name: Text,
    kind: Arc<Kind>,
    ips: SmallVec<[IpAddr; 1]>,
    /// The list, or the watch behind it, in which it was last seen.
    round: u32,
    finished: bool,
    /// It is on its way out: its address may be another's by now.
    terminating: bool,
    /// It has changed, and nobody was told yet.
    is_news: bool,
}

impl Record {
    fn claims(&self) -> &[IpAddr] {
        if self.finished || self.kind.host_network { &[] } else { &self.ips }
    }
}

/// All pods that are known.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    by_uid: HashMap<Uid, Record>,
    kinds: Interner<Kind>,
    words: Interner<str>,
    round: u32,
}

/// What is told of pods together.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// New and changed ones.
    pub pods: Vec<Pod>,
    /// UIDs of those that are gone.
    pub gone: Vec<String>,
}

type Namespaces = Listed<Namespace>;

/// The most pods that are told together, unless their order is not known.
const BATCH: usize = 1024;

impl Pods {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Takes a pod as it is now; whether anything of it is new.
    pub(crate) fn apply(&mut self, pod: object::Pod, node: &str) -> bool {
        let object::Pod { metadata, spec, status } = pod;
        let local = !node.is_empty() && spec.node_name == node;
        let sidecars = spec.init_containers.into_iter().filter(|init| init.restart_policy == "Always");
        let ports = spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports);
        let named = ports.filter(|port| !port.name.is_empty() && port.number != 0);
        let kind = Kind {
            namespace: self.words.get(metadata.namespace),
            account: self.words.get(spec.service_account_name),
            workload: controller(&metadata.owner_references, &metadata.labels)
                .map(|Workload { kind, name }| (self.words.get(kind), name.into())),
            labels: packed(&metadata.labels),
            ports: named
                .filter_map(|port| Some((self.words.get(port.name), protocol(&port.protocol)?, port.number)))
                .collect(),
            host_network: spec.host_network,
            local,
        };
        let finished = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let one = [object::PodIp { ip: status.pod_ip }];
        let texts = if status.pod_ips.is_empty() { &one[..] } else { &status.pod_ips };
        let uid = Uid::from(&*metadata.uid);
        let known = self.by_uid.get_mut(&uid);
        let same_name = known.as_ref().map(|known| &known.name).filter(|name| ***name == *metadata.name);
        let mut ips: SmallVec<[IpAddr; 1]> = texts.iter().filter_map(|text| text.ip.parse().ok()).collect();
        ips.shrink_to_fit();
        let record = Record {
            name: same_name.map_or_else(|| metadata.name.into(), Text::clone),
            kind: self.kinds.get(kind),
            ips,
            round: self.round,
            finished,
            terminating: metadata.deletion_timestamp.is_some(),
            is_news: true,
        };
        let Some(known) = known else {
            self.by_uid.insert(uid, record);
            return true;
        };
        let is_same = known.name == record.name
            && Arc::ptr_eq(&known.kind, &record.kind)
            && known.ips == record.ips
            && known.finished == record.finished;
        let is_news = known.is_news || !is_same;
        *known = Record { is_news, ..record };
        !is_same
    }

    /// A pod is gone; whether it was known.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        self.by_uid.remove(&Uid::from(uid)).is_some()
    }

    /// Which list, or watch behind it, is taken in now.
    pub(crate) fn round(&self) -> u32 {
        self.round
    }

    /// From now on all pods are told anew.
    pub(crate) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// All pods were told: those that were not are gone. Gives what changed, in an order in which the same address may be
    /// given by several: pods on their way out, then those whose order nobody knows, together.
    pub(crate) fn end(&mut self, namespaces: &Namespaces, cluster: &str, mut tell: impl FnMut(Batch)) {
        let round = self.round;
        let mut gone: Vec<String> = self
            .by_uid
            .extract_if(|_, record| record.round != round)
            .map(|(uid, _)| uid.to_string())
            .collect();
        let mut claimed: HashMap<IpAddr, bool> = HashMap::new();
        for record in self.by_uid.values().filter(|record| record.is_news && !record.terminating) {
            for ip in record.claims() {
                claimed.entry(*ip).and_modify(|twice| *twice = true).or_insert(false);
            }
        }
        claimed.retain(|_, twice| *twice);
        let is_claimed = |record: &Record| record.claims().iter().any(|ip| claimed.contains_key(ip));
        let mut batch = Batch::default();
        let mut told = |batch: &mut Batch| {
            if *batch != Batch::default() {
                tell(std::mem::take(batch));
            }
        };
        for turn in [Turn::Leaving, Turn::Unordered, Turn::Others] {
            for (uid, record) in self.by_uid.iter_mut().filter(|(_, record)| record.is_news) {
                let is_due = match turn {
                    Turn::Leaving => record.terminating,
                    Turn::Unordered => is_claimed(record),
                    Turn::Others => true,
                };
                if is_due {
                    record.is_news = false;
                    batch.pods.push(pod(uid, record, namespaces, cluster));
                    if batch.pods.len() >= BATCH && turn != Turn::Unordered {
                        told(&mut batch);
                    }
                }
            }
            if turn == Turn::Others {
                // Behind their successors, so that these are seen as such.
                batch.gone = std::mem::take(&mut gone);
            }
            told(&mut batch);
        }
    }

    /// What nobody was told of this pod.
    pub(crate) fn news(&mut self, uid: &str, namespaces: &Namespaces, cluster: &str) -> Option<Pod> {
        let (uid, record) = self.by_uid.get_key_value_mut(&Uid::from(uid))?;
        std::mem::take(&mut record.is_news).then(|| pod(uid, record, namespaces, cluster))
    }

    /// All pods of these namespaces are to be told again, with other labels.
    pub(crate) fn again(&mut self, namespaces: &HashSet<Box<str>>) {
        let of = self.by_uid.values_mut().filter(|record| namespaces.contains(&*record.kind.namespace));
        of.for_each(|record| record.is_news = true);
    }

    /// All that nobody was told of.
    pub(crate) fn all_news(&mut self, namespaces: &Namespaces, cluster: &str, mut tell: impl FnMut(Batch)) {
        let mut batch = Batch::default();
        for (uid, record) in self.by_uid.iter_mut().filter(|(_, record)| record.is_news) {
            record.is_news = false;
            batch.pods.push(pod(uid, record, namespaces, cluster));
            if batch.pods.len() >= BATCH {
                tell(std::mem::take(&mut batch));
            }
        }
        if !batch.pods.is_empty() {
            tell(batch);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Leaving,
    Unordered,
    Others,
}

/// The workload of the owner that made it.
fn controller(owners: &[Owner], labels: &LabelMap) -> Option<Workload> {
    let owner = owners.iter().find(|owner| owner.controller)?;
    Some(workload::of_owner(&owner.kind, &owner.name, labels))
}

fn packed(labels: &LabelMap) -> Box<str> {
    let mut text = String::with_capacity(labels.iter().map(|(key, value)| key.len() + value.len() + 2).sum());
    for word in labels.iter().flat_map(|(key, value)| [key, value]) {
        // What no label can hold; the API server lets it through as little.
        text.extend(word.chars().filter(|c| *c != '\0'));
        text.push('\0');
    }
    text.into()
}

fn unpacked(text: &str) -> LabelMap {
    let mut words = text.split_terminator('\0');
    std::iter::from_fn(|| Some((words.next()?.to_owned(), words.next()?.to_owned()))).collect()
}

fn pod(uid: &Uid, record: &Record, namespaces: &Namespaces, cluster: &str) -> Pod {
    let Record { name, kind, ips, finished, .. } = record;
    let own = unpacked(&kind.labels);
    let none = BTreeMap::new();
    let of_namespace = namespaces.get(&kind.namespace).map_or(&none, |of| &of.labels);
    let port = |(name, protocol, port): &(Arc<str>, u8, u16)| PodPort {
        name: name.to_string(),
        protocol: *protocol,
        port: *port,
    };
    let workload = kind.workload.iter();
    Pod {
        uid: uid.to_string(),
        cluster: cluster.to_owned(),
        namespace: kind.namespace.to_string(),
        name: name.clone(),
        ips: ips.to_vec(),
        host_network: kind.host_network,
        finished: *finished,
        local: kind.local,
        labels: labels::of_pod(cluster, &kind.namespace, &kind.account, &own, of_namespace),
        workloads: workload
            .map(|(kind, name)| Workload { kind: kind.to_string(), name: name.to_string() })
            .collect(),
        other_labels: labels::not_security(&own),
        ports: kind.ports.iter().map(port).collect(),
    }
}

#[cfg(test)]
mod tests;

//! The namespaces seen lately, for GetNamespaces.

use crate::endpoint::Endpoint;
use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashMap};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// A Kubernetes namespace of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// The cluster's name.
    pub cluster: String,
    /// The namespace's name.
    pub name: String,
}

/// A [`Namespace`] to look for.
#[derive(Hash)]
struct Wanted<'a> {
    cluster: &'a str,
    name: &'a str,
}

impl Equivalent<Namespace> for Wanted<'_> {
    fn equivalent(&self, namespace: &Namespace) -> bool {
        self.name == namespace.name && self.cluster == namespace.cluster
    }
}

/// Hubble forgets a namespace after the same time.
const HOUR_NS: i64 = 3_600_000_000_000;
/// Larger clusters exist, but not on one node; a later name waits until an older one is forgotten.
const MOST: usize = 4096;

/// Names with the time of the last flow of each, Unix nanoseconds. The writer changes times in place; the list is
/// swapped whole when a name comes or goes.
#[derive(Debug, Default)]
pub(super) struct Namespaces(ArcSwap<HashMap<Namespace, AtomicI64>>);

impl Namespaces {
    /// By the writer alone.
    pub(super) fn see(&self, endpoint: &Endpoint, time_ns: i64) {
        let Endpoint { cluster, namespace: name, .. } = endpoint;
        if name.is_empty() {
            return;
        }
        let list = self.0.load();
        if let Some(last) = list.get(&Wanted { cluster, name }) {
            last.fetch_max(time_ns, Ordering::Relaxed);
        } else if list.len() < MOST {
            let mut longer = copy(&list, i64::MIN);
            longer.insert(Namespace { cluster: cluster.clone(), name: name.clone() }, time_ns.into());
            self.0.store(Arc::new(longer));
        }
    }

    /// By the writer alone.
    pub(super) fn forget_before_an_hour_of(&self, now_ns: i64) {
        self.0.store(Arc::new(copy(&self.0.load(), now_ns.saturating_sub(HOUR_NS))));
    }

    /// Those of the hour before `now_ns`, and those that `more` names as seen at a time; sorted.
    pub(super) fn since_an_hour_before<'a>(
        &self,
        now_ns: i64,
        more: impl Iterator<Item = (&'a Endpoint, i64)>,
    ) -> Vec<Namespace> {
        let from_ns = now_ns.saturating_sub(HOUR_NS);
        let mut list = copy(&self.0.load(), from_ns);
        for (endpoint, _) in more.filter(|(_, time_ns)| *time_ns >= from_ns) {
            let Endpoint { cluster, namespace: name, .. } = endpoint;
            if !name.is_empty() && list.len() < MOST && !list.contains_key(&Wanted { cluster, name }) {
                list.insert(Namespace { cluster: cluster.clone(), name: name.clone() }, AtomicI64::default());
            }
        }
        let mut names: Vec<Namespace> = list.into_keys().collect();
        names.sort_unstable();
        names
    }
}

fn copy(list: &HashMap<Namespace, AtomicI64>, from_ns: i64) -> HashMap<Namespace, AtomicI64> {
    let entries = list.iter().map(|(name, last)| (name, last.load(Ordering::Relaxed)));
    entries
        .filter(|(_, last)| *last >= from_ns)
        .map(|(name, last)| (name.clone(), AtomicI64::new(last)))
        .collect()
}

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
pub(super) const HOUR_NS: i64 = 3_600_000_000_000;
/// Larger clusters exist, but not on one node; a later name waits until an older one is forgotten.
const MOST: usize = 4096;

type List = HashMap<Namespace, Arc<AtomicI64>>;

/// Names with the time of the last flow of each, Unix nanoseconds. The writer changes times in place; the list is
/// swapped whole when a name comes or goes.
#[derive(Debug, Default)]
pub(super) struct Namespaces(ArcSwap<List>);

impl Namespaces {
    /// The place for the time of the last flow of the endpoint's namespace. By the writer alone.
    pub(super) fn see(&self, endpoint: &Endpoint) -> Option<Arc<AtomicI64>> {
        let Endpoint { cluster, namespace: name, .. } = endpoint;
        if name.is_empty() {
            return None;
        }
        let known = self.0.load();
        if let Some(time) = known.get(&Wanted { cluster, name }) {
            return Some(Arc::clone(time));
        }
        if known.len() >= MOST {
            return None;
        }
        let time = Arc::new(AtomicI64::new(i64::MIN));
        let mut longer = since(&known, i64::MIN);
        longer.insert(Namespace { cluster: cluster.to_string(), name: name.to_string() }, Arc::clone(&time));
        self.0.store(Arc::new(longer));
        Some(time)
    }

    /// By the writer alone.
    pub(super) fn forget_before(&self, from_ns: i64) {
        self.0.store(Arc::new(since(&self.0.load(), from_ns)));
    }

    /// Those of the hour before `now_ns`, sorted.
    pub(super) fn since_an_hour_before(&self, now_ns: i64) -> Vec<Namespace> {
        let mut names: Vec<_> = since(&self.0.load(), now_ns.saturating_sub(HOUR_NS)).into_keys().collect();
        names.sort_unstable();
        names
    }
}

fn since(list: &List, from_ns: i64) -> List {
    let recent = list.iter().filter(|(_, last)| last.load(Ordering::Relaxed) >= from_ns);
    recent.map(|(name, last)| (name.clone(), Arc::clone(last))).collect()
}

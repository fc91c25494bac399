//! The namespaces seen lately, for GetNamespaces.

use crate::endpoint::Endpoint;
use std::collections::BTreeMap;

/// A Kubernetes namespace of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// The cluster's name.
    pub cluster: String,
    /// The namespace's name.
    pub name: String,
}

/// Hubble forgets a namespace after the same time.
const HOUR_NS: i64 = 3_600_000_000_000;
/// Larger clusters exist, but not on one node; a later name waits until an older one is forgotten.
const MOST: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {
    last_seen: BTreeMap<Namespace, i64>,
}

impl Namespaces {
    pub(super) fn see(&mut self, endpoint: &Endpoint, time_ns: i64) {
        if endpoint.namespace.is_empty() {
            return;
        }
        let name = Namespace { cluster: endpoint.cluster.clone(), name: endpoint.namespace.clone() };
        if let Some(last) = self.last_seen.get_mut(&name) {
            *last = time_ns.max(*last);
        } else if self.last_seen.len() < MOST {
            self.last_seen.insert(name, time_ns);
        }
    }

    pub(super) fn forget_before_an_hour_of(&mut self, now_ns: i64) {
        self.last_seen.retain(|_, last| *last >= now_ns.saturating_sub(HOUR_NS));
    }

    pub(super) fn since_an_hour_before(mut self, now_ns: i64) -> Vec<Namespace> {
        self.forget_before_an_hour_of(now_ns);
        self.last_seen.into_keys().collect()
    }
}

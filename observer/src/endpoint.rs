//! Who stands behind an address: a pod, a node, a process's namespace, or a reserved identity.

pub use observer_inventory::{Workload, shared::Text};

use observer_proto::flow as wire;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::{
    num::NonZeroU64,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// One version of one endpoint: when a pod's labels change it gets a new `Endpoint`, and flows keep the one they had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Hubble's endpoint id: set for local pods only.
    pub id: u32,
    /// Security identity: reserved number, hash of the labels, or CIDR identity.
    pub identity: u32,
    /// The cluster, empty for reserved identities.
    pub cluster: Text,
    /// The namespace, empty where there is none.
    pub namespace: Text,
    /// Labels with their source, sorted: `k8s:app=web`, `reserved:world`. Shared by all pods of an identity.
    pub labels: Arc<[Text]>,
    /// The pod's name, empty where there is none.
    pub pod_name: Text,
    /// Owner workloads, shared by all pods that have the same.
    pub workloads: Arc<[Workload]>,
    /// Whether it runs on this node.
    pub local: bool,
    /// Kept by [`Endpoint::encoded`].
    pub encoded: Encoded,
}

impl Endpoint {
    /// The `flow.Endpoint` message of the fields as they are at the first call: half of every flow's bytes are its two
    /// endpoints. Few of a cluster's pods are ever seen by one node, so it is made when first needed.
    pub fn encoded(&self) -> &[u8] {
        self.encoded.forms().protobuf.get_or_init(|| self.message().encode_to_vec().into())
    }

    /// As [`Endpoint::encoded`], in Hubble's JSON.
    pub fn json(&self) -> &[u8] {
        // An endpoint holds text and numbers only, which all have a JSON form.
        let json = || observer_proto::json::line(&self.message()).unwrap_or_else(|_| "{}".into());
        self.encoded.forms().json.get_or_init(|| json().into_bytes().into())
    }

    /// A number of this version of this endpoint; no other has it in the life of the process.
    pub fn serial(&self) -> NonZeroU64 {
        self.encoded.serial
    }

    fn message(&self) -> wire::Endpoint {
        wire::Endpoint {
            id: self.id,
            identity: self.identity,
            cluster_name: self.cluster.to_string(),
            namespace: self.namespace.to_string(),
            labels: self.labels.iter().map(ToString::to_string).collect(),
            pod_name: self.pod_name.to_string(),
            workloads: self
                .workloads
                .iter()
                .map(|w| wire::Workload { name: w.name.clone(), kind: w.kind.clone() })
                .collect(),
        }
    }
}

/// The encoded forms of an endpoint, once made, and its serial number. They make no two endpoints differ, and a copy,
/// whose fields may be changed, starts without them.
#[derive(Debug)]
pub struct Encoded {
    serial: NonZeroU64,
    /// A node needs none of nearly all pods of a cluster.
    forms: OnceLock<Box<Forms>>,
}

#[derive(Debug, Default)]
struct Forms {
    protobuf: OnceLock<Box<[u8]>>,
    json: OnceLock<Box<[u8]>>,
}

impl Encoded {
    fn forms(&self) -> &Forms {
        self.forms.get_or_init(Box::default)
    }
}

impl Default for Encoded {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let serial = NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Ordering::Relaxed));
        Self { serial, forms: OnceLock::new() }
    }
}

impl Clone for Encoded {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Encoded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Encoded {}

/// A service by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_copy_is_encoded_anew() {
        let first = Endpoint { pod_name: "web-0".into(), ..Endpoint::default() };
        assert_eq!(first.encoded(), first.message().encode_to_vec());
        let second = Endpoint { pod_name: "web-1".into(), ..first.clone() };
        assert_eq!(second.encoded(), second.message().encode_to_vec());
        assert_eq!(
            (first.json(), second.json()),
            (&br#"{"pod_name":"web-0"}"#[..], &br#"{"pod_name":"web-1"}"#[..])
        );
        assert_ne!(first, second);
        assert_ne!(first.serial(), second.serial());
        assert_eq!(first, Endpoint { pod_name: "web-0".into(), ..Endpoint::default() });
    }
}

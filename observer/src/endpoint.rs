//! Who stands behind an address: a pod, a node, a process's namespace, or a reserved identity.

use observer_proto::flow as wire;
use prost::Message as _;

/// One version of one endpoint: when a pod's labels change it gets a new `Endpoint`, and flows keep the one they had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Hubble's endpoint id: set for local pods only.
    pub id: u32,
    /// Security identity: reserved number, hash of the labels, or CIDR identity.
    pub identity: u32,
    /// The cluster, empty for reserved identities.
    pub cluster: String,
    /// The namespace, empty where there is none.
    pub namespace: String,
    /// Labels with their source, sorted: `k8s:app=web`, `reserved:world`.
    pub labels: Vec<String>,
    /// The pod's name, empty where there is none.
    pub pod_name: String,
    /// Owner workloads.
    pub workloads: Vec<Workload>,
    /// Whether it runs on this node.
    pub local: bool,
    /// The `flow.Endpoint` message of the above, encoded once: half of every flow's bytes are its two endpoints.
    pub encoded: Vec<u8>,
}

impl Endpoint {
    /// Fills [`Endpoint::encoded`] from the other fields.
    #[must_use]
    pub fn encode(mut self) -> Self {
        self.encoded = wire::Endpoint {
            id: self.id,
            identity: self.identity,
            cluster_name: self.cluster.clone(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            pod_name: self.pod_name.clone(),
            workloads: self
                .workloads
                .iter()
                .map(|w| wire::Workload { name: w.name.clone(), kind: w.kind.clone() })
                .collect(),
        }
        .encode_to_vec();
        self
    }
}

/// What made a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A service by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

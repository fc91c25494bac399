//! Cilium's reserved identities, and the endpoints that stand for them.

use crate::endpoint::Endpoint;
use std::sync::Arc;

/// Numbers and names of the reserved identities.
pub const RESERVED: [(u32, &str); 12] = [
    (0, "unknown"),
    (1, "host"),
    (2, "world"),
    (3, "unmanaged"),
    (4, "health"),
    (5, "init"),
    (6, "remote-node"),
    (7, "kube-apiserver"),
    (8, "ingress"),
    (9, "world-ipv4"),
    (10, "world-ipv6"),
    (11, "overlay-to-encrypt"),
];

/// The endpoints an address can have without being a pod's; made once, shared by all flows.
///
/// The world is identity 2 for both families: hubble-ui knows no other world, and Cilium's split into 9 and 10 exists
/// for its datapath only.
#[derive(Clone, Debug)]
pub struct Reserved {
    /// 0: nothing is known, or it is not certain.
    pub unknown: Arc<Endpoint>,
    /// 1: this node.
    pub host: Arc<Endpoint>,
    /// 2: outside the cluster.
    pub world: Arc<Endpoint>,
    /// 6: another node.
    pub remote_node: Arc<Endpoint>,
    /// 7: another node, or an outside address, that serves the Kubernetes API.
    pub kube_apiserver: Arc<Endpoint>,
}

impl Default for Reserved {
    fn default() -> Self {
        let endpoint = |identity, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.into()).collect();
            Arc::new(Endpoint { identity, labels, ..Endpoint::default() })
        };
        Self {
            unknown: endpoint(0, &["reserved:unknown"]),
            host: endpoint(1, &["reserved:host"]),
            world: endpoint(2, &["reserved:world"]),
            remote_node: endpoint(6, &["reserved:remote-node"]),
            kube_apiserver: endpoint(7, &["reserved:kube-apiserver", "reserved:remote-node"]),
        }
    }
}

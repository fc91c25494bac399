//! Objects of the Kubernetes API, as far as anything is asked of them. The API server has checked them; what it would not
//! have let through is a fault of the line.

use observer_inventory::labels::LabelMap;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::fmt;

/// What is followed, each by a watch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Namespaces; first, since pods have labels of theirs.
    Namespaces,
    /// Pods of all nodes.
    Pods,
    /// Nodes.
    Nodes,
    /// Services.
    Services,
    /// Who stands behind services, the API server's own among them.
    EndpointSlices,
    /// Cilium's groups of CIDRs.
    CidrGroups,
    /// Kubernetes' policies.
    NetworkPolicies,
    /// Cilium's policies of namespaces.
    CiliumNetworkPolicies,
    /// Cilium's policies of the cluster.
    CiliumClusterwideNetworkPolicies,
}

impl Resource {
    /// All, in the order in which they are first asked for.
    pub const ALL: [Self; 9] = [
        Self::Namespaces,
        Self::Pods,
        Self::Nodes,
        Self::Services,
        Self::EndpointSlices,
        Self::CidrGroups,
        Self::NetworkPolicies,
        Self::CiliumNetworkPolicies,
        Self::CiliumClusterwideNetworkPolicies,
    ];

    /// As the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::CidrGroups => "ciliumcidrgroups",
            Self::NetworkPolicies => "networkpolicies",
            Self::CiliumNetworkPolicies => "ciliumnetworkpolicies",
            Self::CiliumClusterwideNetworkPolicies => "ciliumclusterwidenetworkpolicies",
        }
    }

    /// The group's version, and the kind that its objects have.
    pub(crate) fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Namespaces => ("v1", "Namespace"),
            Self::Pods => ("v1", "Pod"),
            Self::Nodes => ("v1", "Node"),
            Self::Services => ("v1", "Service"),
            Self::EndpointSlices => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::CidrGroups => ("cilium.io/v2", "CiliumCIDRGroup"),
            Self::NetworkPolicies => ("networking.k8s.io/v1", "NetworkPolicy"),
            Self::CiliumNetworkPolicies => ("cilium.io/v2", "CiliumNetworkPolicy"),
            Self::CiliumClusterwideNetworkPolicies => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        }
    }

    /// The path of all of them.
    pub(crate) fn path(self) -> String {
        let (version, _) = self.kind();
        let root = if version.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{version}/{}", self.name())
    }

    /// Whether the API server may not know it: a definition that comes with Cilium, or never.
    pub(crate) fn is_optional(self) -> bool {
        self.kind().0.starts_with("cilium.io/")
    }

    /// Whether it holds policies.
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicies | Self::CiliumNetworkPolicies | Self::CiliumClusterwideNetworkPolicies
        )
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a line of a watch says.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// An object is new, or changed.
    Applied(&'a RawValue),
    /// An object is gone.
    Deleted(&'a RawValue),
    /// All objects up to this version were told; with `true` the list with which the watch began is complete.
    Bookmark(String, bool),
    /// The watch goes no further.
    Ended(Status),
}

/// Why the API server refuses something.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) reason: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Reads a line of a watch.
pub(crate) fn event(line: &[u8]) -> Result<Event<'_>, serde_json::Error> {
    let Line { kind, object } = serde_json::from_slice(line)?;
    Ok(match kind {
        "ADDED" | "MODIFIED" => Event::Applied(object),
        "DELETED" => Event::Deleted(object),
        "BOOKMARK" => {
            let Named { metadata } = read(object)?;
            let is_list = metadata.annotations.get(LIST_ENDS).is_some_and(|ends| ends == "true");
            Event::Bookmark(metadata.resource_version, is_list)
        }
        "ERROR" => Event::Ended(read(object)?),
        other => return Err(serde::de::Error::custom(format_args!("{other:?} is no type of an event"))),
    })
}

/// On the bookmark after the last object of the list with which a watch began.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// An object out of what stands in a line.
pub(crate) fn read<T: DeserializeOwned>(object: &RawValue) -> Result<T, serde_json::Error> {
    serde_json::from_str(object.get())
}

/// A page of a list.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(crate) items: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default, rename = "continue", deserialize_with = "or_default")]
    pub(crate) goes_on: String,
}

/// Go writes what is nil as null.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: LabelMap,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: LabelMap,
    #[serde(deserialize_with = "or_default")]
    pub(crate) owner_references: Vec<Owner>,
    pub(crate) deletion_timestamp: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) controller: bool,
}

/// Anything of which only the metadata is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    #[serde(default)]
    pub(crate) metadata: Meta,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) spec: PodSpec,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) node_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) host_network: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) service_account_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) init_containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<ContainerPort>,
    /// Of one that runs beside the others although it begins before them: `Always`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) restart_policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(rename = "containerPort")]
    pub(crate) number: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) phase: String,
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pub(crate) pod_ips: Vec<PodIp>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct PodIp {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ip: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) spec: ServiceSpec,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) status: ServiceStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub(crate) cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    pub(crate) external_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<ServicePort>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) selector: LabelMap,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicePort {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) name: String,
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) protocol: String,
    pub(crate) target_port: Option<IntOrString>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) node_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum IntOrString {
    Int(u16),
    String(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancer {
    #[serde(deserialize_with = "or_default")]
    pub(crate) ingress: Vec<PodIp>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ports: Vec<EndpointPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Conditions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointPort {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) protocol: String,
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CidrGroup {
    pub(crate) metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) spec: CidrGroupSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CidrGroupSpec {
    #[serde(rename = "externalCIDRs", deserialize_with = "or_default")]
    pub(crate) external_cidrs: Vec<String>,
}

/// IANA's number of a protocol as the API writes it.
pub(crate) fn protocol(name: &str) -> Option<u8> {
    match name {
        "" | "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

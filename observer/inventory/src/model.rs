//! What is known of pods, nodes and services, whoever told it.

use crate::{backends::Slice, labels::LabelMap, shared::Text};
use ipnet::IpNet;
use observer_policy::model::Mode;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// A pod, or anything else that has addresses and labels of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// What tells it from an earlier or later pod of the same name; unique within its source.
    pub uid: String,
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: Text,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it uses its node's network: then its addresses are the node's.
    pub host_network: bool,
    /// Whether it has Succeeded or Failed: then its addresses are free, though Kubernetes goes on showing them.
    pub finished: bool,
    /// Whether it runs on this node.
    pub local: bool,
    /// Security labels, sorted, see [`crate::labels`].
    pub labels: Vec<String>,
    /// The owner workloads.
    pub workloads: Vec<Workload>,
    /// Labels that are no part of an identity, but that policies may select by. No recording has them.
    #[serde(skip)]
    pub other_labels: Vec<String>,
    /// What its containers call their ports. No recording has them.
    #[serde(skip)]
    pub ports: Vec<PodPort>,
}

/// A port of a pod that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodPort {
    /// Its name.
    pub name: String,
    /// IANA protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// What made a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: LabelMap,
    /// Where its own daemon serves Hubble's API, if it does. A recording plays no other daemons.
    #[serde(skip)]
    pub peer: Option<Peer>,
}

/// A daemon that serves Hubble's API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The cluster of its node.
    pub cluster: String,
    /// `address:port`, or `unix:///path`.
    pub address: String,
}

/// A service with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Its cluster addresses; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which pods stand behind it.
    pub selector: LabelMap,
    /// Its own labels, by which policies may select it. No recording has them.
    #[serde(skip)]
    pub labels: LabelMap,
    /// Who stands behind it; where nobody tells, the pods that it selects. No recording has it.
    #[serde(skip)]
    pub slices: Option<Vec<Arc<Slice>>>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port's name, empty where it has none.
    pub name: String,
    /// The port that clients call.
    pub port: u16,
    /// IANA protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The pods' port.
    pub target: TargetPort,
    /// The port at each node's own addresses that leads there too. No recording has it.
    #[serde(skip)]
    pub node_port: Option<u16>,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the pod gives it.
    Name(String),
}

/// A named list of CIDRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrGroup {
    /// Its name.
    pub name: String,
    /// Its CIDRs, without host bits.
    pub cidrs: Vec<IpNet>,
    /// Its labels, by which policies may select it. No recording has them.
    #[serde(skip)]
    pub labels: LabelMap,
}

/// What a source knows besides pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Addresses that serve the Kubernetes API.
    pub kube_apiservers: Vec<IpAddr>,
    /// All services.
    pub services: Vec<ServiceEntry>,
    /// What listens on the node itself: named like a service, but never what stands behind a translated address.
    pub listeners: Vec<ServiceEntry>,
    /// All CIDR groups.
    pub cidr_groups: Vec<CidrGroup>,
    /// The mode of policies that say none, by namespace. No recording has them.
    #[serde(skip)]
    pub policy_modes: BTreeMap<String, Mode>,
}

/// All that a source knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// All pods.
    pub pods: Vec<Pod>,
    /// The rest.
    pub surroundings: Surroundings,
}

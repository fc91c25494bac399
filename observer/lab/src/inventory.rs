//! The inventory file of a lab, for the daemon. It is written as JSON, which is YAML too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::scenario::{CidrGroup, Namespace, Owner, Scenario, ServicePort};

/// Who is who in the lab.
#[derive(Debug, Serialize)]
pub struct Inventory {
    cluster: &'static str,
    nodes: Vec<NodeEntry>,
    namespaces: Vec<Namespace>,
    pods: Vec<PodEntry>,
    services: Vec<ServiceEntry>,
    cidr_groups: Vec<CidrGroup>,
}

#[derive(Debug, Serialize)]
struct NodeEntry {
    name: String,
    addresses: Vec<IpAddr>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct PodEntry {
    name: String,
    namespace: String,
    uid: String,
    node: String,
    ips: Vec<IpAddr>,
    host_network: bool,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<String>,
    phase: &'static str,
}

#[derive(Debug, Serialize)]
struct ServiceEntry {
    name: String,
    namespace: String,
    cluster_ips: Vec<IpAddr>,
    ports: Vec<ServicePort>,
    selector: BTreeMap<String, String>,
}

impl Inventory {
    /// The inventory of a scenario. A node's addresses include its pods' gateways: packets come from them too.
    pub fn of(scenario: &Scenario) -> Self {
        let declared: BTreeSet<&str> = scenario.namespaces.iter().map(|n| n.name.as_str()).collect();
        let used: BTreeSet<&str> = scenario.pods.iter().map(|pod| pod.namespace.as_str()).collect();
        let implied = used
            .difference(&declared)
            .map(|name| Namespace { name: (*name).into(), labels: BTreeMap::new() });
        Self {
            cluster: "default",
            nodes: scenario
                .nodes
                .iter()
                .map(|node| NodeEntry {
                    name: node.name.clone(),
                    addresses: node
                        .addresses
                        .iter()
                        .copied()
                        .chain(node.gateways.iter().map(ipnet::IpNet::addr))
                        .collect(),
                    labels: node.labels.clone(),
                })
                .collect(),
            namespaces: scenario.namespaces.iter().cloned().chain(implied).collect(),
            pods: scenario
                .pods
                .iter()
                .map(|pod| PodEntry {
                    name: pod.name.clone(),
                    namespace: pod.namespace.clone(),
                    uid: pod.uid(),
                    node: pod.node.clone(),
                    ips: pod.ips.clone(),
                    host_network: false,
                    labels: pod.labels.clone(),
                    owner: pod.owner.clone(),
                    service_account: pod.service_account.clone(),
                    phase: "Running",
                })
                .collect(),
            services: scenario
                .services
                .iter()
                .map(|service| ServiceEntry {
                    name: service.name.clone(),
                    namespace: service.namespace.clone(),
                    cluster_ips: service.cluster_ips.clone(),
                    ports: service.ports.clone(),
                    selector: service.selector.clone(),
                })
                .collect(),
            cidr_groups: scenario.cidr_groups.clone(),
        }
    }

    /// The file's text.
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

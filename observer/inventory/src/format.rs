//! The file's form, as it is written; every checked value keeps its place in the file.

use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

pub(super) type Text = Spanned<String>;
pub(super) type Labels = BTreeMap<String, Text>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) cluster: Option<Text>,
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) pods: Vec<Pod>,
    pub(super) services: Vec<Service>,
    pub(super) cidr_groups: Vec<CidrGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) addresses: Vec<Text>,
    pub(super) hubble_address: Option<Text>,
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) annotations: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) name: Text,
    pub(super) namespace: Option<Text>,
    pub(super) uid: Option<Text>,
    pub(super) node: Option<Text>,
    #[serde(default)]
    pub(super) ips: Vec<Text>,
    #[serde(default)]
    pub(super) host_network: bool,
    #[serde(default)]
    pub(super) labels: Labels,
    pub(super) owner: Option<Owner>,
    pub(super) service_account: Option<Text>,
    #[serde(default)]
    pub(super) phase: Phase,
    #[serde(default)]
    pub(super) ports: Vec<PodPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodPort {
    pub(super) name: Text,
    pub(super) port: Spanned<u16>,
    #[serde(default)]
    pub(super) protocol: Protocol,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    pub(super) kind: Text,
    pub(super) name: Text,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    #[default]
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Text,
    pub(super) namespace: Option<Text>,
    #[serde(default)]
    pub(super) cluster_ips: Vec<Text>,
    #[serde(default)]
    pub(super) ports: Vec<ServicePort>,
    #[serde(default)]
    pub(super) selector: Labels,
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicePort {
    pub(super) port: Spanned<u16>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    pub(super) target_port: Option<Text>,
    pub(super) node_port: Option<Spanned<u16>>,
    pub(super) name: Option<Text>,
}

#[derive(Deserialize, Default, Clone, Copy)]
pub(super) enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp = 6,
    #[serde(rename = "UDP")]
    Udp = 17,
    #[serde(rename = "SCTP")]
    Sctp = 132,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CidrGroup {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) cidrs: Vec<Text>,
    #[serde(default)]
    pub(super) labels: Labels,
}

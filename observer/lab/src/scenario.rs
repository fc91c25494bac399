//! The scenario file: what it can say. `testdata/lab/README.md` explains it with examples.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{LabError, Result};

mod sending;

pub use sending::{Cause, Family, Kind, Party, Traffic};

/// A whole lab: what to build and what traffic to make.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name, used as the default prefix of the namespaces.
    pub name: String,
    /// Whether links keep GSO, GRO, TSO and checksum offload. `false`: every packet on a link is at most one MTU, so that
    /// link counters count packets as they would be on a wire.
    #[serde(default = "yes")]
    pub offload: bool,
    /// The network outside of all nodes.
    pub outside: Outside,
    /// Nodes, each a network namespace.
    pub nodes: Vec<Node>,
    /// Kubernetes namespaces with labels; those that only pods name need no entry.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// Pods.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// Services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Hosts outside of the nodes.
    #[serde(default)]
    pub externals: Vec<External>,
    /// What drops packets.
    #[serde(default)]
    pub drops: Vec<DropRule>,
    /// Named address ranges; they go into the inventory as they are.
    #[serde(default)]
    pub cidr_groups: Vec<CidrGroup>,
    /// What is sent.
    #[serde(default)]
    pub traffic: Vec<Traffic>,
}

fn yes() -> bool {
    true
}

/// The network outside: a namespace with a bridge that all nodes hang on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Its addresses with prefix lengths, at most one of each family; the nodes' default gateway.
    pub addresses: Vec<IpNet>,
}

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// /32 and /128 routes; the gateways 169.254.1.1 and fe80::1 stand on each host veth.
    Routed,
    /// All on the bridge `br0`.
    Bridged,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// How pods hang on it.
    pub wiring: Wiring,
    /// Addresses on its uplink `eth0`, inside of the outside's ranges, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Bridged only: `br0`'s addresses with prefix lengths; the pods' gateways.
    #[serde(default)]
    pub gateways: Vec<IpNet>,
    /// Kubernetes labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A Kubernetes namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What made a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A pod: a network namespace with `eth0`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name, the only one in the scenario.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// Its UID; one made of its name where left out.
    #[serde(default)]
    pub uid: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its owner workload.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Its service account.
    #[serde(default)]
    pub service_account: Option<String>,
    /// What listens in it.
    #[serde(default)]
    pub servers: Servers,
}

impl Pod {
    /// `namespace/name`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The UID: the given one, or one that is made of the name and so the same in every run.
    pub fn uid(&self) -> String {
        self.uid.clone().unwrap_or_else(|| {
            let hash = self.path().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("1ab00000-0000-4000-8000-{:012x}", hash & 0xffff_ffff_ffff)
        })
    }
}

/// Listeners by kind, each with its port; all on both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// HTTP/1.1 with `/api/v1/charges` and `/api/v1/refunds`, 404 for the rest.
    #[serde(default)]
    pub http: Option<u16>,
    /// TCP and UDP echo.
    #[serde(default)]
    pub echo: Option<u16>,
    /// DNS over UDP: the scenario's services and externals.
    #[serde(default)]
    pub dns: Option<u16>,
    /// HTTP/1.1 with `/metrics` in Prometheus' text format.
    #[serde(default)]
    pub metrics: Option<u16>,
}

/// Transport protocol of a service port or a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As nftables spells it.
    pub fn nft(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// The port that is called.
    pub port: u16,
    /// TCP where left out.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port of the pods.
    pub target_port: u16,
}

/// A service with real ClusterIPs: its backends are the pods of its namespace that have all labels of the selector.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its ClusterIPs, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The labels of its backends; not empty.
    pub selector: BTreeMap<String, String>,
}

/// A host outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name in this file.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its DNS name.
    #[serde(default)]
    pub dns_name: Option<String>,
    /// What listens on it.
    #[serde(default)]
    pub servers: Servers,
}

/// Named address ranges.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CidrGroup {
    /// The group's name.
    pub name: String,
    /// Its ranges.
    pub cidrs: Vec<IpNet>,
}

/// Something on every node that drops packets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRule {
    /// Its name, for `to = "drop/NAME"`.
    pub name: String,
    /// What it does.
    pub cause: Cause,
    /// Destination addresses. For `nft-drop` and `nft-reject` also addresses of pods or externals.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// nftables causes only: this destination port alone.
    #[serde(default)]
    pub port: Option<u16>,
    /// nftables causes with a port: its protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Scenario {
    /// Reads and checks a scenario file.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| LabError::Read { path: name.clone(), source })?;
        Self::parse(&text, &name)
    }

    /// Reads and checks a scenario; `path` is for error texts.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            LabError::Parse {
                path: path.into(),
                line: text[..start].matches('\n').count() + 1,
                message: error.message().into(),
            }
        })?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// The pods behind a service.
    pub fn backends(&self, service: &Service) -> Vec<&Pod> {
        let selected = |pod: &&Pod| {
            pod.namespace == service.namespace
                && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        self.pods.iter().filter(selected).collect()
    }

    /// The addresses that a party is reached by.
    pub fn addresses(&self, party: &Party) -> Vec<IpAddr> {
        match party {
            Party::Pod(namespace, name) => self.pod(namespace, name).map(|p| p.ips.clone()),
            Party::Service(namespace, name) => self
                .services
                .iter()
                .find(|s| s.namespace == *namespace && s.name == *name)
                .map(|s| s.cluster_ips.clone()),
            Party::External(name) => {
                self.externals.iter().find(|e| e.name == *name).map(|e| e.addresses.clone())
            }
            Party::Drop(name) => self.drops.iter().find(|d| d.name == *name).map(|d| d.addresses.clone()),
            Party::Node(name) => self.nodes.iter().find(|n| n.name == *name).map(|n| n.addresses.clone()),
            Party::Address(address) => Some(vec![*address]),
        }
        .unwrap_or_default()
    }

    /// A pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name)
    }
}

//! The scenario file: what it can say. `testdata/lab/README.md` explains it with examples.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{LabError, Result};

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

/// Why a packet does not arrive, or [`Cause::None`] where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It arrives and is answered.
    #[default]
    None,
    /// An nftables rule drops it in the forward chain.
    NftDrop,
    /// An nftables rule rejects it in the forward chain.
    NftReject,
    /// Nobody listens on the port.
    ClosedPort,
    /// The node has no route.
    NoRoute,
    /// The node has a blackhole route.
    Blackhole,
    /// Its TTL or hop limit runs out on the node.
    Ttl,
    /// It must not be fragmented and is larger than the path takes.
    TooBig,
    /// The next hop answers no ARP or neighbour solicitation.
    Neighbour,
}

impl Cause {
    /// The kernel's `skb_drop_reason`s this cause shows as; one of them is expected. Empty for [`Cause::None`].
    pub fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::NftDrop | Self::NftReject => &["NETFILTER_DROP"],
            Self::ClosedPort => &["NO_SOCKET"],
            Self::NoRoute => &["IP_INNOROUTES"],
            Self::Blackhole => &["NOT_SPECIFIED"],
            Self::Ttl => &["IP_INHDR"],
            Self::TooBig => &["PKT_TOO_BIG"],
            Self::Neighbour => &["NEIGH_FAILED"],
        }
    }

    /// Whether the scenario must declare it under `[[drops]]`; the others come from the traffic alone.
    pub fn is_rule(self) -> bool {
        !matches!(self, Self::None | Self::ClosedPort | Self::Ttl)
    }
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

/// One end of the traffic, written `pod/NAMESPACE/NAME`, `service/NAMESPACE/NAME`, `external/NAME`, `drop/NAME`,
/// `node/NAME` or `ip/ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Party {
    /// A pod: namespace, name.
    Pod(String, String),
    /// A service: namespace, name.
    Service(String, String),
    /// A host outside.
    External(String),
    /// The addresses of a `[[drops]]` entry.
    Drop(String),
    /// A node (as a source: a process of the host).
    Node(String),
    /// A bare address.
    Address(IpAddr),
}

impl TryFrom<String> for Party {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split('/').collect();
        Ok(match words[..] {
            ["pod", namespace, name] => Self::Pod(namespace.into(), name.into()),
            ["service", namespace, name] => Self::Service(namespace.into(), name.into()),
            ["external", name] => Self::External(name.into()),
            ["drop", name] => Self::Drop(name.into()),
            ["node", name] => Self::Node(name.into()),
            ["ip", address] => {
                Self::Address(address.parse().map_err(|_| format!("'{address}' is no IP address"))?)
            }
            _ => {
                return Err(format!(
                    "'{text}' is no end of traffic; write pod/NAMESPACE/NAME, service/NAMESPACE/NAME, external/NAME, \
                     drop/NAME, node/NAME or ip/ADDRESS"
                ));
            }
        })
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "pod/{namespace}/{name}"),
            Self::Service(namespace, name) => write!(f, "service/{namespace}/{name}"),
            Self::External(name) => write!(f, "external/{name}"),
            Self::Drop(name) => write!(f, "drop/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Address(address) => write!(f, "ip/{address}"),
        }
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One HTTP/1.1 request a connection.
    Http,
    /// A TCP connection: `bytes` there and back.
    Tcp,
    /// A UDP datagram of `bytes` and its echo.
    Udp,
    /// UDP datagrams without echo, `rate` a second: `count` of them are one entry of the ledger.
    Flood,
    /// A DNS query, A over IPv4 and AAAA over IPv6.
    Dns,
    /// An ICMP echo request of `bytes`.
    Ping,
}

/// Which address family a traffic entry uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// By turns: IPv4 first.
    #[default]
    Both,
}

/// One stream of traffic: `count` connections, one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Its name, the only one in the scenario.
    pub name: String,
    /// Who sends: a pod, a node (host process) or an external.
    pub from: Party,
    /// What.
    pub kind: Kind,
    /// To whom.
    pub to: Party,
    /// Destination port; every kind but ping needs one.
    #[serde(default)]
    pub port: Option<u16>,
    /// HTTP: the path. DNS: the name to ask for.
    #[serde(default)]
    pub path: Option<String>,
    /// Payload bytes, at least 17 (the token that joins both sides).
    #[serde(default = "default_bytes")]
    pub bytes: usize,
    /// How many; left out = until the traffic is stopped.
    #[serde(default)]
    pub count: Option<u64>,
    /// Milliseconds from the start of one to the start of the next; 0 = at once.
    #[serde(default)]
    pub interval_ms: u64,
    /// Milliseconds before the first.
    #[serde(default)]
    pub delay_ms: u64,
    /// Flood: packets a second.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Which family.
    #[serde(default)]
    pub family: Family,
    /// What becomes of it.
    #[serde(default)]
    pub expect: Cause,
    /// TTL or hop limit, else the system's.
    #[serde(default)]
    pub ttl: Option<u32>,
    /// How long an answer may take, milliseconds. Left out: 5000, or 900 where none is expected, so that no TCP SYN is
    /// sent twice.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

fn default_bytes() -> usize {
    64
}

impl Traffic {
    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        let default = if self.expect == Cause::None { 5000 } else { 900 };
        Duration::from_millis(self.timeout_ms.unwrap_or(default))
    }
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

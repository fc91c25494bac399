//! What a scenario sends: from whom, to whom, and what becomes of it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
            // IPv6 gives no reason here (6.18).
            Self::Neighbour => &["NEIGH_FAILED", "NOT_SPECIFIED"],
        }
    }

    /// Whether the scenario must declare it under `[[drops]]`; the others come from the traffic alone.
    pub fn is_rule(self) -> bool {
        !matches!(self, Self::None | Self::ClosedPort | Self::Ttl)
    }
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
    /// How long an answer may take, milliseconds. Left out: 30,000, or 700 where none is expected (what is refused is
    /// answered too), so that no TCP SYN is sent twice, also where the opener is slow to give up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

fn default_bytes() -> usize {
    64
}

impl Traffic {
    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        let is_answered = matches!(self.expect, Cause::None | Cause::ClosedPort | Cause::NftReject);
        let default = if is_answered { 30_000 } else { 700 };
        Duration::from_millis(self.timeout_ms.unwrap_or(default))
    }
}

//! A policy after it was checked: one model for the three kinds, in which nothing needs a second look.

use crate::{
    l7::{L7, Pattern},
    label::{Labels, Selector},
};
use ipnet::IpNet;
use std::{fmt, path::Path, str::FromStr, sync::Arc};

/// The kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    /// `cilium.io/v2`, of one namespace
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, of the cluster
    CiliumClusterwideNetworkPolicy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What names a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// Its kind.
    pub kind: Kind,
    /// Empty for a clusterwide one.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

/// How far a policy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Evaluated only.
    Observe,
    /// Told as `AUDIT` where it would deny.
    #[default]
    Audit,
    /// Drops what it denies.
    Enforce,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "observe" => Ok(Self::Observe),
            "audit" => Ok(Self::Audit),
            "enforce" => Ok(Self::Enforce),
            _ => Err(()),
        }
    }
}

/// Which side of a connection is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// At its destination.
    Ingress,
    /// At its source.
    Egress,
}

/// One policy, or one of the `specs` of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What names it.
    pub id: PolicyId,
    /// Which of a document's rules this is; 0 where there is one.
    pub part: u32,
    /// The file that it comes from.
    pub file: Option<Arc<Path>>,
    /// The line there.
    pub line: u64,
    /// The UID of an object from the API.
    pub uid: Option<Box<str>>,
    /// What its annotation says.
    pub mode: Option<Mode>,
    /// Its own labels, from `labels` of a Cilium rule.
    pub labels: Vec<Box<str>>,
    /// For people.
    pub description: Option<Box<str>>,
    /// What verdicts carry with them.
    pub log: Option<Box<str>>,
    /// Whom it selects.
    pub subject: Subject,
    /// What it says about ingress.
    pub ingress: Option<Side>,
    /// What it says about egress.
    pub egress: Option<Side>,
}

impl Policy {
    /// What it says about one direction.
    pub fn side(&self, direction: Direction) -> Option<&Side> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// Whether it denies what no rule allows, in one direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        self.side(direction).is_some_and(|side| side.isolates)
    }
}

/// Whom a policy selects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Pods, never those in the host's network.
    Pods(Selector),
    /// The node itself.
    Nodes(Selector),
}

impl Subject {
    /// Whether it selects an endpoint with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        match self {
            Self::Pods(selector) => !labels.is_node() && !labels.is_world() && selector.matches(labels),
            Self::Nodes(selector) => labels.is_reserved("host") && selector.matches(labels),
        }
    }

    /// The selector alone.
    pub fn selector(&self) -> &Selector {
        match self {
            Self::Pods(selector) | Self::Nodes(selector) => selector,
        }
    }
}

/// What a policy says about a direction.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Side {
    /// Whether what no rule allows is denied.
    pub isolates: bool,
    /// Any of them suffices.
    pub allow: Vec<Rule>,
    /// Any of them forbids, whatever is allowed.
    pub deny: Vec<Rule>,
}

impl Side {
    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().chain(&self.deny)
    }
}

/// One entry of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its path in the document, such as `spec.ingress[0]`.
    pub path: Box<str>,
    /// Its line.
    pub line: u64,
    /// The other end.
    pub peers: Peers,
    /// Protocols and ports; every one, also without ports, where this is `None`.
    pub ports: Option<Vec<PortRule>>,
}

/// The other ends that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Whoever it is.
    Any,
    /// Those that any of these terms is about; nobody where there is none.
    Of(Vec<Term>),
}

impl Peers {
    /// The terms, none for everybody.
    pub fn terms(&self) -> &[Term] {
        match self {
            Self::Any => &[],
            Self::Of(terms) => terms,
        }
    }
}

/// Other ends, by one of the ways to name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// By labels.
    Endpoints(Selector),
    /// By address.
    Block(Block),
    /// By a named group of CIDRs.
    Group(GroupRef, Vec<IpNet>),
    /// The pods behind services.
    Service(ServiceRef),
    /// By the DNS names that addresses were resolved from.
    Name(NamePattern),
}

/// A CIDR with what is left out of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Addresses that are meant.
    pub net: IpNet,
    /// And those of them that are not.
    pub except: Vec<IpNet>,
    /// Whether pods and nodes are meant by their addresses too, as Kubernetes has it, or only the world, as Cilium has it.
    pub reach: Reach,
}

/// Whom an address block is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Whoever has the address.
    Everyone,
    /// Only what is outside of the cluster.
    World,
}

/// A group of CIDRs, or several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupRef {
    /// By name.
    Name(Box<str>),
    /// By labels.
    Labels(Selector),
}

/// Services, by name or by labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// `None`: of every namespace.
    pub namespace: Option<Box<str>>,
    /// The service.
    pub which: GroupRef,
}

/// A DNS name or a pattern of names, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(pub Pattern);

/// Ports of a rule, and what is said in their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Any of them; none matches nothing.
    pub ports: Vec<PortClause>,
    /// Requests that pass; all where this is `None`.
    pub l7: Option<L7>,
}

/// A protocol with its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortClause {
    /// The protocols.
    pub protocols: Protocols,
    /// The ports; types for ICMP.
    pub ports: Ports,
}

/// One protocol, or those that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocols {
    /// TCP, UDP and SCTP.
    WithPorts,
    /// IANA's number.
    One(u8),
}

/// IANA's numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP of IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

impl Protocols {
    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        let (one, rest): (u8, &[u8]) = match self {
            Self::WithPorts => (TCP, &[UDP, SCTP]),
            Self::One(number) => (number, &[]),
        };
        std::iter::once(one).chain(rest.iter().copied())
    }
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Each.
    All,
    /// From the first to the last; none where the last comes before the first.
    Range(u16, u16),
    /// The one that the destination's pod calls so.
    Named(Box<str>),
}

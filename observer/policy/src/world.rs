//! What policies are about: endpoints, and the groups, services and names that rules refer to.

use crate::label::Labels;
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

/// A pod, a node, or another managed end. A pod in the host's network is none: its traffic is the node's.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// With their sources; a pod has the derived ones for its namespace, service account and cluster, too.
    pub labels: Labels,
    /// What its containers call their ports.
    pub ports: Vec<NamedPort>,
    /// Its addresses, which nobody else has.
    pub addresses: Vec<IpAddr>,
}

/// The name of a port of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name, in lower case.
    pub name: Box<str>,
    /// IANA's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// What rules refer to besides endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Named groups of CIDRs.
    pub groups: Vec<CidrGroup>,
    /// Services with the pods behind them.
    pub services: Vec<Service>,
    /// The addresses that names were resolved to, while the answers are good; names in lower case, without a last dot.
    pub names: BTreeMap<Box<str>, Vec<IpAddr>>,
}

/// A CiliumCIDRGroup.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CidrGroup {
    /// Its name.
    pub name: Box<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its nets.
    pub nets: Vec<IpNet>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Service {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its own labels.
    pub labels: Labels,
    /// What the labels of the pods behind it must be.
    pub selector: Vec<(Box<str>, Box<str>)>,
    /// Of one without a selector the addresses behind it, which are nobody's else.
    pub backends: Vec<IpAddr>,
    /// The addresses that clients call, which no rule is about: what stands behind them is judged.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port that clients call.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// The port behind it.
    pub target: Target,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By the name that the pod gives it, in lower case.
    Name(Box<str>),
}

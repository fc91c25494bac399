//! From the file's form to a snapshot that can't be wrong.

use super::{
    CidrGroup, Node, Peer, Pod, PodPort, ServiceEntry, ServicePort, Snapshot, Surroundings, TargetPort,
    format::{self, File, Labels, Phase, Text},
    labels::{self, LabelMap},
    workload,
    yaml::Fault,
};
use ipnet::IpNet;
use observer_policy::{MODE_ANNOTATION, model::Mode};
use serde_saphyr::{Location, Spanned};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

type Checked<T> = Result<T, Fault>;

const DEFAULT: &str = "default";
/// Kubernetes allows 253 characters in a name, and labels 253 + 1 + 63.
const MAX_NAME: usize = 317;
/// Where Hubble serves, if nothing else is said.
const HUBBLE_PORT: u16 = 4244;

/// Checks everything that the form alone does not; the first fault found is told.
pub(super) fn check(file: &File, own_node: &str) -> Checked<Snapshot> {
    let cluster = optional(file.cluster.as_ref(), "cluster", DEFAULT)?;
    let nodes = nodes(file, &cluster)?;
    let namespaces = namespaces(file)?;
    let pods = pods(file, &cluster, own_node, &nodes, &namespaces)?;
    let services = services(file)?;
    let cidr_groups = cidr_groups(file)?;
    Ok(Snapshot {
        pods,
        surroundings: Surroundings {
            nodes,
            services,
            cidr_groups,
            policy_modes: policy_modes(file)?,
            ..Surroundings::default()
        },
    })
}

fn nodes(file: &File, cluster: &str) -> Checked<Vec<Node>> {
    let (mut names, mut owners) = (Unique::new("node name"), Unique::new("address"));
    let mut nodes = Vec::with_capacity(file.nodes.len());
    for (n, raw) in file.nodes.iter().enumerate() {
        let at = format!("nodes[{n}]");
        let name = name(&raw.name, &format!("{at}.name"))?;
        names.add(name.clone(), &name, &raw.name.referenced, &format!("{at}.name"))?;
        let addresses = addresses(&raw.addresses, &format!("{at}.addresses"))?;
        for (i, &ip) in addresses.iter().enumerate() {
            owners.add(
                ip,
                &format!("node {name}"),
                &raw.addresses[i].referenced,
                &format!("{at}.addresses[{i}]"),
            )?;
        }
        let address = raw.hubble_address.as_ref();
        let address =
            address.map(|text| hubble_address(text, &format!("{at}.hubble_address"))).transpose()?;
        let peer = address.map(|address| Peer { cluster: cluster.to_owned(), address });
        nodes.push(Node { name, addresses, labels: label_map(&raw.labels, &format!("{at}.labels"))?, peer });
    }
    Ok(nodes)
}

fn namespaces(file: &File) -> Checked<HashMap<String, LabelMap>> {
    let mut namespaces = HashMap::new();
    for (n, raw) in file.namespaces.iter().enumerate() {
        let at = format!("namespaces[{n}]");
        let name = name(&raw.name, &format!("{at}.name"))?;
        let labels = label_map(&raw.labels, &format!("{at}.labels"))?;
        if namespaces.insert(name.clone(), labels).is_some() {
            let problem = format!("namespace {name} is here twice; keep one");
            return Err(fault(&raw.name.referenced, &format!("{at}.name"), problem));
        }
    }
    Ok(namespaces)
}

/// Modes of policies by namespace; other annotations say nothing here.
fn policy_modes(file: &File) -> Checked<BTreeMap<String, Mode>> {
    let mut modes = BTreeMap::new();
    for (n, raw) in file.namespaces.iter().enumerate() {
        let Some(text) = raw.annotations.get(MODE_ANNOTATION) else { continue };
        let mode = text.value.parse().map_err(|()| {
            let path = format!("namespaces[{n}].annotations.{MODE_ANNOTATION}");
            fault(&text.referenced, &path, "write observe, audit or enforce")
        })?;
        modes.insert(raw.name.value.clone(), mode);
    }
    Ok(modes)
}

fn pods(
    file: &File,
    cluster: &str,
    own_node: &str,
    nodes: &[Node],
    namespaces: &HashMap<String, LabelMap>,
) -> Checked<Vec<Pod>> {
    let node_names: HashSet<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    let node_of: HashMap<_, _> =
        nodes.iter().flat_map(|node| node.addresses.iter().map(|ip| (*ip, &node.name))).collect();
    let (mut uids, mut names) = (Unique::new("uid"), Unique::new("pod"));
    let mut owners = Unique::new("address");
    let no_labels = LabelMap::new();
    let mut pods = Vec::with_capacity(file.pods.len());
    for (n, raw) in file.pods.iter().enumerate() {
        let at = format!("pods[{n}]");
        let pod_name = name(&raw.name, &format!("{at}.name"))?;
        let namespace = optional(raw.namespace.as_ref(), &format!("{at}.namespace"), DEFAULT)?;
        let full_name = format!("{namespace}/{pod_name}");
        let uid = optional(raw.uid.as_ref(), &format!("{at}.uid"), &full_name)?;
        let uid_place = raw.uid.as_ref().unwrap_or(&raw.name).referenced;
        names.add(full_name.clone(), &full_name, &raw.name.referenced, &format!("{at}.name"))?;
        uids.add(uid.clone(), &full_name, &uid_place, &format!("{at}.uid"))?;
        let node = optional(raw.node.as_ref(), &format!("{at}.node"), own_node)?;
        if let Some(raw) = &raw.node
            && !nodes.is_empty()
            && !node_names.contains(node.as_str())
        {
            let problem = format!("no node is named {node}; add it to nodes, or correct the name");
            return Err(fault(&raw.referenced, &format!("{at}.node"), problem));
        }
        let ips = addresses(&raw.ips, &format!("{at}.ips"))?;
        let finished = matches!(raw.phase, Phase::Succeeded | Phase::Failed);
        for (i, ip) in ips.iter().enumerate().filter(|_| !finished && !raw.host_network) {
            let (place, path) = (&raw.ips[i].referenced, format!("{at}.ips[{i}]"));
            if let Some(node) = node_of.get(ip) {
                let problem = format!("{ip} is an address of node {node}; set host_network: true");
                return Err(fault(place, &path, problem));
            }
            owners.add(*ip, &full_name, place, &path)?;
        }
        let own_labels = label_map(&raw.labels, &format!("{at}.labels"))?;
        let account = optional(raw.service_account.as_ref(), &format!("{at}.service_account"), DEFAULT)?;
        let workloads = match &raw.owner {
            Some(owner) => {
                let kind = name(&owner.kind, &format!("{at}.owner.kind"))?;
                let owner = name(&owner.name, &format!("{at}.owner.name"))?;
                vec![workload::of_owner(&kind, &owner, &own_labels)]
            }
            None => Vec::new(),
        };
        let namespace_labels = namespaces.get(&namespace).unwrap_or(&no_labels);
        pods.push(Pod {
            uid,
            cluster: cluster.to_owned(),
            labels: labels::of_pod(cluster, &namespace, &account, &own_labels, namespace_labels),
            namespace,
            name: pod_name.into(),
            ips,
            host_network: raw.host_network,
            finished,
            local: node == own_node,
            workloads,
            other_labels: labels::not_security(&own_labels),
            ports: pod_ports(&raw.ports, &format!("{at}.ports"))?,
        });
    }
    Ok(pods)
}

fn pod_ports(raw: &[format::PodPort], at: &str) -> Checked<Vec<PodPort>> {
    let mut names = Unique::new("port name");
    let mut ports = Vec::with_capacity(raw.len());
    for (n, raw) in raw.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let (name, protocol) = (name(&raw.name, &format!("{at}.name"))?, raw.protocol as u8);
        let port = port(&raw.port, &format!("{at}.port"))?;
        let key = (name.clone(), protocol);
        names.add(key, &format!("port {port}"), &raw.name.referenced, &format!("{at}.name"))?;
        ports.push(PodPort { name, protocol, port });
    }
    Ok(ports)
}

fn port(number: &Spanned<u16>, path: &str) -> Checked<u16> {
    match number.value {
        0 => Err(fault(&number.referenced, path, "0 is no port; write 1 to 65535")),
        port => Ok(port),
    }
}

fn services(file: &File) -> Checked<Vec<ServiceEntry>> {
    let (mut names, mut frontends) = (Unique::new("service"), Unique::new("address and port"));
    let mut node_ports = Unique::new("node port");
    let mut services = Vec::with_capacity(file.services.len());
    for (n, raw) in file.services.iter().enumerate() {
        let at = format!("services[{n}]");
        let service_name = name(&raw.name, &format!("{at}.name"))?;
        let namespace = optional(raw.namespace.as_ref(), &format!("{at}.namespace"), DEFAULT)?;
        let full_name = format!("{namespace}/{service_name}");
        names.add(full_name.clone(), &full_name, &raw.name.referenced, &format!("{at}.name"))?;
        let addresses = addresses(&raw.cluster_ips, &format!("{at}.cluster_ips"))?;
        let mut ports = Vec::with_capacity(raw.ports.len());
        for (p, port) in raw.ports.iter().enumerate() {
            let at = format!("{at}.ports[{p}]");
            let (number, protocol) = (self::port(&port.port, &format!("{at}.port"))?, port.protocol as u8);
            for &ip in &addresses {
                let key = (ip, number, protocol);
                frontends.add(key, &full_name, &port.port.referenced, &format!("{at}.port"))?;
            }
            let target = match &port.target_port {
                None => TargetPort::Number(number),
                Some(text) => target_port(text, &format!("{at}.target_port"))?,
            };
            let mut node_port = None;
            if let Some(number) = &port.node_port {
                let at = format!("{at}.node_port");
                let number_there = self::port(number, &at)?;
                node_ports.add((number_there, protocol), &full_name, &number.referenced, &at)?;
                node_port = Some(number_there);
            }
            let name = optional(port.name.as_ref(), &format!("{at}.name"), "")?;
            ports.push(ServicePort { name, port: number, protocol, target, node_port });
        }
        let selector = label_map(&raw.selector, &format!("{at}.selector"))?;
        let labels = label_map(&raw.labels, &format!("{at}.labels"))?;
        let name = service_name;
        services.push(ServiceEntry { namespace, name, addresses, ports, selector, labels, slices: None });
    }
    Ok(services)
}

fn cidr_groups(file: &File) -> Checked<Vec<CidrGroup>> {
    let mut names = Unique::new("CIDR group");
    let mut groups = Vec::with_capacity(file.cidr_groups.len());
    for (n, raw) in file.cidr_groups.iter().enumerate() {
        let at = format!("cidr_groups[{n}]");
        let name = name(&raw.name, &format!("{at}.name"))?;
        names.add(name.clone(), &name, &raw.name.referenced, &format!("{at}.name"))?;
        let cidrs = raw.cidrs.iter().enumerate().map(|(i, text)| cidr(text, &format!("{at}.cidrs[{i}]")));
        let cidrs = cidrs.collect::<Checked<_>>()?;
        groups.push(CidrGroup { name, cidrs, labels: label_map(&raw.labels, &format!("{at}.labels"))? });
    }
    Ok(groups)
}

/// Keys that may be there once.
struct Unique<K> {
    what: &'static str,
    seen: HashMap<K, String>,
}

impl<K: Hash + Eq> Unique<K> {
    fn new(what: &'static str) -> Self {
        Self { what, seen: HashMap::new() }
    }

    fn add(&mut self, key: K, owner: &str, place: &Location, path: &str) -> Checked<()> {
        let Some(first) = self.seen.insert(key, owner.to_owned()) else { return Ok(()) };
        Err(fault(place, path, format!("the same {} as of {first}; each may be there once", self.what)))
    }
}

fn fault(place: &Location, path: &str, problem: impl Display) -> Fault {
    Fault { line: place.line(), column: place.column(), path: path.to_owned(), problem: problem.to_string() }
}

fn name(text: &Text, path: &str) -> Checked<String> {
    let bad = |c: char| c.is_control() || c.is_whitespace();
    if text.value.is_empty() || text.value.len() > MAX_NAME || text.value.contains(bad) {
        let problem = format!("a name has 1 to {MAX_NAME} bytes and no space or control character in it");
        return Err(fault(&text.referenced, path, problem));
    }
    Ok(text.value.clone())
}

fn optional(text: Option<&Text>, path: &str, default: &str) -> Checked<String> {
    text.map_or_else(|| Ok(default.to_owned()), |text| name(text, path))
}

fn addresses(texts: &[Text], path: &str) -> Checked<Vec<IpAddr>> {
    let parse = |(i, text): (usize, &Text)| match text.value.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() => Ok(ip.to_canonical()),
        _ => {
            let problem =
                format!("{:?} is no address of a host; write one such as 10.0.0.3 or fd00::3", text.value);
            Err(fault(&text.referenced, &format!("{path}[{i}]"), problem))
        }
    };
    texts.iter().enumerate().map(parse).collect()
}

/// With the port, which may be left out where it is Hubble's usual one.
fn hubble_address(text: &Text, path: &str) -> Checked<String> {
    let value = text.value.as_str();
    let is_path = value.strip_prefix("unix://").is_some_and(|path| path.starts_with('/') && path.len() > 1);
    let address = value.parse().or_else(|_| value.parse().map(|ip: IpAddr| SocketAddr::new(ip, HUBBLE_PORT)));
    let address =
        address.ok().filter(|at| at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast());
    match address {
        Some(address) => Ok(address.to_string()),
        None if is_path && !value.contains(|c: char| c.is_control() || c.is_whitespace()) => {
            Ok(value.to_owned())
        }
        None => {
            let problem = format!(
                "{value:?} is no address of a daemon; write one such as 10.0.0.3:4244, [fd00::3]:4244 or unix:///run/hubble.sock"
            );
            Err(fault(&text.referenced, path, problem))
        }
    }
}

fn cidr(text: &Text, path: &str) -> Checked<IpNet> {
    let parsed = text.value.parse::<IpNet>().or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from));
    parsed.map(|cidr| cidr.trunc()).map_err(|_| {
        let problem = format!("{:?} is no CIDR; write one such as 10.0.0.0/8 or fd00::/8", text.value);
        fault(&text.referenced, path, problem)
    })
}

fn target_port(text: &Text, path: &str) -> Checked<TargetPort> {
    if !text.value.bytes().all(|b| b.is_ascii_digit()) {
        return name(text, path).map(TargetPort::Name);
    }
    let number = text.value.parse().ok().filter(|&number| number != 0);
    number.map(TargetPort::Number).ok_or_else(|| {
        let problem = format!("{:?} is no port; write 1 to 65535, or a port's name", text.value);
        fault(&text.referenced, path, problem)
    })
}

fn label_map(labels: &Labels, path: &str) -> Checked<LabelMap> {
    let bad = |c: char| c.is_control() || c.is_whitespace();
    let checked = labels.iter().map(|(key, value)| {
        let (name, text) = (key.as_str(), &value.value);
        let long = name.len() > MAX_NAME || text.len() > MAX_NAME;
        if name.is_empty() || name.contains('=') || name.contains(bad) || text.contains(bad) || long {
            let problem = format!(
                "key and value have at most {MAX_NAME} bytes and no space or control character, the key no '='"
            );
            return Err(fault(&value.referenced, &format!("{path}.{}", name.escape_debug()), problem));
        }
        Ok((key.clone(), text.clone()))
    });
    checked.collect()
}

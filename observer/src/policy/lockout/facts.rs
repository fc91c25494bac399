//! What this node must be able to do, as its sockets, its resolver and the IP cache tell.

use super::{Facts, Need};
use crate::{
    enrich::{
        ipcache::{IpCache, Standing},
        local::{Established, established, ports_of_sshd},
        source::{ServiceEntry, Surroundings, TargetPort},
    },
    policy::feed::others,
};
use hashbrown::HashMap;
use observer_inventory::policy::{self as seen, HOST};
use observer_policy::{
    model::{Direction, TCP, UDP},
    world::Endpoint,
};
use std::{collections::BTreeSet, fs, io, net::IpAddr, sync::Arc};

/// Where the Kubernetes API is served, where nobody tells.
const API_PORTS: [u16; 2] = [6443, 443];
const DNS: u16 = 53;
const SSH: u16 = 22;
const RESOLVER: &str = "/etc/resolv.conf";
/// What the resolver on the loopback address asks, where it is systemd's.
const BEHIND_LOOPBACK: &str = "/run/systemd/resolve/resolv.conf";

/// What the system tells.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: Vec<Established>,
    pub(super) ssh_ports: BTreeSet<u16>,
    pub(super) name_servers: BTreeSet<IpAddr>,
}

pub(super) fn gather(cache: &IpCache, own: &[IpAddr], own_port: Option<u16>) -> io::Result<Facts> {
    let mut ssh_ports = ports_of_sshd()?;
    ssh_ports.insert(SSH);
    let connections = established(|socket| {
        let is_served = ssh_ports.contains(&socket.local.port()) || own_port == Some(socket.local.port());
        is_served || API_PORTS.contains(&socket.remote.port())
    })?;
    let mut name_servers = servers(&read(RESOLVER)?);
    if name_servers.iter().any(IpAddr::is_loopback) {
        name_servers.extend(servers(&read(BEHIND_LOOPBACK)?));
    }
    let seen = Seen { connections, ssh_ports, name_servers };
    let (pods, around) = cache.standing();
    let nodes = others(&around, cache.node(), own);
    Ok(facts(&seen, &pods, &around, nodes, own_port))
}

/// Nothing where it is not there.
fn read(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// As resolv.conf(5) has them; a link-local one is followed by its link.
pub(super) fn servers(text: &str) -> BTreeSet<IpAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|key| *key == "nameserver").and(words.next())
    });
    words.filter_map(|word| word.split('%').next()?.parse::<IpAddr>().ok()).collect()
}

pub(super) fn facts(
    seen: &Seen,
    pods: &[Standing],
    around: &Surroundings,
    nodes: HashMap<Arc<str>, Endpoint>,
    own_port: Option<u16>,
) -> Facts {
    let own = nodes.get(HOST).map(|own| own.addresses.clone()).unwrap_or_default();
    let mut needs: BTreeSet<Need> = BTreeSet::new();
    let mut need = |whom: &str, direction, address: IpAddr, protocol, ports: &[u16]| {
        let address = address.to_canonical();
        // What stays on the node meets no policy.
        if !address.is_loopback() && !own.contains(&address) {
            needs.insert(Need { whom: whom.to_owned(), direction, address, protocol, ports: ports.to_vec() });
        }
    };
    let api_ports = api_ports(seen, around);
    for address in &around.kube_apiservers {
        need("the Kubernetes API at", Direction::Egress, *address, TCP, &api_ports);
    }
    for server in &seen.name_servers {
        for protocol in [UDP, TCP] {
            for (address, port) in behind(*server, DNS, protocol, pods, around) {
                need("the DNS server", Direction::Egress, address, protocol, &[port]);
            }
        }
    }
    for Established { local, remote } in &seen.connections {
        if seen.ssh_ports.contains(&local.port()) {
            need("SSH connections of", Direction::Ingress, remote.ip(), TCP, &[local.port()]);
        }
        if own_port == Some(local.port()) {
            need("this daemon's client", Direction::Ingress, remote.ip(), TCP, &[local.port()]);
        }
    }
    if let Some(port) = own_port {
        let known = around.nodes.iter().filter(|other| other.peer.is_some());
        for address in known.flat_map(|other| &other.addresses) {
            need("the daemon's peer", Direction::Ingress, *address, TCP, &[port]);
        }
    }
    let wanted: BTreeSet<IpAddr> = needs.iter().map(|need| need.address).collect();
    let pods = pods.iter().filter(|pod| pod.addresses.iter().any(|address| wanted.contains(address)));
    let pods = pods.map(|pod| {
        let labels = pod.endpoint.labels.iter().chain(&pod.besides.labels);
        let name: Arc<str> = format!("pod#{}", pod.endpoint.serial()).into();
        (name, seen::endpoint(labels, &pod.besides.ports, pod.addresses.clone()))
    });
    let endpoints = pods.chain(nodes).collect();
    Facts { endpoints, surroundings: seen::surroundings(around), needs }
}

/// What the API's own service says, else what is connected to; else it may be either.
fn api_ports(seen: &Seen, around: &Surroundings) -> Vec<u16> {
    let services = around.services.iter();
    let api = services.filter(|service| service.namespace == "default" && service.name == "kubernetes");
    let mut ports: Vec<u16> =
        api.flat_map(|api| &api.ports).filter_map(|port| number(&port.target)).collect();
    if ports.is_empty() {
        let is_api = |remote: IpAddr| around.kube_apiservers.iter().any(|api| api.to_canonical() == remote);
        let connected = seen.connections.iter().map(|connection| connection.remote);
        ports = connected
            .filter(|remote| is_api(remote.ip()) && API_PORTS.contains(&remote.port()))
            .map(|remote| remote.port())
            .collect();
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() { API_PORTS.to_vec() } else { ports }
}

fn number(port: &TargetPort) -> Option<u16> {
    match port {
        TargetPort::Number(port) => Some(*port),
        TargetPort::Name(_) => None,
    }
}

/// Where packets come out that are sent to an address: of a service its pods, as policies see them.
fn behind(
    address: IpAddr,
    port: u16,
    protocol: u8,
    pods: &[Standing],
    around: &Surroundings,
) -> Vec<(IpAddr, u16)> {
    let mut services =
        around.services.iter().filter(|service| service.addresses.contains(&address)).peekable();
    if services.peek().is_none() {
        return vec![(address, port)];
    }
    let mut found = Vec::new();
    for service in services {
        let targets = service.ports.iter().filter(|one| (one.port, one.protocol) == (port, protocol));
        for target in targets.map(|one| &one.target) {
            for pod in pods.iter().filter(|pod| is_behind(pod, service)) {
                let named = |name: &str| {
                    let mut ports = pod.besides.ports.iter();
                    ports.find(|port| port.name == name && port.protocol == protocol).map(|port| port.port)
                };
                let port = match target {
                    TargetPort::Number(port) => Some(*port),
                    TargetPort::Name(name) => named(name),
                };
                found.extend(
                    port.into_iter().flat_map(|port| pod.addresses.iter().map(move |ip| (*ip, port))),
                );
            }
        }
    }
    // What is reached over one family is told over one.
    found.retain(|(ip, _)| ip.is_ipv4() == address.is_ipv4());
    found
}

fn is_behind(pod: &Standing, service: &ServiceEntry) -> bool {
    let has = |(key, value): (&String, &String)| {
        let label = format!("k8s:{key}={value}");
        pod.endpoint.labels.iter().chain(&pod.besides.labels).any(|own| *own == label)
    };
    !service.selector.is_empty()
        && *pod.endpoint.namespace == *service.namespace
        && service.selector.iter().all(has)
}

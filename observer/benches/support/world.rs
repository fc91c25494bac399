//! A node of a cluster of 1,000 pods, 100 of them here, in 125 workloads with 7 labels, with 50 services and 64 outside
//! addresses of known CIDRs; and 65,536 records of as many flows: 8 % drops, 12 % IPv6, 70 % TCP, 25 % UDP, 5 % ICMP;
//! the far end a pod in 70 %, outside in 20 %, a service in 10 %. conntrack's table has the connections of all of them
//! and as many others again by half.

use super::Numbers;
use hashbrown::{HashMap, HashSet};
use observer::{
    decode::{End, Tuple},
    enrich::{
        ipcache::IpCache,
        source::{CidrGroup, Pod, Rank, ServiceEntry, ServicePort, Surroundings, TargetPort, Window},
    },
    flow::{Link, LinkKind},
    serve::NodeInfo,
    track::{Addresses, ConntrackTable, Entry, TableLimits},
};
use observer_ebpf::{
    ABI_VERSION, DropRecord, FlowRecord, Header, Tuple as AbiTuple, drop_flags, flow_flags, flow_reason,
    hook, kind, link_kind,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Flows, each different from all others.
pub(crate) const FLOWS: usize = 65_536;
/// Connections that no record is of.
const OTHER_CONNECTIONS: u32 = 32_768;
const PODS: usize = 1000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Everything that the stages need.
pub(crate) struct World {
    pub(crate) cache: Arc<IpCache>,
    pub(crate) conntrack: ConntrackTable,
    /// What belongs in it.
    pub(crate) connections: Vec<Entry>,
    pub(crate) local: LocalAddresses,
    pub(crate) links: HashMap<u32, Arc<Link>>,
    /// Each a record as it comes from a ring.
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) node: NodeInfo,
}

/// The node's own, as the pipeline holds them.
pub(crate) struct LocalAddresses {
    /// With port 0, as all here.
    pods: HashSet<End>,
    node: End,
}

impl Addresses for LocalAddresses {
    fn is_local_pod(&self, end: &End) -> bool {
        self.pods.contains(&end.with_port(0))
    }
    fn is_node(&self, end: &End) -> bool {
        end.is_at(&self.node)
    }

    fn has_tunnel(&self) -> bool {
        false
    }
}

/// One pod has a workload to itself: a query for it finds few flows.
const ALONE: usize = 7;

fn workload(pod: usize) -> String {
    if pod == ALONE {
        return "alone".to_owned();
    }
    format!("svc-{:03}", pod % 125)
}

fn namespace(pod: usize) -> String {
    format!("team-{:02}", pod % 125 % 40)
}

fn v4(pod: usize) -> IpAddr {
    Ipv4Addr::new(10, 244, (pod / 250) as u8, (pod % 250 + 2) as u8).into()
}

fn v6(pod: usize) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, pod as u16 + 16).into()
}

fn is_local(pod: usize) -> bool {
    pod.is_multiple_of(10)
}

fn service(n: usize) -> IpAddr {
    Ipv4Addr::new(10, 96, (n / 16) as u8, (n % 16 + 1) as u8).into()
}

fn outside(n: usize) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, n as u8 + 1).into()
}

fn pod(n: usize) -> Pod {
    let (name, namespace) = (workload(n), namespace(n));
    let mut labels = vec![
        format!("k8s:app.kubernetes.io/name={name}"),
        "k8s:app.kubernetes.io/part-of=shop".to_owned(),
        format!("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}"),
        "k8s:io.cilium.k8s.policy.cluster=default".to_owned(),
        format!("k8s:io.cilium.k8s.policy.serviceaccount={name}"),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        format!("k8s:tier={}", ["front", "back", "data"][n % 125 % 3]),
    ];
    labels.sort_unstable();
    Pod {
        uid: format!("{n:08x}-0000-4000-8000-000000000000"),
        cluster: "default".into(),
        name: format!("{name}-{:08x}-{n:05}", 0x5c00_0000 + n % 125 * 7919).into(),
        namespace,
        ips: vec![v4(n), v6(n)],
        local: is_local(n),
        labels,
        ..Pod::default()
    }
}

fn surroundings() -> Surroundings {
    let port = ServicePort {
        name: String::new(),
        port: 80,
        protocol: TCP,
        target: TargetPort::Number(8080),
        node_port: None,
    };
    let services = (0..50).map(|n| ServiceEntry {
        namespace: namespace(n),
        name: workload(n),
        addresses: vec![service(n)],
        ports: vec![port.clone()],
        ..ServiceEntry::default()
    });
    let cidrs = (0..64).map(|n| outside(n).into()).collect();
    Surroundings {
        services: services.collect(),
        cidr_groups: vec![CidrGroup { name: "outside".into(), cidrs, ..CidrGroup::default() }],
        ..Surroundings::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::without_table();
        for connection in &world.connections {
            world.conntrack.insert(*connection);
        }
        world
    }

    /// Nothing has happened: no records, no connections.
    pub(crate) fn idle() -> Self {
        let cache = IpCache::new("node-a");
        for n in 0..PODS {
            cache.upsert_pod(Rank::Kubernetes, pod(n), Window::exact(1));
        }
        cache.set_surroundings(Rank::Kubernetes, surroundings());
        let link = |n: u32| Arc::new(Link { index: n, name: format!("veth{n:08x}"), kind: LinkKind::Pod });
        Self {
            cache: Arc::new(cache),
            conntrack: ConntrackTable::new(TableLimits::default()),
            connections: Vec::new(),
            local: LocalAddresses {
                pods: (0..PODS)
                    .filter(|n| is_local(*n))
                    .flat_map(|n| [v4(n), v6(n)])
                    .map(|ip| End::new(ip, 0))
                    .collect(),
                node: End::new(Ipv4Addr::new(192, 168, 50, 11).into(), 0),
            },
            links: (4..104).map(|n| (n, link(n))).collect(),
            records: Vec::new(),
            node: NodeInfo {
                cluster: "default".into(),
                name: "node-a".into(),
                labels: [
                    "kubernetes.io/arch=amd64",
                    "kubernetes.io/hostname=node-a",
                    "kubernetes.io/os=linux",
                ]
                .map(str::to_owned)
                .to_vec()
                .into(),
                version: "0.1.0".into(),
            },
        }
    }

    /// All of it, but conntrack's table is empty.
    pub(crate) fn without_table() -> Self {
        let mut world = Self::idle();
        let mut numbers = Numbers(20_261_123);
        let mut known = HashSet::new();
        while world.records.len() < FLOWS {
            let flow = RandomFlow::new(&mut numbers);
            if known.insert((flow.seen, flow.icmp_type)) {
                world.connections.push(flow.connection(world.records.len() as u32));
                let record = flow.record(&mut numbers, world.records.len());
                world.records.push(record);
            }
        }
        for id in 0..OTHER_CONNECTIONS {
            let client = End::new(Ipv4Addr::new(10, 245, (id >> 8) as u8, id as u8).into(), 40_000);
            let server = End::new(v4(0), 443);
            let original = Tuple { source: client, destination: server, protocol: TCP };
            world.connections.push(Entry { id: FLOWS as u32 + id, original, reply: original.reversed() });
        }
        world
    }
}

/// A packet of a local pod, or to one.
struct RandomFlow {
    link: u32,
    hook: u8,
    /// As it stands in the packet's headers.
    seen: Tuple,
    icmp_type: u8,
    is_reply: bool,
    /// Whom the packet is really for, or from, where it goes to a service.
    backend: End,
    dropped: bool,
}

impl RandomFlow {
    fn new(numbers: &mut Numbers) -> Self {
        let own = numbers.below(PODS / 10) * 10;
        let is_v6 = numbers.percent(12);
        let address = |pod| if is_v6 { v6(pod) } else { v4(pod) };
        let ports = [80, 443, 5432, 6379, 8080, 9090, 9092];
        let mut port = ports[numbers.below(ports.len())];
        let (mut own_ip, mut far_is_local) = (address(own), false);
        let (far_ip, backend) = match numbers.below(100) {
            0..70 => {
                let far = (own + 1 + numbers.below(PODS - 1)) % PODS;
                far_is_local = is_local(far);
                (address(far), None)
            }
            70..90 => {
                (own_ip, port) = (v4(own), 443);
                (outside(numbers.below(64)), None)
            }
            _ => {
                (own_ip, port) = (v4(own), 80);
                let n = numbers.below(50);
                (service(n), Some(End::new(v4(10 * n + 1), 8080)))
            }
        };
        let icmp_type = if own_ip.is_ipv4() { 8 } else { 128 };
        let protocol = match numbers.below(100) {
            // Services are called by TCP.
            _ if backend.is_some() => TCP,
            0..70 => TCP,
            70..95 => UDP,
            _ if own_ip.is_ipv4() => 1,
            _ => 58,
        };
        let has_ports = matches!(protocol, TCP | UDP);
        let client_port = 32_768 + numbers.below(28_000) as u16;
        // A call of a service is seen on its way out; what comes from a local pod is told at the delivery.
        let out = backend.is_some() || !far_is_local && numbers.percent(50);
        let is_reply = backend.is_none() && has_ports && numbers.percent(50);
        let (own_port, far_port) = match has_ports {
            false => (client_port, client_port),
            // The opener has the high port.
            true if out != is_reply => (client_port, port),
            true => (port, client_port),
        };
        let (own_end, far_end) = (End::new(own_ip, own_port), End::new(far_ip, far_port));
        let (source, destination) = if out { (own_end, far_end) } else { (far_end, own_end) };
        Self {
            link: 4 + own as u32 / 10,
            hook: if out { hook::INGRESS } else { hook::EGRESS },
            seen: Tuple { source, destination, protocol },
            icmp_type: if has_ports { 0 } else { icmp_type },
            is_reply,
            backend: backend.unwrap_or(destination),
            dropped: numbers.percent(8),
        }
    }

    fn connection(&self, id: u32) -> Entry {
        let original = if self.is_reply { self.seen.reversed() } else { self.seen };
        let server = if self.is_reply { original.destination } else { self.backend };
        let reply = Tuple { source: server, destination: original.source, protocol: original.protocol };
        Entry { id, original, reply }
    }

    fn record(&self, numbers: &mut Numbers, number: usize) -> Vec<u8> {
        let mapped = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let tuple = AbiTuple {
            source: mapped(self.seen.source.ip()),
            destination: mapped(self.seen.destination.ip()),
            source_port: self.seen.source.port(),
            destination_port: self.seen.destination.port(),
            protocol: self.seen.protocol,
            ip_version: if self.seen.source.ip().is_ipv4() { 4 } else { 6 },
            icmp_type: self.icmp_type,
            icmp_code: 0,
        };
        let (tcp_flags, reason) = match (self.seen.protocol, numbers.below(6)) {
            (TCP, 0) => (if self.is_reply { 0x12 } else { 0x02 }, flow_reason::NEW),
            (TCP, 1) => (0x11, flow_reason::FLAGS),
            (TCP, 2 | 3) => (0x18, flow_reason::FLAGS),
            (TCP, _) => (0x10, flow_reason::INTERVAL),
            (_, 0..3) => (0, flow_reason::NEW),
            _ => (0, flow_reason::INTERVAL),
        };
        let (packets, bytes) = (1 + numbers.below(5000) as u64, 80 + numbers.below(1 << 24) as u64);
        // Ten microseconds apart; the connections began within the minute before.
        let time_ns = 100_000_000_000 + number as u64 * 10_000;
        let first_ns = time_ns - numbers.below(60_000_000) as u64 * 1000;
        if self.dropped {
            let header = header::<DropRecord>(kind::DROP, time_ns);
            let record = DropRecord {
                header,
                tuple,
                reason: 2 + numbers.below(8) as u32,
                location: 0x1000 + numbers.below(8) as u64 * 16,
                netns: 7,
                ifindex: self.link,
                flags: drop_flags::PARSED,
                tcp_flags,
                packets: 1,
                bytes: 80,
                first_ns: time_ns,
                ..DropRecord::new_zeroed()
            };
            return record.as_bytes().to_vec();
        }
        let record = FlowRecord {
            header: header::<FlowRecord>(kind::FLOW, time_ns),
            tuple,
            ifindex: self.link,
            packet_len: 80,
            flags: flow_flags::ETHERNET | if self.is_reply { flow_flags::REPLY } else { 0 },
            hook: self.hook,
            link_kind: link_kind::POD,
            reason,
            tcp_flags,
            source_mac: [2, 0, 10, 244, 0, 1],
            destination_mac: [2, 0, 10, 244, 0, 2],
            packets,
            bytes,
            first_ns,
            ..FlowRecord::new_zeroed()
        };
        record.as_bytes().to_vec()
    }
}

fn header<R>(kind: u8, time_ns: u64) -> Header {
    Header { kind, version: ABI_VERSION, size: size_of::<R>() as u16, cpu: 0, time_ns }
}

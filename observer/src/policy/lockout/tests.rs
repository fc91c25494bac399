//! The decision, over facts that are written here.

use super::*;
use crate::{
    enrich::{
        ipcache::IpCache,
        local::Established,
        source::{
            Node, Peer, Pod, Rank, ServiceEntry, ServicePort, Snapshot, Surroundings, TargetPort, Window,
        },
    },
    policy::feed::others,
};
use facts::{Seen, facts, servers};
use observer_policy::source::{self, Options};
use std::fs;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connection(local: &str, remote: &str) -> Established {
    Established { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

/// A node whose name server is the service of a pod, and which is used in every way.
fn known() -> Surroundings {
    let node = |name: &str, addresses: &[&str], peer: bool| Node {
        name: name.into(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        peer: peer.then(|| Peer { cluster: "default".into(), address: "192.168.0.2:4244".into() }),
        ..Node::default()
    };
    let dns = ServiceEntry {
        namespace: "kube-system".into(),
        name: "dns".into(),
        addresses: vec![ip("10.96.0.10")],
        ports: [17, 6]
            .map(|protocol| ServicePort {
                name: String::new(),
                port: 53,
                protocol,
                target: TargetPort::Number(1053),
                node_port: None,
            })
            .into(),
        selector: [("app".to_owned(), "dns".to_owned())].into(),
        ..ServiceEntry::default()
    };
    Surroundings {
        nodes: vec![node("n1", &["192.168.0.1"], false), node("n2", &["192.168.0.2"], true)],
        kube_apiservers: vec![ip("192.0.2.6"), ip("192.168.0.1")],
        services: vec![dns],
        ..Surroundings::default()
    }
}

fn seen() -> Seen {
    Seen {
        connections: vec![
            connection("192.168.0.1:22", "203.0.113.9:50000"),
            connection("192.168.0.1:22", "203.0.113.9:50001"),
            connection("192.168.0.1:4244", "203.0.113.8:50000"),
            connection("127.0.0.1:22", "127.0.0.1:50000"),
            connection("192.168.0.1:50000", "203.0.113.7:443"),
        ],
        ssh_ports: [22].into(),
        name_servers: [ip("10.96.0.10"), ip("127.0.0.53"), ip("9.9.9.9")].into(),
    }
}

fn gathered(seen: &Seen, around: &Surroundings) -> Facts {
    let cache = IpCache::new("n1");
    let pod = Pod {
        uid: "d".into(),
        namespace: "kube-system".into(),
        name: "dns-0".into(),
        ips: vec![ip("10.0.0.53")],
        labels: [
            "k8s:app=dns",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.kubernetes.pod.namespace=kube-system",
        ]
        .map(str::to_owned)
        .into(),
        ..Pod::default()
    };
    let snapshot = Snapshot { pods: vec![pod], surroundings: around.clone() };
    cache.replace(Rank::Inventory, snapshot, Window::exact(0));
    let (pods, around) = cache.standing();
    let nodes = others(&around, "n1", &[]);
    facts(seen, &pods, &around, nodes, Some(4244))
}

/// What a `spec` of the node would cut off.
fn cut(facts: &Facts, spec: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: node}}\nspec: {{{spec}}}\n"
    );
    fs::write(&file, text).unwrap();
    let policies = source::load(&[file], &Options::default()).unwrap();
    cut_off(facts, policies.into_iter().map(|policy| (Arc::new(policy), Mode::Enforce)).collect())
}

#[test]
fn all_that_the_node_needs_is_gathered_once() {
    let needs: Vec<String> = gathered(&seen(), &known()).needs.iter().map(ToString::to_string).collect();
    assert_eq!(
        needs,
        [
            "from SSH connections of 203.0.113.9 on 22/TCP",
            "to the DNS server 9.9.9.9 on 53/TCP",
            "to the DNS server 9.9.9.9 on 53/UDP",
            "to the DNS server 10.0.0.53 on 1053/TCP",
            "to the DNS server 10.0.0.53 on 1053/UDP",
            "to the Kubernetes API at 192.0.2.6 on 6443 or 443/TCP",
            "from the daemon's peer 192.168.0.2 on 4244/TCP",
            "from this daemon's client 203.0.113.8 on 4244/TCP",
        ]
    );
}

#[test]
fn the_port_of_the_api_is_what_is_known_best() {
    let api = |seen: &Seen, around: &Surroundings| {
        let needs = gathered(seen, around).needs;
        needs.into_iter().find(|need| need.whom.contains("API")).unwrap().ports
    };
    let (mut seen, mut around) = (seen(), known());
    seen.connections.push(connection("192.168.0.1:50000", "[::ffff:192.0.2.6]:443"));
    // Of v4 in v6 it is told as v4.
    seen.connections.push(connection("192.168.0.1:50002", "192.0.2.6:443"));
    assert_eq!(api(&seen, &around), [443]);
    let port = ServicePort {
        name: String::new(),
        port: 443,
        protocol: 6,
        target: TargetPort::Number(16443),
        node_port: None,
    };
    around.services.push(ServiceEntry {
        namespace: "default".into(),
        name: "kubernetes".into(),
        ports: vec![port],
        ..ServiceEntry::default()
    });
    assert_eq!(api(&seen, &around), [16443]);
}

#[test]
fn a_policy_is_refused_for_exactly_what_it_cuts_off() {
    let facts = gathered(&seen(), &known());
    let start = "CiliumClusterwideNetworkPolicy node in mode enforce would cut this node off: ";
    let egress = "nodeSelector: {}, egress: ";
    for (spec, expected) in [
        ("nodeSelector: {}, egress: [{toEntities: [all]}], ingress: [{fromEntities: [all]}]", ""),
        // Another node's, a pod's.
        ("nodeSelector: {matchLabels: {role: other}}, egress: [{}]", ""),
        ("endpointSelector: {}, egress: [{}]", ""),
        (
            "nodeSelector: {}, ingress: [{fromEntities: [cluster]}, {toPorts: [{ports: [{port: '4244'}]}]}]",
            "from SSH connections of 203.0.113.9 on 22/TCP",
        ),
        (
            "nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: '22'}]}]}]",
            "from the daemon's peer 192.168.0.2 on 4244/TCP, from this daemon's client 203.0.113.8 on 4244/TCP",
        ),
        (
            "nodeSelector: {}, ingressDeny: [{fromCIDR: [203.0.113.9/32]}], ingress: [{fromEntities: [all]}]",
            "from SSH connections of 203.0.113.9 on 22/TCP",
        ),
        (
            &format!(
                "{egress}[{{toEntities: [cluster]}}, {{toCIDR: [9.9.9.9/32], toPorts: [{{ports: [{{port: '53', protocol: UDP}}]}}]}}]"
            ),
            "to the DNS server 9.9.9.9 on 53/TCP",
        ),
        // One of the two ports is enough, where nobody tells which it is.
        (
            &format!(
                "{egress}[{{toEntities: [kube-apiserver], toPorts: [{{ports: [{{port: '6443'}}]}}]}}, {{toPorts: [{{ports: [{{port: '53'}}, {{port: '1053'}}]}}]}}]"
            ),
            "",
        ),
        (
            &format!("{egress}[{{toPorts: [{{ports: [{{port: '53'}}, {{port: '6443'}}]}}]}}]"),
            "to the DNS server 10.0.0.53 on 1053/TCP, to the DNS server 10.0.0.53 on 1053/UDP",
        ),
        (
            &format!("{egress}[{{}}]"),
            "to the DNS server 9.9.9.9 on 53/TCP, to the DNS server 9.9.9.9 on 53/UDP, to the DNS server 10.0.0.53 on \
             1053/TCP, to the DNS server 10.0.0.53 on 1053/UDP, 1 more",
        ),
    ] {
        let found = cut(&facts, spec).unwrap_or_default();
        let wanted = match expected {
            "" => String::new(),
            what => {
                format!("{start}{what}; allow that by a rule, or start the daemon with --allow-lockout")
            }
        };
        assert_eq!(found, wanted, "{spec}");
    }
}

#[test]
fn name_servers_are_read_as_the_resolver_reads_them() {
    let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.1\n nameserver\tfe80::1%eth0 \nnameserver\nsearch x\nnameserver z\n";
    assert_eq!(servers(text), [ip("10.0.0.1"), ip("fe80::1")].into());
}

#[test]
fn what_only_a_test_could_connect_is_seen() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(address).unwrap();
    let _server = listener.accept().unwrap();
    let is_ours = |socket: &Established| socket.local == address;
    let found = crate::enrich::local::established(is_ours).unwrap();
    assert_eq!(found, [Established { local: address, remote: client.local_addr().unwrap() }]);
}

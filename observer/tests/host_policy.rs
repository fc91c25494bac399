//! A policy of the node that lets it reach almost nothing, enforced: what the node forwards, masquerades, translates and carries
//! for others passes, on routed and bridged pods and through an overlay; the node's own connections are dropped.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{
    Cause, Entry, Lab, Outcome, Scenario, links::wait_ready, scenario::Traffic, unique_prefix,
};
use observer_proto::flow::{DropReason, Flow, TrafficDirection};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use support::{Daemon, Ends, OBSERVER, PATIENCE, can_run, ends, scenario};

/// Who is outside: `far` the node may not reach, `near` it may.
const OUTSIDE: &str = r#"[
    {"name": "far", "addresses": ["198.51.100.10", "2001:db8:100::10"], "servers": {"http": 8080, "echo": 7000}},
    {"name": "near", "addresses": ["203.0.113.10", "2001:db8:113::10"], "servers": {"http": 8080, "echo": 7000}}
]"#;

/// Ports of the node: of its own pod, and of the other node's, to which it masquerades.
const NODE_PORTS: [u16; 2] = [30_080, 30_081];

fn policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/policy/plays/host.yaml")
}

/// A node with the policy and the other one; of each the number in its addresses, and in its pods' names.
struct Nodes {
    own: u8,
    other: u8,
}

impl Nodes {
    fn name(&self) -> String {
        format!("n{}", self.own)
    }

    fn scenario(&self) -> Scenario {
        let mut scenario = scenario("two-nodes.toml");
        scenario.traffic.clear();
        scenario.externals = serde_json::from_str(OUTSIDE).unwrap();
        // The policy's subject.
        let node = &mut scenario.nodes[usize::from(self.own) - 1];
        node.labels.insert("kubernetes.io/hostname".to_owned(), "n1".to_owned());
        scenario
    }

    fn addresses(&self, lab: &Lab) -> Vec<IpAddr> {
        lab.scenario().nodes[usize::from(self.own) - 1].addresses.clone()
    }

    fn traffic(&self, name: usize, (from, kind, to, port): (&str, &str, &str, u16)) -> Traffic {
        let ends = [from, to]
            .map(|end| end.replace("OWN", &self.own.to_string()).replace("OTHER", &self.other.to_string()));
        serde_json::from_value(serde_json::json!({
            "name": name.to_string(), "from": ends[0], "kind": kind, "to": ends[1],
            // One over each family that both ends have.
            "port": (port > 0).then_some(port), "path": "/api/v1/charges", "count": 2,
        }))
        .unwrap()
    }
}

/// What passes: none of it is the node's own, or it is allowed, or the other end opens it.
const PASSES: [(&str, &str, &str, u16); 17] = [
    // Forwarded.
    ("pod/web/client-OWN", "http", "pod/shop/server-OWN", 8080),
    ("pod/web/client-OWN", "http", "pod/shop/server-OTHER", 8080),
    ("pod/web/client-OWN", "udp", "pod/shop/server-OTHER", 7000),
    ("pod/web/client-OWN", "ping", "pod/shop/server-OTHER", 0),
    ("pod/web/client-OTHER", "http", "pod/shop/server-OWN", 8080),
    ("pod/web/client-OTHER", "udp", "pod/shop/server-OWN", 7000),
    ("pod/web/client-OTHER", "ping", "pod/shop/server-OWN", 0),
    ("pod/web/client-OWN", "http", "service/shop/server", 80),
    // Masqueraded: outside it comes from the node's address.
    ("pod/web/client-OWN", "http", "external/far", 8080),
    ("pod/web/client-OWN", "udp", "external/far", 7000),
    ("pod/web/client-OWN", "ping", "external/far", 0),
    // Opened by others, and answered by the node.
    ("external/far", "ping", "node/nOWN", 0),
    ("pod/web/client-OWN", "ping", "node/nOWN", 0),
    ("pod/web/client-OTHER", "ping", "node/nOWN", 0),
    // Allowed.
    ("node/nOWN", "http", "external/near", 8080),
    ("node/nOWN", "udp", "external/near", 7000),
    ("node/nOWN", "ping", "external/near", 0),
];

/// The node's own.
const DENIED: [(&str, &str, &str, u16); 9] = [
    ("node/nOWN", "http", "pod/shop/server-OWN", 8080),
    ("node/nOWN", "udp", "pod/shop/server-OWN", 7000),
    ("node/nOWN", "ping", "pod/web/client-OWN", 0),
    ("node/nOWN", "http", "pod/shop/server-OTHER", 8080),
    ("node/nOWN", "udp", "pod/shop/server-OTHER", 7000),
    ("node/nOWN", "ping", "pod/web/client-OTHER", 0),
    ("node/nOWN", "http", "external/far", 8080),
    ("node/nOWN", "udp", "external/far", 7000),
    ("node/nOWN", "ping", "external/far", 0),
];

fn run(lab: &Lab, node: &str, command: &str) {
    let mut words = command.split_whitespace();
    let output = lab.command_in(node, words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The node's ports lead to pods, by rules that the lab doesn't have.
fn open_node_ports(lab: &Lab, nodes: &Nodes) {
    let pod = |number: u8, v4: bool| {
        let pod = lab.scenario().pod("shop", &format!("server-{number}")).unwrap();
        *pod.ips.iter().find(|ip| ip.is_ipv4() == v4).unwrap()
    };
    for address in nodes.addresses(lab) {
        let v4 = address.is_ipv4();
        let family = if v4 { "ip" } else { "ip6" };
        let leads = |port: u16, number: u8| {
            let to = SocketAddr::new(pod(number, v4), 8080);
            format!("{family} daddr {address} tcp dport {port} dnat to {to}")
        };
        let rules = format!(
            "table {family} ports {{ \
             chain in {{ type nat hook prerouting priority -101; {}; {}; }}; \
             chain out {{ type nat hook postrouting priority 99; \
             meta l4proto tcp ct original proto-dst {} masquerade; }}; }}",
            leads(NODE_PORTS[0], nodes.own),
            leads(NODE_PORTS[1], nodes.other),
            NODE_PORTS[1],
        );
        run(lab, &nodes.name(), &format!("nft {rules}"));
    }
}

/// From now on pods of the two nodes reach each other through a VXLAN between these.
fn overlay(lab: &Lab) {
    for (own, other) in [(1_u8, 2_u8), (2, 1)] {
        let node = format!("n{own}");
        let run = |command: String| run(lab, &node, &command);
        run(format!(
            "ip link add vx0 type vxlan id 42 dstport 8472 local 192.168.50.1{own} remote 192.168.50.1{other} dev eth0"
        ));
        run(format!("ip addr add 10.99.0.{own}/24 dev vx0"));
        run(format!("ip addr add fd00:99::{own}/64 dev vx0 nodad"));
        run("ip link set vx0 up".to_owned());
        for pod in lab.scenario().pods.iter().filter(|pod| pod.node != node) {
            for ip in &pod.ips {
                let via = if ip.is_ipv4() { format!("10.99.0.{other}") } else { format!("fd00:99::{other}") };
                run(format!("ip route replace {ip} via {via} dev vx0"));
            }
        }
        wait_ready(lab.node_netns(&node).to_str().unwrap()).unwrap();
    }
}

/// Plays everything at the same time: what passes, and what is denied.
fn perform(lab: &mut Lab, nodes: &Nodes) -> (Vec<Entry>, Vec<Entry>) {
    let before = lab.ledger().len();
    for (name, play) in PASSES.into_iter().enumerate() {
        lab.play(nodes.traffic(name, play)).unwrap();
    }
    for address in nodes.addresses(lab) {
        for port in NODE_PORTS {
            let play = ("external/far", "http", &*format!("ip/{address}"), port);
            lab.play(nodes.traffic(usize::from(port), play)).unwrap();
        }
    }
    for (name, play) in DENIED.into_iter().enumerate() {
        lab.play(Traffic { expect: Cause::NftDrop, ..nodes.traffic(name, play) }).unwrap();
    }
    lab.wait_traffic();
    lab.ledger().split_off(before).into_iter().partition(|entry| entry.expected == Cause::None)
}

/// A connection's ends, as its opener has them and as its server has them, both ways.
fn ways(entry: &Entry) -> Vec<Ends> {
    let served = entry.served.iter().map(|served| (served.peer, served.local));
    let ends = [(entry.source, entry.called)].into_iter().chain(served);
    ends.flat_map(|(a, b)| [(a, b), (b, a)]).map(|(from, to)| plain(entry.protocol, from, to)).collect()
}

/// Without what the ledger has in the place of a ping's ports.
fn plain(protocol: u8, from: SocketAddr, to: SocketAddr) -> Ends {
    let end = |end: SocketAddr| if [1, 58].contains(&protocol) { SocketAddr::new(end.ip(), 0) } else { end };
    (protocol, end(from), end(to))
}

fn is_policy_drop(flow: &Flow) -> bool {
    flow.drop_reason_desc() == DropReason::PolicyDenied
        && flow.event_type.is_some_and(|kind| kind.r#type != 5)
}

fn check(lab: &mut Lab, nodes: &Nodes, has_overlay: bool) {
    let state = tempfile::tempdir().unwrap();
    let policy = policy();
    let daemon = Daemon::start(
        lab,
        &nodes.name(),
        &[
            "--policy",
            policy.to_str().unwrap(),
            "--policy-mode",
            "enforce",
            "--allow-lockout",
            "--state-dir",
            state.path().to_str().unwrap(),
        ],
    );
    let carried = |lab: &Lab| {
        let counters = lab.link_counters(&nodes.name()).unwrap();
        counters.get("vx0").map_or([0; 2], |link| [link.tx_packets, link.rx_packets])
    };
    let before = carried(lab);
    let (passed, denied) = perform(lab, nodes);
    assert_eq!((passed.len(), denied.len()), (2 * PASSES.len() + 4, 2 * DENIED.len()));
    for entry in &passed {
        assert!(entry.as_expected(), "overlay {has_overlay}: {entry:?}");
    }
    for entry in &denied {
        let is_stopped = entry.outcome != Outcome::Ok && entry.served.is_none();
        assert!(is_stopped, "overlay {has_overlay}: {entry:?}");
    }
    // Each is what it is meant to be.
    let served = |from: &str, to: &str, port: u16| {
        let found = passed.iter().filter(move |e| e.from == from && e.to == to && e.called.port() == port);
        found.map(|entry| entry.served.clone().unwrap()).collect::<Vec<_>>()
    };
    let addresses = nodes.addresses(lab);
    let masqueraded = served(&format!("pod/web/client-{}", nodes.own), "external/far", 8080);
    assert!(masqueraded.iter().all(|served| addresses.contains(&served.peer.ip())), "{masqueraded:?}");
    for address in &addresses {
        for (port, number) in NODE_PORTS.into_iter().zip([nodes.own, nodes.other]) {
            let served = served("external/far", &format!("ip/{address}"), port);
            assert_eq!(served[0].by, format!("pod/shop/server-{number}"));
        }
    }
    let [sent, received] = [0, 1].map(|way| carried(lab)[way] - before[way]);
    // Of each connection between nodes one packet at least, either way.
    assert_eq!((sent > 20, received > 20), (has_overlay, has_overlay), "{sent} {received}");

    let wanted: BTreeSet<_> = denied.iter().map(|e| plain(e.protocol, e.source, e.called)).collect();
    let flows = daemon.flows_until(|flows| {
        let told = dropped(flows);
        wanted.iter().find(|ends| !told.contains(ends)).map(|ends| format!("the drop of {ends:?}"))
    });
    // And nothing of what passes, under whichever addresses.
    let passing: BTreeSet<_> = passed.iter().flat_map(ways).collect();
    let odd: Vec<_> =
        dropped(&flows).into_iter().filter(|ends| passing.contains(ends) && !wanted.contains(ends)).collect();
    assert!(odd.is_empty(), "overlay {has_overlay}: {odd:?}");
    for flow in flows.iter().filter(|flow| is_policy_drop(flow)) {
        assert_eq!(flow.traffic_direction(), TrafficDirection::Egress, "{flow:?}");
        assert_eq!(flow.egress_denied_by[0].name, "node-egress", "{flow:?}");
    }
    assert!(daemon.stop().0.success());
    let detached = lab.command_in(&nodes.name(), OBSERVER).arg("detach").output().unwrap();
    assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
}

/// What policies dropped.
fn dropped(flows: &[Flow]) -> BTreeSet<Ends> {
    flows.iter().filter(|flow| is_policy_drop(flow)).filter_map(ends).collect()
}

fn check_all(test: &str, nodes: &Nodes) {
    if !can_run(test) {
        return;
    }
    let mut lab = Lab::up(&nodes.scenario(), &unique_prefix("host")).unwrap();
    open_node_ports(&lab, nodes);
    check(&mut lab, nodes, false);
    overlay(&lab);
    check(&mut lab, nodes, true);
}

#[test]
fn what_a_routed_node_does_for_others_is_none_of_its_own() {
    check_all("what_a_routed_node_does_for_others_is_none_of_its_own", &Nodes { own: 1, other: 2 });
}

#[test]
fn what_a_bridged_node_does_for_others_is_none_of_its_own() {
    check_all("what_a_bridged_node_does_for_others_is_none_of_its_own", &Nodes { own: 2, other: 1 });
}

/// Whether this machine asks name servers that the policy denies.
fn has_denied_name_server() -> bool {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    let allowed = |server: IpAddr| {
        ["203.0.113.", "2001:db8:113:"].iter().any(|net| server.to_string().starts_with(net))
    };
    servers.any(|server: IpAddr| !server.is_loopback() && !allowed(server))
}

#[test]
fn a_policy_that_cuts_the_node_off_is_refused_at_the_start() {
    let test = "a_policy_that_cuts_the_node_off_is_refused_at_the_start";
    if !can_run(test) {
        return;
    }
    if !has_denied_name_server() {
        eprintln!("SKIP: {test}: /etc/resolv.conf has no name server that the policy denies");
        return;
    }
    let lab = Lab::up(&Nodes { own: 1, other: 2 }.scenario(), &unique_prefix("lockout")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    // Were it taken, the daemon would go on.
    let mut command = lab.command_in("n1", "timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(OBSERVER).args(["--node-name", "n1"]);
    command
        .arg("--inventory")
        .arg(inventory)
        .arg("--policy")
        .arg(policy())
        .args(["--policy-mode", "enforce"]);
    command.arg("--state-dir").arg(dir.path().join("state"));
    command.arg("--socket").arg(dir.path().join("hubble.sock"));
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("node-egress in mode enforce would cut this node off: "), "{error}");
    assert!(error.contains("--allow-lockout"), "{error}");
}

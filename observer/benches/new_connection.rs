//! What a new connection costs by policies in the kernel, and by the same rules in a chain of iptables: a server that takes
//! calls from as many sources as there are rules, the caller being the last of them.
//!
//! Four nodes of a lab, each with a caller and a server: one without rules, one with the daemon, which also observes, and one
//! for each kind of iptables. A connection's cost is the time of its `connect()` over that of the node without rules, in which
//! both ends' packets are worked off on one processor; the daemon has another. The chain is spared what iptables is mostly
//! given besides: it tracks no connections, and all but a SYN passes by its first rule.
#![expect(clippy::unwrap_used, reason = "a bench stops where something is not as it should be")]

mod support;
#[path = "../tests/support/mod.rs"]
mod tests_support;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::SockRef;
use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread::available_parallelism,
    time::{Duration, Instant},
};
use support::row;
use tests_support::{Daemon, OBSERVER, can_run};

const RULES: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 15;
const CONNECTS: usize = 200;
const ALLOWED: u16 = 9100;
const DENIED: u16 = 9101;
const PLAIN: &str = "plain";
const OURS: &str = "policies";
const CHAINS: [&str; 2] = ["iptables-legacy", "iptables-nft"];
const NODES: [&str; 4] = [PLAIN, OURS, CHAINS[0], CHAINS[1]];

fn main() {
    if !can_run("new_connection") {
        return;
    }
    let last = available_parallelism().map_or(1, usize::from) - 1;
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).unwrap();
    let lab = Lab::up(&Scenario::parse(&lab_of_all(), "new_connection").unwrap(), &unique_prefix("connect"))
        .unwrap();
    let nodes = NODES.map(|name| Node::new(&lab, name));
    for rules in RULES {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.yaml");
        fs::write(&policy, policy_of(&nodes[1], rules)).unwrap();
        let daemon = daemon(&lab, last, policy.to_str().unwrap());
        let chains = CHAINS.map(|kind| {
            let node = nodes.iter().find(|node| node.name == kind).unwrap();
            let is_there = restore(lab.command_in(kind, format!("{kind}-restore")), &chain(node, rules));
            if !is_there {
                println!("{kind}: not here, so not measured");
            }
            is_there
        });
        let is_there = [true, true, chains[0], chains[1]];
        for (node, _) in nodes.iter().zip(is_there).filter(|(_, is_there)| *is_there) {
            node.lets_in_what_it_should();
        }
        let mut costs: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let mut plain = 0.0;
            for ((node, costs), _) in
                nodes.iter().zip(&mut costs).zip(is_there).filter(|(_, is_there)| *is_there)
            {
                let time = node.connect_time();
                if node.name == PLAIN {
                    plain = time;
                }
                costs.push(if node.name == PLAIN { time } else { time - plain });
            }
        }
        let [plain, ours, legacy, nft] = costs.map(median);
        println!("{rules} rules: a connection without any takes {:.1} us", plain.unwrap());
        let shown = |name: &str| format!("new connection, {name}, {rules} rules");
        row(&shown(OURS), ours.unwrap(), "us");
        for (kind, cost) in CHAINS.into_iter().zip([legacy, nft]) {
            if let Some(cost) = cost {
                row(&shown(kind), cost, "us");
            }
        }
        if let Some(cheapest) = legacy.into_iter().chain(nft).reduce(f64::min) {
            row(&shown("iptables over policies"), cheapest / ours.unwrap(), "x");
        }
        assert!(daemon.stop().0.success());
        assert!(lab.command_in(OURS, OBSERVER).arg("detach").output().unwrap().status.success());
    }
}

fn lab_of_all() -> String {
    let mut text = "name = \"connect\"\n[outside]\naddresses = [\"192.168.50.1/24\"]\n".to_owned();
    for (number, node) in (1..).zip(NODES) {
        writeln!(
            text,
            "[[nodes]]\nname = \"{node}\"\nwiring = \"routed\"\naddresses = [\"192.168.50.{}\"]",
            10 + number
        )
        .unwrap();
        for (name, last) in [("client", 10), ("server", 20)] {
            writeln!(
                text,
                "[[pods]]\nname = \"{name}-{number}\"\nnamespace = \"shop\"\nnode = \"{node}\"\n\
                 ips = [\"10.244.{number}.{last}\"]\nlabels = {{ app = \"{name}\" }}"
            )
            .unwrap();
        }
    }
    text
}

/// The daemon on a processor of its own, if there is one.
fn daemon(lab: &Lab, cpu: usize, policy: &str) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    let mut command = lab.command_in(OURS, "taskset");
    command.args(["--cpu-list", &cpu.to_string(), OBSERVER, "--node-name", OURS, "--inventory"]);
    command.arg(inventory).args(["--policy", policy, "--policy-mode", "enforce"]);
    Daemon::spawn(command, dir)
}

/// Those that the server takes calls from: the last one is the caller.
fn sources(node: &Node, rules: usize) -> impl Iterator<Item = IpAddr> {
    let other = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0ac8_0000 + number));
    (1..rules as u32).map(other).chain([node.client])
}

fn policy_of(node: &Node, rules: usize) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: sources, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: server}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - ports: [{{port: {ALLOWED}, \
         protocol: TCP}}]\n    from:\n"
    );
    for source in sources(node, rules) {
        writeln!(text, "    - ipBlock: {{cidr: {source}/32}}").unwrap();
    }
    text
}

fn chain(node: &Node, rules: usize) -> String {
    let server = node.server.ip();
    let mut text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -m tcp ! --syn -j ACCEPT\n".to_owned();
    for source in sources(node, rules) {
        writeln!(text, "-A FORWARD -s {source}/32 -d {server}/32 -p tcp -m tcp --dport {ALLOWED} -j ACCEPT")
            .unwrap();
    }
    writeln!(text, "-A FORWARD -d {server}/32 -j DROP\nCOMMIT").unwrap();
    text
}

/// Whether the program is there and the kernel takes what it is given.
fn restore(mut command: Command, text: &str) -> bool {
    let Ok(mut child) = command.stdin(Stdio::piped()).spawn() else { return false };
    // What it doesn't read it says itself.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait().unwrap().success()
}

struct Node {
    name: &'static str,
    /// The caller's network namespace.
    namespace: String,
    client: IpAddr,
    server: SocketAddr,
    listener: TcpListener,
}

impl Node {
    fn new(lab: &Lab, name: &'static str) -> Self {
        let pod = |app: &str| {
            let mut pods = lab.scenario().pods.iter();
            pods.find(|pod| pod.node == name && pod.name.starts_with(app)).unwrap()
        };
        let namespace =
            |app: &str| lab.pod_netns(pod(app)).file_name().unwrap().to_string_lossy().into_owned();
        let (client, server) = (pod("client").ips[0], SocketAddr::new(pod("server").ips[0], ALLOWED));
        let listener =
            netns::inside(&namespace("server"), || Ok(TcpListener::bind(server).unwrap())).unwrap();
        Self { name, namespace: namespace("client"), client, server, listener }
    }

    /// Where there are rules, what none of them allows is answered by nobody.
    fn lets_in_what_it_should(&self) {
        let denied = SocketAddr::new(self.server.ip(), DENIED);
        let tried = netns::inside(&self.namespace, || {
            Ok(TcpStream::connect_timeout(&denied, Duration::from_millis(200)).unwrap_err().kind())
        });
        let expected = if self.name == PLAIN { ErrorKind::ConnectionRefused } else { ErrorKind::TimedOut };
        assert_eq!(tried.unwrap(), expected, "{}", self.name);
    }

    /// Microseconds: the median of many.
    fn connect_time(&self) -> f64 {
        let times = netns::inside(&self.namespace, || {
            let connect = |_| {
                let began = Instant::now();
                let here = TcpStream::connect(self.server).unwrap();
                let took = began.elapsed();
                drop(self.listener.accept().unwrap());
                // Else the caller runs out of ports.
                SockRef::from(&here).set_linger(Some(Duration::ZERO)).unwrap();
                took.as_nanos() as f64 / 1e3
            };
            Ok((0..CONNECTS).map(connect).collect())
        });
        median(times.unwrap()).unwrap()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

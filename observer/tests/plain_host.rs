//! A host without Kubernetes and without an inventory: what runs here has a name all the same.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::flow::{Endpoint, Flow};
use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::Duration,
};
use support::{Daemon, OBSERVER, can_run};

const SCENARIO: &str = r#"
name = "plain"
[outside]
addresses = ["192.168.50.1/24"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11"]
[[pods]]
name = "blue"
namespace = "host"
node = "n1"
ips = ["10.244.1.10"]
[[pods]]
name = "green"
namespace = "host"
node = "n1"
ips = ["10.244.1.20"]
servers = { echo = 7000 }
[[externals]]
name = "partner"
addresses = ["203.0.113.10"]
servers = { echo = 7000 }
[[traffic]]
name = "between"
from = "pod/host/blue"
kind = "udp"
to = "pod/host/green"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "out"
from = "pod/host/blue"
kind = "udp"
to = "external/partner"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "from-host"
from = "node/n1"
kind = "udp"
to = "pod/host/green"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "host-out"
from = "node/n1"
kind = "udp"
to = "external/partner"
port = 7000
family = "v4"
count = 1
"#;

/// A process in a network namespace that has no name; ends with this value.
struct Unnamed(Child);

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(place: &str, arguments: &str) {
    let status =
        Command::new("nsenter").arg(place).args(["--", "ip"]).args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn namespaces_and_processes_have_names() {
    if !can_run("namespaces_and_processes_have_names") {
        return;
    }
    let scenario = Scenario::parse(SCENARIO, "plain").unwrap();
    let mut lab = Lab::up(&scenario, &unique_prefix("plain")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // `tail -f` of nothing waits for ever.
    let mut tail = Command::new("unshare");
    tail.args(["-n", "tail", "-f", "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    let unnamed = Unnamed(tail.spawn().unwrap());
    let pid = unnamed.0.id();
    until("the process is in its namespace", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tail")
    });
    let node = format!("--net={}", lab.node_netns("n1").display());
    let inside = format!("--net=/proc/{pid}/ns/net");
    ip(&node, &format!("link add name plain0 type veth peer name eth0 netns {pid}"));
    ip(&node, "addr add 10.250.0.1/24 dev plain0");
    ip(&node, "link set plain0 up");
    ip(&inside, "addr add 10.250.0.2/24 dev eth0");
    ip(&inside, "link set eth0 up");

    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "plain"]);
    let daemon = Daemon::spawn(command, dir);
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    // Nobody answers there; the kernel says so, and the packet was delivered.
    let node = lab.node_netns("n1");
    netns::inside(node.file_name().unwrap().to_str().unwrap(), || {
        let socket = UdpSocket::bind("10.250.0.1:0").unwrap();
        socket.send_to(b"hello", "10.250.0.2:9").unwrap();
        Ok(())
    })
    .unwrap();

    let name = |pod: usize| {
        let path = lab.pod_netns(&lab.scenario().pods[pod]);
        format!("netns/{}", path.file_name().unwrap().to_str().unwrap())
    };
    let (blue, green) = (name(0), name(1));
    let entries = lab.ledger();
    let source = |traffic: &str| -> SocketAddr {
        entries.iter().find(|entry| entry.traffic == traffic).unwrap().source
    };
    let wanted = [
        (source("between").ip().to_string(), "10.244.1.20", blue.as_str(), green.as_str()),
        (source("out").ip().to_string(), "203.0.113.10", &blue, "reserved:world"),
        (source("from-host").ip().to_string(), "10.244.1.20", "reserved:host", &green),
        (source("host-out").ip().to_string(), "203.0.113.10", "reserved:host", "reserved:world"),
        ("10.250.0.1".to_owned(), "10.250.0.2", "reserved:host", "process/tail"),
    ];
    daemon.flows_until(|flows| {
        let told: HashMap<(String, String), (String, String)> = flows.iter().map(told).collect();
        wanted.iter().find_map(|(from, to, source, destination)| {
            let found = told.get(&(from.clone(), (*to).to_owned()));
            let fits = found.is_some_and(|(s, d)| s == source && d == destination);
            (!fits).then(|| format!("{from} ({source}) -> {to} ({destination}), but {found:?} of {told:#?}"))
        })
    });
    // Such a name filters like a pod's.
    let request = observer_proto::observer::GetFlowsRequest {
        number: u64::MAX,
        whitelist: vec![observer_proto::flow::FlowFilter {
            destination_pod: vec!["process/tail".to_owned()],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert!(!daemon.responses(request).is_empty());
}

/// Waits for what has no event, 10 seconds at most.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 10 s");
}

/// Addresses and names of a flow.
fn told(flow: &Flow) -> ((String, String), (String, String)) {
    let ip = flow.ip.clone().unwrap_or_default();
    ((ip.source, ip.destination), (party(flow.source.as_ref()), party(flow.destination.as_ref())))
}

fn party(endpoint: Option<&Endpoint>) -> String {
    let Some(endpoint) = endpoint else { return String::new() };
    if endpoint.pod_name.is_empty() {
        return endpoint
            .labels
            .iter()
            .find(|label| label.starts_with("reserved:"))
            .cloned()
            .unwrap_or_default();
    }
    format!("{}/{}", endpoint.namespace, endpoint.pod_name)
}

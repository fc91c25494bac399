//! Pods that no link of the node leads to: they are named, with what of them is told and what is not.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, netns, unique_prefix};
use observer_proto::flow::Flow;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{net::UdpSocket, path::Path, process::Command};
use support::{
    Daemon, OBSERVER, can_run,
    late::{self, ip_tool},
    scenario,
};

/// A pod by macvlan on the node's uplink, in a namespace that goes with this value.
struct Macvlan {
    netns: String,
    ip: &'static str,
}

impl Macvlan {
    /// Made on the node and moved, so that the node has an id for its namespace; or at once where it is to be.
    fn new(node: &str, name: &str, ip: &'static str, is_moved: bool) -> Self {
        let netns = format!("{node}-{name}");
        ip_tool(&format!("netns add {netns}"), "");
        let made = format!("-n {node} link add link eth0 name {name}");
        if is_moved {
            ip_tool(&format!("{made} type macvlan mode bridge"), "");
            ip_tool(&format!("-n {node} link set {name} netns {netns}"), "");
        } else {
            ip_tool(&format!("{made} netns {netns} type macvlan mode bridge"), "");
        }
        ip_tool(
            &format!("-n {netns} -batch -"),
            &format!(
                "link set lo up\nlink set {name} up\naddr add {ip}/24 dev {name}\nroute add default via 192.168.50.1\n"
            ),
        );
        observer_lab::links::wait_ready(&netns).unwrap();
        Self { netns, ip }
    }

    fn socket(&self) -> UdpSocket {
        let at = (self.ip, 7001);
        netns::inside(&self.netns, || Ok(UdpSocket::bind(at).unwrap())).unwrap()
    }
}

impl Drop for Macvlan {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).output();
    }
}

/// The lab's inventory with pods of macvlan and one of the node's own network.
fn inventory(lab: &Lab, pods: &[(&str, &str, bool)]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inventory.yaml");
    lab.write_inventory(&file).unwrap();
    let mut all: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let list = all["pods"].as_array_mut().unwrap();
    list.extend(pods.iter().map(|(name, ip, host_network)| {
        json!({ "name": name, "namespace": "odd", "node": "n1", "ips": [ip], "host_network": host_network })
    }));
    all
}

/// Of pods without links, too, and all they do.
const CLOSED: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: odd}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

fn daemon_of(lab: &Lab, inventory: &Path) -> Command {
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "n1", "--local-namespaces=false", "--inventory"]).arg(inventory);
    command
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn pods_without_links_are_named_with_what_is_told_of_them() {
    if !can_run("pods_without_links_are_named_with_what_is_told_of_them") {
        return;
    }
    let lab = Lab::up(&scenario("two-nodes.toml"), &unique_prefix("unlinked")).unwrap();
    let node = late::node(&lab);
    let pods = [
        Macvlan::new(&node, "mac1", "192.168.50.70", true),
        Macvlan::new(&node, "mac2", "192.168.50.71", false),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inventory.yaml");
    let names = [("mac1", pods[0].ip, false), ("mac2", pods[1].ip, false), ("agent", "192.168.50.11", true)];
    std::fs::write(&file, inventory(&lab, &names).to_string()).unwrap();
    let daemon = Daemon::spawn(daemon_of(&lab, &file), dir);

    let told: Vec<_> = daemon
        .capture_status()
        .unlinked
        .into_iter()
        .map(|pod| (pod.endpoint, pod.kind, pod.link, pod.note))
        .collect();
    let of = |name: &str| {
        let found = told.iter().find(|(endpoint, ..)| endpoint == &format!("odd/{name}"));
        found.map(|(_, kind, link, note)| (kind.as_str(), link.as_str(), note.as_str())).unwrap()
    };
    assert_eq!(told.len(), 3, "who has a link is not among them: {told:?}");
    assert_eq!((of("agent").0, of("agent").1), ("host", ""));
    assert_eq!((of("mac1").0, of("mac1").1), ("macvlan", "eth0"));
    // Whose namespace has no id here nobody can look into.
    assert_eq!((of("mac2").0, of("mac2").1), ("unknown", "eth0"));
    assert!(of("mac1").2.starts_with("refused: ") && of("agent").2.contains("the node's own network"));

    // It is as it is said.
    let outside =
        netns::inside(&file_name(&lab.outside_netns()), || Ok(UdpSocket::bind("192.168.50.1:7001").unwrap()))
            .unwrap();
    let sockets = [pods[0].socket(), pods[1].socket()];
    for (from, to) in [(&sockets[0], &sockets[1]), (&sockets[0], &outside), (&outside, &sockets[1])] {
        to.set_read_timeout(Some(support::PATIENCE)).unwrap();
        from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
        to.recv_from(&mut [0; 8]).unwrap();
    }
    daemon.settled();
    let is_of_them = |flow: &Flow| {
        let ends = [&flow.source, &flow.destination];
        ends.iter().any(|end| end.as_ref().is_some_and(|end| end.pod_name.starts_with("mac")))
    };
    let flows = daemon.flows();
    assert!(!flows.iter().any(is_of_them), "{flows:?}");

    let (_, _, dir) = daemon.end(Signal::TERM);
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, CLOSED).unwrap();
    let mut command = daemon_of(&lab, &file);
    command.args(["--policy-mode", "enforce", "--policy"]).arg(policy);
    let _daemon = Daemon::spawn(command, dir);
    // Neither to one that shares the link nor from outside to one is it asked.
    for (from, to) in [(&sockets[0], &sockets[1]), (&outside, &sockets[1])] {
        from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
        to.recv_from(&mut [0; 8]).unwrap();
    }
    // What one sends out is, and is behind nobody else's.
    let client = lab.pod_netns(lab.scenario().pod("web", "client-1").unwrap());
    let other = netns::inside(&file_name(&client), || Ok(UdpSocket::bind("0.0.0.0:0").unwrap())).unwrap();
    for from in [&sockets[0], &other] {
        from.send_to(b"hello", outside.local_addr().unwrap()).unwrap();
    }
    let (_, first) = outside.recv_from(&mut [0; 8]).unwrap();
    assert_ne!(first.ip().to_string(), pods[0].ip);
}

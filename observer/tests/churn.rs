//! Pods that come and go while the daemon runs: attached within a second, named with their first packet, gone without
//! a trace.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Inventory, Lab, netns, scenario::Pod, unique_prefix};
use observer_proto::control::Link;
use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};
use support::{Daemon, can_run, name, scenario};

/// What the design promises for a new link.
const SOON: Duration = Duration::from_secs(1);

/// A pod that the lab does not know, wired as the lab's routed pods are.
struct Late {
    pod: Pod,
    netns: String,
    node: String,
    link: String,
}

impl Late {
    fn new(lab: &Lab) -> Self {
        let mut pod = lab.scenario().pods[0].clone();
        "late".clone_into(&mut pod.name);
        pod.ips = vec!["10.244.1.99".parse().unwrap()];
        let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
        Self { pod, netns: format!("{node}-late"), node, link: "vethlate".to_owned() }
    }

    fn up(&self) {
        let Self { netns, node, link, pod } = self;
        let ip = pod.ips[0];
        ip_tool(&format!("netns add {netns}"));
        ip_tool(&format!("-n {netns} link set lo up"));
        ip_tool(&format!("-n {node} link add {link} type veth peer name eth0 netns {netns}"));
        ip_tool(&format!("-n {node} link set {link} up"));
        ip_tool(&format!("-n {netns} link set eth0 up"));
        ip_tool(&format!("-n {netns} addr add {ip} dev eth0"));
        ip_tool(&format!("-n {node} addr add 169.254.1.1/32 dev {link}"));
        ip_tool(&format!("-n {node} route add {ip} dev {link}"));
        ip_tool(&format!("-n {netns} route add default via 169.254.1.1 dev eth0 onlink src {ip}"));
    }

    /// The veth goes with the namespace, but a little later.
    fn down(&self) {
        ip_tool(&format!("-n {} link del {}", self.node, self.link));
        ip_tool(&format!("netns del {}", self.netns));
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).output();
    }
}

fn ip_tool(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for this; netlink's word reaches the daemon, but nothing tells of that.
fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn link(daemon: &Daemon, name: &str) -> Option<Link> {
    daemon.capture_status().links.into_iter().find(|link| link.name == name)
}

#[test]
fn a_new_pod_is_told_by_name_and_leaves_nothing_behind() {
    if !can_run("churn") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("churn")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let links_before = daemon.capture_status().links.len();
    let files_before = daemon.open_files();
    let late = Late::new(&lab);

    let mut grown = lab.scenario().clone();
    grown.pods.push(late.pod.clone());
    let inventory = daemon.dir.path().join("inventory.yaml");
    std::fs::write(&inventory, Inventory::of(&grown).to_text().unwrap()).unwrap();
    late.up();
    let attached = until("the new pod's link attached", SOON, || link(&daemon, &late.link));
    assert_eq!((attached.kind.as_str(), attached.problem.as_str()), ("pod", ""), "{attached:?}");
    until("the inventory read again", SOON, || daemon.log().contains("inventory reloaded").then_some(()));

    let server = lab.scenario().pods[1].ips.iter().copied().find(IpAddr::is_ipv4).unwrap();
    let client = netns::inside(&late.netns, || {
        let socket = UdpSocket::bind((late.pod.ips[0], 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&[b'x'; 64], (server, 7000)).unwrap();
        let _ = socket.recv_from(&mut [0; 128]);
        Ok(socket.local_addr().unwrap())
    })
    .unwrap();
    let of_late = |flow: &&observer_proto::flow::Flow| {
        support::ends(flow).is_some_and(|(_, source, destination)| source == client || destination == client)
    };
    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().filter(of_late).filter(|flow| flow.is_reply == Some(false)).count();
        (told == 0).then(|| "the new pod's first packet".to_owned())
    });
    for flow in flows.iter().filter(of_late) {
        let ip = flow.ip.as_ref().unwrap();
        let (late, ip) = if ip.source == client.ip().to_string() {
            (&flow.source, &ip.source)
        } else {
            (&flow.destination, &ip.destination)
        };
        assert_eq!(name(late.as_ref(), ip), "web/late", "{flow:?}");
    }

    late.down();
    until("the link gone from the status", SOON, || link(&daemon, &late.link).is_none().then_some(()));
    assert_eq!(daemon.capture_status().links.len(), links_before);
    until("the files closed", Duration::from_secs(5), || (daemon.open_files() <= files_before).then_some(()));
}

#[test]
fn a_flapping_pod_leaks_nothing() {
    if !can_run("flapping") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("flap")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    // The client's own connection is one of the daemon's files.
    daemon.capture_status();
    let files_before = daemon.open_files();
    let late = Late::new(&lab);
    let mut attached = 0;
    for _ in 0..20 {
        late.up();
        let seen = until("the link attached", SOON, || link(&daemon, &late.link));
        assert_eq!(seen.problem, "");
        attached = daemon.open_files().max(attached);
        late.down();
        until("the link gone", SOON, || link(&daemon, &late.link).is_none().then_some(()));
    }
    assert!(attached > files_before, "an attached link is open files: {attached} after {files_before}");
    until("the files closed", Duration::from_secs(5), || (daemon.open_files() <= files_before).then_some(()));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

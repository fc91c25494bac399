//! The daemon's end, in order and not, and its neighbours on the hooks.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use aya::{
    maps::loaded_maps,
    programs::{SchedClassifier, TcAttachType, loaded_links, loaded_programs},
};
use observer::capture::{Capture, CaptureConfig};
use observer_lab::{
    Lab, netns,
    scenario::{Party, Traffic},
    unique_prefix,
};
use observer_proto::observer::{GetFlowsRequest, get_flows_response::ResponseTypes};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE, Sums, can_run, late::until, scaled, scenario};
use tonic::Code;

#[test]
fn sigterm_ends_it_in_order() {
    ends_in_order(Signal::TERM, "term");
}

#[test]
fn ctrl_c_ends_it_in_order() {
    ends_in_order(Signal::INT, "int");
}

fn lab(name: &str) -> Lab {
    Lab::up(&scenario("drops.toml"), &unique_prefix(name)).unwrap()
}

/// Requests without end.
fn requests() -> Traffic {
    let mut traffic =
        scenario("drops.toml").traffic.into_iter().find(|traffic| traffic.name == "beside").unwrap();
    (traffic.count, traffic.interval_ms) = (None, 5);
    traffic
}

/// Programs on the two hooks of a node's links.
fn programs(lab: &Lab) -> usize {
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let count = |link: &str, hook| SchedClassifier::query_tcx(link, hook).unwrap().1.len();
    netns::inside(&node, || {
        let both = |link: &str| count(link, TcAttachType::Ingress) + count(link, TcAttachType::Egress);
        Ok(["veth0", "veth1", "eth0"].into_iter().map(both).sum())
    })
    .unwrap()
}

fn ends_in_order(signal: Signal, name: &str) {
    if !can_run(name) {
        return;
    }
    let mut lab = lab(name);
    let daemon = Daemon::start(&lab, "n1", &[]);
    assert_eq!(programs(&lab), 6, "two on each link");
    let follower = daemon.follow(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() });
    lab.play(requests()).unwrap();
    // Under way: a flow has come.
    let first = follower.responses.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(matches!(first.response_types, Some(ResponseTypes::Flow(_))), "{first:?}");

    let (status, took, dir) = daemon.end(signal);
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let end = follower.responses.iter().find_map(Result::err).expect("the stream ends with a status");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert_eq!(programs(&lab), 0);
    assert_eq!(sockets(dir.path()), Vec::<String>::new());
    lab.stop_traffic();
}

fn sockets(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains("sock")).collect()
}

#[test]
fn a_killed_daemon_is_replaced_at_once() {
    if !can_run("kill") {
        return;
    }
    let mut lab = lab("kill");
    let daemon = Daemon::start(&lab, "n1", &[]);
    lab.play(requests()).unwrap();
    daemon.flows_until(|flows| flows.is_empty().then(|| "a flow".to_owned()));
    let (status, _, dir) = daemon.end(Signal::KILL);
    assert!(!status.success());
    assert_eq!(sockets(dir.path()).len(), 2, "nobody removed them");
    assert_eq!(programs(&lab), 0, "nothing is pinned");

    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "n1", "--inventory"]).arg(dir.path().join("inventory.yaml"));
    let daemon = Daemon::spawn(command, dir);
    assert_eq!(programs(&lab), 6);
    daemon.flows_until(|flows| flows.is_empty().then(|| "a flow after the restart".to_owned()));
    let second =
        lab.command_in("n1", OBSERVER).arg("--socket").arg(daemon.dir.path().join("other.sock")).output();
    let second = second.unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8(second.stderr).unwrap();
    let first = format!("another observer (pid {})", daemon.pid().as_raw_nonzero());
    assert!(error.contains(&first), "{error}");
    lab.stop_traffic();
}

/// Under load, and as often as it takes: the kernel takes back everything, and the next one starts as if it were the
/// first.
#[test]
fn kills_leave_nothing_in_the_kernel() {
    if !can_run("kills") {
        return;
    }
    let mut lab = lab("kills");
    let mut load = requests();
    load.interval_ms = 1;
    lab.play(load).unwrap();
    let mut dir = tempfile::tempdir().unwrap();
    lab.write_inventory(&dir.path().join("inventory.yaml")).unwrap();
    let (mut longest, kills) = (Duration::ZERO, scaled(20, 100));
    for _ in 0..kills {
        let mut command = lab.command_in("n1", OBSERVER);
        command.args(["--node-name", "n1", "--aggregation", "none", "--inventory"]);
        command.arg(dir.path().join("inventory.yaml"));
        let started = Instant::now();
        // The sockets of the one before are in its way.
        let daemon = Daemon::spawn(command, dir);
        longest = longest.max(started.elapsed());
        let everything = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
        daemon
            .follow(everything)
            .until("a flow", |response| matches!(response, ResponseTypes::Flow(_)).then_some(()));
        let held = daemon.bpf_ids();
        assert!(held.values().all(|ids| !ids.is_empty()), "{held:?}");
        let (status, _, after) = daemon.end(Signal::KILL);
        assert!(!status.success());
        assert_eq!(sockets(after.path()).len(), 2, "nobody removed them");
        dir = after;
        gone(&held);
    }
    assert_eq!(programs(&lab), 0);
    eprintln!("{kills} times killed; the slowest start took {longest:.1?}");
    lab.stop_traffic();
}

/// That the kernel has none of these any more. It frees some of them when no CPU can be using them.
fn gone(held: &BTreeMap<&'static str, BTreeSet<u32>>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // What goes while it is asked for is an error.
        let left = BTreeMap::from([
            ("prog", loaded_programs().flatten().map(|program| program.id()).collect::<BTreeSet<_>>()),
            ("map", loaded_maps().flatten().map(|map| map.id()).collect()),
            ("link", loaded_links().flatten().map(|link| link.id()).collect()),
        ]);
        let left: Vec<_> = held.iter().map(|(what, ids)| (what, ids & &left[what])).collect();
        if left.iter().all(|(_, ids)| ids.is_empty()) {
            return;
        }
        assert!(Instant::now() < deadline, "still in the kernel: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As `bpftool link detach` does it, or anybody else with the rights.
#[test]
fn programs_taken_off_are_put_on_again() {
    if !can_run("taken-off") {
        return;
    }
    let mut lab = lab("taken-off");
    let daemon = Daemon::start(&lab, "n1", &[]);
    let veth = lab.pod_link(&lab.scenario().pods[0]);
    let status = || daemon.capture_status().links.into_iter().find(|link| link.name == veth).unwrap();
    let index = status().index;
    let mut request = requests();
    request.count = Some(5);
    lab.play(request.clone()).unwrap();
    lab.wait_traffic();
    let before = status().received_packets;
    assert!(before > 0);
    for repairs in 1..=2 {
        let attached = daemon.attached(index);
        assert_eq!(attached.len(), 2, "{attached:?}");
        // One of the two, then both: by one process, so that no look comes between.
        let detach: Vec<String> =
            attached.iter().take(repairs).map(|id| format!("link detach id {id}")).collect();
        let batch = daemon.dir.path().join("detach");
        std::fs::write(&batch, detach.join("\n") + "\n").unwrap();
        let tool = Command::new("bpftool").args(["batch", "file"]).arg(&batch).output().unwrap();
        assert!(tool.status.success(), "{}", String::from_utf8_lossy(&tool.stderr));
        assert!(daemon.attached(index).len() < 2 || status().repairs as usize == repairs);
        let taken_off = Instant::now();
        until("put on again", || (status().repairs as usize == repairs).then_some(()));
        eprintln!("put on again after {:.1?}", taken_off.elapsed());
        assert_eq!(programs(&lab), 6);
        assert_eq!(daemon.attached(index).len(), 2);
    }
    assert_eq!(status().problem, "");
    let told = daemon.log().lines().filter(|line| line.contains("were off this link")).count();
    assert_eq!(told, 1, "once is enough:\n{}", daemon.log());
    lab.play(request).unwrap();
    lab.wait_traffic();
    let now = status().received_packets;
    // Each call is a SYN, an ACK, the request and an end at least.
    assert!(now >= before + 5 * 4, "counts go on: {now} after {before}");
    Sums::of(&daemon.settled()).check();
}

/// The other program here is a second capture, loaded by this test: to the daemon it is a stranger's.
#[test]
fn programs_of_others_run_on() {
    if !can_run("others") {
        return;
    }
    let mut lab = lab("others");
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let other = netns::inside(&node, || Ok(Capture::start(&CaptureConfig::default()).unwrap())).unwrap();
    let veth = lab.pod_link(&lab.scenario().pods[0]);
    // The queueing discipline of classic tc programs beside both, as on kernels before 6.6.
    let tc = Command::new("nsenter")
        .arg(format!("--net={}", lab.node_netns("n1").display()))
        .args(["tc", "qdisc", "add", "dev", &veth, "clsact"])
        .status()
        .unwrap();
    assert!(tc.success());
    let daemon = Daemon::start(&lab, "n1", &[]);
    for link in daemon.capture_status().links {
        assert_eq!((link.other_programs, link.problem.as_str()), (2, ""), "{link:?}");
    }
    assert_eq!(programs(&lab), 12);
    let counted = |other: &Capture| {
        let status = other.status().status();
        let link = status.links.into_iter().find(|link| link.link.name == veth).unwrap();
        [link.ingress.packets, link.egress.packets]
    };
    // Of one time: the network says this and that by itself, so that a packet may come between the two.
    let both = || loop {
        let (theirs, ours) = (counted(&other), link_packets(&daemon, &veth));
        if counted(&other) == theirs {
            return (theirs, ours);
        }
    };
    let before = both();
    let mut request = requests();
    request.count = Some(10);
    assert!(matches!(request.from, Party::Pod(..)));
    lab.play(request).unwrap();
    lab.wait_traffic();
    assert!(lab.ledger().iter().all(observer_lab::Entry::as_expected));
    let after = both();
    let grown = |before: [u64; 2], after: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
    let (theirs, ours) = (grown(before.0, after.0), grown(before.1, after.1));
    assert!(theirs[0] >= 50, "{theirs:?}");
    assert_eq!(theirs, ours, "both see every packet");
    assert!(daemon.stop().0.success());
    assert_eq!(programs(&lab), 6, "the other's are still there");
    drop(other);
    // A child that another test's thread has forked holds a copy of every link until it executes its program.
    until("the other's are gone", || (programs(&lab) == 0).then_some(()));
}

fn link_packets(daemon: &Daemon, name: &str) -> [u64; 2] {
    let links = daemon.capture_status().links;
    let link = links.into_iter().find(|link| link.name == name).unwrap();
    [link.received_packets, link.sent_packets]
}

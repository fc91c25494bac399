//! `observe` against the daemon: the two binaries as a user runs them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, unique_prefix};
use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use support::{Daemon, OBSERVER, can_run, demo, scenario};

/// The other package's binary, which a build of the workspace puts beside this one's.
fn binary() -> PathBuf {
    let path = Path::new(OBSERVER).with_file_name("observe");
    assert!(path.exists(), "{} is missing: build it with `cargo build -p observe`", path.display());
    path
}

fn command(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.env_remove("OBSERVE_SERVER").env_remove("HUBBLE_SERVER");
    command.arg("--server").arg(format!("unix://{}", daemon.dir.path().join("hubble.sock").display()));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(daemon: &Daemon, args: &[&str]) -> Output {
    command(daemon, args).output().unwrap()
}

/// Its lines on stdout, once it ended well.
fn lines(daemon: &Daemon, args: &[&str]) -> Vec<String> {
    let output = run(daemon, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn observe_shows_what_the_daemon_saw() {
    if !can_run("observe_shows_what_the_daemon_saw") {
        return;
    }
    binary();
    let (mut lab, daemon) = demo("cli", 2, &[]);
    daemon.flows_until(|flows| {
        let dropped = flows.iter().filter(|flow| flow.verdict() == observer_proto::flow::Verdict::Dropped);
        (dropped.count() < 10).then(|| "the drops".to_owned())
    });
    a_call_through_a_service_is_shown_once_each_way(&lab, &daemon);
    drops_and_json(&daemon);
    status(&daemon);

    // Following: what happens while it runs is shown at once, and Ctrl-C is no error.
    let mut child = command(&daemon, &["-f", "--protocol", "icmp"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut ping = lab.scenario().traffic.iter().find(|traffic| traffic.name == "ping").unwrap().clone();
    // Until it is stopped: nothing tells from outside when the stream has begun.
    (ping.count, ping.delay_ms, ping.interval_ms) = (None, 0, 50);
    lab.play(ping).unwrap();
    let mut line = String::new();
    assert!(reader.read_line(&mut line).unwrap() > 0, "a line of the ping");
    assert!(line.contains("data/analytics-service") && line.contains("web/frontend-app"), "{line}");
    lab.stop_traffic();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert!(child.wait().unwrap().success(), "Ctrl-C ends it well");

    let gone = daemon.dir.path().join("none.sock");
    let gone =
        Command::new(binary()).args(["--server", &format!("unix://{}", gone.display())]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
    let told = String::from_utf8_lossy(&gone.stderr);
    assert!(told.lines().count() == 3 && told.contains("\nhint: "), "what, why, and what to do: {told}");
    let (status, took) = daemon.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

/// The daemon ends while somebody follows, and another one takes its place: what that sees is shown, nothing twice, and it
/// is told that flows may be missing.
#[test]
fn following_outlives_the_daemon() {
    if !can_run("following_outlives_the_daemon") {
        return;
    }
    let mut lab = Lab::up(&scenario("demo.toml"), &unique_prefix("restart")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let mut ping = lab.scenario().traffic.iter().find(|traffic| traffic.name == "ping").unwrap().clone();
    (ping.count, ping.delay_ms, ping.interval_ms) = (None, 0, 50);
    lab.play(ping).unwrap();
    let mut observe = command(&daemon, &["-f", "--protocol", "icmp", "-o", "json"]);
    let mut child = observe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut flows = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(flows.next().unwrap().contains("ICMP"));

    let (status, _, dir) = daemon.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let lost = told.next().unwrap();
    assert!(lost.starts_with("lost the connection to unix://"), "{lost}");
    let mut second = lab.command_in("n1", OBSERVER);
    second.args(["--node-name", "n1", "--inventory"]).arg(dir.path().join("inventory.yaml"));
    let daemon = Daemon::spawn(second, dir);
    let again = told.next().unwrap();
    assert!(again.starts_with("connected to unix://"), "{again}");
    let gap = told.next().unwrap();
    assert!(gap.starts_with("gap: flows from ") && gap.contains("may be missing"), "{gap}");

    // The gap is told with the first flow of the second daemon, so that is shown, too.
    let seen: HashSet<String> = daemon.flows().into_iter().map(|flow| flow.uuid).collect();
    lab.stop_traffic();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let mut ids = HashSet::new();
    for line in flows {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(ids.insert(line["flow"]["uuid"].as_str().unwrap().to_owned()), "shown twice: {line}");
    }
    assert!(!ids.is_disjoint(&seen), "a flow of the second daemon: {ids:?}");
    assert!(child.wait().unwrap().success());
}

/// New connections and their first replies: each way once a connection.
fn a_call_through_a_service_is_shown_once_each_way(lab: &observer_lab::Lab, daemon: &Daemon) {
    let pods = ["--from-pod", "web/frontend-app", "--to-pod", "payments/payments-api"];
    let shown = lines(daemon, &[&["--all", "--protocol", "tcp", "--port", "8080"], &pods[..]].concat());
    assert!(!shown.is_empty());
    let back = ["--from-pod", "payments/payments-api", "--to-pod", "web/frontend-app"];
    let shown_back = lines(daemon, &[&["--all", "--protocol", "tcp", "--port", "8080"], &back[..]].concat());
    for line in &shown {
        assert!(line.contains(" -> ") && line.contains("FORWARDED"), "{line}");
    }
    for line in &shown_back {
        assert!(line.contains(" <- ") && line.contains("FORWARDED"), "{line}");
    }
    let calls =
        lab.ledger().into_iter().filter(|entry| ["charges", "unknown-path"].contains(&&*entry.traffic));
    for entry in calls {
        let ends = format!("frontend-app-7b5b9c6d4-x2x9z:{} ", entry.source.port());
        let asked: Vec<_> = shown.iter().filter(|line| line.contains(&ends)).collect();
        let answered: Vec<_> = shown_back.iter().filter(|line| line.contains(&ends)).collect();
        assert_eq!(
            asked.iter().filter(|line| line.ends_with("(TCP Flags: SYN)")).count(),
            1,
            "{ends}: {asked:#?}"
        );
        let replies = answered.iter().filter(|line| line.ends_with("(TCP Flags: SYN, ACK)")).count();
        assert_eq!(replies, 1, "{ends}: {answered:#?}");
    }
}

fn drops_and_json(daemon: &Daemon) {
    let drops = lines(daemon, &["--all", "--verdict", "DROPPED"]);
    assert!(drops.iter().all(|line| line.contains("DROPPED")), "{drops:#?}");
    for reason in ["NETFILTER_DROP", "NO_SOCKET"] {
        assert!(drops.iter().any(|line| line.contains(reason)), "{reason}: {drops:#?}");
    }
    let json = lines(daemon, &["--all", "-o", "json"]);
    assert!(json.len() > drops.len());
    for line in &json {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["flow"]["node_name"], "default/n1", "{line}");
        assert!(value["flow"]["uuid"].is_string() && value["time"].is_string(), "{line}");
    }
    // The network says this and that by itself: what is last now is not the last for long.
    let last = lines(daemon, &["--last", "3", "-o", "json"]);
    let later = lines(daemon, &["--all", "-o", "json"]);
    assert!(later.windows(3).rev().any(|three| three == last), "{last:#?}");
    assert!(last.len() == 3 && !json[..json.len() - 3].contains(&last[2]), "{last:#?}");
    assert_eq!(lines(daemon, &["--first", "2", "-o", "json"])[..], json[..2]);
    let wrong = run(daemon, &["--verdict", "NONE"]);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(1), 0));
}

fn status(daemon: &Daemon) {
    let status = lines(daemon, &["status"]).join("\n");
    assert!(status.contains("Healthcheck") && status.contains("Ok"), "{status}");
    assert!(status.contains("Current/Max Flows"), "{status}");
    let control = daemon.dir.path().join("control.sock");
    let capture = ["status", "--capture", "--control-socket", control.to_str().unwrap()];
    let text = lines(daemon, &capture).join("\n");
    for wanted in ["kfree_skb", "observer_ingress", "nf_conntrack", "pod", "uplink"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

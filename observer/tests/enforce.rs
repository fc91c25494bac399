//! The plays of `testdata/policy/plays`: real traffic in the lab's demo, routed and bridged, over both families, under each
//! mode. No allowed connection fails, no forbidden one is delivered, and each denial is told once, by its side and policies.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{
    Cause, Entry, Kind, Lab, Outcome, Scenario,
    scenario::{Party, Traffic, Wiring},
    unique_prefix,
};
use observer_proto::flow::{DropReason, Flow, TrafficDirection, Verdict};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use support::{Daemon, OBSERVER, Sums, can_run, ends, scenario};

const SETS: [&str; 3] = ["tenants", "payments", "host"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Never,
    Audit,
    Enforce,
}

impl Mode {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Never => &["--policy-mode", "enforce", "--policy-enforcement", "never"],
            Self::Audit => &["--policy-mode", "audit"],
            // The machine's own name servers are none that the set of the host lets the node ask.
            Self::Enforce => &["--policy-mode", "enforce", "--allow-lockout"],
        }
    }
}

/// One line of the file.
#[derive(Clone, Debug)]
struct Play {
    set: String,
    traffic: Traffic,
    denied: Option<TrafficDirection>,
}

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/policy").join(path)
}

fn plays() -> Vec<Play> {
    let text = fs::read_to_string(testdata("plays/plays.txt")).unwrap();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| play(number + 1, line)).collect()
}

fn play(number: usize, line: &str) -> Play {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [set, from, kind, to, port, denied] = words[..] else { panic!("plays.txt:{number}: six columns") };
    let traffic = serde_json::json!({
        "name": format!("{set}-{number}"),
        "from": from, "kind": kind, "to": to,
        "port": port.parse::<u16>().ok().filter(|port| *port > 0),
        "path": if kind == "dns" { "api.partner.example" } else { "/api/v1/charges" },
        // One over each family.
        "count": 2,
    });
    let denied = match denied {
        "-" => None,
        "egress" => Some(TrafficDirection::Egress),
        "ingress" => Some(TrafficDirection::Ingress),
        other => panic!("plays.txt:{number}: {other}"),
    };
    Play { set: set.to_owned(), traffic: serde_json::from_value(traffic).unwrap(), denied }
}

/// The demo without what else drops there; pods on a bridge where asked for.
fn lab_of(wiring: Wiring) -> Scenario {
    let mut scenario = scenario("demo.toml");
    scenario.traffic.clear();
    scenario.drops.clear();
    let node = &mut scenario.nodes[0];
    node.wiring = wiring;
    if wiring == Wiring::Bridged {
        node.gateways = ["10.244.1.1/24", "fd00:10:244:1::1/64"].map(|net| net.parse().unwrap()).into();
    }
    scenario
}

/// Plays those of a set at the same time; what is denied is expected to be unanswered where `enforced`.
fn perform(lab: &mut Lab, set: &str, enforced: bool) -> Vec<(Play, Vec<Entry>)> {
    let before = lab.ledger().len();
    let plays: Vec<Play> = plays().into_iter().filter(|play| play.set == set).collect();
    for Play { traffic, denied, .. } in &plays {
        let expect = if enforced && denied.is_some() { Cause::NftDrop } else { Cause::None };
        lab.play(Traffic { expect, ..traffic.clone() }).unwrap();
    }
    lab.wait_traffic();
    let entries = lab.ledger().split_off(before);
    let of = |play: &Play| entries.iter().filter(|e| e.traffic == play.traffic.name).cloned().collect();
    plays.into_iter().map(|play| (play.clone(), of(&play))).collect()
}

/// Whether a flow goes this connection's way; of a service, to it or to one of its backends.
fn is_of(flow: &Flow, entry: &Entry, play: &Play, lab: &Lab) -> bool {
    let Some((protocol, source, destination)) = ends(flow) else { return false };
    let to: Vec<IpAddr> = match &play.traffic.to {
        Party::Service(namespace, name) => {
            let mut services = lab.scenario().services.iter();
            let service = services.find(|service| service.namespace == *namespace && service.name == *name);
            lab.scenario().backends(service.unwrap()).iter().flat_map(|pod| pod.ips.clone()).collect()
        }
        _ => Vec::new(),
    };
    // For pings the ledger has the identifier as the port, and a flow none.
    let port = if [1, 58].contains(&protocol) { 0 } else { entry.source.port() };
    protocol == entry.protocol
        && source == SocketAddr::new(entry.source.ip(), port)
        && (destination == entry.called || to.contains(&destination.ip()))
}

fn is_verdict(flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| event.r#type == 5)
}

/// What was told of one connection: verdicts and drops, by side.
fn told<'a>(flows: &'a [Flow], entry: &Entry, play: &Play, lab: &Lab) -> Vec<&'a Flow> {
    flows.iter().filter(|flow| is_of(flow, entry, play, lab)).collect()
}

/// Checks a set's plays; returns how many connections there were.
fn check(daemon: &Daemon, lab: &Lab, mode: Mode, performed: &[(Play, Vec<Entry>)]) -> usize {
    let sums = Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(sums.lost(), 0);
    let flows = daemon.flows();
    let mut count = 0;
    for (play, entries) in performed {
        assert_eq!(entries.len(), 2, "one over each family: {play:?}");
        for entry in entries {
            count += 1;
            let denied = play.denied.filter(|_| mode == Mode::Enforce);
            let what = format!("{mode:?} {} {:?} {}:{}", entry.from, entry.kind, entry.to, entry.called);
            // No allowed packet dropped, no forbidden one delivered.
            if denied.is_some() {
                // A socket of the node itself may be told at once.
                let is_stopped = entry.outcome != Outcome::Ok && entry.served.is_none();
                assert!(is_stopped, "{what}: {entry:?}");
            } else {
                assert!(entry.as_expected(), "{what}: {entry:?}");
            }
            let told = told(&flows, entry, play, lab);
            let verdicts = told.iter().filter(|flow| is_verdict(flow));
            let mut by_side: BTreeMap<TrafficDirection, Vec<Verdict>> = BTreeMap::new();
            for flow in verdicts {
                by_side.entry(flow.traffic_direction()).or_default().push(flow.verdict());
            }
            let drops: Vec<&&Flow> =
                told.iter().filter(|flow| !is_verdict(flow) && flow.verdict() == Verdict::Dropped).collect();
            match (mode, play.denied) {
                (Mode::Never, _) => assert!(by_side.is_empty() && drops.is_empty(), "{what}: {told:?}"),
                (Mode::Audit, denied) => {
                    // What one side denies, the other may deny as well; where it is enforced nobody asks.
                    let all: Vec<Verdict> = by_side.values().flatten().copied().collect();
                    // What goes through the proxy passes, too.
                    let passes =
                        |verdict: &Verdict| matches!(verdict, Verdict::Forwarded | Verdict::Redirected);
                    match denied {
                        None => assert!(all.iter().all(passes), "{what}: {told:?}"),
                        Some(side) => {
                            assert_eq!(by_side.get(&side), Some(&vec![Verdict::Audit]), "{what}: {told:?}");
                        }
                    }
                    assert!(drops.is_empty(), "{what}: {drops:?}");
                }
                (Mode::Enforce, None) => {
                    let mut all = by_side.values().flatten();
                    // The set whose rules are for some requests: the proxy has those connections.
                    let may_be_read = play.set == "payments" && entry.kind == Kind::Http;
                    let is_allowed = |verdict: &Verdict| {
                        *verdict == Verdict::Forwarded || may_be_read && *verdict == Verdict::Redirected
                    };
                    assert!(all.all(is_allowed), "{what}: {told:?}");
                    assert!(drops.is_empty(), "{what}: {drops:?}");
                }
                (Mode::Enforce, Some(side)) => {
                    assert_eq!(by_side.get(&side), Some(&vec![Verdict::Dropped]), "{what}: {told:?}");
                    let first = drops.first().unwrap_or_else(|| panic!("{what}: no drop: {told:?}"));
                    assert_eq!(first.drop_reason_desc(), DropReason::PolicyDenied, "{what}");
                    assert_eq!(first.traffic_direction(), side, "{what}");
                    let sides = [&first.egress_denied_by, &first.ingress_denied_by];
                    let names = sides[usize::from(side == TrafficDirection::Ingress)];
                    assert!(!names.is_empty(), "{what}: {first:?}");
                    // By nobody else, and nothing of it as forwarded.
                    assert!(
                        told.iter().all(|flow| flow.verdict() == Verdict::Dropped
                            || is_verdict(flow) && flow.traffic_direction() != side
                            || flow.is_reply == Some(true)),
                        "{what}: {told:?}"
                    );
                }
            }
        }
    }
    count
}

fn set_path(set: &str) -> PathBuf {
    testdata(&if set == "host" { "plays/host.yaml".to_owned() } else { format!("sets/{set}") })
}

fn play_all(test: &str, wiring: Wiring) {
    if !can_run(test) {
        return;
    }
    let mut lab = Lab::up(&lab_of(wiring), &unique_prefix("plays")).unwrap();
    for mode in [Mode::Never, Mode::Audit, Mode::Enforce] {
        for set in SETS {
            let path = set_path(set);
            let mut flags = vec!["--policy", path.to_str().unwrap()];
            flags.extend(mode.flags());
            let state = tempfile::tempdir().unwrap();
            flags.extend(["--state-dir", state.path().to_str().unwrap()]);
            let daemon = Daemon::start(&lab, "n1", &flags);
            let performed = perform(&mut lab, set, mode == Mode::Enforce);
            let count = check(&daemon, &lab, mode, &performed);
            eprintln!("{wiring:?} {mode:?} {set}: {count} connections as they should be");
            // What is enforced outlives it.
            assert!(daemon.stop().0.success());
            let detached = lab.command_in("n1", OBSERVER).arg("detach").output().unwrap();
            assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
        }
    }
}

#[test]
fn plays_routed() {
    play_all("plays_routed", Wiring::Routed);
}

#[test]
fn plays_bridged() {
    play_all("plays_bridged", Wiring::Bridged);
}

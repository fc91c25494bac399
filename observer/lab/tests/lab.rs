//! The lab itself, for real: network namespaces, so it needs root.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping, their helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use observer_lab::scenario::{Scenario, Wiring};
use observer_lab::{Cause, Entry, Inventory, Kind, Lab, netns, state, unique_prefix};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// True where the test can run; else it says why not, or fails where skips are forbidden.
fn can_run() -> bool {
    if geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI_NO_SKIP").is_none(), "not root, and CI_NO_SKIP is set");
    println!("SKIP: not root: network namespaces can't be made");
    false
}

fn scenario(name: &str) -> (Scenario, PathBuf) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab").join(name);
    (Scenario::load(&path).unwrap(), path)
}

/// What is left of a prefix: namespaces and the state file.
fn left(prefix: &str) -> Vec<String> {
    let start = format!("{prefix}-");
    let namespaces = std::fs::read_dir(netns::NETNS_DIR).into_iter().flatten().flatten();
    let mut names: Vec<_> = namespaces
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&start))
        .collect();
    names.extend(Path::new(state::STATE_DIR).join(prefix).exists().then(|| "the state file".to_owned()));
    names
}

fn player() -> Command {
    Command::new(env!("CARGO_BIN_EXE_observer-lab"))
}

/// A player process whose lab is up.
fn start_player(path: &Path, prefix: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child =
        player().arg("up").arg(path).args(["--prefix", prefix]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The first line is printed when all is built.
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("lab "), "{line}");
    (child, output)
}

fn assert_as_expected(entries: &[Entry]) {
    let odd: Vec<_> = entries.iter().filter(|entry| !entry.as_expected()).collect();
    assert!(odd.is_empty(), "{} of {}, such as {:#?}", odd.len(), entries.len(), odd[0]);
}

#[test]
fn every_scenario_file_is_valid_and_every_lab_leaves_nothing() {
    if !can_run() {
        return;
    }
    for name in ["demo.toml", "routed.toml", "bridged.toml", "drops.toml", "flood.toml", "two-nodes.toml"] {
        let (scenario, _) = scenario(name);
        let prefix = unique_prefix("lab-updown");
        let lab = Lab::up(&scenario, &prefix).unwrap();
        assert!(lab.namespaces().iter().all(|name| netns::path(name).exists()), "{name}");
        assert!(lab.inventory().to_text().unwrap().contains(&scenario.pods[0].uid()), "{name}");
        lab.down().unwrap();
        assert_eq!(left(&prefix), [""; 0], "{name}");
    }
}

#[test]
fn a_killed_players_lab_is_cleaned_and_a_living_ones_is_not() {
    if !can_run() {
        return;
    }
    let (scenario, path) = scenario("drops.toml");
    let living = Lab::up(&scenario, &unique_prefix("lab-living")).unwrap();
    let prefix = unique_prefix("lab-killed");
    let (mut child, _output) = start_player(&path, &prefix);
    // What a test had started inside is left behind too.
    let inside = netns::path(&format!("{prefix}-n1"));
    let mut orphan =
        netns::command_in(&inside, "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(orphan.stdin.as_mut().unwrap(), b"x").unwrap();
    // cat has answered, so nsenter has done its part.
    orphan.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(left(&prefix).len() > 3);

    let cleaned = player().args(["clean", &prefix]).output().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(left(&prefix), [""; 0]);
    assert!(!orphan.wait().unwrap().success(), "the process inside was ended by a signal");

    let (mut child, _output) = start_player(&path, &prefix);
    child.kill().unwrap();
    child.wait().unwrap();
    // Any lab that comes up removes what dead players left.
    Lab::up(&scenario, &unique_prefix("lab-next")).unwrap().down().unwrap();
    assert_eq!(left(&prefix), [""; 0]);
    assert!(living.namespaces().iter().all(|name| netns::path(name).exists()));
}

#[test]
fn sigterm_takes_the_lab_down_and_a_second_player_is_refused() {
    if !can_run() {
        return;
    }
    let (_, path) = scenario("demo.toml");
    let prefix = unique_prefix("lab-term");
    let (mut child, mut output) = start_player(&path, &prefix);
    let second = player().arg("up").arg(&path).args(["--prefix", &prefix]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("already up"), "{text}");

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(left(&prefix), [""; 0]);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("connections"), "{rest}");
}

#[test]
fn bad_scenarios_are_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "name = \"x\"\ncolour = 1\n").unwrap();
    let refused = player().arg("up").arg(&path).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("bad.toml:2: unknown field `colour`"), "{text}");
}

#[test]
fn every_drop_cause_drops() {
    if !can_run() {
        return;
    }
    let (scenario, _) = scenario("drops.toml");
    let mut lab = Lab::up(&scenario, &unique_prefix("lab-drops")).unwrap();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    assert_as_expected(&entries);
    let seen: BTreeSet<_> = entries.iter().map(|entry| (entry.expected, entry.called.is_ipv4())).collect();
    assert_eq!(seen.len(), 2 * 9, "eight causes and none, both families: {seen:?}");
    for entry in entries.iter().filter(|entry| entry.expected != Cause::None) {
        assert_eq!((entry.bytes_received, entry.expected_reasons.is_empty()), (0, false), "{entry:?}");
    }
    // The node's own counters: what was dropped was dropped for this cause.
    let output =
        lab.command_in("n1", "cat").args(["/proc/self/net/snmp", "/proc/self/net/netstat"]).output().unwrap();
    let counters = snmp(&String::from_utf8(output.stdout).unwrap());
    for (counter, least) in [("Ip:InHdrErrors", 3), ("Ip:FragFails", 2), ("IpExt:InNoRoutes", 3)] {
        assert!(counters[counter] >= least, "{counter} = {}", counters[counter]);
    }
    lab.down().unwrap();
}

/// /proc/net/snmp: a line of names, a line of values.
fn snmp(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs =
        lines.chunks(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')).map(move |p| (pair, p)));
    pairs
        .filter_map(|(pair, (name, value))| {
            Some((format!("{}{name}", pair[0].split(' ').next()?), value.parse().ok()?))
        })
        .collect()
}

#[test]
fn traffic_arrives_as_the_ledger_says_routed() {
    traffic_arrives("routed.toml", Wiring::Routed);
}

#[test]
fn traffic_arrives_as_the_ledger_says_bridged() {
    traffic_arrives("bridged.toml", Wiring::Bridged);
}

fn traffic_arrives(name: &str, wiring: Wiring) {
    if !can_run() {
        return;
    }
    let (scenario, _) = scenario(name);
    assert_eq!(scenario.nodes[0].wiring, wiring);
    let mut lab = Lab::up(&scenario, &unique_prefix("lab-traffic")).unwrap();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    let planned: u64 = scenario.traffic.iter().filter_map(|traffic| traffic.count).sum();
    assert_eq!((entries.len() as u64, lab.ledger_left_out()), (planned, 0));
    assert!(planned >= 2000);
    assert_as_expected(&entries);

    let tuples: BTreeSet<_> =
        entries.iter().map(|entry| (entry.protocol, entry.source, entry.called)).collect();
    assert_eq!(tuples.len(), entries.len(), "no tuple is used twice");
    let mut backends = BTreeMap::<(&str, bool), BTreeSet<&str>>::new();
    let mut hairpins = 0;
    for entry in entries.iter().filter(|entry| entry.kind != Kind::Ping) {
        let served = entry.served.as_ref().unwrap();
        assert_eq!(
            (served.bytes_received, served.bytes_sent),
            (entry.bytes_sent, entry.bytes_received),
            "{entry:?}"
        );
        if entry.to == "service/shop/api" {
            backends.entry((&entry.traffic, entry.called.is_ipv4())).or_default().insert(&served.by);
        }
        // Translated sources: a pod that met itself, and what went outside. No others.
        let hairpin = served.by == entry.from;
        hairpins += u32::from(hairpin);
        let translated = hairpin || (entry.to.starts_with("external/") && entry.from.starts_with("pod/"));
        assert_eq!(served.peer.ip() != entry.source.ip(), translated, "{entry:?}");
    }
    assert!(hairpins > 0);
    assert_eq!(backends.len(), 4 * 2);
    assert!(backends.values().all(|by| by.len() == 2), "{backends:?}");
    lab.down().unwrap();
}

#[test]
fn pods_of_two_nodes_reach_each_other() {
    if !can_run() {
        return;
    }
    let (scenario, _) = scenario("two-nodes.toml");
    let mut lab = Lab::up(&scenario, &unique_prefix("lab-nodes")).unwrap();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    assert_as_expected(&entries);
    for entry in entries.iter().filter(|entry| entry.from.starts_with("pod/")) {
        let served = entry.served.as_ref().unwrap();
        assert_eq!(served.peer.ip(), entry.source.ip(), "not masqueraded between nodes");
    }
    lab.down().unwrap();
}

#[test]
fn link_counters_are_the_ledgers_packets() {
    if !can_run() {
        return;
    }
    let (scenario, _) = scenario("routed.toml");
    let mut lab = Lab::up(&scenario, &unique_prefix("lab-links")).unwrap();
    let client = scenario.pod("web", "client-b").unwrap();
    // Both ends of a new link report the multicast groups they are in, up to a second after it came up.
    for netns in [lab.node_netns("n1"), lab.pod_netns(client)] {
        let quiet = "add table ip6 quiet; add chain ip6 quiet out { type filter hook output priority 0; }; \
                     add rule ip6 quiet out icmpv6 type mld2-listener-report drop";
        let net = format!("--net={}", netns.display());
        assert!(Command::new("nsenter").args([&net, "nft", quiet]).status().unwrap().success());
    }
    // One that was sent before the count, so that no first-time packet of IPv6 is in it.
    lab.start_traffic_where(|traffic| traffic.name == "ping").unwrap();
    lab.wait_traffic();
    let before = lab.link_counters("n1").unwrap();
    let known = lab.ledger().len();
    lab.start_traffic_where(|traffic| ["direct-udp", "ping"].contains(&traffic.name.as_str())).unwrap();
    lab.wait_traffic();
    let after = lab.link_counters("n1").unwrap();
    let link = lab.pod_link(client);
    let entries = lab.ledger();
    let sent: u64 = entries[known..].iter().map(|entry| entry.sent).sum();
    let received: u64 = entries[known..].iter().map(|entry| entry.received).sum();
    let rx = after[&link].rx_packets - before[&link].rx_packets;
    let tx = after[&link].tx_packets - before[&link].tx_packets;
    assert_eq!((rx, tx), (sent, received));
    lab.down().unwrap();
}

#[test]
fn a_flood_is_sent_in_full_beside_single_drops() {
    if !can_run() {
        return;
    }
    let (scenario, _) = scenario("flood.toml");
    let mut lab = Lab::up(&scenario, &unique_prefix("lab-flood")).unwrap();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    assert_as_expected(&entries);
    let flood = entries.iter().find(|entry| entry.kind == Kind::Flood).unwrap();
    assert_eq!(flood.sent, 200_000);
    let served = flood.served.as_ref().unwrap();
    assert!(served.received > 0 && served.received <= flood.sent, "{served:?}");
    assert_eq!(entries.iter().filter(|entry| entry.expected == Cause::NftDrop).count(), 4);
    lab.down().unwrap();
}

/// `UPDATE_GOLDENS=1` writes it anew.
#[test]
fn the_demos_inventory_is_beside_the_policies() {
    let (scenario, path) = scenario("demo.toml");
    let kept = path.parent().unwrap().join("../policy/inventory.json");
    let text = Inventory::of(&scenario).to_text().unwrap();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&kept, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&kept).unwrap() == text,
        "testdata/policy/inventory.json is of another demo"
    );
}

//! What must hold on every kernel: the same flows and drops from the same traffic, three capabilities and no more, nothing
//! left on the links. `scripts/test-kernels` runs this in Debian's older kernels too.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

#[path = "dns_policy/resolver.rs"]
mod resolver;
mod support;

use aya::programs::{SchedClassifier, TcAttachType};
use observer::capture::{Capture, CaptureConfig, PolicyTables};
use observer_ebpf::{
    l7,
    policy::{CutLine, PolicyRow, PolicyRowKey, slot},
};
use observer_lab::{Cause, Entry, Kind, Lab, Namespaces, netns, unique_prefix};
use observer_proto::{
    control::{CaptureStatusResponse, hook::State},
    flow::{Flow, TraceReason, Verdict},
};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};
use support::{Daemon, Ends, OBSERVER, can_run, ends, extensions, is_late_segment, name, scenario};

const CONNECTS: usize = 1_000;
const DROPS: usize = 100;

/// `nobody`, who owns nothing.
const NOBODY: u32 = 65_534;
/// All that the daemon needs.
const CAPABILITIES: [&str; 3] = ["bpf", "perfmon", "net_admin"];

/// The running kernel's name and its version.
fn kernel() -> (String, (u32, u32)) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    (release, version)
}

fn lab(test: &str) -> Lab {
    Lab::up(&scenario("kernels.toml"), &unique_prefix(test)).unwrap()
}

#[test]
fn connects_and_drops_are_the_ledgers() {
    if !can_run("kernels") {
        return;
    }
    let (release, version) = kernel();
    let mut lab = lab("kernels");
    let daemon = Daemon::start(&lab, "n1", &["--l7", "all"]);
    check_hooks(&daemon.capture_status(), version);
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    let odd: Vec<_> = entries.iter().filter(|entry| !entry.as_expected()).take(3).collect();
    assert!(odd.is_empty(), "the lab itself is not as expected: {odd:?}");
    let (dropped, answered): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.expected != Cause::None);
    assert_eq!((answered.len(), dropped.len()), (CONNECTS, DROPS));
    let requests = answered.iter().filter(|entry| entry.kind == Kind::Http).count();
    assert!(requests > 100);

    let mut wanted = BTreeSet::new();
    for entry in &entries {
        wanted.extend(told_of(entry));
    }
    let flows = daemon.flows_until(|flows| {
        let told: BTreeSet<Told> = flows.iter().filter_map(told).collect();
        let said = flows.iter().filter(|flow| flow.l7.is_some()).count();
        if said < 2 * requests {
            return Some(format!("{said} of {requests} requests and their responses"));
        }
        let missing: Vec<_> = wanted.difference(&told).collect();
        missing.first().map(|first| format!("{} of {}, as {first:?}", missing.len(), wanted.len()))
    });
    assert_eq!(flows.iter().filter(|flow| flow.l7.is_some()).count(), 2 * requests);
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(sums.lost(), 0, "{sums:?}");

    let mut packets: BTreeMap<Ends, u64> = BTreeMap::new();
    let (mut extra, mut untranslated): (BTreeMap<String, usize>, usize) = Default::default();
    for flow in &flows {
        let Some(told) = told(flow) else { continue };
        let is_late = is_late_segment(flow) && is_of_any(&told, &answered);
        if is_answer_of_the_kernel(&told, &dropped) || is_late {
            continue;
        }
        if !wanted.contains(&told) {
            // The service's own address: conntrack's word came later than the daemon waits for it.
            let late =
                entries.iter().any(|entry| entry.called == told.ends.2 && entry.to.starts_with("service/"));
            let what = format!("{} to {}: {}", flow.verdict().as_str_name(), told.destination, summary(flow));
            *if late { &mut untranslated } else { extra.entry(what).or_default() } += 1;
            continue;
        }
        let new = flow.trace_reason == TraceReason::New as i32;
        if told.verdict == Verdict::Dropped as i32 {
            *packets.entry(told.ends).or_default() += extensions(flow)["packets"].parse::<u64>().unwrap();
            let reason = &extensions(flow)["kernel_drop_reason"];
            let entry = dropped.iter().find(|entry| of(entry) == told.ends).unwrap();
            let known = version >= (5, 17);
            let right = if known { entry.expected_reasons.contains(reason) } else { reason == UNKNOWN };
            assert!(right, "{reason} is not {:?}: {flow:?}", entry.expected_reasons);
        } else if new && !told.reply {
            *packets.entry(told.ends).or_default() += 1;
        }
    }
    assert!(extra.is_empty(), "flows of nothing that was sent: {extra:#?}");
    for entry in &entries {
        let sent = if entry.expected == Cause::None { 1..=1 } else { entry.unanswered_packets() };
        let told = packets.get(&of(entry));
        assert!(told.is_some_and(|packets| sent.contains(packets)), "told once: {told:?} of {entry:?}");
    }
    println!(
        "kernel {release}: {} connects, {} drops, {} flows: same, {untranslated} by a service's own address too",
        answered.len(),
        dropped.len(),
        wanted.len()
    );
}

/// What stands for a reason on a kernel that has none.
const UNKNOWN: &str = "unknown on this kernel";

/// A flow without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    ends: Ends,
    verdict: i32,
    reply: bool,
    source: String,
    destination: String,
}

fn told(flow: &Flow) -> Option<Told> {
    let (ends, ip) = (ends(flow)?, flow.ip.as_ref()?);
    // Neighbour discovery, multicast listeners, and what is about a packet that is told itself: ICMP errors, and what is inside.
    if flow.l7.is_some() || ends.0 == 58 || flow.trace_reason == TraceReason::Related as i32 {
        return None;
    }
    Some(Told {
        ends,
        verdict: flow.verdict,
        reply: flow.is_reply.unwrap_or_default(),
        source: name(flow.source.as_ref(), &ip.source),
        destination: name(flow.destination.as_ref(), &ip.destination),
    })
}

#[expect(deprecated, reason = "deprecated by Hubble, and still what its clients show")]
fn summary(flow: &Flow) -> &str {
    &flow.summary
}

/// The ends of what the opener sent, as the last of the node's hooks sees them.
fn of(entry: &Entry) -> Ends {
    let server = entry.served.as_ref().map_or(entry.called, |served| served.local);
    (entry.protocol, entry.source, server)
}

/// What must be told of a connection: each way once answered, else the dropped packet, which a pod's link saw leave
/// before.
fn told_of(entry: &Entry) -> Vec<Told> {
    let party = |text: &str, ip: std::net::IpAddr| {
        text.strip_prefix("pod/").map_or_else(|| ip.to_string(), ToOwned::to_owned)
    };
    let (protocol, client, server) = of(entry);
    let served_by = entry.served.as_ref().map_or(entry.to.as_str(), |served| served.by.as_str());
    let (source, destination) = (party(&entry.from, client.ip()), party(served_by, server.ip()));
    let request = Told {
        ends: (protocol, client, server),
        verdict: Verdict::Forwarded as i32,
        reply: false,
        source: source.clone(),
        destination: destination.clone(),
    };
    let reply = Told {
        ends: (protocol, server, client),
        reply: true,
        source: destination,
        destination: source,
        ..request.clone()
    };
    match entry.expected {
        Cause::None => vec![request, reply],
        _ => vec![Told { verdict: Verdict::Dropped as i32, ..request }],
    }
}

/// A RST for a dropped SYN; and the packet itself, where it was seen on a link before it was dropped.
fn is_answer_of_the_kernel(told: &Told, dropped: &[&Entry]) -> bool {
    let (protocol, source, destination) = told.ends;
    let back = (protocol, destination, source);
    told.verdict == Verdict::Forwarded as i32
        && dropped.iter().any(|entry| of(entry) == back || of(entry) == told.ends)
}

/// Whether it is of one of these connections, either way.
fn is_of_any(told: &Told, answered: &[&Entry]) -> bool {
    let (protocol, source, destination) = told.ends;
    let back = (protocol, destination, source);
    answered.iter().any(|entry| of(entry) == told.ends || of(entry) == back)
}

/// Each hook is there, by the means that this kernel has.
fn check_hooks(status: &CaptureStatusResponse, version: (u32, u32)) {
    for hook in &status.hooks {
        println!("  hook {}: {}", hook.name, hook.reason);
        assert_eq!(hook.state, State::Attached as i32, "{hook:?}");
    }
    let note = |name: &str| status.hooks.iter().find(|hook| hook.name == name).unwrap().reason.as_str();
    for flows in ["observer_ingress", "observer_egress"] {
        assert_eq!(note(flows).contains("by clsact"), version < (6, 6), "{}", note(flows));
    }
    assert_eq!(note("kfree_skb").contains("reason unknown on this kernel"), version < (5, 17));
}

#[test]
fn three_capabilities_are_enough_and_a_missing_one_is_named() {
    if !can_run("capabilities") {
        return;
    }
    let mut lab = lab("caps");
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::spawn(as_nobody(&lab, dir.path(), &CAPABILITIES), dir);
    for hook in daemon.capture_status().hooks {
        assert_eq!(hook.state, State::Attached as i32, "{hook:?}");
    }
    for link in daemon.capture_status().links {
        assert_eq!(link.problem, "", "{link:?}");
    }
    lab.start_traffic_where(|traffic| traffic.name == "outside" || traffic.name == "nft-drop").unwrap();
    lab.wait_traffic();
    let wanted: BTreeSet<Told> = lab.ledger().iter().flat_map(told_of).collect();
    daemon.flows_until(|flows| {
        let told: BTreeSet<Told> = flows.iter().filter_map(told).collect();
        wanted.difference(&told).next().map(|missing| format!("{missing:?}"))
    });
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(ours(&lab), 0, "it took its programs off");

    for missing in CAPABILITIES {
        let dir = tempfile::tempdir().unwrap();
        let others: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != missing).collect();
        let output = as_nobody(&lab, dir.path(), &others).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let line = error.lines().last().unwrap_or_default();
        let named = format!("CAP_{} is missing", missing.to_uppercase());
        assert!(line.contains(&named) && !error.contains("panicked"), "without {missing}: {error}");
        assert_eq!(output.status.code(), Some(1), "{error}");
        println!("  without {missing}: {line}");
    }
}

#[test]
fn the_programs_that_judge_are_taken() {
    if !can_run("judge") {
        return;
    }
    let name = unique_prefix("judge");
    let _namespaces = Namespaces::make(&name, &[&name]).unwrap();
    netns::inside(&name, || {
        let mut loaded =
            Capture::load(&CaptureConfig { judge: true, l7: l7::DNS | l7::HTTP, ..CaptureConfig::default() })
                .unwrap();
        let maps = loaded.policy_maps();
        let capture = loaded.attach().unwrap();
        for hook in capture.status().status().hooks {
            println!("  hook {}: {}", hook.name, hook.note);
            assert_eq!(hook.error, None, "{}", hook.name);
        }
        let mut maps = maps.unwrap();
        let before = maps.generation();
        // A larger map takes the place of one that is too small.
        let mut tables = PolicyTables { cuts: vec![CutLine::default(); 20_000], ..PolicyTables::default() };
        for number in 0..20_000_u32 {
            let row = PolicyRow { begin: number, len: 1 };
            tables.rows.insert(PolicyRowKey { table: 1, peer: number }, row);
        }
        maps.write(slot(before) ^ 1, &tables).unwrap();
        assert_eq!(maps.flip().unwrap(), before + 1);
        maps.wait_for_programs().unwrap();
        Ok(())
    })
    .unwrap();
}

/// The daemon in a lab's node as `nobody`, with these capabilities and no others.
fn as_nobody(lab: &Lab, dir: &Path, capabilities: &[&str]) -> Command {
    // Before 5.11 maps count against it; a newer kernel may refuse, and needs it not.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    // Where the program was built may be closed to others.
    let program = dir.join("observer");
    std::fs::copy(OBSERVER, &program).unwrap();
    let inventory = dir.join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let capabilities: Vec<String> = capabilities.iter().map(|name| format!("+{name}")).collect();
    let capabilities = capabilities.join(",");
    let mut command = lab.command_in("n1", "setpriv");
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()])
        .args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all,{capabilities}")))
        .arg(program)
        .arg("--inventory")
        .arg(inventory)
        .args(["--node-name", "n1"]);
    command
}

/// Our programs on the links of the node, put there in either way.
fn ours(lab: &Lab) -> usize {
    let tcx = |link: &str, hook| SchedClassifier::query_tcx(link, hook).map_or(0, |(_, all)| all.len());
    let both = |link: &str| tcx(link, TcAttachType::Ingress) + tcx(link, TcAttachType::Egress);
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let tcx: usize = netns::inside(&node, || Ok(links(lab).iter().map(|link| both(link)).sum())).unwrap();
    let clsact = |link: &String, hook: &str| {
        tc(lab, &["filter", "show", "dev", link, hook]).matches(" handle 0x6f62").count()
    };
    let clsact =
        links(lab).iter().map(|link| clsact(link, "ingress") + clsact(link, "egress")).sum::<usize>();
    tcx + clsact
}

fn links(lab: &Lab) -> Vec<String> {
    lab.scenario().pods.iter().map(|pod| lab.pod_link(pod)).chain(["eth0".to_owned()]).collect()
}

fn tc(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.command_in("n1", "tc").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_of_it_is_left_on_the_links() {
    if !can_run("left") {
        return;
    }
    let lab = lab("left");
    let all = links(&lab).len() * 2;
    let daemon = Daemon::start(&lab, "n1", &[]);
    assert_eq!(ours(&lab), all, "one on each hook of each link");
    // A program of somebody else, who comes later and stays longer.
    let veth = links(&lab)[0].clone();
    // It is there already where the daemon made it.
    tc(&lab, &["qdisc", "add", "dev", &veth, "clsact"]);
    let stranger =
        ["filter", "add", "dev", &veth, "ingress", "protocol", "ip", "prio", "7", "bpf", "bytecode"];
    tc(&lab, &[&stranger[..], &["1,6 0 0 0,"]].concat());
    let strangers = || tc(&lab, &["filter", "show", "dev", &veth, "ingress"]).matches("pref 7 bpf").count();
    assert!(strangers() > 0);

    let (_, _, dir) = daemon.end(Signal::KILL);
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "n1", "--inventory"]).arg(dir.path().join("inventory.yaml"));
    let daemon = Daemon::spawn(command, dir);
    assert_eq!(ours(&lab), all, "what the killed one left is replaced");
    assert!(strangers() > 0);
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(ours(&lab), 0);
    assert!(strangers() > 0);
    for link in links(&lab) {
        let kept = tc(&lab, &["qdisc", "show", "dev", &link]).contains("clsact");
        assert_eq!(kept, link == veth, "{link}: only what is used by another stays");
    }
}

const NAMES: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: web}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: api, "k8s:io.kubernetes.pod.namespace": shop}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchName: good.example}]}
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{path: /good}]}
"#;

#[test]
fn requests_go_through_the_proxy() {
    if !can_run("proxy") {
        return;
    }
    let lab = lab("proxy");
    let pod = |name: &str| {
        let pod = lab.scenario().pods.iter().find(|pod| pod.name == name).unwrap();
        lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned()
    };
    let any = (Ipv6Addr::UNSPECIFIED, 53);
    let bind = || Ok((UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap()));
    let (udp, tcp) = netns::inside(&pod("api-0"), bind).unwrap();
    let asked = Arc::<Mutex<Vec<resolver::Asked>>>::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || resolver::serve_udp(&udp, &log));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || resolver::serve_tcp(&tcp, &log));
    let policies = tempfile::tempdir().unwrap();
    std::fs::write(policies.path().join("names.yaml"), NAMES).unwrap();
    let folder = policies.path().to_str().unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", folder, "--policy-mode", "enforce"]);
    // Before, nothing that is enforced could stay on, so all is in mode audit.
    let is_enforced = kernel().1 >= (6, 6);
    let (refused, reached, status) = if is_enforced { (5, 0, " 403 ") } else { (0, 1, " 404 ") };
    let client = pod("client");
    for ip in ["10.244.1.20", "fd00:10:244:1::14"] {
        let at = |port| SocketAddr::new(ip.parse().unwrap(), port);
        for ask in [resolver::ask_udp, resolver::ask_tcp] {
            let ask = |name| netns::inside(&client, || Ok(ask(at(53), name, false).0)).unwrap();
            assert_eq!(ask("good.example"), 0, "{ip}");
            assert_eq!(std::mem::take(&mut *asked.lock().unwrap()).len(), 1, "{ip}");
            assert_eq!(ask("evil.example"), refused, "{ip}");
            assert_eq!(std::mem::take(&mut *asked.lock().unwrap()).len(), reached, "{ip}");
        }
        let answer = netns::inside(&client, || {
            let mut stream = TcpStream::connect(at(8080)).unwrap();
            stream.write_all(b"GET /evil HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            Ok(answer)
        });
        let answer = answer.unwrap();
        assert!(answer.lines().next().unwrap().contains(status), "{ip}: {answer}");
    }
    let verdict = if is_enforced { Verdict::Dropped } else { Verdict::Audit };
    daemon.flows_until(|flows| {
        let told = flows.iter().filter(|flow| flow.l7.is_some() && flow.verdict() == verdict).count();
        (told < 6).then(|| format!("{told} of 6 requests {verdict:?}"))
    });
    println!("  requests are judged in mode {}", if is_enforced { "enforce" } else { "audit" });
}

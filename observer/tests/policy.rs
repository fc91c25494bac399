//! Policies judge the lab's connections: each side once, with the names of its policies, live and from a recording; files
//! that change are followed.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, Outcome, unique_prefix};
use observer_proto::{
    control::{hook::State, policy::Mode},
    flow::{DropReason, Endpoint, Flow, Policy, TrafficDirection, Verdict, layer4::Protocol},
    text::{Options, Wide},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use support::{Daemon, OBSERVER, PATIENCE, Sums, can_run, scenario};
use tempfile::TempDir;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

const TENANT_A: &str = "tenant-a, tenants-default-deny, tenants-dns";
const TENANT_B: &str = "tenant-b, tenants-default-deny, tenants-dns";

/// What the sets `tenants` and `payments` say of the demo's traffic, and how often where each kind is played once. What
/// others drop on its way to a pod has its sender's side alone.
const EXPECTED: &[(&str, u64)] = &[
    ("web/frontend-app -> payments/payments-api:8080 ingress FORWARDED by payments-api", 2),
    ("ops/finance-tool -> payments/payments-api:8080 ingress FORWARDED by payments-api", 1),
    ("host -> payments/payments-api:8080 ingress FORWARDED by ", 1),
    ("payments/payments-api -> kube-system/coredns:53 egress FORWARDED by payments-dns", 1),
    ("payments/payments-api -> data/analytics-service:7000 egress FORWARDED by payments-api", 1),
    ("payments/payments-api -> world:8080 egress FORWARDED by payments-api", 1),
    ("tenant-a/tenant-a-client -> tenant-a/tenant-a-server:8080 egress FORWARDED by tenant-a", 1),
    ("tenant-a/tenant-a-client -> tenant-a/tenant-a-server:8080 ingress FORWARDED by tenant-a", 1),
    ("tenant-b/tenant-b-client -> tenant-b/tenant-b-server:8080 egress FORWARDED by tenant-b", 1),
    ("tenant-b/tenant-b-client -> tenant-b/tenant-b-server:8080 ingress FORWARDED by tenant-b", 1),
    ("tenant-a/tenant-a-client -> tenant-b/tenant-b-server:7000 egress AUDIT by {A}", 1),
    ("tenant-a/tenant-a-client -> world:7000 egress AUDIT by {A}", 1),
    ("tenant-b/tenant-b-client -> world:5432 egress AUDIT by {B}", 1),
    ("payments/payments-api -> world:7000 egress AUDIT by payments-dns, payments-api", 1),
];

/// Of a pod that calls a service it stands behind itself: where it reaches the other one.
const HAIRPIN: &[&str] = &[
    "payments/payments-api -> payments/payments-api:8080 egress FORWARDED by payments-api",
    "payments/payments-api -> payments/payments-api:8080 ingress FORWARDED by payments-api",
];

fn expected() -> BTreeMap<String, u64> {
    let named = |line: &str| line.replace("{A}", TENANT_A).replace("{B}", TENANT_B);
    EXPECTED.iter().map(|(line, count)| (named(line), *count)).collect()
}

/// The workload, else the reserved name.
fn who(end: Option<&Endpoint>) -> String {
    let end = end.unwrap();
    match end.workloads.first() {
        Some(workload) => format!("{}/{}", end.namespace, workload.name),
        None => end.labels.iter().find_map(|label| label.strip_prefix("reserved:")).unwrap_or("?").to_owned(),
    }
}

fn is_verdict(flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| event.r#type == 5)
}

/// Policy verdicts of TCP and UDP as lines, with how many there are of each.
fn verdicts(flows: &[Flow]) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    for flow in flows.iter().filter(|flow| is_verdict(flow)) {
        let port = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(Protocol::Tcp(tcp)) => tcp.destination_port,
            Some(Protocol::Udp(udp)) => udp.destination_port,
            _ => continue,
        };
        assert_eq!((flow.is_reply, flow.trace_observation_point, flow.trace_reason), (Some(false), 0, 0));
        let lists = match flow.traffic_direction() {
            TrafficDirection::Egress => [&flow.egress_allowed_by, &flow.egress_denied_by],
            _ => [&flow.ingress_allowed_by, &flow.ingress_denied_by],
        };
        let would_deny = matches!(flow.verdict(), Verdict::Audit | Verdict::Dropped);
        assert!(lists[usize::from(!would_deny)].is_empty(), "{flow:?}");
        assert_eq!(would_deny, flow.policy_match_type == 0, "these sets have no rules that deny: {flow:?}");
        let names =
            |list: &[Policy]| list.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>().join(", ");
        let line = format!(
            "{} -> {}:{port} {} {} by {}",
            who(flow.source.as_ref()),
            who(flow.destination.as_ref()),
            flow.traffic_direction().as_str_name().to_lowercase(),
            flow.verdict().as_str_name(),
            names(lists[usize::from(would_deny)])
        );
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}

/// What the daemon counted of each policy is what its verdicts say.
fn hits_are_those_of_the_verdicts(daemon: &Daemon, flows: &[Flow]) {
    let mut told: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| is_verdict(flow)) {
        let allowed = flow.egress_allowed_by.iter().chain(&flow.ingress_allowed_by);
        allowed.for_each(|policy| told.entry(policy.name.clone()).or_default().0 += 1);
        let denied = flow.egress_denied_by.iter().chain(&flow.ingress_denied_by);
        denied.for_each(|policy| told.entry(policy.name.clone()).or_default().1 += 1);
    }
    let listed = daemon.policies();
    assert_eq!((listed.policies.len(), &*listed.problem), (6, ""), "{listed:?}");
    for policy in listed.policies {
        let hits = policy.hits.unwrap();
        let wanted = told.get(&policy.name).copied().unwrap_or_default();
        assert_eq!((hits.allowed, hits.would_deny, hits.denied), (wanted.0, wanted.1, 0), "{}", policy.name);
        assert_eq!((policy.mode(), &policy.warnings[..]), (Mode::Audit, &[][..]), "{}", policy.name);
        assert!(policy.selected > 0 && !policy.file.is_empty(), "{policy:?}");
    }
}

/// Plays each kind of the demo's traffic once that `wanted` takes.
fn play(lab: &mut Lab, wanted: impl Fn(&str) -> bool) {
    for mut traffic in lab.scenario().traffic.clone() {
        if wanted(&traffic.name) {
            (traffic.count, traffic.interval_ms, traffic.delay_ms) = (Some(1), 0, 0);
            lab.play(traffic).unwrap();
        }
    }
    lab.wait_traffic();
}

const TO_PROMETHEUS: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: monitoring}
spec: {podSelector: {matchLabels: {app: prometheus}}}
";

/// The sets `tenants` and `payments` as one.
fn both_sets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for set in ["tenants", "payments"] {
        for entry in fs::read_dir(testdata("policy/sets").join(set)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{set}-{}", path.file_name().unwrap().to_str().unwrap());
            fs::copy(&path, folder.path().join(name)).unwrap();
        }
    }
    folder
}

/// Plays what [`EXPECTED`] is of, and waits for it; nothing else is told.
fn are_as_expected(lab: &mut Lab, daemon: &Daemon) -> Vec<Flow> {
    play(lab, |name| name != "hairpin");
    let wanted = expected();
    let flows = daemon.flows_until(|flows| {
        let found = verdicts(flows);
        let missing = wanted.iter().find(|(line, count)| found.get(*line).unwrap_or(&0) < count);
        missing.map(|(line, count)| format!("{count} times {line:?} in {found:#?}"))
    });
    assert_eq!(verdicts(&flows), wanted);
    flows
}

/// The daemon's own verdicts are the kernel's, and it says that it can't enforce.
#[test]
fn where_the_kernel_refuses_the_daemon_judges() {
    if !can_run("where_the_kernel_refuses_the_daemon_judges") {
        return;
    }
    let folder = both_sets();
    let mut lab = Lab::up(&scenario("demo.toml"), &unique_prefix("refused")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    let mut command = lab.command_in("n1", OBSERVER);
    command
        .env("OBSERVER_TEST_REFUSE_JUDGING", "1")
        .args(["--node-name", "n1", "--inventory"])
        .arg(inventory);
    command.arg("--policy").arg(folder.path()).args(["--policy-mode", "enforce"]);
    let daemon = Daemon::spawn(command, dir);
    let hooks = daemon.capture_status().hooks;
    let hook = hooks.iter().find(|hook| hook.name == "policy").unwrap();
    assert_eq!(hook.state(), State::Unavailable, "{hook:?}");
    let refused = "the kernel refuses the programs that judge: OBSERVER_TEST_REFUSE_JUDGING is set";
    let line = daemon.log_line("not as they ask");
    assert!(line.contains(&format!("in mode audit and not as they ask, since {refused}")), "{line}");
    for policy in daemon.policies().policies {
        assert_eq!(policy.mode(), Mode::Audit);
        let says = |text: &str| policy.warnings.iter().any(|warning| format!("{warning:?}").contains(text));
        assert!(says("asks for mode enforce") && says(refused), "{policy:?}");
    }
    let flows = are_as_expected(&mut lab, &daemon);
    assert!(!flows.iter().any(|flow| is_verdict(flow) && flow.verdict() == Verdict::Dropped));
    Sums::of(&daemon.settled()).check();
}

#[test]
fn connections_are_judged_and_changed_policies_followed() {
    if !can_run("connections_are_judged_and_changed_policies_followed") {
        return;
    }
    let folder = both_sets();
    let mut lab = Lab::up(&scenario("demo.toml"), &unique_prefix("policy")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", folder.path().to_str().unwrap()]);
    are_as_expected(&mut lab, &daemon);

    // Made by policies, counted apart, and to the unit.
    let sums = Sums::of(&daemon.settled());
    sums.check();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Read one after the other, while the network may say something by itself.
        let (before, seen, after) = (Sums::of(&daemon.settled()), daemon.seen(), Sums::of(&daemon.settled()));
        // And requests, which the proxy has in mode audit too.
        let all = |sums: &Sums| sums.flows + sums.stages["policy"][1] + sums.stages["proxy"][1];
        if all(&before) == seen || all(&after) == seen {
            break;
        }
        assert!(Instant::now() < deadline, "{seen} flows in the store, {before:?}");
    }
    assert_eq!(sums.lost(), 0, "{sums:?}");

    let metrics = "ops/finance-tool -> monitoring/prometheus:9090 ingress AUDIT by nobody";
    let count = |flows: &[Flow]| verdicts(flows).get(metrics).copied().unwrap_or(0);
    let file = folder.path().join("more.yaml");
    let call = |lab: &mut Lab, times: u64| {
        play(lab, |name| name == "metrics");
        let flows = daemon.flows_until(|flows| (count(flows) < times).then(|| metrics.to_owned()));
        assert_eq!(count(&flows), times);
    };
    fs::write(&file, TO_PROMETHEUS).unwrap();
    daemon.log_line("policies reloaded");
    call(&mut lab, 1);
    // Half of it is good, and none of it is taken.
    let bad = format!(
        "{}---\n{}",
        TO_PROMETHEUS.replace("nobody", "other"),
        TO_PROMETHEUS.replace("podSel", "podsel")
    );
    fs::write(&file, bad).unwrap();
    let line = daemon.log_line("the old policies stay in force");
    assert!(line.contains("more.yaml:9:8: spec.podselector: "), "{line}");
    call(&mut lab, 2);
}

/// A daemon that has played the demo's recording, judged by some of the sets, or of their files.
fn replayed(policies: &[&str]) -> Daemon {
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(testdata("events/demo.rec")).args(["--speed", "max"]);
    for path in policies {
        command.arg("--policy").arg(testdata("policy/sets").join(path));
    }
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    daemon.log_line("replayed ");
    daemon
}

/// What verdicts there are, however often.
fn kinds(flows: &[Flow]) -> BTreeSet<String> {
    verdicts(flows).into_keys().collect()
}

#[test]
fn each_set_judges_alone_and_without_its_dns_rules_names_are_denied() {
    let (tenants, payments): (BTreeSet<String>, BTreeSet<String>) =
        expected().into_keys().partition(|line| line.starts_with("tenant-"));
    let payments: BTreeSet<String> =
        payments.into_iter().chain(HAIRPIN.iter().map(ToString::to_string)).collect();
    let without_dns = payments.iter().map(|line| match line.as_str() {
        line if line.contains(":53 ") => line.replace("FORWARDED by payments-dns", "AUDIT by payments-api"),
        line => line.replace("by payments-dns, ", "by "),
    });
    let host = ["host -> payments/payments-api:8080", "host -> world:8080"]
        .map(|connection| format!("{connection} egress FORWARDED by host"));
    for (policies, wanted) in [
        ("tenants", tenants),
        ("payments/payments-api.yaml", without_dns.collect()),
        ("payments", payments),
        ("host", host.into()),
    ] {
        assert_eq!(kinds(&replayed(&[policies]).flows()), wanted, "{policies}");
    }
}

#[test]
fn a_recordings_connections_are_judged_by_policies_of_today() {
    let daemon = replayed(&["tenants", "payments"]);
    let flows = daemon.flows();
    let wanted: BTreeSet<String> =
        expected().into_keys().chain(HAIRPIN.iter().map(ToString::to_string)).collect();
    assert_eq!(kinds(&flows), wanted);
    let sums = Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(flows.len() as u64, sums.flows + sums.stages["policy"][1]);
    assert_eq!(sums.flows, fs::read_to_string(testdata("events/demo.txt")).unwrap().lines().count() as u64);
    hits_are_those_of_the_verdicts(&daemon, &flows);
    // A verdict at the delivery comes before the flow that tells of it.
    let mut delivered = 0;
    for (place, verdict) in flows.iter().enumerate().filter(|(_, flow)| is_verdict(flow)) {
        if verdict.traffic_direction() == TrafficDirection::Ingress {
            let told = flows[place..].iter().find(|flow| !is_verdict(flow)).unwrap();
            assert_eq!((&told.time, &told.l4, &told.ip), (&verdict.time, &verdict.l4, &verdict.ip));
            delivered += 1;
        }
    }
    assert!(delivered > 50, "{delivered}");
}

/// Nobody may read the metrics.
const ENFORCED: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: monitoring, annotations: {observer/policy-mode: enforce}}
spec: {podSelector: {matchLabels: {app: prometheus}}}
";

/// What `-o wide` shows of a flow, behind its time.
fn wide(flow: &Flow) -> String {
    let mut out = String::new();
    Wide::new(Options::default(), None).flow(flow, &mut out).unwrap();
    out.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_enforced_policy_drops_and_tells_it_once() {
    if !can_run("an_enforced_policy_drops_and_tells_it_once") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("enforced.yaml"), ENFORCED).unwrap();
    let mut lab = Lab::up(&scenario("demo.toml"), &unique_prefix("enforce")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", folder.path().to_str().unwrap()]);
    let hooks = daemon.capture_status().hooks;
    assert!(hooks.iter().any(|hook| hook.name == "policy" && hook.state() == State::Attached), "{hooks:?}");
    let metrics = lab.scenario().traffic.iter().find(|traffic| traffic.name == "metrics").unwrap().clone();
    let mut played = metrics.clone();
    (played.count, played.interval_ms, played.delay_ms) = (Some(2), 0, 0);
    // Less than until a SYN is sent again.
    played.timeout_ms = Some(700);
    lab.play(played).unwrap();
    // Nobody says anything of it.
    let mut other = lab.scenario().traffic.iter().find(|traffic| traffic.name == "tenant-a").unwrap().clone();
    (other.count, other.interval_ms, other.delay_ms) = (Some(1), 0, 0);
    lab.play(other).unwrap();
    lab.wait_traffic();

    let ports: BTreeSet<u16> = lab
        .ledger()
        .into_iter()
        .filter(|entry| entry.traffic == "metrics")
        .map(|entry| {
            assert!(entry.served.is_none() && entry.outcome == Outcome::TimedOut, "{entry:?}");
            entry.source.port()
        })
        .collect();
    assert_eq!(ports.len(), 2, "IPv4 and IPv6");
    let rest: Vec<_> = lab.ledger().into_iter().filter(|entry| entry.traffic != "metrics").collect();
    assert!(!rest.is_empty() && rest.iter().all(|entry| entry.outcome == Outcome::Ok), "{rest:?}");

    let of_it = |flow: &&Flow| match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => tcp.destination_port == 9090 && ports.contains(&(tcp.source_port as u16)),
        _ => false,
    };
    let is_drop = |flow: &&Flow| flow.event_type.is_some_and(|event| event.r#type == 1);
    daemon.flows_until(|flows| {
        let drops = flows.iter().filter(of_it).filter(is_drop).count();
        (drops < ports.len()).then(|| format!("{drops} drops"))
    });
    let sums = Sums::of(&daemon.settled());
    sums.check();
    let flows: Vec<Flow> = daemon.flows().into_iter().filter(|flow| of_it(&flow)).collect();
    let denied = "ops/finance-tool -> monitoring/prometheus:9090 ingress DROPPED by nobody";
    assert_eq!(verdicts(&flows), BTreeMap::from([(denied.to_owned(), 2)]), "{flows:#?}");
    for verdict in flows.iter().filter(|flow| is_verdict(flow)) {
        assert_eq!(verdict.drop_reason_desc(), DropReason::PolicyDenied);
    }
    let drops: Vec<&Flow> = flows.iter().filter(is_drop).collect();
    assert_eq!((drops.len(), flows.len()), (2, 4), "told once, and by nobody else: {flows:#?}");
    for drop in drops {
        assert_eq!((drop.verdict(), drop.drop_reason_desc()), (Verdict::Dropped, DropReason::PolicyDenied));
        assert_eq!(drop.event_type.unwrap().sub_type, 133);
        assert_eq!(drop.traffic_direction(), TrafficDirection::Ingress);
        let by: Vec<&str> = drop.ingress_denied_by.iter().map(|policy| &*policy.name).collect();
        assert_eq!(by, ["nobody"]);
        assert_eq!(drop.interface.as_ref().map(|link| link.name.is_empty()), Some(false));
        let line = wide(drop);
        assert!(line.contains("L4-NEW DROPPED Policy denied at ingress"), "{line}");
        assert!(line.contains("finance-tool-0") && line.contains("monitoring/prometheus-0:9090"), "{line}");
    }
    // In the mode audit it passes again.
    fs::write(folder.path().join("enforced.yaml"), ENFORCED.replace("enforce}", "audit}")).unwrap();
    daemon.log_line("policies reloaded");
    let mut played = metrics;
    (played.count, played.interval_ms, played.delay_ms) = (Some(1), 0, 0);
    lab.play(played).unwrap();
    lab.wait_traffic();
    let last =
        lab.ledger().into_iter().filter(|entry| entry.traffic == "metrics").max_by_key(|entry| entry.id);
    assert_eq!(last.unwrap().outcome, Outcome::Ok);
    let audited = "ops/finance-tool -> monitoring/prometheus:9090 ingress AUDIT by nobody";
    daemon.flows_until(|flows| (!verdicts(flows).contains_key(audited)).then(|| audited.to_owned()));
    let policy = &daemon.policies().policies[0];
    let hits = policy.hits.unwrap();
    assert_eq!((hits.denied, hits.would_deny), (2, 1), "{policy:?}");
}

//! The engine at 10,000 policies over 10,000 pods: loading, memory, one change, one verdict.

use observer_policy::{
    engine::{Change, Engine},
    label::Labels,
    model::{Direction, Mode, Policy},
    source::{self, Options},
    world::{Endpoint, NamedPort},
};
use std::{
    fmt::Write,
    fs,
    hint::black_box,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

const NAMESPACES: usize = 100;
const APPS: usize = 10;
const REPLICAS: usize = 10;
const POLICIES: usize = 100;

fn row(metric: &str, value: f64, unit: &str) {
    println!("BENCH {metric}\t{value:.1}\t{unit}");
}

/// Resident memory in KiB.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

fn address(namespace: usize, pod: usize) -> IpAddr {
    IpAddr::from([10, 1 + namespace as u8, (pod / 250) as u8, (pod % 250) as u8])
}

fn pod(namespace: usize, pod: usize, label: &str) -> (Arc<str>, Option<Endpoint>) {
    let labels = [
        format!("k8s:app=app-{}", pod / REPLICAS),
        format!("k8s:tier={}", ["front", "middle", "back"][pod / REPLICAS % 3]),
        "k8s:app.kubernetes.io/part-of=shop".into(),
        format!("k8s:version={label}"),
        format!("k8s:io.kubernetes.pod.namespace=team-{namespace}"),
        format!("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=team-{namespace}"),
        format!("k8s:io.cilium.k8s.namespace.labels.zone=zone-{}", namespace % 10),
        "k8s:io.cilium.k8s.policy.cluster=default".into(),
        "k8s:io.cilium.k8s.policy.serviceaccount=default".into(),
    ];
    let ports = vec![NamedPort { name: "http".into(), protocol: 6, port: 8080 }];
    let endpoint =
        Endpoint { labels: Labels::parse(labels), ports, addresses: vec![address(namespace, pod)] };
    (format!("team-{namespace}/pod-{pod}").into(), Some(endpoint))
}

/// A hundred policies a namespace, of the kinds that clusters have; one in a hundred lets in a tenth of all namespaces.
fn policies() -> String {
    let mut text = String::new();
    for namespace in 0..NAMESPACES {
        for n in 0..POLICIES {
            let (app, peer) = (n % APPS, (n / APPS + n) % APPS);
            let spec = match n % 10 {
                0..=4 => format!(
                    "{{podSelector: {{matchLabels: {{app: app-{app}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: \
                     {{app: app-{peer}}}}}}}], ports: [{{port: {}}}, {{port: http}}]}}]}}",
                    8000 + n
                ),
                5 | 6 => format!(
                    "{{endpointSelector: {{matchLabels: {{app: app-{app}}}}}, egress: [{{toEndpoints: [{{matchLabels: \
                     {{app: app-{peer}}}}}], toPorts: [{{ports: [{{port: \"{}\", protocol: TCP}}]}}]}}]}}",
                    8000 + n
                ),
                7 => format!(
                    "{{endpointSelector: {{matchLabels: {{tier: front}}}}, ingress: [{{fromCIDRSet: [{{cidr: \
                     192.0.{n}.0/24, except: [192.0.{n}.0/28]}}], toPorts: [{{ports: [{{port: \"443\"}}]}}]}}]}}"
                ),
                8 => format!(
                    "{{endpointSelector: {{matchLabels: {{app: app-{app}}}}}, ingress: [{{fromEndpoints: [{{}}]}}]}}"
                ),
                _ if n == 99 => format!(
                    "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{zone: zone-{}}}}}}}]}}]}}",
                    namespace % 10
                ),
                _ => format!(
                    "{{podSelector: {{matchLabels: {{app: app-{app}}}}}, egress: [{{ports: [{{port: 53, protocol: UDP}}]}}]}}"
                ),
            };
            let (version, kind) = if spec.starts_with("{pod") {
                ("networking.k8s.io/v1", "NetworkPolicy")
            } else {
                ("cilium.io/v2", "CiliumNetworkPolicy")
            };
            let _ = write!(
                text,
                "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: p-{n}, namespace: team-{namespace}}}\nspec: {spec}\n"
            );
        }
    }
    text
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Changes back and forth, each time of its own policy or pod.
fn changes(engine: &mut Engine, rounds: usize, mut make: impl FnMut(usize) -> Change) -> f64 {
    let times = (0..rounds).map(|n| {
        let change = make(n);
        let start = Instant::now();
        engine.apply(change);
        start.elapsed()
    });
    median(times.collect())
}

fn bench(name: &str, label: impl Fn(usize) -> String) {
    let text = policies();
    let pods: Vec<_> = (0..NAMESPACES)
        .flat_map(|namespace| (0..APPS * REPLICAS).map(move |n| (namespace, n)))
        .map(|(namespace, n)| pod(namespace, n, &label(n)))
        .collect();
    let before = resident();
    let start = Instant::now();
    let Ok(parsed) = source::parse(&text, &Options::default()) else {
        panic!("the bench's own policies are wrong")
    };
    let parsing = start.elapsed();
    let policies: Vec<(Arc<Policy>, Mode)> =
        parsed.into_iter().map(|policy| (Arc::new(policy), Mode::Enforce)).collect();
    let mut engine = Engine::new(false);
    let start = Instant::now();
    engine.apply(Change { endpoints: pods, ..Change::default() });
    let change = engine.difference(policies.clone());
    engine.apply(Change { policies: change, ..Change::default() });
    let compiling = start.elapsed();
    row(&format!("policy load, {name}"), (parsing + compiling).as_secs_f64() * 1e3, "ms");
    println!("{name}: parsed in {parsing:?}, compiled in {compiling:?}");
    row(&format!("policy memory, {name}"), (resident() - before) / 1024.0, "MiB");

    let edited = |n: usize| {
        let (policy, _) = &policies[n * 97 % policies.len()];
        let mode = if n.is_multiple_of(2) { Mode::Audit } else { Mode::Enforce };
        Change { policies: vec![((policy.id.clone(), 0), Some((policy.clone(), mode)))], ..Change::default() }
    };
    row(&format!("policy change, {name}"), changes(&mut engine, 50, edited), "ms");
    let moved = |n: usize| Change {
        endpoints: vec![pod(n % NAMESPACES, 5, &format!("new-{n}"))],
        ..Change::default()
    };
    row(&format!("policy new pod, {name}"), changes(&mut engine, 50, moved), "ms");
    let (wide, _) = &policies[99];
    let widened = |n: usize| {
        let mode = if n.is_multiple_of(2) { Mode::Audit } else { Mode::Enforce };
        Change { policies: vec![((wide.id.clone(), 0), Some((wide.clone(), mode)))], ..Change::default() }
    };
    row(&format!("policy change of a wide one, {name}"), changes(&mut engine, 20, widened), "ms");
    judge(&engine, name);
}

fn judge(engine: &Engine, name: &str) {
    let tuples: Vec<_> = (0..100_000_usize)
        .map(|n| {
            let mixed = n.wrapping_mul(2_654_435_761);
            let (from, to) = (mixed % 100, mixed / 100 % 100);
            let namespace = mixed / 10_000 % NAMESPACES;
            let subject = engine.subject_at(address(namespace, to));
            let peer = engine.peer_at(address(if n % 3 == 0 { from } else { namespace }, from));
            (subject, peer, 8000 + (mixed / 7 % 100) as u16)
        })
        .filter_map(|(subject, peer, port)| Some((subject?, peer, port)))
        .collect();
    let mut times: Vec<f64> = (0..11)
        .map(|_| {
            let start = Instant::now();
            for (subject, peer, port) in &tuples {
                black_box(engine.judge(*subject, Direction::Ingress, *peer, 6, *port));
            }
            start.elapsed().as_secs_f64() * 1e9 / tuples.len() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    row(&format!("policy verdict, {name}"), times[times.len() / 2], "ns");
}

fn main() {
    // The larger first: the memory of the second is in part what the first gave back.
    bench("10,000 label sets", |n| format!("v{n}"));
    bench("1,000 label sets", |_| "v1".into());
}

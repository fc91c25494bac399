//! What one change of names costs where the kernel judges 25,000 pods: the tables are made anew as a whole, what differs from
//! what the slot holds is written, and the slot is put in force.

mod support;

use aya::EbpfLoader;
use observer::{capture::PolicyMaps, policy::kernel_tables};
use observer_ebpf::policy::slot;
use observer_policy::{
    engine::{Change, Engine},
    label::Labels,
    model::Mode,
    source::{self, Options},
    world::Endpoint,
};
use std::{fmt::Write as _, net::IpAddr, sync::Arc, time::Instant};
use support::row;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-policy"));

const NAMESPACES: usize = 250;
const APPS: usize = 10;
const REPLICAS: usize = 10;
const CHANGES: usize = 40;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("policy_names: needs root: it makes maps in the kernel");
        return Ok(());
    }
    let pods = (0..NAMESPACES).flat_map(|namespace| (0..APPS * REPLICAS).map(move |n| pod(namespace, n, 0)));
    let mut engine = Engine::new(false);
    engine.apply(Change { endpoints: pods.collect(), ..Change::default() });
    let parsed =
        source::parse(&policies(), &Options::default()).map_err(|_| "the bench's own policies are wrong")?;
    let policies = parsed.into_iter().map(|policy| (Arc::new(policy), Mode::Enforce)).collect();
    let policies = engine.difference(policies);
    engine.apply(Change { policies, ..Change::default() });
    let mut maps = PolicyMaps::of(&mut EbpfLoader::new().load(OBJECT)?)?;
    for _ in 0..2 {
        put(&engine, &mut maps)?;
    }
    let mut times: Vec<[f64; 4]> = Vec::new();
    for round in 1..=CHANGES {
        let (began, change) = (Instant::now(), pod(round % NAMESPACES, round % 7, round));
        engine.apply(Change { endpoints: vec![change], ..Change::default() });
        let changed = milliseconds(began);
        let [made, written, in_force] = put(&engine, &mut maps)?;
        times.push([changed, made, written, in_force]);
    }
    let median = |of: &dyn Fn(&[f64; 4]) -> f64| {
        let mut all: Vec<f64> = times.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    row("policy in the kernel, a pod's address changed", median(&|times| times.iter().sum()), "ms");
    for (part, what) in ["the engine", "tables made", "written", "put in force"].into_iter().enumerate() {
        println!("of that {what}: {:.2} ms", median(&|times| times[part]));
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Has the kernel judge by the engine, and how long each part took.
fn put(engine: &Engine, maps: &mut PolicyMaps) -> Result<[f64; 3], Failure> {
    let began = Instant::now();
    // A hundred of them are on this node.
    let (tables, _) = kernel_tables(engine, &[], |name| name.starts_with("team-7/"));
    let (made, began) = (milliseconds(began), Instant::now());
    maps.write(slot(maps.generation()) ^ 1, &tables)?;
    let (written, began) = (milliseconds(began), Instant::now());
    maps.flip()?;
    maps.wait_for_programs()?;
    Ok([made, written, milliseconds(began)])
}

/// A pod, at its n-th address.
fn pod(namespace: usize, pod: usize, moves: usize) -> (Arc<str>, Option<Endpoint>) {
    let labels = [
        format!("k8s:app=app-{}", pod / REPLICAS),
        format!("k8s:io.kubernetes.pod.namespace=team-{namespace}"),
        format!("k8s:io.cilium.k8s.namespace.labels.zone=zone-{}", namespace % 10),
    ];
    let address = IpAddr::from([10, 1 + namespace as u8, moves as u8, pod as u8]);
    let endpoint = Endpoint { labels: Labels::parse(labels), ports: Vec::new(), addresses: vec![address] };
    (format!("team-{namespace}/pod-{pod}").into(), Some(endpoint))
}

/// In each namespace each app takes calls from another one, from a tenth of all namespaces, and the first from a network.
fn policies() -> String {
    let mut text = String::new();
    for namespace in 0..NAMESPACES {
        for app in 0..APPS {
            let outside = if app == 0 { ", {ipBlock: {cidr: 192.0.2.0/24}}" } else { "" };
            let _ = write!(
                text,
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{app}, namespace: \
                 team-{namespace}}}\nspec:\n  podSelector: {{matchLabels: {{app: app-{app}}}}}\n  ingress: [{{from: \
                 [{{podSelector: {{matchLabels: {{app: app-{}}}}}}}, {{namespaceSelector: {{matchLabels: {{zone: \
                 zone-{}}}}}}}{outside}], ports: [{{port: 80}}, {{port: 443}}]}}]\n",
                (app + 1) % APPS,
                (namespace + app) % 10
            );
        }
    }
    text
}

//! What one change of names costs where the kernel judges 25,000 pods, each change in both slots, as the daemon does it: the
//! engine takes it in, the slot's tables follow, what differs is written, and the slot is put in force. One is of a pod that
//! has another address; the other of one with labels that nobody had, of which every policy has to be asked, and
//! tables are made anew.

mod support;

use aya::EbpfLoader;
use observer::{capture::PolicyMaps, policy::Made};
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
    let parsed =
        source::parse(&policies(), &Options::default()).map_err(|_| "the bench's own policies are wrong")?;
    let policies: Vec<_> = parsed.into_iter().map(|policy| (Arc::new(policy), Mode::Enforce)).collect();
    let worlds = [(), ()].map(|()| {
        let pods =
            (0..NAMESPACES).flat_map(|namespace| (0..APPS * REPLICAS).map(move |n| pod(namespace, n, 0)));
        let mut engine = Engine::new(false);
        engine.apply(Change { endpoints: pods.collect(), ..Change::default() });
        let policies = engine.difference(policies.clone());
        engine.apply(Change { policies, ..Change::default() });
        World { engine, made: None }
    });
    let mut kernel = Kernel { worlds, maps: PolicyMaps::of(&mut EbpfLoader::new().load(OBJECT)?)? };
    for _ in 0..2 {
        kernel.put(&Change::default())?;
    }
    for (what, change) in [
        (
            "a pod's address changed",
            &(|round| pod(round % NAMESPACES, round % 7, round)) as &dyn Fn(usize) -> Named,
        ),
        ("a pod with new labels", &stranger),
    ] {
        let mut times: Vec<[f64; 4]> = Vec::new();
        for round in 1..=CHANGES {
            let change = Change { endpoints: vec![change(round)], ..Change::default() };
            times.push(kernel.put(&change)?);
            kernel.put(&change)?;
        }
        let median = |of: &dyn Fn(&[f64; 4]) -> f64| {
            let mut all: Vec<f64> = times.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        row(&format!("policy in the kernel, {what}"), median(&|times| times.iter().sum()), "ms");
        for (part, what) in ["the engine", "tables made", "written", "put in force"].into_iter().enumerate() {
            println!("of that {what}: {:.2} ms", median(&|times| times[part]));
        }
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A pod, by its name.
type Named = (Arc<str>, Option<Endpoint>);

/// One of the two, each with a slot.
struct World {
    engine: Engine,
    made: Option<Made>,
}

struct Kernel {
    worlds: [World; 2],
    maps: PolicyMaps,
}

impl Kernel {
    /// Has the kernel judge by the world that is not in force, after a change; how long each part took.
    fn put(&mut self, change: &Change) -> Result<[f64; 4], Failure> {
        let next = slot(self.maps.generation()) ^ 1;
        let World { engine, made } = &mut self.worlds[next as usize];
        let change = change.clone();
        let began = Instant::now();
        engine.apply(change);
        let (changed, began) = (milliseconds(began), Instant::now());
        // A hundred of them are on this node.
        let mut now = Made::anew(made.take(), engine, &[], |name| name.starts_with("team-7/"));
        let (tables, began) = (milliseconds(began), Instant::now());
        match &now.only {
            Some(addresses) => self.maps.write_addresses(next, &now.tables, addresses)?,
            None => self.maps.write(next, &now.tables)?,
        }
        now.keep_addresses();
        *made = Some(now);
        let (written, began) = (milliseconds(began), Instant::now());
        self.maps.flip()?;
        self.maps.wait_for_programs()?;
        Ok([changed, tables, written, milliseconds(began)])
    }
}

/// A pod like no other.
fn stranger(number: usize) -> Named {
    let (name, mut endpoint) = pod(number % NAMESPACES, APPS * REPLICAS, number);
    if let Some(endpoint) = &mut endpoint {
        let own = format!("k8s:only={number}");
        endpoint.labels = Labels::parse(endpoint.labels.iter().map(ToString::to_string).chain([own]));
    }
    (name, endpoint)
}

/// A pod, at its n-th address.
fn pod(namespace: usize, pod: usize, moves: usize) -> Named {
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

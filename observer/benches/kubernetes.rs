//! Names of the Kubernetes API at 100,000 pods: memory of all that is kept, time until all are known, of a change, and of a
//! look-up. The API server's lines are made here.

mod support;

use observer::enrich::{
    ipcache::IpCache,
    kubernetes::{KubernetesApi, KubernetesConfig},
};
use observer_kubernetes::{Resource, by_hand::ByHand};
use observer_policy::source::Options;
use std::{fs, hint::black_box, net::IpAddr, sync::Arc, time::Instant};
use support::{median_ns, row};

const PODS: u32 = 100_000;

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

/// A pod as a cluster has it: ten replicas to a workload, each with what kubelets and controllers write, 4 KB of it.
fn line(kind: &str, n: u32, ip: IpAddr) -> String {
    let (app, namespace) = (n / 10, n % 200);
    let fields = r#"{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:status":{},"f:type":{}}}}}},"#;
    let managed = fields.repeat(6);
    format!(
        r#"{{"type":"{kind}","object":{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"application-{app}-7d9f8c6b5-{n:05}","namespace":"team-{namespace}","uid":"{n:08x}-0000-4000-8000-000000000000","resourceVersion":"{n}","labels":{{"app":"application-{app}","app.kubernetes.io/instance":"application-{app}","app.kubernetes.io/name":"shop","app.kubernetes.io/part-of":"store","pod-template-hash":"7d9f8c6b5","tier":"backend"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"application-{app}-7d9f8c6b5","uid":"x","controller":true}}],"managedFields":[{}]}},"spec":{{"nodeName":"n{}","serviceAccountName":"default","containers":[{{"name":"main","image":"registry/image:tag","env":[{{"name":"A","value":"{}"}}],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}}}"#,
        managed.trim_end_matches(','),
        n % 1000,
        "x".repeat(1500),
    )
}

/// Resident memory in KiB, but for the program itself.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn tell(by_hand: &mut ByHand, resource: Resource, line: &str) {
    if let Err(error) = by_hand.line(resource, line.as_bytes()) {
        panic!("{error}: {line}");
    }
}

fn main() {
    let cache = Arc::new(IpCache::new("n1"));
    let config = KubernetesConfig::default();
    let api = KubernetesApi::new(&config, "default", Options::default(), Arc::clone(&cache));
    let mut by_hand = api.by_hand();
    for n in 0..200 {
        let line = format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"name":"team-{n}","labels":{{"team":"red"}}}}}}}}"#
        );
        tell(&mut by_hand, Resource::Namespaces, &line);
    }
    by_hand.end(Resource::Namespaces);
    let before = resident();
    let (mut bytes, mut decoding) = (0, std::time::Duration::ZERO);
    for n in 0..PODS {
        let line = line("ADDED", n, address(n));
        bytes += line.len();
        let start = Instant::now();
        tell(&mut by_hand, Resource::Pods, &line);
        decoding += start.elapsed();
    }
    observer::daemon::give_memory_back();
    println!("records: {} bytes a pod", (resident() - before) * 1024 / u64::from(PODS));
    let start = Instant::now();
    by_hand.end(Resource::Pods);
    let told = start.elapsed();
    let at_once = resident() - before;
    observer::daemon::give_memory_back();
    let grown = resident() - before;
    println!("{} MB before unused memory was given back", at_once * 1024 / 1_000_000);
    println!(
        "{PODS} pods, {} MB of lines: decoded in {decoding:?}, told in {told:?}; {} MB, {} bytes a pod",
        bytes / 1_000_000,
        grown * 1024 / 1_000_000,
        grown * 1024 / u64::from(PODS)
    );

    row("kubernetes memory", (grown * 1024) as f64 / 1e6, "MB");
    row("kubernetes known", (decoding + told).as_secs_f64(), "s");
    let changes = 1000;
    let lines: Vec<String> = (0..changes).map(|n| line("MODIFIED", n * 97, address(PODS + n))).collect();
    let start = Instant::now();
    for line in &lines {
        tell(&mut by_hand, Resource::Pods, line);
    }
    row("kubernetes change", start.elapsed().as_nanos() as f64 / f64::from(changes), "ns");
    let start = Instant::now();
    for line in &lines {
        tell(&mut by_hand, Resource::Pods, line);
    }
    row("kubernetes no change", start.elapsed().as_nanos() as f64 / f64::from(changes), "ns");

    let all: Vec<IpAddr> = (0..PODS).map(|n| address(n.wrapping_mul(2_654_435_761) % PODS)).collect();
    let look_up = |ips: &[IpAddr]| {
        median_ns(11, ips.len(), || {
            for ip in ips {
                black_box(cache.lookup(black_box(*ip), u64::MAX - 1));
            }
        })
    };
    row("kubernetes look-up", look_up(&all[..1000]), "ns");
    println!("look-up of all in turn: {:.0} ns", look_up(&all));
}

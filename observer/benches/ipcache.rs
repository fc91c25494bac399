//! The IP cache at 100,000 pods: time of a look-up, and memory per pod.

use criterion::{Criterion, criterion_group, criterion_main};
use observer::enrich::{
    ipcache::IpCache,
    labels,
    source::{Pod, Rank, Snapshot, Window},
};
use std::{fs, hint::black_box, net::IpAddr, time::Instant};

const PODS: u32 = 100_000;

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

/// Ten replicas to a workload, ten security labels: what a large cluster has.
fn pods() -> impl Iterator<Item = Pod> {
    (0..PODS).map(|n: u32| {
        let (app, namespace) = (n / 10, format!("team-{}", n % 200));
        let own =
            [("app.kubernetes.io/name", "shop"), ("app.kubernetes.io/part-of", "store"), ("tier", "backend")];
        let mut own: labels::LabelMap = own.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        own.insert("app".into(), format!("application-{app}"));
        own.insert("app.kubernetes.io/instance".into(), format!("application-{app}"));
        let of_namespace = [("team".to_owned(), "red".to_owned())].into();
        Pod {
            uid: format!("{n:08x}-0000-4000-8000-000000000000"),
            cluster: "default".into(),
            labels: labels::of_pod("default", &namespace, "default", &own, &of_namespace),
            namespace,
            name: format!("application-{app}-7d9f8c6b5-{n:05}"),
            ips: vec![address(n)],
            ..Pod::default()
        }
    })
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn bench(criterion: &mut Criterion) {
    let before = resident();
    let cache = IpCache::new("n1");
    let start = Instant::now();
    // One by one, so that the list itself is not counted.
    for pod in pods() {
        cache.upsert_pod(Rank::Kubernetes, pod, Window::exact(1));
    }
    let (time, grown) = (start.elapsed(), resident() - before);
    println!("{PODS} pods: filled in {time:?}, {} bytes of memory a pod", grown * 1024 / u64::from(PODS));

    // Single look-ups for the tail; the clock itself costs about 30 ns of each.
    let mut times: Vec<u64> = (0..1_000_000_u32)
        .map(|n| {
            let ip = address(n.wrapping_mul(2_654_435_761) % PODS);
            let start = Instant::now();
            black_box(cache.lookup(black_box(ip), 2));
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    println!("look-up: median {} ns, p99 {} ns", times[times.len() / 2], times[times.len() * 99 / 100]);

    let mut n = 0_u32;
    criterion.bench_function("lookup of 100,000 pods, at random", |bencher| {
        bencher.iter(|| {
            n = n.wrapping_add(2_654_435_761);
            cache.lookup(black_box(address(n % PODS)), 2)
        });
    });
    criterion.bench_function("lookup of the world", |bencher| {
        bencher.iter(|| cache.lookup(black_box(IpAddr::from([1, 1, 1, 1])), 2));
    });
    let list: Vec<_> = pods().collect();
    let snapshot = || Snapshot { pods: list.clone(), ..Snapshot::default() };
    cache.replace(Rank::Kubernetes, snapshot(), Window::exact(3));
    let start = Instant::now();
    cache.replace(Rank::Kubernetes, snapshot(), Window::exact(4));
    println!("the same list again: {:?}", start.elapsed());
}

criterion_group!(benches, bench);
criterion_main!(benches);

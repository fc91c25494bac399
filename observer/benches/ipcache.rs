//! The IP cache at 100,000 pods: time of a look-up, and memory per pod.

mod support;

use observer::enrich::{
    ipcache::IpCache,
    source::{Pod, Rank, Snapshot, Window},
};
use observer_inventory::labels;
use std::{fs, hint::black_box, net::IpAddr, time::Instant};
use support::{median_ns, row};

const PODS: u32 = 100_000;

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

/// Ten replicas to a workload, ten security labels: what a large cluster has.
fn pods() -> impl Iterator<Item = Pod> {
    (0..PODS).map(|n: u32| {
        let (app, namespace) = (n / 10, format!("team-{}", n / 10 % 200));
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
            name: format!("application-{app}-7d9f8c6b5-{n:05}").into(),
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

fn main() {
    let before = resident();
    let cache = IpCache::new("n1");
    let start = Instant::now();
    // One by one, so that the list itself is not counted.
    for pod in pods() {
        cache.upsert_pod(Rank::Kubernetes, pod, Window::exact(1));
    }
    let (time, grown) = (start.elapsed(), resident() - before);
    println!("{PODS} pods: filled in {time:?}, {} bytes of memory a pod", grown * 1024 / u64::from(PODS));

    // One by one for the tail; the clock itself costs about 30 ns of each.
    let mut times: Vec<u64> = (0..1_000_000_u32)
        .map(|n| {
            let ip = address(n.wrapping_mul(2_654_435_761) % PODS);
            let start = Instant::now();
            black_box(cache.lookup(black_box(ip), 2));
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    row("ipcache p50", times[times.len() / 2] as f64, "ns");
    row("ipcache p99", times[times.len() * 99 / 100] as f64, "ns");

    let all: Vec<IpAddr> = (0..PODS).map(|n| address(n.wrapping_mul(2_654_435_761) % PODS)).collect();
    let look_up = |ips: &[IpAddr]| {
        median_ns(11, ips.len(), || {
            for ip in ips {
                black_box(cache.lookup(black_box(*ip), 2));
            }
        })
    };
    println!("look-up of all in turn: {:.0} ns", look_up(&all));
    println!("look-up of 1,000: {:.0} ns", look_up(&all[..1000]));
    println!("look-up of the world: {:.0} ns", look_up(&vec![IpAddr::from([1, 1, 1, 1]); 1000]));

    let list: Vec<_> = pods().collect();
    let snapshot = || Snapshot { pods: list.clone(), ..Snapshot::default() };
    cache.replace(Rank::Kubernetes, snapshot(), Window::exact(3));
    let start = Instant::now();
    cache.replace(Rank::Kubernetes, snapshot(), Window::exact(4));
    println!("the same list again: {:?}", start.elapsed());
}

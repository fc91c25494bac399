//! Names of the Kubernetes API at 100,000 pods: memory of all that is kept, time until all are known, of a change, and of a
//! look-up; and whether a name is ever wrong while addresses are used again. The API server's lines are made here.

mod support;

use observer::{
    decode::{Clock, End},
    enrich::{
        Enricher, Packet,
        ipcache::IpCache,
        kubernetes::{KubernetesApi, KubernetesConfig},
    },
};
use observer_kubernetes::{Resource, by_hand::ByHand};
use observer_policy::source::Options;
use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Numbers, median_ns, row};

/// As the daemon has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PODS: u32 = 100_000;
/// Of a workload: 25,000 sets of labels.
const REPLICAS: u32 = 4;

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

/// Numbers that look like chance, always the same of the same.
fn hash(n: u32) -> u32 {
    let n = (n ^ n >> 16).wrapping_mul(0x7feb_352d);
    (n ^ n >> 15).wrapping_mul(0x846c_a68b)
}

/// The `turn`th pod that has had the place of pod `n`.
fn pod_name(n: u32, turn: u32) -> String {
    let app = n / REPLICAS;
    format!("application-{app}-{:08x}-{n:05}-{turn}", hash(app))
}

fn line(kind: &str, n: u32, turn: u32, ip: IpAddr) -> String {
    let mut line = String::new();
    write_line(&mut line, kind, n, turn, ip);
    line
}

/// A pod as a cluster has it: replicas share all but name, UID, node and address; each has what kubelets and controllers
/// write, 4 KB of it.
fn write_line(line: &mut String, kind: &str, n: u32, turn: u32, ip: IpAddr) {
    // Into the same memory again and again, as what comes by the network.
    line.clear();
    let (app, namespace, name) = (n / REPLICAS, n / REPLICAS % 200, pod_name(n, turn));
    let template = format!("{:08x}", hash(app));
    let fields = r#"{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:status":{},"f:type":{}}}}}},"#;
    let managed = fields.repeat(6);
    let written = write!(
        line,
        r#"{{"type":"{kind}","object":{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"team-{namespace}","uid":"{:08x}-{turn:04x}-4000-8000-{n:012x}","resourceVersion":"{n}","labels":{{"app":"application-{app}","app.kubernetes.io/instance":"application-{app}","app.kubernetes.io/name":"shop","app.kubernetes.io/part-of":"store","pod-template-hash":"{template}","tier":"backend"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"application-{app}-{template}","uid":"x","controller":true}}],"managedFields":[{}]}},"spec":{{"nodeName":"n{}","serviceAccountName":"default","containers":[{{"name":"main","image":"registry/image:tag","env":[{{"name":"A","value":"{}"}}],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}}}"#,
        hash(n),
        managed.trim_end_matches(','),
        n % 1000,
        "x".repeat(1500),
    );
    assert!(written.is_ok());
}

/// Resident memory in KiB, but for the program itself, once the allocator has given back what is free, which it does within five
/// seconds and tells nobody.
fn settled() -> u64 {
    std::thread::sleep(Duration::from_secs(12));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn tell(by_hand: &mut ByHand, line: &str) {
    if let Err(error) = by_hand.line(Resource::Pods, line.as_bytes()) {
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
        assert!(by_hand.line(Resource::Namespaces, line.as_bytes()).is_ok());
    }
    by_hand.end(Resource::Namespaces);
    list(&mut by_hand);
    change(&mut by_hand, &cache);
    look_up(&cache);
    use_again(by_hand, &cache);
}

/// All pods for the first time.
fn list(by_hand: &mut ByHand) {
    let before = settled();
    let (mut bytes, mut decoding) = (0, Duration::ZERO);
    let mut line = String::new();
    for n in 0..PODS {
        write_line(&mut line, "ADDED", n, 0, address(n));
        bytes += line.len();
        let start = Instant::now();
        tell(by_hand, &line);
        decoding += start.elapsed();
    }
    println!("records: {} bytes a pod", (settled() - before) * 1024 / u64::from(PODS));
    let start = Instant::now();
    by_hand.end(Resource::Pods);
    let told = start.elapsed();
    let grown = (settled() - before) * 1024;
    println!(
        "{PODS} pods, {} MB of lines: decoded in {decoding:?}, told in {told:?}; {} bytes a pod",
        bytes / 1_000_000,
        grown / u64::from(PODS)
    );
    row("kubernetes memory", grown as f64 / 1e6, "MB");
    row("kubernetes known", (decoding + told).as_secs_f64(), "s");
}

/// From the line to the name at the new address, and what says nothing new.
fn change(by_hand: &mut ByHand, cache: &IpCache) {
    let changes = 1000;
    let lines: Vec<String> = (0..changes).map(|n| line("MODIFIED", n * 97, 0, address(PODS + n))).collect();
    let mut times: Vec<u64> = (0..changes)
        .map(|n| {
            let start = Instant::now();
            tell(by_hand, &lines[n as usize]);
            let found = cache.lookup(address(PODS + n), u64::MAX - 1);
            assert!(found.pod_name == pod_name(n * 97, 0));
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    row("kubernetes change", times[times.len() / 2] as f64, "ns");
    row("kubernetes change p99", times[times.len() * 99 / 100] as f64 / 1e6, "ms");
    let start = Instant::now();
    for line in &lines {
        tell(by_hand, line);
    }
    row("kubernetes no change", start.elapsed().as_nanos() as f64 / f64::from(changes), "ns");
}

fn look_up(cache: &Arc<IpCache>) {
    let mut numbers = Numbers(7);
    let all: Vec<IpAddr> = (0..PODS).map(|_| address(numbers.below(PODS as usize) as u32)).collect();
    let look_up = |ips: &[IpAddr]| {
        median_ns(11, ips.len(), || {
            for ip in ips {
                black_box(cache.lookup(black_box(*ip), u64::MAX - 1));
            }
        })
    };
    row("kubernetes look-up, cache alone", look_up(&all[..1000]), "ns");
    row("kubernetes look-up, random", look_up(&all), "ns");
    let mut enricher = Enricher::new(Arc::clone(cache));
    let ends: Vec<Option<End>> = all[..1000].iter().map(|ip| Some(End::new(*ip, 80))).collect();
    let named = median_ns(11, ends.len(), || {
        for pair in ends.chunks_exact(2) {
            let packet = Packet {
                kernel_ns: u64::MAX - 1,
                source: pair[0],
                destination: pair[1],
                protocol: 6,
                frontend: None,
                is_reply: false,
            };
            black_box(enricher.ends(black_box(&packet)));
        }
    });
    row("kubernetes look-up", named, "ns");
}

/// Addresses that are used again, 1,000 a second, while others look them up.
fn use_again(mut by_hand: ByHand, cache: &IpCache) {
    const ADDRESSES: u32 = 1000;
    const TURNS: u32 = 10;
    const LOOK_UPS: usize = 1_000_000;
    // When each of an address's pods was told of: between the two times it may have its name, and that of the one before.
    let first = PODS + 10_000;
    let mut turns: Vec<Vec<[u64; 2]>> = Vec::new();
    for n in 0..ADDRESSES {
        tell(&mut by_hand, &line("ADDED", first + n, 0, address(first + n)));
        turns.push(vec![[0, Clock::kernel_now()]]);
    }
    let ended = AtomicBool::new(false);
    let (answers, took) = std::thread::scope(|scope| {
        let ended = &ended;
        let writer = scope.spawn(move || {
            let start = Instant::now();
            for turn in 1..=TURNS {
                for n in 0..ADDRESSES {
                    let ip = address(first + n);
                    let lines =
                        [line("DELETED", first + n, turn - 1, ip), line("ADDED", first + n, turn, ip)];
                    let due = Duration::from_millis(((turn - 1) * ADDRESSES + n).into());
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                    let begun = Clock::kernel_now();
                    // A successor may come first.
                    let [one, other] = if (n + turn) % 2 == 0 { [0, 1] } else { [1, 0] };
                    tell(&mut by_hand, &lines[one]);
                    tell(&mut by_hand, &lines[other]);
                    turns[n as usize].push([begun, Clock::kernel_now()]);
                }
            }
            ended.store(true, Ordering::Relaxed);
            (turns, start.elapsed())
        });
        let mut numbers = Numbers(11);
        let mut answers = Vec::with_capacity(LOOK_UPS);
        // As long as addresses change hands, however fast look-ups are; some of flows that come late.
        while answers.len() < LOOK_UPS || !ended.load(Ordering::Relaxed) {
            let n = numbers.below(ADDRESSES as usize) as u32;
            let at = Clock::kernel_now() - numbers.below(100_000_000) as u64;
            answers.push((n, at, cache.lookup(address(first + n), at)));
            if answers.len() % 100 == 0 && !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(900));
            }
        }
        let (turns, took) = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ((answers, turns), took)
    });
    let (answers, turns) = answers;
    let (mut wrong, mut unknown) = (0, 0);
    for (n, at, found) in &answers {
        let of_address = &turns[*n as usize];
        if found.pod_name.is_empty() {
            unknown += 1;
            continue;
        }
        let turn: Option<usize> = found.pod_name.rsplit('-').next().and_then(|turn| turn.parse().ok());
        let is_right = turn.is_some_and(|turn| {
            let next = of_address.get(turn + 1).map_or(u64::MAX, |[_, told]| *told);
            found.pod_name == pod_name(first + n, turn as u32) && of_address[turn][0] <= *at && *at <= next
        });
        wrong += u32::from(!is_right);
    }
    println!(
        "{} look-ups while {} addresses were used again in {took:?}: {unknown} unknown",
        answers.len(),
        ADDRESSES * TURNS
    );
    row("kubernetes wrong names", f64::from(wrong), "");
}

//! The daemon in a lab of network namespaces: how long from the kernel to a client, how many events it takes without loss
//! on one core, what it costs while nothing happens, how soon a new link is attached to, what requests of HTTP cost more
//! where they are read, and what they cost through the proxy.
//!
//! The daemon runs on the last processor; the lab, its traffic and the client on the others.
#![expect(clippy::unwrap_used, reason = "a bench stops where something is not as it should be")]

#[path = "live/proxy.rs"]
mod proxy;
mod support;
#[path = "../tests/support/mod.rs"]
mod tests_support;

use aya::programs::{SchedClassifier, TcAttachType};
use observer_lab::{Cause, Lab, Namespaces, Scenario, netns, unique_prefix};
use observer_proto::{
    flow::{FlowFilter, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes, observer_client::ObserverClient},
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use std::{
    fmt::Write as _,
    fs,
    net::TcpStream,
    path::Path,
    process::Command,
    sync::mpsc,
    thread::available_parallelism,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::row;
use tests_support::{Daemon, OBSERVER, Sums, can_run, empty_node, late, scenario};
use tokio_stream::StreamExt as _;
use tonic::transport::Endpoint;

/// Packets a second of the busy node; with aggregation `none` each is an event where it leaves a pod and one where it is
/// delivered.
const BUSY_PACKETS: u32 = 25_000;
/// A little more than the aim, since the measured time holds the start and the end too.
const FULL_PACKETS: u32 = 105_000;
const FULL_SECONDS: u32 = 10;
const IDLE_SECONDS: u64 = 10;

fn main() {
    if !can_run("live") {
        return;
    }
    let last = available_parallelism().map_or(1, usize::from) - 1;
    if last > 0 {
        let mut others = CpuSet::new();
        (0..last).for_each(|cpu| others.set(cpu));
        sched_setaffinity(None, &others).unwrap();
    }
    // `--bench` is cargo's word; others name the parts that are wanted.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, part) in [
        ("latency", latency as fn(usize)),
        ("full", full),
        ("idle", idle),
        ("attach", attach),
        ("nginx", nginx),
        ("proxy", proxy::proxy),
    ] {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            part(last);
        }
    }
}

/// The daemon on one processor, which all its threads share.
fn daemon(lab: &Lab, cpu: usize, args: &[&str]) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    let mut command = lab.command_in("n1", "taskset");
    command.args(["--cpu-list", &cpu.to_string(), OBSERVER, "--node-name", "n1", "--inventory"]);
    command.arg(inventory).args(args);
    Daemon::spawn(command, dir)
}

fn latency(cpu: usize) {
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("bench-latency")).unwrap();
    let daemon = daemon(&lab, cpu, &["--aggregation", "none"]);
    let calls = FlowFilter { source_pod: vec!["ops/bystander".to_owned()], ..FlowFilter::default() };
    let drops = FlowFilter { verdict: vec![Verdict::Dropped as i32], ..calls.clone() };
    let forwarded = FlowFilter { verdict: vec![Verdict::Forwarded as i32], ..calls };

    play(&mut lab, "call", 100, 50);
    let idle = latencies(&daemon, &forwarded, &mut lab);
    row("latency idle p50", percentile(&idle, 50), "ms");
    row("latency idle p99", percentile(&idle, 99), "ms");

    flood(&mut lab, 1, BUSY_PACKETS, 7);
    play(&mut lab, "call", 400, 10);
    let busy = latencies(&daemon, &forwarded, &mut lab);
    row("latency busy p50", percentile(&busy, 50), "ms");
    row("latency busy p99", percentile(&busy, 99), "ms");

    flood(&mut lab, 1, BUSY_PACKETS, 7);
    play(&mut lab, "drop", 400, 10);
    let dropped = latencies(&daemon, &drops, &mut lab);
    row("latency drops p50", percentile(&dropped, 50), "ms");
    row("latency drops p99", percentile(&dropped, 99), "ms");
}

/// One pod's datagrams: answered ones, or those that a rule drops.
fn play(lab: &mut Lab, what: &str, count: u64, interval_ms: u64) {
    let mut traffic = lab.scenario().traffic.iter().find(|traffic| traffic.name == "drop").unwrap().clone();
    if what == "call" {
        (traffic.port, traffic.expect) = (Some(7000), Cause::None);
    }
    (traffic.count, traffic.interval_ms, traffic.timeout_ms) = (Some(count), interval_ms, Some(interval_ms));
    lab.play(traffic).unwrap();
}

fn flood(lab: &mut Lab, streams: u32, rate: u32, seconds: u32) {
    let flood = lab.scenario().traffic.iter().find(|traffic| traffic.name == "flood").unwrap().clone();
    for _ in 0..streams {
        let mut traffic = flood.clone();
        (traffic.rate, traffic.count) = (Some(rate / streams), Some(u64::from(rate / streams * seconds)));
        lab.play(traffic).unwrap();
    }
}

/// Milliseconds from the kernel's time of a flow to its arrival, until the traffic has ended; sorted.
fn latencies(daemon: &Daemon, filter: &FlowFilter, lab: &mut Lab) -> Vec<f64> {
    let request =
        GetFlowsRequest { follow: true, whitelist: vec![filter.clone()], ..GetFlowsRequest::default() };
    let path = daemon.dir.path().join("hubble.sock");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
            let mut client = ObserverClient::new(endpoint.connect().await.unwrap());
            let mut stream = client.get_flows(request).await.unwrap().into_inner();
            while let Some(Ok(response)) = stream.next().await {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
                let Some(ResponseTypes::Flow(flow)) = response.response_types else { continue };
                let time = flow.time.unwrap();
                let seen = time.seconds as u128 * 1_000_000_000 + time.nanos as u128;
                if sender.send(now.saturating_sub(seen) as f64 / 1e6).is_err() {
                    return;
                }
            }
        });
    });
    lab.wait_traffic();
    daemon.settled();
    // What is in the store is sent at once; the API has no event for "nothing left".
    std::thread::sleep(Duration::from_millis(100));
    let mut times: Vec<f64> = receiver.try_iter().collect();
    times.sort_by(f64::total_cmp);
    println!("{} flows", times.len());
    times
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

fn full(cpu: usize) {
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("bench-full")).unwrap();
    let daemon = daemon(&lab, cpu, &["--aggregation", "none"]);
    let (before, started) = (cpu_seconds(daemon.pid()), Instant::now());
    flood(&mut lab, 2, FULL_PACKETS, FULL_SECONDS);
    lab.wait_traffic();
    let (took, used) = (started.elapsed().as_secs_f64(), cpu_seconds(daemon.pid()) - before);
    let sums = Sums::of(&daemon.settled());
    sums.check();
    row("events", sums.flows as f64 / took, "/s");
    row("events lost", sums.lost() as f64, "");
    row("events cpu", used / took * 100.0, "%");
    println!("{sums:?}");
}

fn idle(cpu: usize) {
    const LINKS: usize = 100;
    let mut text =
        "name = \"idle\"\n[outside]\naddresses = [\"192.168.50.1/24\"]\n[[nodes]]\nname = \"n1\"\n\
                    wiring = \"routed\"\naddresses = [\"192.168.50.11\"]\n"
            .to_owned();
    for pod in 0..LINKS {
        let ip = format!("10.244.1.{}", pod + 10);
        writeln!(text, "[[pods]]\nname = \"p{pod}\"\nnamespace = \"web\"\nnode = \"n1\"\nips = [\"{ip}\"]")
            .unwrap();
    }
    let lab = Lab::up(&Scenario::parse(&text, "idle").unwrap(), &unique_prefix("bench-idle")).unwrap();
    let daemon = daemon(&lab, cpu, &[]);
    let links = daemon.capture_status().links.len();
    assert!(links >= LINKS, "{links} links");
    let before = cpu_seconds(daemon.pid());
    std::thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let used = cpu_seconds(daemon.pid()) - before;
    row("idle cpu", used / IDLE_SECONDS as f64 * 100.0, "%");
    row("idle memory", resident_mb(&daemon), "MB");
}

/// How long a new pod's packets pass unseen and unjudged: from when its link is there until both programs are on it.
fn attach(cpu: usize) {
    const LINKS: usize = 120;
    const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                          metadata: {name: none, namespace: web}\nspec: {podSelector: {}}\n";
    let lab = empty_node("bench-attach");
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let daemon = daemon(
        &lab,
        cpu,
        &["--policy", policy.to_str().unwrap(), "--policy-mode", "enforce", "--allow-lockout"],
    );
    let pods = unique_prefix("bench-pods");
    let _namespaces = Namespaces::make(&pods, &[&pods]).unwrap();
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let times = netns::inside(&node, || {
        let on = |link: &str| {
            let hooks = [TcAttachType::Ingress, TcAttachType::Egress];
            let here = hooks.map(|hook| SchedClassifier::query_tcx(link, hook));
            // An error: the link is not there.
            here.iter().all(Result::is_ok).then(|| here.iter().flatten().all(|(_, all)| !all.is_empty()))
        };
        let of_link = |number: usize| {
            let link = format!("pod{number}");
            let (peer, pause) = (format!("eth{number}"), Duration::from_micros(10));
            let mut made = Command::new("ip")
                .args(["link", "add", &link, "type", "veth", "peer", "name", &peer, "netns", &pods])
                .spawn()
                .unwrap();
            while on(&link).is_none() {
                std::thread::sleep(pause);
            }
            let there = Instant::now();
            while on(&link) != Some(true) {
                std::thread::sleep(pause);
            }
            let took = there.elapsed();
            assert!(made.wait().unwrap().success());
            took.as_secs_f64() * 1e3
        };
        let mut times: Vec<f64> = (0..LINKS).map(of_link).collect();
        times.sort_by(f64::total_cmp);
        Ok(times)
    })
    .unwrap();
    row("attach p50", percentile(&times, 50), "ms");
    row("attach p99", percentile(&times, 99), "ms");
    assert!(daemon.stop().0.success());
    assert!(lab.command_in("n1", OBSERVER).arg("detach").output().unwrap().status.success());
}

/// What a request to nginx costs nginx and wrk, and the daemon, without `--l7` and with it, by turns.
fn nginx(cpu: usize) {
    const ROUNDS: usize = 5;
    const SCENARIO: &str = "name = 'nginx'\n[outside]\naddresses = ['192.168.50.1/24']\n\
         [[nodes]]\nname = 'n1'\nwiring = 'routed'\naddresses = ['192.168.50.11']\n\
         [[pods]]\nname = 'client'\nnamespace = 'web'\nnode = 'n1'\nips = ['10.244.1.10']\n\
         [[pods]]\nname = 'server'\nnamespace = 'shop'\nnode = 'n1'\nips = ['10.244.1.20']\n";
    if ["nginx", "wrk"].iter().any(|tool| Command::new(tool).arg("-v").output().is_err()) {
        println!(
            "nginx and wrk are not there (scripts/setup bench): what a request to nginx costs is not measured"
        );
        return;
    }
    let lab = Lab::up(&Scenario::parse(SCENARIO, "nginx").unwrap(), &unique_prefix("bench-nginx")).unwrap();
    let in_pod = |name: &str, program: &str| {
        let pod = lab.scenario().pods.iter().find(|pod| pod.name == name).unwrap();
        netns::command_in(&lab.pod_netns(pod), program)
    };
    let dir = tempfile::tempdir().unwrap();
    let (config, root) = (dir.path().join("nginx.conf"), dir.path().display());
    fs::write(dir.path().join("index.html"), [b'x'; 612]).unwrap();
    let text = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log {root}/access; server {{ listen 8080; root {root}; }} }}\n"
    );
    fs::write(&config, text).unwrap();
    let mut server = in_pod("server", "nginx").arg("-c").arg(&config).spawn().unwrap();
    let at = ("10.244.1.20", 8080);
    let space = lab.pod_netns(&lab.scenario().pods[1]).file_name().unwrap().to_string_lossy().into_owned();
    late::until("nginx", || netns::inside(&space, || Ok(TcpStream::connect(at).ok())).unwrap());
    // Microseconds of nginx and wrk, what the programs do to their packets included, and of the daemon.
    let round = |l7: &str| {
        let daemon = daemon(&lab, cpu, &["--l7", l7]);
        let (busy, own) = (busy_seconds(cpu), cpu_seconds(daemon.pid()));
        let told = in_pod("client", "wrk")
            .args(["--threads", "1", "--connections", "32", "--duration", "5s", "http://10.244.1.20:8080/"])
            .output()
            .unwrap();
        let (busy, own) = (busy_seconds(cpu) - busy, cpu_seconds(daemon.pid()) - own);
        let told = String::from_utf8(told.stdout).unwrap();
        let requests =
            told.lines().find_map(|line| line.split_once(" requests in")).map(|(count, _)| count.trim());
        let requests: f64 = requests.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told}"));
        let sums = Sums::of(&daemon.settled());
        println!("--l7 {l7}: {requests} requests, {busy:.2} s of others, {own:.2} s of the daemon, {sums:?}");
        [busy, own].map(|seconds| seconds * 1e6 / requests)
    };
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (l7, rounds) in ["off", "http"].into_iter().zip(&mut rounds) {
            rounds.push(round(l7));
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [without, with] =
        [0, 1].map(|l7: usize| median(rounds[l7].iter().map(|[others, _]| *others).collect()));
    // Of the two of each round, which follow one another: the machine may be slower for a while.
    let more = |cost: fn(&[f64; 2]) -> f64| {
        let ratios = rounds[0].iter().zip(&rounds[1]).map(|(off, on)| cost(on) / cost(off));
        (median(ratios.collect()) - 1.0) * 100.0
    };
    row("nginx request without l7", without, "us");
    row("nginx request with l7", with, "us");
    row("nginx request more", more(|[others, _]| *others), "%");
    row("nginx request of the daemon", median(rounds[1].iter().map(|[_, own]| *own).collect()), "us");
    row("nginx request more of all", more(|[others, own]| others + own), "%");
}

/// How long all processors but this one were busy so far.
fn busy_seconds(but: usize) -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let own = format!("cpu{but} ");
    let of_each = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let ticks: u64 = of_each
        .filter(|line| !line.starts_with(&own))
        // User, nice and system; idle and waiting; interrupts, hard and soft.
        .flat_map(|line| line.split_whitespace().skip(1).take(7).enumerate())
        .filter(|(field, _)| !matches!(field, 3 | 4))
        .map(|(_, ticks)| ticks.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Processor time that a process took so far, all threads: nanoseconds of each thread's first field in `schedstat`.
fn cpu_seconds(pid: Pid) -> f64 {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let of = |task: &Path| -> Option<u64> {
        fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let all: u64 = fs::read_dir(tasks).unwrap().filter_map(|task| of(&task.ok()?.path())).sum();
    all as f64 / 1e9
}

fn resident_mb(daemon: &Daemon) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

//! What a request through the proxy costs beside nginx as a plain reverse proxy: requests for each second of processor time, and
//! what they are later. Both run on the last processor, client and server on the others, by turns; the daemon's share has
//! all that it does, flows of each request included.

use crate::{cpu_seconds, daemon, late, row};
use observer_lab::{Lab, Scenario, netns, unique_prefix};
use rustix::process::Pid;
use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command},
};

const ROUNDS: usize = 5;
const SECONDS: &str = "3s";
const SCENARIO: &str = "name = 'proxy'\n[outside]\naddresses = ['192.168.50.1/24']\n\
     [[nodes]]\nname = 'n1'\nwiring = 'routed'\naddresses = ['192.168.50.11']\n\
     [[pods]]\nname = 'client'\nnamespace = 'web'\nnode = 'n1'\nips = ['10.244.1.10']\nlabels = { app = 'client' }\n\
     [[pods]]\nname = 'server'\nnamespace = 'shop'\nnode = 'n1'\nips = ['10.244.1.20']\nlabels = { app = 'server' }\n";
/// One port of the server is plain, and of the other requests are judged.
const POLICY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEntities: [all]
    toPorts: [{ports: [{port: "8081", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: client, "k8s:io.kubernetes.pod.namespace": web}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: "/.*"}]}
"#;
/// By which way, and where that begins.
const WAYS: [(&str, &str); 3] = [
    ("straight", "http://10.244.1.20:8081/"),
    ("nginx proxy", "http://192.168.50.11:9090/"),
    ("proxy", "http://10.244.1.20:8080/"),
];

/// What wrk told.
struct Told {
    requests: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
}

pub(crate) fn proxy(cpu: usize) {
    if ["nginx", "wrk"].iter().any(|tool| Command::new(tool).arg("-v").output().is_err()) {
        println!("nginx and wrk are not there (scripts/setup bench): what the proxy costs is not measured");
        return;
    }
    let lab = Lab::up(&Scenario::parse(SCENARIO, "proxy").unwrap(), &unique_prefix("bench-proxy")).unwrap();
    let pod = |name: &str| lab.pod_netns(lab.scenario().pods.iter().find(|pod| pod.name == name).unwrap());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), [b'x'; 612]).unwrap();
    let policies = tempfile::tempdir().unwrap();
    fs::write(policies.path().join("server.yaml"), POLICY).unwrap();
    let config = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text.replace("ROOT", &dir.path().to_string_lossy())).unwrap();
        file
    };
    let conf = config("server.conf", include_str!("server.conf"));
    let mut server = netns::command_in(&pod("server"), "nginx").arg("-c").arg(conf).spawn().unwrap();
    let conf = config("proxy.conf", include_str!("reverse_proxy.conf"));
    let mut command = lab.command_in("n1", "taskset");
    command.args(["--cpu-list", &cpu.to_string(), "nginx", "-c"]).arg(conf);
    let mut nginx = command.spawn().unwrap();
    is_there(&pod("server"), ("10.244.1.20", 8081));
    is_there(&lab.node_netns("n1"), ("192.168.50.11", 9090));
    let folder = policies.path().to_str().unwrap();
    let daemon =
        daemon(&lab, cpu, &["--policy", folder, "--policy-mode", "enforce", "--local-namespaces", "false"]);
    let pids = [None, Some(Pid::from_child(&nginx)), Some(daemon.pid())];
    let wrk = |url: &str, connections: &str| {
        let told = netns::command_in(&pod("client"), "wrk")
            .args(["--latency", "--threads", "1", "--connections", connections, "--duration", SECONDS, url])
            .output()
            .unwrap();
        read(&String::from_utf8(told.stdout).unwrap())
    };
    // By way: requests for each second of the proxy's processor time, and with one connection how late they are.
    let mut rounds: [Vec<[f64; 3]>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for ((&(way, url), pid), rounds) in WAYS.iter().zip(pids).zip(&mut rounds) {
            let before = pid.map_or(0.0, cpu_seconds);
            let many = wrk(url, "32");
            let took = pid.map_or(0.0, cpu_seconds) - before;
            let one = wrk(url, "1");
            println!(
                "{way}: {} requests in {took:.2} s of processor time, p50 {} us, p99 {} us",
                many.requests, one.p50, one.p99
            );
            rounds.push([many.requests / took, one.p50, one.p99]);
        }
    }
    end(&mut nginx);
    end(&mut server);
    let median = |way: usize, of: usize| {
        let mut all: Vec<f64> = rounds[way].iter().map(|round| round[of]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for (place, (way, _)) in WAYS.iter().enumerate().skip(1) {
        row(&format!("{way} requests"), median(place, 0), "/s");
        row(&format!("{way} added p50"), median(place, 1) - median(0, 1), "us");
        row(&format!("{way} added p99"), median(place, 2) - median(0, 2), "us");
    }
    row("proxy over nginx", median(2, 0) / median(1, 0), "x");
}

fn is_there(space: &Path, at: (&str, u16)) {
    let space = space.file_name().unwrap().to_string_lossy().into_owned();
    late::until("nginx", || netns::inside(&space, || Ok(TcpStream::connect(at).ok())).unwrap());
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Of what wrk says: how many requests there were, and the distribution of their times.
fn read(text: &str) -> Told {
    let wrong = ["Non-2xx", "Socket errors"].iter().any(|word| text.contains(word));
    assert!(!wrong, "{text}");
    let requests = text.lines().find_map(|line| line.split_once(" requests in")).unwrap().0.trim();
    let time = |part: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(part)).unwrap().trim();
        let at = found.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let scale = match &found[at..] {
            "us" => 1.0,
            "ms" => 1e3,
            _ => 1e6,
        };
        found[..at].parse::<f64>().unwrap() * scale
    };
    Told { requests: requests.parse().unwrap(), p50: time("50%"), p99: time("99%") }
}

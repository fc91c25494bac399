//! What a scraper gets of a daemon, and what a real Prometheus makes of it.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::netns;
use observer_proto::flow::Flow;
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE, can_run, get, sum};

/// As the documentation has it.
const ALL: &str = "drop:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity flow \
                   flows-to-world icmp policy port-distribution tcp";

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

/// A daemon that has played the demo, judged by its policies, with an export.
fn daemon() -> (Daemon, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(testdata("events/demo.rec")).args(["--speed", "max"]);
    for set in ["tenants", "payments", "web"] {
        command.arg("--policy").arg(testdata("policy/sets").join(set));
    }
    command.arg("--export-file-path").arg(dir.path().join("events.log"));
    command.args(["--metrics-server", "127.0.0.1:0", "--metrics", ALL]);
    let daemon = Daemon::spawn(command, dir);
    daemon.log_line("replayed ");
    let address = daemon.metrics_address();
    (daemon, address)
}

#[test]
fn a_scrape_agrees_with_the_api() {
    let (daemon, address) = daemon();
    let flows = daemon.flows();
    // The counting is a few milliseconds behind the store.
    let deadline = Instant::now() + PATIENCE;
    let page = loop {
        let (head, page) = get(address, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
        if sum(&page, "hubble_flows_processed_total", "") == flows.len() as u64 {
            break page;
        }
        assert!(Instant::now() < deadline, "{} flows:\n{page}", flows.len());
        std::thread::sleep(Duration::from_millis(20));
    };
    let dropped = flows.iter().filter(|flow| flow.verdict == 2).count() as u64;
    assert_eq!(sum(&page, "hubble_flows_processed_total", "verdict=\"DROPPED\""), dropped);
    // Hubble leaves out what the host sends.
    let is_host = |flow: &&Flow| flow.source.as_ref().is_some_and(|source| source.identity == 1);
    let verdicts = flows.iter().filter(|flow| flow.event_type.is_some_and(|kind| kind.r#type == 5));
    let verdicts = verdicts.filter(|flow| !is_host(flow)).count();
    assert_eq!(sum(&page, "hubble_policy_verdicts_total", ""), verdicts as u64);
    assert!(verdicts > 0 && sum(&page, "hubble_drop_total", "source=\"") >= dropped);
    let status = support::Sums::of(&daemon.settled());
    let told = sum(&page, "observer_events_total", "stage=\"pipeline\",kind=\"delivered\",cause=\"flows\"");
    assert_eq!(told, status.flows);
    assert_eq!(sum(&page, "observer_store_flows_seen_total", ""), flows.len() as u64);
    assert_eq!(sum(&page, "hubble_lost_events_total", ""), 0);
    for path in ["/healthz", "/readyz"] {
        assert!(get(address, path).0.starts_with("HTTP/1.1 200 "), "{path}");
    }
}

/// Ends with this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What Hubble's own dashboards ask for.
const HUBBLES: [&str; 11] = [
    "hubble_dns_queries_total",
    "hubble_dns_response_types_total",
    "hubble_dns_responses_total",
    "hubble_drop_total",
    "hubble_flows_processed_total",
    "hubble_http_request_duration_seconds_bucket",
    "hubble_http_requests_total",
    "hubble_http_responses_total",
    "hubble_icmp_total",
    "hubble_port_distribution_total",
    "hubble_tcp_flags_total",
];

#[test]
fn every_query_of_the_dashboards_finds_series() {
    let test = "every_query_of_the_dashboards_finds_series";
    if !can_run(test) {
        return;
    }
    let version =
        Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_err() {
        assert!(std::env::var_os("CI_NO_SKIP").is_none(), "SKIP: {test}: there is no prometheus");
        return eprintln!("SKIP: {test}: there is no prometheus");
    }
    let dir = tempfile::tempdir().unwrap();
    let exported = dir.path().join("events.log");
    let policies = ["tenants", "payments", "web"].map(|set| testdata("policy/sets").join(set));
    let mut arguments = vec!["--l7", "all", "--metrics-server", "127.0.0.1:9965"];
    let all = format!("{ALL} dns:query http:exemplars=true");
    arguments.extend(["--metrics", &all, "--export-file-path", exported.to_str().unwrap()]);
    for set in &policies {
        arguments.extend(["--policy", set.to_str().unwrap()]);
    }
    let (lab, daemon) = support::demo("dashboards", 2, &arguments);
    let config = dir.path().join("prometheus.yaml");
    let written = "scrape_configs:\n- job_name: observer\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  \
                   - targets: [\"127.0.0.1:9965\"]\n";
    fs::write(&config, written).unwrap();
    // In the node's own network, where nobody else listens.
    let address: SocketAddr = "127.0.0.1:9090".parse().unwrap();
    let prometheus = lab
        .command_in("n1", "prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Killed(prometheus);
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/observer.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(dashboard).unwrap()).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().map(|target| {
        target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$instance", ".*")
    });
    let mut missing: Vec<String> = queries.chain(HUBBLES.map(str::to_owned)).collect();
    assert!(missing.len() > 12 + HUBBLES.len());
    let node = lab.node_netns("n1").file_name().unwrap().to_str().unwrap().to_owned();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{missing:#?}; log:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
        netns::inside(&node, || {
            missing.retain(|query| !finds_series(address, query));
            Ok(())
        })
        .unwrap();
    }
    for line in fs::read_to_string(&exported).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["flow"]["verdict"].is_string(), "{line}");
    }
}

fn finds_series(prometheus: SocketAddr, query: &str) -> bool {
    let encoded = query.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"));
    // It takes a while until it listens.
    if TcpStream::connect(prometheus).is_err() {
        return false;
    }
    let (head, body) = get(prometheus, &format!("/api/v1/query?query={encoded}"));
    assert!(!head.starts_with("HTTP/1.1 4"), "{query}: {body}");
    let answer: Value = body.find('{').map_or(Value::Null, |start| {
        let end = body.rfind('}').map_or(start, |end| end + 1);
        serde_json::from_str(&body[start..end]).unwrap_or_default()
    });
    answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty())
}

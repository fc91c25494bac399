//! What a scraper gets of a daemon, and what a real Prometheus makes of it.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_proto::flow::Flow;
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE};

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
    let ready = daemon.log_line(" ready ");
    let address = ready.split("metrics=").nth(1).unwrap().split(' ').next().unwrap();
    (daemon, address.parse().unwrap())
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The sum of a metric's samples with this text in their labels.
fn sum(page: &str, metric: &str, with: &str) -> u64 {
    let is_of = |line: &&str| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(with)
    };
    page.lines().filter(is_of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
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

#[test]
fn every_query_of_the_dashboard_finds_series() {
    let test = "every_query_of_the_dashboard_finds_series";
    if Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        assert!(std::env::var_os("CI_NO_SKIP").is_none(), "SKIP: {test}: there is no prometheus");
        return eprintln!("SKIP: {test}: there is no prometheus");
    }
    let (daemon, scraped) = daemon();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yaml");
    let written = format!(
        "scrape_configs:\n- job_name: observer\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  \
         - targets: [\"{scraped}\"]\n"
    );
    fs::write(&config, written).unwrap();
    // Prometheus does not tell which port it was given.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prometheus = Command::new("prometheus")
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
    let panels = dashboard["panels"].as_array().unwrap();
    let mut missing: Vec<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| {
            target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$instance", ".*")
        })
        .collect();
    assert!(missing.len() > 12);
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{missing:#?}; log:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
        missing.retain(|query| !finds_series(address, query));
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

//! The real OpenTelemetry Collector, which prints what it is sent.

use crate::{
    programs::testdata,
    support::{Daemon, OBSERVER, late},
    tally::{Outcome, Tally, same},
};
use observer_proto::{control::counter::Kind, flow::Flow};
use rustix::process::{Pid, Signal};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A Collector's place, whether one runs there or not.
struct Place {
    dir: TempDir,
    address: SocketAddr,
    /// How many have run here.
    lives: usize,
    running: Option<Child>,
}

impl Place {
    /// With this for the receiver's `tls`.
    fn new(tls: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // It does not tell which port it was given.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{address}\"{tls}}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}, logs: {{sampling: {{enabled: false}}}}}}\n  \
             pipelines: {{logs: {{receivers: [otlp], exporters: [debug]}}}}\n"
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        Self { dir, address, lives: 0, running: None }
    }

    fn log(&self, life: usize) -> PathBuf {
        self.dir.path().join(format!("log-{life}"))
    }

    fn start(&mut self) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop/otlp-collector");
        assert!(program.exists(), "{} is missing: make interop builds it", program.display());
        let log = File::create(self.log(self.lives)).unwrap();
        self.lives += 1;
        let child = Command::new(program)
            .arg("--config")
            .arg(self.dir.path().join("config.yaml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.running = Some(child.unwrap());
        until("the Collector", || TcpStream::connect(self.address).is_ok());
    }

    fn stop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// All that was printed.
    fn printed(&self) -> String {
        (0..self.lives).map(|life| fs::read_to_string(self.log(life)).unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    late::until(what, || holds().then_some(()));
}

/// A daemon that plays the demo at this speed and sends it there.
fn sending(place: &Place, scheme: &str, speed: &str, more: &[&str]) -> Daemon {
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(testdata("events/demo.rec")).args(["--speed", speed]);
    command.args(["--export-otlp-endpoint", &format!("{scheme}://{}", place.address)]).args(more);
    Daemon::spawn(command, tempfile::tempdir().unwrap())
}

fn count(daemon: &Daemon, kind: Kind, cause: &str) -> u64 {
    let status = daemon.capture_status();
    let counters = status.counters.iter();
    let of_it = |counter: &&observer_proto::control::Counter| {
        counter.stage == "export otlp" && counter.kind() == kind && counter.cause == cause
    };
    counters.filter(of_it).map(|counter| counter.value).sum()
}

/// Waits until all flows are sent; the flows.
fn all_sent(daemon: &Daemon) -> Vec<Flow> {
    daemon.log_line("replayed ");
    let flows = daemon.flows();
    until("all records", || count(daemon, Kind::Delivered, "lines") == flows.len() as u64);
    for cause in
        ["overwritten before they were written", "not written at the end", "refused by the collector"]
    {
        assert_eq!(count(daemon, Kind::Lost, cause), 0, "{cause}");
    }
    flows
}

/// The values of an attribute in what was printed.
fn values<'a>(printed: &'a str, attribute: &str) -> Vec<&'a str> {
    let before = format!("-> {attribute}: Str(");
    printed.lines().filter_map(|line| line.split_once(&before)?.1.strip_suffix(')')).collect()
}

/// Each flow is a record, once.
fn each_once(printed: &str, flows: &[Flow]) -> Outcome {
    let mut found = values(printed, "log.record.uid");
    let mut wanted: Vec<&str> = flows.iter().map(|flow| flow.uuid.as_str()).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    same("records", &found.join("\n"), &wanted.join("\n"))?;
    same("their number", &printed.matches("\nLogRecord #").count().to_string(), &wanted.len().to_string())
}

#[test]
fn the_collector_gets_each_flow_once() {
    let mut place = Place::new("");
    place.start();
    let more = [
        "--export-otlp-headers",
        "authorization=Bearer secret",
        "--export-otlp-resource-attributes",
        "deployment.environment=lab",
    ];
    let daemon = sending(&place, "http", "max", &more);
    let flows = all_sent(&daemon);
    place.stop();
    let (printed, mut tally) = (place.printed(), Tally::default());
    tally.case("otlp", "the Collector gets each flow once", each_once(&printed, &flows));
    let of_verdict =
        |verdict: &str| values(&printed, "flow.verdict").iter().filter(|v| **v == verdict).count();
    let dropped = flows.iter().filter(|flow| flow.verdict().as_str_name() == "DROPPED").count();
    assert!(dropped > 0);
    let outcome = same("dropped", &of_verdict("DROPPED").to_string(), &dropped.to_string());
    tally.case("otlp", "verdicts are attributes", outcome);
    for (attribute, value) in [
        ("service.name", "observer"),
        ("k8s.node.name", "n1"),
        ("deployment.environment", "lab"),
        ("source.k8s.pod.name", "frontend-app-7b5b9c6d4-x2x9z"),
        ("network.transport", "tcp"),
        ("network.io.direction", "receive"),
    ] {
        let found = values(&printed, attribute);
        let outcome = if found.contains(&value) {
            Ok(())
        } else {
            Err(format!("no {attribute} is {value}: {found:?}"))
        };
        tally.case("otlp", attribute, outcome);
    }
    assert!(!daemon.log().contains("secret"));
}

#[test]
fn nothing_is_lost_while_the_collector_restarts() {
    let mut place = Place::new("");
    let daemon = sending(&place, "http", "2", &[]);
    let troubles = || daemon.log().matches("cannot write: ").count();
    let recoveries = || daemon.log().matches("writes again after ").count();
    for life in 1..=3 {
        until("the trouble", || troubles() >= life);
        place.start();
        until("the recovery", || recoveries() >= life);
        if life < 3 {
            place.stop();
        }
    }
    let flows = all_sent(&daemon);
    place.stop();
    let printed = place.printed();
    // What the Collector had taken when its answer was lost is sent again.
    let found: BTreeSet<&str> = values(&printed, "log.record.uid").into_iter().collect();
    let wanted: BTreeSet<&str> = flows.iter().map(|flow| flow.uuid.as_str()).collect();
    let outcome = if found == wanted { Ok(()) } else { Err(format!("{} of {}", found.len(), wanted.len())) };
    Tally::default().case("otlp", "nothing is lost while the Collector restarts", outcome);
}

#[test]
fn the_collector_is_spoken_to_in_tls() {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut place = Place::new(", tls: {cert_file: CERT, key_file: KEY}");
    let files = ["cert.pem", "key.pem"].map(|name| place.dir.path().join(name));
    fs::write(&files[0], issued.cert.pem()).unwrap();
    fs::write(&files[1], issued.signing_key.serialize_pem()).unwrap();
    let config = place.dir.path().join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let [cert, key] = files.each_ref().map(|file| format!("\"{}\"", file.display()));
    fs::write(&config, text.replace("CERT", &cert).replace("KEY", &key)).unwrap();
    place.start();
    let daemon = sending(&place, "https", "max", &["--export-otlp-ca-file", files[0].to_str().unwrap()]);
    let flows = all_sent(&daemon);
    place.stop();
    Tally::default().case("otlp", "with TLS", each_once(&place.printed(), &flows));
}

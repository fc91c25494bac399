//! A daemon in a lab's node, and what a client sees of it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use observer_lab::{Lab, Scenario, unique_prefix};
use observer_proto::{
    control::{CaptureStatusRequest, CaptureStatusResponse, control_client::ControlClient},
    flow::Flow,
    observer::{
        GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
};
use prost::Message as _;
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

/// The program under test.
pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// Whether kernel tests can run here; says why not. `CI_NO_SKIP` makes a skip a failure.
pub(crate) fn can_run(test: &str) -> bool {
    let problem = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "this kernel has no BTF"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI_NO_SKIP").is_none(), "SKIP: {test}: {problem}");
    eprintln!("SKIP: {test}: {problem}");
    false
}

/// A scenario of `testdata/lab`.
pub(crate) fn scenario(name: &str) -> Scenario {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/lab").join(name);
    Scenario::load(&file).unwrap()
}

/// A daemon in a node of a lab; ends with this value.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) dir: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    /// Starts it in `node` with the lab's inventory and waits until it says that it is ready.
    pub(crate) fn start(lab: &Lab, node: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inventory = dir.path().join("inventory.yaml");
        lab.write_inventory(&inventory).unwrap();
        let mut command = lab.command_in(node, OBSERVER);
        command.arg("--node-name").arg(node).arg("--inventory").arg(inventory).args(args);
        Self::spawn(command, dir)
    }

    /// Starts this command with sockets in `dir` and waits until it is ready.
    pub(crate) fn spawn(mut command: Command, dir: TempDir) -> Self {
        command.arg("--socket").arg(dir.path().join("hubble.sock")).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, wait) = mpsc::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("ready") {
                    let _ = ready.send(());
                }
                lines.lock().unwrap().push(line);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let daemon = Self { child, dir, log, runtime };
        let is_ready = wait.recv_timeout(Duration::from_secs(30)).is_ok();
        assert!(is_ready, "the daemon is not ready:\n{}", daemon.log());
        daemon
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    fn channel(&self, socket: &str) -> Channel {
        let path: PathBuf = self.dir.path().join(socket);
        let _guard = self.runtime.enter();
        Endpoint::from_shared(format!("unix://{}", path.display())).unwrap().connect_lazy()
    }

    /// All flows of a request that ends by itself.
    pub(crate) fn responses(&self, request: GetFlowsRequest) -> Vec<GetFlowsResponse> {
        let mut client = ObserverClient::new(self.channel("hubble.sock"));
        self.runtime.block_on(async {
            let mut stream = client.get_flows(request).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(response) = stream.next().await {
                all.push(response.unwrap());
            }
            all
        })
    }

    /// Everything the store holds. Panics if a part of it was lost.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let request = GetFlowsRequest { number: u64::MAX, ..GetFlowsRequest::default() };
        let flow = |response: GetFlowsResponse| match response.response_types {
            Some(ResponseTypes::Flow(flow)) => flow,
            other => panic!("no flow but {other:?}"),
        };
        self.responses(request).into_iter().map(flow).collect()
    }

    /// Flows, once nothing is `missing` in them; panics with what is after 15 seconds.
    pub(crate) fn flows_until(&self, missing: impl Fn(&[Flow]) -> Option<String>) -> Vec<Flow> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let flows = self.flows();
            let Some(missing) = missing(&flows) else { return flows };
            assert!(
                Instant::now() < deadline,
                "{missing}: not in {} flows; log:\n{}",
                flows.len(),
                self.log()
            );
            // The API has no event for "no more flows"; what is waited for may also be the absence of one.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The state of the capture.
    pub(crate) fn capture_status(&self) -> CaptureStatusResponse {
        let mut client = ControlClient::new(self.channel("control.sock"));
        self.runtime.block_on(client.capture_status(CaptureStatusRequest {})).unwrap().into_inner()
    }

    /// SIGTERM, then its exit status and how long it took.
    pub(crate) fn stop(mut self) -> (std::process::ExitStatus, Duration) {
        let started = Instant::now();
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (status, started.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// `namespace/name` of an end, or its address.
pub(crate) fn name(endpoint: Option<&observer_proto::flow::Endpoint>, ip: &str) -> String {
    match endpoint {
        Some(endpoint) if !endpoint.pod_name.is_empty() => {
            format!("{}/{}", endpoint.namespace, endpoint.pod_name)
        }
        _ => ip.to_owned(),
    }
}

/// What a flow's `extensions` hold, as text by key.
pub(crate) fn extensions(flow: &Flow) -> HashMap<String, String> {
    use prost_types::value::Kind;
    let Some(any) = &flow.extensions else { return HashMap::new() };
    let fields = prost_types::Struct::decode(&any.value[..]).unwrap().fields;
    let text = |value: prost_types::Value| match value.kind {
        Some(Kind::StringValue(text)) => text,
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    };
    fields.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// A node with nothing on it but its uplink, for what needs no traffic.
pub(crate) fn empty_node(name: &str) -> Lab {
    let text = "name = \"empty\"\n[outside]\naddresses = [\"192.168.50.1/24\"]\n\
                [[nodes]]\nname = \"n1\"\nwiring = \"routed\"\naddresses = [\"192.168.50.11\"]\n";
    Lab::up(&Scenario::parse(text, name).unwrap(), &unique_prefix(name)).unwrap()
}

impl Daemon {
    /// A line of the log with `text` in it; panics after 15 seconds without.
    pub(crate) fn log_line(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let found = self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
            if let Some(line) = found {
                return line;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a client of the read-only socket.
    pub(crate) fn call<T>(&self, client: impl AsyncFnOnce(Channel) -> T) -> T {
        self.runtime.block_on(client(self.channel("hubble.sock")))
    }
}

/// The demo's node after each kind of its traffic was played `count` times, with the daemon that saw it.
pub(crate) fn demo(name: &str, count: u64, args: &[&str]) -> (Lab, Daemon) {
    let mut lab = Lab::up(&scenario("demo.toml"), &unique_prefix(name)).unwrap();
    let daemon = Daemon::start(&lab, "n1", args);
    for mut traffic in lab.scenario().traffic.clone() {
        (traffic.count, traffic.interval_ms, traffic.delay_ms) = (Some(count), 0, 0);
        lab.play(traffic).unwrap();
    }
    lab.wait_traffic();
    let odd: Vec<_> = lab.ledger().into_iter().filter(|entry| !entry.as_expected()).collect();
    assert!(odd.is_empty(), "the lab itself is not as expected: {odd:?}");
    (lab, daemon)
}

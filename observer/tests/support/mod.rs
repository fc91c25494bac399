//! A daemon in a lab's node, and what a client sees of it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod disk;
pub(crate) mod late;

use observer_lab::{Lab, Scenario, unique_prefix};
use observer_proto::{
    control::{
        CaptureStatusRequest, CaptureStatusResponse, ListPoliciesRequest, ListPoliciesResponse,
        SetPolicyModeRequest, SetPolicyModeResponse, control_client::ControlClient, counter::Kind,
        policy::Mode,
    },
    flow::{Flow, TcpFlags, layer4::Protocol},
    observer::{
        GetFlowsRequest, GetFlowsResponse, ServerStatusRequest, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

/// How long what must come is waited for: far longer than it takes on a machine that does much else. Only a test that fails
/// waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

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

/// How much of something: the usual amount, or with `SOAK` set, as `make soak` does, all of it.
pub(crate) fn scaled<T>(usual: T, all: T) -> T {
    if std::env::var_os("SOAK").is_some() { all } else { usual }
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
    pub(crate) fn spawn(command: Command, dir: TempDir) -> Self {
        let daemon = Self::launch(command, dir);
        daemon.log_line(" ready ");
        daemon
    }

    /// Starts this command with sockets in `dir`, and does not wait.
    pub(crate) fn launch(mut command: Command, dir: TempDir) -> Self {
        command.arg("--socket").arg(dir.path().join("hubble.sock")).stderr(Stdio::piped());
        command.env("OBSERVER_STATE_DIR", dir.path().join("state"));
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { child, dir, log, runtime }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The same, also of what it logs when it ends.
    pub(crate) fn log_handle(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.log)
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

    /// Flows, once nothing is `missing` in them; panics with what is after [`PATIENCE`].
    pub(crate) fn flows_until(&self, missing: impl Fn(&[Flow]) -> Option<String>) -> Vec<Flow> {
        let deadline = Instant::now() + PATIENCE;
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

    /// The policies in force.
    pub(crate) fn policies(&self) -> ListPoliciesResponse {
        let mut client = ControlClient::new(self.channel("control.sock"));
        self.runtime.block_on(client.list_policies(ListPoliciesRequest::default())).unwrap().into_inner()
    }

    /// Says the mode of a policy; `Unknown` takes it back.
    pub(crate) fn set_mode(&self, namespace: &str, name: &str, mode: Mode) -> SetPolicyModeResponse {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let request =
            SetPolicyModeRequest { namespace, name, mode: mode.into(), ..SetPolicyModeRequest::default() };
        let mut client = ControlClient::new(self.channel("control.sock"));
        self.runtime.block_on(client.set_policy_mode(request)).unwrap().into_inner()
    }

    /// The state of the capture once everything that was made is in the store. Traffic must have ended.
    pub(crate) fn settled(&self) -> CaptureStatusResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.capture_status();
            let sums = Sums::of(&status);
            // A batch that is under way is made and not delivered, and so may be a record of what the network says by
            // itself: the counters are read one after the other.
            if sums.in_the_rings() == 0 && sums.waiting == 0 && sums.balance() {
                return status;
            }
            assert!(Instant::now() < deadline, "the rings never empty: {sums:?}");
            // The API has no event for "nothing left".
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Flows given to the store so far.
    pub(crate) fn seen(&self) -> u64 {
        let mut client = ObserverClient::new(self.channel("hubble.sock"));
        let status = self.runtime.block_on(client.server_status(ServerStatusRequest {})).unwrap();
        status.into_inner().seen_flows
    }

    /// Reads a request that follows in a thread of its own; returns once the server has accepted it.
    pub(crate) fn follow(&self, request: GetFlowsRequest) -> Follower {
        let path = self.dir.path().join("hubble.sock");
        let (sender, responses) = mpsc::channel();
        let (accepted, wait) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let open = Arc::clone(&gate);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
                let mut client = ObserverClient::new(endpoint.connect().await.unwrap());
                let mut stream = client.get_flows(request).await.unwrap().into_inner();
                accepted.send(()).unwrap();
                // The receiver may have seen enough.
                while let Some(response) = stream.next().await {
                    if sender.send(response).is_err() {
                        break;
                    }
                    drop(open.lock().unwrap());
                }
            });
        });
        wait.recv_timeout(PATIENCE).unwrap();
        Follower { responses, gate }
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        std::fs::read_dir(dir).unwrap().count()
    }

    /// What the kernel tells of each open file.
    fn file_infos(&self) -> Vec<String> {
        let files = std::fs::read_dir(format!("/proc/{}/fdinfo", self.pid().as_raw_nonzero())).unwrap();
        // One may be closed meanwhile.
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect()
    }

    /// What it holds of the kernel's: ids of `prog`, `map` and `link`, by that word.
    pub(crate) fn bpf_ids(&self) -> BTreeMap<&'static str, BTreeSet<u32>> {
        let infos = self.file_infos();
        let ids =
            |what: &str| infos.iter().filter_map(|info| info_number(info, &format!("{what}_id"))).collect();
        ["prog", "map", "link"].map(|what| (what, ids(what))).into()
    }

    /// Ids of its attachments to the link with this index.
    pub(crate) fn attached(&self, index: u32) -> Vec<u32> {
        let infos = self.file_infos();
        let here = infos.iter().filter(|info| info_number(info, "ifindex") == Some(index));
        here.filter_map(|info| info_number(info, "link_id")).collect()
    }

    /// SIGTERM, then its exit status and how long it took.
    pub(crate) fn stop(self) -> (std::process::ExitStatus, Duration) {
        let (status, took, _) = self.end(rustix::process::Signal::TERM);
        (status, took)
    }

    /// Sends it a signal; its exit status, how long it took, and the directory of its sockets.
    pub(crate) fn end(
        mut self,
        signal: rustix::process::Signal,
    ) -> (std::process::ExitStatus, Duration, TempDir) {
        let started = Instant::now();
        rustix::process::kill_process(self.pid(), signal).unwrap();
        let status = self.child.wait().unwrap();
        let took = started.elapsed();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (status, took, dir)
    }
}

/// A stream that goes on.
pub(crate) struct Follower {
    /// What came; closed when the stream has ended.
    pub(crate) responses: mpsc::Receiver<Result<GetFlowsResponse, tonic::Status>>,
    /// While it is locked, nothing is read: a client that is too slow.
    pub(crate) gate: Arc<Mutex<()>>,
}

/// The number behind `key` in a file of `/proc/<pid>/fdinfo`.
fn info_number(info: &str, key: &str) -> Option<u32> {
    let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.map(|number| number.trim().parse().unwrap())
}

impl Follower {
    /// Reads until one that `wanted` takes; panics after [`PATIENCE`].
    pub(crate) fn until<T>(&self, what: &str, mut wanted: impl FnMut(ResponseTypes) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let response = self.responses.recv_timeout(left);
            let response = response.unwrap_or_else(|_| panic!("{what}: it did not come")).unwrap();
            if let Some(found) = response.response_types.and_then(&mut wanted) {
                return found;
            }
        }
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

/// The head and the body that a server of HTTP answers with.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    get_as(address, path, "*/*")
}

/// As [`get`], asked for in this form.
pub(crate) fn get_as(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The sum of a metric's samples with this text in their labels.
pub(crate) fn sum(page: &str, metric: &str, with: &str) -> u64 {
    let is_of = |line: &&str| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(with)
    };
    // An example stands behind the value.
    let value = |line: &str| line.split(" # ").next()?.rsplit(' ').next()?.parse::<u64>().ok();
    page.lines().filter(is_of).map(|line| value(line).unwrap()).sum()
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
    /// A line of the log with `text` in it; panics after [`PATIENCE`] without.
    pub(crate) fn log_line(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
            if let Some(line) = found {
                return line;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it serves metrics.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        let ready = self.log_line(" ready ");
        ready.split("metrics=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// Runs a client of the control socket.
    pub(crate) fn control<T>(&self, client: impl AsyncFnOnce(Channel) -> T) -> T {
        self.runtime.block_on(client(self.channel("control.sock")))
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

/// A packet's ends as its headers say, with the protocol. Ports are 0 for ICMP.
pub(crate) type Ends = (u8, SocketAddr, SocketAddr);

pub(crate) fn ends(flow: &Flow) -> Option<Ends> {
    let ip = flow.ip.as_ref()?;
    let (protocol, source_port, destination_port) = match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => (6, tcp.source_port, tcp.destination_port),
        Protocol::Udp(udp) => (17, udp.source_port, udp.destination_port),
        Protocol::IcmPv4(_) => (1, 0, 0),
        Protocol::IcmPv6(_) => (58, 0, 0),
        _ => return None,
    };
    let end = |ip: &str, port: u32| Some(SocketAddr::new(ip.parse().ok()?, u16::try_from(port).ok()?));
    Some((protocol, end(&ip.source, source_port)?, end(&ip.destination, destination_port)?))
}

/// A segment behind the end of its connection, for which there is no socket any more: the kernel does drop it, where one
/// end is that much slower than the other.
pub(crate) fn is_late_segment(flow: &Flow) -> bool {
    let no_socket = extensions(flow).get("kernel_drop_reason").is_some_and(|reason| reason == "NO_SOCKET");
    let protocol = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    let opens = |flags: Option<TcpFlags>| flags.is_some_and(|flags| flags.syn);
    no_socket && matches!(protocol, Some(Protocol::Tcp(tcp)) if !opens(tcp.flags))
}

/// The capture's counters, stage by stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Made, delivered and lost of each stage.
    pub(crate) stages: BTreeMap<String, [u64; 3]>,
    /// By stage and cause.
    pub(crate) suppressed: BTreeMap<(String, String), u64>,
    pub(crate) waiting: u64,
    /// Given to the store.
    pub(crate) flows: u64,
    told_elsewhere: u64,
}

impl Sums {
    pub(crate) fn of(status: &CaptureStatusResponse) -> Self {
        let mut sums = Self::default();
        for counter in &status.counters {
            let place = match counter.kind() {
                Kind::Made => 0,
                Kind::Delivered => 1,
                Kind::Lost => 2,
                Kind::Suppressed => {
                    sums.suppressed.insert((counter.stage.clone(), counter.cause.clone()), counter.value);
                    continue;
                }
                Kind::Unknown => panic!("{counter:?}"),
            };
            sums.stages.entry(counter.stage.clone()).or_default()[place] += counter.value;
            match counter.cause.as_str() {
                "waiting for conntrack" => sums.waiting = counter.value,
                "flows" => sums.flows = counter.value,
                _ => {}
            }
        }
        sums.told_elsewhere = sums.suppressed("pipeline", "told at another point");
        sums
    }

    pub(crate) fn suppressed(&self, stage: &str, cause: &str) -> u64 {
        self.suppressed.get(&(stage.to_owned(), cause.to_owned())).copied().unwrap_or(0)
    }

    /// Delivered by the programs or a sweep, and not taken by the pipeline yet. Facts are delivered to the sweep; policies'
    /// verdicts are of no record.
    pub(crate) fn in_the_rings(&self) -> i128 {
        let before = |stage: &&String| {
            !["facts", "pipeline", "policy", "proxy", "l7", "history"].contains(&stage.as_str())
                && !stage.starts_with("export ")
        };
        let delivered: u64 =
            self.stages.iter().filter(|(stage, _)| before(stage)).map(|(_, [_, d, _])| d).sum();
        i128::from(delivered) - i128::from(self.stages["pipeline"][0]) - i128::from(self.told_elsewhere)
    }

    fn balance(&self) -> bool {
        self.stages.values().all(|[made, delivered, lost]| *made == delivered + lost)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.stages.values().map(|[.., lost]| lost).sum()
    }

    /// Holds that made = delivered + lost in every stage, to the unit. To be called on a settled state.
    pub(crate) fn check(&self) {
        for (stage, [made, delivered, lost]) in &self.stages {
            assert_eq!(*made, delivered + lost, "{stage}: made = delivered + lost; {self:?}");
        }
        assert_eq!(self.in_the_rings(), 0, "{self:?}");
    }
}

//! A server in this process, with a store to fill.

use crate::support::PATIENCE;
use observer::{
    pipeline::replay_bytes,
    serve::{CaptureInfo, Counters, NodeInfo, Refusal, ServeConfig, Server, start},
    store::{Cursor, Step, Store, StoreConfig, Writer},
};
use observer_proto::{
    control::CaptureStatusResponse,
    observer::{
        GetFlowsRequest, GetFlowsResponse, ServerStatusRequest, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Flows that the store holds.
pub(crate) const CAPACITY: usize = 4096;

pub(crate) struct Capture;

impl CaptureInfo for Capture {
    fn capture_status(&self) -> CaptureStatusResponse {
        CaptureStatusResponse::default()
    }
}

/// A running server. One at a time: open files and memory are the whole process's.
pub(crate) struct Bed {
    pub(crate) runtime: Runtime,
    pub(crate) server: Server,
    pub(crate) store: Arc<Store>,
    writer: Mutex<Writer>,
    recorded: Arc<Store>,
    pub(crate) directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    /// Serves on a unix socket and on TCP, which is plain unless `change` says otherwise.
    pub(crate) fn start(change: impl FnOnce(&mut ServeConfig)) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        raise_file_limit();
        let directory = tempfile::tempdir().unwrap();
        let node = NodeInfo {
            cluster: "default".into(),
            name: "n1".into(),
            labels: vec![].into(),
            version: "0.1.0".into(),
        };
        let mut config = ServeConfig {
            socket: directory.path().join("hubble.sock"),
            control_socket: directory.path().join("control.sock"),
            group: "root".into(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            insecure: true,
            ..ServeConfig::new(node)
        };
        change(&mut config);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (store, writer) = Store::new(StoreConfig { flows: CAPACITY, bytes: usize::MAX });
        let server = runtime.block_on(start(config, Arc::clone(&store), Arc::new(Capture))).unwrap();
        let writer = Mutex::new(writer);
        Self { runtime, server, store, writer, recorded: recorded_flows(), directory, _alone: alone }
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.server.counters()
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.server.tcp_address().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("hubble.sock")
    }

    /// A connection of its own over the unix socket, with HTTP/2's smallest windows: what is not read stays with the
    /// server.
    pub(crate) async fn client(&self) -> ObserverClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        ObserverClient::new(endpoint.connect().await.unwrap())
    }

    /// Stores so many flows.
    pub(crate) fn push(&self, count: usize) {
        let mut writer = self.writer.lock().unwrap();
        let mut cursor = Cursor::new(Arc::clone(&self.recorded), 0);
        for _ in 0..count {
            if let Step::Flow(stored) = cursor.step() {
                writer.push(&stored.flow());
            }
            if cursor.position() == self.recorded.seen() {
                cursor = Cursor::new(Arc::clone(&self.recorded), 0);
            }
        }
        writer.publish();
    }

    /// Whether somebody who behaves is served.
    pub(crate) fn serves(&self) {
        self.runtime.block_on(async {
            self.client().await.server_status(ServerStatusRequest {}).await.unwrap();
        });
    }

    /// Runs it again and again, and holds that a round leaves nothing: no file, no connection, no stream, and not more than
    /// `most_bytes` of memory. The first is for what is made once; the allocator may need a few more until it has its
    /// size, so that what grows is what grows in each.
    pub(crate) fn leaves_nothing(&self, most_bytes: u64, mut round: impl FnMut()) {
        const ROUNDS: usize = 4;
        let tasks = || self.runtime.metrics().num_alive_tasks();
        let before = tasks();
        let mut round = || {
            round();
            until("every connection is over", || self.counters().connections() == 0);
            // Their streams end with tasks of their own.
            until("every stream is over", || self.counters().streams() == 0);
            // The client's ends are closed by tasks of their own.
            until("every task is over", || tasks() <= before);
        };
        round();
        let files = open_files();
        let mut memory = resident_bytes();
        for left in (0..ROUNDS).rev() {
            round();
            until("no file is left open", || open_files() == files);
            let grown = resident_bytes().saturating_sub(memory);
            if grown <= most_bytes {
                return;
            }
            assert!(left > 0, "memory grows by {grown} bytes each time");
            memory += grown;
        }
    }

    /// Waits until so many connections were refused for this reason.
    pub(crate) fn refused(&self, reason: Refusal, count: u64) {
        until(reason.text(), || self.counters().refused(reason) >= count);
        assert_eq!(self.counters().refused(reason), count, "{reason}");
    }
}

/// Waits for what has no event; panics after [`PATIENCE`].
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Flows as they are: with names, labels and extensions.
fn recorded_flows() -> Arc<Store> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/events/demo.rec");
    let store = StoreConfig { flows: CAPACITY, bytes: usize::MAX };
    let (store, ..) = replay_bytes(&std::fs::read(file).unwrap(), store).unwrap();
    assert!(!store.is_empty());
    store
}

pub(crate) fn follow() -> GetFlowsRequest {
    GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }
}

/// What a follower got.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) flows: u64,
    pub(crate) lost: u64,
    /// Messages that told of losses.
    pub(crate) told: u64,
}

impl Got {
    /// Takes in one message.
    pub(crate) async fn next(&mut self, stream: &mut Streaming<GetFlowsResponse>) -> Result<(), Status> {
        match stream.message().await?.expect("a stream that follows does not end").response_types.unwrap() {
            ResponseTypes::Flow(_) => self.flows += 1,
            ResponseTypes::LostEvents(event) => {
                self.lost += event.num_events_lost;
                self.told += 1;
            }
            ResponseTypes::NodeStatus(status) => panic!("{status:?}"),
        }
        Ok(())
    }

    /// Reads until all of these are accounted for, to the unit.
    pub(crate) async fn until(&mut self, stream: &mut Streaming<GetFlowsResponse>, all: u64) {
        while self.flows + self.lost < all {
            self.next(stream).await.unwrap();
        }
        assert_eq!(self.flows + self.lost, all, "{self:?}");
    }
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

//! The daemon's server over its stages, with the world of `benches/support/world.rs` in the place of the kernel: what `make
//! bench-peer` measures beside Hubble's own server (testdata/peer-bench). The daemon has none of this.
//!
//! `peer_server GRPC CONTROL FLOWS` serves gRPC and, over HTTP, `/stats`, `/feed?rate=R&secs=S` (R 0: as fast as it goes) and
//! `/quit`, and stores FLOWS flows at first; with 0 it has no records to feed, and is idle. It feeds as Hubble's does: what is due, every 200 microseconds.
#![expect(clippy::unwrap_used, reason = "a bench stops where something is not as it should be")]

#[path = "../benches/support/mod.rs"]
mod support;

use observer::{
    capture,
    decode::Clock,
    pipeline::Feed,
    recording::{Head, Input},
    serve::{self, CaptureInfo, ServeConfig},
    store::{Store, StoreConfig},
    track::Update,
};
use observer_ebpf::{Header, proxy::LinkWay};
use observer_proto::control::CaptureStatusResponse;
use std::{
    borrow::Cow,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use support::world::World;
use tikv_jemallocator::Jemalloc;
use zerocopy::FromBytes as _;

/// The daemon's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Hubble's ring can't be larger.
const FLOWS: usize = 65_535;
/// Hubble's feeder's steps.
const STEP: Duration = Duration::from_micros(200);
const PACED_BATCH: u64 = 256;
const FAST_BATCH: u64 = 512;

/// What feeder and control tell each other.
#[derive(Default)]
struct State {
    fed: AtomicU64,
    feeding: AtomicBool,
}

/// An order to feed.
enum Order {
    Fill(u64),
    Feed { rate: f64, time: Duration },
}

struct NoCapture;

impl CaptureInfo for NoCapture {
    fn capture_status(&self) -> CaptureStatusResponse {
        CaptureStatusResponse::default()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next =
        |what: &str| arguments.next().unwrap_or_else(|| panic!("{what} is missing: GRPC CONTROL FLOWS"));
    let (grpc, control, fill): (SocketAddr, SocketAddr, u64) =
        (next("GRPC").parse().unwrap(), next("CONTROL").parse().unwrap(), next("FLOWS").parse().unwrap());
    let state = Arc::new(State::default());
    let (orders, todo) = mpsc::channel();
    let (hand_over, made) = mpsc::channel();
    std::thread::spawn({
        let state = Arc::clone(&state);
        move || {
            // The stages stay in the thread that they were made in.
            let mut feeder = Feeder::new(fill == 0, &hand_over);
            for order in todo {
                feeder.follow(&order, &state);
                state.feeding.store(false, Ordering::Release);
            }
        }
    });
    let (store, node) = made.recv().unwrap();
    // As the daemon has it.
    let workers = serve::workers();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        socket: directory.path().join("hubble.sock"),
        control_socket: directory.path().join("control.sock"),
        listen: Some(grpc),
        insecure: true,
        ..ServeConfig::new(node)
    };
    let _server = runtime.block_on(serve::start(config, store, Arc::new(NoCapture))).unwrap();
    println!("{{\"idle_rss_kB\":{}}}", resident_kb());
    state.feeding.store(true, Ordering::Release);
    orders.send(Order::Fill(fill)).unwrap();
    for stream in TcpListener::bind(control).unwrap().incoming() {
        // A client that is gone has its own problem.
        let _ = stream.and_then(|stream| answer(&stream, &state, &orders));
    }
}

struct Feeder {
    feed: Feed,
    /// One after the other: what is fed is to take no more memory than it must.
    records: Vec<u8>,
    /// Where each begins.
    begins: Vec<u32>,
    position: usize,
}

impl Feeder {
    fn new(is_idle: bool, hand_over: &mpsc::Sender<(Arc<Store>, serve::NodeInfo)>) -> Self {
        let world = if is_idle { World::idle() } else { World::without_table() };
        let World { cache, connections, links, records, node, .. } = world;
        let (store, writer) = Store::new(StoreConfig { flows: FLOWS, ..StoreConfig::default() });
        let head = Head {
            node: node.name.clone(),
            cluster: node.cluster.clone(),
            offset_ns: Clock::new().offset_ns(),
            drop_reasons: (2..12)
                .map(|number| (number, format!("SKB_DROP_REASON_NUMBER_{number}")))
                .collect(),
            ..Head::default()
        };
        let mut feed = Feed::new(&head, cache, writer);
        let mut links: Vec<_> = links.values().map(|link| pod_link(link.index, &link.name)).collect();
        links.sort_unstable_by_key(|link| link.ifindex);
        let links = capture::LinkTable { links, netns: 7, ..capture::LinkTable::default() };
        feed.take(&Input::Links(Cow::Owned(links)));
        for connection in connections {
            feed.take(&Input::Conntrack(Update::New(connection)));
        }
        hand_over.send((store, node)).unwrap();
        let begins =
            records.iter().scan(0, |next, record| Some(std::mem::replace(next, *next + record.len() as u32)));
        let begins = begins.collect();
        let records = { records }.concat();
        Self { feed, records, begins, position: 0 }
    }

    fn follow(&mut self, order: &Order, state: &State) {
        let (start, mut sent) = (Instant::now(), 0);
        loop {
            let due = match *order {
                Order::Fill(count) if sent == count => return,
                Order::Fill(count) => (count - sent).min(FAST_BATCH),
                Order::Feed { time, .. } if start.elapsed() > time => return,
                Order::Feed { rate, .. } if rate <= 0.0 => FAST_BATCH,
                Order::Feed { rate, .. } => {
                    ((start.elapsed().as_secs_f64() * rate) as u64).saturating_sub(sent).min(PACED_BATCH)
                }
            };
            if due == 0 {
                std::thread::sleep(STEP);
                continue;
            }
            self.batch(due);
            sent += due;
            state.fed.fetch_add(due, Ordering::Relaxed);
        }
    }

    /// The next records, as of now.
    fn batch(&mut self, count: u64) {
        let now = Clock::kernel_now();
        for _ in 0..count {
            let begin = self.begins[self.position] as usize;
            let end = self.begins.get(self.position + 1).map_or(self.records.len(), |end| *end as usize);
            let record = &mut self.records[begin..end];
            let (header, _) = Header::mut_from_prefix(record).unwrap();
            header.time_ns = now;
            self.feed.take(&Input::Record(record));
            self.position = (self.position + 1) % self.begins.len();
        }
        self.feed.take(&Input::Batch(now));
    }
}

fn pod_link(ifindex: u32, name: &str) -> capture::Link {
    capture::Link {
        ifindex,
        name: name.to_owned(),
        kind: capture::LinkKind::Pod,
        ethernet: true,
        peer_nsid: None,
        peer_netns: None,
        way: LinkWay::default(),
        attached_by: "",
        chained: [0; 2],
        error: None,
        repairs: 0,
    }
}

/// One request of HTTP/1, one answer.
fn answer(stream: &TcpStream, state: &State, orders: &mpsc::Sender<Order>) -> std::io::Result<()> {
    let mut request = String::new();
    BufReader::new(stream).read_line(&mut request)?;
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let (code, body) = match path {
        "/stats" => ("200 OK", stats(state)),
        "/quit" => std::process::exit(0),
        "/feed" if state.feeding.swap(true, Ordering::AcqRel) => ("409 Conflict", "busy".to_owned()),
        "/feed" => {
            let time = Duration::from_secs_f64(number("secs").clamp(0.1, 120.0));
            orders.send(Order::Feed { rate: number("rate"), time }).unwrap();
            ("200 OK", "ok".to_owned())
        }
        _ => ("404 Not Found", String::new()),
    };
    write!(
        &mut &*stream,
        "HTTP/1.1 {code}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn stats(state: &State) -> String {
    let (user, system) = processor_seconds();
    format!(
        "{{\"cpu_user\":{user},\"cpu_sys\":{system},\"fed\":{},\"feeding\":{},\"VmRSS_kB\":{}}}",
        state.fed.load(Ordering::Relaxed),
        state.feeding.load(Ordering::Acquire),
        resident_kb()
    )
}

/// Of all threads, in user and kernel together: the first field of each thread's `schedstat` counts nanoseconds.
fn processor_seconds() -> (f64, f64) {
    let of = |task: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok);
    (tasks.filter_map(of).sum::<u64>() as f64 / 1e9, 0.0)
}

fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

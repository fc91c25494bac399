//! What the dashboard costs: the real program in a terminal, with a server that sends as many flows as are wanted.
//! `make bench` makes its table of the lines that begin with `BENCH`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot measure ends")]

#[path = "../tests/screen/mod.rs"]
mod screen;
#[path = "../tests/server/mod.rs"]
mod server;
#[path = "../tests/terminal/mod.rs"]
mod terminal;

use observer_proto::{
    encoded::around,
    flow::{CiliumEventType, Endpoint, Flow, Ip, Layer4, Tcp, Verdict, Workload, layer4::Protocol},
};
use screen::Screen;
use server::{Mock, Server};
use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

const SIZE: (u16, u16) = (120, 36);
const MEASURED: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(3);
/// Keys whose frames are awaited.
const KEYS: usize = 50;

fn main() {
    // `cargo test` runs benches, too, to see that they work.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (idle, _) = measured(0);
    row("dashboard idle cpu", idle, "%");
    let (busy, memory) = measured(5000);
    row("dashboard cpu", busy, "%");
    row("dashboard memory", memory, "MiB");
    let mut times = key_to_frame(50_000);
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
    row("dashboard key p50", ms(KEYS / 2), "ms");
    row("dashboard key p98", ms(KEYS - 2), "ms");
    println!("dashboard key: slowest {:.1} ms", ms(KEYS - 1));
}

fn row(metric: &str, value: f64, unit: &str) {
    println!("BENCH {metric}\t{value:.1}\t{unit}");
}

/// As Observer's daemon tells them.
#[expect(deprecated, reason = "the field that every Hubble fills")]
fn flows() -> Vec<observer_proto::observer::GetFlowsResponse> {
    let end = |namespace: &str, name: &str, number: u32| {
        Some(Endpoint {
            identity: 4000 + number,
            namespace: namespace.into(),
            pod_name: format!("{name}-7d9f5c8b6d-{number:05}"),
            labels: vec![format!("k8s:app={name}"), format!("k8s:io.kubernetes.pod.namespace={namespace}")],
            workloads: vec![Workload { kind: "Deployment".into(), name: name.into() }],
            ..Endpoint::default()
        })
    };
    let flow = |number: u32| Flow {
        uuid: format!("7f1c9a40-0000-4000-8000-{number:012}"),
        verdict: if number.is_multiple_of(50) { Verdict::Dropped } else { Verdict::Forwarded } as i32,
        ip: Some(Ip { source: "10.1.3.17".into(), destination: "10.1.7.5".into(), ..Ip::default() }),
        l4: Some(Layer4 {
            protocol: Some(Protocol::Tcp(Tcp {
                source_port: 32_768 + number,
                destination_port: 8080,
                ..Tcp::default()
            })),
        }),
        source: end("shop", "web", number),
        destination: end("pay", "ledger", number),
        node_name: "n1".into(),
        event_type: Some(CiliumEventType { r#type: 4, sub_type: 0 }),
        is_reply: Some(false),
        summary: "TCP Flags: ACK, PSH".into(),
        ..Flow::default()
    };
    (0..1000).map(|number| around(flow(number))).collect()
}

fn start(rate: u64) -> (Server, Screen) {
    let server = Server::start(Mock { flows: flows(), stay: true, rate, ..Mock::default() });
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command
        .args(["tui", "--theme", "ansi"])
        .env("OBSERVE_SERVER", server.address())
        .env("HOME", "/nonexistent");
    let screen = Screen::start(command, SIZE);
    screen.shows("LIVE");
    (server, screen)
}

/// Processor time in percent of one core, and resident memory, while flows come.
fn measured(rate: u64) -> (f64, f64) {
    let (_server, mut screen) = start(rate);
    sleep(SETTLED);
    let pid = screen.child.id();
    let (began, before) = (Instant::now(), ticks(pid));
    sleep(MEASURED);
    let seconds = (ticks(pid) - before) as f64 / rustix::param::clock_ticks_per_second() as f64;
    let percent = 100.0 * seconds / began.elapsed().as_secs_f64();
    let memory = memory(pid);
    screen.types("q");
    (percent, memory)
}

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, the 14th and 15th of all.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// How long each frame takes that shows what a key did.
fn key_to_frame(rate: u64) -> Vec<Duration> {
    const TEXT: &str = "Keys of Flows";
    let (_server, mut screen) = start(rate);
    sleep(SETTLED);
    let mut times = Vec::new();
    for number in 0..KEYS {
        // At any time between two frames.
        sleep(Duration::from_millis(150 + number as u64 * 7 % 100));
        screen.types(if number % 2 == 0 { "?" } else { "x" });
        times.push(if number % 2 == 0 {
            screen.shows(TEXT)
        } else {
            screen.until("the flows", |text| !text.contains(TEXT))
        });
    }
    times
}

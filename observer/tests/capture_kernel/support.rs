//! A node and two pods in network namespaces of their own, with the capture running in the node's.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use observer::capture::{Capture, CaptureConfig};
use observer_ebpf::{
    DeniedRecord, DropRecord, FactRecord, FlowRecord, JudgedFlowRecord, TunneledFlowRecord, kind,
};
use observer_lab::{Namespaces, links::wait_ready};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use zerocopy::FromBytes as _;

/// How long what must come is waited for, also on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Why the test can't run here; printed, and a failure where `CI_NO_SKIP` is 1.
pub(crate) fn skip() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        "no BTF"
    } else {
        return false;
    };
    assert!(std::env::var("CI_NO_SKIP").as_deref() != Ok("1"), "skipped although CI_NO_SKIP=1: {reason}");
    println!("SKIP: {reason}");
    true
}

/// Runs a command that must succeed.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace, removed when dropped.
pub(crate) struct Netns(
    pub(crate) String,
    #[expect(dead_code, reason = "held: it removes the namespace")] Namespaces,
);

impl Netns {
    pub(crate) fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ebpf-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let namespaces = Namespaces::make(&name, &[&name]).unwrap();
        let netns = Self(name, namespaces);
        netns.run("ip link set lo up");
        netns
    }

    /// Runs a command inside.
    pub(crate) fn run(&self, line: &str) {
        run(&format!("nsenter --net=/run/netns/{} {line}", self.0));
    }

    /// Moves the calling thread, and those it starts, inside.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `work` in a thread inside.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    pub(crate) fn inode(&self) -> u32 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(format!("/run/netns/{}", self.0)).unwrap().ino() as u32
    }
}

/// How pods hang on the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    Routed,
    Bridged,
}

/// Node 10.77.0.254 / fd77::fe, pods 10.77.0.1 / fd77::1 and 10.77.0.2 / fd77::2.
pub(crate) struct Lab {
    pub(crate) node: Netns,
    pub(crate) pods: [Netns; 2],
    wiring: Wiring,
}

impl Lab {
    pub(crate) fn new(wiring: Wiring) -> Self {
        let lab = Self { node: Netns::new("node"), pods: [Netns::new("a"), Netns::new("b")], wiring };
        lab.node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        if wiring == Wiring::Bridged {
            lab.node.run("ip link add br0 type bridge");
            lab.node.run("ip addr add 10.77.0.254/24 dev br0");
            lab.node.run("ip link set br0 up");
        }
        for (index, pod) in lab.pods.iter().enumerate() {
            lab.wire(pod, index + 1);
        }
        for netns in lab.pods.iter().chain([&lab.node]) {
            wait_ready(&netns.0).unwrap();
        }
        lab
    }

    pub(crate) fn wire(&self, pod: &Netns, number: usize) {
        let host = format!("pod{number}");
        self.node.run(&format!("ip link add {host} type veth peer name eth0 netns {}", pod.0));
        pod.run("sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.dad_transmits=0");
        pod.run("ip link set eth0 up");
        match self.wiring {
            Wiring::Routed => {
                self.node.run(&format!("sysctl -qw net.ipv6.conf.{host}.accept_dad=0"));
                self.node.run(&format!("ip link set {host} up"));
                self.node.run(&format!("ip addr add 169.254.1.1/32 dev {host}"));
                self.node.run(&format!("ip route add 10.77.0.{number}/32 dev {host}"));
                self.node.run(&format!("ip addr add fe80::1/64 dev {host} nodad"));
                self.node.run(&format!("ip route add fd77::{number}/128 dev {host}"));
                pod.run(&format!("ip addr add 10.77.0.{number}/32 dev eth0"));
                pod.run("ip route add 169.254.1.1/32 dev eth0");
                pod.run("ip route add default via 169.254.1.1");
                pod.run(&format!("ip addr add fd77::{number}/128 dev eth0 nodad"));
                pod.run("ip route add default via fe80::1 dev eth0");
            }
            Wiring::Bridged => {
                self.node.run(&format!("ip link set {host} master br0 up"));
                pod.run(&format!("ip addr add 10.77.0.{number}/24 dev eth0"));
                pod.run("ip route add default via 10.77.0.254");
            }
        }
    }

    /// Starts the capture in the node's namespace, with both pods' addresses told.
    pub(crate) fn capture(&self, config: &CaptureConfig) -> Watch {
        Watch::of(self.node.within(|| Capture::start(config)).unwrap())
    }
}

/// The capture and what came out of it.
pub(crate) struct Watch {
    pub(crate) capture: Capture,
    pub(crate) flows: Vec<FlowRecord>,
    /// Those of denied connections too.
    pub(crate) drops: Vec<DropRecord>,
    pub(crate) facts: Vec<FactRecord>,
}

impl Watch {
    /// Of a capture, which is told both pods' addresses.
    pub(crate) fn of(capture: Capture) -> Self {
        let pods: Vec<std::net::IpAddr> = ["10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        capture.set_local_addresses(&pods, &[]).unwrap();
        Self { capture, flows: Vec::new(), drops: Vec::new(), facts: Vec::new() }
    }

    pub(crate) fn drain(&mut self) {
        let (flows, drops, facts) = (&mut self.flows, &mut self.drops, &mut self.facts);
        self.capture.drain(&mut |record| keep(record, flows, drops, facts)).unwrap();
    }

    pub(crate) fn sweep(&mut self) {
        let (flows, drops, facts) = (&mut self.flows, &mut self.drops, &mut self.facts);
        self.capture.sweep(&mut |record| keep(record, flows, drops, facts));
    }

    /// Reads, and sweeps, until `enough` is true; fails after [`PATIENCE`].
    pub(crate) fn until(&mut self, what: &str, mut enough: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !enough(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "not seen: {what}; flows {:#?} drops {:#?}",
                self.flows,
                self.drops
            );
            self.capture.wait(&[], Duration::from_millis(20)).unwrap();
            self.drain();
            self.sweep();
        }
    }

    /// Stops the capture and returns all that came out of it.
    pub(crate) fn stop(self) -> (Vec<FlowRecord>, Vec<DropRecord>, Vec<FactRecord>) {
        let Self { capture, mut flows, mut drops, mut facts } = self;
        capture.stop(&mut |record| keep(record, &mut flows, &mut drops, &mut facts)).unwrap();
        (flows, drops, facts)
    }
}

fn keep(bytes: &[u8], flows: &mut Vec<FlowRecord>, drops: &mut Vec<DropRecord>, facts: &mut Vec<FactRecord>) {
    match bytes[0] {
        kind::FLOW => flows.push(FlowRecord::read_from_bytes(bytes).unwrap()),
        kind::TUNNELED_FLOW => flows.push(TunneledFlowRecord::read_from_bytes(bytes).unwrap().flow),
        kind::JUDGED_FLOW => flows.push(JudgedFlowRecord::read_from_bytes(bytes).unwrap().flow),
        kind::DENIED => drops.push(DeniedRecord::read_from_bytes(bytes).unwrap().drop),
        kind::DROP => drops.push(DropRecord::read_from_bytes(bytes).unwrap()),
        kind::FACT => facts.push(FactRecord::read_from_bytes(bytes).unwrap()),
        other => panic!("record of kind {other}"),
    }
}

//! What is attached and what was counted, for status and metrics.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aya::maps::{MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use observer_ebpf::{Counters, LinkState, LinkTraffic, program};
use serde::{Deserialize, Serialize};

use super::links::{Link, LinkTable};
use super::object::{EGRESS, INGRESS};
use super::pod::Raw;

/// One program, and whether it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The program or its tracepoint.
    pub name: String,
    /// Why it could not be loaded.
    pub error: Option<String>,
    /// What it can't do on this kernel, else empty.
    pub note: String,
}

impl HookStatus {
    pub(super) fn new(name: &str, result: Result<(), String>) -> Self {
        Self { name: name.to_owned(), error: result.err(), note: String::new() }
    }

    pub(super) fn failed(name: &str, error: String) -> Self {
        Self::new(name, Err(error))
    }
}

/// One link with its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The link, with what became of its attachment.
    pub link: Link,
    /// What came in, as tcx names it: what a pod sent.
    pub ingress: LinkTraffic,
    /// What went out.
    pub egress: LinkTraffic,
}

/// One program's counters over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStatus {
    /// What it counted itself: `made = submitted + ring_full`.
    pub counters: Counters,
    /// Runs that the kernel refused since the program was already running on that CPU: lost.
    pub recursion_misses: u64,
}

/// All of it at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatus {
    /// The programs.
    pub hooks: Vec<HookStatus>,
    /// The links.
    pub links: Vec<LinkStatus>,
    /// Flow program at ingress.
    pub ingress: ProgramStatus,
    /// Flow program at egress.
    pub egress: ProgramStatus,
    /// What both of them tell of packets that policies deny; it counts no runs.
    pub denied: ProgramStatus,
    /// Drop program.
    pub drops: ProgramStatus,
    /// Socket facts.
    pub facts: ProgramStatus,
    /// Connections that the full flow table pushed out, as seen once a second. What they counted since their last
    /// records is not told; if they come back, they are told as met in their middle.
    pub evicted: u64,
    /// How full the flow tables were at the last sweep.
    pub tables: Vec<Fill>,
    /// How long it took to put the flow programs on links.
    pub attached: AttachTimes,
}

/// How full something is that has a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name in the kernel.
    pub name: String,
    /// Entries of a table, bytes of a ring.
    pub used: u64,
    /// How much there may be.
    pub room: u64,
}

/// Times that the flow programs were put on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachTimes {
    /// How many.
    pub count: u64,
    /// How long all took together.
    pub took_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

impl CaptureStatus {
    /// Sum of one counter over the programs.
    pub fn total(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        [&self.ingress, &self.egress, &self.denied, &self.drops, &self.facts]
            .iter()
            .map(|each| counter(&each.counters))
            .sum()
    }

    /// Packets for whose connection the full flow table had no room: no flow tells of them, and policies are asked about each.
    pub fn without_room(&self) -> u64 {
        [&self.ingress, &self.egress].iter().map(|each| each.counters.table_full).sum()
    }
}

/// Reads the status from any thread.
#[derive(Clone, Debug)]
pub struct StatusHandle(Arc<Shared>);

impl StatusHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The status as of now.
    pub fn status(&self) -> CaptureStatus {
        self.0.status()
    }

    /// The links and addresses of the node as of now.
    pub fn links(&self) -> Arc<LinkTable> {
        self.0.links.load_full()
    }
}

type LinkMap = PerCpuHashMap<MapData, u32, Raw<LinkState>>;

/// What the link watcher writes and everybody reads.
pub(super) struct Shared {
    counters: PerCpuArray<MapData, Raw<Counters>>,
    link_map: Mutex<LinkMap>,
    hooks: Vec<HookStatus>,
    pub(super) tracing: Vec<(&'static str, OwnedFd)>,
    /// Filters of killed daemons that ours took the place of, at ingress and egress.
    replaced: [AtomicUsize; 2],
    pub(super) links: ArcSwap<LinkTable>,
    pub(super) swept: Arc<Swept>,
    attached: Mutex<AttachTimes>,
}

/// What the sweep counts.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// See [`CaptureStatus::evicted`].
    pub(super) evicted: AtomicU64,
    /// Connections in the table with short keys and in the other, and how many each may hold.
    pub(super) held: [AtomicU64; 2],
    pub(super) room: AtomicU64,
}

impl Swept {
    fn tables(&self) -> Vec<Fill> {
        let room = self.room.load(Ordering::Relaxed);
        let held = ["SHORT_FLOW_TABLE", "FLOW_TABLE"].into_iter().zip(&self.held);
        let fill = |(name, held): (&str, &AtomicU64)| Fill {
            name: name.to_owned(),
            used: held.load(Ordering::Relaxed),
            room,
        };
        held.filter(|_| room > 0).map(fill).collect()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        counters: PerCpuArray<MapData, Raw<Counters>>,
        link_map: LinkMap,
        hooks: Vec<HookStatus>,
        tracing: Vec<(&'static str, OwnedFd)>,
    ) -> Self {
        let links = ArcSwap::from_pointee(LinkTable::default());
        let replaced = Default::default();
        let (swept, attached) = Default::default();
        Self { counters, link_map: Mutex::new(link_map), hooks, tracing, replaced, links, swept, attached }
    }

    /// Notes how long it took to put the programs on a link.
    pub(super) fn note_attached(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.count += 1;
        attached.took_ns = attached.took_ns.saturating_add(took_ns);
        attached.longest_ns = attached.longest_ns.max(took_ns);
    }

    fn link_map(&self) -> MutexGuard<'_, LinkMap> {
        self.link_map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link known to the programs, which pass by packets of links they don't know.
    pub(super) fn add_link(&self, link: &Link) -> Result<(), String> {
        let state = LinkState {
            kind: link.kind.number(),
            layer3: u32::from(!link.ethernet),
            way: link.way,
            ..LinkState::default()
        };
        let cpus = nr_cpus().map_err(|(file, error)| format!("{file}: {error}"))?;
        let values = PerCpuValues::try_from(vec![Raw(state); cpus]).map_err(|e| e.to_string())?;
        self.link_map().insert(link.ifindex, values, 0).map_err(|e| super::error::chain(&e))
    }

    pub(super) fn remove_link(&self, ifindex: u32) {
        // Not there is as good.
        let _ = self.link_map().remove(&ifindex);
    }

    pub(super) fn replaced(&self, filters: [usize; 2]) {
        for (sum, more) in self.replaced.iter().zip(filters) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn hooks(&self) -> Vec<HookStatus> {
        let mut hooks = self.hooks.clone();
        for (name, replaced) in [INGRESS, EGRESS].iter().zip(&self.replaced) {
            let replaced = replaced.load(Ordering::Relaxed);
            if let Some(hook) = hooks.iter_mut().find(|hook| hook.name == *name).filter(|_| replaced > 0) {
                let _ = write!(hook.note, "; in the place of {replaced} that a killed daemon had left");
            }
        }
        hooks
    }

    fn program(&self, number: u32, tracepoints: &[&str]) -> ProgramStatus {
        let mut sum = Counters::default();
        if let Ok(values) = self.counters.get(&number, 0) {
            for Raw(each) in values.iter() {
                sum.runs += each.runs;
                sum.made += each.made;
                sum.submitted += each.submitted;
                sum.ring_full += each.ring_full;
                sum.aggregated += each.aggregated;
                sum.new_flow_cap += each.new_flow_cap;
                sum.met_midway += each.met_midway;
                sum.summed += each.summed;
                sum.ignored += each.ignored;
                sum.table_full += each.table_full;
                sum.payload_cap += each.payload_cap;
                sum.reset += each.reset;
            }
        }
        let tracing = self.tracing.iter().filter(|(name, _)| tracepoints.contains(name));
        ProgramStatus { counters: sum, recursion_misses: tracing.map(|(_, fd)| recursion_misses(fd)).sum() }
    }

    fn status(&self) -> CaptureStatus {
        let traffic = |ifindex| {
            let mut sums = [LinkTraffic::default(); 2];
            for Raw(state) in self.link_map().get(&ifindex, 0).iter().flat_map(|values| values.iter()) {
                for (sum, each) in sums.iter_mut().zip(state.traffic) {
                    sum.packets += each.packets;
                    sum.bytes += each.bytes;
                    sum.not_ip += each.not_ip;
                    sum.malformed += each.malformed;
                }
            }
            sums
        };
        let table = self.links.load();
        let links = table.links.iter().map(|link| {
            let [ingress, egress] = traffic(link.ifindex);
            LinkStatus { link: link.clone(), ingress, egress }
        });
        CaptureStatus {
            hooks: self.hooks(),
            links: links.collect(),
            ingress: self.program(program::INGRESS, &[]),
            egress: self.program(program::EGRESS, &[]),
            denied: self.program(program::DENIED, &[]),
            drops: self.program(program::DROP, &["kfree_skb"]),
            facts: self.program(program::FACTS, &["tcp_retransmit_skb", "inet_sock_set_state"]),
            evicted: self.swept.evicted.load(Ordering::Relaxed),
            tables: self.swept.tables(),
            attached: *self.attached.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// aya's program information leaves this field out; the kernel shows it here since 5.12.
fn recursion_misses(program: &OwnedFd) -> u64 {
    let mut path = String::from("/proc/thread-self/fdinfo/");
    let _ = write!(path, "{}", program.as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

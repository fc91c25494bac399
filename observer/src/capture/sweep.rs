//! Once a second, beside the pipeline's thread: sums of drops, last totals of connections that fell silent, facts.

use std::collections::{HashMap as StdHashMap, HashSet};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData};
use observer_ebpf::parse::{ICMP, ICMPV6};
use observer_ebpf::{
    ABI_VERSION, DENIED, DropKey, DropRecord, DropValue, FactKey, FactRecord, FactValue, FlowKey, FlowRecord,
    FlowValue, Header, INSIDE_TUNNEL, SEEN, Settings, TELLABLE, Tunnel, TunneledFlowRecord, Tuple,
    drop_flags, flow_flags, flow_reason, hook, kind, link_kind, tick, ticks_since,
};
use zerocopy::IntoBytes;

use super::CaptureConfig;
use super::age::forgotten_after;
use super::counters::Swept;
use super::error::CaptureError;
use super::flow_table::{FlowTable, Place, Twins};
use super::pod::Raw;
use super::rings::monotonic;

/// A program that read the old generation is done with it after this, however slow its CPU.
const GRACE: Duration = Duration::from_millis(5);

/// Entries after which others get their turn: a walk through a full table shall hold up no flow where there is one CPU
/// for both.
const YIELD: usize = 64;

const FIN: u16 = 1;
const RST: u16 = 4;

/// The maps it owns.
pub(super) struct SweepMaps {
    pub(super) settings: Array<MapData, Raw<Settings>>,
    pub(super) flows: FlowTable,
    pub(super) tunnels: HashMap<MapData, Raw<FlowKey>, Raw<Tunnel>>,
    pub(super) drops: [HashMap<MapData, Raw<DropKey>, Raw<DropValue>>; 2],
    pub(super) facts: HashMap<MapData, Raw<FactKey>, Raw<FactValue>>,
}

/// Whole records, one after another.
type Batch = Vec<u8>;
/// An address with its port.
type End = ([u8; 16], u16);

/// The handle of the sweep's thread.
#[derive(Debug)]
pub(super) struct Sweeper {
    /// `true` asks for everything, however young.
    requests: Option<Sender<bool>>,
    batches: Receiver<Batch>,
    running: bool,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// `swept` gets what is counted.
    pub(super) fn start(
        maps: SweepMaps,
        config: &CaptureConfig,
        swept: Arc<Swept>,
    ) -> Result<Self, CaptureError> {
        let (requests, asked) = channel();
        let (sender, batches) = channel();
        let mut sweep = Sweep {
            maps,
            settings: Settings { generation: 0, host_wide: u32::from(config.host_wide_drops) },
            interval_ns: u64::try_from(config.interval.as_nanos()).unwrap_or(u64::MAX),
            told: StdHashMap::new(),
            facts: StdHashMap::new(),
            swept,
            crowded: [false; 2],
        };
        let room = sweep.maps.flows.entries as u64;
        sweep.swept.room.store(room, Ordering::Relaxed);
        sweep.write_settings()?;
        let run = move || {
            while let Ok(all) = asked.recv() {
                if sender.send(sweep.run(all)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("sweep".into()).spawn(run);
        let thread = thread.map_err(CaptureError::system("starting a thread"))?;
        Ok(Self { requests: Some(requests), batches, running: false, thread: Some(thread) })
    }

    pub(super) fn collect(&mut self, each: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        if self.running {
            match self.batches.try_recv() {
                Ok(batch) => count = records(batch, each),
                Err(TryRecvError::Empty) => return 0,
                Err(TryRecvError::Disconnected) => {
                    tracing::error!("the sweep's thread failed");
                    return 0;
                }
            }
        }
        self.running = self.requests.as_ref().is_some_and(|requests| requests.send(false).is_ok());
        count
    }

    /// The last sweep, waited for.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(&[u8])) -> usize {
        if let Some(requests) = self.requests.take() {
            // The thread ends when the sender is gone, after what was asked.
            let _ = requests.send(true);
        }
        let mut count = 0;
        while let Ok(batch) = self.batches.recv() {
            count += records(batch, each);
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sweep's thread failed");
        }
        count
    }
}

/// Hands over what a sweep found, as of now: flows are kept in the order of their time, and readers rely on it.
fn records(mut batch: Batch, each: &mut dyn FnMut(&[u8])) -> usize {
    let now = monotonic().to_ne_bytes();
    let (mut rest, mut count) = (&mut batch[..], 0);
    while let Some(size) = rest.get(offset_of!(Header, size)..offset_of!(Header, cpu)) {
        let size = usize::from(u16::from_ne_bytes([size[0], size[1]]));
        let Some((record, after)) = rest.split_at_mut_checked(size) else { break };
        if let Some(time) = record.get_mut(offset_of!(Header, time_ns)..size_of::<Header>()) {
            time.copy_from_slice(&now);
        }
        each(record);
        rest = after;
        count += 1;
    }
    count
}

struct Sweep {
    maps: SweepMaps,
    settings: Settings,
    interval_ns: u64,
    /// Packets told by sweeps, each way, of the connections that are in the table.
    told: StdHashMap<Place, Told>,
    facts: StdHashMap<FactKey, FactValue>,
    swept: Arc<Swept>,
    /// Whether three quarters of each of the flow table's two maps were taken at the last sweep.
    crowded: [bool; 2],
}

#[derive(Clone, Copy, Default)]
struct Told {
    first_ns: u64,
    packets: [u64; 2],
}

impl Sweep {
    fn write_settings(&mut self) -> Result<(), CaptureError> {
        self.maps.settings.set(0, Raw(self.settings), 0).map_err(CaptureError::map("SETTINGS"))
    }

    fn run(&mut self, all: bool) -> Batch {
        let mut batch = Batch::new();
        self.drops(&mut batch);
        if all {
            self.drops(&mut batch);
        }
        // Before the flows that show them.
        let gave_up = self.facts(&mut batch);
        self.flows(&mut batch, all, &gave_up);
        batch
    }

    /// Turns the programs to the other table and empties the one they left.
    fn drops(&mut self, batch: &mut Batch) {
        let left = (self.settings.generation & 1) as usize;
        self.settings.generation ^= 1;
        if let Err(error) = self.write_settings() {
            tracing::warn!(%error, "drops are not summed");
            return;
        }
        std::thread::sleep(GRACE);
        let table = &mut self.maps.drops[left];
        let sums: Vec<_> = table.iter().filter_map(Result::ok).collect();
        for (key, Raw(value)) in sums {
            // Gone already is as good.
            let _ = table.remove(&key);
            if value.packets > 0 {
                batch.extend_from_slice(drop_sum(&key.0, &value).as_bytes());
            }
        }
    }

    fn flows(&mut self, batch: &mut Batch, all: bool, gave_up: &HashSet<End>) {
        let now = monotonic();
        let mut told = StdHashMap::with_capacity(self.told.len());
        let (mut ended, mut held, mut twins) = (Vec::new(), [0; 2], Twins::default());
        let now_tick = tick(now);
        let since = |earlier| u64::from(ticks_since(now_tick, earlier)) << 20;
        for (count, (place, value)) in self.maps.flows.iter().enumerate() {
            if count % YIELD == 0 {
                std::thread::yield_now();
            }
            let key = place.key();
            let mut known = self.told.get(&place).copied().unwrap_or_default();
            if known.first_ns != value.first_ns {
                known = Told { first_ns: value.first_ns, ..Told::default() };
            }
            let [a, b] = &value.directions;
            let over = (a.seen | b.seen) & RST != 0 || a.seen & b.seen & FIN != 0;
            let idle = since(a.last).min(since(b.last));
            let answered = a.seen & b.seen & SEEN != 0;
            let ends = [(key.local, key.local_port), (key.remote, key.remote_port)];
            for (index, direction) in value.directions.iter().enumerate() {
                let before = value.told_packets(index).max(known.packets[index]);
                let silent = since(direction.last) >= self.interval_ns;
                let due = all || silent || (over && idle > 1_000_000_000);
                // No packet will follow that could carry the fact: an answer would be a RST, and that one tells it.
                let failed = !answered && gave_up.contains(&ends[index]);
                let has_news = failed || (due && direction.packets > before);
                if has_news && direction.flags & TELLABLE != 0 && direction.told != 0 {
                    self.tell(batch, &place, index, totals(&key, &value, index));
                    known.packets[index] = direction.packets;
                }
            }
            let kind = usize::from(matches!(place, Place::Long(_)));
            held[kind] += 1;
            let (pushed_out, crowded) = (self.maps.flows.is_pushed_out, self.crowded[kind]);
            let forgotten = forgotten_after(key.protocol, &value, over, pushed_out, crowded);
            let may_go = twins.may_go(&place);
            if may_go && forgotten.is_some_and(|after| Duration::from_nanos(idle) > after) {
                ended.push(place);
            } else {
                told.insert(place, known);
            }
        }
        self.crowded = held.map(|held| held * 4 > self.maps.flows.entries * 3);
        for place in ended {
            self.told.remove(&place);
            self.maps.flows.remove(&place);
        }
        // The walk may have missed a few, so each is looked up.
        let gone = self.told.keys().filter(|place| !told.contains_key(*place));
        let evicted = gone.filter(|place| !self.maps.flows.contains(place)).count();
        self.swept.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        for (told, held) in self.swept.held.iter().zip(held) {
            told.store(held as u64, Ordering::Relaxed);
        }
        self.told = told;
    }

    /// A record of the table, with the tunnel around its connection.
    fn tell(&self, batch: &mut Batch, place: &Place, index: usize, mut flow: FlowRecord) {
        let key = match place {
            Place::Long(key) if key.ifindex & INSIDE_TUNNEL != 0 => key,
            _ => {
                batch.extend_from_slice(flow.as_bytes());
                return;
            }
        };
        flow.header = header::<TunneledFlowRecord>(kind::TUNNELED_FLOW, flow.header.time_ns);
        let mut tunnel = self.maps.tunnels.get(&Raw(*key), 0).map(|Raw(known)| known).unwrap_or_default();
        if usize::from(tunnel.from_remote) != index {
            // The ports stay: the source port only spreads load.
            let tuple = &mut tunnel.tuple;
            (tuple.source, tuple.destination) = (tuple.destination, tuple.source);
        }
        batch.extend_from_slice(TunneledFlowRecord { flow, tunnel }.as_bytes());
    }

    /// Returns the sockets whose connects failed since the last sweep.
    fn facts(&mut self, batch: &mut Batch) -> HashSet<End> {
        let mut gave_up = HashSet::new();
        let mut facts = StdHashMap::with_capacity(self.facts.len());
        for (Raw(key), Raw(value)) in self.maps.facts.iter().filter_map(Result::ok).take(65_536) {
            let known = self.facts.get(&key).copied().unwrap_or_default();
            if known != value && !facts.contains_key(&key) {
                if value.failed_connects > known.failed_connects {
                    gave_up.insert((key.tuple.source, key.tuple.source_port));
                }
                let record = FactRecord {
                    header: header::<FactRecord>(kind::FACT, value.last_ns),
                    tuple: key.tuple,
                    netns: key.netns,
                    pad: 0,
                    retransmits: value.retransmits,
                    failed_connects: value.failed_connects,
                };
                batch.extend_from_slice(record.as_bytes());
            }
            facts.insert(key, value);
        }
        self.facts = facts;
        gave_up
    }
}

fn header<T>(kind: u8, time_ns: u64) -> Header {
    Header { kind, version: ABI_VERSION, size: size_of::<T>() as u16, cpu: 0, time_ns }
}

fn drop_sum(key: &DropKey, value: &DropValue) -> DropRecord {
    DropRecord {
        header: header::<DropRecord>(kind::DROP, value.last_ns),
        tuple: key.tuple,
        reason: key.reason,
        ifindex: key.ifindex,
        netns: key.netns,
        packet_len: value.packet_len,
        location: value.location,
        flags: value.flags | drop_flags::SUM,
        ether_type: value.ether_type,
        tcp_flags: value.tcp_flags,
        pad: [0; 3],
        packets: value.packets,
        bytes: value.bytes,
        first_ns: value.first_ns,
        netns_cookie: value.netns_cookie,
    }
}

/// One direction of a connection as it stands in the table.
fn totals(key: &FlowKey, value: &FlowValue, index: usize) -> FlowRecord {
    let direction = &value.directions[index];
    let is_icmp = matches!(key.protocol, ICMP | ICMPV6);
    let [icmp_type, icmp_code] = if is_icmp { value.icmp[index] } else { [0; 2] };
    let (local, remote) = ((key.local, key.local_port), (key.remote, key.remote_port));
    let ((source, source_port), (destination, destination_port)) =
        if index == 0 { (local, remote) } else { (remote, local) };
    let ingress = (index == 0) == (value.link_kind == link_kind::POD);
    FlowRecord {
        // The time is set when it is handed over.
        header: header::<FlowRecord>(kind::FLOW, 0),
        tuple: Tuple {
            source,
            destination,
            source_port,
            destination_port,
            protocol: key.protocol,
            ip_version: value.ip_version,
            icmp_type,
            icmp_code,
        },
        ifindex: key.ifindex & !INSIDE_TUNNEL,
        packet_len: 0,
        flags: u16::from(direction.flags & !(TELLABLE | DENIED))
            | (u16::from(value.proxied.min(1)) * flow_flags::PROXIED),
        vlan_tci: 0,
        hook: if ingress { hook::INGRESS } else { hook::EGRESS },
        link_kind: value.link_kind,
        reason: flow_reason::SWEEP,
        tcp_flags: direction.tcp_flags,
        source_mac: [0; 6],
        destination_mac: [0; 6],
        tcp_flags_high: 0,
        pad: 0,
        resets: value.resets,
        packets: direction.packets,
        bytes: direction.bytes,
        first_ns: value.first_ns,
    }
}

//! Verdicts of policies in the kernel, by maps that the tests fill.

mod errors;
mod generations;
mod live;
mod rows;
mod services;
mod sides;
mod strangers;
mod twins;

use std::net::IpAddr;

use aya::maps::{HashMap, MapData, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use observer::capture::{PolicyMaps, PolicyTables, kernel::load::patiently};
use observer_ebpf::policy::{
    Judged, NO_TABLE, PolicyBackend, PolicyBackends, PolicyCut, PolicyEndpoint, PolicyFrontend, PolicyRow,
    PolicyRowKey, cut_key, decision, endpoint_flags, slot,
};
use observer_ebpf::{
    Config, DeniedRecord, FlowRecord, JudgedFlowRecord, LinkState, aggregation, kind, link_kind, program,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::frames::ethernet;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-policy"));
const LINK: usize = size_of::<LinkState>();
/// `lo`, whose index a test run gives.
const IFINDEX: u32 = 1;

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

const ALLOWED: u32 = decision::JUDGED | 1;
const DEFAULT: u32 = decision::JUDGED | decision::DENIED | decision::AUDITED | 2;
const BY_RULE: u32 = decision::JUDGED | decision::DENIED | decision::AUDITED | decision::BY_RULE | 3;
const AUDITED: u32 = decision::JUDGED | decision::AUDITED | 4;

const NODE: &str = "10.0.0.254";
/// The node's number as a peer and a subject.
const HOST: u32 = 9;
const OTHER_NODE: u32 = 8;
const WORLD: u32 = 7;

fn bytes(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Pods 1 to 3 have 10.0.0.1 to 10.0.0.3 and fd00::1 to fd00::3. This node is 10.0.0.254, another one 10.0.1.254.
struct World(PolicyTables);

impl World {
    fn new() -> Self {
        let mut tables = PolicyTables::default();
        let endpoint = |number, flags| PolicyEndpoint { peer: number, subject: number, flags };
        for pod in 1..=3 {
            tables.endpoints.insert(bytes(&format!("10.0.0.{pod}")), endpoint(pod, 0));
            tables.endpoints.insert(bytes(&format!("fd00::{pod}")), endpoint(pod, 0));
        }
        tables.endpoints.insert(bytes(NODE), endpoint(HOST, endpoint_flags::HOST | endpoint_flags::NODE));
        tables.endpoints.insert(bytes("10.0.1.254"), endpoint(OTHER_NODE, endpoint_flags::NODE));
        tables.nets.insert((0, [0; 16]), WORLD);
        tables.nets.insert((96, bytes("0.0.0.0")), WORLD);
        tables.sides = vec![[NO_TABLE; 2]; HOST as usize + 1];
        Self(tables)
    }

    /// What a side of a subject says of a peer, from which protocol and port on.
    fn row(mut self, subject: u32, side: usize, peer: u32, cuts: &[(u32, u32)]) -> Self {
        let table = subject * 2 + side as u32;
        self.0.sides[subject as usize][side] = table;
        let cuts: Vec<_> = cuts.iter().map(|&(from, decision)| PolicyCut { from, decision }).collect();
        let row = self.0.place_row(&cuts);
        self.0.rows.insert(PolicyRowKey { table, peer }, row);
        self
    }

    fn service(mut self, address: &str, port: u16, backends: &[(&str, u16)]) -> Self {
        let frontend = PolicyFrontend { address: bytes(address), port, protocol: 6, pad: 0 };
        let all = PolicyBackends { begin: self.0.backends.len() as u32, len: backends.len() as u32 };
        self.0.frontends.insert(frontend, all);
        self.0.backends.extend(backends.iter().map(|&(address, port)| PolicyBackend {
            address: bytes(address),
            port,
            pad: [0; 2],
        }));
        self
    }
}

/// One decision on everything.
fn all(decision: u32) -> [(u32, u32); 1] {
    [(0, decision)]
}

/// One on a port of TCP, default deny on all else.
fn only(port: u16, decision: u32) -> [(u32, u32); 3] {
    [(0, DEFAULT), (cut_key(6, port), decision), (cut_key(6, port + 1), DEFAULT)]
}

/// Where a packet is seen.
#[derive(Clone, Copy)]
struct At {
    link: u8,
    /// Out of the node.
    egress: bool,
    forwarded: bool,
}

/// From a pod.
const FROM_POD: At = At { link: link_kind::POD, egress: false, forwarded: true };
/// To a pod, from another link.
const TO_POD: At = At { link: link_kind::POD, egress: true, forwarded: true };
/// To a pod, from a process of the node.
const HOST_TO_POD: At = At { forwarded: false, ..TO_POD };
/// From outside.
const FROM_WORLD: At = At { link: link_kind::UPLINK, ..FROM_POD };
/// Out of the node, forwarded.
const TO_WORLD: At = At { link: link_kind::UPLINK, ..TO_POD };
/// Out of the node, from a process of it.
const HOST_TO_WORLD: At = At { link: link_kind::UPLINK, ..HOST_TO_POD };

/// What became of a packet.
#[derive(Debug, Default)]
struct Outcome {
    dropped: bool,
    /// What the record of it says of policies.
    judged: Option<Judged>,
    flow: Option<FlowRecord>,
    denied: Option<DeniedRecord>,
}

impl Outcome {
    /// The decisions on the two sides.
    fn sides(&self) -> Option<(u32, u32)> {
        self.judged.map(|judged| (judged.egress, judged.ingress))
    }
}

struct Judging {
    ebpf: Ebpf,
    maps: PolicyMaps,
    world: World,
    flows: RingBuf<MapData>,
    priority: RingBuf<MapData>,
}

impl Judging {
    fn new(world: World) -> Self {
        Self::with(world, Config::default(), 65_536)
    }

    fn with(world: World, config: Config, connections: u32) -> Self {
        let config = Config {
            aggregation: aggregation::MEDIUM,
            ephemeral_low: 32_768,
            ephemeral_high: 60_999,
            interval_ns: u64::MAX,
            coarse_clock: 1,
            netns: 77,
            ..config
        };
        let loaded = EbpfLoader::new()
            .override_global("CONFIG", config.as_bytes(), true)
            .map_max_entries("SHORT_FLOW_TABLE", connections)
            .load(OBJECT);
        let mut ebpf = loaded.unwrap();
        for name in ["observer_ingress", "observer_egress"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap();
        }
        let mut ring = |name| RingBuf::try_from(ebpf.take_map(name).unwrap()).unwrap();
        let (flows, priority) = (ring("FLOWS"), ring("PRIORITY"));
        let maps = PolicyMaps::of(&mut ebpf).unwrap();
        let mut judging = Self { ebpf, maps, world: World::new(), flows, priority };
        judging.put(world);
        judging
    }

    /// Puts another world in force.
    fn put(&mut self, world: World) {
        self.world = world;
        let free = slot(self.maps.generation()) ^ 1;
        self.maps.write(free, &self.world.0).unwrap();
        self.maps.flip().unwrap();
        self.maps.wait_for_programs().unwrap();
    }

    /// Which addresses local pods have.
    fn set_local(&mut self, pods: &[&str]) {
        let mut local: HashMap<_, [u8; 16], u32> = self.ebpf.map_mut("LOCAL").unwrap().try_into().unwrap();
        let mut world = World(self.world.0.clone());
        for pod in pods {
            local.insert(bytes(pod), 1, 0).unwrap();
            world.0.endpoints.get_mut(&bytes(pod)).unwrap().flags |= endpoint_flags::LOCAL;
        }
        self.put(world);
    }

    fn see(&mut self, at: At, frame: &[u8]) -> Outcome {
        let mut links: PerCpuHashMap<_, u32, [u8; LINK]> =
            self.ebpf.map_mut("LINKS").unwrap().try_into().unwrap();
        let state = LinkState { kind: u32::from(at.link), ..LinkState::default() };
        let state: [u8; LINK] = state.as_bytes().try_into().unwrap();
        let cpus = aya::util::nr_cpus().unwrap();
        links.insert(IFINDEX, PerCpuValues::try_from(vec![state; cpus]).unwrap(), 0).unwrap();
        let name = if at.egress { "observer_egress" } else { "observer_ingress" };
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        // `struct __sk_buff` up to `ingress_ifindex`.
        let mut context = [0_u32; 10];
        context[9] = u32::from(at.forwarded);
        let mut after = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(context.as_bytes()),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).unwrap();
        assert_eq!(&after[..result.data_size_out as usize], frame, "the program changed the frame");
        let dropped = match result.return_value as i32 {
            -1 => false,
            2 => true,
            other => panic!("the program returned {other}"),
        };
        let mut outcome = Outcome { dropped, ..Outcome::default() };
        self.take_records(&mut outcome);
        assert!(outcome.flow.is_none() || !outcome.dropped, "a dropped packet was told as forwarded");
        assert!(outcome.denied.is_none() || outcome.dropped, "a packet that passed was told as dropped");
        outcome
    }

    fn take_records(&mut self, outcome: &mut Outcome) {
        while let Some(record) = self.flows.next() {
            if record[0] == kind::JUDGED_FLOW {
                let record = JudgedFlowRecord::read_from_bytes(&record).unwrap();
                (outcome.flow, outcome.judged) = (Some(record.flow), Some(record.judged));
            } else {
                outcome.flow = Some(FlowRecord::read_from_prefix(&record).unwrap().0);
            }
        }
        while let Some(record) = self.priority.next() {
            let record = DeniedRecord::read_from_bytes(&record).unwrap();
            (outcome.denied, outcome.judged) = (Some(record), Some(record.judged));
        }
    }

    /// A counter of both flow programs.
    fn counted(&self, counter: impl Fn(&observer_ebpf::Counters) -> u64) -> u64 {
        const COUNTERS: usize = size_of::<observer_ebpf::Counters>();
        let counters: aya::maps::PerCpuArray<_, [u8; COUNTERS]> =
            self.ebpf.map("COUNTERS").unwrap().try_into().unwrap();
        let programs = [program::INGRESS, program::EGRESS, program::DENIED];
        let values = programs.map(|program| counters.get(&program, 0).unwrap());
        let each = values.iter().flat_map(|values| values.iter());
        each.map(|value| counter(&observer_ebpf::Counters::read_from_bytes(value).unwrap())).sum()
    }
}

/// An IP packet in a frame.
fn packet(from: &str, to: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
    fragment(from, to, protocol, 0, rest)
}

/// With the flags and the offset of IPv4's fragments.
fn fragment(from: &str, to: &str, protocol: u8, place: u16, rest: &[u8]) -> Vec<u8> {
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0, 0, 20 + rest.len() as u8, 0, 7];
            packet.extend(place.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(from.octets().iter().chain(&to.octets()).chain(rest));
            ethernet(0x0800, &packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, protocol, 64];
            packet.extend(from.octets().iter().chain(&to.octets()).chain(rest));
            ethernet(0x86dd, &packet)
        }
        ends => panic!("{ends:?}"),
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn tcp(from: &str, to: &str, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0];
    packet(from, to, 6, &[&ports(source, destination)[..], &header].concat())
}

fn udp(from: &str, to: &str, source: u16, destination: u16) -> Vec<u8> {
    packet(from, to, 17, &[&ports(source, destination)[..], &[0, 8, 0, 0]].concat())
}

//! The programs in the kernel decide as the engine does, of random connections under random policies; and what they would
//! deny in mode audit they deny in mode enforce, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

#[path = "../policy/tests/support/mod.rs"]
mod policies;
mod support;

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use observer::{
    capture::{PolicyMaps, kernel::load::patiently},
    policy::kernel_tables,
};
use observer_ebpf::{
    Config, DeniedRecord, JudgedFlowRecord, LinkState, aggregation, kind, link_kind,
    policy::{Judged, decision, slot},
};
use observer_policy::{
    engine::{Decision, Engine, Verdict},
    model::{Direction, Mode, Policy},
    source::{self, Options},
};
use policies::{
    naive::{Cluster, End},
    random::{self, Random},
};
use std::net::IpAddr;
use support::{can_run, scaled};
use zerocopy::{FromBytes as _, IntoBytes as _};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-policy"));
const LINK: usize = size_of::<LinkState>();
/// `lo`, whose index a test run gives.
const IFINDEX: u32 = 1;
/// Of a set of policies.
const QUESTIONS: u64 = 200;
const DROP: i32 = 2;
const NEXT: i32 = -1;

/// The programs on a link that nobody else has, with their maps.
struct Kernel {
    ebpf: Ebpf,
    maps: PolicyMaps,
    rings: [RingBuf<MapData>; 2],
}

impl Kernel {
    fn load() -> Self {
        let config = Config {
            aggregation: aggregation::MEDIUM,
            ephemeral_low: 32_768,
            ephemeral_high: 60_999,
            interval_ns: 5_000_000_000,
            new_flow_burst: 1,
            ..Config::default()
        };
        let loaded = EbpfLoader::new()
            .override_global("CONFIG", config.as_bytes(), true)
            // So that each connection has an entry, and is told of.
            .map_max_entries("SHORT_FLOW_TABLE", 1 << 19)
            .map_max_entries("FLOW_TABLE", 1 << 18)
            .load(OBJECT);
        let mut ebpf = loaded.unwrap();
        for name in ["observer_ingress", "observer_egress"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap();
        }
        let rings =
            ["FLOWS", "PRIORITY"].map(|name| RingBuf::try_from(ebpf.take_map(name).unwrap()).unwrap());
        let maps = PolicyMaps::of(&mut ebpf).unwrap();
        Self { ebpf, maps, rings }
    }

    fn put_on(&mut self, kind: u8) {
        let map = self.ebpf.map_mut("LINKS").unwrap();
        let mut links: PerCpuHashMap<_, u32, [u8; LINK]> = map.try_into().unwrap();
        let state = LinkState { kind: kind.into(), ..LinkState::default() };
        let state: [u8; LINK] = state.as_bytes().try_into().unwrap();
        let cpus = aya::util::nr_cpus().unwrap();
        links.insert(IFINDEX, PerCpuValues::try_from(vec![state; cpus]).unwrap(), 0).unwrap();
    }

    /// Puts what an engine says in force.
    fn judge_by(&mut self, engine: &Engine) {
        let (tables, left_out) = kernel_tables(engine, &[], |_| false);
        assert_eq!(left_out, 0);
        // No program runs: nobody need be waited for.
        self.maps.write(slot(self.maps.generation()) ^ 1, &tables).unwrap();
        self.maps.flip().unwrap();
    }

    /// What becomes of a packet, and what was told of the decision.
    fn run(&mut self, egress: bool, frame: &[u8]) -> (i32, Option<Judged>) {
        let name = if egress { "observer_egress" } else { "observer_ingress" };
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap().return_value as i32;
        let mut told = None;
        for ring in &mut self.rings {
            while let Some(record) = ring.next() {
                match record[0] {
                    kind::JUDGED_FLOW => {
                        told = Some(JudgedFlowRecord::read_from_bytes(&record).unwrap().judged);
                    }
                    kind::DENIED => told = Some(DeniedRecord::read_from_bytes(&record).unwrap().judged),
                    _ => {}
                }
            }
        }
        (result, told)
    }
}

/// A connection's first packet at one of the hooks.
#[derive(Debug)]
struct Packet {
    link: u8,
    egress: bool,
    from: End,
    to: End,
    protocol: u8,
    port: u16,
}

impl Packet {
    /// Nothing where no such packet can be, or says nothing.
    fn random(random: &mut Random, cluster: &Cluster, link: u8) -> Option<Self> {
        let question = random::question(random, cluster);
        let peer = question.peer;
        let subject = match cluster.address(&peer) {
            IpAddr::V4(_) => question.subject,
            // Of the pods this one has an IPv6 address.
            IpAddr::V6(_) => End::PodAt(4, 1),
        };
        let (protocol, port) = match (question.protocol, question.port) {
            // An answer.
            (1, 0) => return None,
            (1, _) if cluster.address(&peer).is_ipv6() => (58, 128),
            (58, _) if cluster.address(&peer).is_ipv4() => (1, 8),
            // A tunnel; another one without ports in its place.
            (47, _) => (50, 0),
            other => other,
        };
        let (from, to) =
            if question.direction == Direction::Egress { (subject, peer) } else { (peer, subject) };
        let [source, destination] = [&from, &to].map(|end| cluster.address(end));
        // Without ports all that two ends send each other is one connection, whose opener is the first who sends.
        if source == destination || protocol == 50 && source > destination {
            return None;
        }
        // Where it leaves the pod, or comes to it; at an uplink, what the node itself sends or is sent.
        let (near, far) = if question.direction == Direction::Egress { (&from, &to) } else { (&to, &from) };
        let is_pod = |end: &End| matches!(end, End::Pod(_) | End::PodAt(..));
        let egress = match link {
            link_kind::POD if is_pod(near) => question.direction == Direction::Ingress,
            link_kind::POD => return None,
            _ if matches!(near, End::Host) && !is_pod(far) => question.direction == Direction::Egress,
            _ => return None,
        };
        Some(Self { link, egress, from, to, protocol, port })
    }

    fn frame(&self, cluster: &Cluster, source_port: u16) -> Vec<u8> {
        let ports = [source_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        let rest = match self.protocol {
            6 => [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]].concat(),
            17 => [&ports[..], &[0, 8, 0, 0]].concat(),
            132 => [&ports[..], &[0; 12]].concat(),
            1 | 58 => [&[self.port as u8, 0, 0, 0], &source_port.to_be_bytes()[..], &[0, 1]].concat(),
            _ => vec![0; 16],
        };
        let (source, destination) = (cluster.address(&self.from), cluster.address(&self.to));
        let (ether_type, mut packet) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet =
                    vec![0x45, 0, 0, (20 + rest.len()) as u8, 0, 7, 0, 0, 64, self.protocol, 0, 0];
                packet.extend(source.octets().into_iter().chain(destination.octets()));
                (0x0800_u16, packet)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, self.protocol, 64];
                packet.extend(source.octets().into_iter().chain(destination.octets()));
                (0x86dd, packet)
            }
            other => panic!("{other:?}"),
        };
        packet.extend(rest);
        let ethernet = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type.to_be_bytes()[..]].concat();
        [ethernet, packet].concat()
    }

    /// What the engine says of the opener's side and of the other, where they are judged at this hook.
    fn judge(&self, engine: &Engine, cluster: &Cluster) -> [Decision; 2] {
        let [from, to] = [&self.from, &self.to].map(|end| cluster.address(end));
        let of = |subject: IpAddr, direction, peer: IpAddr| {
            let Some(subject) = engine.subject_at(subject) else { return Decision::OPEN };
            engine.judge(subject, direction, engine.peer_at(peer), self.protocol, self.port)
        };
        let at_pod = self.link == link_kind::POD;
        let [is_own, is_for_host] = [&self.from, &self.to].map(|end| matches!(end, End::Host));
        let egress = if self.egress { is_own } else { at_pod };
        let ingress = if self.egress { at_pod } else { is_for_host };
        [
            if egress { of(from, Direction::Egress, to) } else { Decision::OPEN },
            if ingress { of(to, Direction::Ingress, from) } else { Decision::OPEN },
        ]
    }
}

/// As the programs have it.
fn bits(decided: &Decision) -> u32 {
    let Some(rules) = decided.rules else { return 0 };
    let denied = if decided.enforced.passes() { 0 } else { decision::DENIED };
    let by_rule = if decided.enforced == Verdict::Denied { decision::BY_RULE } else { 0 };
    let audited = if decided.all.passes() { 0 } else { decision::AUDITED };
    let requests = if decided.enforced == Verdict::Requests { decision::REQUESTS } else { 0 };
    let read = if decided.audited == Verdict::Requests { decision::AUDIT_REQUESTS } else { 0 };
    decision::JUDGED | denied | by_rule | requests | read | audited | rules.0
}

fn in_mode(policies: &[Policy], mode: impl Fn(&Policy) -> Mode) -> Vec<Policy> {
    policies.iter().map(|policy| Policy { mode: Some(mode(policy)), ..policy.clone() }).collect()
}

#[test]
fn kernel_and_engine_agree_and_audit_is_enforce() {
    if !can_run("kernel_and_engine_agree_and_audit_is_enforce") {
        return;
    }
    let cluster = policies::cluster();
    let mut engine = policies::engine(&cluster);
    let mut kernel = Kernel::load();
    let [mut asked, mut refused, mut told, mut seed] = [0_u64; 4];
    let wanted = scaled(100_000, 1_000_000);
    while asked < wanted {
        seed += 1;
        let mut random = Random::new(seed);
        let documents = random::documents(&mut random);
        let text = documents.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n");
        let read = source::parse(&text, &Options::default()).unwrap();
        let link = if random.percent(80) { link_kind::POD } else { link_kind::UPLINK };
        kernel.put_on(link);
        // Once all alike, then each for itself.
        let some = random.below(8);
        let enforced = move |policy: &Policy| {
            let place: usize = policy.id.name[1..].parse().unwrap();
            if place == some { Mode::Audit } else { Mode::Enforce }
        };
        let packets: Vec<Packet> =
            (0..QUESTIONS).filter_map(|_| Packet::random(&mut random, &cluster, link)).collect();
        let mut dropped = Vec::new();
        for turn in 0..3 {
            let policies = match turn {
                0 => in_mode(&read, |_| Mode::Enforce),
                1 => in_mode(&read, |_| Mode::Audit),
                _ => in_mode(&read, enforced),
            };
            policies::set_policies(&mut engine, policies);
            kernel.judge_by(&engine);
            for (place, packet) in packets.iter().enumerate() {
                // Each a connection of its own, and no port of a service's.
                let source_port = 33_000 + (seed % 40 * 600 + turn * QUESTIONS) as u16 + place as u16;
                let (result, judged) = kernel.run(packet.egress, &packet.frame(&cluster, source_port));
                let decided = packet.judge(&engine, &cluster);
                let context = || format!("round {seed}, turn {turn}: {packet:?}: {decided:?}\n{text}");
                let denies = decided.iter().any(|decided| !decided.enforced.passes());
                assert_eq!(result, if denies { DROP } else { NEXT }, "{}", context());
                if let Some(judged) = judged {
                    assert_eq!(
                        [judged.egress, judged.ingress],
                        decided.map(|one| bits(&one)),
                        "{}",
                        context()
                    );
                    assert_eq!(judged.generation, kernel.maps.generation());
                    told += 1;
                }
                // What is audited is what is enforced.
                match turn {
                    0 => dropped.push(denies),
                    1 => {
                        let would = decided.iter().any(|decided| !decided.all.passes());
                        assert_eq!((would, denies), (dropped[place], false), "{}", context());
                    }
                    _ => {}
                }
                asked += u64::from(turn != 1);
                refused += u64::from(denies);
            }
        }
    }
    // Often enough for the agreement to mean something.
    assert!(refused > asked / 10 && told > asked / 10, "of {asked} {refused} denied, {told} told");
}

//! With policies: packets between two pods of the node where they are delivered, so that both sides are judged.
//!
//! As many pods as entries, all allowed by a row of their own to send to one; there are as many rows, and the search is among
//! four cuts. `first`: each packet opens a connection, so its entry is made, both sides are judged, and a record is written;
//! 2,000 such packets in a row, as a busy node has them, over a program that does nothing with the same packets; the median of
//! the rounds. `hot`: always of the same pod; `random`: of any. `established, random`: 2,000 in a row of connections that each
//! pod has one of. `by itself`: one run a call, the median, which finds the program's own code as cold as a packet once in a
//! while does.

use aya::maps::HashMap;
use observer::capture::{CaptureConfig, PolicyMaps, PolicyTables};
use observer_ebpf::bench::Varied;
use observer_ebpf::policy::{
    NO_TABLE, PolicyCut, PolicyEndpoint, PolicyRowKey, cut_key, decision, endpoint_flags, slot,
};

use crate::{Failure, NOTHING, Programs, Random, median, report};

pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-policy"));
const FLOW: &str = "observer_egress";
const ENTRIES: [u32; 3] = [10, 1_000, MOST];
/// Entries at most.
pub(crate) const MOST: u32 = 50_000;
pub(crate) const IN_A_ROW: u32 = 2_000;
/// Of the connection that each pod has from the start.
const STANDING: u16 = 65_000;
const ROUNDS: u32 = 9;
/// All in all there are fewer connections than ports.
const BY_ITSELF: u32 = 4_000;
const ROUNDS_BY_ITSELF: u32 = 3;
const REPEAT: u32 = 100_000;
/// The pod that all send to; behind all others.
const SERVER: u32 = 0xff_ff00;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The programs with so many entries, and what each round took.
struct Filled {
    programs: Programs,
    entries: u32,
    frame: Frame,
    /// The last one that was used.
    port: u16,
    /// Of one connection, of any.
    established: [Vec<f64>; 2],
    /// Of one pod, of any.
    first: [Vec<f64>; 2],
}

pub(crate) fn measure(object: &[u8]) -> Result<(), Failure> {
    for (family, frame, aim) in [("IPv4", ipv4 as Frame, 80.0), ("IPv6", ipv6, 100.0)] {
        let filled = ENTRIES.map(|entries| Filled::new(object, entries, frame));
        let mut filled = filled.into_iter().collect::<Result<Vec<_>, _>>()?;
        // All sizes by turns: the machine may be slower for a while.
        for _ in 0..ROUNDS {
            for one in &mut filled {
                one.round()?;
            }
        }
        for one in &mut filled {
            let name = |what: &str| format!("policy of {} entries, {family}, {what}", one.entries);
            report(&name("established packet"), middle(&one.established[0])?, aim);
            report(&name("established packet, random"), middle(&one.established[1])?, 250.0);
            report(&name("first packet, hot"), middle(&one.first[0])?, 600.0);
            report(&name("first packet, random"), middle(&one.first[1])?, 600.0);
            let [hot, random] =
                [name("first packet, hot, by itself"), name("first packet, random, by itself")];
            println!("{hot}: {:.0} ns\n{random}: {:.0} ns", one.by_itself(false)?, one.by_itself(true)?);
        }
        let flat = (0..ROUNDS as usize).map(|round| {
            let of_round = || filled.iter().map(|one| one.first[0][round]);
            of_round().fold(0.0, f64::max) / of_round().fold(f64::INFINITY, f64::min)
        });
        let flat = middle(&flat.collect::<Vec<_>>())?;
        println!("BENCH policy, {family}, first packet, hot: largest over least\t{flat:.2}\tx\taim 1.20");
        let [hot, random] = &filled[ENTRIES.len() - 1].first;
        let cold = middle(&hot.iter().zip(random).map(|(hot, random)| random / hot).collect::<Vec<_>>())?;
        println!("BENCH policy, {family}, first packet, random of {MOST} over hot\t{cold:.2}\tx\taim 3.00");
    }
    Ok(())
}

fn middle(values: &[f64]) -> Result<f64, Failure> {
    median(values.iter().copied().map(Ok))
}

impl Filled {
    fn new(object: &[u8], entries: u32, frame: Frame) -> Result<Self, Failure> {
        let mut programs = Programs::of(object, FLOW, CaptureConfig::default().judged_flow_table_entries)?;
        fill(&mut programs, entries, frame)?;
        programs.run(FLOW, &frame(0, 1, SYN), 2)?;
        for pod in 0..entries {
            programs.run(FLOW, &frame(pod, STANDING.into(), SYN), 1)?;
            programs.run(FLOW, &frame(pod, STANDING.into(), ACK), 1)?;
            programs.forget_records();
        }
        let (established, first) = Default::default();
        Ok(Self { programs, entries, frame, port: 1, established, first })
    }

    fn round(&mut self) -> Result<(), Failure> {
        let Self { programs, entries, frame, .. } = self;
        let packet = frame(0, 1, ACK);
        let nothing = programs.run(NOTHING, &packet, REPEAT)?;
        self.established[0].push(programs.run(FLOW, &packet, REPEAT)? - nothing);
        let mut of_any =
            Varied { port: STANDING, step: 0, ..varied(*frame, 0, *entries, u64::from(self.port)) };
        self.established[1].push(programs.over_nothing(FLOW, &frame(0, 0, ACK), &mut of_any)?);
        for (times, (pod, pods)) in self.first.iter_mut().zip([(*entries / 2, 0), (0, *entries)]) {
            programs.forget_records();
            let mut varied = varied(*frame, pod, pods, u64::from(self.port));
            varied.port = self.port;
            times.push(programs.over_nothing(FLOW, &frame(0, 0, SYN), &mut varied)?);
            self.port = varied.port;
        }
        Ok(())
    }

    /// One run a call.
    fn by_itself(&mut self, any: bool) -> Result<f64, Failure> {
        let mut pick = Random(0x9e37_79b9_7f4a_7c15);
        let mut single = |name| {
            median((0..BY_ITSELF).map(|run| {
                if run % 512 == 0 {
                    self.programs.forget_records();
                }
                self.port += u16::from(name == FLOW);
                let pod = if any { pick.next() % self.entries } else { self.entries / 2 };
                self.programs.run(name, &(self.frame)(pod, self.port.into(), SYN), 1)
            }))
        };
        let rounds = (0..ROUNDS_BY_ITSELF).map(|_| {
            let nothing = single(NOTHING)?;
            Ok(single(FLOW)? - nothing)
        });
        median(rounds)
    }
}

/// New connections of any of so many pods from this one on, or always of this one; others in each round, since those of the
/// last one may still be in the caches.
fn varied(frame: Frame, pod: u32, pods: u32, round: u64) -> Varied {
    let packet = frame(pod, 0, SYN);
    let (address_at, port_at) = if packet[12] == 8 { (26, 34) } else { (34, 54) };
    let number = &packet[address_at..address_at + 4];
    let first = number.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let (address_at, port_at) = (address_at as u32, port_at);
    Varied { state: crate::state(round), first, pods, address_at, port_at, port: 0, step: 1, pad: [0; 2] }
}

fn fill(programs: &mut Programs, entries: u32, frame: Frame) -> Result<(), Failure> {
    const ALLOWED: u32 = decision::JUDGED | 1;
    const DENIED: u32 = decision::JUDGED | decision::DENIED | 2;
    const SENDS: u32 = 1;
    const IS_SENT: u32 = 2;
    // The address in the frame is that in the map but for IPv4's mapping.
    let address = |pod| source(&frame(pod, 0, 0));
    let mut tables = PolicyTables::default();
    let cuts = [(0, DENIED), (cut_key(6, 80), ALLOWED), (cut_key(6, 81), DENIED), (cut_key(17, 53), ALLOWED)];
    let row = tables.place_row(&cuts.map(|(from, decision)| PolicyCut { from, decision }));
    let mut local: HashMap<_, [u8; 16], u32> =
        programs.ebpf.map_mut("LOCAL").ok_or("no map LOCAL")?.try_into()?;
    for pod in 0..entries {
        // Peer and subject are the pod's own.
        tables
            .endpoints
            .insert(address(pod), PolicyEndpoint { peer: pod, subject: 0, flags: endpoint_flags::LOCAL });
        tables.rows.insert(PolicyRowKey { table: IS_SENT, peer: pod }, row);
        local.insert(address(pod), 1, 0)?;
    }
    tables.endpoints.insert(address(SERVER), PolicyEndpoint { peer: MOST, subject: 1, flags: 0 });
    tables.rows.insert(PolicyRowKey { table: SENDS, peer: MOST }, row);
    tables.sides = vec![[SENDS, NO_TABLE], [NO_TABLE, IS_SENT]];
    let mut maps = PolicyMaps::of(&mut programs.ebpf)?;
    maps.write(slot(maps.generation()) ^ 1, &tables)?;
    maps.flip()?;
    Ok(())
}

/// A TCP segment of a pod to port 80 of [`SERVER`]: the pod, its port, the flags.
type Frame = fn(u32, u32, u8) -> Vec<u8>;

fn segment(port: u32, flags: u8) -> Vec<u8> {
    let mut header = (port as u16).to_be_bytes().to_vec();
    header.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

fn ipv4(pod: u32, port: u32, flags: u8) -> Vec<u8> {
    let address = |pod: u32| (0x0a00_0000 | pod).to_be_bytes();
    let mut packet = vec![0x45, 0, 0, 40, 0, 7, 0x40, 0, 64, 6, 0, 0];
    packet.extend(address(pod).iter().chain(&address(SERVER)));
    packet.extend(segment(port, flags));
    crate::ethernet(0x0800, &packet)
}

fn ipv6(pod: u32, port: u32, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    for pod in [pod, SERVER] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(pod.to_be_bytes());
    }
    packet.extend(segment(port, flags));
    crate::ethernet(0x86dd, &packet)
}

/// Who sends a frame, as maps have it.
fn source(frame: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    if frame[12] == 8 {
        address[10..12].fill(0xff);
        address[12..].copy_from_slice(&frame[26..30]);
    } else {
        address.copy_from_slice(&frame[22..38]);
    }
    address
}

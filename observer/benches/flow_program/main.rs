//! Nanoseconds a packet that the flow program costs, over a program that does nothing, by the kernel's own test runs.
//!
//! `hot`: packets of one established connection, the mean of 100,000 runs in one call. `random`: 2,000 packets in a row, each
//! of any of 50,000 established connections, so that each finds the caches as others left them.
//! Rounds of both programs alternate; the medians of the rounds are printed. Needs root, attaches nothing.
//!
//! Then the same with policies, see [`policy`], and with payload that is looked at, see [`l7`]; with a file's programs in the place of this build's where one is named, so that
//! two builds can be compared: then with policies alone.

mod l7;
mod policy;

use aya::maps::{Array, MapData, PerCpuHashMap, PerCpuValues, ProgramArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use observer_ebpf::{Config, LinkState, aggregation, bench::Varied, link_kind};
use std::process::ExitCode;
use zerocopy::IntoBytes as _;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf"));
static BESIDE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-bench"));
const FLOW: &str = "observer_ingress";
const NOTHING: &str = "observer_nothing";
const VARIED: &str = "observer_varied";
/// Returned by all programs that are measured: the next one's turn.
const TCX_NEXT: u32 = u32::MAX;
const LINK: usize = size_of::<LinkState>();
/// `lo`, whose index a test run gives.
const IFINDEX: u32 = 1;
const ROUNDS: usize = 9;
const REPEAT: u32 = 100_000;
const CONNECTIONS: u32 = 50_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("flow_program: needs root: it loads programs into the kernel (nothing is attached)");
        return ExitCode::SUCCESS;
    }
    // `--bench` is cargo's word.
    let measured = match std::env::args().skip(1).find(|word| !word.starts_with('-')) {
        Some(file) => std::fs::read(file).map_err(Failure::from).and_then(|object| policy::measure(&object)),
        None => measure().and_then(|()| policy::measure(policy::OBJECT)).and_then(|()| l7::measure()),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flow_program: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failure> {
    for (family, frame) in [("IPv4", ipv4 as fn(u32) -> Vec<u8>), ("IPv6", ipv6)] {
        let mut programs = Programs::of(OBJECT, FLOW, 65_536)?;
        let hot = frame(0);
        // The entry, and its records, are made before the clock runs.
        programs.run(FLOW, &hot, 2)?;
        let rounds = (0..ROUNDS).map(|_| {
            let nothing = programs.run(NOTHING, &hot, REPEAT)?;
            Ok(programs.run(FLOW, &hot, REPEAT)? - nothing)
        });
        report(&format!("flow program, established {family} packet, hot"), median(rounds)?, 80.0);

        for connection in 0..CONNECTIONS {
            programs.run(FLOW, &frame(connection), 2)?;
            programs.forget_records();
        }
        // Where the other end's address, whose last four bytes are the connection's number, and the port stand.
        let (address_at, port_at) = if hot[12] == 8 { (30, 34) } else { (50, 54) };
        let rounds = (0..ROUNDS as u64).map(|round| {
            let (first, pods, port, state) = (FIRST, CONNECTIONS, PORT, state(round));
            let mut varied = Varied { state, first, pods, address_at, port_at, port, step: 0, pad: [0; 2] };
            programs.over_nothing(FLOW, &hot, &mut varied)
        });
        report(&format!("flow program, established {family} packet, random"), median(rounds)?, 250.0);
    }
    Ok(())
}

fn report(what: &str, nanoseconds: f64, aim: f64) {
    println!("BENCH {what}\t{nanoseconds:.0}\tns\taim {aim:.0}");
}

fn median(values: impl Iterator<Item = Result<f64, Failure>>) -> Result<f64, Failure> {
    let mut values = values.collect::<Result<Vec<_>, _>>()?;
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
}

struct Programs {
    ebpf: Ebpf,
    /// The program that does nothing, and the one that varies packets.
    beside: Ebpf,
    varied: Array<MapData, [u8; VARIED_SIZE]>,
    measured: ProgramArray<MapData>,
    flows: RingBuf<MapData>,
}

const VARIED_SIZE: usize = size_of::<Varied>();

impl Programs {
    /// With this flow program, and room in the table for so many connections.
    fn of(object: &[u8], name: &str, connections: u32) -> Result<Self, Failure> {
        Self::reading(object, name, connections, 0)
    }

    /// Likewise, where payload is looked at for these bits of [`observer_ebpf::l7`].
    fn reading(object: &[u8], name: &str, connections: u32, l7: u32) -> Result<Self, Failure> {
        let config = Config {
            aggregation: aggregation::MEDIUM,
            ephemeral_low: 32_768,
            ephemeral_high: 60_999,
            interval_ns: u64::MAX,
            new_flow_cost_ns: 0,
            new_flow_burst: 1,
            coarse_clock: 1,
            l7,
            ..Config::default()
        };
        let loaded = EbpfLoader::new()
            .override_global("CONFIG", config.as_bytes(), true)
            .map_max_entries("SHORT_FLOW_TABLE", connections)
            .map_max_entries("FLOW_TABLE", connections)
            .map_max_entries("LOCAL", policy::MOST)
            .load(object);
        let mut ebpf = loaded?;
        let mut links: PerCpuHashMap<_, u32, [u8; LINK]> =
            ebpf.map_mut("LINKS").ok_or("no map LINKS")?.try_into()?;
        let state = LinkState { kind: u32::from(link_kind::POD), ..LinkState::default() };
        let state: [u8; LINK] = state.as_bytes().try_into()?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        links.insert(IFINDEX, PerCpuValues::try_from(vec![state; cpus])?, 0)?;
        let mut beside = EbpfLoader::new().load(BESIDE)?;
        classifier(&mut ebpf, name)?.load()?;
        for name in [NOTHING, VARIED] {
            classifier(&mut beside, name)?.load()?;
        }
        let map = |ebpf: &mut Ebpf, name| ebpf.take_map(name).ok_or(format!("no map {name}"));
        let flows = RingBuf::try_from(map(&mut ebpf, "FLOWS")?)?;
        let varied = Array::try_from(map(&mut beside, "VARIED")?)?;
        let measured = ProgramArray::try_from(map(&mut beside, "MEASURED")?)?;
        Ok(Self { ebpf, beside, varied, measured, flows })
    }

    fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, Failure> {
        classifier(if name == NOTHING { &mut self.beside } else { &mut self.ebpf }, name)
    }

    /// Mean nanoseconds of `repeat` runs.
    fn run(&mut self, name: &str, frame: &[u8], repeat: u32) -> Result<f64, Failure> {
        run(self.program(name)?, frame, repeat)
    }

    /// Mean nanoseconds of `repeat` runs in a row, each with a packet of its own, those of varying it included.
    fn vary(&mut self, name: &str, frame: &[u8], varied: &mut Varied, repeat: u32) -> Result<f64, Failure> {
        let program = self.program(name)?.fd()?.try_clone()?;
        self.measured.set(0, &program, 0)?;
        self.varied.set(0, <[u8; VARIED_SIZE]>::try_from(varied.as_bytes())?, 0)?;
        let nanoseconds = run(classifier(&mut self.beside, VARIED)?, frame, repeat)?;
        *varied = zerocopy::transmute!(self.varied.get(&0, 0)?);
        Ok(nanoseconds)
    }

    /// Likewise over those of a program that does nothing with the same packets.
    fn over_nothing(&mut self, name: &str, frame: &[u8], varied: &mut Varied) -> Result<f64, Failure> {
        self.forget_records();
        let nothing = self.vary(NOTHING, frame, &mut Varied { ..*varied }, policy::IN_A_ROW)?;
        Ok(self.vary(name, frame, varied, policy::IN_A_ROW)? - nothing)
    }

    fn forget_records(&mut self) {
        while self.flows.next().is_some() {}
    }
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<f64, Failure> {
    let result =
        program.test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() })?;
    if result.return_value != TCX_NEXT {
        return Err(format!("the program returned {}", result.return_value.cast_signed()).into());
    }
    Ok(result.duration.as_nanos() as f64)
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Failure> {
    Ok(ebpf.program_mut(name).ok_or("no such program in the object")?.try_into()?)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}

fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(rest);
    frame
}

/// Random numbers begin with this one; others in each round.
fn state(round: u64) -> u64 {
    0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * round + 1)
}

/// The last bytes of the address of the first connection's other end.
const FIRST: u32 = 0x0a01_0000;
const PORT: u16 = 40_000;

/// A TCP segment with ACK alone.
fn segment() -> Vec<u8> {
    let mut header = PORT.to_be_bytes().to_vec();
    header.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 16, 0, 0, 0, 0, 0, 0]);
    header
}

fn ipv4(connection: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1];
    packet.extend((FIRST + connection).to_be_bytes());
    packet.extend(segment());
    ethernet(0x0800, &packet)
}

fn ipv6(connection: u32) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend((FIRST + connection).to_be_bytes());
    packet.extend(segment());
    ethernet(0x86dd, &packet)
}

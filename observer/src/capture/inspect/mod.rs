//! A look at what is loaded in the kernel, for those who ask. It reads beside the way of events, from any thread, and
//! changes nothing.

mod bpf;
mod hooks;
mod maps;
mod policy;

pub use hooks::OnHook;
pub use maps::{MapUse, RingUse, TableEntry};
pub use policy::PolicyInForce;

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};

use super::Capture;
use super::counters::Shared;
use super::error::chain;

/// Files of its own of what was loaded: the programs and maps stay in the kernel as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Handles {
    programs: Vec<LoadedProgram>,
    maps: Vec<LoadedMap>,
}

#[derive(Debug)]
struct LoadedProgram {
    name: String,
    info: ProgramInfo,
    fd: OwnedFd,
    /// How it hangs on its tracepoint; nothing of the flow programs.
    by: Option<&'static str>,
}

#[derive(Debug)]
struct LoadedMap {
    name: String,
    data: MapData,
}

impl Handles {
    /// Of an object whose maps are all there.
    pub(super) fn of_maps(ebpf: &Ebpf) -> Self {
        let maps = ebpf.maps().filter_map(|(name, map)| {
            let fd = data(map)?.fd().as_fd().try_clone_to_owned().ok()?;
            Some(LoadedMap { name: name.to_owned(), data: MapData::from_fd(fd).ok()? })
        });
        Self { programs: Vec::new(), maps: maps.collect() }
    }

    /// Of those programs, too, that are loaded by now.
    pub(super) fn with_programs(self, ebpf: &Ebpf) -> Self {
        let programs = ebpf.programs().filter_map(|(name, program)| {
            let by = match program {
                Program::BtfTracePoint(_) => Some("tp_btf"),
                Program::RawTracePoint(_) => Some("raw_tp"),
                Program::TracePoint(_) => Some("tracepoint"),
                _ => None,
            };
            // What this kernel refused, or what has no use on it, is not loaded.
            let (info, fd) = (program.info().ok()?, program.fd().ok()?.as_fd().try_clone_to_owned().ok()?);
            Some(LoadedProgram { name: name.to_owned(), info, fd, by })
        });
        Self { programs: programs.collect(), ..self }
    }

    fn program(&self, id: u32) -> Option<&LoadedProgram> {
        self.programs.iter().find(|program| program.info.id() == id)
    }
}

/// Of the kinds of maps that the programs have.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// Asks the kernel about what was loaded.
#[derive(Clone, Debug)]
pub struct Inspector {
    handles: Arc<Handles>,
    shared: Arc<Shared>,
}

/// A program in the kernel.
#[derive(Clone, Debug)]
pub struct ProgramUse {
    /// Its number in the kernel.
    pub id: u32,
    /// In full where it is ours; of others the kernel keeps 15 bytes.
    pub name: String,
    /// As bpftool says it.
    pub kind: String,
    /// A hash of its code.
    pub tag: u64,
    /// Loaded by this daemon.
    pub ours: bool,
    /// When it was loaded.
    pub loaded: Option<SystemTime>,
    /// Bytes of eBPF.
    pub xlated: u32,
    /// Bytes of the machine's code.
    pub jited: u32,
    /// Bytes that it holds.
    pub memlock: u64,
    /// How often it ran while statistics were on.
    pub runs: u64,
    /// How long that took, nanoseconds.
    pub run_ns: u64,
    /// Runs that the kernel refused.
    pub recursion_misses: u64,
    /// The tracepoint that it hangs on, and how.
    pub tracepoint: Option<String>,
}

impl Capture {
    /// For looks at what is loaded.
    pub fn inspector(&self) -> Inspector {
        Inspector { handles: Arc::clone(&self.handles), shared: Arc::clone(&self.shared) }
    }
}

/// Whether the kernel counts the runs of programs all the time.
pub fn statistics_on() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
    setting.trim() == "1"
}

/// Has the kernel count the runs of programs until it is dropped.
pub fn count_runs() -> Result<OwnedFd, String> {
    enable_stats(Stats::RunTime).map_err(|error| chain(&error))
}

impl Inspector {
    /// Our programs, then those of others with these ids.
    pub fn programs(&self, others: &[u32]) -> Vec<ProgramUse> {
        let mut programs: Vec<_> = self.handles.programs.iter().map(|program| self.ours(program)).collect();
        programs.sort_by_key(|program| program.id);
        programs.extend(infos(others).iter().map(of_others));
        programs
    }

    fn ours(&self, program: &LoadedProgram) -> ProgramUse {
        let now = FdInfo::of(program.fd.as_fd());
        let on = self
            .shared
            .tracing
            .iter()
            .find(|(_, fd)| FdInfo::of(fd.as_fd()).number("prog_id") == Some(program.info.id().into()));
        ProgramUse {
            name: program.name.clone(),
            ours: true,
            memlock: now.number("memlock").unwrap_or(0),
            runs: now.number("run_cnt").unwrap_or(0),
            run_ns: now.number("run_time_ns").unwrap_or(0),
            recursion_misses: now.number("recursion_misses").unwrap_or(0),
            tracepoint: on.map(|(tracepoint, _)| format!("{} {tracepoint}", program.by.unwrap_or_default())),
            ..of_others(&program.info)
        }
    }
}

/// Those of these programs that the kernel shows; it shows others' to CAP_SYS_ADMIN alone.
fn infos(ids: &[u32]) -> Vec<ProgramInfo> {
    if ids.is_empty() {
        return Vec::new();
    }
    loaded_programs().filter_map(Result::ok).filter(|info| ids.contains(&info.id())).collect()
}

fn of_others(info: &ProgramInfo) -> ProgramUse {
    let kind = format!("{:?}", info.program_type());
    ProgramUse {
        id: info.id(),
        name: String::from_utf8_lossy(info.name()).into_owned(),
        kind: kind.trim_start_matches("BPF_PROG_TYPE_").to_ascii_lowercase(),
        tag: info.tag(),
        ours: false,
        loaded: info.loaded_at(),
        xlated: info.size_translated().unwrap_or(0),
        jited: info.size_jitted(),
        memlock: info.memory_locked().map_or(0, u64::from),
        runs: info.run_count(),
        run_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
        recursion_misses: 0,
        tracepoint: None,
    }
}

/// What `/proc` tells of an open program or map: more than aya does, and as of now.
struct FdInfo(String);

impl FdInfo {
    fn of(fd: BorrowedFd<'_>) -> Self {
        let mut path = String::from("/proc/thread-self/fdinfo/");
        let _ = write!(path, "{}", fd.as_raw_fd());
        Self(std::fs::read_to_string(path).unwrap_or_default())
    }

    fn number(&self, key: &str) -> Option<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value?.trim().parse().ok()
    }
}

/// A further handle of a map.
fn handle(map: &MapData) -> io::Result<MapData> {
    MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?).map_err(io::Error::other)
}

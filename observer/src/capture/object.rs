//! Loading: the object with its globals and map sizes, each program by itself.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::{BtfTracePoint, ProgramError, ProgramFd, RawTracePoint, SchedClassifier, TracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use observer_ebpf::{Config, FlowKey, FlowValue, ShortKey, ShortValue};

use super::attach::Attacher;
use super::counters::{HookStatus, Shared};
use super::error::{CaptureError, chain, missing_capabilities};
use super::flow_table::FlowTable;
use super::generation::Generation;
use super::inspect::Handles;
use super::kernel::btf::KernelFacts;
use super::kernel::load::patiently;
use super::links::own_namespace;
use super::pins::{self, Pins};
use super::pod::Raw;
use super::policy::PolicyMaps;
use super::proxy::ProxySwitch;
use super::ring::Ring;
use super::rings::{Rings, monotonic};
use super::sweep::SweepMaps;
use super::tables::Tables;
use super::{CaptureConfig, DropHook, LinkHook};

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf"));
/// The same programs, which also judge.
pub(super) static JUDGING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-policy"));

/// How many new-flow records a CPU may write at once, in time of its rate.
const BURST: Duration = Duration::from_millis(250);

/// For so long, what is met of UDP may have begun before the programs ran: as long as the flow table keeps it.
const MIDWAY: Duration = Duration::from_mins(2);

pub(super) const INGRESS: &str = "observer_ingress";
pub(super) const EGRESS: &str = "observer_egress";
/// What the status calls the verdicts of policies.
const POLICY: &str = "policy";
/// In the environment of a build for tests: the programs that judge are as if the kernel refused them.
#[cfg(debug_assertions)]
const REFUSED: &str = "OBSERVER_TEST_REFUSE_JUDGING";

/// The loaded object, before its maps go to those who use them.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    /// Of its maps, for those who look at them.
    handles: Handles,
    generation: Arc<Generation>,
    policy: Option<PolicyMaps>,
    /// Whether the flow table keeps what it holds until it is aged.
    is_judging: bool,
    /// How many connections each of its maps may hold.
    flow_table_entries: u32,
    /// The tables that the next daemon goes on with.
    kept: Vec<(&'static str, MapData)>,
    pins: Pins,
    stays: bool,
    hooks: Vec<HookStatus>,
    tracing: Vec<(&'static str, OwnedFd)>,
    tcx: bool,
}

pub(super) fn load(config: &CaptureConfig, facts: &KernelFacts) -> Result<Object, CaptureError> {
    if let Some(error) = no_rights() {
        return Err(error);
    }
    let judging = config.judge.then(|| Object::judging(config, facts));
    let mut object = match judging {
        Some(Ok(object)) => object,
        none => {
            let mut object = Object::new(OBJECT, config, facts, None, config.flow_table_entries)?;
            object.load_flow(INGRESS);
            object.load_flow(EGRESS);
            if let Some(Err(why)) = none {
                object.hooks.push(HookStatus::failed(POLICY, why));
            }
            object
        }
    };
    let btf = Btf::from_sys_fs().map_err(|error| chain(&error));
    object.load_drop(config.drop_hook, facts, btf.as_ref());
    object.load_btf("observer_retransmit", "tcp_retransmit_skb", btf.as_ref());
    object.load_btf("observer_socket_state", "inet_sock_set_state", btf.as_ref());
    if object.hooks.iter().all(|hook| hook.error.is_some()) {
        let reasons = object.hooks.iter().find_map(|hook| hook.error.as_deref());
        return Err(CaptureError::NoProgram(reasons.unwrap_or("no hook").to_owned()));
    }
    Ok(object)
}

fn no_rights() -> Option<CaptureError> {
    let missing = missing_capabilities();
    let verb = if missing.len() == 1 { "is" } else { "are" };
    (!missing.is_empty())
        .then(|| CaptureError::NoRights { missing: format!("{} {verb}", missing.join(", ")) })
}

fn globals(config: &CaptureConfig, facts: &KernelFacts) -> Config {
    // The kernel's default, should the file not be readable.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_ascii_whitespace().filter_map(|port| port.parse().ok());
    let rate = u64::from(config.new_flows_per_second);
    Config {
        aggregation: config.aggregation.number(),
        ephemeral_low: ports.next().unwrap_or(32_768),
        ephemeral_high: ports.next().unwrap_or(60_999),
        interval_ns: u64::try_from(config.interval.as_nanos()).unwrap_or(u64::MAX),
        new_flow_cost_ns: 1_000_000_000_u64.checked_div(rate).unwrap_or(0),
        new_flow_burst: (rate * BURST.as_millis() as u64 / 1000).max(1),
        coarse_clock: u32::from(facts.coarse_clock),
        not_specified: facts.not_specified(),
        tc_reasons: ["TC_INGRESS", "TC_EGRESS"].map(|name| facts.drop_reason_number(name).unwrap_or(0)),
        unknown_denied: u32::from(config.unknown_denied),
        netns: own_namespace(),
        midway_until_ns: monotonic() + MIDWAY.as_nanos() as u64,
        l7: config.l7,
        payload_cost_ns: (1024 * 1_000_000_000_u64)
            .checked_div(config.payload_per_second)
            .map_or(0, |cost| u32::try_from(cost).unwrap_or(u32::MAX).max(1)),
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, CaptureError> {
    ebpf.take_map(name).ok_or(CaptureError::Map { name, error: "not in the object".into() })
}

fn own(fd: Result<&ProgramFd, ProgramError>) -> Result<OwnedFd, String> {
    fd.map_err(|e| chain(&e))?.as_fd().try_clone_to_owned().map_err(|e| chain(&e))
}

impl Object {
    /// The maps and the globals.
    fn new(
        bytes: &[u8],
        config: &CaptureConfig,
        facts: &KernelFacts,
        kept: Option<&Pins>,
        flow_table_entries: u32,
    ) -> Result<Self, CaptureError> {
        let globals = Raw(globals(config, facts));
        let offsets = Raw(facts.offsets);
        let ports = Raw(config.l7_ports);
        let mut with = EbpfLoader::new();
        for (name, path) in kept.map(Pins::tables_there).unwrap_or_default() {
            with.map_pin_path(name, path);
        }
        let loaded = with
            .override_global("CONFIG", &globals, true)
            .override_global("OFFSETS", &offsets, true)
            .override_global("PAYLOAD_PORTS", &ports, true)
            .map_max_entries("FLOWS", config.flow_ring_bytes)
            .map_max_entries("PRIORITY", config.priority_ring_bytes)
            .map_max_entries("SHORT_FLOW_TABLE", flow_table_entries)
            .map_max_entries("FLOW_TABLE", flow_table_entries)
            .load(bytes);
        let mut ebpf = loaded.map_err(|error| {
            let mut text = chain(&error);
            // Until 5.11, which also brought the clock, maps counted against a limit that only CAP_SYS_RESOURCE raises.
            if !facts.coarse_clock && text.contains("Operation not permitted") {
                text.push_str("; before Linux 5.11 RLIMIT_MEMLOCK must be unlimited");
            }
            CaptureError::Object(text)
        })?;
        let handles = Handles::of_maps(&ebpf);
        let generation =
            Array::try_from(take(&mut ebpf, "GENERATION")?).map_err(CaptureError::map("GENERATION"))?;
        let tcx = facts.tcx && config.link_hook == LinkHook::Auto;
        Ok(Self {
            ebpf,
            handles,
            generation: Arc::new(Generation::new(generation)),
            policy: None,
            is_judging: false,
            flow_table_entries,
            kept: Vec::new(),
            pins: Pins::here(),
            stays: false,
            hooks: Vec::new(),
            tracing: Vec::new(),
            tcx,
        })
    }

    /// The one whose flow programs judge, all of it or the reason why not.
    fn judging(config: &CaptureConfig, facts: &KernelFacts) -> Result<Self, String> {
        // No kernel that tests run on refuses them.
        #[cfg(debug_assertions)]
        if std::env::var_os(REFUSED).is_some() {
            return Err(format!("{REFUSED} is set"));
        }
        let pins = Pins::here();
        if !pins.tables_there().is_empty() {
            match Self::judging_with(Some(&pins), config, facts) {
                Err(error) => {
                    tracing::warn!(error, "connections that an earlier daemon kept are judged anew");
                }
                object => return object,
            }
        }
        Self::judging_with(None, config, facts)
    }

    /// With the tables of connections that are kept, or with new ones.
    fn judging_with(
        kept: Option<&Pins>,
        config: &CaptureConfig,
        facts: &KernelFacts,
    ) -> Result<Self, String> {
        let entries = config.judged_flow_table_entries;
        let object = Self::new(JUDGING_OBJECT, config, facts, kept, entries);
        let mut object = object.map_err(|error| error.to_string())?;
        object.load_flow(INGRESS);
        object.load_flow(EGRESS);
        if let Some(error) = object.hooks.iter().find_map(|hook| hook.error.as_ref()) {
            return Err(error.clone());
        }
        let maps = PolicyMaps::take(&mut object.ebpf, Arc::clone(&object.generation));
        object.policy = Some(maps.map_err(|error| error.to_string())?);
        // No verdict of an earlier daemon in a kept table may pass for one of these policies.
        object.generation.begin().map_err(|error| error.to_string())?;
        object.kept = pins::TABLES.into_iter().filter_map(|name| object.handle(name)).collect();
        object.check_kept()?;
        object.is_judging = true;
        object.hooks.push(HookStatus::new(POLICY, Ok(())));
        Ok(object)
    }

    /// Of all maps and of the programs that are loaded.
    pub(super) fn handles(&mut self) -> Handles {
        std::mem::take(&mut self.handles).with_programs(&self.ebpf)
    }

    /// Whether tables that are kept are as these programs have them: the kernel takes others, too, where programs reach no
    /// further than into them.
    fn check_kept(&self) -> Result<(), String> {
        let sizes = [
            (size_of::<ShortKey>(), size_of::<ShortValue>()),
            (size_of::<FlowKey>(), size_of::<FlowValue>()),
        ];
        for ((name, table), (key, value)) in self.kept.iter().zip(sizes) {
            let info = table.info().map_err(|error| chain(&error))?;
            let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
            if found != (key, value, self.flow_table_entries) {
                return Err(format!("{name} has another form"));
            }
        }
        Ok(())
    }

    /// A table of connections, once more.
    fn handle(&self, name: &'static str) -> Option<(&'static str, MapData)> {
        let Some(Map::HashMap(map)) = self.ebpf.map(name) else { return None };
        let file = map.fd().as_fd().try_clone_to_owned().ok()?;
        Some((name, MapData::from_fd(file).ok()?))
    }

    /// Why nothing can be dropped by policies, if so.
    pub(super) fn why_not_enforced(&self) -> Option<String> {
        let refused = self.hooks.iter().find(|hook| hook.name == POLICY).and_then(|hook| hook.error.as_ref());
        match refused {
            Some(why) => Some(format!("the kernel refuses the programs that judge: {why}")),
            None if !self.is_judging => Some("no policies were given at the start".to_owned()),
            None if !self.tcx => Some("programs hang on links by clsact, and would not stay on".to_owned()),
            None => None,
        }
    }

    pub(super) fn stay(&mut self) -> Result<(), String> {
        self.pins.keep(&self.kept)?;
        self.stays = true;
        Ok(())
    }

    pub(super) fn is_judging(&self) -> bool {
        self.is_judging
    }

    pub(super) fn proxy_switch(&mut self) -> Option<ProxySwitch> {
        // Of this object's own making: it is there.
        self.is_judging.then(|| ProxySwitch::take(&mut self.ebpf).ok()).flatten()
    }

    pub(super) fn policy_maps(&mut self) -> Option<PolicyMaps> {
        self.policy.take()
    }

    fn load_flow(&mut self, name: &'static str) {
        let result = (|| {
            let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
            let program: &mut SchedClassifier = program.try_into().map_err(|e| chain(&e))?;
            patiently(|| program.load()).map_err(|e| chain(&e))
        })();
        let by = if self.tcx { "" } else { "by clsact: tcx needs Linux 6.6" };
        let note = if result.is_ok() { by } else { "" };
        self.hooks.push(HookStatus { note: note.to_owned(), ..HookStatus::new(name, result) });
    }

    /// Tries one way after the other; what failed before is in the note, or all of it is the error.
    fn load_drop(&mut self, hook: DropHook, facts: &KernelFacts, btf: Result<&Btf, &String>) {
        const KFREE_SKB: &str = "kfree_skb";
        let reasoned = facts.kfree_skb_arguments >= 3;
        let ways = [DropHook::TpBtf, DropHook::RawTp, DropHook::Tracepoint];
        let (mut failed, mut used) = (Vec::new(), None);
        for way in ways.into_iter().filter(|way| hook == DropHook::Auto || hook == *way) {
            let (name, result) = match way {
                DropHook::TpBtf | DropHook::Auto => {
                    let name = if reasoned { "observer_drop" } else { "observer_drop_unreasoned" };
                    ("tp_btf", self.attach_btf(name, KFREE_SKB, btf))
                }
                DropHook::RawTp if reasoned => ("raw_tp", self.attach_raw("observer_drop_raw", KFREE_SKB)),
                DropHook::RawTp => ("raw_tp", Err("its reason is no argument on this kernel".to_owned())),
                DropHook::Tracepoint => {
                    ("tracepoint", self.attach_plain("observer_drop_plain", "skb", KFREE_SKB))
                }
            };
            match result {
                Ok(fd) => {
                    self.tracing.push((KFREE_SKB, fd));
                    used = Some(name);
                    break;
                }
                Err(error) => failed.push(format!("{name}: {error}")),
            }
        }
        let failed = failed.join("; ");
        let Some(used) = used else {
            self.hooks.push(HookStatus::failed(KFREE_SKB, failed));
            return;
        };
        let mut note = format!("by {used}");
        if !failed.is_empty() {
            note = format!("{note}, since {failed}");
        }
        if !reasoned {
            note.push_str("; drop reason unknown on this kernel (it has none before 5.17)");
        }
        self.hooks.push(HookStatus { note, ..HookStatus::new(KFREE_SKB, Ok(())) });
    }

    fn load_btf(&mut self, name: &str, tracepoint: &'static str, btf: Result<&Btf, &String>) {
        let result = self.attach_btf(name, tracepoint, btf).map(|fd| self.tracing.push((tracepoint, fd)));
        self.hooks.push(HookStatus::new(tracepoint, result));
    }

    fn attach_btf(
        &mut self,
        name: &str,
        tracepoint: &str,
        btf: Result<&Btf, &String>,
    ) -> Result<OwnedFd, String> {
        let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
        let program: &mut BtfTracePoint = program.try_into().map_err(|e| chain(&e))?;
        let btf = btf?;
        patiently(|| program.load(tracepoint, btf)).map_err(|e| chain(&e))?;
        program.attach().map_err(|e| chain(&e))?;
        own(program.fd())
    }

    fn attach_raw(&mut self, name: &str, tracepoint: &str) -> Result<OwnedFd, String> {
        let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
        let program: &mut RawTracePoint = program.try_into().map_err(|e| chain(&e))?;
        patiently(|| program.load()).map_err(|e| chain(&e))?;
        program.attach(tracepoint).map_err(|e| chain(&e))?;
        own(program.fd())
    }

    fn attach_plain(&mut self, name: &str, category: &str, tracepoint: &str) -> Result<OwnedFd, String> {
        let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
        let program: &mut TracePoint = program.try_into().map_err(|e| chain(&e))?;
        patiently(|| program.load()).map_err(|e| chain(&e))?;
        program.attach(category, tracepoint).map_err(|e| chain(&e))?;
        own(program.fd())
    }

    fn take(&mut self, name: &'static str) -> Result<Map, CaptureError> {
        take(&mut self.ebpf, name)
    }

    pub(super) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<MapData, K, V>, CaptureError> {
        HashMap::try_from(self.take(name)?).map_err(CaptureError::map(name))
    }

    pub(super) fn rings(&mut self) -> Result<Rings, CaptureError> {
        let mut ring = |name| Ring::new(name, self.take(name)?);
        Ok(Rings::new(ring("FLOWS")?, ring("PRIORITY")?))
    }

    pub(super) fn tables(&mut self) -> Result<Tables, CaptureError> {
        let ignored =
            Array::try_from(self.take("IGNORED_REASONS")?).map_err(CaptureError::map("IGNORED_REASONS"))?;
        let local = self.hash("LOCAL")?;
        let generation = Arc::clone(&self.generation);
        Ok(Tables::new(local, generation, self.hash("SERVICE_PORTS")?, self.hash("WATCHED")?, ignored))
    }

    pub(super) fn shared(&mut self) -> Result<Shared, CaptureError> {
        let counters =
            PerCpuArray::try_from(self.take("COUNTERS")?).map_err(CaptureError::map("COUNTERS"))?;
        let links = PerCpuHashMap::try_from(self.take("LINKS")?).map_err(CaptureError::map("LINKS"))?;
        Ok(Shared::new(counters, links, std::mem::take(&mut self.hooks), std::mem::take(&mut self.tracing)))
    }

    pub(super) fn sweep_maps(&mut self) -> Result<SweepMaps, CaptureError> {
        let settings = Array::try_from(self.take("SETTINGS")?).map_err(CaptureError::map("SETTINGS"))?;
        Ok(SweepMaps {
            settings,
            flows: FlowTable {
                short: self.hash("SHORT_FLOW_TABLE")?,
                long: self.hash("FLOW_TABLE")?,
                entries: self.flow_table_entries as usize,
                is_pushed_out: !self.is_judging,
            },
            tunnels: self.hash("TUNNELS")?,
            drops: [self.hash("DROPS_0")?, self.hash("DROPS_1")?],
            facts: self.hash("FACTS")?,
        })
    }

    pub(super) fn attacher(self) -> Attacher {
        Attacher::new(self.ebpf, self.tcx, self.pins, self.kept, self.stays)
    }
}

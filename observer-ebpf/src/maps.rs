//! The maps. Sizes are defaults; the daemon may set others before load.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use observer_ebpf::parse::Fragments;
use observer_ebpf::{
    Counters, DropKey, DropRecord, DropValue, FactKey, FactValue, FlowKey, FlowRecord, FlowValue,
    FragmentKey, LinkState, Settings, ShortKey, ShortValue, Tunnel, program,
};

use crate::judge::FlowTable;

/// Memory for the entries in use only, since each may have a copy per CPU.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Flow records, read every 10 ms.
#[btf_map]
pub(crate) static FLOWS: RingBuf<FlowRecord, { 8 << 20 }> = RingBuf::new();

/// Drop records, read at once: a flood of flows can't hide a drop.
#[btf_map]
pub(crate) static PRIORITY: RingBuf<DropRecord, { 2 << 20 }> = RingBuf::new();

/// Connections by link, those of a [`ShortKey`].
#[btf_map]
pub(crate) static SHORT_FLOW_TABLE: FlowTable<ShortKey, ShortValue, 65_536> = FlowTable::new();

/// All other connections by link.
#[btf_map]
pub(crate) static FLOW_TABLE: FlowTable<FlowKey, FlowValue, 65_536> = FlowTable::new();

/// What is around the connections of [`FLOW_TABLE`] that are inside a tunnel, for the daemon's sweep.
#[btf_map]
pub(crate) static TUNNELS: LruHashMap<FlowKey, Tunnel, 8_192> = LruHashMap::new();

/// Ports of first fragments.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, [u16; 2], 2_048> = LruHashMap::new();

/// [`FRAGMENTS`], for the parser.
pub(crate) struct FirstFragments;

impl Fragments for FirstFragments {
    #[inline(always)]
    fn ports(&self, key: &FragmentKey) -> Option<&[u16; 2]> {
        // SAFETY: the parser copies the ports out at once; an entry replaced meanwhile gives another fragment's ports.
        unsafe { FRAGMENTS.get(key) }
    }

    #[inline(always)]
    fn keep(&mut self, key: &FragmentKey, ports: [u16; 2]) {
        let _ = FRAGMENTS.insert(key, ports, 0);
    }
}

/// Attached links, by index.
#[btf_map]
pub(crate) static LINKS: PerCpuHashMap<u32, LinkState, 4_096, NO_PREALLOC> = PerCpuHashMap::new();

/// Addresses of local pods (1) and of the node (2), IPv4 mapped.
#[btf_map]
pub(crate) static LOCAL: HashMap<[u8; 16], u32, 16_384, NO_PREALLOC> = HashMap::new();

/// Raised after each change of [`LOCAL`], and of policies, of which its lowest bit says the slot; one entry.
#[btf_map]
pub(crate) static GENERATION: Array<u32, 1> = Array::new();

/// Ports of services: protocol << 16 | port.
#[btf_map]
pub(crate) static SERVICE_PORTS: HashMap<u32, u32, 16_384, NO_PREALLOC> = HashMap::new();

/// When each CPU's next new-flow record is due.
#[btf_map]
pub(crate) static NEW_FLOW_CAP: PerCpuArray<u64, 1> = PerCpuArray::new();

/// When each CPU may copy payload again.
#[btf_map]
pub(crate) static PAYLOAD_CAP: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Payload on its way to the ring.
#[btf_map]
pub(crate) static PAYLOAD: PerCpuArray<crate::payload::Copied, 1> = PerCpuArray::new();

/// [`Settings`], one entry.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// Drop reasons that are noise: not 0.
#[btf_map]
pub(crate) static IGNORED_REASONS: Array<u32, 256> = Array::new();

/// Namespaces whose drops are told.
#[btf_map]
pub(crate) static WATCHED: HashMap<u32, u32, 8_192, NO_PREALLOC> = HashMap::new();

/// Sums of drops, generation 0.
#[btf_map]
pub(crate) static DROPS_0: HashMap<DropKey, DropValue, 8_192> = HashMap::new();

/// Sums of drops, generation 1.
#[btf_map]
pub(crate) static DROPS_1: HashMap<DropKey, DropValue, 8_192> = HashMap::new();

/// Retransmits and failed connects.
#[btf_map]
pub(crate) static FACTS: LruHashMap<FactKey, FactValue, 8_192> = LruHashMap::new();

/// The flow programs' working memory; they run with softirqs off, so one at a time on a CPU.
#[btf_map]
pub(crate) static FLOW_SCRATCH: PerCpuArray<crate::flow::Scratch, 1> = PerCpuArray::new();

/// The drop program's working memory, one for each depth of nesting: task, softirq, interrupt, NMI. From 6.1 on the
/// kernel refuses to nest a tracing program in itself.
#[btf_map]
pub(crate) static DROP_SCRATCH: PerCpuArray<crate::drop::Scratch, 4> = PerCpuArray::new();

/// How deep the drop program is nested on this CPU.
#[btf_map]
pub(crate) static DROP_DEPTH: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Counters of the programs, by [`program`].
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, { program::COUNT as usize }> = PerCpuArray::new();

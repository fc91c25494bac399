//! The maps. Sizes are defaults; the daemon may set others before load.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use observer_ebpf::parse::Fragments;
use observer_ebpf::{
    Counters, DropKey, DropValue, FactKey, FactValue, FlowKey, FlowValue, FragmentKey, LinkState, Settings,
    ShortKey, ShortValue, Tunnel, program,
};

/// `BPF_F_NO_PREALLOC`: memory for the entries in use only, since each has a copy per CPU.
const NO_PREALLOC: u32 = 1;

/// Flow records, read every 10 ms.
#[map]
pub(crate) static FLOWS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Drop records, read at once: a flood of flows can't hide a drop.
#[map]
pub(crate) static PRIORITY: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// Connections by link, those of a [`ShortKey`].
#[map]
pub(crate) static SHORT_FLOW_TABLE: LruHashMap<ShortKey, ShortValue> =
    LruHashMap::with_max_entries(65_536, 0);

/// All other connections by link.
#[map]
pub(crate) static FLOW_TABLE: LruHashMap<FlowKey, FlowValue> = LruHashMap::with_max_entries(65_536, 0);

/// What is around the connections of [`FLOW_TABLE`] that are inside a tunnel, for the daemon's sweep.
#[map]
pub(crate) static TUNNELS: LruHashMap<FlowKey, Tunnel> = LruHashMap::with_max_entries(8_192, 0);

/// Ports of first fragments.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, [u16; 2]> = LruHashMap::with_max_entries(2_048, 0);

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
#[map]
pub(crate) static LINKS: PerCpuHashMap<u32, LinkState> = PerCpuHashMap::with_max_entries(4_096, NO_PREALLOC);

/// Addresses of local pods (1) and of the node (2), IPv4 mapped.
#[map]
pub(crate) static LOCAL: HashMap<[u8; 16], u32> = HashMap::with_max_entries(16_384, NO_PREALLOC);

/// Raised after each change of [`LOCAL`], one entry.
#[map]
pub(crate) static LOCAL_GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// Ports of services: protocol << 16 | port.
#[map]
pub(crate) static SERVICE_PORTS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, NO_PREALLOC);

/// When each CPU's next new-flow record is due.
#[map]
pub(crate) static NEW_FLOW_CAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// [`Settings`], one entry.
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Drop reasons that are noise: not 0.
#[map]
pub(crate) static IGNORED_REASONS: Array<u32> = Array::with_max_entries(256, 0);

/// Namespaces whose drops are told.
#[map]
pub(crate) static WATCHED: HashMap<u32, u32> = HashMap::with_max_entries(8_192, NO_PREALLOC);

/// Sums of drops, generation 0.
#[map]
pub(crate) static DROPS_0: HashMap<DropKey, DropValue> = HashMap::with_max_entries(8_192, 0);

/// Sums of drops, generation 1.
#[map]
pub(crate) static DROPS_1: HashMap<DropKey, DropValue> = HashMap::with_max_entries(8_192, 0);

/// Retransmits and failed connects.
#[map]
pub(crate) static FACTS: LruHashMap<FactKey, FactValue> = LruHashMap::with_max_entries(8_192, 0);

/// The flow programs' working memory; they run with softirqs off, so one at a time on a CPU.
#[map]
pub(crate) static FLOW_SCRATCH: PerCpuArray<crate::flow::Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The drop program's working memory, one for each depth of nesting: task, softirq, interrupt, NMI. From 6.1 on the
/// kernel refuses to nest a tracing program in itself.
#[map]
pub(crate) static DROP_SCRATCH: PerCpuArray<crate::drop::Scratch> = PerCpuArray::with_max_entries(4, 0);

/// How deep the drop program is nested on this CPU.
#[map]
pub(crate) static DROP_DEPTH: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Counters of the programs, by [`program`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(program::COUNT, 0);

//! The maps of policies. Each kind of table is an array of two, one for each slot; the daemon puts a larger map into a slot
//! where the one that is here does not suffice.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::macros::btf_map;
use observer_ebpf::policy::{
    CutLine, EndpointLine, OpenerKey, PolicyBackend, PolicyBackends, PolicyFrontend, PolicyShapes,
    PolicySides, RowLine,
};

use observer_ebpf::proxy::ProxyState;

use crate::judge::Work;

type Address = [u8; 16];
/// An array that another length may take the place of.
type List<V, const N: usize> = Array<V, N, { BPF_F_INNER_MAP as usize }>;
/// One whose entries are lines of the cache, or pairs of them: only where a map can be mapped, which nobody does, they begin with a page.
type Lines<L, const N: usize> = Array<L, N, { (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize }>;

/// How the tables of lines are read, by slot.
#[btf_map]
pub(crate) static POLICY_SHAPES: Array<PolicyShapes, 2> = Array::new();

/// Pods, nodes, this node, by address.
#[btf_map]
pub(crate) static POLICY_ENDPOINTS: ArrayOfMaps<Lines<EndpointLine, 2_048>, 2> = ArrayOfMaps::new();
#[btf_map]
static ENDPOINTS_0: Lines<EndpointLine, 2_048> = Lines::new();
#[btf_map]
static ENDPOINTS_1: Lines<EndpointLine, 2_048> = Lines::new();

/// The peers that all other addresses are, by net.
#[btf_map]
pub(crate) static POLICY_NETS: ArrayOfMaps<LpmTrie<Address, u32, 16_384>, 2> = ArrayOfMaps::new();
#[btf_map]
static NETS_0: LpmTrie<Address, u32, 16_384> = LpmTrie::new();
#[btf_map]
static NETS_1: LpmTrie<Address, u32, 16_384> = LpmTrie::new();

/// The tables of subjects.
#[btf_map]
pub(crate) static POLICY_SIDES: ArrayOfMaps<List<PolicySides, 1_024>, 2> = ArrayOfMaps::new();
#[btf_map]
static SIDES_0: List<PolicySides, 1_024> = List::new();
#[btf_map]
static SIDES_1: List<PolicySides, 1_024> = List::new();

/// The rows of tables.
#[btf_map]
pub(crate) static POLICY_ROWS: ArrayOfMaps<Lines<RowLine, 8_192>, 2> = ArrayOfMaps::new();
#[btf_map]
static ROWS_0: Lines<RowLine, 8_192> = Lines::new();
#[btf_map]
static ROWS_1: Lines<RowLine, 8_192> = Lines::new();

/// The lines of rows.
#[btf_map]
pub(crate) static POLICY_CUTS: ArrayOfMaps<Lines<CutLine, 8_192>, 2> = ArrayOfMaps::new();
#[btf_map]
static CUTS_0: Lines<CutLine, 8_192> = Lines::new();
#[btf_map]
static CUTS_1: Lines<CutLine, 8_192> = Lines::new();

/// Services.
#[btf_map]
pub(crate) static POLICY_FRONTENDS: ArrayOfMaps<HashMap<PolicyFrontend, PolicyBackends, 4_096>, 2> =
    ArrayOfMaps::new();
#[btf_map]
static FRONTENDS_0: HashMap<PolicyFrontend, PolicyBackends, 4_096> = HashMap::new();
#[btf_map]
static FRONTENDS_1: HashMap<PolicyFrontend, PolicyBackends, 4_096> = HashMap::new();

/// Their backends.
#[btf_map]
pub(crate) static POLICY_BACKENDS: ArrayOfMaps<List<PolicyBackend, 16_384>, 2> = ArrayOfMaps::new();
#[btf_map]
static BACKENDS_0: List<PolicyBackend, 16_384> = List::new();
#[btf_map]
static BACKENDS_1: List<PolicyBackend, 16_384> = List::new();

/// Who opened what is older than the programs, as nf_conntrack knew it then. Written before the programs are attached.
#[btf_map]
pub(crate) static OPENERS: HashMap<OpenerKey, u32, 131_072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// By slot: not 0 where requests are judged in any connection.
#[btf_map]
pub(crate) static POLICY_READS: Array<u32, 2> = Array::new();

/// The proxy; one entry.
#[btf_map]
pub(crate) static PROXY: Array<ProxyState, 1> = Array::new();

/// Working memory of what judges.
#[btf_map]
pub(crate) static POLICY_SCRATCH: PerCpuArray<Work, 1> = PerCpuArray::new();

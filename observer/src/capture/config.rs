//! What capture is told at start.

use std::time::Duration;

use observer_ebpf::{PayloadPorts, aggregation};

use super::Glob;

/// How much of the traffic becomes flow records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Every packet at every hook.
    None,
    /// Every packet, once.
    Low,
    /// New connections, each new TCP flag, one record an interval while active.
    #[default]
    Medium,
    /// New connections, the first reply, FIN and RST.
    Maximum,
}

impl Aggregation {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::None => aggregation::NONE,
            Self::Low => aggregation::LOW,
            Self::Medium => aggregation::MEDIUM,
            Self::Maximum => aggregation::MAXIMUM,
        }
    }
}

/// Drop reasons that are no loss of anybody's packet, by their names without `SKB_DROP_REASON_`.
///
/// Data that a closed or aborted socket no longer wants, bytes that had arrived before, queues of a socket that closes,
/// and a packet that was only consumed.
pub const DEFAULT_IGNORED_REASONS: &[&str] = &[
    "NOT_DROPPED_YET",
    "CONSUMED",
    "TCP_OLD_DATA",
    "TCP_OVERWINDOW",
    "TCP_OFOMERGE",
    "TCP_ABORT_ON_DATA",
    "TCP_ABORT_ON_CLOSE",
    "TCP_ABORT_ON_LINGER",
    "TCP_OLD_ACK",
    "QUEUE_PURGE",
    "SKB_CONSUMED",
    "PACKET_SOCK_ERROR",
    "PFMEMALLOC",
];

/// How the drop program hangs on `kfree_skb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropHook {
    /// The first that the kernel takes, in the order of the others.
    #[default]
    Auto,
    /// By BTF: the cheapest.
    TpBtf,
    /// Raw, for kernels whose BTF lacks the tracepoint.
    RawTp,
    /// As a plain tracepoint, which needs tracefs and is on every kernel.
    Tracepoint,
}

/// How the flow programs hang on links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkHook {
    /// By tcx, else by clsact.
    #[default]
    Auto,
    /// As classic tc filters, which every kernel has: what kernels before 6.6 use.
    Clsact,
}

/// Configuration of [`super::Capture`].
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// How much becomes records.
    pub aggregation: Aggregation,
    /// Between two records of an active connection.
    pub interval: Duration,
    /// New-flow records that one CPU may write in a second; 0 = no cap.
    pub new_flows_per_second: u32,
    /// Names of further links to attach to as pod links.
    pub interfaces: Vec<Glob>,
    /// How drops are seen.
    pub drop_hook: DropHook,
    /// How flows are seen.
    pub link_hook: LinkHook,
    /// Drops of every network namespace, not only of the node's and its pods'.
    pub host_wide_drops: bool,
    /// Drop reasons that are not told, by name.
    pub ignored_reasons: Vec<String>,
    /// Connections in each of the flow table's two maps, where the least recently used goes.
    pub flow_table_entries: u32,
    /// Likewise of the programs that judge, where none goes. The kernel gives a map as many buckets as the next power of
    /// two, so one entry more than such a power halves the chains, each entry of which is a wait for memory.
    pub judged_flow_table_entries: u32,
    /// Whether the programs judge by policies, where the kernel takes those that do.
    pub judge: bool,
    /// Whether they refuse what a pod sends and is sent that nobody knows.
    pub unknown_denied: bool,
    /// What is looked for inside packets: bits of [`observer_ebpf::l7`], 0 = nothing is.
    pub l7: u32,
    /// Where it is.
    pub l7_ports: PayloadPorts,
    /// Bytes of payload that one CPU may copy in a second; 0 = no cap.
    pub payload_per_second: u64,
    /// Size of the flow ring in bytes: a power of two, at least a page.
    pub flow_ring_bytes: u32,
    /// Size of the ring for drops in bytes.
    pub priority_ring_bytes: u32,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            aggregation: Aggregation::default(),
            interval: Duration::from_secs(5),
            new_flows_per_second: 20_000,
            interfaces: Vec::new(),
            drop_hook: DropHook::default(),
            link_hook: LinkHook::default(),
            host_wide_drops: false,
            ignored_reasons: DEFAULT_IGNORED_REASONS.iter().map(ToString::to_string).collect(),
            flow_table_entries: 65_536,
            judged_flow_table_entries: (1 << 17) + 1,
            judge: false,
            unknown_denied: false,
            l7: 0,
            l7_ports: PayloadPorts::default(),
            payload_per_second: 64 << 20,
            flow_ring_bytes: 8 << 20,
            priority_ring_bytes: 2 << 20,
        }
    }
}

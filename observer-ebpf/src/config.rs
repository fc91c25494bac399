//! The globals that the daemon sets before load. They are frozen, so the verifier knows them as constants.

use aya_ebpf::Global;
use observer_ebpf::{Config, MOST_PAYLOAD_PORTS, Offsets, PayloadPort, PayloadPorts};

/// What to tell and how often.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config {
    aggregation: 0,
    ephemeral_low: 0,
    ephemeral_high: 0,
    interval_ns: 0,
    new_flow_cost_ns: 0,
    new_flow_burst: 0,
    coarse_clock: 0,
    not_specified: 0,
    tc_reasons: [0; 2],
    unknown_denied: 0,
    netns: 0,
    midway_until_ns: 0,
    l7: 0,
    payload_cost_ns: 0,
});

/// Where something is looked for inside packets.
#[unsafe(no_mangle)]
static PAYLOAD_PORTS: Global<PayloadPorts> =
    Global::new(PayloadPorts { limited: 0, ports: [PayloadPort { port: 0, l7: 0 }; MOST_PAYLOAD_PORTS] });

/// Where the kernel's fields are.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets {
    skb_dev: 0,
    skb_head: 0,
    skb_data: 0,
    skb_tail: 0,
    skb_transport_header: 0,
    skb_network_header: 0,
    skb_len: 0,
    skb_protocol: 0,
    skb_sk: 0,
    skb_cb: 0,
    dev_ifindex: 0,
    dev_net: 0,
    net_inum: 0,
    net_cookie: 0,
    sk_net: 0,
    sk_family: 0,
    inet_sport: 0,
    sk_dport: 0,
    sk_daddr: 0,
    sk_rcv_saddr: 0,
    sk_v6_daddr: 0,
    sk_v6_rcv_saddr: 0,
    sk_protocol: 0,
    trace_reason: 0,
});

#[inline(always)]
pub(crate) fn config() -> Config {
    CONFIG.load()
}

#[inline(always)]
pub(crate) fn payload_ports() -> PayloadPorts {
    PAYLOAD_PORTS.load()
}

#[inline(always)]
pub(crate) fn offsets() -> Offsets {
    OFFSETS.load()
}

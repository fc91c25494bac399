//! The globals that the daemon sets before load. They are frozen, so the verifier knows them as constants.

use core::arch::asm;

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
pub(crate) fn config() -> &'static Config {
    global(&CONFIG)
}

#[inline(always)]
pub(crate) fn payload_ports() -> &'static PayloadPorts {
    global(&PAYLOAD_PORTS)
}

#[inline(always)]
pub(crate) fn offsets() -> &'static Offsets {
    global(&OFFSETS)
}

/// What is there, and not what stands here, for which LLVM would take it. `Global::load` reads all fields each time, those too that
/// nobody asks for: 14 a packet and function.
#[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer is moved, not followed")]
#[inline(always)]
fn global<T>(global: &'static Global<T>) -> &'static T {
    let mut value = core::ptr::from_ref(global).cast::<T>();
    // SAFETY: a move to itself; the type has the form of its value alone.
    unsafe {
        asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags));
        &*value
    }
}

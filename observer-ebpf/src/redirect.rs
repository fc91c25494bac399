//! Handing packets to the daemon's transparent proxy, where a program has decided that.
//!
//! The first packet of a connection is given the proxy's listener and [`TO_PROXY`]; the further ones the mark alone, since
//! the kernel finds their socket by their ends; of UDP every one is given the listener. It could not be looked up here: what the client sends to a service is
//! translated only behind tcx.

use aya_ebpf::bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_sk_assign, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_store_bytes,
};
use observer_ebpf::proxy::{FOR_LISTENER, FROM_PROXY, LinkWay, ProxyState, TO_PROXY, TO_PROXY_MASK, way};

/// The sizes of `bpf_sock_tuple`'s forms, which tell the helper the family.
const IPV4: u32 = 12;
const IPV6: u32 = 36;

/// Whether a packet is already on its way to the proxy.
#[inline(always)]
pub(crate) unsafe fn is_to_proxy(skb: *mut __sk_buff) -> bool {
    // SAFETY: a program's context.
    unsafe { (*skb).mark & TO_PROXY_MASK == TO_PROXY }
}

/// Whether the proxy sent it.
#[inline(always)]
pub(crate) unsafe fn is_from_proxy(skb: *mut __sk_buff) -> bool {
    // SAFETY: a program's context.
    unsafe { (*skb).mark & FROM_PROXY != 0 }
}

/// Sends the first packet of a connection to the proxy. `false`, and the packet is as it was, where nobody listens.
#[inline(always)]
pub(crate) unsafe fn first(
    skb: *mut __sk_buff,
    ipv4: bool,
    udp: bool,
    ports: &ProxyState,
    link: &LinkWay,
) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        // At a bridge's port the listener is only asked for: the socket would be lost.
        let found = listener(skb, ipv4, udp, ports, link.way != way::PORT);
        if found {
            further(skb, link);
            if link.way == way::PORT {
                (*skb).mark |= FOR_LISTENER;
            }
        }
        found
    }
}

/// Behind the bridge: gives the packet to the listener if it is to be given to that, and there is one still.
#[inline(always)]
pub(crate) unsafe fn behind_bridge(skb: *mut __sk_buff, ipv4: bool, udp: bool, ports: &ProxyState) {
    // SAFETY: a program's context.
    unsafe {
        if (*skb).mark & FOR_LISTENER != 0 {
            (*skb).mark &= !FOR_LISTENER;
            // Without a socket the kernel answers with a reset.
            listener(skb, ipv4, udp, ports, true);
        }
    }
}

/// Sends a further packet there.
#[inline(always)]
pub(crate) unsafe fn further(skb: *mut __sk_buff, link: &LinkWay) {
    // SAFETY: as the caller says; the address is at the start of every frame, and the program touches no packet directly.
    unsafe {
        (*skb).mark = (*skb).mark & !TO_PROXY_MASK | TO_PROXY;
        if link.way == way::PORT {
            bpf_skb_store_bytes(skb.cast(), 0, link.bridge_mac.as_ptr().cast(), 6, 0);
        }
    }
}

/// Whether the proxy listens; with `assign` the packet is given to it.
#[inline(always)]
pub(crate) unsafe fn listener(
    skb: *mut __sk_buff,
    ipv4: bool,
    udp: bool,
    ports: &ProxyState,
    assign: bool,
) -> bool {
    // SAFETY: all zeros is such a tuple; the socket is held until it is released.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let size = if ipv4 {
            tuple.__bindgen_anon_1.ipv4.daddr = u32::from_ne_bytes([127, 0, 0, 1]);
            tuple.__bindgen_anon_1.ipv4.dport = ports.ipv4.to_be();
            IPV4
        } else {
            tuple.__bindgen_anon_1.ipv6.daddr[3] = 1_u32.to_be();
            tuple.__bindgen_anon_1.ipv6.dport = ports.ipv6.to_be();
            IPV6
        };
        // Netns is an i32 there, in which this constant is -1.
        let netns = BPF_F_CURRENT_NETNS as u64;
        let socket = if udp {
            bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, size, netns, 0)
        } else {
            bpf_sk_lookup_tcp(skb.cast(), &raw mut tuple, size, netns, 0)
        };
        if socket.is_null() {
            return false;
        }
        let is_ours = (*socket).mark & FROM_PROXY != 0;
        let found = is_ours && (!assign || bpf_sk_assign(skb.cast(), socket.cast(), 0) == 0);
        bpf_sk_release(socket.cast());
        found
    }
}

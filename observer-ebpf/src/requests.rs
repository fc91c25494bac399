//! Connections in which requests are judged: they go to the proxy, which judges each of them.
//!
//! Whether one does is asked where its packets come into the node, of both sides that are this node's at once, and kept in
//! its entry. What the proxy opens itself is told by its mark; the other end's packets go back to it. A connection that
//! was open already when such a rule came goes there too, where nobody knows it: so the kernel resets it. Where only
//! audited policies ask for it, nothing is reset, and what finds nobody listening goes on as it is.
//!
//! UDP has no socket of its own for each client: every datagram of it is given the proxy's.

use aya_ebpf::bindings::__sk_buff;
use observer_ebpf::parse::{TCP, UDP, same_address};
use observer_ebpf::policy::{MOST_BACKENDS, cut_key, decision, endpoint_flags, judged_flags, side, slot};
use observer_ebpf::proxy::{ProxyState, way};
use observer_ebpf::{TELLABLE, hook, link_kind, program};

use crate::flow::{ACK, SYN, Seen};
use crate::maps::{FLOW_SCRATCH, LINKS};
use crate::policy_maps::{POLICY_BACKENDS, POLICY_FRONTENDS, POLICY_READS, POLICY_SCRATCH, PROXY};
use crate::record::{add_alone, counters};
use crate::redirect::{behind_bridge, first, further, is_from_proxy, is_to_proxy, listener};
use crate::weigh::{Who, observer_decide, who};

/// What [`observer_route`] answers.
pub(crate) mod route {
    /// The packet goes on as it is.
    pub(crate) const ON: u64 = 0;
    /// It goes to the proxy.
    pub(crate) const PROXY: u64 = 1;
    /// It goes there, where nobody knows it: the kernel resets the connection.
    pub(crate) const RESET: u64 = 2;
    /// It goes to the proxy while that listens, and else on: only audited policies ask for it.
    pub(crate) const AUDITED: u64 = 3;
    /// The proxy opened it: what comes back is for that one's own socket.
    pub(crate) const OPENED: u64 = 4;
    /// Nobody listens there, and then nothing is to pass.
    pub(crate) const NOWHERE: u64 = 1 << 8;
}

/// Whether the proxy has the connection of the packet in [`FLOW_SCRATCH`], which is allowed: it opened it, is to have it by
/// the question in [`POLICY_SCRATCH`] of this generation, or has it already. With [`TELLABLE`] above 8 bits where it comes in:
/// there it is told, since what is delivered is another connection, of the proxy's. A global function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_proxied(skb: *mut __sk_buff, generation: u32, already: u32) -> u64 {
    let (Some(work), Some(scratch)) = (POLICY_SCRATCH.get_ptr_mut(0), FLOW_SCRATCH.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: this CPU's memory, and a program's context.
    unsafe {
        let (seen, packet) = (&raw const (*scratch).seen, &raw const (*scratch).packet);
        let protocol = (*packet).tuple.protocol;
        if (protocol != TCP && protocol != UDP) || (*seen).tunneled != 0 {
            return u64::from(already);
        }
        if (*seen).hook == hook::EGRESS {
            let opened = already == 0 && is_from_proxy(skb);
            return if opened { route::OPENED } else { u64::from(already) };
        }
        let mut proxied = if already == route::RESET as u32 { route::PROXY } else { u64::from(already) };
        if already == 0 {
            let udp = protocol == UDP;
            let source = &raw const (*packet).tuple.source;
            let by_opener = same_address(source, &raw const (*work).question.source);
            // An answer that the proxy did not ask for, to what went by before.
            if udp && !by_opener {
                return 0;
            }
            let reads = observer_reads(generation);
            let audited = reads == AUDITED;
            if reads == 0 || passes_by(skb, (*packet).tuple.ip_version == 4, udp, audited) {
                return 0;
            }
            let begins = udp || u16::from((*packet).tcp_flags) & (SYN | ACK) == SYN;
            proxied = match (audited, begins) {
                (false, true) => route::PROXY,
                (false, false) => {
                    // Both ends' packets come here, where both are this node's.
                    if let (true, Some(counters)) = (by_opener, counters(program::INGRESS)) {
                        add_alone(&raw mut (*counters).reset, 1);
                    }
                    route::RESET
                }
                (true, true) => route::AUDITED,
                (true, false) => return 0,
            };
        }
        if already == route::AUDITED as u32 && observer_reads(generation) & ENFORCED != 0 {
            // From now on it does not go by where nobody listens.
            proxied = route::PROXY;
        }
        (*work).question.judged.flags |= judged_flags::REDIRECTED;
        proxied | u64::from(TELLABLE) << 8
    }
}

/// What [`observer_reads`] answers where enforced policies have requests judged, whatever audited ones say.
const ENFORCED: u64 = (decision::REQUESTS >> decision::READ.trailing_zeros()) as u64;
/// What it answers where only audited ones do.
const AUDITED: u64 = (decision::AUDIT_REQUESTS >> decision::READ.trailing_zeros()) as u64;

/// Whether nobody listens, and connections pass then.
#[inline(always)]
unsafe fn passes_by(skb: *mut __sk_buff, ipv4: bool, udp: bool, audited: bool) -> bool {
    let Some(proxy) = PROXY.get(0) else { return true };
    // SAFETY: a program's context.
    (audited || proxy.lets_pass != 0) && unsafe { !listener(skb, ipv4, udp, proxy, false) }
}

/// Whether requests are judged in the connection in [`POLICY_SCRATCH`]: of [`decision::READ`] those that hold, from bit 0 on. A
/// global function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_reads(generation: u32) -> u64 {
    let (Some(work), Some(proxy)) = (POLICY_SCRATCH.get_ptr_mut(0), PROXY.get(0)) else { return 0 };
    let slot = slot(generation);
    if proxy.is_on == 0 || POLICY_READS.get(slot).copied().unwrap_or(0) == 0 {
        return 0;
    }
    // SAFETY: this CPU's memory; what is called writes it too, so there is no reference to it.
    unsafe {
        let question = &raw mut (*work).question;
        let frontend = &raw mut (*question).frontend;
        (&raw mut (*frontend).address).cast::<[u32; 4]>().write(*(&raw const (*question).destination).cast());
        ((*frontend).port, (*frontend).protocol) = ((*question).port, (*question).protocol);
        (*frontend).pad = 0;
        if let Some(backends) = POLICY_FRONTENDS.get_value_ptr_mut(slot, &*frontend) {
            let (begin, len) = ((*backends).begin, (*backends).len);
            return observer_reads_backends(slot, begin, len);
        }
        let from = who(slot, question, side::INGRESS, &raw const (*question).source);
        let to = who(slot, question, side::EGRESS, &raw const (*question).destination);
        let key = cut_key((*question).protocol, (*question).port);
        let (read, ingress) = reads(slot, &from, &to, key);
        if read != 0 {
            // It is told here, with what is said of the other side.
            (*question).judged.ingress = ingress;
        }
        read
    }
}

/// Likewise to any of a service's backends: which one it will be is not known yet. Of too many only the first are asked.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_reads_backends(slot: u32, begin: u32, len: u32) -> u64 {
    let mut read = 0;
    for index in 0..MOST_BACKENDS {
        if index >= len {
            break;
        }
        read |= observer_reads_backend(slot, begin.wrapping_add(index));
    }
    read
}

/// Likewise to one backend of a service, at its own port.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_reads_backend(slot: u32, index: u32) -> u64 {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return 0 };
    let Some(backend) = POLICY_BACKENDS.get_value(slot, &index) else { return 0 };
    let backend = &raw const *backend;
    // SAFETY: this CPU's memory; entries of arrays are aligned to 8, and so is the question.
    unsafe {
        let question = &raw mut (*work).question;
        let address = &raw const (*backend).address;
        // What a pod says to itself never leaves it, unless the proxy were between.
        if same_address(address, &raw const (*question).source) {
            return 0;
        }
        let from = who(slot, question, side::INGRESS, &raw const (*question).source);
        let to = who(slot, question, side::EGRESS, address);
        reads(slot, &from, &to, cut_key((*question).protocol, (*backend).port)).0
    }
}

/// Whether one of the sides that are this node's has requests judged, and none denies the connection: what is denied where
/// it is delivered shall not reach the proxy. And what is said of the destination's side.
#[inline(always)]
fn reads(slot: u32, from: &Who, to: &Who, key: u32) -> (u64, u32) {
    let is_local = |who: &Who| who.known && who.flags & endpoint_flags::LOCAL != 0;
    let (mut egress, mut ingress) = (0, 0);
    if is_local(from) {
        egress = observer_decide(slot, from.subject, side::EGRESS as u32, to.peer, key) as u32;
    }
    if is_local(to) {
        ingress = observer_decide(slot, to.subject, side::INGRESS as u32, from.peer, key) as u32;
    }
    let said = egress | ingress;
    let denied = said & decision::DENIED != 0;
    let read = if denied { 0 } else { u64::from(said & decision::READ) >> decision::READ.trailing_zeros() };
    (read, ingress)
}

/// Sends the packet in [`FLOW_SCRATCH`], whose connection is [`FlowValue::proxied`](observer_ebpf::FlowValue), on its way: one of [`route`]. A global
/// function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_route(skb: *mut __sk_buff, proxied: u32) -> u64 {
    let (Some(scratch), Some(proxy)) = (FLOW_SCRATCH.get_ptr_mut(0), PROXY.get(0)) else { return route::ON };
    // SAFETY: this CPU's memory, and a program's context.
    unsafe {
        let proxied = u64::from(proxied);
        if (*scratch).seen.hook == hook::EGRESS {
            return proxied;
        }
        let ifindex = (*scratch).seen.ifindex;
        let Some(link) = LINKS.get_ptr_mut(&ifindex) else { return route::ON };
        let link = (*link).way;
        let flags = u16::from((*scratch).packet.tcp_flags);
        let udp = (*scratch).packet.tuple.protocol == UDP;
        let begins = if udp {
            proxied != route::OPENED
        } else {
            flags & (SYN | ACK) == SYN || proxied == route::RESET
        };
        if !begins {
            further(skb, &link);
            return proxied;
        }
        let ipv4 = (*scratch).packet.tuple.ip_version == 4;
        let state: ProxyState = *proxy;
        match first(skb, ipv4, udp, &state, &link) {
            // With the listener for its socket, a packet that does not begin a connection is answered with a reset.
            true => proxied,
            false if state.lets_pass != 0 || proxied == route::AUDITED => route::ON,
            false => route::NOWHERE,
        }
    }
}

/// Sends a packet that is about a connection of the proxy's the way of that one's further packets. No function of its own: it is
/// asked for where the stack of Linux 6.1 has no room for more.
#[inline(always)]
pub(crate) unsafe fn along(skb: *mut __sk_buff, seen: *const Seen) {
    // SAFETY: this CPU's memory, and a program's context.
    unsafe {
        let ifindex = (*seen).ifindex;
        if (*seen).hook == hook::INGRESS
            && let Some(link) = LINKS.get_ptr_mut(&ifindex)
        {
            let link = (*link).way;
            further(skb, &link);
        }
    }
}

/// Whether the packet in [`FLOW_SCRATCH`] comes out of a bridge on its way to the proxy: then what remains to be done was
/// done, unless nobody listens any more. A global function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_out_of_bridge(skb: *mut __sk_buff) -> u64 {
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's memory, and a program's context.
    unsafe {
        if (*scratch).seen.hook != hook::INGRESS || !is_to_proxy(skb) {
            return u64::from((*scratch).seen.link_kind == link_kind::BRIDGE);
        }
        let ifindex = (*scratch).seen.ifindex;
        let Some(link) = LINKS.get_ptr_mut(&ifindex) else { return 0 };
        let Some(proxy) = PROXY.get(0) else { return 0 };
        if (*link).way.way != way::BRIDGE {
            return 0;
        }
        let (ipv4, udp) = ((*scratch).packet.tuple.ip_version == 4, (*scratch).packet.tuple.protocol == UDP);
        let state: ProxyState = *proxy;
        behind_bridge(skb, ipv4, udp, &state);
        1
    }
}

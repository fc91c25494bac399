//! The flow programs: every packet is counted in its connection, some become records. They always return `TCX_NEXT`, but
//! `TCX_DROP` where an enforced policy denies the connection.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use observer_ebpf::parse::{self, Bytes, Head, ICMP, ICMPV6, Packet, TCP};
use observer_ebpf::{
    Config, Counters, DENIED, FlowDirection, FlowRecord, FlowValue, LinkTraffic, SEEN, TELLABLE, Tunnel,
    aggregation, flow_flags, flow_reason, hook, kind, link_kind, program, tick, ticks_since,
};

use crate::carried;
use crate::config::config;
use crate::connection::{COUNTED, finish, is_over, restart, standing};
use crate::judge::{self, JUDGING};
use crate::maps::{FLOW_SCRATCH, LINKS, NEW_FLOW_CAP};
use crate::record::{add, add_alone, clock, counters, header, now};
use crate::table::{Entry, entry};

pub(crate) const TCX_NEXT: i32 = -1;

pub(crate) const FIN: u16 = 1;
pub(crate) const SYN: u16 = 2;
pub(crate) const RST: u16 = 4;
pub(crate) const ACK: u16 = 16;

/// Those of [`standing`]'s bits that are `flow_flags`.
pub(crate) const STANDING_FLAGS: u16 = u8::MAX as u16 & !(TELLABLE | DENIED) as u16;

#[classifier]
pub(crate) fn observer_ingress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::INGRESS, program::INGRESS)
}

#[classifier]
pub(crate) fn observer_egress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::EGRESS, program::EGRESS)
}

pub(crate) struct Skb(pub(crate) *mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()> {
        // SAFETY: the helper writes N bytes or none; it checks the offset itself, in paged data too.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, into.as_mut_ptr().cast(), N as u32) };
        (failed == 0).then_some(())
    }
}

impl Skb {
    /// Copies the packet's start, as much as `head` has room for, with one call. Returns how much of it begins at the
    /// IP header, if no VLAN tag is before that.
    #[inline(always)]
    fn load(&self, ethernet: bool, len: u32, head: &mut Head) -> Option<u32> {
        let (into, skipped) = if ethernet { (head.frame(), Head::ETHERNET) } else { (head.packet(), 0) };
        let size = opaque(len.min(Head::PACKET + skipped));
        if size > u64::from(Head::PACKET + skipped) {
            return None;
        }
        let size = opaque(size as u32);
        // No packet has one byte; from a test for 0 the verifiers before 6.8 learn nothing.
        if size < 2 {
            return None;
        }
        let size = size as u32;
        // SAFETY: `into` has room for `Head::PACKET` bytes behind those skipped.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), 0, into.cast(), size) };
        (failed == 0 && size >= skipped).then(|| size - skipped)
    }
}

/// A number that LLVM knows nothing of, in the register that it is in. Else LLVM proves bounds for itself, or tests two of
/// them as one of another register, and leaves the verifier without; one of before 5.16 forgets them on the stack too.
#[inline(always)]
pub(crate) fn opaque(number: u32) -> u64 {
    let mut number = u64::from(number);
    // SAFETY: a move to itself. With no instruction at all, two lines of the source would be of one, which the kernel
    // refuses.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

/// What is known of the packet besides its headers.
#[repr(C)]
pub(crate) struct Seen {
    pub(crate) hook: u8,
    pub(crate) link_kind: u8,
    pub(crate) vlan_tci: u16,
    pub(crate) ifindex: u32,
    pub(crate) len: u32,
    pub(crate) forwarded: bool,
    /// The sender is on the near side: of a pod link the pod, of every other link the node.
    pub(crate) from_local: bool,
    /// The frame, or the one inside the tunnel, has an Ethernet header.
    pub(crate) ethernet: bool,
    /// 1 where the packet was inside another. Of a bool LLVM would test now one value, now the other, and the verifier
    /// sees a third.
    pub(crate) tunneled: u8,
    pub(crate) packets: u64,
    /// May be 10 ms behind, see `clock`.
    pub(crate) now: u64,
}

/// Working memory: the stack has 512 bytes.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) seen: Seen,
    pub(crate) head: Head,
    pub(crate) packet: Packet,
    /// Where the IP header of `packet` stands.
    pub(crate) network: u32,
    /// The packet inside `packet` while it is being read.
    pub(crate) inner: Packet,
    /// What is around the packet where it is tunneled.
    pub(crate) tunnel: Tunnel,
    pub(crate) fresh: Entry,
    /// Where a connection is judged: how it stands.
    pub(crate) standing: u16,
}

#[inline(always)]
fn observe(skb: *mut __sk_buff, hook: u8, program: u32) -> i32 {
    let Some(counters) = counters(program) else { return TCX_NEXT };
    // SAFETY: the kernel gives the program a valid context; map values outlive the run.
    unsafe {
        add_alone(&raw mut (*counters).runs, 1);
        let ifindex = (*skb).ifindex;
        let Some(link) = LINKS.get_ptr_mut(&ifindex) else { return TCX_NEXT };
        let traffic =
            if hook == hook::INGRESS { &raw mut (*link).traffic[0] } else { &raw mut (*link).traffic[1] };
        let len = (*skb).len;
        // 0 where the packet is no GSO packet.
        let packets = u64::from((*skb).gso_segs.max(1));
        (*traffic).packets += packets;
        (*traffic).bytes += u64::from(len);

        let bytes = Skb(skb);
        let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return TCX_NEXT };
        let scratch = &mut *scratch;
        let Scratch { seen, head, packet, .. } = scratch;
        seen.hook = hook;
        seen.link_kind = (*link).kind as u8;
        seen.vlan_tci = if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci as u16 };
        seen.ifindex = ifindex;
        seen.len = len;
        seen.forwarded = (*skb).ingress_ifindex != 0;
        seen.from_local = (seen.link_kind == link_kind::POD) == (hook == hook::INGRESS);
        seen.ethernet = (*link).layer3 == 0;
        seen.packets = packets;
        let Some(available) = bytes.load(seen.ethernet, len, head) else {
            return malformed(traffic, packets);
        };
        let ether_type = u16::from_be(if seen.ethernet { head.ether_type } else { (*skb).protocol as u16 });
        let mut network = if seen.ethernet { Head::ETHERNET } else { 0 };
        if !parse::plain(head, available, ether_type, packet) {
            let mut ether_type = ether_type;
            if seen.ethernet {
                let Some(found) = parse::ethernet(&bytes, ether_type, network, &mut seen.vlan_tci) else {
                    return malformed(traffic, packets);
                };
                (ether_type, network) = found;
            }
            match carried::observer_read_ip(skb, u32::from(ether_type), network) {
                carried::READ => scratch.packet = scratch.inner,
                carried::NOT_IP => {
                    (*traffic).not_ip += packets;
                    return TCX_NEXT;
                }
                _ => return malformed(traffic, packets),
            }
        }
        carried::unwrap(skb, scratch, network);
        judge::follow(skb, counters, scratch)
    }
}

#[inline(always)]
fn malformed(traffic: *mut LinkTraffic, packets: u64) -> i32 {
    // SAFETY: a per-CPU map value, written with softirqs off.
    unsafe { (*traffic).malformed += packets };
    TCX_NEXT
}

/// The packet's connection, where the table has room for it, and how it stands with this direction of it.
#[inline(always)]
pub(crate) fn meet(counters: *mut Counters, scratch: &mut Scratch) -> Option<(*mut FlowValue, u16)> {
    let Scratch { seen, packet, tunnel, fresh, .. } = scratch;
    let config = config();
    seen.now = clock(config);
    let packet = &*packet;
    let tuple = &packet.tuple;
    // A tunneled packet goes where the outer one goes.
    let outer = if seen.tunneled != 0 {
        tunnel.from_remote = u8::from(!seen.from_local);
        &tunnel.tuple
    } else {
        tuple
    };
    let (value, created) = entry(counters, config, seen, packet, tunnel, fresh)?;
    // SAFETY: a map value; an entry that is evicted meanwhile stays readable until the program ends.
    unsafe {
        let seen = &*seen;
        let (this, other) = directions(value, seen.from_local);
        let flags = u16::from(packet.tcp_flags);
        let takes_over = || is_over(this, other) || (JUDGING && (*value).guessed != 0);
        if tuple.protocol == TCP && flags & (SYN | ACK) == SYN && !created && takes_over() {
            finish(counters, tuple, value, seen, tunnel);
            restart(value, seen.from_local);
        }
        let counted = if created { COUNTED } else { 0 };
        Some((value, counted | standing(config, seen, outer, value, this, other)))
    }
}

/// What the packet's sender sends, and what the other one does.
#[inline(always)]
pub(crate) unsafe fn directions(
    value: *mut FlowValue,
    from_local: bool,
) -> (*mut FlowDirection, *mut FlowDirection) {
    // SAFETY: only addresses of a map value's fields are taken.
    unsafe {
        let (a, b) = (&raw mut (*value).directions[0], &raw mut (*value).directions[1]);
        if from_local { (a, b) } else { (b, a) }
    }
}

/// Counts the packet, and tells of it where there is something to tell.
///
/// # Safety
/// With what [`meet`] returned.
#[inline(always)]
pub(crate) unsafe fn count(counters: *mut Counters, scratch: &Scratch, value: *mut FlowValue, standing: u16) {
    let Scratch { seen, head, packet, tunnel, .. } = scratch;
    let config = config();
    let tuple = &packet.tuple;
    let flags = u16::from(packet.tcp_flags);
    let is_counted = standing & COUNTED != 0;
    let (told_here, standing) = (standing & u16::from(TELLABLE), standing & STANDING_FLAGS);
    // SAFETY: as in `meet`. How it stands was found before the sums: the processor begins nothing behind a locked add
    // until that has its cache line.
    unsafe {
        let (this, other) = directions(value, seen.from_local);
        let before = (*this).seen;
        let told = (*this).told;
        if !is_counted {
            add(&raw mut (*this).packets, seen.packets);
            add(&raw mut (*this).bytes, u64::from(seen.len));
        }
        let now_tick = tick(seen.now);
        (*this).last = now_tick;
        let bits = standing | bits(packet);
        (*this).seen = before | flags | SEEN;
        (*this).flags = (bits | told_here) as u8;
        (*this).tcp_flags = packet.tcp_flags;
        // What seldom is needed stands in other cache lines.
        if flags & RST != 0 {
            (*value).resets = (*value).resets.saturating_add(1);
        }
        if tuple.protocol == ICMP || tuple.protocol == ICMPV6 {
            let icmp = [tuple.icmp_type, tuple.icmp_code];
            if seen.from_local {
                (*value).icmp[0] = icmp;
            } else {
                (*value).icmp[1] = icmp;
            }
        }
        // Most packets return without the answer.
        let begins = || (before | (*other).seen) & SEEN == 0;
        if told_here == 0 {
            if begins() {
                (*value).first_ns = now();
            }
            return;
        }

        let fresh = (flags | SEEN) & !before;
        let reason = reason(config, fresh, told, bits & flow_flags::REPLY != 0, now_tick);
        if reason == 0 {
            add_alone(&raw mut (*counters).aggregated, seen.packets);
            return;
        }
        // The exact clock waits for all that is still being read; here most of that has come.
        let time_ns = now();
        if begins() {
            (*value).first_ns = time_ns;
        }
        let untold = told == 0 && (*other).told == 0;
        let first_ns = (*value).first_ns;
        if reason != flow_reason::PACKET && untold && !under_cap(config, time_ns) {
            add_alone(&raw mut (*counters).new_flow_cap, seen.packets);
            if JUDGING {
                // Whatever has a record shall say what policies say.
                (*this).generation = (*this).generation.wrapping_sub(1);
            }
            return;
        }
        let packets = (*this).packets;
        (*this).told = tick(time_ns).max(1);
        if seen.from_local {
            (*value).told_packets[0] = packets as u32;
        } else {
            (*value).told_packets[1] = packets as u32;
        }
        let bytes = (*this).bytes;
        let resets = (*value).resets;
        let proxied = if JUDGING { u16::from((*value).proxied.min(1)) * flow_flags::PROXIED } else { 0 };
        let fill = |record: &mut MaybeUninit<FlowRecord>| {
            record.write(FlowRecord {
                header: header::<FlowRecord>(kind::FLOW, time_ns),
                tuple: *tuple,
                ifindex: seen.ifindex,
                packet_len: seen.len,
                flags: proxied | if seen.ethernet { bits | flow_flags::ETHERNET } else { bits },
                vlan_tci: seen.vlan_tci,
                hook: seen.hook,
                link_kind: seen.link_kind,
                reason,
                tcp_flags: packet.tcp_flags,
                source_mac: head.source_mac,
                destination_mac: head.destination_mac,
                tcp_flags_high: packet.tcp_flags_high,
                pad: 0,
                resets,
                packets,
                bytes,
                first_ns,
            });
        };
        if JUDGING && untold && seen.tunneled == 0 && judge::is_judged() {
            judge::write_judged(counters, fill);
        } else {
            carried::write_flow(counters, seen, tunnel, fill);
        }
    }
}

/// Why this packet has a record, 0 where it has none; `fresh` is what was not seen before in this direction.
#[inline(always)]
fn reason(config: &Config, fresh: u16, told: u32, reply: bool, now: u32) -> u8 {
    match config.aggregation {
        aggregation::NONE | aggregation::LOW => flow_reason::PACKET,
        aggregation::MAXIMUM if fresh & (SEEN | FIN | RST) == 0 && told != 0 => 0,
        _ if told == 0 && !reply => flow_reason::NEW,
        _ if fresh != 0 || told == 0 => flow_reason::FLAGS,
        _ if u64::from(ticks_since(now, told)) >= config.interval_ns >> 20 => flow_reason::INTERVAL,
        _ => 0,
    }
}

/// Those of [`flow_flags`] that are of this packet alone.
#[inline(always)]
fn bits(packet: &Packet) -> u16 {
    let related = parse::icmp_error(packet.tuple.protocol, packet.tuple.icmp_type);
    let mut bits = if related { flow_flags::RELATED } else { 0 };
    if packet.fragment {
        bits |= flow_flags::FRAGMENT;
    }
    bits
}

/// Whether this CPU may write one more new-flow record: a bucket kept as the time at which it is full again.
#[inline(always)]
fn under_cap(config: &Config, now: u64) -> bool {
    if config.new_flow_cost_ns == 0 {
        return true;
    }
    let Some(due) = NEW_FLOW_CAP.get_ptr_mut(0) else { return true };
    // SAFETY: a per-CPU map value, written with softirqs off.
    unsafe {
        let from = if *due > now { *due } else { now };
        let next = from + config.new_flow_cost_ns;
        let allowed = next - now <= config.new_flow_burst * config.new_flow_cost_ns;
        if allowed {
            *due = next;
        }
        allowed
    }
}

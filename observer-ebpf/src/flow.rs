//! The flow programs: every packet is counted in its connection, some become records. They always return `TCX_NEXT`.

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use observer_ebpf::parse::{self, Bytes, Head, Packet, TCP, copy_address};
use observer_ebpf::{
    Config, Counters, FlowKey, FlowRecord, FlowValue, LinkTraffic, SEEN, Tunnel, Tuple, aggregation,
    flow_flags, flow_reason, hook, kind, link_kind, program,
};

use crate::carried;
use crate::config::config;
use crate::connection::{LOCAL_POD, finish, is_over, places, restart, told};
use crate::maps::{FLOW_SCRATCH, FLOW_TABLE, LINKS, NEW_FLOW_CAP};
use crate::opener::opener;
use crate::record::{add, add_alone, clock, counters, header, now};

const TCX_NEXT: i32 = -1;
const BPF_NOEXIST: u64 = 1;

pub(crate) const FIN: u16 = 1;
pub(crate) const SYN: u16 = 2;
pub(crate) const RST: u16 = 4;
pub(crate) const ACK: u16 = 16;

#[classifier]
pub(crate) fn observer_ingress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::INGRESS, program::INGRESS);
    TCX_NEXT
}

#[classifier]
pub(crate) fn observer_egress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::EGRESS, program::EGRESS);
    TCX_NEXT
}

/// What a run costs by itself: benches measure the others over it. The daemon never loads it.
#[classifier]
pub(crate) fn observer_nothing(_: TcContext) -> i32 {
    TCX_NEXT
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
fn opaque(number: u32) -> u64 {
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
    /// The frame, or the one inside the tunnel, has an Ethernet header.
    pub(crate) ethernet: bool,
    /// The packet was inside another.
    pub(crate) tunneled: bool,
    pub(crate) packets: u64,
    /// May be 4 ms behind, see `clock`.
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
    key: Key,
    fresh: FlowValue,
}

/// A key whose addresses can be copied word by word.
#[repr(C, align(8))]
struct Key(FlowKey);

#[inline(always)]
fn observe(skb: *mut __sk_buff, hook: u8, program: u32) {
    let Some(counters) = counters(program) else { return };
    // SAFETY: the kernel gives the program a valid context; map values outlive the run.
    unsafe {
        add_alone(&raw mut (*counters).runs, 1);
        let ifindex = (*skb).ifindex;
        let Some(link) = LINKS.get_ptr_mut(&ifindex) else { return };
        let traffic =
            if hook == hook::INGRESS { &raw mut (*link).traffic[0] } else { &raw mut (*link).traffic[1] };
        let len = (*skb).len;
        // 0 where the packet is no GSO packet.
        let packets = u64::from((*skb).gso_segs.max(1));
        (*traffic).packets += packets;
        (*traffic).bytes += u64::from(len);

        let bytes = Skb(skb);
        let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return };
        let scratch = &mut *scratch;
        let Scratch { seen, head, packet, .. } = scratch;
        seen.hook = hook;
        seen.link_kind = (*link).kind as u8;
        seen.vlan_tci = if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci as u16 };
        seen.ifindex = ifindex;
        seen.len = len;
        seen.forwarded = (*skb).ingress_ifindex != 0;
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
                    return;
                }
                _ => return malformed(traffic, packets),
            }
        }
        carried::unwrap(skb, scratch, network);
        track(counters, scratch);
    }
}

#[inline(always)]
fn malformed(traffic: *mut LinkTraffic, packets: u64) {
    // SAFETY: a per-CPU map value, written with softirqs off.
    unsafe { (*traffic).malformed += packets };
}

/// Not inlined: its stack and that of [`carried::unwrap`] are too much together.
#[inline(never)]
fn track(counters: *mut Counters, scratch: &mut Scratch) {
    let Scratch { seen, head, packet, tunnel, key: Key(key), fresh, .. } = scratch;
    let config = config();
    seen.now = clock(&config);
    let (seen, packet) = (&*seen, &*packet);
    let tuple = &packet.tuple;
    // The near side of a pod link is the pod, of every other link the node.
    let from_local = (seen.link_kind == link_kind::POD) == (seen.hook == hook::INGRESS);
    // SAFETY: `Packet` and `Key` are aligned to 8, and each address in them.
    unsafe { fill_key(key, seen.ifindex, tuple, from_local) };
    // A tunneled packet goes where the outer one goes.
    let (mut near, mut far) = (&raw const key.local, &raw const key.remote);
    let tunnel = if seen.tunneled {
        carried::mark(key, tunnel, from_local);
        let outer = &tunnel.tuple;
        (near, far) = if from_local {
            (&raw const outer.source, &raw const outer.destination)
        } else {
            (&raw const outer.destination, &raw const outer.source)
        };
        Some(&*tunnel)
    } else {
        None
    };
    let key = &*key;
    let Some((value, created)) = entry(counters, &config, seen, packet, key, fresh) else { return };
    // SAFETY: a map value; an entry that is evicted meanwhile stays readable until the program ends.
    unsafe {
        let (this, other) = if from_local {
            (&raw mut (*value).directions[0], &raw mut (*value).directions[1])
        } else {
            (&raw mut (*value).directions[1], &raw mut (*value).directions[0])
        };
        let flags = u16::from(packet.tcp_flags);
        if tuple.protocol == TCP && flags & (SYN | ACK) == SYN && !created && is_over(this, other) {
            finish(counters, key, value, seen, tunnel);
            restart(value, from_local, now());
        }
        let first_ns = (*value).first_ns;
        let reply = ((*value).opener == 0) != from_local;
        add(&raw mut (*this).packets, seen.packets);
        add(&raw mut (*this).bytes, u64::from(seen.len));
        (*this).last_ns = seen.now;

        if created && let Some(tunnel) = tunnel {
            carried::remember(key, tunnel);
        }
        let (to, from) = places(&*near, &*far, value, created, from_local);
        let tellable = told(seen, value, to, from) || config.aggregation == aggregation::NONE;
        let bits = bits(seen, packet, reply, (*value).guessed != 0, to == LOCAL_POD);
        if flags & RST != 0 {
            (*value).resets = (*value).resets.saturating_add(1);
        }
        let before = (*this).seen;
        (*this).seen = before | flags | SEEN;
        (*this).flags = bits;
        (*this).tcp_flags = packet.tcp_flags;
        (*this).icmp_type = tuple.icmp_type;
        (*this).icmp_code = tuple.icmp_code;
        (*this).tellable = u8::from(tellable);
        if !tellable {
            return;
        }

        let told_ns = (*this).told_ns;
        let fresh = (flags | SEEN) & !before;
        let reason = reason(&config, fresh, told_ns, reply, seen.now);
        if reason == 0 {
            add_alone(&raw mut (*counters).aggregated, seen.packets);
            return;
        }
        let time_ns = now();
        let untold = told_ns == 0 && (*other).told_ns == 0;
        if reason != flow_reason::PACKET && untold && !under_cap(&config, time_ns) {
            add_alone(&raw mut (*counters).new_flow_cap, seen.packets);
            return;
        }
        let packets = (*this).packets;
        (*this).told_ns = time_ns;
        (*this).told_packets = packets;
        let bytes = (*this).bytes;
        let resets = (*value).resets;
        carried::write_flow(counters, tunnel, |record| {
            record.write(FlowRecord {
                header: header::<FlowRecord>(kind::FLOW, time_ns),
                tuple: *tuple,
                ifindex: seen.ifindex,
                packet_len: seen.len,
                flags: bits,
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
        });
    }
}

/// Why this packet has a record, 0 where it has none; `fresh` is what was not seen before in this direction.
#[inline(always)]
fn reason(config: &Config, fresh: u16, told_ns: u64, reply: bool, now: u64) -> u8 {
    match config.aggregation {
        aggregation::NONE | aggregation::LOW => flow_reason::PACKET,
        aggregation::MAXIMUM if fresh & (SEEN | FIN | RST) == 0 && told_ns != 0 => 0,
        _ if told_ns == 0 && !reply => flow_reason::NEW,
        _ if fresh != 0 || told_ns == 0 => flow_reason::FLAGS,
        // The clock that is behind may not yet have reached the time of the record.
        _ if now.saturating_sub(told_ns) >= config.interval_ns => flow_reason::INTERVAL,
        _ => 0,
    }
}

/// The connection's entry, and whether it is new; `None` where the table has no room.
#[inline(always)]
fn entry(
    counters: *mut Counters,
    config: &Config,
    seen: &Seen,
    packet: &Packet,
    key: &FlowKey,
    fresh: &mut FlowValue,
) -> Option<(*mut FlowValue, bool)> {
    if let Some(value) = FLOW_TABLE.get_ptr_mut(key) {
        return Some((value, false));
    }
    let (sender_opened, guessed) = opener(config, packet);
    let from_local = (seen.link_kind == link_kind::POD) == (seen.hook == hook::INGRESS);
    fresh.first_ns = now();
    fresh.opener = u8::from(sender_opened != from_local);
    fresh.guessed = u8::from(guessed);
    fresh.link_kind = seen.link_kind;
    fresh.ip_version = packet.tuple.ip_version;
    let created = FLOW_TABLE.insert(key, &*fresh, BPF_NOEXIST).is_ok();
    // SAFETY: only addresses of a map value's fields are taken.
    let (midway, full) = unsafe { (&raw mut (*counters).met_midway, &raw mut (*counters).table_full) };
    if created && guessed && packet.tuple.protocol == TCP {
        add_alone(midway, 1);
    }
    let value = FLOW_TABLE.get_ptr_mut(key);
    if value.is_none() {
        add(full, 1);
    }
    Some((value?, created))
}

/// The key of the connection: its ends by the link's sides.
///
/// # Safety
/// The addresses must be aligned to 8.
#[inline(always)]
unsafe fn fill_key(key: &mut FlowKey, ifindex: u32, tuple: &Tuple, from_local: bool) {
    key.ifindex = ifindex;
    key.protocol = tuple.protocol;
    key.vni = [0; 3];
    // SAFETY: as the caller says.
    unsafe {
        if from_local {
            copy_address(&tuple.source, &mut key.local);
            copy_address(&tuple.destination, &mut key.remote);
            (key.local_port, key.remote_port) = (tuple.source_port, tuple.destination_port);
        } else {
            copy_address(&tuple.destination, &mut key.local);
            copy_address(&tuple.source, &mut key.remote);
            (key.local_port, key.remote_port) = (tuple.destination_port, tuple.source_port);
        }
    }
}

/// [`flow_flags`] of a packet.
#[inline(always)]
fn bits(seen: &Seen, packet: &Packet, reply: bool, guessed: bool, to_pod: bool) -> u16 {
    let tuple = &packet.tuple;
    let mut bits = 0;
    set(&mut bits, flow_flags::REPLY, reply);
    set(&mut bits, flow_flags::OPENER_GUESSED, guessed);
    set(&mut bits, flow_flags::RELATED, parse::icmp_error(tuple.protocol, tuple.icmp_type));
    set(&mut bits, flow_flags::FRAGMENT, packet.fragment);
    set(&mut bits, flow_flags::ETHERNET, seen.ethernet);
    set(&mut bits, flow_flags::FORWARDED, seen.forwarded);
    set(&mut bits, flow_flags::TO_LOCAL_POD, to_pod);
    bits
}

#[inline(always)]
fn set(bits: &mut u16, flag: u16, on: bool) {
    if on {
        *bits |= flag;
    }
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

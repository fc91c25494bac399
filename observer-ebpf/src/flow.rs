//! The flow programs: every packet is counted in its connection, some become records. They always return `TCX_NEXT`.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use observer_ebpf::{
    Config, Counters, FlowDirection, FlowKey, FlowRecord, FlowValue, LinkTraffic, SEEN, Tuple, aggregation,
    flow_flags, flow_reason, hook, kind, link_kind, program,
};

use crate::config::config;
use crate::maps::{FLOW_SCRATCH, FLOW_TABLE, FLOWS, LINKS, LOCAL, NEW_FLOW_CAP, SERVICE_PORTS};
use crate::parse::{self, Bytes, Echo, Packet, TCP, Unparsed};
use crate::record::{Wake, add, add_alone, counters, header, now, write};

const TCX_NEXT: i32 = -1;
const BPF_NOEXIST: u64 = 1;

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;

const LOCAL_POD: u32 = 1;
const LOCAL_NODE: u32 = 2;

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

struct Skb(*mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()> {
        // SAFETY: the helper writes N bytes or none; it checks the offset itself, in paged data too.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, into.as_mut_ptr().cast(), N as u32) };
        (failed == 0).then_some(())
    }
}

/// What is known of the packet besides its headers.
#[repr(C)]
struct Seen {
    hook: u8,
    link_kind: u8,
    vlan_tci: u16,
    ifindex: u32,
    len: u32,
    forwarded: bool,
    ethernet: bool,
    macs: [u8; 14],
    packets: u64,
    now: u64,
}

/// Working memory: the stack has 512 bytes.
#[repr(C)]
pub(crate) struct Scratch {
    seen: Seen,
    packet: Packet,
    key: FlowKey,
    fresh: FlowValue,
}

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
        let seen = &mut scratch.seen;
        seen.hook = hook;
        seen.link_kind = (*link).kind as u8;
        seen.vlan_tci = if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci as u16 };
        seen.ifindex = ifindex;
        seen.len = len;
        seen.forwarded = (*skb).ingress_ifindex != 0;
        seen.ethernet = (*link).layer3 == 0;
        seen.packets = packets;
        seen.now = now();
        let (ether_type, offset) = if seen.ethernet {
            if bytes.read(0, &mut seen.macs).is_none() {
                return malformed(traffic, packets);
            }
            let ether_type = u16::from_be_bytes([seen.macs[12], seen.macs[13]]);
            let Some(found) = parse::ethernet(&bytes, ether_type, &mut seen.vlan_tci) else {
                return malformed(traffic, packets);
            };
            found
        } else {
            (u16::from_be((*skb).protocol as u16), 0)
        };
        match parse::ip(&bytes, ether_type, offset, &mut scratch.packet) {
            Ok(()) => track(counters, scratch),
            Err(Unparsed::NotIp) => (*traffic).not_ip += packets,
            Err(Unparsed::Malformed) => malformed(traffic, packets),
        }
    }
}

#[inline(always)]
fn malformed(traffic: *mut LinkTraffic, packets: u64) {
    // SAFETY: a per-CPU map value, written with softirqs off.
    unsafe { (*traffic).malformed += packets };
}

#[inline(always)]
fn track(counters: *mut Counters, scratch: &mut Scratch) {
    let Scratch { seen, packet, key, fresh } = scratch;
    let (seen, packet) = (&*seen, &*packet);
    let config = config();
    let tuple = &packet.tuple;
    // The near side of a pod link is the pod, of every other link the node.
    let from_local = (seen.link_kind == link_kind::POD) == (seen.hook == hook::INGRESS);
    key.ifindex = seen.ifindex;
    key.protocol = tuple.protocol;
    key.ip_version = tuple.ip_version;
    if from_local {
        (key.local, key.local_port) = (tuple.source, tuple.source_port);
        (key.remote, key.remote_port) = (tuple.destination, tuple.destination_port);
    } else {
        (key.local, key.local_port) = (tuple.destination, tuple.destination_port);
        (key.remote, key.remote_port) = (tuple.source, tuple.source_port);
    }

    let key = &*key;
    let mut created = false;
    let value = match FLOW_TABLE.get_ptr_mut(key) {
        Some(value) => value,
        None => {
            let (sender_opened, guessed) = opener(&config, packet);
            fresh.first_ns = seen.now;
            fresh.opener = u8::from(sender_opened != from_local);
            fresh.guessed = u8::from(guessed);
            fresh.link_kind = seen.link_kind;
            created = FLOW_TABLE.insert(key, &*fresh, BPF_NOEXIST).is_ok();
            match FLOW_TABLE.get_ptr_mut(key) {
                Some(value) => value,
                None => {
                    // SAFETY: a map value.
                    add(unsafe { &raw mut (*counters).table_full }, 1);
                    return;
                }
            }
        }
    };
    // SAFETY: a map value; an entry that is evicted meanwhile stays readable until the program ends.
    unsafe {
        let (this, other) = if from_local {
            (&raw mut (*value).directions[0], &raw mut (*value).directions[1])
        } else {
            (&raw mut (*value).directions[1], &raw mut (*value).directions[0])
        };
        let flags = u16::from(packet.tcp_flags);
        if tuple.protocol == TCP && flags & (SYN | ACK) == SYN && !created && is_over(this, other) {
            finish(counters, key, value, seen);
            restart(value, from_local, seen.now);
        }
        let first_ns = (*value).first_ns;
        let reply = ((*value).opener == 0) != from_local;
        add(&raw mut (*this).packets, seen.packets);
        add(&raw mut (*this).bytes, u64::from(seen.len));
        (*this).last_ns = seen.now;

        let (tellable, to_pod) = told(&config, packet, seen, value);
        let mut bits = 0;
        set(&mut bits, flow_flags::REPLY, reply);
        set(&mut bits, flow_flags::OPENER_GUESSED, (*value).guessed != 0);
        set(&mut bits, flow_flags::RELATED, parse::icmp_error(tuple.protocol, tuple.icmp_type));
        set(&mut bits, flow_flags::FRAGMENT, packet.fragment);
        set(&mut bits, flow_flags::ETHERNET, seen.ethernet);
        set(&mut bits, flow_flags::FORWARDED, seen.forwarded);
        set(&mut bits, flow_flags::TO_LOCAL_POD, to_pod);
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
        let reason = match config.aggregation {
            aggregation::NONE | aggregation::LOW => flow_reason::PACKET,
            aggregation::MAXIMUM if fresh & (SEEN | FIN | RST) == 0 && told_ns != 0 => 0,
            _ if told_ns == 0 && !reply => flow_reason::NEW,
            _ if fresh != 0 || told_ns == 0 => flow_reason::FLAGS,
            _ if seen.now.wrapping_sub(told_ns) >= config.interval_ns => flow_reason::INTERVAL,
            _ => 0,
        };
        if reason == 0 {
            add_alone(&raw mut (*counters).aggregated, seen.packets);
            return;
        }
        let untold = told_ns == 0 && (*other).told_ns == 0;
        if reason != flow_reason::PACKET && untold && !under_cap(&config, seen.now) {
            add_alone(&raw mut (*counters).new_flow_cap, seen.packets);
            return;
        }
        let packets = (*this).packets;
        (*this).told_ns = seen.now;
        (*this).told_packets = packets;
        let bytes = (*this).bytes;
        write(&FLOWS, Wake::First, counters, |record| {
            record.write(FlowRecord {
                header: header::<FlowRecord>(kind::FLOW, seen.now),
                tuple: *tuple,
                ifindex: seen.ifindex,
                packet_len: seen.len,
                flags: bits,
                vlan_tci: seen.vlan_tci,
                hook: seen.hook,
                link_kind: seen.link_kind,
                reason,
                tcp_flags: packet.tcp_flags,
                source_mac: [
                    seen.macs[6],
                    seen.macs[7],
                    seen.macs[8],
                    seen.macs[9],
                    seen.macs[10],
                    seen.macs[11],
                ],
                destination_mac: [
                    seen.macs[0],
                    seen.macs[1],
                    seen.macs[2],
                    seen.macs[3],
                    seen.macs[4],
                    seen.macs[5],
                ],
                tcp_flags_high: packet.tcp_flags_high,
                pad: [0; 3],
                packets,
                bytes,
                first_ns,
            });
        });
    }
}

#[inline(always)]
fn set(bits: &mut u16, flag: u16, on: bool) {
    if on {
        *bits |= flag;
    }
}

/// Whether this pass is the one at which the packet is told, and whether it goes to a local pod.
#[inline(always)]
unsafe fn told(config: &Config, packet: &Packet, seen: &Seen, value: *mut FlowValue) -> (bool, bool) {
    // SAFETY: look-ups of plain numbers; `value` is a map value.
    unsafe {
        let to = LOCAL.get(&packet.tuple.destination).copied().unwrap_or(0);
        let to_pod = to == LOCAL_POD;
        let tellable = if seen.link_kind == link_kind::POD {
            // What goes to a local pod is told where it is delivered.
            seen.hook == hook::EGRESS || !to_pod
        } else if seen.hook == hook::EGRESS {
            if seen.forwarded {
                (*value).forwarded = 1;
            }
            !seen.forwarded && !to_pod
        } else {
            // Replies to masqueraded pods carry the node's address here: the connection went out forwarded.
            to == LOCAL_NODE
                && (*value).forwarded == 0
                && LOCAL.get(&packet.tuple.source).copied().unwrap_or(0) != LOCAL_POD
        };
        (tellable || config.aggregation == aggregation::NONE, to_pod)
    }
}

/// Whether a SYN from `this` side can only be a new connection: the old one ended, or had got past its handshake.
#[inline(always)]
unsafe fn is_over(this: *const FlowDirection, other: *const FlowDirection) -> bool {
    // SAFETY: map values.
    let (this, other) = unsafe { ((*this).seen, (*other).seen) };
    (this | other) & RST != 0 || this & other & FIN != 0 || this & ACK != 0
}

/// Empties the entry for the connection that takes its place.
#[inline(always)]
unsafe fn restart(value: *mut FlowValue, from_local: bool, now: u64) {
    // SAFETY: a map value.
    unsafe {
        (*value).directions = [FlowDirection::default(); 2];
        (*value).opener = u8::from(!from_local);
        (*value).guessed = 0;
        (*value).first_ns = now;
    }
}

/// Tells what the ended connection counted since its last records.
#[inline(always)]
unsafe fn finish(counters: *mut Counters, key: &FlowKey, value: *mut FlowValue, seen: &Seen) {
    for index in 0..2 {
        // SAFETY: a map value; the index is 0 or 1.
        unsafe {
            let direction = if index == 0 {
                &raw const (*value).directions[0]
            } else {
                &raw const (*value).directions[1]
            };
            if (*direction).tellable == 0
                || (*direction).told_ns == 0
                || (*direction).packets == (*direction).told_packets
            {
                continue;
            }
            let outward = (index == 0) == (seen.link_kind == link_kind::POD);
            write(&FLOWS, Wake::First, counters, |record: &mut MaybeUninit<FlowRecord>| {
                let record = record.write(FlowRecord {
                    header: header::<FlowRecord>(kind::FLOW, (*direction).last_ns),
                    tuple: Tuple {
                        source: key.local,
                        destination: key.remote,
                        source_port: key.local_port,
                        destination_port: key.remote_port,
                        protocol: key.protocol,
                        ip_version: key.ip_version,
                        icmp_type: 0,
                        icmp_code: 0,
                    },
                    ifindex: seen.ifindex,
                    packet_len: 0,
                    flags: (*direction).flags & !flow_flags::ETHERNET,
                    vlan_tci: 0,
                    hook: if outward { hook::INGRESS } else { hook::EGRESS },
                    link_kind: seen.link_kind,
                    reason: flow_reason::SWEEP,
                    tcp_flags: (*direction).tcp_flags,
                    source_mac: [0; 6],
                    destination_mac: [0; 6],
                    tcp_flags_high: 0,
                    pad: [0; 3],
                    packets: (*direction).packets,
                    bytes: (*direction).bytes,
                    first_ns: (*value).first_ns,
                });
                if index == 1 {
                    (record.tuple.source, record.tuple.source_port) = (key.remote, key.remote_port);
                    (record.tuple.destination, record.tuple.destination_port) = (key.local, key.local_port);
                }
            });
        }
    }
}

/// Who opened a connection whose first packet here is this one: (the sender did, that is a guess).
#[inline(always)]
fn opener(config: &Config, packet: &Packet) -> (bool, bool) {
    let tuple = &packet.tuple;
    let flags = u16::from(packet.tcp_flags);
    match tuple.protocol {
        TCP if flags & (SYN | ACK) == SYN => return (true, false),
        TCP if flags & SYN != 0 => return (false, false),
        parse::ICMP | parse::ICMPV6 => {
            return (parse::echo(tuple.protocol, tuple.icmp_type) != Echo::Reply, false);
        }
        _ => {}
    }
    let to_service = is_service(tuple.protocol, tuple.destination_port);
    let from_service = is_service(tuple.protocol, tuple.source_port);
    let ephemeral = |port: u16| port >= config.ephemeral_low && port <= config.ephemeral_high;
    let sender = if to_service != from_service {
        to_service
    } else {
        ephemeral(tuple.source_port) || !ephemeral(tuple.destination_port)
    };
    (sender, tuple.protocol == TCP || !sender)
}

#[inline(always)]
fn is_service(protocol: u8, port: u16) -> bool {
    let key = u32::from(protocol) << 16 | u32::from(port);
    SERVICE_PORTS.get_ptr(&key).is_some()
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

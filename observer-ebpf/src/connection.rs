//! A connection's entry in the table: where its ends are, when it is over, what is told when another takes its place.

use core::mem::MaybeUninit;

use observer_ebpf::{
    Config, Counters, DENIED, FlowDirection, FlowRecord, FlowValue, SEEN, TELLABLE, Tunnel, Tuple,
    aggregation, flow_flags, flow_reason, hook, kind, link_kind, tick, ticks_since,
};

use crate::carried::write_flow;
use crate::flow::{ACK, FIN, RST, Seen};
use crate::judge::JUDGING;
use crate::maps::{GENERATION, LOCAL};
use crate::record::{header, now};

pub(crate) const LOCAL_POD: u32 = 1;
const LOCAL_NODE: u32 = 2;

/// These bits of [`flow_flags`], which fit into 8, hold for a direction.
const REPLY: u8 = flow_flags::REPLY as u8;
const OPENER_GUESSED: u8 = flow_flags::OPENER_GUESSED as u8;
const FORWARDED: u8 = flow_flags::FORWARDED as u8;
const TO_LOCAL_POD: u8 = flow_flags::TO_LOCAL_POD as u8;
const STANDING: u8 = REPLY | OPENER_GUESSED | FORWARDED | TO_LOCAL_POD | TELLABLE;

/// Beside the bits that [`standing`] returns: they were decided for this packet, and policies have not been asked yet.
pub(crate) const ANEW: u16 = 1 << 8;
/// Likewise: the entry was made with this packet, which is in its sums.
pub(crate) const COUNTED: u16 = 1 << 9;

/// Those of [`flow_flags`] that hold for every packet of this direction, and [`TELLABLE`]. Decided once, and again when
/// the table of addresses has changed or the packet comes another way; `outer` is who sends the frame to whom.
#[inline(always)]
pub(crate) unsafe fn standing(
    config: &Config,
    seen: &Seen,
    outer: &Tuple,
    value: *mut FlowValue,
    this: *mut FlowDirection,
    other: *mut FlowDirection,
) -> u16 {
    // SAFETY: look-ups of plain numbers; the rest points into a map value.
    unsafe {
        // Read before the addresses: a change in between is found by the next packet.
        let generation = GENERATION.get(0).copied().unwrap_or(0);
        let known = (*this).flags & STANDING;
        // What is inside may be sent through any tunnel.
        let tunneled = JUDGING && seen.tunneled != 0;
        let carrier = if tunneled { folded(outer) } else { 0 };
        if (*this).seen & SEEN != 0
            && (*this).generation == generation
            && (known & FORWARDED != 0) == seen.forwarded
            && (!tunneled || (*value).carrier == carrier)
        {
            return u16::from(known);
        }
        if tunneled {
            (*value).carrier = carrier;
        }
        (*this).generation = generation;
        let to = LOCAL.get(&outer.destination).copied().unwrap_or(0);
        let mut bits = 0;
        set(&mut bits, REPLY, ((*value).opener == 0) != seen.from_local);
        set(&mut bits, OPENER_GUESSED, (*value).guessed != 0);
        set(&mut bits, FORWARDED, seen.forwarded);
        set(&mut bits, TO_LOCAL_POD, to == LOCAL_POD);
        if seen.hook == hook::EGRESS && seen.link_kind != link_kind::POD && seen.forwarded {
            (*value).forwarded = 1;
            // What was decided for the way back may no longer hold.
            (*other).generation = generation.wrapping_sub(1);
        }
        set(&mut bits, TELLABLE, told(seen, outer, value, to) || config.aggregation == aggregation::NONE);
        u16::from(bits) | if JUDGING { ANEW } else { 0 }
    }
}

/// Both addresses in a number, the same for both ways.
#[inline(always)]
unsafe fn folded(tuple: &Tuple) -> u32 {
    // SAFETY: the tuples of tunnels are aligned to 8.
    unsafe {
        let source = *(&raw const tuple.source).cast::<[u32; 4]>();
        let destination = *(&raw const tuple.destination).cast::<[u32; 4]>();
        let [a, b, c, d] = [0, 1, 2, 3].map(|word: usize| source[word] ^ destination[word]);
        a ^ b ^ c ^ d
    }
}

#[inline(always)]
fn set(bits: &mut u8, flag: u8, on: bool) {
    if on {
        *bits |= flag;
    }
}

/// Whether this pass is the one at which the packet is told.
#[inline(always)]
unsafe fn told(seen: &Seen, outer: &Tuple, value: *mut FlowValue, to: u32) -> bool {
    let egress = seen.hook == hook::EGRESS;
    if seen.link_kind == link_kind::POD {
        // What goes to a local pod is told where it is delivered.
        egress || to != LOCAL_POD
    } else if egress {
        !seen.forwarded && to != LOCAL_POD
    } else {
        // Replies to masqueraded pods carry the node's address here: the connection went out forwarded.
        // SAFETY: `value` is a map value; a look-up of a plain number.
        unsafe {
            to == LOCAL_NODE
                && (*value).forwarded == 0
                && LOCAL.get(&outer.source).copied() != Some(LOCAL_POD)
        }
    }
}

/// Whether a SYN from `this` side can only be a new connection: the old one ended, or had got past its handshake.
#[inline(always)]
pub(crate) unsafe fn is_over(this: *const FlowDirection, other: *const FlowDirection) -> bool {
    // SAFETY: map values.
    let (this, other) = unsafe { ((*this).seen, (*other).seen) };
    (this | other) & RST != 0 || this & other & FIN != 0 || this & ACK != 0
}

/// Empties the entry for the connection that takes its place.
#[inline(always)]
pub(crate) unsafe fn restart(value: *mut FlowValue, from_local: bool) {
    // SAFETY: a map value.
    unsafe {
        (*value).directions = [FlowDirection::default(); 2];
        (*value).told_packets = [0; 2];
        (*value).opener = u8::from(!from_local);
        (*value).guessed = 0;
        (*value).resets = 0;
        (*value).proxied = 0;
        (*value).first_ns = now();
    }
}

/// Tells what the ended connection counted since its last records.
#[inline(always)]
pub(crate) unsafe fn finish(
    counters: *mut Counters,
    tuple: &Tuple,
    value: *mut FlowValue,
    seen: &Seen,
    tunnel: &Tunnel,
) {
    for index in 0..2 {
        // SAFETY: a map value; the index is 0 or 1.
        unsafe {
            let (direction, told_packets) = if index == 0 {
                (&raw const (*value).directions[0], (*value).told_packets[0])
            } else {
                (&raw const (*value).directions[1], (*value).told_packets[1])
            };
            if (*direction).flags & TELLABLE == 0
                || (*direction).told == 0
                || (*direction).packets as u32 == told_packets
            {
                continue;
            }
            let outward = (index == 0) == (seen.link_kind == link_kind::POD);
            // Copied into the record only: on the stack there is no room.
            let (source, destination) = (&raw const tuple.source, &raw const tuple.destination);
            let (ports, swapped_ports) =
                ((tuple.source_port, tuple.destination_port), (tuple.destination_port, tuple.source_port));
            let ((source, destination), (source_port, destination_port)) = if (index == 0) == seen.from_local
            {
                ((source, destination), ports)
            } else {
                ((destination, source), swapped_ports)
            };
            let time_ns = end_of(direction);
            write_flow(counters, seen, tunnel, |record: &mut MaybeUninit<FlowRecord>| {
                record.write(FlowRecord {
                    header: header::<FlowRecord>(kind::FLOW, time_ns),
                    tuple: Tuple {
                        source: *source,
                        destination: *destination,
                        source_port,
                        destination_port,
                        protocol: tuple.protocol,
                        ip_version: tuple.ip_version,
                        icmp_type: 0,
                        icmp_code: 0,
                    },
                    ifindex: seen.ifindex,
                    packet_len: 0,
                    flags: u16::from((*direction).flags & !(TELLABLE | DENIED))
                        | (u16::from((*value).proxied.min(1)) * flow_flags::PROXIED),
                    vlan_tci: 0,
                    hook: if outward { hook::INGRESS } else { hook::EGRESS },
                    link_kind: seen.link_kind,
                    reason: flow_reason::SWEEP,
                    tcp_flags: (*direction).tcp_flags,
                    source_mac: [0; 6],
                    destination_mac: [0; 6],
                    tcp_flags_high: 0,
                    pad: 0,
                    resets: (*value).resets,
                    packets: (*direction).packets,
                    bytes: (*direction).bytes,
                    first_ns: (*value).first_ns,
                });
            });
        }
    }
}

/// When a direction's last packet or record was, a millisecond late at most, so never before the record.
#[inline(always)]
unsafe fn end_of(direction: *const FlowDirection) -> u64 {
    let now = now();
    // SAFETY: a map value.
    let (last, told) = unsafe { ((*direction).last, (*direction).told) };
    let (last, told) = (ticks_since(tick(now), last), ticks_since(tick(now), told));
    let ticks = if last < told { last } else { told };
    if ticks == 0 { now } else { ((now >> 20) - u64::from(ticks) + 1) << 20 }
}

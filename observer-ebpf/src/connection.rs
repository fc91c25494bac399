//! A connection's entry in the table: where its ends are, when it is over, what is told when another takes its place.

use core::mem::MaybeUninit;

use observer_ebpf::{
    Counters, FlowDirection, FlowKey, FlowRecord, FlowValue, Tunnel, Tuple, flow_flags, flow_reason, hook,
    kind, link_kind,
};

use crate::carried::write_flow;
use crate::flow::{ACK, FIN, RST, Seen};
use crate::maps::{LOCAL, LOCAL_GENERATION};
use crate::record::header;

pub(crate) const LOCAL_POD: u8 = 1;
const LOCAL_NODE: u8 = 2;

/// What the destination and the source of this packet, whose addresses are `near` and `far`, are: [`LOCAL_POD`], [`LOCAL_NODE`] or 0. Looked up once for a
/// connection, and again when the table of addresses has changed.
#[inline(always)]
pub(crate) unsafe fn places(
    near: &[u8; 16],
    far: &[u8; 16],
    value: *mut FlowValue,
    created: bool,
    from_local: bool,
) -> (u8, u8) {
    // SAFETY: look-ups of plain numbers; `value` is a map value.
    unsafe {
        // Read before the addresses: a change in between is found by the next packet.
        let generation = LOCAL_GENERATION.get(0).copied().unwrap_or(0);
        if created || (*value).generation != generation {
            (*value).local_place = LOCAL.get(near).copied().unwrap_or(0) as u8;
            (*value).remote_place = LOCAL.get(far).copied().unwrap_or(0) as u8;
            (*value).generation = generation;
        }
        let (local, remote) = ((*value).local_place, (*value).remote_place);
        if from_local { (remote, local) } else { (local, remote) }
    }
}

/// Whether this pass is the one at which the packet is told.
#[inline(always)]
pub(crate) unsafe fn told(seen: &Seen, value: *mut FlowValue, to: u8, from: u8) -> bool {
    let egress = seen.hook == hook::EGRESS;
    if seen.link_kind == link_kind::POD {
        // What goes to a local pod is told where it is delivered.
        return egress || to != LOCAL_POD;
    }
    // SAFETY: `value` is a map value.
    unsafe {
        if egress {
            if seen.forwarded {
                (*value).forwarded = 1;
            }
            !seen.forwarded && to != LOCAL_POD
        } else {
            // Replies to masqueraded pods carry the node's address here: the connection went out forwarded.
            to == LOCAL_NODE && (*value).forwarded == 0 && from != LOCAL_POD
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
pub(crate) unsafe fn restart(value: *mut FlowValue, from_local: bool, now: u64) {
    // SAFETY: a map value.
    unsafe {
        (*value).directions = [FlowDirection::default(); 2];
        (*value).opener = u8::from(!from_local);
        (*value).guessed = 0;
        (*value).resets = 0;
        (*value).first_ns = now;
    }
}

/// Tells what the ended connection counted since its last records.
#[inline(always)]
pub(crate) unsafe fn finish(
    counters: *mut Counters,
    key: &FlowKey,
    value: *mut FlowValue,
    seen: &Seen,
    tunnel: Option<&Tunnel>,
) {
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
            write_flow(counters, tunnel, |record: &mut MaybeUninit<FlowRecord>| {
                let record = record.write(FlowRecord {
                    header: header::<FlowRecord>(kind::FLOW, (*direction).last_ns.max((*direction).told_ns)),
                    tuple: Tuple {
                        source: key.local,
                        destination: key.remote,
                        source_port: key.local_port,
                        destination_port: key.remote_port,
                        protocol: key.protocol,
                        ip_version: (*value).ip_version,
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
                    pad: 0,
                    resets: (*value).resets,
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

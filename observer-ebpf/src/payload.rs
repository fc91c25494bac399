//! What is inside packets that are told of here: where it begins like HTTP, DNS or TLS its first bytes are copied, for the daemon
//! to read. What a connection was found to be stands in its entry, so that all others cost nothing; nor do bodies, of
//! which only four bytes are looked at.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use observer_ebpf::parse::{Bytes as _, TCP, UDP};
use observer_ebpf::{
    DENIED, FlowRecord, FlowValue, MOST_PAYLOAD, PayloadPort, PayloadPorts, PayloadRecord, TELLABLE, Tuple,
    flow_flags, flow_reason, hook, kind, l7, payload_kind, payload_state, program,
};

use crate::config::{config, payload_ports};
use crate::flow::{SYN, Scratch, Skb, directions, opaque};
use crate::maps::{FLOW_SCRATCH, FLOWS, PAYLOAD, PAYLOAD_CAP};
use crate::record::{add, add_alone, counters, header, now};

/// The longest head that is read: what follows its beginning is copied up to here.
const MOST_HEAD: u32 = 8192;
/// Bytes before the payload that are copied with it.
const BEFORE: u32 = 4;
/// What a CPU may copy at once, in time of its rate: a quarter of a second.
const BURST_NS: u64 = 250_000_000;
const DNS_PORT: u16 = 53;
/// A header and a question about the root.
const LEAST_DNS: u32 = 17;
/// Of TLS: an alert by itself, and the head of a message with that of the record around it.
const ALERT: u32 = 7;
const HELLO_HEAD: u32 = 9;

/// A record on its way to the ring, and the bytes behind it.
#[repr(C)]
pub(crate) struct Copied {
    record: PayloadRecord,
    bytes: [u8; MOST_PAYLOAD],
}

/// Where a packet's payload is.
struct Payload {
    offset: u32,
    length: u32,
    sequence: u32,
}

/// Looks at what is inside the packet, which was counted.
///
/// # Safety
/// `value` must be the entry of the packet's connection, or null.
#[inline(always)]
pub(crate) unsafe fn look(skb: *mut __sk_buff, scratch: &Scratch, value: *mut FlowValue) {
    if config().l7 == 0 || value.is_null() {
        return;
    }
    // SAFETY: a map value.
    unsafe {
        let Scratch { seen, packet, .. } = scratch;
        let (this, _) = directions(value, seen.from_local);
        let known = (*this).seen;
        let is_told = (*this).flags & TELLABLE != 0;
        let protocol = packet.tuple.protocol;
        if known & payload_state::MASK == payload_state::PLAIN
            || !is_told
            || (protocol != TCP && protocol != UDP)
            || packet.fragment
        {
            return;
        }
        let left = if seen.from_local { (*value).icmp[0] } else { (*value).icmp[1] };
        let known = u32::from(known & payload_state::MASK) | u32::from(u16::from_ne_bytes(left)) << 16;
        let flags = u32::from((*this).flags & !(TELLABLE | DENIED));
        let found = observer_payload(skb, known | flags, (*this).packets, (*value).first_ns) as u32;
        (*this).seen = (*this).seen & !payload_state::MASK | found as u16 & payload_state::MASK;
        let left = ((found >> 16) as u16).to_ne_bytes();
        if seen.from_local {
            (*value).icmp[0] = left;
        } else {
            (*value).icmp[1] = left;
        }
    }
}

const _: () = assert!(payload_state::MASK.trailing_zeros() >= 8);

/// Finds out what the payload of the packet in [`Scratch`] is, and copies it. In `known` stand the connection's
/// [`payload_state`], below it the direction's `flow_flags`, above both how many bytes are left of a head; so does what it returns.
///
/// A global function, which the verifier checks by itself and once; such may be given numbers and the context only.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_payload(
    skb: *mut __sk_buff,
    known: u32,
    packets: u64,
    first_ns: u64,
) -> u64 {
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return u64::from(known) };
    let bytes = Skb(skb);
    // SAFETY: this CPU's memory; flow programs run with softirqs off.
    let (tuple, network, len, syn) = unsafe {
        let syn = u16::from((*scratch).packet.tcp_flags) & SYN;
        (&(*scratch).packet.tuple, (*scratch).network, (*scratch).seen.len, syn)
    };
    let Some(payload) = inside(&bytes, tuple, network, len, u32::from(syn != 0)) else {
        return u64::from(known);
    };
    let state = known as u16 & payload_state::MASK;
    let mut left = known >> 16;
    let config = config();
    let (found, wanted) = match state {
        payload_state::DNS => (state, true),
        payload_state::HTTP if begins_head(&bytes, &payload) => {
            left = MOST_HEAD;
            (state, true)
        }
        payload_state::HTTP => (state, left > 0),
        payload_state::TLS => {
            // It may come again.
            let length = hello(&bytes, &payload);
            left = if length > 0 { length } else { left };
            (state, left > 0)
        }
        _ => {
            let (wanted, at_port) = looked_for(config.l7, tuple);
            let is_tcp = tuple.protocol == TCP;
            let hello = if wanted & l7::TLS != 0 && is_tcp { hello(&bytes, &payload) } else { 0 };
            if wanted & l7::HTTP != 0 && is_tcp && begins_head(&bytes, &payload) {
                left = MOST_HEAD;
                (payload_state::HTTP, true)
            } else if hello > 0 {
                left = hello;
                (payload_state::TLS, true)
            } else if wanted & l7::DNS != 0 && (at_port & l7::DNS != 0 || is_dns(&bytes, tuple, &payload)) {
                (payload_state::DNS, true)
            } else {
                (state + payload_state::ONE, false)
            }
        }
    };
    if !wanted {
        return answer(known, found, 0);
    }
    copy(skb, known, &payload, found, packets, first_ns);
    left = match found {
        payload_state::HTTP if ends_head(&bytes, &payload) => 0,
        payload_state::HTTP | payload_state::TLS if left > payload.length => left - payload.length,
        _ => 0,
    };
    let is_over = found == payload_state::TLS && left == 0;
    answer(known, if is_over { payload_state::PLAIN } else { found }, left)
}

/// Of what is looked for at all what is looked for between these ports, and what is because of them.
#[inline(always)]
fn looked_for(all: u32, tuple: &Tuple) -> (u32, u32) {
    let &PayloadPorts { limited, ref ports } = payload_ports();
    let mut at_port = 0;
    if limited != 0 {
        for &PayloadPort { port, l7 } in ports {
            if port != 0 && (port == tuple.source_port || port == tuple.destination_port) {
                at_port |= u32::from(l7);
            }
        }
    }
    (all & (!limited | at_port), at_port)
}

#[inline(always)]
fn answer(known: u32, state: u16, left: u32) -> u64 {
    u64::from(known & 0xff | u32::from(state) | left << 16)
}

/// Nothing where the packet is empty, or has headers that are not followed.
#[inline(always)]
fn inside(bytes: &Skb, tuple: &Tuple, network: u32, len: u32, syn: u32) -> Option<Payload> {
    let mut ip = [0; 8];
    bytes.read(network, &mut ip)?;
    let (transport, total) = if tuple.ip_version == 4 {
        let total = u32::from(u16::from_be_bytes([ip[2], ip[3]]));
        (network + u32::from(ip[0] & 15) * 4, total)
    } else {
        // Behind further headers nothing is looked for.
        if ip[6] != tuple.protocol {
            return None;
        }
        let total = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
        (network + 40, if total == 0 { 0 } else { total + 40 })
    };
    // Frames are filled up to their least length; the largest packets don't tell theirs.
    let end = if total == 0 || network + total > len { len } else { network + total };
    let (offset, sequence) = if tuple.protocol == TCP {
        let mut tcp = [0; 14];
        bytes.read(transport, &mut tcp)?;
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        // A SYN has a number of its own.
        (transport + u32::from(tcp[12] >> 4) * 4, sequence.wrapping_add(syn))
    } else {
        (transport + 8, 0)
    };
    (end > offset).then(|| Payload { offset, length: end - offset, sequence })
}

/// Whether it begins as a request's or a response's head does, as far as it goes.
#[inline(always)]
fn begins_head(bytes: &Skb, payload: &Payload) -> bool {
    let mut first = [0; 1];
    if payload.length < 4 {
        let read = bytes.read(payload.offset, &mut first).is_some();
        return read && matches!(first[0], b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T');
    }
    let mut start = [0; 4];
    if bytes.read(payload.offset, &mut start).is_none() {
        return false;
    }
    matches!(
        u32::from_be_bytes(start),
        0x4745_5420 // "GET "
            | 0x504f_5354 // "POST"
            | 0x4854_5450 // "HTTP"
            | 0x5055_5420 // "PUT "
            | 0x4845_4144 // "HEAD"
            | 0x4445_4c45 // "DELE"
            | 0x5041_5443 // "PATC"
            | 0x4f50_5449 // "OPTI"
            | 0x434f_4e4e // "CONN"
            | 0x5452_4143 // "TRAC"
            | 0x5052_4920 // "PRI ", HTTP/2
            | 0x5052_4f50 // "PROP", as the others WebDAV's
            | 0x4d4b_434f // "MKCO"
            | 0x5245_504f // "REPO"
            | 0x434f_5059 // "COPY"
            | 0x4d4f_5645 // "MOVE"
            | 0x4c4f_434b // "LOCK"
            | 0x554e_4c4f // "UNLO"
    )
}

/// Whether the last head that is in it ends where it ends: so do most requests.
#[inline(always)]
fn ends_head(bytes: &Skb, payload: &Payload) -> bool {
    let mut end = [0; 4];
    payload.length >= 4
        && bytes.read(payload.offset + payload.length - 4, &mut end).is_some()
        && end == *b"\r\n\r\n"
}

/// How many bytes a hello of TLS that begins here has, so far as they are read; 0 where none begins. An alert may stand in its place.
#[inline(always)]
fn hello(bytes: &Skb, payload: &Payload) -> u32 {
    const HANDSHAKE: u8 = 22;
    const ALERTS: u8 = 21;
    let mut first = [0; 1];
    if bytes.read(payload.offset, &mut first).is_none() || !matches!(first[0], HANDSHAKE | ALERTS) {
        return 0;
    }
    let mut head = [0; HELLO_HEAD as usize];
    if payload.length < HELLO_HEAD {
        let mut alert = [0; ALERT as usize];
        if first[0] == HANDSHAKE {
            // It goes on in the next segment; nobody knows yet how far.
            return MOST_HEAD;
        }
        let is_alert = payload.length == ALERT
            && bytes.read(payload.offset, &mut alert).is_some()
            && alert[1] == 3
            && alert[3] == 0
            && alert[4] == 2;
        return if is_alert { ALERT } else { 0 };
    }
    // RFC 8446, 4: from a client, from a server.
    let is_hello = bytes.read(payload.offset, &mut head).is_some()
        && first[0] == HANDSHAKE
        && head[1] == 3
        && head[2] <= 4
        && matches!(head[5], 1 | 2)
        && head[6] == 0;
    if !is_hello {
        return 0;
    }
    let record = u32::from(u16::from_be_bytes([head[3], head[4]]));
    let message = u32::from(u16::from_be_bytes([head[7], head[8]])) + 4;
    // Where it goes on in further records there are their heads, too.
    if record < message || message + 5 > MOST_HEAD { MOST_HEAD } else { message + 5 }
}

/// At DNS's own port anything is; elsewhere what has a header as only DNS has it: one question, and of a query no answer.
#[inline(always)]
fn is_dns(bytes: &Skb, tuple: &Tuple, payload: &Payload) -> bool {
    if tuple.source_port == DNS_PORT || tuple.destination_port == DNS_PORT {
        return true;
    }
    let before = if tuple.protocol == TCP { 2 } else { 0 };
    let mut header = [0; 13];
    if bytes.read(payload.offset + before, &mut header).is_none() || payload.length < 13 + before {
        return false;
    }
    if before != 0 {
        let mut length = [0; 2];
        let read = bytes.read(payload.offset, &mut length).is_some();
        // The message may go on in the next segment, or another begin behind it.
        if !read || u32::from(u16::from_be_bytes(length)) < LEAST_DNS {
            return false;
        }
    }
    let is_response = header[2] & 0x80 != 0;
    let no_answers = u32::from_be_bytes([header[6], header[7], header[8], header[9]]) == 0;
    // The kind of question is 0, a plain one; the bit that must be 0 is; the first label is none longer than labels are.
    header[2] & 0x78 == 0
        && header[3] & 0x40 == 0
        && header[4] == 0
        && header[5] == 1
        && (is_response || no_answers)
        && header[10] == 0
        && header[12] < 64
}

/// Whether this CPU may copy so many bytes more: a bucket kept as the time at which it is full again.
#[inline(always)]
fn under_cap(cost_ns: u32, bytes: u32, now: u64) -> bool {
    if cost_ns == 0 {
        return true;
    }
    let Some(due) = PAYLOAD_CAP.get_ptr_mut(0) else { return true };
    // SAFETY: a per-CPU map value, written with softirqs off.
    unsafe {
        let from = if *due > now { *due } else { now };
        let next = from + ((u64::from(cost_ns) * u64::from(bytes)) >> 10);
        let allowed = next - now <= BURST_NS;
        if allowed {
            *due = next;
        }
        allowed
    }
}

#[inline(always)]
fn copy(skb: *mut __sk_buff, known: u32, payload: &Payload, state: u16, packets: u64, first_ns: u64) {
    let (Some(scratch), Some(copied)) = (FLOW_SCRATCH.get_ptr_mut(0), PAYLOAD.get_ptr_mut(0)) else { return };
    // SAFETY: this CPU's memory; flow programs run with softirqs off.
    unsafe {
        let seen = &(*scratch).seen;
        let program = if seen.hook == hook::EGRESS { program::EGRESS } else { program::INGRESS };
        let Some(counters) = counters(program) else { return };
        let record = &raw mut (*copied).record;
        let most = MOST_PAYLOAD as u32;
        let bytes = if payload.length < most { payload.length } else { most };
        let time_ns = now();
        if !under_cap(config().payload_cost_ns, bytes + size_of::<PayloadRecord>() as u32, time_ns) {
            add_alone(&raw mut (*counters).payload_cap, 1);
            return;
        }
        // As in `Skb::load`: the verifier must see both bounds in the register that is given.
        let size = opaque(bytes + BEFORE);
        if size > MOST_PAYLOAD as u64 + u64::from(BEFORE) {
            return;
        }
        let size = opaque(size as u32);
        if size < 2 {
            return;
        }
        let into = (&raw mut (*record).before).cast::<core::ffi::c_void>();
        if bpf_skb_load_bytes(skb.cast(), payload.offset - BEFORE, into, size as u32) != 0 {
            return;
        }
        let mut head = header::<PayloadRecord>(kind::PAYLOAD, time_ns);
        head.size += bytes as u16;
        let flags = known as u16 & 0xff;
        record.cast::<FlowRecord>().write(FlowRecord {
            header: head,
            tuple: (*scratch).packet.tuple,
            ifindex: seen.ifindex,
            packet_len: seen.len,
            flags: if seen.ethernet { flags | flow_flags::ETHERNET } else { flags },
            vlan_tci: seen.vlan_tci,
            hook: seen.hook,
            link_kind: seen.link_kind,
            reason: flow_reason::PAYLOAD,
            tcp_flags: (*scratch).packet.tcp_flags,
            source_mac: [0; 6],
            destination_mac: [0; 6],
            tcp_flags_high: 0,
            pad: 0,
            resets: 0,
            packets,
            bytes: 0,
            first_ns,
        });
        (*record).sequence = payload.sequence;
        (*record).length = payload.length;
        (*record).copied = bytes as u16;
        (*record).payload = match state {
            payload_state::DNS => payload_kind::DNS,
            payload_state::TLS => payload_kind::TLS,
            _ => payload_kind::HTTP,
        };
        (*record).pad = 0;
        let (made, submitted, lost) =
            (&raw mut (*counters).made, &raw mut (*counters).submitted, &raw mut (*counters).ring_full);
        add(made, 1);
        let total = opaque(size_of::<PayloadRecord>() as u32 - BEFORE + size as u32);
        if total > size_of::<Copied>() as u64 {
            return;
        }
        let total = opaque(total as u32);
        if total < 2 {
            return;
        }
        let record = core::slice::from_raw_parts(copied.cast::<u8>(), total as usize);
        if FLOWS.output_untyped::<[u8]>(record, 0).is_ok() {
            add(submitted, 1);
        } else {
            add(lost, 1);
        }
    }
}

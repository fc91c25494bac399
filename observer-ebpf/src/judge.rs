//! What policies say of a connection on this link, asked where it is new or they have changed; see [`crate::weigh`] for
//! how they are read. The answer is kept in the connection's entry, and every packet of a denied one is dropped.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::HashMap;
use observer_ebpf::parse::{self, Echo, ICMP, ICMPV6, Packet, TCP, UDP, copy_address, same_address, tunnel};
use observer_ebpf::policy::{Judged, OpenerKey, slot};
use observer_ebpf::{
    Counters, DENIED, DeniedRecord, DropKey, DropRecord, DropValue, FlowDirection, FlowRecord, FlowValue,
    JudgedFlowRecord, SEEN, Tuple, drop_flags, flow_flags, hook, kind, link_kind, program, tick,
};

use crate::config::config;
use crate::connection::{ANEW, COUNTED};
use crate::drop::summed;
use crate::flow::{ACK, RST, STANDING_FLAGS, Scratch, Skb, TCX_NEXT, count, directions, meet};
use crate::maps::{
    DROPS_0, DROPS_1, FLOW_SCRATCH, FLOW_TABLE, FLOWS, GENERATION, PRIORITY, SETTINGS, SHORT_FLOW_TABLE,
};
use crate::payload;
use crate::policy_maps::{OPENERS, POLICY_SCRATCH};
use crate::record::{add, add_alone, counters, header, now, write};
use crate::redirect::is_to_proxy;
use crate::requests::{along, observer_out_of_bridge, observer_proxied, observer_route, route};
use crate::table::{Key, fill_key, has_short_key, is_of, short_key};
use crate::weigh::{Question, how, is_node, observer_read_ahead, observer_weigh};

const TCX_DROP: i32 = 2;

pub(crate) const JUDGING: bool = true;

/// What stands in the control block of a packet that the flow programs dropped: so it isn't told again by its reason.
pub(crate) const MARK: [u32; 2] = [0x6f62_7365, 0x7276_6564];

/// Nothing is pushed out of it: whose entry is lost may be denied in its middle. The daemon's sweep makes room.
pub(crate) type FlowTable<K, V, const N: usize> = HashMap<K, V, N>;

/// Working memory.
#[repr(C, align(8))]
pub(crate) struct Work {
    /// What is asked, and the answer.
    pub(crate) question: Question,
    drop_key: DropKey,
    drop_value: DropValue,
    quoted: Quoted,
    key: Key,
    opener: Opener,
}

/// A key whose addresses can be copied word by word.
#[repr(C, align(8))]
struct Opener(OpenerKey);

/// The packet that an ICMP error is about.
#[repr(C, align(8))]
struct Quoted(Tuple);

/// What [`observer_ask`] is told of the entry, as bits; those of [`how`] beside them.
mod entry {
    /// Who opened the connection is a guess, which may be wrong.
    pub(super) const GUESSED: u32 = 1 << 8;
    /// It may have begun before the programs ran.
    pub(super) const MIDWAY: u32 = 1 << 9;
    /// The other side's packets were seen, and are made by this node.
    pub(super) const OTHER_OWN: u32 = 1 << 10;
}

/// What it answers, beside how it is to be weighed.
mod answer {
    /// There is something to be weighed.
    pub(super) const ASKED: u64 = 1 << 8;
    /// The packet passes with either end as the opener.
    pub(super) const EITHER: u64 = 1 << 9;
    /// The opener is the packet's sender.
    pub(super) const SENDER_OPENS: u64 = 1 << 10;
    /// It holds for this packet alone.
    pub(super) const ALONE: u64 = 1 << 11;
}

/// Judges the packet where that was not done, then drops or counts it. What is called here one after the other is too much
/// for the stack where one calls the next.
#[inline(always)]
pub(crate) fn follow(skb: *mut __sk_buff, counters: *mut Counters, scratch: &mut Scratch) -> i32 {
    // SAFETY: the program's own context.
    let may_be = unsafe { is_to_proxy(skb) } || scratch.seen.link_kind == link_kind::BRIDGE;
    if may_be && observer_out_of_bridge(skb) != 0 {
        return TCX_NEXT;
    }
    let value = met(counters, scratch);
    let standing = scratch.standing;
    let from_local = scratch.seen.from_local;
    // SAFETY: both are of this packet.
    unsafe {
        if value.is_null() {
            return judge_alone(skb, scratch);
        }
        let mut standing = standing;
        if standing & ANEW != 0 {
            standing = judge(skb, value, from_local, standing);
            if standing & u16::from(DENIED) != 0 {
                // It counts as dropped, and keeps the entry.
                let (this, _) = directions(value, from_local);
                take_back(this, scratch, standing);
                (*this).last = tick(scratch.seen.now);
                (*this).seen |= SEEN;
                (*this).flags = standing as u8;
                return deny(skb, standing);
            }
        }
        if (*value).proxied != 0 {
            let routed = observer_route(skb, u32::from((*value).proxied));
            if routed == route::NOWHERE {
                let (this, _) = directions(value, from_local);
                take_back(this, scratch, standing);
                return deny(skb, standing);
            }
            // Where it passes by, its further packets do so too.
            (*value).proxied = routed as u8;
        }
        counted(counters, scratch, value, standing);
        // What is said to the proxy it tells itself.
        if (*value).proxied == 0 {
            payload::look(skb, scratch, value);
        }
    }
    TCX_NEXT
}

/// Of a packet that is dropped: it is in no sum of what was sent.
#[inline(always)]
unsafe fn take_back(this: *mut FlowDirection, scratch: &Scratch, standing: u16) {
    if standing & COUNTED != 0 {
        // SAFETY: as the callers say.
        unsafe {
            add(&raw mut (*this).packets, scratch.seen.packets.wrapping_neg());
            add(&raw mut (*this).bytes, u64::from(scratch.seen.len).wrapping_neg());
        }
    }
}

/// Null where the table has no room.
#[inline(never)]
fn met(counters: *mut Counters, scratch: &mut Scratch) -> *mut FlowValue {
    let Some((value, standing)) = meet(counters, scratch) else { return core::ptr::null_mut() };
    scratch.standing = standing;
    value
}

#[inline(never)]
unsafe fn counted(counters: *mut Counters, scratch: &Scratch, value: *mut FlowValue, standing: u16) {
    // SAFETY: as the caller says.
    unsafe { count(counters, scratch, value, standing) };
}

/// Asks whether the connection may be, and returns what was `standing` with the answer. Few branches are here: each
/// multiplies the ways that the verifier follows.
///
/// # Safety
/// `value` must be an entry of the flow table, or what one would be.
#[inline(never)]
unsafe fn judge(skb: *mut __sk_buff, value: *mut FlowValue, from_local: bool, standing: u16) -> u16 {
    // SAFETY: as the caller says.
    unsafe {
        let (this, other) = directions(value, from_local);
        let generation = (*this).generation;
        let is_own = ((*other).seen >> 15) as u8 & !((*other).flags >> 5);
        let is_midway = (*value).first_ns < config().midway_until_ns;
        let facts = bit((*value).opener ^ 1, how::NEAR)
            | bit((*value).guessed, entry::GUESSED)
            | bit((*value).forwarded, how::FORWARDED)
            | bit(is_own, entry::OTHER_OWN)
            | bit(u8::from(is_midway), entry::MIDWAY);
        let answer = observer_ask(skb, generation, facts);
        let mut standing = standing & !u16::from(DENIED);
        if answer & answer::SENDER_OPENS != 0 {
            (*value).guessed = 0;
            (*value).opener = u8::from(!from_local);
            standing &= !(flow_flags::OPENER_GUESSED | flow_flags::REPLY);
        }
        if answer & answer::ALONE != 0 {
            (*this).generation = generation.wrapping_sub(1);
        }
        if answer & answer::ASKED == 0 {
            return standing;
        }
        let how = answer as u32;
        if observer_weigh(generation, how) == 0 {
            return handed(skb, value, generation, standing);
        }
        if answer & answer::EITHER != 0 {
            turn();
            if observer_weigh(generation, how ^ how::NEAR) == 0 {
                (*value).opener ^= 1;
                standing ^= flow_flags::REPLY;
                // Which way the other one goes is decided anew.
                (*other).generation = generation.wrapping_sub(1);
                return handed(skb, value, generation, standing);
            }
            turn();
            observer_weigh(generation, how);
        }
        // Of the next packet it is to be told again why.
        (*this).generation = generation.wrapping_sub(1);
        standing | u16::from(DENIED)
    }
}

/// Of an allowed connection: whether the proxy has it, from now on or already. Without a branch, see [`judge`].
#[inline(always)]
unsafe fn handed(skb: *mut __sk_buff, value: *mut FlowValue, generation: u32, standing: u16) -> u16 {
    // SAFETY: as the callers say.
    unsafe {
        let proxied = observer_proxied(skb, generation, u32::from((*value).proxied));
        (*value).proxied = proxied as u8;
        standing | (proxied >> 8) as u16
    }
}

const _: () = assert!(SEEN == 1 << 15 && flow_flags::FORWARDED == 1 << 5);

/// Asks about the other opener.
#[inline(always)]
unsafe fn turn() {
    if let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) {
        // SAFETY: this CPU's memory.
        unsafe { (*work).question.turn() };
    }
}

/// Puts the question about the packet in [`Scratch`], and says how it is to be weighed, with `answer`'s bits; a global
/// function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_ask(skb: *mut __sk_buff, generation: u32, facts: u32) -> u64 {
    let (Some(work), Some(scratch)) = (POLICY_SCRATCH.get_ptr_mut(0), FLOW_SCRATCH.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: this CPU's memory; flow programs run with softirqs off. What is called writes it too, so there is no
    // reference to it.
    unsafe {
        let (seen, packet) = (&raw const (*scratch).seen, &raw const (*scratch).packet);
        let question = &raw mut (*work).question;
        (*question).judged = Judged { generation, egress: 0, ingress: 0, flags: 0 };
        let tunneled = (*seen).tunneled != 0;
        let outer = outer(scratch);
        let protocol = (*outer).protocol;
        let mut answer = 0;
        // Other ICMP than echoes: their entry doesn't tell types apart.
        let icmp = protocol == ICMP || protocol == ICMPV6;
        let typed = icmp && parse::echo(protocol, (*outer).icmp_type) == Echo::No;
        // What a pod has in a tunnel of its own it may send through any other too. And without its first fragment, which is judged, nobody is given a later one.
        let portless = (*packet).fragment && (*outer).source_port == 0 && (*outer).destination_port == 0;
        let pod = (*seen).link_kind == link_kind::POD;
        if typed || portless || (pod && tunneled) {
            answer = answer::ALONE;
        }
        if portless || is_never_judged(outer) {
            return answer;
        }
        if typed
            && !tunneled
            && parse::icmp_error(protocol, (*outer).icmp_type)
            && observer_is_related(skb) != 0
        {
            return answer;
        }
        if !pod && (tunneled || tunnel::may_carry(&*packet)) && is_between_nodes(generation, outer) {
            return answer;
        }

        let from_local = (*seen).from_local;
        let guessed = facts & entry::GUESSED != 0;
        let mut near = facts & how::NEAR != 0;
        // Every segment but the first, if there is one, is of a connection that goes on or ends.
        let segment = protocol == TCP && u16::from((*packet).tcp_flags) & (ACK | RST) != 0;
        if guessed && !segment && (protocol == TCP || facts & entry::MIDWAY == 0) {
            // The ports, which their sender chose, prove nothing.
            answer |= answer::SENDER_OPENS;
            near = from_local;
        } else if typed && !tunneled {
            near = from_local;
        }
        let own =
            if (*seen).hook == hook::EGRESS { !(*seen).forwarded } else { facts & entry::OTHER_OWN != 0 };
        let mut how = facts & how::FORWARDED;
        set(&mut how, how::POD, pod);
        set(&mut how, how::NEAR, near);
        set(&mut how, how::OWN, own);
        if guessed && segment {
            answer |= answer::EITHER;
        }
        (*question).ask(outer, near == from_local, tunneled);
        answer | answer::ASKED | u64::from(how)
    }
}

/// `flag` where the lowest bit is set.
#[inline(always)]
fn bit(number: u8, flag: u32) -> u32 {
    u32::from(number & 1) * flag
}

#[inline(always)]
fn set(bits: &mut u32, bit: u32, on: bool) {
    if on {
        *bits |= bit;
    }
}

/// The ends that policies are asked about: of a tunneled packet those of the tunnel.
#[inline(always)]
unsafe fn outer(scratch: *const Scratch) -> *const Tuple {
    // SAFETY: only addresses of fields are taken.
    unsafe {
        if (*scratch).seen.tunneled != 0 {
            &raw const (*scratch).tunnel.tuple
        } else {
            &raw const (*scratch).packet.tuple
        }
    }
}

/// What no policy is asked about: to itself, and how neighbours and groups are found in IPv6.
#[inline(always)]
unsafe fn is_never_judged(tuple: *const Tuple) -> bool {
    // SAFETY: the tuples of packets and tunnels are aligned to 8.
    unsafe {
        let discovery = (*tuple).protocol == ICMPV6 && matches!((*tuple).icmp_type, 130..=137 | 143);
        discovery || same_address(&raw const (*tuple).source, &raw const (*tuple).destination)
    }
}

const _: () = assert!(core::mem::offset_of!(Scratch, tunnel).is_multiple_of(8));

#[inline(always)]
unsafe fn is_between_nodes(generation: u32, tuple: *const Tuple) -> bool {
    let slot = slot(generation);
    // SAFETY: a packet's or a tunnel's, whose tuples are aligned to 8.
    unsafe { is_node(slot, &raw const (*tuple).source) && is_node(slot, &raw const (*tuple).destination) }
}

/// Whether an ICMP error is about a packet of a connection that is known on this link and not denied.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_is_related(skb: *mut __sk_buff) -> u64 {
    let (Some(work), Some(scratch)) = (POLICY_SCRATCH.get_ptr_mut(0), FLOW_SCRATCH.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: this CPU's memory; flow programs run with softirqs off.
    unsafe {
        let Work { quoted: Quoted(quoted), key, .. } = &mut *work;
        let protocol = (*scratch).packet.tuple.protocol;
        if parse::quoted(&Skb(skb), protocol, (*scratch).network, quoted).is_none() {
            return 0;
        }
        // It went the other way.
        let (ifindex, from_local) = ((*scratch).seen.ifindex, !(*scratch).seen.from_local);
        let Some(value) = known(ifindex, from_local, quoted, key) else { return 0 };
        let (sent, _) = directions(value, from_local);
        // Of the proxy's connections it is the proxy that must learn of it.
        if (*value).proxied != 0 {
            along(skb, &raw const (*scratch).seen);
        }
        u64::from((*sent).seen & SEEN != 0 && (*sent).flags & DENIED == 0)
    }
}

/// The connection of a packet that is inside no tunnel, if this link's table has it.
#[inline(always)]
unsafe fn known(ifindex: u32, from_local: bool, tuple: &Tuple, Key(key): &mut Key) -> Option<*mut FlowValue> {
    if has_short_key(ifindex, tuple) {
        let value = SHORT_FLOW_TABLE.get_ptr_mut(short_key(ifindex, from_local, tuple))?;
        // SAFETY: an entry; both are aligned to 8.
        if unsafe { is_of(value, from_local, tuple) } {
            return Some(value.cast());
        }
    }
    // SAFETY: both are aligned to 8.
    unsafe { fill_key(key, from_local, tuple, false) };
    key.ifindex = ifindex;
    key.vni = [0; 3];
    FLOW_TABLE.get_ptr_mut(&*key)
}

/// What the packet's connection, which is new, will be judged by: [`observer_read_ahead`].
#[inline(always)]
pub(crate) fn read_ahead() {
    observer_read_ahead();
}

/// Whether the packet's sender opened the connection, where that is known though its first packet here, at this time, doesn't
/// say so: it may be older than the programs.
#[inline(always)]
pub(crate) fn known_opener(packet: &Packet, guessed: bool, now: u64) -> Option<bool> {
    if !guessed && (packet.tuple.protocol != UDP || now >= config().midway_until_ns) {
        return None;
    }
    match observer_opener() {
        opener::SENDER => Some(true),
        opener::OTHER => Some(false),
        _ => None,
    }
}

/// What [`observer_opener`] answers; 0 where it is not known.
mod opener {
    pub(super) const SENDER: u64 = 1;
    pub(super) const OTHER: u64 = 2;
}

/// Looks for the packet in [`Scratch`]; a global function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_opener() -> u64 {
    let (Some(work), Some(scratch)) = (POLICY_SCRATCH.get_ptr_mut(0), FLOW_SCRATCH.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: this CPU's memory; flow programs run with softirqs off.
    unsafe {
        if (*scratch).seen.tunneled != 0 {
            return 0;
        }
        let Opener(key) = &mut (*work).opener;
        let tuple = &(*scratch).packet.tuple;
        key.protocol = u32::from(tuple.protocol);
        copy_address(&tuple.source, &mut key.opener);
        copy_address(&tuple.destination, &mut key.responder);
        (key.opener_port, key.responder_port) = (tuple.source_port, tuple.destination_port);
        if OPENERS.get(&*key).is_some() {
            return opener::SENDER;
        }
        copy_address(&tuple.destination, &mut key.opener);
        copy_address(&tuple.source, &mut key.responder);
        (key.opener_port, key.responder_port) = (tuple.destination_port, tuple.source_port);
        if OPENERS.get(&*key).is_some() { opener::OTHER } else { 0 }
    }
}

/// Judges one packet whose connection the table has no room for.
///
/// # Safety
/// `scratch` must be this CPU's.
#[inline(always)]
pub(crate) unsafe fn judge_alone(skb: *mut __sk_buff, scratch: *mut Scratch) -> i32 {
    // SAFETY: as the caller says. What the next connection is made of is put back.
    unsafe {
        let value = &raw mut (*scratch).fresh.value.flow;
        let from_local = (*scratch).seen.from_local;
        let (this, _) = directions(value, from_local);
        (*this).generation = GENERATION.get(0).copied().unwrap_or(0);
        let standing = if (*scratch).seen.forwarded { flow_flags::FORWARDED } else { 0 };
        let standing = judge(skb, value, from_local, standing);
        let proxied = u32::from((*value).proxied);
        ((*value).directions, (*value).proxied) = ([FlowDirection::default(); 2], 0);
        let denied = standing & u16::from(DENIED) != 0;
        // Whether it was open before nobody knows.
        if denied || proxied != 0 && observer_route(skb, proxied) == route::NOWHERE {
            return deny(skb, standing);
        }
        TCX_NEXT
    }
}

/// Drops a packet that was judged, and tells of it.
#[inline(always)]
pub(crate) fn deny(skb: *mut __sk_buff, standing: u16) -> i32 {
    // SAFETY: the program's own context.
    unsafe {
        (*skb).cb[0] = MARK[0];
        (*skb).cb[1] = MARK[1];
    }
    observer_tell_denied(u32::from(standing));
    TCX_DROP
}

/// Tells of the packet in [`Scratch`], by the answer to the last question; a global function, see [`crate::weigh`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_tell_denied(standing: u32) -> u64 {
    let (Some(work), Some(scratch), Some(settings)) =
        (POLICY_SCRATCH.get_ptr_mut(0), FLOW_SCRATCH.get_ptr_mut(0), SETTINGS.get(0))
    else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        let (seen, outer) = (&raw const (*scratch).seen, outer(scratch));
        let Some(counters) = counters(program::DENIED) else { return 0 };
        let (key, sum) = (&raw mut (*work).drop_key, &raw mut (*work).drop_value);
        let now = now();
        (*key).tuple = *outer;
        (*key).reason = (*work).question.judged.drop_reason();
        ((*key).netns, (*key).ifindex) = (config().netns, (*seen).ifindex);
        ((*sum).first_ns, (*sum).last_ns, (*sum).packet_len) = (now, now, (*seen).len);
        (*sum).flags = drop_flags::PARSED;
        (*sum).ether_type = if (*outer).ip_version == 4 { parse::ETH_IPV4 } else { parse::ETH_IPV6 };
        (*sum).tcp_flags = (*scratch).packet.tcp_flags;
        let table = if settings.generation == 0 { &DROPS_0 } else { &DROPS_1 };
        if summed(counters, table, &*key, &*sum) {
            return 0;
        }
        let ethernet = if (*seen).ethernet { flow_flags::ETHERNET } else { 0 };
        write(&PRIORITY, counters, add_alone, |record: &mut MaybeUninit<DeniedRecord>| {
            record.write(DeniedRecord {
                drop: DropRecord {
                    header: header::<DeniedRecord>(kind::DENIED, now),
                    tuple: (*key).tuple,
                    reason: (*key).reason,
                    ifindex: (*key).ifindex,
                    netns: (*key).netns,
                    packet_len: (*sum).packet_len,
                    location: 0,
                    flags: (*sum).flags,
                    ether_type: (*sum).ether_type,
                    tcp_flags: (*sum).tcp_flags,
                    pad: [0; 3],
                    packets: 1,
                    bytes: u64::from((*sum).packet_len),
                    first_ns: now,
                    netns_cookie: 0,
                },
                judged: (*work).question.judged,
                source_mac: (*scratch).head.source_mac,
                destination_mac: (*scratch).head.destination_mac,
                hook: (*seen).hook,
                link_kind: (*seen).link_kind,
                flow_flags: standing as u16 & STANDING_FLAGS | ethernet,
            });
        });
    }
    0
}

/// Whether the last question had an answer.
#[inline(always)]
pub(crate) fn is_judged() -> bool {
    // SAFETY: this CPU's memory.
    POLICY_SCRATCH.get_ptr_mut(0).is_some_and(|work| unsafe { (*work).question.judged.is_judged() })
}

/// Writes a flow record with the answer to the last question.
#[inline(always)]
pub(crate) fn write_judged(counters: *mut Counters, fill: impl FnOnce(&mut MaybeUninit<FlowRecord>)) {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return };
    write(&FLOWS, counters, add_alone, |record: &mut MaybeUninit<JudgedFlowRecord>| {
        let record = record.as_mut_ptr();
        // SAFETY: the record's memory is that of the ring; each field is written before it is submitted.
        unsafe {
            fill(&mut *(&raw mut (*record).flow).cast());
            (*record).flow.header.kind = kind::JUDGED_FLOW;
            (*record).flow.header.size = size_of::<JudgedFlowRecord>() as u16;
            (&raw mut (*record).judged).write((*work).question.judged);
        }
    });
}

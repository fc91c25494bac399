//! What policies say of a connection on this link, asked where it is new or they have changed; see [`crate::weigh`] for
//! how they are read. The answer is kept in the connection's entry, and every packet of a denied one is dropped.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::HashMap;
use observer_ebpf::parse::{self, Echo, ICMP, ICMPV6, TCP, UDP, tunnel};
use observer_ebpf::policy::{Judged, POLICY_DENIED, POLICY_DENY, endpoint_flags, slot};
use observer_ebpf::{
    Counters, DENIED, DeniedRecord, DropKey, DropRecord, DropValue, FlowDirection, FlowRecord, FlowValue,
    JudgedFlowRecord, SEEN, Tuple, drop_flags, flow_flags, hook, kind, link_kind,
};

use crate::config::config;
use crate::connection::ANEW;
use crate::drop::summed;
use crate::flow::{ACK, SYN, Scratch, Skb, TCX_NEXT};
use crate::maps::{
    DROPS_0, DROPS_1, FLOW_SCRATCH, FLOW_TABLE, FLOWS, GENERATION, PRIORITY, SETTINGS, SHORT_FLOW_TABLE,
};
use crate::policy_maps::{POLICY_ENDPOINTS, POLICY_SCRATCH};
use crate::record::{header, now, write};
use crate::table::{Key, fill_key, short_key};
use crate::weigh::{Question, how, observer_weigh, same_address};

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
}

/// The packet that an ICMP error is about.
#[repr(C, align(8))]
struct Quoted(Tuple);

/// Asks whether the connection may be, and returns what was `standing` with the answer. Not inlined, since its stack and
/// that of its caller are too much together.
///
/// # Safety
/// `scratch` must be this CPU's, `value` an entry of the flow table, or what one would be.
#[inline(never)]
pub(crate) unsafe fn judge(
    skb: *mut __sk_buff,
    scratch: *const Scratch,
    value: *mut FlowValue,
    standing: u16,
) -> u16 {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return standing };
    // SAFETY: as the caller says; map values outlive the run.
    unsafe {
        let (seen, packet) = (&raw const (*scratch).seen, &raw const (*scratch).packet);
        let (from_local, tunneled) = ((*seen).from_local, (*seen).tunneled != 0);
        let outer = if tunneled { &raw const (*scratch).tunnel.tuple } else { (&raw const (*packet).tuple) };
        let (this, other) = directions(value, from_local);
        let generation = (*this).generation;
        (*work).question.judged = Judged { generation, egress: 0, ingress: 0, flags: 0 };
        let mut standing = standing & !u16::from(DENIED);
        let (protocol, icmp_type) = ((*outer).protocol, (*outer).icmp_type);
        let icmp = protocol == ICMP || protocol == ICMPV6;
        let alone = icmp && parse::echo(protocol, icmp_type) == Echo::No;
        // Without its first fragment, which is judged, nobody is given a later one.
        let portless = (*packet).fragment && (*outer).source_port == 0 && (*outer).destination_port == 0;
        if alone || portless {
            // The next one of the entry may be another matter.
            (*this).generation = generation.wrapping_sub(1);
        }
        if portless || is_never_judged(outer) {
            return standing;
        }
        if alone && !tunneled && parse::icmp_error(protocol, icmp_type) && observer_is_related(skb) != 0 {
            return standing;
        }
        let pod = (*seen).link_kind == link_kind::POD;
        let carrier = tunneled || tunnel::may_carry(&*packet);
        if !pod
            && carrier
            && is_node(generation, &(*outer).source)
            && is_node(generation, &(*outer).destination)
        {
            return standing;
        }

        let flags = u16::from((*packet).tcp_flags);
        let guessed = (*value).guessed != 0;
        if guessed && protocol != TCP && (*value).first_ns >= config().midway_until_ns {
            // The ports, which their sender chose, prove nothing.
            (*value).guessed = 0;
            (*value).opener = u8::from(!from_local);
            standing &= !(flow_flags::OPENER_GUESSED | flow_flags::REPLY);
        }
        let opener_local = if alone && !tunneled { from_local } else { (*value).opener == 0 };
        let by_opener = opener_local == from_local;
        let own = if (*seen).hook == hook::EGRESS {
            !(*seen).forwarded
        } else {
            (*other).seen & SEEN != 0 && u16::from((*other).flags) & flow_flags::FORWARDED == 0
        };
        let mut facts = 0;
        set(&mut facts, how::POD, pod);
        set(&mut facts, how::NEAR, opener_local);
        set(&mut facts, how::OWN, own);
        set(&mut facts, how::FORWARDED, (*value).forwarded != 0);
        let question = &mut (*work).question;
        question.protocol = protocol;
        question.ask(&*outer, by_opener, tunneled);
        let mut denied = observer_weigh(generation, facts) != 0;
        if denied && guessed && protocol == TCP && flags & (SYN | ACK) != SYN {
            let asked = (*work).question.judged;
            (*work).question.ask(&*outer, !by_opener, tunneled);
            denied = observer_weigh(generation, facts ^ how::NEAR) != 0;
            if denied {
                (*work).question.judged = asked;
            } else {
                (*value).opener ^= 1;
                standing ^= flow_flags::REPLY;
                // Which way the other one goes is decided anew.
                (*other).generation = generation.wrapping_sub(1);
            }
        }
        if denied {
            standing |= u16::from(DENIED);
            (*value).denied_by_rule = u8::from((*work).question.judged.drop_reason() == POLICY_DENY);
        }
        standing
    }
}

#[inline(always)]
fn set(bits: &mut u32, bit: u32, on: bool) {
    if on {
        *bits |= bit;
    }
}

/// What this side sends, and what the other one does.
#[inline(always)]
unsafe fn directions(value: *mut FlowValue, from_local: bool) -> (*mut FlowDirection, *mut FlowDirection) {
    // SAFETY: only addresses of fields are taken.
    unsafe {
        let (a, b) = (&raw mut (*value).directions[0], &raw mut (*value).directions[1]);
        if from_local { (a, b) } else { (b, a) }
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
fn is_node(generation: u32, address: &[u8; 16]) -> bool {
    let endpoint = POLICY_ENDPOINTS.get_value_ptr_mut(slot(generation), address);
    // SAFETY: a map value of the slot in force, which nobody writes.
    endpoint.is_some_and(|endpoint| unsafe { (*endpoint).flags } & endpoint_flags::NODE != 0)
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
        u64::from((*sent).seen & SEEN != 0 && (*sent).flags & DENIED == 0)
    }
}

/// The connection of a packet that is inside no tunnel, if this link's table has it.
#[inline(always)]
unsafe fn known(ifindex: u32, from_local: bool, tuple: &Tuple, Key(key): &mut Key) -> Option<*mut FlowValue> {
    if tuple.ip_version == 4 && (tuple.protocol == TCP || tuple.protocol == UDP) {
        return SHORT_FLOW_TABLE.get_ptr_mut(short_key(ifindex, from_local, tuple)).map(<*mut _>::cast);
    }
    // SAFETY: both are aligned to 8.
    unsafe { fill_key(key, from_local, tuple) };
    key.ifindex = ifindex;
    key.vni = [0; 3];
    FLOW_TABLE.get_ptr_mut(&*key)
}

/// Judges one packet whose connection the table has no room for.
///
/// # Safety
/// `scratch` must be this CPU's.
#[inline(never)]
pub(crate) unsafe fn judge_alone(skb: *mut __sk_buff, counters: *mut Counters, scratch: *mut Scratch) -> i32 {
    // SAFETY: as the caller says. What the next connection is made of is put back.
    unsafe {
        let value = &raw mut (*scratch).fresh.value.flow;
        let (this, _) = directions(value, (*scratch).seen.from_local);
        (*this).generation = GENERATION.get(0).copied().unwrap_or(0);
        let standing = if (*scratch).seen.forwarded { flow_flags::FORWARDED | ANEW } else { ANEW };
        let standing = judge(skb, scratch, value, standing);
        let denied = standing & u16::from(DENIED) != 0;
        let action = if denied { deny(skb, counters, scratch, value, standing) } else { TCX_NEXT };
        (*value).directions = [FlowDirection::default(); 2];
        (*value).denied_by_rule = 0;
        action
    }
}

/// Drops a packet of a denied connection, and tells of it.
///
/// # Safety
/// As for [`judge`], with what that returned.
#[inline(never)]
pub(crate) unsafe fn deny(
    skb: *mut __sk_buff,
    counters: *mut Counters,
    scratch: *const Scratch,
    value: *mut FlowValue,
    standing: u16,
) -> i32 {
    let (Some(work), Some(settings)) = (POLICY_SCRATCH.get_ptr_mut(0), SETTINGS.get(0)) else {
        return TCX_DROP;
    };
    // SAFETY: as the caller says; map values outlive the run.
    unsafe {
        (*skb).cb[0] = MARK[0];
        (*skb).cb[1] = MARK[1];
        let (seen, packet) = (&raw const (*scratch).seen, &raw const (*scratch).packet);
        let tunneled = (*seen).tunneled != 0;
        let outer = if tunneled { &raw const (*scratch).tunnel.tuple } else { (&raw const (*packet).tuple) };
        let key = &mut (*work).drop_key;
        key.tuple = *outer;
        key.reason = if (*value).denied_by_rule == 0 { POLICY_DENIED } else { POLICY_DENY };
        (key.netns, key.ifindex) = (config().netns, (*seen).ifindex);
        let now = now();
        let sum = &mut (*work).drop_value;
        (sum.first_ns, sum.last_ns, sum.packet_len) = (now, now, (*seen).len);
        sum.flags = drop_flags::PARSED;
        sum.ether_type = if (*outer).ip_version == 4 { parse::ETH_IPV4 } else { parse::ETH_IPV6 };
        sum.tcp_flags = (*packet).tcp_flags;
        let table = if settings.generation == 0 { &DROPS_0 } else { &DROPS_1 };
        if summed(counters, table, &(*work).drop_key, &(*work).drop_value) {
            return TCX_DROP;
        }
        if standing & ANEW == 0 {
            judge(skb, scratch, value, standing);
        }
        let ethernet = if (*seen).ethernet { flow_flags::ETHERNET } else { 0 };
        write(&PRIORITY, counters, |record: &mut MaybeUninit<DeniedRecord>| {
            let (key, sum) = (&raw const (*work).drop_key, &raw const (*work).drop_value);
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
                flow_flags: standing & crate::flow::STANDING_FLAGS | ethernet,
            });
        });
    }
    TCX_DROP
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
    write(&FLOWS, counters, |record: &mut MaybeUninit<JudgedFlowRecord>| {
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

//! The table of connections: one map for most packets of IPv4, whose key is short, one for all others.

use core::arch::asm;

use observer_ebpf::parse::{self, Echo, ICMP, ICMPV6, Packet, TCP, UDP, copy_address};
use observer_ebpf::{
    ASKED_BY_REMOTE, Config, Counters, FlowKey, FlowValue, INSIDE_TUNNEL, SHORT_UDP, ShortKey, ShortValue,
    Tunnel, Tuple,
};

use crate::flow::Seen;
use crate::judge::{FlowTable, known_opener, read_ahead};
use crate::maps::{FLOW_TABLE, SHORT_FLOW_TABLE, TUNNELS};
use crate::opener::opener;
use crate::record::{add, add_alone};

const BPF_NOEXIST: u64 = 1;

/// What a new entry is made of.
#[repr(C)]
pub(crate) struct Entry {
    key: Key,
    pub(crate) value: ShortValue,
}

/// A key whose addresses can be copied word by word.
#[repr(C, align(8))]
pub(crate) struct Key(pub(crate) FlowKey);

/// A map's value that begins with a connection.
trait Connection {}
impl Connection for FlowValue {}
impl Connection for ShortValue {}

/// The packet's connection, and whether it is new; `None` where the table has no room.
#[inline(always)]
pub(crate) fn entry(
    counters: *mut Counters,
    config: &Config,
    seen: &Seen,
    packet: &Packet,
    tunnel: Option<&Tunnel>,
    entry: &mut Entry,
) -> Option<(*mut FlowValue, bool)> {
    let Entry { key: Key(key), value } = entry;
    let tuple = &packet.tuple;
    if tunnel.is_none() && tuple.ip_version == 4 && (tuple.protocol == TCP || tuple.protocol == UDP) {
        let key = short_key(seen.ifindex, seen.from_local, tuple);
        return find(&SHORT_FLOW_TABLE, &key, value, counters, config, seen, packet);
    }
    // SAFETY: `Packet` and `Key` are aligned to 8, and each address in them.
    unsafe { fill_key(key, seen.from_local, tuple, packet.fragment) };
    let vni = tunnel.map_or(0, |tunnel| tunnel.vni);
    key.ifindex = if tunnel.is_some() { seen.ifindex | INSIDE_TUNNEL } else { seen.ifindex };
    key.vni = [(vni >> 16) as u8, (vni >> 8) as u8, vni as u8];
    let found = find(&FLOW_TABLE, key, &mut value.flow, counters, config, seen, packet);
    let tunnel = opaque(tunnel);
    if let Some((_, true)) = found
        && !tunnel.is_null()
    {
        // A full table loses the oldest: the sweep then tells a tunnel of which it knows nothing more.
        // SAFETY: a reference, if it is not null.
        let _ = TUNNELS.insert(&*key, unsafe { &*tunnel }, 0);
    }
    found
}

/// A pointer of which LLVM knows nothing, so that it is what is tested: else LLVM may test what made it null, and 6.1's
/// verifier doesn't know that the two belong together.
#[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer is moved, not followed")]
#[inline(always)]
fn opaque(tunnel: Option<&Tunnel>) -> *const Tunnel {
    let mut pointer = tunnel.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

#[inline(always)]
fn find<K, V: Connection, const N: usize>(
    table: &FlowTable<K, V, N>,
    key: &K,
    fresh: &mut V,
    counters: *mut Counters,
    config: &Config,
    seen: &Seen,
    packet: &Packet,
) -> Option<(*mut FlowValue, bool)> {
    if let Some(value) = table.get_ptr_mut(key) {
        return Some((value.cast(), false));
    }
    read_ahead();
    let (mut sender_opened, mut guessed) = opener(config, packet);
    if let Some(by_sender) = known_opener(packet, guessed, seen.now) {
        (sender_opened, guessed) = (by_sender, false);
    }
    // SAFETY: a `Connection` begins with one.
    let first = unsafe { &mut *(&raw mut *fresh).cast::<FlowValue>() };
    first.first_ns = seen.now;
    first.opener = u8::from(sender_opened != seen.from_local);
    first.guessed = u8::from(guessed);
    first.link_kind = seen.link_kind;
    first.ip_version = packet.tuple.ip_version;
    let created = table.insert(key, &*fresh, BPF_NOEXIST).is_ok();
    // SAFETY: only addresses of a map value's fields are taken.
    let (midway, full) = unsafe { (&raw mut (*counters).met_midway, &raw mut (*counters).table_full) };
    if created && guessed && packet.tuple.protocol == TCP {
        add_alone(midway, 1);
    }
    let value = table.get_ptr_mut(key);
    if value.is_none() {
        add(full, 1);
    }
    Some((value?.cast(), created))
}

/// The ends by the link's sides.
#[inline(always)]
pub(crate) fn short_key(ifindex: u32, from_local: bool, tuple: &Tuple) -> ShortKey {
    let source = last_word(&tuple.source);
    let destination = last_word(&tuple.destination);
    let udp = if tuple.protocol == UDP { SHORT_UDP } else { 0 };
    let mut key = ShortKey {
        local: source,
        remote: destination,
        ifindex: ifindex | udp,
        local_port: tuple.source_port,
        remote_port: tuple.destination_port,
    };
    if !from_local {
        (key.local, key.remote) = (destination, source);
        (key.local_port, key.remote_port) = (tuple.destination_port, tuple.source_port);
    }
    key
}

/// The IPv4 address that is mapped into this one, which is aligned.
#[inline(always)]
fn last_word(address: &[u8; 16]) -> [u8; 4] {
    // SAFETY: within the array; a tuple is aligned to 8 where packets are.
    unsafe { (*address.as_ptr().add(12).cast::<u32>()).to_ne_bytes() }
}

/// Likewise for any packet; of a later fragment the type of ICMP is not known.
///
/// # Safety
/// The addresses must be aligned to 8.
#[inline(always)]
pub(crate) unsafe fn fill_key(key: &mut FlowKey, from_local: bool, tuple: &Tuple, later: bool) {
    key.protocol = tuple.protocol;
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
    if !later && (tuple.protocol == ICMP || tuple.protocol == ICMPV6) {
        let by_remote = match parse::echo(tuple.protocol, tuple.icmp_type) {
            Echo::Request => !from_local,
            Echo::Reply => from_local,
            Echo::No => return,
        };
        key.remote_port = u16::from(parse::request_type(tuple.protocol, tuple.icmp_type));
        if by_remote {
            key.remote_port |= ASKED_BY_REMOTE;
        }
    }
}

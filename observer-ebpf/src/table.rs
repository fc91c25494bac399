//! The table of connections: one map for most packets, whose key is short, one for all others.

use observer_ebpf::lines::Words;
use observer_ebpf::parse::{self, Echo, ICMP, ICMPV6, Packet, TCP, UDP, copy_address, same_address};
use observer_ebpf::{
    ASKED_BY_REMOTE, Config, Counters, FlowKey, FlowValue, INSIDE_TUNNEL, SHORT_IPV6, SHORT_UDP, ShortKey,
    ShortValue, Tunnel, Tuple, folded,
};

use crate::flow::{Seen, directions};
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
trait Connection {
    /// Writes down whose it is, where the key does not say it all.
    fn sign(&mut self, _from_local: bool, _tuple: &Tuple) {}
}
impl Connection for FlowValue {}
impl Connection for ShortValue {
    #[inline(always)]
    fn sign(&mut self, from_local: bool, tuple: &Tuple) {
        let (local, remote) = ends(from_local, tuple);
        // SAFETY: a tuple is aligned to 8 where packets are, and the ends stand behind a `FlowValue`.
        unsafe {
            copy_address(local, &mut self.ends.local);
            copy_address(remote, &mut self.ends.remote);
        }
    }
}

/// The packet's connection, and whether it is new; `None` where the table has no room.
#[inline(always)]
pub(crate) fn entry(
    counters: *mut Counters,
    config: &Config,
    seen: &Seen,
    packet: &Packet,
    tunnel: &Tunnel,
    entry: &mut Entry,
) -> Option<(*mut FlowValue, bool)> {
    let Entry { key: Key(key), value } = entry;
    let tuple = &packet.tuple;
    if seen.tunneled == 0 && has_short_key(seen.ifindex, tuple) {
        let key = short_key(seen.ifindex, seen.from_local, tuple);
        let (found, created) = find(&SHORT_FLOW_TABLE, &key, value, counters, config, seen, packet)?;
        // SAFETY: an entry; one that is evicted meanwhile stays readable until the program ends.
        if created || unsafe { is_of(found, seen.from_local, tuple) } {
            return Some((found.cast(), created));
        }
    }
    // SAFETY: `Packet` and `Key` are aligned to 8, and each address in them.
    unsafe { fill_key(key, seen.from_local, tuple, packet.fragment) };
    let (tunneled, vni) = if seen.tunneled == 0 { (0, 0) } else { (INSIDE_TUNNEL, tunnel.vni) };
    key.ifindex = seen.ifindex | tunneled;
    key.vni = [(vni >> 16) as u8, (vni >> 8) as u8, vni as u8];
    let found = find(&FLOW_TABLE, &*key, &mut value.flow, counters, config, seen, packet);
    if let Some((_, true)) = found
        && seen.tunneled != 0
    {
        // A full table loses the oldest: the sweep then tells a tunnel of which it knows nothing more.
        let _ = TUNNELS.insert(&*key, tunnel, 0);
    }
    found
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
) -> Option<(*mut V, bool)> {
    if let Some(value) = table.get_ptr_mut(key) {
        return Some((value, false));
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
    // SAFETY: only addresses of fields are taken.
    unsafe {
        let (this, other) = directions(first, seen.from_local);
        ((*this).packets, (*this).bytes) = (seen.packets, u64::from(seen.len));
        ((*other).packets, (*other).bytes) = (0, 0);
    }
    fresh.sign(seen.from_local, &packet.tuple);
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
    Some((value?, created))
}

/// The packet's ends by the link's sides.
#[inline(always)]
fn ends(from_local: bool, tuple: &Tuple) -> (&[u8; 16], &[u8; 16]) {
    if from_local { (&tuple.source, &tuple.destination) } else { (&tuple.destination, &tuple.source) }
}

/// Whether a packet that is inside no tunnel has a [`short_key`].
#[inline(always)]
pub(crate) fn has_short_key(ifindex: u32, tuple: &Tuple) -> bool {
    (tuple.protocol == TCP || tuple.protocol == UDP) && ifindex & SHORT_IPV6 == 0
}

/// Whether what was found by the packet's short key is its connection.
///
/// # Safety
/// `value` must be an entry, and the addresses aligned to 8.
#[inline(always)]
pub(crate) unsafe fn is_of(value: *const ShortValue, from_local: bool, tuple: &Tuple) -> bool {
    if tuple.ip_version == 4 {
        return true;
    }
    let (local, remote) = ends(from_local, tuple);
    // SAFETY: as the caller says; only addresses of fields are taken.
    unsafe {
        let (known_local, known_remote) = (&raw const (*value).ends.local, &raw const (*value).ends.remote);
        same_address(known_local, local) && same_address(known_remote, remote)
    }
}

/// The ends by the link's sides.
#[inline(always)]
pub(crate) fn short_key(ifindex: u32, from_local: bool, tuple: &Tuple) -> ShortKey {
    let udp = if tuple.protocol == UDP { SHORT_UDP } else { 0 };
    let (source, destination, ipv6) = if tuple.ip_version == 4 {
        (last_word(&tuple.source), last_word(&tuple.destination), 0)
    } else {
        (folded(words(&tuple.source)), folded(words(&tuple.destination)), SHORT_IPV6)
    };
    let mut key = ShortKey {
        local: source,
        remote: destination,
        ifindex: ifindex | udp | ipv6,
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

/// This address, which is aligned to 8, as two numbers.
#[inline(always)]
fn words(address: &[u8; 16]) -> Words {
    let address = address.as_ptr().cast::<u64>();
    // SAFETY: within the array; a tuple is aligned to 8 where packets are.
    unsafe { [*address, *address.add(1)] }
}

/// The [`FlowKey`] of any packet; of a later fragment the type of ICMP is not known.
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

//! How the maps of policies are read: who the two ends are, whose sides are asked, and what each says.
//!
//! All are global functions, which the verifier checks by themselves and once: one for each backend on each way that leads
//! here is too much. Before Linux 5.12 such a function is given numbers only, so the question stands in a map.

use aya_ebpf::btf_maps::lpm_trie::Key;
use observer_ebpf::Tuple;
use observer_ebpf::lines::{Line as _, Words, find};
use observer_ebpf::parse::{self, ICMP, ICMPV6, copy_address, same_address};
use observer_ebpf::policy::{
    CutLine, EndpointLine, Judged, MOST_BACKENDS, MOST_LINES, NO_TABLE, OTHERS, PlacedEndpoint,
    PolicyEndpoint, PolicyFrontend, PolicyRow, PolicyRowKey, RowLine, cut_key, decision, endpoint_flags,
    judged_flags, side, slot,
};

use crate::config::config;
use crate::connection::LOCAL_POD;
use crate::maps::{FLOW_SCRATCH, GENERATION, LOCAL};
use crate::policy_maps::{
    POLICY_BACKENDS, POLICY_CUTS, POLICY_ENDPOINTS, POLICY_FRONTENDS, POLICY_NETS, POLICY_ROWS,
    POLICY_SCRATCH, POLICY_SHAPES, POLICY_SIDES,
};

/// A connection, and what was found of it.
#[repr(C, align(8))]
pub(crate) struct Question {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) judged: Judged,
    /// Whose owner is looked for.
    wanted: Words,
    /// By side the one that was found last of those that the side is asked about.
    found: [PlacedEndpoint; 2],
    net: Key<[u8; 16]>,
    pub(crate) frontend: PolicyFrontend,
    pub(crate) port: u16,
    other_port: u16,
    pub(crate) protocol: u8,
}

impl Question {
    /// Of this packet, whose sender is the opener or not.
    #[inline(always)]
    pub(crate) unsafe fn ask(&mut self, tuple: *const Tuple, by_opener: bool, tunneled: bool) {
        // SAFETY: the tuples of packets and tunnels, in this CPU's memory, and this, are aligned to 8.
        unsafe {
            let tuple = &*tuple;
            copy_address(&tuple.source, &mut self.source);
            copy_address(&tuple.destination, &mut self.destination);
            self.protocol = tuple.protocol;
            (self.port, self.other_port) = (tuple.destination_port, tuple.source_port);
            if tuple.protocol == ICMP || tuple.protocol == ICMPV6 {
                self.port = u16::from(parse::request_type(tuple.protocol, tuple.icmp_type));
                self.other_port = self.port;
            } else if tunneled {
                // Both ends of a tunnel send to its port.
                self.other_port = self.port;
            }
            if !by_opener {
                self.turn();
            }
        }
    }

    /// With the other end as the opener.
    #[inline(always)]
    pub(crate) unsafe fn turn(&mut self) {
        let (source, destination) = (&raw mut self.source, &raw mut self.destination);
        // SAFETY: aligned to 8.
        unsafe {
            let (source, destination) = (source.cast::<[u64; 2]>(), destination.cast::<[u64; 2]>());
            (*source, *destination) = (*destination, *source);
        }
        (self.port, self.other_port) = (self.other_port, self.port);
    }
}

/// What [`observer_weigh`] is told, as bits.
pub(crate) mod how {
    /// The link is a pod's.
    pub(crate) const POD: u32 = 1 << 0;
    /// The opener is on the near side of the link.
    pub(crate) const NEAR: u32 = 1 << 1;
    /// What goes out on the link is made by this node, and not forwarded.
    pub(crate) const OWN: u32 = 1 << 2;
    /// The node forwards the connection out of an uplink.
    pub(crate) const FORWARDED: u32 = 1 << 3;
}

/// Who has an address.
pub(crate) struct Who {
    pub(crate) known: bool,
    pub(crate) peer: u32,
    pub(crate) subject: u32,
    pub(crate) flags: u32,
}

/// Word by word: both at once may be a call, for bytes one by one.
#[inline(always)]
unsafe fn want(question: *mut Question, address: *const [u8; 16]) {
    let address = address.cast::<u64>();
    // SAFETY: as the callers say.
    unsafe { (*question).wanted = [*address, *address.add(1)] };
}

/// Asked of one end for the other end's side: its rows are kept for [`observer_decide`]. `address` must be aligned to 8, and the question this CPU's.
#[inline(always)]
pub(crate) unsafe fn who(slot: u32, question: *mut Question, side: usize, address: *const [u8; 16]) -> Who {
    // SAFETY: as the caller says; a slot in force is not written.
    unsafe {
        want(question, address);
        if observer_find(slot, side as u32) != 0 {
            let PolicyEndpoint { peer, subject, flags } = (*found(question, side as u32)).endpoint;
            return Who { known: true, peer, subject, flags };
        }
        // A length, and the address behind it, aligned to 4.
        let net = &raw mut (*question).net;
        let words = net.cast::<u32>();
        *words = 128;
        *words.add(1).cast::<[u32; 4]>() = *address.cast::<[u32; 4]>();
        let peer = POLICY_NETS.get_value_ptr_mut(slot, &*net).map_or(OTHERS, |peer| *peer);
        Who { known: false, peer, subject: 0, flags: 0 }
    }
}

/// [`Question::found`] of a side.
#[inline(always)]
unsafe fn found(question: *mut Question, side: u32) -> *mut PlacedEndpoint {
    // SAFETY: addresses of fields.
    unsafe {
        let (of_egress, of_ingress) = (&raw mut (*question).found[0], &raw mut (*question).found[1]);
        if side == side::EGRESS as u32 { of_egress } else { of_ingress }
    }
}

/// Has the lines read where the packet's ends stand mostly, and waits for nothing of them: the processor reads them while it
/// waits for the bucket of the connection. It is no use behind the clock or a lock, which wait for all that is being read.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_read_ahead() -> u64 {
    let (Some(scratch), Some(generation)) = (FLOW_SCRATCH.get_ptr_mut(0), GENERATION.get(0)) else {
        return 0;
    };
    let slot = slot(*generation);
    let Some(shapes) = POLICY_SHAPES.get(slot) else { return 0 };
    // SAFETY: this CPU's memory, where tuples are aligned to 8; a slot in force is not written.
    unsafe {
        let tuple = &raw const (*scratch).packet.tuple;
        for address in [&raw const (*tuple).source, &raw const (*tuple).destination] {
            let home = shapes.endpoints.home(*address.cast::<Words>());
            let Some(line) = POLICY_ENDPOINTS.get_value(slot, &home) else { return 0 };
            let line: *const EndpointLine = &raw const *line;
            // Of each of the two that it is in the cache.
            (&raw const (*line).peers[0]).read_volatile();
            (&raw const (*line).subjects[0]).read_volatile();
        }
    }
    0
}

/// Finds who has the wanted address of [`Question`], for the side that is asked about it: 1 if it is an endpoint's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_find(slot: u32, side: u32) -> u64 {
    let (Some(work), Some(shapes)) = (POLICY_SCRATCH.get_ptr_mut(0), POLICY_SHAPES.get(slot)) else {
        return 0;
    };
    // SAFETY: this CPU's memory.
    unsafe {
        let question = &raw mut (*work).question;
        let to = found(question, side);
        // The last one's rows are not those of one that is not found.
        (*to).endpoint.flags = 0;
        let read = |line: u32| POLICY_ENDPOINTS.get_value(slot, &line);
        let found = find::<EndpointLine, _>(shapes.endpoints, (*question).wanted, read);
        // Field by field: a copy of all would be a call, whose stack is one too much.
        let Some(PlacedEndpoint { endpoint: PolicyEndpoint { peer, subject, flags }, rows: [one, other] }) =
            found
        else {
            return 0;
        };
        let (endpoint, rows) = (&raw mut (*to).endpoint, &raw mut (*to).rows);
        ((*endpoint).peer, (*endpoint).subject, (*endpoint).flags) = (peer, subject, flags);
        ((*rows)[0], (*rows)[1]) = (one, other);
    }
    1
}

/// Whether an address, aligned to 8, is a node's.
#[inline(always)]
pub(crate) unsafe fn is_node(slot: u32, address: *const [u8; 16]) -> bool {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: as the caller says; this CPU's memory.
    unsafe {
        want(&raw mut (*work).question, address);
        observer_find(slot, side::EGRESS as u32) != 0
            && (*work).question.found[side::EGRESS].endpoint.flags & endpoint_flags::NODE != 0
    }
}

/// Judges the connection in [`Question`], by generation; returns 1 where it is denied. `facts` are of [`how`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_weigh(generation: u32, facts: u32) -> u64 {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return 0 };
    let slot = slot(generation);
    let (pod, near) = (facts & how::POD != 0, facts & how::NEAR != 0);
    // SAFETY: this CPU's memory; what is called writes it too, so there is no reference to it.
    unsafe {
        let question = &raw mut (*work).question;
        let key = cut_key((*question).protocol, (*question).port);
        let from = who(slot, question, side::INGRESS, &raw const (*question).source);
        let to = who(slot, question, side::EGRESS, &raw const (*question).destination);
        (*question).judged = Judged { generation, egress: 0, ingress: 0, flags: 0 };

        // Where that is of no matter, and of a pod's address, it is not asked whether the destination is a service.
        let to_own = to.flags & endpoint_flags::HOST != 0;
        let may_be_service = !to.known || to.flags & endpoint_flags::NODE != 0;
        let backends = if to_own || pod && near && may_be_service {
            let frontend = &raw mut (*question).frontend;
            (&raw mut (*frontend).address)
                .cast::<[u32; 4]>()
                .write(*(&raw const (*question).destination).cast());
            ((*frontend).port, (*frontend).protocol) = ((*question).port, (*question).protocol);
            (*frontend).pad = 0;
            POLICY_FRONTENDS.get_value_ptr_mut(slot, &*frontend)
        } else {
            None
        };

        // The opener's side, where it enters the node; and where it leaves, since a service may have been between.
        let source = &raw const (*question).source;
        let is_local = || {
            if from.known {
                return from.flags & endpoint_flags::LOCAL != 0;
            }
            LOCAL.get(&*source).copied() == Some(LOCAL_POD)
        };
        let own_host = from.flags & endpoint_flags::HOST != 0 && facts & how::OWN != 0;
        let egress = if pod == near { pod } else { own_host || is_local() };
        if egress {
            if !from.known {
                (*question).judged.egress = unknown();
            } else if let (true, Some(backends)) = (pod && near, backends) {
                observer_weigh_backends(slot, from.subject, (*backends).begin, (*backends).len);
            } else {
                let decision = observer_decide(slot, from.subject, side::EGRESS as u32, to.peer, key);
                (*question).judged.egress = decision as u32;
            }
        }

        // The other side, where it is this node or where the pod is.
        let to_host = to_own && backends.is_none();
        let ingress = if pod { !near || to_host } else { !near && to_host && facts & how::FORWARDED == 0 };
        if ingress && !is_group(&raw const (*question).destination) {
            (*question).judged.ingress = if to.known {
                observer_decide(slot, to.subject, side::INGRESS as u32, from.peer, key) as u32
            } else {
                unknown()
            };
        }
        u64::from((*question).judged.is_denied())
    }
}

/// The decision on a pod that nobody knows.
#[inline(always)]
fn unknown() -> u32 {
    let denied = if config().unknown_denied == 0 { 0 } else { decision::DENIED };
    decision::JUDGED | decision::UNKNOWN | denied
}

/// Whether an address is that of many.
#[inline(always)]
unsafe fn is_group(address: *const [u8; 16]) -> bool {
    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    // SAFETY: the address is aligned.
    unsafe {
        let [a, b, c, d] = *address.cast::<[u32; 4]>();
        let last = u32::from_be(d);
        let v4 = a | b == 0 && c == MAPPED && (last >> 28 == 14 || last == u32::MAX);
        v4 || (*address)[0] == 0xff
    }
}

/// Judges the opener's side towards each of a service's backends.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_weigh_backends(slot: u32, subject: u32, begin: u32, len: u32) -> u64 {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return 0 };
    let (mut denied, mut audited, mut found, mut flags) = (0, 0, 0, judged_flags::FRONTEND);
    if len > MOST_BACKENDS {
        flags |= judged_flags::MIXED | judged_flags::AUDIT_MIXED;
    } else {
        for index in 0..MOST_BACKENDS {
            if index >= len {
                break;
            }
            let backend = observer_backend(slot, begin.wrapping_add(index));
            let (peer, key) = (backend as u32, (backend >> 32) as u32);
            // All but the one that is the opener itself.
            let decision = if key == 0 {
                0
            } else {
                observer_decide(slot, subject, side::EGRESS as u32, peer, key) as u32
            };
            if decision & decision::DENIED != 0 {
                denied += 1;
            }
            if decision & decision::AUDITED != 0 {
                audited += 1;
            }
            // The first that is denied, else the first that is by all policies, else the first.
            if found == 0 || rank(decision) > rank(found) {
                found = decision;
            }
        }
        if denied > 0 && denied < len {
            flags |= judged_flags::MIXED;
        }
        if audited > 0 && audited < len {
            flags |= judged_flags::AUDIT_MIXED;
        }
    }
    // SAFETY: this CPU's memory.
    unsafe {
        let judged = &raw mut (*work).question.judged;
        (*judged).egress = found;
        (*judged).flags = flags;
    }
    0
}

#[inline(always)]
const fn rank(decision: u32) -> u32 {
    if decision & decision::DENIED != 0 { decision::DENIED } else { decision & decision::AUDITED }
}

/// A backend as a peer, and above that the key of its own port; of the opener itself, which is denied nothing, 0. It does not
/// ask for the decision itself: for Linux 6.1 the stacks of functions that call each other would be too much together.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_backend(slot: u32, index: u32) -> u64 {
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return 0 };
    let Some(backend) = POLICY_BACKENDS.get_value(slot, &index) else { return 0 };
    let backend = &raw const *backend;
    // SAFETY: this CPU's memory; entries of arrays are aligned to 8, and so is the question.
    unsafe {
        let question = &raw mut (*work).question;
        let address = &raw const (*backend).address;
        if same_address(address, &raw const (*question).source) {
            return 0;
        }
        let to = who(slot, question, side::EGRESS, address);
        u64::from(cut_key((*question).protocol, (*backend).port)) << 32 | u64::from(to.peer)
    }
}

/// One more than the logarithm of [`observer_ebpf::policy::MOST_LINES`].
const STEPS: u32 = MOST_LINES.ilog2() + 1;

/// The decision of a subject's side on a peer, by a key of [`cut_key`]; 0 where the side is not judged. Of the one
/// that was found for this side the rows may be known.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_decide(slot: u32, subject: u32, side: u32, peer: u32, key: u32) -> u64 {
    let Some([egress, ingress]) = POLICY_SIDES.get_value(slot, &subject) else { return 0 };
    let table = if side == side::EGRESS as u32 { *egress } else { *ingress };
    if table == NO_TABLE {
        return 0;
    }
    let Some(work) = POLICY_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's memory.
    let near = unsafe { near(&*found(&raw mut (*work).question, side), table, peer) };
    let mut row = near.unwrap_or_else(|| observer_row(slot, table, peer));
    if row == 0 {
        row = observer_row(slot, table, OTHERS);
    }
    observer_cut(slot, row as u32, (row >> 32) as u32, key)
}

/// The answer of [`observer_row`], where it stands beside the peer's endpoint.
#[inline(always)]
fn near(found: &PlacedEndpoint, table: u32, peer: u32) -> Option<u64> {
    let PlacedEndpoint { endpoint, rows: [one, other] } = found;
    if endpoint.peer != peer || endpoint.flags & endpoint_flags::ROWS == 0 {
        return None;
    }
    if one.table == table {
        return Some(packed(one.row()));
    }
    Some(if other.table == table { packed(other.row()) } else { 0 })
}

/// Where a row begins, and above that how long it is.
#[inline(always)]
fn packed(row: PolicyRow) -> u64 {
    u64::from(row.len) << 32 | u64::from(row.begin)
}

/// The decision of a row's last cut that is not behind the key: it stands in the last line that does not begin behind it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_cut(slot: u32, begin: u32, lines: u32, key: u32) -> u64 {
    if lines == 0 {
        return 0;
    }
    // The first line begins with 0, and is the only one of most rows.
    let (mut low, mut high) = (1, lines);
    for _ in 0..STEPS {
        if low >= high {
            break;
        }
        let middle = low + ((high - low) >> 1);
        let Some(line) = POLICY_CUTS.get_value(slot, &begin.wrapping_add(middle)) else { return 0 };
        if line.cuts[0].from <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(line) = POLICY_CUTS.get_value(slot, &begin.wrapping_add(low - 1)) else { return 0 };
    let mut decision = line.cuts[0].decision;
    for place in 1..CutLine::ROOM {
        if line.cuts[place].from > key {
            break;
        }
        decision = line.cuts[place].decision;
    }
    u64::from(decision)
}

/// Where a table's row for a peer begins, and above that how long it is; 0 where there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_row(slot: u32, table: u32, peer: u32) -> u64 {
    let Some(shapes) = POLICY_SHAPES.get(slot) else { return 0 };
    let read = |line: u32| POLICY_ROWS.get_value(slot, &line);
    let words = RowLine::words(&PolicyRowKey { table, peer });
    find::<RowLine, _>(shapes.rows, words, read).map_or(0, packed)
}

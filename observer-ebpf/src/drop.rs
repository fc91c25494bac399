//! The drop program: what `kfree_skb` frees, with the kernel's reason. One of four is loaded, the first that the kernel
//! takes: by BTF, which needs no helper call for a struct's field, raw, or as a plain tracepoint.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use observer_ebpf::parse::{self, Bytes, Head, Packet};
use observer_ebpf::{Counters, DropKey, DropRecord, DropValue, Tuple, drop_flags, kind, program};

use crate::config::{config, offsets};
use crate::judge::{JUDGING, MARK};
use crate::maps::{
    DROP_DEPTH, DROP_SCRATCH, DROPS_0, DROPS_1, FirstFragments, IGNORED_REASONS, PRIORITY, SETTINGS, WATCHED,
};
use crate::record::{add, counters, header, now, write};

const BPF_NOEXIST: u64 = 1;
const SYN: u8 = 2;

/// Kernels whose tracepoint has the reason (5.17 on).
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn observer_drop(ctx: BtfTracePointContext) -> i32 {
    dropped::<BTF>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Kernels whose tracepoint has none: the reason is 0, which no kernel uses for one.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn observer_drop_unreasoned(ctx: BtfTracePointContext) -> i32 {
    dropped::<BTF>(ctx.arg(0), ctx.arg(1), 0);
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn observer_drop_raw(ctx: RawTracePointContext) -> i32 {
    dropped::<PLAIN>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[tracepoint(name = "kfree_skb", category = "skb")]
pub(crate) fn observer_drop_plain(ctx: TracePointContext) -> i32 {
    let context = ctx.as_ptr().cast::<u8>();
    let reason = offsets().trace_reason;
    // SAFETY: plain numbers. The address of the skb and the location are the first fields on every kernel; those
    // before 5.17 have no reason, hence no offset. The verifier lets no program read its context at a variable offset.
    unsafe {
        let skb = *context.add(8).cast::<*const u8>();
        let location = *context.add(16).cast::<u64>();
        let reason = if reason == 0 { 0 } else { field::<PLAIN, u32>(context, reason) };
        dropped::<PLAIN>(skb, location, reason);
    }
    0
}

/// The skb is a pointer that the verifier knows by BTF.
const BTF: bool = true;
/// It is just a number.
const PLAIN: bool = false;

/// Working memory: the stack has 512 bytes.
#[repr(C)]
pub(crate) struct Scratch {
    head: Head,
    packet: Packet,
    key: DropKey,
    value: DropValue,
}

/// The part of an skb that lies in one piece: paged data is not followed, since headers are never there when IP drops.
struct KernelBytes {
    skb_head: *const u8,
    /// Where the piece ends, from `skb_head`.
    tail: u32,
}

impl Bytes for KernelBytes {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()> {
        if offset.saturating_add(N as u32) > self.tail {
            return None;
        }
        let from = self.skb_head.wrapping_add(offset as usize);
        // SAFETY: the helper writes N bytes; an address that is not mapped is an error, not a fault.
        let failed = unsafe { bpf_probe_read_kernel(into.as_mut_ptr().cast(), N as u32, from.cast()) };
        (failed == 0).then_some(())
    }
}

impl KernelBytes {
    /// The tuple of the packet whose IP header is at `start`: nearly always with one read.
    #[inline(always)]
    fn parse(&self, ether_type: u16, start: u32, head: &mut Head, packet: &mut Packet) -> bool {
        let from = self.skb_head.wrapping_add(start as usize);
        // SAFETY: `head` has room. What was read behind the packet's end is inside the kernel's own memory and is not
        // used.
        let failed = unsafe { bpf_probe_read_kernel(head.packet().cast(), Head::PACKET, from.cast()) };
        let available = self.tail.saturating_sub(start);
        (failed == 0 && parse::plain(head, available, ether_type, packet))
            || parse::ip(self, &mut FirstFragments, ether_type, start, packet).is_ok()
    }
}

/// Reads a field. With `BTF` the verifier knows the pointer's type, and that the offset is such a field's.
///
/// # Safety
/// With `BTF`, `base` must be a BTF pointer of the program's context, `offset` frozen. `T` must be a plain number or a
/// pointer.
#[inline(always)]
pub(crate) unsafe fn field<const BTF: bool, T: Copy>(base: *const u8, offset: u32) -> T {
    let from = base.wrapping_add(offset as usize).cast::<T>();
    // SAFETY: loads through BTF pointers never fault: the kernel turns a bad address into 0, as is done here otherwise.
    unsafe {
        if BTF {
            return *from;
        }
        let mut value = MaybeUninit::<T>::zeroed();
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from.cast());
        value.assume_init()
    }
}

/// Inode and cookie of a network namespace.
///
/// # Safety
/// As for [`field`].
#[inline(always)]
unsafe fn namespace<const BTF: bool>(net: *const u8) -> (u32, u64) {
    let offsets = offsets();
    // SAFETY: as the caller says. Kernels without the cookie have no offset for it.
    unsafe {
        let cookie = if offsets.net_cookie == 0 { 0 } else { field::<BTF, _>(net, offsets.net_cookie) };
        (field::<BTF, _>(net, offsets.net_inum), cookie)
    }
}

#[inline(always)]
fn dropped<const BTF: bool>(skb: *const u8, location: u64, reason: u32) {
    let Some(counters) = counters(program::DROP) else { return };
    let offsets = offsets();
    // SAFETY: see `field`; map values outlive the run.
    unsafe {
        add(&raw mut (*counters).runs, 1);
        if JUDGING && is_own(skb, reason) {
            add(&raw mut (*counters).ignored, 1);
            return;
        }
        let ignored = reason < 256 && IGNORED_REASONS.get(reason).is_some_and(|noise| *noise != 0);
        if ignored {
            add(&raw mut (*counters).ignored, 1);
            return;
        }
        let dev: *const u8 = field::<BTF, _>(skb, offsets.skb_dev);
        let sk: *const u8 = field::<BTF, _>(skb, offsets.skb_sk);
        let (mut ifindex, mut netns, mut netns_cookie) = (0_u32, 0_u32, 0_u64);
        if !dev.is_null() {
            ifindex = field::<BTF, _>(dev, offsets.dev_ifindex);
            (netns, netns_cookie) = namespace::<BTF>(field::<BTF, _>(dev, offsets.dev_net));
        } else if !sk.is_null() {
            (netns, netns_cookie) = namespace::<BTF>(field::<BTF, _>(sk, offsets.sk_net));
        }
        let Some(settings) = SETTINGS.get(0) else { return };
        if settings.host_wide == 0 && WATCHED.get_ptr(&netns).is_none() {
            add(&raw mut (*counters).ignored, 1);
            return;
        }
        let Some(depth) = DROP_DEPTH.get_ptr_mut(0) else { return };
        let level = depth.read_volatile();
        let Some(scratch) = DROP_SCRATCH.get_ptr_mut(level & 3) else { return };
        // An interrupt before this line has put it back.
        depth.write_volatile(level + 1);
        let Scratch { head, packet, key, value } = &mut *scratch;
        *value = DropValue { location, netns_cookie, first_ns: now(), ..DropValue::default() };
        value.last_ns = value.first_ns;
        value.packet_len = field::<BTF, _>(skb, offsets.skb_len);
        value.ether_type = u16::from_be(field::<BTF, _>(skb, offsets.skb_protocol));
        if !sk.is_null() {
            value.flags |= drop_flags::SOCKET;
        }
        let bytes = KernelBytes {
            skb_head: field::<BTF, _>(skb, offsets.skb_head),
            tail: field::<BTF, _>(skb, offsets.skb_tail),
        };
        let start: u16 = field::<BTF, _>(skb, offsets.skb_network_header);
        key.tuple = Tuple::default();
        if bytes.parse(value.ether_type, u32::from(start), head, packet) {
            if reason == config().not_specified && taken_in::<BTF>(&bytes, skb, packet) {
                add(&raw mut (*counters).ignored, 1);
                depth.write_volatile(level);
                return;
            }
            key.tuple = packet.tuple;
            value.tcp_flags = packet.tcp_flags;
            value.flags |= drop_flags::PARSED;
        }
        (key.reason, key.netns, key.ifindex) = (reason, netns, ifindex);
        let table = if settings.generation == 0 { &DROPS_0 } else { &DROPS_1 };
        if !summed(counters, table, key, value) {
            emit(counters, key, value);
        }
        depth.write_volatile(level);
    }
}

/// Whether the flow programs dropped it, and have told so.
#[inline(always)]
unsafe fn is_own(skb: *const u8, reason: u32) -> bool {
    let (config, offsets) = (config(), offsets());
    let [ingress, egress] = config.tc_reasons;
    let by_program =
        reason == ingress || reason == egress || (ingress == 0 && reason == config.not_specified);
    // SAFETY: as for `field`. BTF lets no program load a word of what is an array of bytes.
    by_program && offsets.skb_cb != 0 && unsafe { field::<PLAIN, [u32; 2]>(skb, offsets.skb_cb) } == MARK
}

/// Whether this is a segment that TCP has taken in: what comes in TIME_WAIT (up to 6.12 at least), or lies unread in the
/// queue of a socket that is closed (up to 6.1 at least), is freed as a dropped one is, without a reason. A kernel without
/// reasons does so with segments for no connection too; those are answered by a RST, which is told.
#[inline(always)]
fn taken_in<const BTF: bool>(bytes: &KernelBytes, skb: *const u8, packet: &Packet) -> bool {
    if packet.tuple.protocol != parse::TCP || packet.tcp_flags & SYN != 0 {
        return false;
    }
    let offsets = offsets();
    // SAFETY: as for `field`. From the receive functions of transport protocols on, and nowhere before, the packet starts
    // at its transport header or behind it. One that is not known is at u16::MAX.
    unsafe {
        let data: u64 = field::<BTF, _>(skb, offsets.skb_data);
        let transport: u16 = field::<BTF, _>(skb, offsets.skb_transport_header);
        data >= bytes.skb_head as u64 + u64::from(transport)
    }
}

/// Adds to the sum of drops like this one; false where it is the first of its generation, or the table is full.
#[inline(always)]
pub(crate) unsafe fn summed<const N: usize>(
    counters: *mut Counters,
    table: &HashMap<DropKey, DropValue, N>,
    key: &DropKey,
    value: &DropValue,
) -> bool {
    // SAFETY: map values.
    unsafe {
        let mut sum = table.get_ptr_mut(key);
        if sum.is_none() {
            if table.insert(key, value, BPF_NOEXIST).is_ok() {
                return false;
            }
            // Another CPU was first, or there is no room.
            sum = table.get_ptr_mut(key);
        }
        let Some(sum) = sum else {
            add(&raw mut (*counters).table_full, 1);
            return false;
        };
        add(&raw mut (*sum).packets, 1);
        add(&raw mut (*sum).bytes, u64::from(value.packet_len));
        (*sum).last_ns = value.first_ns;
        add(&raw mut (*counters).summed, 1);
        true
    }
}

#[inline(always)]
fn emit(counters: *mut Counters, key: &DropKey, value: &DropValue) {
    write(&PRIORITY, counters, add, |record| {
        record.write(DropRecord {
            header: header::<DropRecord>(kind::DROP, value.first_ns),
            tuple: key.tuple,
            reason: key.reason,
            ifindex: key.ifindex,
            netns: key.netns,
            packet_len: value.packet_len,
            location: value.location,
            flags: value.flags,
            ether_type: value.ether_type,
            tcp_flags: value.tcp_flags,
            pad: [0; 3],
            packets: 1,
            bytes: u64::from(value.packet_len),
            first_ns: value.first_ns,
            netns_cookie: value.netns_cookie,
        });
    });
}

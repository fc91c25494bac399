//! Packets inside tunnels: the flow programs count and tell the innermost packet, with the outermost headers beside it.

use aya_ebpf::bindings::__sk_buff;
use observer_ebpf::parse::tunnel::{self, ETH_FRAME, may_carry};
use observer_ebpf::parse::{self, Bytes as _, Unparsed};
use observer_ebpf::{FlowRecord, Tunnel, TunneledFlowRecord, kind};

use crate::flow::{Scratch, Seen, Skb};
use crate::maps::{FLOW_SCRATCH, FLOWS, FirstFragments};
use crate::record::{add_alone, write};
use core::mem::MaybeUninit;
use observer_ebpf::Counters;

/// How many tunnels are followed: one inside the other.
const DEPTH: u32 = 2;

/// Goes on to the innermost packet. `network` is where the IP header of the packet parsed so far stands.
///
/// # Safety
/// `scratch` must be this CPU's. It is no reference, since the function called here writes it too.
#[inline(always)]
pub(crate) unsafe fn unwrap(skb: *mut __sk_buff, scratch: *mut Scratch, network: u32) {
    // SAFETY: as the caller says.
    unsafe {
        (*scratch).network = network;
        (*scratch).seen.tunneled = 0;
        for _ in 0..DEPTH {
            if !may_carry(&(*scratch).packet) || observer_unwrap(skb) == 0 {
                return;
            }
        }
    }
}

pub(crate) const READ: u64 = 0;
pub(crate) const NOT_IP: u64 = 1;
const MALFORMED: u64 = 2;

/// Reads the packet at `offset` into [`Scratch::inner`]: [`READ`], [`NOT_IP`] or malformed.
///
/// A global function, which the verifier checks by itself and once: checked again on every way that leads here it is too
/// much for the verifiers before 6.8. Such a function may be given numbers and the context only (before 5.12).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_read_ip(skb: *mut __sk_buff, ether_type: u32, offset: u32) -> u64 {
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return MALFORMED };
    // SAFETY: this CPU's memory; flow programs run with softirqs off, and their caller keeps no reference to `inner`.
    let inner = unsafe { &mut (*scratch).inner };
    match parse::ip(&Skb(skb), &mut FirstFragments, ether_type as u16, offset, inner) {
        Ok(()) => READ,
        Err(Unparsed::NotIp) => NOT_IP,
        Err(Unparsed::Malformed) => MALFORMED,
    }
}

/// Global as the other, and rarely needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn observer_unwrap(skb: *mut __sk_buff) -> u64 {
    let bytes = Skb(skb);
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    let Some(inside) = tunnel::inside(&bytes, scratch.network, &scratch.packet) else { return 0 };
    let (mut ether_type, mut offset, mut macs) = (inside.ether_type, inside.offset, None);
    if ether_type == ETH_FRAME {
        let mut header = [0; 14];
        if bytes.read(offset, &mut header).is_none() {
            return 0;
        }
        ether_type = u16::from_be_bytes([header[12], header[13]]);
        macs = Some(header);
        let Some(found) = parse::ethernet(&bytes, ether_type, offset + 14, &mut scratch.seen.vlan_tci) else {
            return 0;
        };
        (ether_type, offset) = found;
    }
    // What is no packet after all leaves the outer one as it is.
    if observer_read_ip(skb, u32::from(ether_type), offset) != READ {
        return 0;
    }
    if scratch.seen.tunneled == 0 {
        scratch.tunnel = Tunnel {
            tuple: scratch.packet.tuple,
            vni: inside.vni,
            kind: inside.kind,
            from_remote: 0,
            pad: [0; 2],
        };
    }
    scratch.packet = scratch.inner;
    scratch.network = offset;
    scratch.seen.tunneled = 1;
    scratch.seen.ethernet = macs.is_some();
    if let Some(header) = macs {
        scratch.head.destination_mac.copy_from_slice(&header[..6]);
        scratch.head.source_mac.copy_from_slice(&header[6..12]);
    }
    1
}

/// Writes a flow record, with its tunnel where there is one. That is no `Option`: LLVM may test what made it, and verifiers
/// up to 6.1's don't know that the two belong together.
#[inline(always)]
pub(crate) fn write_flow(
    counters: *mut Counters,
    seen: &Seen,
    tunnel: &Tunnel,
    fill: impl FnOnce(&mut MaybeUninit<FlowRecord>),
) {
    if seen.tunneled == 0 {
        return write(&FLOWS, counters, add_alone, fill);
    }
    write(&FLOWS, counters, add_alone, |record: &mut MaybeUninit<TunneledFlowRecord>| {
        let record = record.as_mut_ptr();
        // SAFETY: the record's memory is that of the ring; each field is written before it is submitted.
        unsafe {
            fill(&mut *(&raw mut (*record).flow).cast());
            (*record).flow.header.kind = kind::TUNNELED_FLOW;
            (*record).flow.header.size = size_of::<TunneledFlowRecord>() as u16;
            (&raw mut (*record).tunnel).write(*tunnel);
        }
    });
}

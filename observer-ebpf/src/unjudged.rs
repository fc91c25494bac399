//! In the place of `judge` where no policies are given: nothing of it is in the object.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::LruHashMap;
use observer_ebpf::parse::Packet;
use observer_ebpf::{Counters, FlowRecord, FlowValue};

use crate::flow::{Scratch, TCX_NEXT, count, meet};
use crate::payload;

pub(crate) const JUDGING: bool = false;
pub(crate) const MARK: [u32; 2] = [0; 2];

/// A full table loses the connection that was used least lately.
pub(crate) type FlowTable<K, V, const N: usize> = LruHashMap<K, V, N>;

/// Counts the packet.
#[inline(always)]
pub(crate) fn follow(skb: *mut __sk_buff, counters: *mut Counters, scratch: &mut Scratch) -> i32 {
    let value = track(counters, scratch);
    // SAFETY: it is of this packet.
    unsafe { payload::look(skb, scratch, value) };
    TCX_NEXT
}

/// Not inlined: its stack and that of [`crate::carried::unwrap`] are too much together.
#[inline(never)]
fn track(counters: *mut Counters, scratch: &mut Scratch) -> *mut FlowValue {
    let Some((value, standing)) = meet(counters, scratch) else { return core::ptr::null_mut() };
    // SAFETY: both are of this packet.
    unsafe { count(counters, scratch, value, standing) };
    value
}

#[inline(always)]
pub(crate) fn read_ahead() {}

#[inline(always)]
pub(crate) fn known_opener(_: &Packet, _: bool, _: u64) -> Option<bool> {
    None
}

#[inline(always)]
pub(crate) fn is_judged() -> bool {
    false
}

#[inline(always)]
pub(crate) fn write_judged(_: *mut Counters, _: impl FnOnce(&mut MaybeUninit<FlowRecord>)) {}

//! In the place of `judge` where no policies are given: nothing of it is in the object.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::LruHashMap;
use observer_ebpf::{Counters, FlowRecord, FlowValue};

use crate::flow::{Scratch, TCX_NEXT};

pub(crate) const JUDGING: bool = false;
pub(crate) const MARK: [u32; 2] = [0; 2];

/// A full table loses the connection that was used least lately.
pub(crate) type FlowTable<K, V, const N: usize> = LruHashMap<K, V, N>;

#[inline(always)]
pub(crate) unsafe fn judge(_: *mut __sk_buff, _: *const Scratch, _: *mut FlowValue, standing: u16) -> u16 {
    standing
}

#[inline(always)]
pub(crate) unsafe fn judge_alone(_: *mut __sk_buff, _: *mut Counters, _: *mut Scratch) -> i32 {
    TCX_NEXT
}

#[inline(always)]
pub(crate) unsafe fn deny(
    _: *mut __sk_buff,
    _: *mut Counters,
    _: *const Scratch,
    _: *mut FlowValue,
    _: u16,
) -> i32 {
    TCX_NEXT
}

#[inline(always)]
pub(crate) fn is_judged() -> bool {
    false
}

#[inline(always)]
pub(crate) fn write_judged(_: *mut Counters, _: impl FnOnce(&mut MaybeUninit<FlowRecord>)) {}

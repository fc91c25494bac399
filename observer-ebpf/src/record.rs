//! Counting, and writing records into the rings.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use observer_ebpf::{ABI_VERSION, Config, Counters, Header};

use crate::maps::COUNTERS;

/// Adds to a counter that another CPU, or a program nested on this one, may be adding to.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, value: u64) {
    // core has no fetch_add for this target, which is declared without compare-and-swap.
    // SAFETY: every caller points at an aligned u64 inside a map value, which lives as long as the program runs.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value, options(nostack)) };
}

/// Adds to a per-CPU counter of a flow program: these run with softirqs off, on the CPU by themselves, and a locked add
/// would cost them 5 ns each.
#[inline(always)]
pub(crate) fn add_alone(counter: *mut u64, value: u64) {
    // SAFETY: as in `add`.
    unsafe { *counter += value };
}

/// This CPU's counters of a program of [`observer_ebpf::program`].
#[inline(always)]
pub(crate) fn counters(program: u32) -> Option<*mut Counters> {
    COUNTERS.get_ptr_mut(program)
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The time of the last tick, up to 10 ms ago, where the kernel tells it (5.11 on): it costs a tenth.
#[inline(always)]
pub(crate) fn clock(config: &Config) -> u64 {
    if config.coarse_clock == 0 {
        return now();
    }
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[inline(always)]
pub(crate) fn header<T>(kind: u8, time_ns: u64) -> Header {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Header { kind, version: ABI_VERSION, size: size_of::<T>() as u16, cpu, time_ns }
}

/// Writes a record, with the books kept by `add` or `add_alone`: made = submitted + `ring_full`. `fill` writes it where it
/// stands in the ring, since two records would fill half the stack.
#[inline(always)]
pub(crate) fn write<T: 'static, R, const SIZE: usize>(
    ring: &RingBuf<R, SIZE>,
    counters: *mut Counters,
    add: impl Fn(*mut u64, u64),
    fill: impl FnOnce(&mut MaybeUninit<T>),
) {
    // SAFETY: `counters` is a map value, see `counters`; only field addresses are taken.
    let (made, submitted, lost) = unsafe {
        (&raw mut (*counters).made, &raw mut (*counters).submitted, &raw mut (*counters).ring_full)
    };
    add(made, 1);
    let Some(mut entry) = ring.reserve_untyped::<T>(0) else {
        add(lost, 1);
        return;
    };
    fill(&mut entry);
    // Wakes the reader where it has taken everything before this record: while it lets a batch gather, by the first one
    // only.
    entry.submit(0);
    add(submitted, 1);
}

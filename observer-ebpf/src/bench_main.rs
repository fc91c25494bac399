//! The eBPF programs that benches need beside those that they measure; the daemon never loads them. Built as those of `main`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")
)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::btf_maps::{Array, ProgramArray};
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;
    use observer_ebpf::bench::Varied;

    const TCX_NEXT: i32 = -1;

    /// How packets vary; one entry.
    #[btf_map]
    static VARIED: Array<Varied, 1> = Array::new();

    /// The program that is given them; one entry.
    #[btf_map]
    static MEASURED: ProgramArray<1> = ProgramArray::new();

    /// What a run costs by itself: the others are measured over it.
    #[classifier]
    pub(crate) fn observer_nothing(_: TcContext) -> i32 {
        TCX_NEXT
    }

    /// Makes each run's packet one of another connection, and hands it on.
    #[classifier]
    pub(crate) fn observer_varied(ctx: TcContext) -> i32 {
        let Some(varied) = VARIED.get_ptr_mut(0) else { return TCX_NEXT };
        // SAFETY: one test runs at a time; the map's value outlives the run.
        let (address, port) = unsafe {
            (*varied).port = (*varied).port.wrapping_add((*varied).step);
            let mut state = (*varied).state;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (*varied).state = state;
            // 0 pods: always the first.
            let pod = ((state >> 32) * u64::from((*varied).pods)) >> 32;
            (((*varied).first + pod as u32).to_be(), (*varied).port.to_be())
        };
        // SAFETY: as above.
        let (address_at, port_at) = unsafe { ((*varied).address_at as usize, (*varied).port_at as usize) };
        let stored = ctx.store(address_at, &address, 0).and_then(|()| ctx.store(port_at, &port, 0));
        if stored.is_ok() {
            // SAFETY: both programs are for packets.
            unsafe { MEASURED.tail_call(&ctx, 0) };
        }
        // Nobody is to be measured where nobody was called.
        0
    }
}

/// As in `main`.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// As in `main`.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

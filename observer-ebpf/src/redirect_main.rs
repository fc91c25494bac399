//! The way to the proxy by itself, without policies: connections to chosen addresses are handed over. It proves on a
//! kernel that the way works, for tests; the daemon never loads it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a key passed by value is copied to the stack"
    ),
    expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value"),
    expect(
        clippy::inline_always,
        reason = "a subprogram would lose what the verifier knows of its arguments"
    )
)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod redirect;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::__sk_buff;
    use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
    use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;
    use observer_ebpf::parse::{self, Bytes, Fragments, Packet, TCP};
    use observer_ebpf::proxy::{LinkWay, ProxyState, way};
    use observer_ebpf::{FragmentKey, Tuple};

    use crate::redirect::{behind_bridge, first, further, is_from_proxy, is_to_proxy};

    const TCX_NEXT: i32 = -1;
    const TCX_DROP: i32 = 2;
    const ETHERNET: u32 = 14;
    const SYN: u8 = 2;
    const ACK: u8 = 16;

    #[btf_map]
    static PROXY: Array<ProxyState, 1> = Array::new();

    #[btf_map]
    static WAYS: HashMap<u32, LinkWay, 64> = HashMap::new();

    /// What is handed over: only the destination counts.
    #[btf_map]
    static DESTINATIONS: HashMap<Tuple, u32, 64> = HashMap::new();

    /// The ends of packets, as they come in, whose connection the proxy has.
    #[btf_map]
    static PROXIED: LruHashMap<Tuple, u32, 16_384> = LruHashMap::new();

    #[btf_map]
    static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

    #[repr(C, align(8))]
    struct Work {
        packet: Packet,
        key: Tuple,
    }

    struct Skb(*mut __sk_buff);

    impl Bytes for Skb {
        #[inline(always)]
        fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()> {
            // SAFETY: the helper writes N bytes or none.
            let failed =
                unsafe { bpf_skb_load_bytes(self.0.cast(), offset, into.as_mut_ptr().cast(), N as u32) };
            (failed == 0).then_some(())
        }
    }

    struct NoFragments;

    impl Fragments for NoFragments {
        #[inline(always)]
        fn ports(&self, _: &FragmentKey) -> Option<&[u16; 2]> {
            None
        }
        #[inline(always)]
        fn keep(&mut self, _: &FragmentKey, _: [u16; 2]) {}
    }

    #[classifier]
    pub(crate) fn observer_redirect(ctx: TcContext) -> i32 {
        let skb = ctx.skb.skb;
        // SAFETY: a program's context, and this CPU's memory.
        unsafe {
            let Some(Work { packet, key }) = tcp(skb) else { return TCX_NEXT };
            let ifindex = (*skb).ifindex;
            let Some(link) = WAYS.get(&ifindex) else { return TCX_NEXT };
            let Some(ports) = PROXY.get(0) else { return TCX_NEXT };
            let ipv4 = packet.tuple.ip_version == 4;
            let begins = packet.tcp_flags & (SYN | ACK) == SYN;
            if link.way == way::BRIDGE {
                if is_to_proxy(skb) {
                    behind_bridge(skb, ipv4, false, ports);
                }
                return TCX_NEXT;
            }
            if begins {
                *key = Tuple { source: [0; 16], source_port: 0, ..packet.tuple };
                if DESTINATIONS.get(&*key).is_some() {
                    if !first(skb, ipv4, false, ports, link) {
                        return TCX_DROP;
                    }
                    *key = packet.tuple;
                    let _ = PROXIED.insert(&*key, 1, 0);
                }
                return TCX_NEXT;
            }
            *key = packet.tuple;
            if PROXIED.get(&*key).is_some() {
                further(skb, link);
            }
        }
        TCX_NEXT
    }

    #[classifier]
    pub(crate) fn observer_redirected(ctx: TcContext) -> i32 {
        let skb = ctx.skb.skb;
        // SAFETY: a program's context, and this CPU's memory.
        unsafe {
            let Some(Work { packet, key }) = tcp(skb) else { return TCX_NEXT };
            if packet.tcp_flags & (SYN | ACK) == SYN && is_from_proxy(skb) {
                let Tuple { source, destination, source_port, destination_port, .. } = packet.tuple;
                *key = Tuple {
                    source: destination,
                    destination: source,
                    source_port: destination_port,
                    destination_port: source_port,
                    ..packet.tuple
                };
                let _ = PROXIED.insert(&*key, 1, 0);
            }
        }
        TCX_NEXT
    }

    #[inline(always)]
    unsafe fn tcp(skb: *mut __sk_buff) -> Option<&'static mut Work> {
        // SAFETY: this CPU's memory; programs run with softirqs off.
        let work = unsafe { &mut *WORK.get_ptr_mut(0)? };
        // SAFETY: a program's context.
        let ether_type = u16::from_be(unsafe { (*skb).protocol } as u16);
        parse::ip(&Skb(skb), &mut NoFragments, ether_type, ETHERNET, &mut work.packet).ok()?;
        (work.packet.tuple.protocol == TCP).then_some(work)
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

//! Facts about TCP connections that no packet shows by itself: segments sent again, connects that failed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use observer_ebpf::parse::{TCP, mapped};
use observer_ebpf::{FactKey, FactValue, Tuple, program};

use crate::config::offsets;
use crate::drop::field;
use crate::maps::FACTS;
use crate::record::{add, counters, now};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;
const BPF_NOEXIST: u64 = 1;

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn observer_retransmit(ctx: BtfTracePointContext) -> i32 {
    count(ctx.arg(0), false);
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn observer_socket_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if old == TCP_SYN_SENT && new == TCP_CLOSE {
        count(ctx.arg(0), true);
    }
    0
}

#[inline(always)]
fn count(sk: *const u8, failed_connect: bool) {
    let Some(counters) = counters(program::FACTS) else { return };
    let offsets = offsets();
    // SAFETY: `sk` is a BTF pointer of the context and the offsets are frozen, so the verifier has checked each load.
    unsafe {
        add(&raw mut (*counters).runs, 1);
        let family: u16 = *sk.add(offsets.sk_family as usize).cast();
        let mut tuple = Tuple { protocol: TCP, ..Tuple::default() };
        match family {
            AF_INET => {
                tuple.ip_version = 4;
                tuple.source = mapped(*sk.add(offsets.sk_rcv_saddr as usize).cast::<u32>().cast::<[u8; 4]>());
                tuple.destination = mapped(*sk.add(offsets.sk_daddr as usize).cast::<[u8; 4]>());
            }
            AF_INET6 => {
                tuple.source = *sk.add(offsets.sk_v6_rcv_saddr as usize).cast();
                tuple.destination = *sk.add(offsets.sk_v6_daddr as usize).cast();
                let v4 = tuple.destination[..10] == [0; 10] && tuple.destination[10..12] == [0xff; 2];
                tuple.ip_version = if v4 { 4 } else { 6 };
            }
            _ => return,
        }
        // Not `skc_num`: a socket that closes has given its port back before its state changes. Behind `struct sock`, where
        // BTF allows no direct load.
        tuple.source_port = u16::from_be(field::<false, u16>(sk, offsets.inet_sport));
        tuple.destination_port = u16::from_be(*sk.add(offsets.sk_dport as usize).cast());
        let net: *const u8 = *sk.add(offsets.sk_net as usize).cast();
        let key = FactKey { tuple, netns: *net.add(offsets.net_inum as usize).cast() };
        let mut value = FACTS.get_ptr_mut(&key);
        if value.is_none() {
            let _ = FACTS.insert(&key, FactValue::default(), BPF_NOEXIST);
            value = FACTS.get_ptr_mut(&key);
        }
        let Some(value) = value else {
            add(&raw mut (*counters).table_full, 1);
            return;
        };
        if failed_connect {
            add(&raw mut (*value).failed_connects, 1);
        } else {
            add(&raw mut (*value).retransmits, 1);
        }
        (*value).last_ns = now();
    }
}

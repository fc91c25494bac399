//! Connections over IPv6 that have one short key: the second one stands in the table of all others.

use observer_ebpf::folded;
use observer_ebpf::policy::{OTHERS, side};

use super::errors::error;
use super::*;
use crate::support::skip;

const SERVER: &str = "2001:db8::9";
/// Folded as [`SERVER`] is; found by dividing by the last number that [`folded`] multiplies with.
const TWIN: &str = "2001:db8::c38e:d3d5:52cd:aadb";

#[test]
fn each_is_judged_and_counted_by_itself() {
    if skip() {
        return;
    }
    let [one, other] = [SERVER, TWIN].map(|address| folded(zerocopy::transmute!(bytes(address))));
    assert_eq!(one, other);
    let allowed = |to: &[(&str, u32)]| {
        let mut world = World::new();
        for side in [side::EGRESS, side::INGRESS] {
            world = world.row(1, side, OTHERS, &all(DEFAULT));
        }
        for &(address, peer) in to {
            world.0.nets.insert((128, bytes(address)), peer);
            world = world.row(1, side::EGRESS, peer, &only(80, ALLOWED));
        }
        world
    };
    let to = |server, flags| tcp("fd00::1", server, 40_000, 80, flags);
    let from = |server, flags| tcp(server, "fd00::1", 80, 40_000, flags);
    for (first, second) in [(SERVER, TWIN), (TWIN, SERVER)] {
        let mut judging = Judging::new(allowed(&[(first, 20)]));
        assert!(!judging.see(FROM_POD, &to(first, SYN)).dropped);
        assert!(!judging.see(TO_POD, &from(first, SYN | ACK)).dropped);
        assert!(judging.see(FROM_POD, &to(second, SYN)).dropped);
        assert!(judging.see(FROM_POD, &to(second, ACK)).dropped, "it is not the other's");
        let router = "2001:db8::1";
        assert!(!judging.see(TO_POD, &error(router, "fd00::1", &to(first, SYN))).dropped);
        assert!(judging.see(TO_POD, &error(router, "fd00::1", &to(second, SYN))).dropped);

        judging.put(allowed(&[(first, 20), (second, 21)]));
        assert!(!judging.see(FROM_POD, &to(first, ACK)).dropped);
        let begun = judging.see(FROM_POD, &to(second, SYN)).flow.unwrap();
        assert_eq!(
            (begun.packets, begun.tuple.destination),
            (1, bytes(second)),
            "what was dropped is not sent"
        );
        assert!(!judging.see(TO_POD, &from(second, SYN | ACK)).dropped);
        for (server, packets) in [(first, 3), (second, 2)] {
            assert_eq!(judging.see(FROM_POD, &to(server, ACK | FIN)).flow.unwrap().packets, packets);
        }
    }
}

//! ICMP errors, and packets inside others.

use observer_ebpf::parse::mapped;
use observer_ebpf::policy::{OTHERS, side};

use super::*;
use crate::support::skip;

/// An ICMP error about a packet, of which it has the IP header and eight bytes.
pub(super) fn error(from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let (protocol, icmp_type, header) = if about[12] == 8 { (1, 3, 20) } else { (58, 1, 40) };
    let quoted = &about[14..14 + header + 8];
    packet(from, to, protocol, &[&[icmp_type, 4, 0, 0, 0, 0, 0, 0][..], quoted].concat())
}

#[test]
fn an_error_passes_with_the_connection_that_it_is_about() {
    if skip() {
        return;
    }
    let world = World::new().row(1, side::EGRESS, OTHERS, &only(80, ALLOWED)).row(
        1,
        side::INGRESS,
        OTHERS,
        &all(DEFAULT),
    );
    let mut judging = Judging::new(world);
    for (pod, server, router) in
        [("10.0.0.1", "203.0.113.9", "198.51.100.1"), ("fd00::1", "2001:db8::9", "2001:db8::1")]
    {
        let allowed = tcp(pod, server, 40_000, 80, SYN);
        assert!(!judging.see(FROM_POD, &allowed).dropped);
        assert!(!judging.see(TO_POD, &error(router, pod, &allowed)).dropped, "a smaller MTU, {pod}");
        let denied = tcp(pod, server, 40_000, 81, SYN);
        assert!(judging.see(FROM_POD, &denied).dropped);
        for about in [&denied, &tcp(pod, server, 40_001, 80, SYN), &tcp(server, pod, 40_000, 80, SYN)] {
            assert!(judging.see(TO_POD, &error(router, pod, about)).dropped);
        }
        // The pod's own errors, about what it was sent.
        let reply = tcp(server, pod, 80, 40_000, ACK);
        assert!(!judging.see(TO_POD, &reply).dropped);
        assert!(!judging.see(FROM_POD, &error(pod, server, &reply)).dropped);
    }
}

/// VXLAN's network 7, from a node to another.
fn carried(from: &str, to: &str, inside: &[u8]) -> Vec<u8> {
    let header = [&ports(50_000, 8472)[..], &[0; 4], &[8, 0, 0, 0, 0, 0, 7, 0]].concat();
    packet(from, to, 17, &[&header[..], inside].concat())
}

#[test]
fn what_nodes_carry_for_others_is_none_of_theirs() {
    if skip() {
        return;
    }
    let world = World::new()
        .row(HOST, side::EGRESS, OTHERS, &all(DEFAULT))
        .row(HOST, side::INGRESS, OTHERS, &all(DEFAULT))
        .row(1, side::EGRESS, OTHERS, &all(DEFAULT))
        .row(3, side::EGRESS, OTHERS, &all(DEFAULT))
        .row(3, side::EGRESS, 2, &all(ALLOWED));
    let mut judging = Judging::new(world);
    let syn = tcp("10.0.0.1", "10.0.0.2", 40_000, 80, SYN);
    let arp = ethernet(0x0806, &[0; 28]);
    for inside in [&syn, &arp] {
        assert!(!judging.see(HOST_TO_WORLD, &carried(NODE, "10.0.1.254", inside)).dropped);
        assert!(!judging.see(FROM_WORLD, &carried("10.0.1.254", NODE, inside)).dropped);
        assert!(judging.see(HOST_TO_WORLD, &carried(NODE, "203.0.113.9", inside)).dropped);
    }
    // A pod's own tunnel is what its outer ends are.
    let outcome = judging.see(FROM_POD, &carried("10.0.0.1", "10.0.0.2", &syn));
    let tuple = outcome.denied.unwrap().drop.tuple;
    assert_eq!((tuple.protocol, tuple.destination_port, tuple.source), (17, 8472, mapped([10, 0, 0, 1])));
    // Whatever passed inside another.
    for (to, dropped) in [("10.0.0.2", false), ("10.0.0.1", true), ("10.0.0.2", false)] {
        assert_eq!(judging.see(FROM_POD, &carried("10.0.0.3", to, &syn)).dropped, dropped, "{to}");
    }
}

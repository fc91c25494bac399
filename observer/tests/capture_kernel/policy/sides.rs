//! Whose sides are asked, where, and what they say.

use observer_ebpf::policy::{OTHERS, POLICY_DENIED, POLICY_DENY, PolicyBackends, decision, side};
use observer_ebpf::{drop_flags, flow_reason, hook, link_kind};

use super::*;
use crate::support::skip;

const EGRESS: usize = side::EGRESS;
const INGRESS: usize = side::INGRESS;

#[test]
fn a_pods_egress_is_asked_where_it_enters_the_node() {
    if skip() {
        return;
    }
    let world = World::new()
        .row(1, EGRESS, OTHERS, &all(DEFAULT))
        .row(1, EGRESS, 2, &only(80, ALLOWED))
        .row(1, EGRESS, WORLD, &all(BY_RULE))
        .row(2, INGRESS, OTHERS, &all(DEFAULT));
    let mut judging = Judging::new(world);
    for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let allowed = judging.see(FROM_POD, &tcp(from, to, 40_000, 80, SYN));
        assert!(!allowed.dropped);
        assert_eq!(
            allowed.sides(),
            Some((ALLOWED, 0)),
            "the other side is asked at its own link: {allowed:?}"
        );
        let flow = allowed.flow.unwrap();
        assert_eq!((flow.reason, flow.tuple.destination_port, flow.packets), (flow_reason::NEW, 80, 1));
        let denied = judging.see(FROM_POD, &tcp(from, to, 40_000, 81, SYN));
        assert_eq!(denied.sides(), Some((DEFAULT, 0)));
        let record = denied.denied.unwrap();
        assert_eq!((record.drop.reason, record.drop.netns), (POLICY_DENIED, 77));
        assert_eq!((record.hook, record.link_kind), (hook::INGRESS, link_kind::POD));
        assert_eq!((record.drop.packets, record.drop.flags), (1, drop_flags::PARSED));
        assert_eq!((record.drop.tuple.source, record.drop.tuple.destination), (bytes(from), bytes(to)));
        assert_eq!((record.drop.tuple.destination_port, record.drop.tcp_flags), (81, SYN));
        assert_eq!(record.source_mac, [2, 0, 0, 0, 0, 1]);
        assert!(judging.see(FROM_POD, &udp(from, to, 40_000, 80)).dropped);
    }
    let denied = judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN));
    assert_eq!(denied.denied.unwrap().drop.reason, POLICY_DENY);
    assert_eq!(
        judging.see(FROM_POD, &tcp("10.0.0.1", "10.0.0.3", 40_000, 80, SYN)).sides(),
        Some((DEFAULT, 0))
    );
    // Nothing is judged of this one.
    let other = judging.see(FROM_POD, &tcp("10.0.0.3", "203.0.113.9", 40_000, 80, SYN));
    assert!(!other.dropped && other.flow.is_some() && other.judged.is_none(), "{other:?}");
}

#[test]
fn a_pods_ingress_is_asked_where_it_is_delivered() {
    if skip() {
        return;
    }
    let world = World::new()
        .row(2, INGRESS, OTHERS, &all(DEFAULT))
        .row(2, INGRESS, 1, &only(80, ALLOWED))
        .row(2, INGRESS, HOST, &all(ALLOWED))
        .row(1, EGRESS, OTHERS, &all(BY_RULE))
        .row(1, EGRESS, 2, &only(80, ALLOWED))
        .row(HOST, EGRESS, OTHERS, &all(BY_RULE));
    let mut judging = Judging::new(world);
    let syn = |from, port| tcp(from, "10.0.0.2", 40_000, port, SYN);
    assert_eq!(judging.see(TO_POD, &syn("10.0.0.1", 80)).sides(), Some((0, ALLOWED)));
    assert_eq!(judging.see(TO_POD, &syn("203.0.113.9", 80)).sides(), Some((0, DEFAULT)));
    // A pod of this node: its own side is asked again, since a service may have been between.
    judging.set_local(&["10.0.0.1"]);
    assert_eq!(judging.see(TO_POD, &syn("10.0.0.1", 81)).sides(), Some((DEFAULT, DEFAULT)));
    assert_eq!(
        judging.see(TO_POD, &tcp("10.0.0.1", "10.0.0.2", 40_001, 80, SYN)).sides(),
        Some((ALLOWED, ALLOWED))
    );
    // The node's side is asked of what it makes itself, not of what it forwards and translates.
    assert_eq!(judging.see(TO_POD, &syn(NODE, 80)).sides(), Some((0, ALLOWED)));
    assert_eq!(judging.see(HOST_TO_POD, &syn(NODE, 81)).sides(), Some((BY_RULE, ALLOWED)));
}

#[test]
fn replies_are_what_the_first_packet_was() {
    if skip() {
        return;
    }
    let world = World::new()
        .row(1, EGRESS, OTHERS, &all(ALLOWED))
        .row(1, INGRESS, OTHERS, &all(DEFAULT))
        .row(HOST, EGRESS, OTHERS, &only(80, ALLOWED))
        .row(HOST, INGRESS, OTHERS, &all(DEFAULT))
        .row(2, EGRESS, OTHERS, &all(DEFAULT));
    let mut judging = Judging::new(world);
    for (protocol, answer) in [(6, SYN | ACK), (17, 0)] {
        let frame = |from, to, source, destination, flags| match protocol {
            6 => tcp(from, to, source, destination, flags),
            _ => udp(from, to, source, destination),
        };
        let (pod, world) = ("10.0.0.1", "203.0.113.9");
        let asked = judging.see(FROM_POD, &frame(pod, world, 40_000, 80, SYN));
        let answered = judging.see(TO_POD, &frame(world, pod, 80, 40_000, answer));
        assert!(!asked.dropped && !answered.dropped, "{protocol}");
        // The connection begins when its first packet is told, to the nanosecond.
        let (asked, answered) = (asked.flow.unwrap(), answered.flow.unwrap());
        assert_eq!((asked.first_ns, answered.first_ns), (asked.header.time_ns, asked.header.time_ns));
        assert!(judging.see(TO_POD, &frame(world, pod, 80, 40_001, SYN)).dropped, "{protocol}");
    }
    assert!(!judging.see(HOST_TO_WORLD, &tcp(NODE, "203.0.113.9", 40_000, 80, SYN)).dropped);
    assert!(!judging.see(FROM_WORLD, &tcp("203.0.113.9", NODE, 80, 40_000, SYN | ACK)).dropped);
    // Denied connections have no replies.
    assert!(judging.see(FROM_POD, &tcp("10.0.0.2", "203.0.113.9", 40_000, 80, SYN)).dropped);
    assert!(judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.2", 80, 40_000, SYN | ACK)).dropped);
}

#[test]
fn the_host_is_asked_of_what_is_its_own() {
    if skip() {
        return;
    }
    let mut world = World::new()
        .row(HOST, EGRESS, OTHERS, &only(443, ALLOWED))
        .row(HOST, INGRESS, OTHERS, &only(22, ALLOWED))
        .row(1, EGRESS, OTHERS, &only(443, ALLOWED));
    let node_port = PolicyFrontend { address: bytes(NODE), port: 30_000, protocol: 6, pad: 0 };
    world.0.frontends.insert(node_port, PolicyBackends::default());
    let mut judging = Judging::new(world);
    judging.set_local(&["10.0.0.1"]);
    let (outside, other) = ("203.0.113.9", "10.0.1.254");
    for (at, frame, expected) in [
        (HOST_TO_WORLD, tcp(NODE, outside, 40_000, 443, SYN), Some((ALLOWED, 0))),
        (HOST_TO_WORLD, tcp(NODE, outside, 40_000, 80, SYN), Some((DEFAULT, 0))),
        // Forwarded, and translated to the node's address.
        (TO_WORLD, tcp(NODE, outside, 40_001, 80, SYN), None),
        (TO_WORLD, tcp("10.0.0.1", outside, 40_000, 80, SYN), Some((DEFAULT, 0))),
        (TO_WORLD, tcp("10.0.0.2", outside, 40_000, 80, SYN), None),
        (FROM_WORLD, tcp(outside, NODE, 40_000, 22, SYN), Some((0, ALLOWED))),
        (FROM_WORLD, tcp(other, NODE, 40_000, 23, SYN), Some((0, DEFAULT))),
        (FROM_WORLD, tcp(outside, NODE, 40_000, 30_000, SYN), None),
        (FROM_WORLD, tcp(outside, "10.0.0.1", 40_000, 80, SYN), None),
        (FROM_POD, tcp("10.0.0.3", NODE, 40_000, 22, SYN), Some((0, ALLOWED))),
        (FROM_POD, tcp("10.0.0.3", NODE, 40_000, 23, SYN), Some((0, DEFAULT))),
        (FROM_POD, tcp("10.0.0.3", NODE, 40_000, 30_000, SYN), None),
        (FROM_POD, tcp("10.0.0.1", NODE, 40_000, 23, SYN), Some((DEFAULT, DEFAULT))),
    ] {
        let outcome = judging.see(at, &frame);
        // The record is written where the flow is told, so it may be missing where it passes.
        let denied = expected.is_some_and(|(egress, ingress)| (egress | ingress) & decision::DENIED != 0);
        assert_eq!(outcome.dropped, denied, "{outcome:?}");
        assert!(
            outcome.sides() == expected || (outcome.flow.is_none() && !denied),
            "{expected:?} {outcome:?}"
        );
    }
}

#[test]
fn audit_changes_nothing_and_says_what_it_would_be() {
    if skip() {
        return;
    }
    let mut judging = Judging::new(World::new().row(1, EGRESS, OTHERS, &all(AUDITED)));
    let outcome = judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN));
    assert_eq!((outcome.dropped, outcome.sides()), (false, Some((AUDITED, 0))));
    // Said once: what follows has plain records.
    let outcome = judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, ACK));
    assert!(outcome.flow.is_some() && outcome.judged.is_none(), "{outcome:?}");
}

#[test]
fn a_denied_packet_is_told_once_and_summed_then() {
    if skip() {
        return;
    }
    let mut judging = Judging::new(World::new().row(1, EGRESS, OTHERS, &all(DEFAULT)));
    let syn = tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN);
    assert!(judging.see(FROM_POD, &syn).denied.is_some());
    for _ in 0..4 {
        let again = judging.see(FROM_POD, &syn);
        assert!(again.dropped && again.denied.is_none(), "{again:?}");
    }
    assert_eq!(judging.counted(|counters| counters.summed), 4);
    assert_eq!(judging.counted(|counters| counters.made), 1);
}

//! Pods that nobody knows, traffic that nobody is asked about, packets without a connection.

use aya::maps::Array;
use observer_ebpf::policy::{OTHERS, cut_key, decision, side};
use observer_ebpf::proxy::ProxyState;
use observer_ebpf::{ShortValue, flow_flags};

use super::*;
use crate::support::skip;

const EGRESS: usize = side::EGRESS;
const INGRESS: usize = side::INGRESS;
const UNKNOWN: u32 = decision::JUDGED | decision::UNKNOWN;

#[test]
fn a_pod_that_nobody_knows_is_said_to_be_or_refused() {
    if skip() {
        return;
    }
    for refused in [0, 1] {
        let config = Config { unknown_denied: refused, ..Config::default() };
        let mut judging = Judging::with(World::new(), config, 64);
        let expected = UNKNOWN | if refused == 1 { decision::DENIED } else { 0 };
        let sends = judging.see(FROM_POD, &tcp("10.0.0.77", "203.0.113.9", 40_000, 80, SYN));
        assert_eq!((sends.dropped, sends.sides()), (refused == 1, Some((expected, 0))));
        let is_sent = judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.77", 40_000, 80, SYN));
        assert_eq!((is_sent.dropped, is_sent.sides()), (refused == 1, Some((0, expected))));
    }
}

#[test]
fn neighbours_and_groups_are_found_whatever_policies_say() {
    if skip() {
        return;
    }
    let world = World::new().row(1, EGRESS, OTHERS, &all(DEFAULT)).row(1, INGRESS, OTHERS, &all(DEFAULT));
    let mut judging = Judging::new(world);
    let message = |icmp_type| [icmp_type, 0, 0, 0, 0, 0, 0, 0];
    for icmp_type in (130..=137).chain([143]) {
        assert!(!judging.see(FROM_POD, &packet("fd00::1", "ff02::1", 58, &message(icmp_type))).dropped);
        assert!(!judging.see(TO_POD, &packet("fd00::9", "fd00::1", 58, &message(icmp_type))).dropped);
    }
    // These share their entry.
    assert!(judging.see(FROM_POD, &packet("fd00::1", "ff02::1", 58, &message(138))).dropped);
    assert!(!judging.see(FROM_POD, &packet("fd00::1", "ff02::1", 58, &message(135))).dropped);
    assert!(!judging.see(FROM_POD, &udp("10.0.0.1", "10.0.0.1", 40_000, 80)).dropped);
    assert!(!judging.see(FROM_POD, &ethernet(0x0806, &[0; 28])).dropped);
    // What is for many is asked of the sender alone.
    assert!(!judging.see(TO_POD, &udp("10.0.0.9", "224.0.0.251", 5353, 5353)).dropped);
    assert!(judging.see(FROM_POD, &udp("10.0.0.1", "224.0.0.251", 5353, 5353)).dropped);
}

#[test]
fn echoes_are_asked_by_their_request() {
    if skip() {
        return;
    }
    let v4 = [(0, DEFAULT), (cut_key(1, 8), ALLOWED), (cut_key(1, 9), DEFAULT)];
    let v6 = [(0, DEFAULT), (cut_key(58, 128), ALLOWED), (cut_key(58, 129), DEFAULT)];
    let both = [&v4[..], &v6[1..]].concat();
    let world = World::new().row(1, EGRESS, OTHERS, &both).row(1, INGRESS, OTHERS, &all(DEFAULT));
    let mut judging = Judging::new(world);
    let echo = |icmp_type, id: u8| [icmp_type, 0, 0, 0, 0, id, 0, 1];
    for (pod, other, protocol, request, reply) in
        [("10.0.0.1", "10.0.0.9", 1, 8, 0), ("fd00::1", "fd00::9", 58, 128, 129)]
    {
        assert!(!judging.see(FROM_POD, &packet(pod, other, protocol, &echo(request, 1))).dropped);
        assert!(!judging.see(TO_POD, &packet(other, pod, protocol, &echo(reply, 1))).dropped);
        assert!(judging.see(TO_POD, &packet(other, pod, protocol, &echo(request, 2))).dropped);
        assert!(judging.see(FROM_POD, &packet(pod, other, protocol, &[5, 0, 0, 0, 0, 0, 0, 0])).dropped);
    }
}

#[test]
fn who_was_pinged_may_not_ping_back() {
    if skip() {
        return;
    }
    // The pod may ask nobody, and be asked by anybody.
    let world = World::new().row(1, EGRESS, OTHERS, &all(DEFAULT)).row(1, INGRESS, OTHERS, &all(ALLOWED));
    let mut judging = Judging::new(world);
    let echo = |icmp_type, id: u8| [icmp_type, 0, 0, 0, 0, id, 0, 1];
    for (pod, other, protocol, request, reply) in [
        ("10.0.0.1", "10.0.0.9", 1, 8, 0),
        ("10.0.0.1", "10.0.0.8", 1, 13, 14),
        ("fd00::1", "fd00::9", 58, 128, 129),
    ] {
        // Of other ICMP the identifier is 0, too.
        let unreachable = [if protocol == 1 { 3 } else { 1 }, 0, 0, 0, 0, 0, 0, 0];
        assert!(!judging.see(TO_POD, &packet(other, pod, protocol, &unreachable)).dropped);
        for id in [0, 1, request, 255] {
            let asked = judging.see(TO_POD, &packet(other, pod, protocol, &echo(request, id)));
            assert!(!asked.dropped, "{request} {id}");
            let back = judging.see(FROM_POD, &packet(pod, other, protocol, &echo(request, id)));
            assert!(back.dropped, "{request} {id}");
            assert_eq!(back.sides(), Some((DEFAULT, 0)));
            let answered = judging.see(FROM_POD, &packet(pod, other, protocol, &echo(reply, id)));
            assert!(!answered.dropped, "{request} {id}");
            // One connection, with the identifier as both ports.
            let [asked, answered] = [asked, answered].map(|outcome| outcome.flow.unwrap());
            assert_eq!(
                [asked.flags, answered.flags].map(|flags| flags & flow_flags::REPLY != 0),
                [false, true]
            );
            assert_eq!(asked.first_ns, answered.first_ns);
            for flow in [asked, answered] {
                assert_eq!((flow.tuple.source_port, flow.tuple.destination_port), (id.into(), id.into()));
            }
        }
    }
    // What one kind of echo may, another need not.
    let ping = [(0, DEFAULT), (cut_key(1, 8), ALLOWED), (cut_key(1, 9), DEFAULT)];
    judging.put(World::new().row(1, EGRESS, OTHERS, &ping));
    assert!(!judging.see(FROM_POD, &packet("10.0.0.1", "10.0.0.9", 1, &echo(8, 7))).dropped);
    assert!(judging.see(FROM_POD, &packet("10.0.0.1", "10.0.0.9", 1, &echo(13, 7))).dropped);
}

#[test]
fn fragments_follow_their_first() {
    if skip() {
        return;
    }
    let mut judging = Judging::new(World::new().row(
        1,
        EGRESS,
        OTHERS,
        &[(0, DEFAULT), (cut_key(17, 53), ALLOWED), (cut_key(17, 54), DEFAULT)],
    ));
    for (port, dropped) in [(53, false), (54, true)] {
        let to = format!("203.0.113.{port}");
        let first = [&ports(40_000, port)[..], &[0, 200, 0, 0]].concat();
        let first = judging.see(FROM_POD, &fragment("10.0.0.1", &to, 17, 0x2000, &first));
        let later = judging.see(FROM_POD, &fragment("10.0.0.1", &to, 17, 185, b"the rest of it"));
        assert_eq!((first.dropped, later.dropped), (dropped, dropped));
    }
    // A first fragment that has the ports and no more: who sends it opens.
    let world =
        World::new().row(1, EGRESS, OTHERS, &only(80, ALLOWED)).row(1, INGRESS, OTHERS, &all(ALLOWED));
    let mut judging = Judging::new(world);
    for (source, port, dropped) in [(40_000, 80, false), (40_000, 81, true), (81, 40_000, true)] {
        let to = format!("203.0.113.{}", port % 100);
        let first = [&ports(source, port)[..], &[0; 4]].concat();
        assert_eq!(judging.see(FROM_POD, &fragment("10.0.0.1", &to, 6, 0x2000, &first)).dropped, dropped);
        let flags = [&[0; 4][..], &[0x50, SYN, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(judging.see(FROM_POD, &fragment("10.0.0.1", &to, 6, 1, &flags)).dropped, dropped);
    }
    // Nobody is given it without its first fragment.
    assert!(
        !judging.see(FROM_POD, &fragment("10.0.0.1", "203.0.113.99", 17, 185, b"the rest of it")).dropped
    );
}

#[test]
fn a_connection_met_midway_passes_if_either_end_may_have_opened_it() {
    if skip() {
        return;
    }
    let world =
        World::new().row(1, EGRESS, OTHERS, &all(DEFAULT)).row(1, INGRESS, OTHERS, &only(9_999, ALLOWED));
    let mut judging = Judging::new(world);
    // By its ports the pod opened it, which is wrong: it may not.
    let met = judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 9_999, 80, ACK));
    assert!(!met.dropped, "{met:?}");
    let flags = met.flow.unwrap().flags & (flow_flags::REPLY | flow_flags::OPENER_GUESSED);
    assert_eq!(flags, flow_flags::REPLY | flow_flags::OPENER_GUESSED);
    assert!(!judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.1", 80, 9_999, ACK)).dropped);
    // The first packet of a new one between the same ports is no such.
    assert!(judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 9_999, 80, SYN)).dropped);
    assert!(judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 9_998, 80, ACK)).dropped);
}

#[test]
fn of_udp_ports_prove_nothing_but_when_the_programs_begin() {
    if skip() {
        return;
    }
    let world = || World::new().row(1, EGRESS, OTHERS, &all(DEFAULT)).row(1, INGRESS, OTHERS, &all(ALLOWED));
    let answer = udp("10.0.0.1", "203.0.113.9", 53, 40_000);
    assert!(Judging::new(world()).see(FROM_POD, &answer).dropped);
    let config = Config { midway_until_ns: u64::MAX, ..Config::default() };
    assert!(!Judging::with(world(), config, 64).see(FROM_POD, &answer).dropped);
}

#[test]
fn a_full_table_judges_each_packet_by_itself() {
    if skip() {
        return;
    }
    let world =
        World::new().row(1, EGRESS, OTHERS, &only(80, ALLOWED)).row(1, INGRESS, OTHERS, &all(DEFAULT));
    let mut judging = Judging::with(world, Config::default(), 1);
    assert!(!judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN)).dropped);
    for _ in 0..2 {
        assert!(!judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_001, 80, SYN)).dropped);
        assert!(!judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.1", 80, 40_001, SYN | ACK)).dropped);
        assert!(!judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.1", 80, 40_001, ACK)).dropped);
        assert!(judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_001, 81, SYN)).dropped);
    }
    assert!(judging.counted(|counters| counters.table_full) >= 8);
    assert!(!judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, ACK)).dropped);
}

#[test]
fn what_finds_no_proxy_is_not_among_what_was_sent() {
    const VALUE: usize = size_of::<ShortValue>();
    if skip() {
        return;
    }
    let world = World::new().row(1, EGRESS, OTHERS, &only(80, ALLOWED | decision::REQUESTS));
    let mut judging = Judging::new(world);
    judging.set_local(&["10.0.0.1"]);
    let mut proxy: Array<_, [u8; size_of::<ProxyState>()]> =
        judging.ebpf.map_mut("PROXY").unwrap().try_into().unwrap();
    // Nobody listens at port 0.
    let state = ProxyState { is_on: 1, ..ProxyState::default() };
    proxy.set(0, <[u8; size_of::<ProxyState>()]>::try_from(state.as_bytes()).unwrap(), 0).unwrap();
    assert!(judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN)).dropped);
    let table: HashMap<_, [u8; 16], [u8; VALUE]> =
        judging.ebpf.map("SHORT_FLOW_TABLE").unwrap().try_into().unwrap();
    let entries: Vec<_> =
        table.iter().map(|entry| ShortValue::read_from_bytes(&entry.unwrap().1).unwrap()).collect();
    let [ShortValue { flow, .. }] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((flow.proxied, flow.directions[0].packets, flow.directions[0].bytes), (1, 0, 0));
}

//! Policies change under traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use observer_ebpf::policy::{OTHERS, side};

use super::*;
use crate::support::skip;

const EGRESS: usize = side::EGRESS;

#[test]
fn a_change_is_asked_of_an_established_connection_too() {
    if skip() {
        return;
    }
    let world = |decision| World::new().row(1, EGRESS, OTHERS, &only(80, decision));
    let mut judging = Judging::new(world(ALLOWED));
    let syn = tcp("10.0.0.1", "203.0.113.9", 40_000, 80, SYN);
    let ack = tcp("10.0.0.1", "203.0.113.9", 40_000, 80, ACK);
    let reply = tcp("203.0.113.9", "10.0.0.1", 80, 40_000, SYN | ACK);
    for frame in [&syn, &ack] {
        assert!(!judging.see(FROM_POD, frame).dropped);
    }
    assert!(!judging.see(TO_POD, &reply).dropped);
    judging.put(world(BY_RULE));
    // Whichever packet comes first.
    assert!(judging.see(TO_POD, &reply).dropped);
    let denied = judging.see(FROM_POD, &ack);
    assert_eq!((denied.dropped, denied.judged.unwrap().generation), (true, judging.maps.generation()));
    judging.put(world(ALLOWED));
    let passed = judging.see(FROM_POD, &ack);
    assert!(!passed.dropped);
    assert!(!judging.see(TO_POD, &reply).dropped);
    // What was dropped is not among what the connection has sent.
    let end = judging.see(FROM_POD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 80, ACK | FIN));
    assert_eq!(end.flow.unwrap().packets, 4);
}

/// Worlds that say the same by other numbers: half of one and half of another deny.
fn numbered(offset: u32) -> World {
    let mut world = World::new();
    world.0.sides.resize(64, [NO_TABLE; 2]);
    for endpoint in world.0.endpoints.values_mut() {
        endpoint.subject += offset;
        endpoint.peer += offset;
    }
    for subject in 0..64 {
        world = world.row(subject, EGRESS, OTHERS, &all(DEFAULT));
    }
    world.row(1 + offset, EGRESS, 2 + offset, &only(80, ALLOWED))
}

#[test]
fn no_packet_is_judged_by_half_a_set() {
    const CHANGES: u32 = 300;
    if skip() {
        return;
    }
    let mut judging = Judging::new(numbered(0));
    // The programs are run by this thread, the maps are changed by another.
    let other = PolicyMaps::of(&mut Ebpf::load(OBJECT).unwrap()).unwrap();
    let mut maps = std::mem::replace(&mut judging.maps, other);
    let done = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        scope.spawn(|| {
            for change in 1..=CHANGES {
                let World(tables) = numbered(change % 50);
                maps.write(slot(maps.generation()) ^ 1, &tables).unwrap();
                maps.flip().unwrap();
                maps.wait_for_programs().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut runs = 0;
        while !done.load(Ordering::Acquire) {
            // A new connection each time, and an old one.
            let port = 1024 + (runs % 60_000) as u16;
            for port in [port, 1000] {
                let outcome = judging.see(FROM_POD, &tcp("10.0.0.1", "10.0.0.2", port, 80, SYN));
                assert!(!outcome.dropped, "run {runs}: {outcome:?}");
            }
            runs += 1;
        }
        runs
    });
    assert!(runs > 0);
}

#[test]
fn tables_grow_and_what_is_too_much_is_refused() {
    if skip() {
        return;
    }
    let mut judging = Judging::new(World::new().row(1, EGRESS, OTHERS, &all(BY_RULE)));
    let large = || {
        let mut world = World::new();
        world = world.row(1, EGRESS, OTHERS, &all(DEFAULT));
        for peer in 0..20_000 {
            world.0.rows.insert(PolicyRowKey { table: 900, peer }, PolicyRow { begin: 0, len: 1 });
        }
        world
    };
    judging.put(large());
    let syn = |port| tcp("10.0.0.1", "203.0.113.9", port, 80, SYN);
    assert_eq!(judging.see(FROM_POD, &syn(1)).sides(), Some((DEFAULT, 0)));
    let mut most = large();
    for peer in 0..=1 << 20 {
        most.0.rows.insert(PolicyRowKey { table: 901, peer }, PolicyRow { begin: 0, len: 1 });
    }
    let free = slot(judging.maps.generation()) ^ 1;
    let error = judging.maps.write(free, &most.0).unwrap_err().to_string();
    assert_eq!(error, "the policies need 1068578 entries of POLICY_ROWS, and at most 1048576 fit");
    // What is in force is untouched, and the slot can be written again.
    assert_eq!(judging.see(FROM_POD, &syn(2)).sides(), Some((DEFAULT, 0)));
    judging.put(World::new().row(1, EGRESS, OTHERS, &all(BY_RULE)));
    assert_eq!(judging.see(FROM_POD, &syn(3)).sides(), Some((BY_RULE, 0)));
}

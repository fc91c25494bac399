//! Rows that stand beside their peer's endpoint, and those that don't.

use observer_ebpf::policy::{CutLine, NEAR_ROWS, OTHERS, side};

use super::*;
use crate::support::skip;

const INGRESS: usize = side::INGRESS;

#[test]
fn a_peers_rows_are_found_however_many_they_are() {
    if skip() {
        return;
    }
    let pods = ["10.0.0.1", "10.0.0.2", "10.0.0.3", NODE];
    let subjects = [1, 2, 3, HOST];
    assert!(subjects.len() > NEAR_ROWS + 1);
    for rows in 0..=subjects.len() {
        let mut world = World::new();
        for subject in subjects {
            world = world.row(subject, INGRESS, OTHERS, &all(DEFAULT));
        }
        for subject in &subjects[..rows] {
            world = world.row(*subject, INGRESS, OTHER_NODE, &only(80, ALLOWED));
        }
        let mut judging = Judging::new(world);
        for (number, pod) in pods.into_iter().enumerate() {
            let at = if pod == NODE { FROM_WORLD } else { TO_POD };
            let said = if number < rows { ALLOWED } else { DEFAULT };
            let outcome = judging.see(at, &tcp("10.0.1.254", pod, 40_000, 80, SYN));
            assert_eq!(outcome.dropped, said == DEFAULT, "{rows} rows, {pod}: {outcome:?}");
            let other = judging.see(at, &tcp("10.0.1.254", pod, 40_000, 81, SYN));
            assert_eq!(other.sides(), Some((0, DEFAULT)), "{rows} rows, {pod}");
            // Of another peer, which has none.
            let other = judging.see(at, &tcp("203.0.113.9", pod, 40_000, 80, SYN));
            assert_eq!(other.sides(), Some((0, DEFAULT)), "{rows} rows, {pod}");
        }
    }
}

#[test]
fn a_cut_is_found_in_whichever_line_it_stands() {
    const ROOM: u16 = CutLine::ROOM as u16;
    if skip() {
        return;
    }
    for cuts in [1, 2, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 2 * ROOM + 1, 5 * ROOM, 9 * ROOM - 1] {
        // Every second port begins another decision; each says how many cuts are before it.
        let said = |number| if number == 0 { DEFAULT } else { decision::JUDGED | u32::from(number) };
        let from = |number| if number == 0 { 0 } else { cut_key(6, 2 * number) };
        let row: Vec<_> = (0..cuts).map(|number| (from(number), said(number))).collect();
        let world = World::new().row(1, INGRESS, OTHERS, &all(BY_RULE)).row(2, INGRESS, OTHERS, &row).row(
            3,
            INGRESS,
            OTHERS,
            &all(BY_RULE),
        );
        let mut judging = Judging::new(world);
        for port in 1..=2 * cuts + 1 {
            let outcome = judging.see(TO_POD, &tcp("203.0.113.9", "10.0.0.2", 40_000, port, SYN));
            let expected = said((port / 2).min(cuts - 1));
            assert_eq!(outcome.sides(), Some((0, expected)), "{cuts} cuts, port {port}");
        }
    }
}

#[test]
fn an_address_that_comes_later_has_its_peers_rows_too() {
    if skip() {
        return;
    }
    let world = || World::new().row(2, INGRESS, OTHERS, &all(DEFAULT)).row(2, INGRESS, 1, &only(80, ALLOWED));
    let mut judging = Judging::new(world());
    judging.put(world());
    // One, then more than the table has room for. The rows are not told again.
    let World(mut tables) = world();
    tables.rows.clear();
    let address = |number: u32| format!("10.2.{}.{}", number >> 8, number & 255);
    for come in [0..2, 2..10_000] {
        let last = address(come.end - 1);
        let came: Vec<[u8; 16]> = come.map(|number| bytes(&address(number))).collect();
        let endpoint = PolicyEndpoint { peer: 1, ..PolicyEndpoint::default() };
        tables.endpoints.extend(came.iter().map(|address| (*address, endpoint)));
        // Both slots have the rest.
        for _ in 0..2 {
            let free = slot(judging.maps.generation()) ^ 1;
            judging.maps.write_addresses(free, &tables, &came).unwrap();
            judging.maps.flip().unwrap();
            judging.maps.wait_for_programs().unwrap();
            for from in ["10.0.0.1", "10.2.0.0", &last] {
                let port = 40_000 + judging.maps.generation() as u16;
                let allowed = judging.see(TO_POD, &tcp(from, "10.0.0.2", port, 80, SYN));
                assert_eq!(allowed.sides(), Some((0, ALLOWED)), "{from}");
                let denied = judging.see(TO_POD, &tcp(from, "10.0.0.2", port, 81, SYN));
                assert_eq!(denied.sides(), Some((0, DEFAULT)), "{from}");
            }
        }
    }
    let stranger = judging.see(TO_POD, &tcp("10.0.0.3", "10.0.0.2", 40_000, 80, SYN));
    assert_eq!(stranger.sides(), Some((0, DEFAULT)));
}

use super::*;
use crate::decode::End;
use proptest::prelude::*;
use std::net::IpAddr;

fn end(text: &str) -> End {
    let address: std::net::SocketAddr = text.parse().unwrap();
    End::new(address.ip(), address.port())
}

fn tuple(source: &str, destination: &str) -> Tuple {
    Tuple { source: end(source), destination: end(destination), protocol: 6 }
}

fn entry(id: u32, original: (&str, &str), reply: (&str, &str)) -> Entry {
    Entry { id, original: tuple(original.0, original.1), reply: tuple(reply.0, reply.1) }
}

/// A client that calls a service, and is masqueraded.
fn both_translated() -> Entry {
    entry(1, ("10.0.0.1:4000", "10.96.0.1:80"), ("10.0.0.2:8080", "10.0.0.254:6000"))
}

fn table(entries: usize) -> ConntrackTable {
    ConntrackTable::new(TableLimits { entries, grace_ns: 100 })
}

#[test]
fn every_view_finds_the_connection_both_ways() {
    let mut table = table(10);
    table.insert(both_translated());
    let views = [
        tuple("10.0.0.1:4000", "10.96.0.1:80"),
        tuple("10.0.0.1:4000", "10.0.0.2:8080"),
        tuple("10.0.0.254:6000", "10.0.0.2:8080"),
    ];
    for view in views {
        let forward = table.translate(&view, None).unwrap();
        assert!(forward.from_client);
        assert_eq!(forward.client, end("10.0.0.1:4000"));
        assert_eq!(forward.frontend, end("10.96.0.1:80"));
        assert_eq!(forward.backend, end("10.0.0.2:8080"));
        assert_eq!(forward.called_from, end("10.0.0.254:6000"));
        assert!(forward.destination_translated() && forward.source_translated());
        let back = table.translate(&view.reversed(), None).unwrap();
        assert_eq!(back, Translation { from_client: false, ..forward });
    }
    assert_eq!(table.translate(&tuple("10.0.0.1:4000", "10.0.0.3:8080"), None), None);
    let udp = Tuple { protocol: 17, ..views[0] };
    assert_eq!(table.translate(&udp, None), None);
}

#[test]
fn an_untranslated_connection_has_one_key_and_is_told_like_any_other() {
    for (client, server) in [("10.0.0.1:4000", "10.0.0.2:80"), ("10.0.0.2:4000", "10.0.0.1:80")] {
        let mut table = table(10);
        let plain = entry(1, (client, server), (server, client));
        table.insert(plain);
        assert_eq!(table.views.len(), 1);
        let expected = Translation {
            from_client: true,
            client: end(client),
            frontend: end(server),
            backend: end(server),
            called_from: end(client),
        };
        let answer = Some(Translation { from_client: false, ..expected });
        // The second time it has ended, which is no longer told from the key alone.
        for opened_ns in [Some(9), None] {
            assert_eq!(table.translate(&plain.original, opened_ns), Some(expected));
            assert_eq!(table.translate(&plain.reply, opened_ns), answer);
            table.end(1, &plain.original, 5);
            assert_eq!(table.translate(&plain.original, Some(9)), None, "another one has these ports");
        }
    }
}

#[test]
fn a_masqueraded_ping_is_found_by_both_identifiers() {
    let mut table = table(10);
    let mut ping = entry(1, ("10.0.0.1:7", "192.0.2.1:7"), ("192.0.2.1:9", "198.51.100.1:9"));
    (ping.original.protocol, ping.reply.protocol) = (1, 1);
    table.insert(ping);
    for (source, destination) in
        [("10.0.0.1:7", "192.0.2.1:7"), ("198.51.100.1:9", "192.0.2.1:9"), ("192.0.2.1:7", "10.0.0.1:7")]
    {
        let seen = Tuple { protocol: 1, ..tuple(source, destination) };
        assert_eq!(table.translate(&seen, None).unwrap().client, end("10.0.0.1:7"), "{source}");
    }
}

#[test]
fn an_ended_connection_stays_for_the_grace() {
    let mut table = table(10);
    table.insert(both_translated());
    let view = both_translated().original;
    table.end(1, &view, 1000);
    table.expire(1099);
    assert!(table.translate(&view, None).is_some());
    assert!(table.translate(&view, Some(1000)).is_some());
    assert_eq!(table.translate(&view, Some(1001)), None, "a new connection is not the ended one");
    table.expire(1100);
    assert_eq!(table.translate(&view, None), None);
    assert!(table.is_empty() && table.views.is_empty());
    assert_eq!(table.counters().expired, 1);
}

#[test]
fn the_end_of_an_old_connection_leaves_the_new_one() {
    let mut table = table(10);
    table.insert(both_translated());
    let reused = Entry { id: 2, reply: tuple("10.0.0.3:8080", "10.0.0.1:4000"), ..both_translated() };
    table.insert(reused);
    table.end(1, &reused.original, 5);
    assert_eq!(table.translate(&reused.original, Some(9)).unwrap().backend, end("10.0.0.3:8080"));
    let counters = table.counters();
    assert_eq!((counters.added, counters.replaced, counters.unknown_ends), (2, 1, 1));
    assert_eq!(table.translate(&tuple("10.0.0.1:4000", "10.0.0.2:8080"), None), None);
}

#[test]
fn a_dump_ends_what_it_does_not_tell_of() {
    let mut table = table(10);
    let (kept, gone) =
        (both_translated(), entry(2, ("[fd00::1]:1", "[fd00::2]:2"), ("[fd00::2]:2", "[fd00::1]:1")));
    table.insert(kept);
    table.insert(gone);
    table.begin_dump();
    table.insert(kept);
    table.finish_dump(50);
    assert_eq!(table.counters().missed_ends, 1);
    assert_eq!(table.translate(&gone.original, Some(51)), None);
    assert!(table.translate(&kept.original, Some(51)).is_some());
}

#[test]
fn a_dump_under_way_does_not_wake_an_ended_connection() {
    let mut table = table(10);
    table.insert(both_translated());
    table.begin_dump();
    table.end(1, &both_translated().original, 10);
    table.insert(both_translated());
    assert_eq!(table.translate(&both_translated().original, Some(11)), None);
    table.finish_dump(12);
    table.begin_dump();
    table.insert(both_translated());
    assert!(table.translate(&both_translated().original, Some(13)).is_some(), "a later dump knows better");
}

#[test]
fn a_full_table_makes_room_by_ended_ones_and_counts_the_rest() {
    let mut table = table(2);
    let numbered = |id: u32| {
        let client = format!("10.0.0.1:{id}");
        entry(id, (&client, "10.0.0.2:80"), ("10.0.0.2:80", &client))
    };
    table.insert(numbered(1));
    table.insert(numbered(2));
    table.insert(numbered(3));
    assert_eq!(table.counters().turned_away, 1);
    table.end(1, &numbered(1).original, 5);
    table.insert(numbered(3));
    assert_eq!((table.counters().displaced, table.len()), (1, 2));
    assert!(table.translate(&numbered(3).original, None).is_some());
    assert!(table.translate(&numbered(1).original, None).is_none());
}

proptest! {
    /// Any order of events keeps the sum and leaves no key behind.
    #[test]
    fn nothing_is_left_behind(
        steps in prop::collection::vec((0u8..4, 0u32..4, 1u16..4, 1u16..4, 1u16..3), 1..80),
    ) {
        let mut table = table(3);
        let ip = |last: u16| IpAddr::from([10, 0, 0, last as u8]);
        for (time, (what, id, client, frontend, backend)) in steps.into_iter().enumerate() {
            let client = End::new(ip(client), 1);
            let original = Tuple { source: client, destination: End::new(ip(frontend), 2), protocol: 6 };
            let reply = Tuple { source: End::new(ip(backend), 3), destination: client, protocol: 6 };
            let now = time as u64 * 40;
            match what {
                0 | 1 => table.insert(Entry { id, original, reply }),
                2 => table.end(id, &original, now),
                _ => table.expire(now),
            }
            let counted = table.counters();
            let gone = counted.replaced + counted.expired + counted.displaced;
            prop_assert_eq!(counted.added, table.len() as u64 + gone);
            prop_assert!(table.len() <= 3 && table.views.len() <= 9);
        }
        table.begin_dump();
        table.finish_dump(1_000_000);
        table.expire(2_000_000);
        prop_assert!(table.is_empty() && table.views.is_empty());
    }
}

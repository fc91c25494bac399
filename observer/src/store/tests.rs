//! The store against a plain vector, and under load.

use super::*;
use crate::{
    endpoint::Endpoint,
    flow::{Record, Sample},
};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn store(flows: usize) -> (Arc<Store>, Writer) {
    Store::new(StoreConfig { flows, bytes: usize::MAX })
}

fn numbered(n: u64) -> Sample {
    Sample::from(Record { time_ns: n as i64, packets: n, ..Record::default() })
}

#[derive(Clone, Debug)]
enum Op {
    Push(u16),
    Batch(u16),
    Read { reader: usize, most: u16 },
    Park(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (1..200u16).prop_map(Op::Push),
        (1..600u16).prop_map(Op::Batch),
        (0..3usize, 1..300u16).prop_map(|(reader, most)| Op::Read { reader, most }),
        (0..3usize).prop_map(Op::Park),
    ];
    prop::collection::vec(op, 1..60)
}

proptest! {
    #[test]
    fn every_slot_is_read_in_order_or_counted_as_lost(capacity in 2..400usize, ops in ops()) {
        let (store, mut writer) = store(capacity);
        let mut readers: Vec<_> = (0..3).map(|_| (Cursor::new(Arc::clone(&store), 0), 0u64, 0u64)).collect();
        let mut pushed = 0;
        for op in ops {
            match op {
                Op::Push(n) => for _ in 0..n {
                    prop_assert_eq!(writer.push(&numbered(pushed).flow()), pushed);
                    pushed += 1;
                },
                Op::Batch(n) => {
                    for _ in 0..n {
                        writer.add(&numbered(pushed).flow());
                        pushed += 1;
                    }
                    writer.publish();
                }
                Op::Read { reader, most } => {
                    let (cursor, examined, lost) = &mut readers[reader];
                    for _ in 0..most {
                        match cursor.step() {
                            Step::Flow(stored) => {
                                prop_assert_eq!(stored.sequence, *examined + *lost);
                                prop_assert_eq!(stored.record().packets, stored.sequence);
                                *examined += 1;
                            }
                            Step::Lost(n) => { prop_assert!(n > 0); *lost += n; }
                            Step::End => { prop_assert_eq!(*examined + *lost, pushed); break; }
                        }
                    }
                    prop_assert_eq!(cursor.position(), *examined + *lost);
                }
                Op::Park(reader) => readers[reader].0.park(),
            }
            prop_assert!(store.len() <= store.capacity());
            prop_assert_eq!(store.seen(), pushed);
            // At most one segment is freed too early, never more.
            prop_assert!(store.len() + (capacity / 8).max(1) as u64 >= pushed.min(capacity as u64));
        }
    }

    #[test]
    fn a_rewind_finds_the_last_matching(capacity in 2..300usize, pushed in 0..1000u64, last in 1..50u64, every in 1..7u64) {
        let (store, mut writer) = store(capacity);
        for n in 0..pushed { writer.push(&numbered(n).flow()); }
        let mut left = last;
        let select = |lot: &Lot<'_>| {
            (0..lot.count()).map(|place| u64::from(lot.get(place).sequence.is_multiple_of(every)) << place).sum()
        };
        let rewind = store.rewind(select, |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(true) } else { ControlFlow::Continue(()) }
        });
        let matching: Vec<u64> = (store.oldest()..pushed).filter(|n| n % every == 0).collect();
        let expected = matching.len().checked_sub(last as usize).map_or(store.oldest(), |at| matching[at]);
        prop_assert_eq!(rewind, Rewind { start: expected, end: pushed });
    }
}

#[test]
fn readers_under_load_account_for_every_flow() {
    const FLOWS: u64 = 300_000;
    let (store, mut writer) = store(4096);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3u64)
            .map(|reader| {
                let store = Arc::clone(&store);
                scope.spawn(move || {
                    let mut cursor = Cursor::new(store, 0);
                    let (mut examined, mut lost) = (0u64, 0u64);
                    while examined + lost < FLOWS {
                        match cursor.step() {
                            Step::Flow(stored) => {
                                let numbers = (stored.sequence, stored.record().packets);
                                assert_eq!(numbers, (examined + lost, examined + lost));
                                examined += 1;
                                if reader == 2 && examined % 64 == 0 {
                                    cursor.park();
                                    std::thread::yield_now();
                                }
                            }
                            Step::Lost(n) => lost += n,
                            Step::End => std::thread::yield_now(),
                        }
                    }
                    (examined, lost)
                })
            })
            .collect();
        for n in 0..FLOWS {
            writer.push(&numbered(n).flow());
        }
        for reader in readers {
            let (examined, lost) = reader.join().expect("a reader panicked");
            assert_eq!(examined + lost, FLOWS);
        }
    });
}

#[test]
fn a_glance_says_what_the_flow_says() {
    let (store, mut writer) = store(100);
    let ips = ["10.0.0.1", "192.0.2.7", "0.0.0.0", "::ffff:10.0.0.1", "fd00::1"];
    let ips = || ips.iter().map(|ip| Some(ip.parse().unwrap())).chain([None]);
    for (source_ip, destination_ip) in
        ips().flat_map(|source| ips().map(move |destination| (source, destination)))
    {
        let end = || Arc::new(Endpoint::default());
        writer.add(
            &Sample {
                record: Record { source_ip, destination_ip, ..Record::default() },
                source: end(),
                destination: end(),
                ..Sample::default()
            }
            .flow(),
        );
    }
    writer.publish();
    let mut seen = 0;
    let look = |stored: Stored<'_>| {
        let flow = stored.flow();
        assert_eq!((stored.source_ip(), stored.destination_ip()), (flow.source_ip, flow.destination_ip));
        let serials = (flow.source.serial(), flow.destination.serial());
        assert_eq!((stored.source_serial(), stored.destination_serial()), serials);
        seen += 1;
        ControlFlow::Continue(())
    };
    store.rewind(|lot| u64::MAX >> (64 - lot.count()), look);
    assert_eq!(seen, 36);
}

#[test]
fn a_list_of_ends_has_those_of_its_flows_and_few_others() {
    let (store, mut writer) = store(64);
    let shared = Arc::new(Endpoint::default());
    for n in 0..5000 {
        let source = if n % 7 == 0 { Arc::clone(&shared) } else { Arc::default() };
        writer.add(&Sample { source, ..numbered(n) }.flow());
        if n % 3 == 0 {
            writer.publish();
        }
    }
    writer.publish();
    let look = |lot: &Lot<'_>| {
        let listed: Vec<_> = lot.ends().from(0).map(|(_, end)| end.serial()).collect();
        for stored in lot.flows() {
            for serial in [stored.source_serial(), stored.destination_serial()] {
                assert!(listed.contains(&serial), "{serial} of flow {}", stored.sequence);
            }
        }
        // Half of the store, and a segment.
        assert!(listed.len() <= 2 * (32 + 4), "{} ends", listed.len());
        0
    };
    store.rewind(look, |_| ControlFlow::Continue(()));
}

#[test]
fn bytes_are_bounded_by_large_endpoints_too() {
    let limit = 4 << 20;
    let (store, mut writer) = Store::new(StoreConfig { flows: 65_536, bytes: limit });
    for n in 0..20_000u64 {
        let source = Arc::new(Endpoint {
            pod_name: "p".repeat(4000).into(),
            identity: n as u32,
            ..Endpoint::default()
        });
        writer.push(&Sample { source, ..numbered(n) }.flow());
        assert!(store.bytes() <= limit as u64, "{} bytes after {n} flows", store.bytes());
    }
    assert!(store.len() > 100, "only {} flows are left", store.len());
    assert_eq!(store.oldest_time(), Some(store.oldest() as i64));
}

#[test]
fn namespaces_are_those_of_the_last_hour_past_the_ring() {
    const HOUR: i64 = 3_600_000_000_000;
    let (store, mut writer) = store(16);
    let pod = |namespace: &str| {
        Arc::new(Endpoint { cluster: "default".into(), namespace: namespace.into(), ..Endpoint::default() })
    };
    writer.push(
        &Sample {
            record: Record { time_ns: 1, ..Record::default() },
            source: pod("old"),
            ..Sample::default()
        }
        .flow(),
    );
    writer.push(
        &Sample {
            record: Record { time_ns: HOUR, ..Record::default() },
            source: pod("web"),
            ..Sample::default()
        }
        .flow(),
    );
    for _ in 0..100 {
        writer.push(&Sample::from(Record { time_ns: HOUR, ..Record::default() }).flow());
    }
    writer.push(
        &Sample {
            record: Record { time_ns: HOUR + 10, ..Record::default() },
            destination: pod("data"),
            ..Sample::default()
        }
        .flow(),
    );
    let names: Vec<_> = store.namespaces(HOUR + 10).into_iter().map(|n| n.name).collect();
    assert_eq!(names, ["data", "web"]);
}

#[test]
fn the_rate_is_over_the_last_minute_or_what_there_is() {
    const SECOND: i64 = 1_000_000_000;
    let (store, mut writer) = store(10_000);
    assert!(store.rate(0).abs() < f64::EPSILON);
    for n in 0..1200i64 {
        writer.push(&Sample::from(Record { time_ns: n * SECOND / 10, ..Record::default() }).flow());
    }
    assert!((store.rate(120 * SECOND) - 10.0).abs() < 0.1);
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_flows_and_by_losses() {
    let (store, mut writer) = store(100);
    let mut losses = store.losses();
    writer.push(&numbered(0).flow());
    store.changed(0, &losses).await;
    let waiting = tokio::spawn({
        let (store, losses) = (Arc::clone(&store), losses.clone());
        async move { store.changed(1, &losses).await }
    });
    tokio::task::yield_now().await;
    writer.push(&numbered(1).flow());
    writer.publish();
    waiting.await.expect("the waiting task failed");

    store.report_lost(LossSource::KernelRing, 3, 5, 6);
    store.report_lost(LossSource::KernelRing, 4, 7, 9);
    store.changed(2, &losses).await;
    let lost = store.take_losses(&mut losses);
    assert_eq!(lost, [Loss { source: LossSource::KernelRing, count: 7, first: 5, last: 9 }]);
    assert_eq!(store.take_losses(&mut losses), []);
}

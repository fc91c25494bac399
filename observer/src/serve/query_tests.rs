//! What a request selects, also where the wall clock jumped while the flows came.

use super::*;
use crate::{
    flow::test_flow,
    store::{StoreConfig, Writer},
};
use observer_proto::{filter::Filters, flow::FlowFilter};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

fn store(times: &[i64]) -> (Arc<Store>, Writer) {
    // Segments of eight flows; all of them are kept.
    let (store, mut writer) = Store::new(StoreConfig { flows: 64, bytes: usize::MAX });
    for time_ns in times {
        writer.push(Flow { time_ns: *time_ns, ..test_flow() });
    }
    (store, writer)
}

fn query(since: Option<i64>, until: Option<i64>) -> Query {
    let filter = Filters::compile(&[], &[]).unwrap().matcher();
    Query { number: 0, first: false, follow: false, since, until, filter, node: Arc::default() }
}

/// Times of the flows that come, and whether the request is answered with them.
fn read(reader: &mut Reader) -> (Vec<i64>, bool) {
    let mut times = Vec::new();
    loop {
        match reader.next(|_, flow| times.push(flow.time_ns)) {
            Item::Flow | Item::Skipped => {}
            Item::Lost(count) => panic!("{count} lost"),
            Item::Pause => return (times, false),
            Item::Done => return (times, true),
        }
    }
}

fn selected(times: &[i64], query: Query) -> Vec<i64> {
    let (store, _writer) = store(times);
    let (times, done) = read(&mut Reader::new(query, &store));
    assert!(done);
    times
}

#[test]
fn a_clock_that_was_wrong_for_a_while_hides_no_flow() {
    // Right, an hour ahead, right again, ten years behind, right again.
    let times = [10, 11, 12 + 3600, 13 + 3600, 14, 15, 16 - 315_360_000, 17].map(|second| second * SECOND);
    let all = |since, until| selected(&times, query(Some(since * SECOND), Some(until * SECOND)));
    assert_eq!(all(11, 15), [11, 14, 15].map(|second| second * SECOND));
    assert_eq!(all(17, 100), [17 * SECOND]);
    assert_eq!(selected(&times, query(None, Some(14 * SECOND))).len(), 4);
    assert_eq!(selected(&times, query(Some(0), None)).len(), 7);
}

#[test]
fn ranges_without_flows_are_empty() {
    let times: Vec<i64> = (0..50).map(|second| second * SECOND).collect();
    for (since, until) in [
        (Some(HOUR), None),
        (Some(i64::MAX), None),
        (None, Some(-1)),
        (None, Some(i64::MIN)),
        (Some(30 * SECOND), Some(20 * SECOND)),
        (Some(i64::MAX), Some(i64::MIN)),
    ] {
        for number in [0, 1, u64::MAX] {
            for first in [false, true] {
                let query = Query { number, first, ..query(since, until) };
                assert_eq!(selected(&times, query), [0; 0], "{since:?} to {until:?}, {number}");
            }
        }
    }
    assert_eq!(selected(&times, Query { number: u64::MAX, ..query(None, None) }).len(), 50);
}

#[test]
fn a_follower_ends_with_the_first_flow_after_its_time() {
    let (store, mut writer) = store(&[1, 5, 2]);
    let mut late = Reader::new(Query { follow: true, ..query(Some(0), Some(3)) }, &store);
    assert_eq!(read(&mut late), (vec![1, 2], true), "its time was over when it came");
    let mut reader = Reader::new(Query { follow: true, ..query(Some(0), Some(7)) }, &store);
    assert_eq!(read(&mut reader), (vec![1, 5, 2], false));
    for time_ns in [7, 8] {
        writer.push(Flow { time_ns, ..test_flow() });
    }
    assert_eq!(read(&mut reader), (vec![7], true));
}

#[test]
fn more_than_a_walk_back_remembers_is_read_all_the_same() {
    let count = 2 * Found::MOST as i64;
    let (store, mut writer) = Store::new(StoreConfig { flows: 16_384, bytes: usize::MAX });
    for time_ns in 0..count {
        writer.add(Flow { time_ns, ..test_flow() });
    }
    writer.publish();
    for number in [Found::MOST as u64, Found::MOST as u64 + 1, count as u64] {
        let (times, done) = read(&mut Reader::new(Query { number, ..query(None, None) }, &store));
        let wanted: Vec<i64> = (count - number as i64..count).collect();
        assert!(done && times == wanted, "{number}: {} flows", times.len());
    }
}

proptest! {
    #[test]
    fn a_range_has_all_flows_of_its_time_in_their_order(
        times in prop::collection::vec(-50..50i64, 0..60),
        since in prop::option::of(-60..60i64),
        until in prop::option::of(-60..60i64),
    ) {
        let wanted = |time: &i64| since.is_none_or(|since| *time >= since) && until.is_none_or(|until| *time <= until);
        let expected: Vec<i64> = times.iter().copied().filter(wanted).collect();
        prop_assert_eq!(selected(&times, query(since, until)), expected);
    }

    /// Every combination of what a request may say, against Hubble's rules read word by word.
    #[test]
    fn a_request_selects_by_hubbles_rules(
        times in prop::collection::vec(0..20i64, 0..40),
        later in prop::collection::vec(0..20i64, 0..10),
        number in 0..6u64,
        first in any::<bool>(),
        follow in any::<bool>(),
        since in prop::option::of(0..20i64),
        until in prop::option::of(0..20i64),
        of_port in prop::option::of(0..3u16),
    ) {
        prop_assume!(!(first && follow));
        // Times rise, so that Hubble's end at the first flow after `until` is ours.
        let (mut times, mut later) = (times, later);
        times.sort_unstable();
        let newest = times.last().copied().unwrap_or(0);
        for time in &mut later {
            *time += newest;
        }
        later.sort_unstable();

        let (store, mut writer) = Store::new(StoreConfig { flows: 64, bytes: usize::MAX });
        let flow = |index: usize, time_ns: i64| {
            Flow { time_ns, protocol: 17, ip_version: 4, source_port: index as u16 % 3, ..test_flow() }
        };
        for (index, time) in times.iter().enumerate() {
            writer.push(flow(index, *time));
        }
        let whitelist = of_port.map(|port| FlowFilter { source_port: vec![port.to_string()], ..FlowFilter::default() });
        let filter = Filters::compile(whitelist.as_slice(), &[]).unwrap().matcher();
        let query = Query { number, first, follow, since, until, filter, node: Arc::default() };
        let mut reader = Reader::new(query, &store);
        let mut actual = read(&mut reader).0;
        for (index, time) in later.iter().enumerate() {
            writer.push(flow(times.len() + index, *time));
        }
        actual.extend(read(&mut reader).0);

        let passes = |index: usize| of_port.is_none_or(|port| port == index as u16 % 3);
        let start = match (since, number) {
            (Some(_), _) => 0,
            (None, 0) => if follow { times.len() } else { 0 },
            (None, _) if first => 0,
            (None, number) => {
                // Fewer than wanted: all of them.
                (0..times.len()).rev().filter(|index| passes(*index)).nth(number as usize - 1).unwrap_or(0)
            }
        };
        let all: Vec<i64> = times.iter().chain(if follow { &later[..] } else { &[] }).copied().collect();
        let wanted = (start..all.len())
            .filter(|index| since.is_none_or(|since| all[*index] >= since))
            .take_while(|index| until.is_none_or(|until| all[*index] <= until))
            .filter(|index| passes(*index));
        let most = if follow || number == 0 { usize::MAX } else { number as usize };
        let wanted: Vec<i64> = wanted.take(most).map(|index| all[index]).collect();
        prop_assert_eq!(actual, wanted);
    }
}

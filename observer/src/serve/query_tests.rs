//! What a request selects, also where the wall clock jumped while the flows came.

use super::*;
use crate::{
    flow::test_flow,
    store::{StoreConfig, Writer},
};
use observer_proto::filter::Filters;
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
}

//! What a request selects, also where the wall clock jumped while the flows came.

use super::*;
use crate::{
    endpoint::Endpoint,
    flow::{DropSite, Notes, Record, Sample, Tristate},
    store::{StoreConfig, Writer},
};
use observer_proto::{
    filter::{Filters, drop_reason_number},
    flow::{FlowFilter, TcpFlags, Verdict},
};
use proptest::prelude::*;
use prost::Message;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

fn store(times: &[i64]) -> (Arc<Store>, Writer) {
    // Segments of eight flows; all of them are kept.
    let (store, mut writer) = Store::new(StoreConfig { flows: 64, bytes: usize::MAX });
    for time_ns in times {
        writer.push(&Sample::from(Record { time_ns: *time_ns, ..Record::default() }).flow());
    }
    (store, writer)
}

fn filter(whitelist: &[FlowFilter]) -> Selector {
    Selector::new(Filters::compile(whitelist, &[]).unwrap().matcher(), NodeView::default())
}

fn query(since: Option<i64>, until: Option<i64>) -> Query {
    Query { number: 0, first: false, follow: false, since, until, filter: filter(&[]) }
}

/// Times of the flows that come, and whether the request is answered with them.
fn read(reader: &mut Reader) -> (Vec<i64>, bool) {
    let mut times = Vec::new();
    loop {
        match reader.next(|_, flow| times.push(flow.time_ns)) {
            Item::Flow | Item::Skipped => {}
            Item::Lost(count) => panic!("{count} lost"),
            Item::Pause => return (times, false),
            Item::Past => panic!("there is no history"),
            Item::Done => return (times, true),
        }
    }
}

fn selected(times: &[i64], query: Query) -> Vec<i64> {
    let (store, _writer) = store(times);
    let (times, done) = read(&mut Reader::new(query, &store, None));
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
    let mut late = Reader::new(Query { follow: true, ..query(Some(0), Some(3)) }, &store, None);
    assert_eq!(read(&mut late), (vec![1, 2], true), "its time was over when it came");
    let mut reader = Reader::new(Query { follow: true, ..query(Some(0), Some(7)) }, &store, None);
    assert_eq!(read(&mut reader), (vec![1, 5, 2], false));
    for time_ns in [7, 8] {
        writer.push(&Sample::from(Record { time_ns, ..Record::default() }).flow());
    }
    assert_eq!(read(&mut reader), (vec![7], true));
}

#[test]
fn more_than_a_walk_back_remembers_is_read_all_the_same() {
    let count = 2 * Found::MOST as i64;
    let (store, mut writer) = Store::new(StoreConfig { flows: 16_384, bytes: usize::MAX });
    for time_ns in 0..count {
        writer.add(&Sample::from(Record { time_ns, ..Record::default() }).flow());
    }
    writer.publish();
    for number in [Found::MOST as u64, Found::MOST as u64 + 1, count as u64] {
        let (times, done) = read(&mut Reader::new(Query { number, ..query(None, None) }, &store, None));
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
            Sample::from(Record { time_ns, protocol: 17, ip_version: 4, source_port: index as u16 % 3, ..Record::default() })
        };
        for (index, time) in times.iter().enumerate() {
            writer.push(&flow(index, *time).flow());
        }
        let whitelist = of_port.map(|port| FlowFilter { source_port: vec![port.to_string()], ..FlowFilter::default() });
        let query = Query { number, first, follow, since, until, filter: filter(whitelist.as_slice()) };
        let mut reader = Reader::new(query, &store, None);
        let mut actual = read(&mut reader).0;
        for (index, time) in later.iter().enumerate() {
            writer.push(&flow(times.len() + index, *time).flow());
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

/// As of messages (`drops_are_found_by_hubbles_reason_and_by_the_kernels`, beside the filters).
#[test]
fn drops_are_found_by_the_kernels_reason() {
    let (store, mut writer) = store(&[]);
    for (time_ns, kernel_reason) in [(1, ""), (2, "NETFILTER_DROP"), (3, "NO_SOCKET")] {
        let site =
            DropSite { kernel_reason: kernel_reason.into(), hubble_reason: 133, location: Err("".into()) };
        let record = Record {
            time_ns,
            event_type: Record::DROP_EVENT,
            verdict: Verdict::Dropped as u8,
            ..Record::default()
        };
        writer.push(&Sample { record, drop: Some(Arc::new(site)), ..Sample::default() }.flow());
    }
    for (names, wanted) in [
        (&["POLICY_DENIED"][..], &[1, 2, 3][..]),
        (&["NETFILTER_DROP"], &[2]),
        (&["KERNEL"], &[2, 3]),
        (&["NETFILTER_DROP", "NO_SOCKET", "XDP"], &[2, 3]),
    ] {
        let drop_reason_desc = names.iter().filter_map(|name| drop_reason_number(name)).collect();
        let filter = filter(&[FlowFilter { drop_reason_desc, ..FlowFilter::default() }]);
        let (times, _) = read(&mut Reader::new(Query { filter, ..query(None, None) }, &store, None));
        assert_eq!(times, wanted, "{names:?}");
    }
}

fn ends() -> Vec<Arc<Endpoint>> {
    let pod = |n: u32| Endpoint {
        identity: n % 5,
        namespace: ["web", "data"][n as usize % 2].into(),
        pod_name: format!("pod-{n}").into(),
        labels: [format!("k8s:app=app-{}", n % 3).into()].into(),
        ..Endpoint::default()
    };
    (0..20).map(|n| Arc::new(pod(n))).chain([Arc::default()]).collect()
}

fn some_flow() -> impl Strategy<Value = Sample> {
    let ends = ends();
    let end = (0..ends.len()).prop_map(move |n| Arc::clone(&ends[n]));
    let ip = prop::sample::select(vec!["10.0.0.1", "10.0.1.2", "0.0.0.0", "fd00::1", "::ffff:10.0.0.1", ""])
        .prop_map(|ip| ip.parse().ok());
    let protocol = prop::sample::select(vec![0, 1, 6, 17, 58, 132]);
    let reply = prop::sample::select(vec![Tristate::Unset, Tristate::No, Tristate::Yes]);
    let numbers = (protocol, 0..6u8, 0..4u8, 0..8u16, reply, prop::sample::select(vec![0, 4, 6]));
    ((end.clone(), end), (ip.clone(), ip), (0..3u16, 0..3u16), numbers, any::<bool>()).prop_map(
        |(
            ends,
            ips,
            ports,
            (protocol, verdict, direction, flags_or_type, is_reply, ip_version),
            fragment,
        )| {
            let mut notes = Notes::default();
            if fragment {
                notes.set(Notes::FRAGMENT);
            }
            let record = Record {
                source_ip: ips.0,
                destination_ip: ips.1,
                source_port: ports.0,
                destination_port: ports.1,
                protocol,
                verdict,
                direction,
                flags_or_type,
                is_reply,
                ip_version,
                notes,
                ..Record::default()
            };
            Sample { record, source: ends.0, destination: ends.1, ..Sample::default() }
        },
    )
}

/// One of the fields that filters ask most, or two.
fn some_filter() -> impl Strategy<Value = FlowFilter> {
    let text = |values: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(values), 1..3)
            .prop_map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let one = prop_oneof![
        text(&["web/pod-2", "/pod-1", "data/", "none"])
            .prop_map(|source_pod| FlowFilter { source_pod, ..FlowFilter::default() }),
        text(&["app=app-1", "app!=app-2", "x"])
            .prop_map(|destination_label| FlowFilter { destination_label, ..FlowFilter::default() }),
        text(&["10.0.0.0/24", "0.0.0.0/0", "fd00::/8", "10.0.1.2"])
            .prop_map(|source_ip| FlowFilter { source_ip, ..FlowFilter::default() }),
        text(&["0", "1", "2"]).prop_map(|source_port| FlowFilter { source_port, ..FlowFilter::default() }),
        text(&["2"]).prop_map(|destination_port| FlowFilter { destination_port, ..FlowFilter::default() }),
        text(&["tcp", "icmp", "sctp", "dns"])
            .prop_map(|protocol| FlowFilter { protocol, ..FlowFilter::default() }),
        prop::collection::vec(-1..18, 1..3)
            .prop_map(|verdict| FlowFilter { verdict, ..FlowFilter::default() }),
        prop::collection::vec(-1..5, 1..3)
            .prop_map(|traffic_direction| FlowFilter { traffic_direction, ..FlowFilter::default() }),
        prop::collection::vec(0..4, 1..3)
            .prop_map(|ip_version| FlowFilter { ip_version, ..FlowFilter::default() }),
        prop::collection::vec(any::<bool>(), 1..3)
            .prop_map(|reply| FlowFilter { reply, ..FlowFilter::default() }),
        any::<(bool, bool)>().prop_map(|(syn, fin)| FlowFilter {
            tcp_flags: vec![TcpFlags { syn, fin, ..TcpFlags::default() }],
            ..FlowFilter::default()
        }),
        prop::collection::vec(0..5u32, 1..3)
            .prop_map(|destination_identity| FlowFilter { destination_identity, ..FlowFilter::default() }),
    ];
    prop::collection::vec(one, 1..3).prop_map(|parts| {
        let bytes: Vec<u8> = parts.iter().flat_map(Message::encode_to_vec).collect();
        FlowFilter::decode(bytes.as_slice()).expect("fields of two filters in one")
    })
}

proptest! {
    #[test]
    fn many_flows_at_once_and_one_by_one_pass_alike(
        flows in prop::collection::vec(some_flow(), 1..300),
        batch in 1..200usize,
        whitelist in prop::collection::vec(some_filter(), 0..3),
        blacklist in prop::collection::vec(some_filter(), 0..2),
        number in 1..20u64,
    ) {
        let (store, mut writer) = Store::new(StoreConfig { flows: 2048, bytes: usize::MAX });
        for batch in flows.chunks(batch) {
            for flow in batch {
                writer.add(&flow.flow());
            }
            writer.publish();
        }
        let filters = Filters::compile(&whitelist, &blacklist).unwrap();
        let mut node = NodeView::default();
        let (mut cursor, mut one_by_one) = (Cursor::new(Arc::clone(&store), 0), Vec::new());
        while let Step::Flow(stored) = cursor.step() {
            if filters.matches(&View { stored, node: node.now() }) {
                one_by_one.push(stored.sequence);
            }
        }
        let selector = Selector::new(filters.matcher(), node);
        let read = |number| {
            let query = Query { number, filter: selector.clone(), ..query(None, None) };
            let (mut reader, mut sequences) = (Reader::new(query, &store, None), Vec::new());
            while reader.next(|sequence, _| sequences.push(sequence)) != Item::Done {}
            sequences
        };
        prop_assert_eq!(read(0), &one_by_one[..]);
        prop_assert_eq!(read(number), &one_by_one[one_by_one.len().saturating_sub(number as usize)..]);
    }
}

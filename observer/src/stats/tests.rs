//! What is counted of flows, over their windows.

use super::*;
use crate::{
    endpoint::{Endpoint, Workload},
    flow::{DropSite, Notes, Record, Sample, Tristate},
    layer7::Layer7,
    policy_verdict::{PolicyName, PolicyTold, PolicyVerdict},
    store::{StoreConfig, Writer},
};
use observer_proto::{
    flow::{Dns, Http, L7FlowType, Layer7 as Layer7Message, Verdict, layer7::Record as L7},
    stats::Signal,
};
use proptest::prelude::*;

fn end(namespace: &str, workload: &str) -> Arc<Endpoint> {
    let workloads = [Workload { kind: "Deployment".into(), name: workload.into() }];
    Arc::new(Endpoint {
        namespace: namespace.into(),
        pod_name: format!("{workload}-0").into(),
        workloads: workloads.into(),
        ..Endpoint::default()
    })
}

fn world() -> Arc<Endpoint> {
    Arc::new(Endpoint { labels: Arc::from(["reserved:world".into()]), ..Endpoint::default() })
}

/// Port and reply as a connection to port 80 has them.
fn tcp(
    source: &Arc<Endpoint>,
    destination: &Arc<Endpoint>,
    client_port: u16,
    reply: bool,
    bytes: u64,
) -> Sample {
    let ports = if reply { (80, client_port) } else { (client_port, 80) };
    Sample {
        record: Record {
            protocol: 6,
            ip_version: 4,
            source_port: ports.0,
            destination_port: ports.1,
            is_reply: if reply { Tristate::Yes } else { Tristate::No },
            bytes,
            verdict: 1,
            event_type: 4,
            ..Record::default()
        },
        source: Arc::clone(source),
        destination: Arc::clone(destination),
        ..Sample::default()
    }
}

fn dropped(source: &Arc<Endpoint>, destination: &Arc<Endpoint>, packets: u64) -> Sample {
    let flow = tcp(source, destination, 1, false, 0);
    let drop = DropSite { kernel_reason: "NO_SOCKET".into(), hubble_reason: 0, location: Err("".into()) };
    Sample {
        record: Record {
            event_type: Record::DROP_EVENT,
            verdict: 2,
            is_reply: Tristate::Unset,
            packets,
            bytes: 60 * packets,
            ..flow.record
        },
        drop: Some(Arc::new(drop)),
        ..flow
    }
}

/// A verdict on such a connection.
fn verdict(source: &Arc<Endpoint>, destination: &Arc<Endpoint>, policy: &str, denies: bool) -> Sample {
    let flow = tcp(source, destination, 1, false, 0);
    let policies = vec![PolicyName { kind: "NetworkPolicy", namespace: "shop".into(), name: policy.into() }];
    let told = PolicyTold { denies, policies, ..PolicyTold::default() };
    Sample {
        record: Record {
            event_type: Record::POLICY_EVENT,
            verdict: if denies { 4 } else { 1 },
            ..flow.record
        },
        policy: Some(Arc::new(PolicyVerdict::new(told))),
        ..flow
    }
}

/// A request of such a connection, or its response after 3 ms.
fn said(client: &Arc<Endpoint>, server: &Arc<Endpoint>, record: L7, is_response: bool) -> Sample {
    let ends = if is_response { (server, client) } else { (client, server) };
    let flow = tcp(ends.0, ends.1, 1, is_response, 0);
    let kind = if is_response { L7FlowType::Response } else { L7FlowType::Request };
    let latency_ns = if is_response { 3_000_000 } else { 0 };
    let message = Layer7Message { r#type: kind as i32, latency_ns, record: Some(record) };
    Sample {
        record: Record { event_type: Record::L7_EVENT, ..flow.record },
        l7: Some(Arc::new(Layer7::new(message, ""))),
        ..flow
    }
}

fn http(path: &str, code: u32) -> L7 {
    L7::Http(Http { method: "GET".into(), url: format!("http://api{path}"), code, ..Http::default() })
}

fn dns(name: &str, rcode: u32) -> L7 {
    L7::Dns(Dns { query: name.into(), qtypes: vec!["A".into()], rcode, ..Dns::default() })
}

#[test]
fn signals_are_counted_by_server_and_route() {
    let (web, api, dns_server) = (end("shop", "web"), end("shop", "api"), world());
    let stats = counted([
        said(&web, &api, http("/a?x=1", 0), false),
        said(&web, &api, http("/a?x=2", 503), true),
        said(&web, &api, http("/b", 404), true),
        said(&web, &dns_server, dns("shop.example.", 0), false),
        said(&web, &dns_server, dns("shop.example.", 3), true),
    ]);
    assert_eq!(stats.window(Span::Minute).totals, Totals { l7: 5, ..Totals::default() });
    let told = |protocol| {
        stats.signals(protocol, Span::Minute, 10).map(|table| {
            assert_eq!(table.other, Sums::default());
            let row =
                |(key, sums): &(SignalKey, Sums)| sums.told(protocol, &key.server.text, &key.route.text);
            table.rows.iter().map(row).collect::<Vec<_>>()
        })
    };
    let shown = |rows: &[Signal]| -> Vec<_> {
        let told = |row: &Signal| {
            let (server, route) = (row.server.clone(), row.route.clone());
            (server, route, [row.requests, row.responses, row.client_errors, row.server_errors, row.times[6]])
        };
        rows.iter().map(told).collect()
    };
    let row = |server: &str, route: &str, counts| (server.to_owned(), route.to_owned(), counts);
    let [servers, routes] = told(Protocol::Http);
    assert_eq!(shown(&servers), [row("shop/api", "", [1, 2, 1, 1, 2])]);
    let expected = [row("shop/api", "GET /a", [1, 1, 0, 1, 1]), row("shop/api", "GET /b", [0, 1, 1, 0, 1])];
    assert_eq!(shown(&routes), expected);
    let [servers, routes] = told(Protocol::Dns);
    assert_eq!(shown(&servers), [row("world", "", [1, 1, 1, 0, 1])]);
    assert_eq!(shown(&routes), [row("world", "A shop.example", [1, 1, 1, 0, 1])]);
}

#[test]
fn verdicts_are_counted_by_their_policies_alone() {
    let (web, api) = (end("shop", "web"), end("shop", "api"));
    let stats = counted([
        tcp(&web, &api, 1, false, 100),
        verdict(&web, &api, "a", false),
        tcp(&web, &api, 1, false, 150),
        verdict(&web, &api, "b", true),
        verdict(&web, &api, "a", false),
    ]);
    let policies = stats.policies(Span::Minute, 10);
    let rows: Vec<_> =
        policies.rows.iter().map(|(key, counts)| (key.policies[0].to_string(), *counts)).collect();
    let counts = |allowed, audited| PolicyCounts { allowed, audited, denied: 0 };
    assert_eq!(
        rows,
        [
            ("NetworkPolicy shop/b".to_owned(), counts(0, 1)),
            ("NetworkPolicy shop/a".to_owned(), counts(2, 0))
        ]
    );
    let totals = policies.window.totals;
    assert_eq!((totals.flows, totals.policy_verdicts, totals.bytes), (2, 3, 150));
    let edges = stats.edges(Span::Minute, 10);
    assert_eq!(edges.rows.iter().map(|(_, counts)| counts.flows).sum::<u64>(), 2);
}

fn examine(stats: &Stats, flow: &Sample) {
    let (store, mut writer) = Store::new(StoreConfig { flows: 2, bytes: usize::MAX });
    writer.push(&flow.flow());
    assert_eq!(stats.count(&mut Cursor::new(store, 0)), (1, true));
}

fn counted(flows: impl IntoIterator<Item = Sample>) -> Stats {
    let stats = Stats::default();
    flows.into_iter().for_each(|flow| examine(&stats, &flow));
    stats
}

#[test]
fn edges_drops_and_talkers_of_some_flows() {
    let (web, api, world) = (end("shop", "web"), end("shop", "api"), world());
    let mut failed = tcp(&web, &world, 9, false, 120);
    failed.record.notes = Notes::CONNECT_FAILED;
    let stats = counted([
        tcp(&web, &api, 1, false, 100),
        tcp(&api, &web, 1, true, 1000),
        tcp(&web, &api, 1, false, 150),
        tcp(&world, &web, 2, false, 10),
        failed,
        dropped(&web, &api, 3),
    ]);
    let edges = stats.edges(Span::Minute, 10);
    assert_eq!(edges.window.totals.flows, 6);
    assert_eq!(edges.other, EdgeCounts::default());
    let shown: Vec<_> = edges
        .rows
        .iter()
        .map(|(key, counts)| (&*key.client.text, &*key.server.text, key.port, *counts))
        .collect();
    assert_eq!(
        shown,
        [
            ("shop/web", "shop/api", (6, 80), EdgeCounts { flows: 4, bytes: 1150, errors: 1 }),
            ("shop/web", "world", (6, 80), EdgeCounts { flows: 1, bytes: 120, errors: 1 }),
            ("world", "shop/web", (6, 80), EdgeCounts { flows: 1, bytes: 10, errors: 0 }),
        ]
    );
    let drops = stats.drops(Span::QuarterHour, 10);
    let [(key, counts)] = &drops.rows[..] else { panic!("{drops:?}") };
    let names = [&key.reason, &key.source, &key.destination].map(|name| &*name.text);
    assert_eq!(names, ["NO_SOCKET", "shop/web", "shop/api"]);
    assert_eq!(*counts, DropCounts { flows: 1, packets: 3, bytes: 180 });
    let talkers = stats.talkers(Span::Minute, 1);
    let web =
        TalkerCounts { sent_flows: 4, received_flows: 2, sent_bytes: 270, received_bytes: 1010, drops: 1 };
    assert_eq!((&*talkers.rows[0].0.text, talkers.rows[0].1, talkers.rows.len()), ("shop/web", web, 1));
    assert_eq!((talkers.other.sent_flows, talkers.other.received_flows), (2, 4));
}

#[test]
fn requests_that_were_refused_are_drops_of_no_packet() {
    let (web, api, world) = (end("shop", "web"), end("shop", "api"), world());
    let refused = |server, record| {
        let mut flow = said(&web, server, record, false);
        flow.record.verdict = Verdict::Dropped as u8;
        flow
    };
    let stats = counted([
        dropped(&web, &api, 3),
        refused(&api, http("/admin", 0)),
        refused(&world, dns("shop.example.", 0)),
        said(&web, &api, http("/", 0), false),
        refused(&api, http("/metrics", 0)),
        said(&web, &api, http("/metrics", 403), true),
    ]);
    let drops = stats.drops(Span::Minute, 10);
    let rows: Vec<_> = drops
        .rows
        .iter()
        .map(|(key, counts)| (&*key.reason.text, &*key.destination.text, counts.flows, counts.packets))
        .collect();
    assert_eq!(
        rows,
        [
            ("NO_SOCKET", "shop/api", 1, 3),
            ("HTTP request denied", "shop/api", 2, 0),
            ("DNS query denied", "world", 1, 0),
        ]
    );
    let Totals { flows, l7, refused, dropped_flows, dropped_packets, .. } = drops.window.totals;
    assert_eq!([flows, l7, refused, dropped_flows, dropped_packets], [1, 5, 3, 1, 3]);
}

#[test]
fn counts_leave_a_window_in_time() {
    let (web, api) = (end("shop", "web"), end("shop", "api"));
    let stats = counted([tcp(&web, &api, 1, false, 100)]);
    let flows = |span| stats.window(span).totals.flows;
    // Its clock goes ahead of the machine's, which can't go back before its start.
    let age = |buckets: u32| {
        let mut inner = stats.0.lock().unwrap();
        let later = inner.bucket + BUCKET * buckets;
        inner.turn_until(later);
    };
    age(12);
    assert_eq!([flows(Span::Minute), flows(Span::FiveMinutes)], [1, 1]);
    age(1);
    assert_eq!([flows(Span::Minute), flows(Span::FiveMinutes)], [0, 1]);
    age(168);
    assert_eq!([flows(Span::FiveMinutes), flows(Span::QuarterHour)], [0, 0]);
    assert_eq!(stats.edges(Span::QuarterHour, 10).rows, []);
}

/// The store, its writer, and the statistics that follow it.
fn following(flows: usize) -> (Arc<Store>, Writer, Arc<Stats>, watch::Sender<bool>) {
    let (store, writer) = Store::new(StoreConfig { flows, bytes: usize::MAX });
    let stats = Arc::new(Stats::default());
    let (end, ending) = watch::channel(false);
    tokio::spawn(Arc::clone(&stats).follow(Arc::clone(&store), ending));
    (store, writer, stats, end)
}

#[tokio::test]
async fn all_flows_of_the_store_are_examined_or_counted_as_lost() {
    let (store, mut writer, stats, _end) = following(256);
    let (web, api) = (end("shop", "web"), end("shop", "api"));
    for number in 0..10_000_u32 {
        writer.push(&tcp(&web, &api, number as u16, false, 1).flow());
        if number.is_multiple_of(100) {
            writer.publish();
            tokio::task::yield_now().await;
        }
    }
    writer.publish();
    store.report_lost(LossSource::KernelRing, 5, 0, 0);
    loop {
        let totals = stats.window(Span::Minute).totals;
        assert!(totals.flows + totals.lost <= 10_000);
        if totals.flows + totals.lost == 10_000 && totals.lost_in_kernel == 5 {
            assert!(totals.lost > 0 && totals.flows > 0, "{totals:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

proptest! {
    #[test]
    fn rows_and_other_are_all_flows_examined(
        flows in prop::collection::vec((0..6_usize, 0..6_usize, 0..4_u16, any::<bool>(), 0..4_u8, 0..50_u64), 0..200),
        turns in prop::collection::vec(any::<bool>(), 200),
        limit in 0..8_usize,
    ) {
        let ends: Vec<_> = (0..5).map(|n| end("ns", &format!("w{n}"))).chain([world()]).collect();
        let stats = Stats::default();
        for ((source, destination, port, reply, kind, bytes), turn) in flows.iter().zip(&turns) {
            let (source, destination) = (&ends[*source], &ends[*destination]);
            let flow = match kind {
                0 => dropped(source, destination, *bytes),
                2 => said(source, destination, http(&format!("/{port}"), 200), *reply),
                1 => verdict(source, destination, ["a", "b", "c", "d"][usize::from(*port)], *reply),
                _ => tcp(source, destination, *port, *reply, *bytes),
            };
            examine(&stats, &flow);
            if *turn {
                stats.state().all.turn();
            }
        }
        for span in Span::ALL {
            let totals = stats.window(span).totals;
            let edges = stats.edges(span, limit);
            let sum = |of: fn(&EdgeCounts) -> u64| edges.rows.iter().map(|(_, sum)| of(sum)).sum::<u64>() + of(&edges.other);
            prop_assert_eq!(sum(|edge| edge.flows), totals.flows);
            prop_assert_eq!(sum(|edge| edge.bytes), totals.bytes);
            prop_assert_eq!(sum(|edge| edge.errors), totals.dropped_flows);
            let drops = stats.drops(span, limit);
            let drop_flows: u64 = drops.rows.iter().map(|(_, sum)| sum.flows).sum();
            prop_assert_eq!(drop_flows + drops.other.flows, totals.dropped_flows);
            let packets: u64 = drops.rows.iter().map(|(_, sum)| sum.packets).sum();
            prop_assert_eq!(packets + drops.other.packets, totals.dropped_packets);
            let policies = stats.policies(span, limit);
            let verdicts = |counts: &PolicyCounts| counts.allowed + counts.audited + counts.denied;
            let sum = policies.rows.iter().map(|(_, sum)| verdicts(sum)).sum::<u64>() + verdicts(&policies.other);
            prop_assert_eq!(sum, totals.policy_verdicts);
            for Rows { rows, other, .. } in stats.signals(Protocol::Http, span, limit) {
                let weight = |sums: &Sums| observer_proto::answers::groups::Counts::weight(sums).0;
                let sum = rows.iter().map(|(_, sums)| weight(sums)).sum::<u64>() + weight(&other);
                prop_assert_eq!(sum, totals.l7);
            }
            let talkers = stats.talkers(span, limit);
            let sum = |of: fn(&TalkerCounts) -> u64| talkers.rows.iter().map(|(_, sum)| of(sum)).sum::<u64>() + of(&talkers.other);
            prop_assert_eq!((sum(|t| t.sent_flows), sum(|t| t.received_flows)), (totals.flows, totals.flows));
            prop_assert_eq!((sum(|t| t.sent_bytes), sum(|t| t.received_bytes)), (totals.bytes, totals.bytes));
        }
    }
}

//! A kernel record through all stages.

use super::read_message;
use crate::{
    decode::{Clock, Decoder, DropReasons, DropSites, End, Tuple},
    enrich::{
        Enricher, Filler,
        ipcache::IpCache,
        source::{Pod, Rank, Snapshot, Window},
    },
    flow::Flow,
    serve::encode::{Encoder, NodeInfo},
    track::{Addresses, ConntrackTable, Entry, TableLimits, Tracked, Tracker},
};
use observer_ebpf::{
    ABI_VERSION, DeniedRecord, DropRecord, FactRecord, FlowRecord, JudgedFlowRecord, PayloadRecord,
    TunneledFlowRecord, kind,
};
use observer_proto::observer::get_flows_response::ResponseTypes;
use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVICE: [u8; 4] = [10, 96, 0, 1];
const BACKEND: [u8; 4] = [10, 0, 0, 2];

/// The pods of this node.
struct Pods;

impl Addresses for Pods {
    fn is_local_pod(&self, end: &End) -> bool {
        [CLIENT, BACKEND].map(IpAddr::from).contains(&end.ip())
    }
    fn is_node(&self, end: &End) -> bool {
        end.ip() == IpAddr::from([10, 0, 0, 254])
    }
    fn has_tunnel(&self) -> bool {
        true
    }
}

static NAMES: LazyLock<Arc<IpCache>> = LazyLock::new(|| {
    let pod = |name: &str, ip: [u8; 4]| Pod {
        uid: name.into(),
        namespace: "web".into(),
        name: name.into(),
        ips: vec![ip.into()],
        local: true,
        labels: vec![format!("k8s:app={name}")],
        ..Pod::default()
    };
    let pods = vec![pod("client", CLIENT), pod("backend", BACKEND)];
    let cache = IpCache::new("n1");
    cache.replace(Rank::Inventory, Snapshot { pods, ..Snapshot::default() }, Window::exact(0));
    Arc::new(cache)
});

/// What conntrack knows: a call of the service.
static CONNECTIONS: LazyLock<ConntrackTable> = LazyLock::new(|| {
    let end = |ip: [u8; 4], port| End::new(ip.into(), port);
    let client = end(CLIENT, 40_000);
    let original = Tuple { source: client, destination: end(SERVICE, 80), protocol: 6 };
    let reply = Tuple { source: end(BACKEND, 8080), destination: client, protocol: 6 };
    let mut table = ConntrackTable::new(TableLimits::default());
    table.insert(Entry { id: 1, original, reply });
    table
});

/// One record, as it stands in a ring; also as if this version had written it, so that inputs outlive a change of the
/// version.
pub fn record(data: &[u8]) {
    through_all_stages(data);
    if data.get(1).is_some_and(|version| *version != ABI_VERSION) {
        let mut current = data.to_vec();
        current[1] = ABI_VERSION;
        through_all_stages(&current);
    }
}

fn through_all_stages(data: &[u8]) {
    let reasons = DropReasons::new([(3, "SKB_DROP_REASON_NO_SOCKET".to_owned())]);
    let symbols =
        |address| if address == 0x10 { Ok("tcp_v4_rcv+0x1".to_owned()) } else { Err("no such symbol") };
    let mut decoder = Decoder { clock: Clock::with_offset(1_000), sites: DropSites::new(reasons, symbols) };
    for conntrack in [None, Some(&*CONNECTIONS)] {
        let event = match decoder.decode(data) {
            Ok(event) => event,
            Err(error) => {
                assert!(!error.to_string().contains('\n'));
                return;
            }
        };
        let size = match data[0] {
            kind::FLOW => size_of::<FlowRecord>(),
            kind::DROP => size_of::<DropRecord>(),
            kind::TUNNELED_FLOW => size_of::<TunneledFlowRecord>(),
            kind::JUDGED_FLOW => size_of::<JudgedFlowRecord>(),
            kind::DENIED => size_of::<DeniedRecord>(),
            kind::PAYLOAD => {
                size_of::<PayloadRecord>() + usize::from(u16::from_ne_bytes([data[120], data[121]]))
            }
            _ => size_of::<FactRecord>(),
        };
        assert_eq!((data[1], data.len()), (ABI_VERSION, size));
        assert_eq!(event.kernel_ns().to_ne_bytes(), data[8..16]);

        let (mut tracker, mut told) = (Tracker::default(), 0);
        tracker.batch(&mut vec![event], conntrack, u64::MAX, &Pods, &mut |tracked| {
            serve(tracked);
            told += 1;
        });
        let counters = tracker.counters();
        let facts = counters.facts + counters.facts_turned_away + counters.facts_without_ends;
        let sum = counters.flows + counters.drops + facts + counters.suppressed() + tracker.waiting() as u64;
        assert_eq!((sum, tracker.waiting()), (1, 0), "{counters:?}");
        assert_eq!(told, counters.flows + counters.drops);
    }
}

/// The flow as clients get it.
fn serve(tracked: &Tracked<'_>) {
    let (time_ns, kernel_ns) = match tracked {
        Tracked::Flow(flow) => (flow.event.time_ns, flow.event.kernel_ns),
        Tracked::Drop(drop) => (drop.event.time_ns, drop.event.kernel_ns),
    };
    let is_drop = matches!(tracked, Tracked::Drop(_));
    Filler::new(Enricher::new(Arc::clone(&NAMES)))
        .fill(tracked, None, |flow| is_right(flow, kernel_ns, (time_ns, is_drop)));
}

fn is_right(flow: &Flow<'_>, kernel_ns: u64, (time_ns, is_drop): (i64, bool)) {
    assert_eq!((flow.time_ns, flow.is_drop()), (time_ns, is_drop));
    names_are_right(flow, kernel_ns);
    let mut out = Vec::new();
    Encoder::new(&NodeInfo::default()).response(&mut out, 7, flow, None);
    let Some(ResponseTypes::Flow(wire)) = read_message(&out).response_types else { panic!("no flow") };
    let text = |ip: Option<IpAddr>| ip.map_or(String::new(), |ip| ip.to_string());
    let ends = wire.ip.map(|ip| (ip.source, ip.destination)).unwrap_or_default();
    assert_eq!(ends, (text(flow.source_ip), text(flow.destination_ip)));
    assert_eq!(wire.source.unwrap().pod_name, *flow.source.pod_name);
    assert_eq!(wire.verdict, i32::from(flow.verdict));
}

/// A pod is named by its own address only, not by an IPv6 address that has it inside. Inside a tunnel of pods the outer
/// addresses are theirs.
fn names_are_right(flow: &Flow<'_>, kernel_ns: u64) {
    if flow.tunnel.is_some() {
        return;
    }
    for (ip, endpoint) in [(flow.source_ip, flow.source), (flow.destination_ip, flow.destination)] {
        let expected = match ip {
            Some(ip) if ip == IpAddr::from(CLIENT) => "client",
            Some(ip) if ip == IpAddr::from(BACKEND) => "backend",
            _ => "",
        };
        // The pods are there from 0 on; the last time there is belongs to nobody.
        if kernel_ns < u64::MAX {
            assert_eq!(endpoint.pod_name, expected, "{ip:?}");
        }
    }
}

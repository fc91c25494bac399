//! What must hold for any request for flows.
#![expect(clippy::missing_panics_doc, reason = "it does nothing else")]

use super::{
    encode::{Encoder, NodeInfo},
    flows::check,
    query::{Item, Reader},
    view::NodeView,
};
use crate::{
    endpoint::{Endpoint, Service, Workload},
    flow::{DropSite, Link, LinkKind, Notes, Record, Sample, Translated, Tristate},
    fuzz::read_message,
    store::{Store, StoreConfig},
};
use observer_proto::{
    filter::Filters,
    flow as proto,
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use prost::Message as _;
use std::sync::{Arc, LazyLock};

const SECOND: i64 = 1_000_000_000;

struct Bed {
    store: Arc<Store>,
    node: NodeView,
    encoder: Encoder,
    /// The flows of the store as clients read them.
    wire: Vec<proto::Flow>,
}

static BED: LazyLock<Bed> = LazyLock::new(|| {
    let node = NodeInfo {
        cluster: "default".into(),
        name: "n1".into(),
        labels: vec!["zone=a".into()].into(),
        version: "0.1.0".into(),
    };
    let (store, mut writer) = Store::new(StoreConfig { flows: 64, bytes: usize::MAX });
    let mut encoder = Encoder::new(&node);
    let mut wire = Vec::new();
    for (sequence, flow) in flows().into_iter().enumerate() {
        let mut out = Vec::new();
        encoder.response(&mut out, sequence as u64, &flow.flow(), None);
        let Some(ResponseTypes::Flow(read)) = read_message(&out).response_types else { panic!("no flow") };
        wire.push(read);
        writer.push(&flow.flow());
    }
    Bed { store, node: NodeView::from(&node), encoder, wire }
});

/// One of each kind, seen from second 1 on; the last one came late.
#[expect(clippy::too_many_lines, reason = "a list")]
fn flows() -> Vec<Sample> {
    let pod = |namespace: &str, name: &str, identity| {
        Arc::new(Endpoint {
            identity,
            cluster: "default".into(),
            namespace: namespace.into(),
            pod_name: name.into(),
            labels: [format!("k8s:app={name}").into(), "k8s:team=a".into()].into(),
            workloads: [Workload { kind: "Deployment".into(), name: name.into() }].into(),
            ..Endpoint::default()
        })
    };
    let site = DropSite {
        kernel_reason: "NETFILTER_DROP".into(),
        hubble_reason: 133,
        location: Ok("nf_hook_slow+0xab".into()),
    };
    let link = Link { index: 4, name: "veth1".into(), kind: LinkKind::Pod };
    let tcp = Sample {
        record: Record {
            time_ns: SECOND,
            source_ip: Some([10, 0, 0, 1].into()),
            destination_ip: Some([10, 0, 0, 2].into()),
            source_port: 40_000,
            destination_port: 8080,
            protocol: 6,
            ip_version: 4,
            flags_or_type: 0x02,
            event_type: 4,
            verdict: 1,
            direction: 1,
            observation_point: 1,
            is_reply: Tristate::No,
            ..Record::default()
        },
        source: pod("web", "frontend-1", 4001),
        destination: pod("payments", "api-0", 4002),
        link: Some(Arc::new(link)),
        ..Sample::default()
    };
    let reply = Sample {
        record: Record {
            time_ns: 2 * SECOND,
            source_ip: tcp.record.destination_ip,
            destination_ip: tcp.record.source_ip,
            source_port: 8080,
            destination_port: 40_000,
            flags_or_type: 0x12,
            direction: 2,
            is_reply: Tristate::Yes,
            ..tcp.record
        },
        source: Arc::clone(&tcp.destination),
        destination: Arc::clone(&tcp.source),
        source_service: Some(Arc::new(Service { namespace: "payments".into(), name: "api".into() })),
        ..tcp.clone()
    };
    let dropped = Sample {
        record: Record {
            time_ns: 3 * SECOND,
            event_type: 1,
            verdict: 2,
            is_reply: Tristate::Unset,
            ..tcp.record
        },
        drop: Some(Arc::new(site)),
        ..tcp.clone()
    };
    let six = |last: u16| Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into());
    let udp = Sample {
        record: Record {
            time_ns: 4 * SECOND,
            source_ip: six(1),
            destination_ip: six(2),
            destination_port: 53,
            protocol: 17,
            ip_version: 6,
            flags_or_type: 0,
            ..tcp.record
        },
        ..tcp.clone()
    };
    let fragment = Sample {
        record: Record {
            time_ns: 5 * SECOND,
            source_port: 0,
            destination_port: 0,
            notes: Notes::FRAGMENT,
            ..udp.record
        },
        ..udp.clone()
    };
    let icmp = Sample {
        record: Record { time_ns: 6 * SECOND, protocol: 1, flags_or_type: 0x0800, ..tcp.record },
        ..tcp.clone()
    };
    let world = Sample {
        record: Record {
            time_ns: 7 * SECOND,
            protocol: 132,
            flags_or_type: 0,
            destination_ip: Some([1, 1, 1, 1].into()),
            ..tcp.record
        },
        translated: Some(Arc::new(Translated {
            source: Some([192, 168, 0, 1].into()),
            ..Translated::default()
        })),
        destination: Arc::new(Endpoint {
            identity: 2,
            labels: ["reserved:world".into()].into(),
            ..Endpoint::default()
        }),
        ..tcp.clone()
    };
    let late = Sample { record: Record { time_ns: 4 * SECOND, ..reply.record }, ..reply.clone() };
    let nothing = Sample::from(Record { time_ns: 8 * SECOND, ..Record::default() });
    vec![tcp, reply, dropped, udp, fragment, icmp, world, nothing, late]
}

/// A `GetFlowsRequest` as it comes: checked, and answered from a small store.
pub fn request(data: &[u8]) {
    let Ok(request) = GetFlowsRequest::decode(data) else { return };
    let bed = &*BED;
    let (query, mask) = match check(request.clone(), &bed.node) {
        Ok(checked) => checked,
        Err(status) => return assert!(!status.message().is_empty()),
    };
    let (since, until) = (query.since.unwrap_or(i64::MIN), query.until.unwrap_or(i64::MAX));
    let mut encoder = bed.encoder.clone();
    let mut reader = Reader::new(query, &bed.store, None);
    let mut given = Vec::new();
    // One step for each flow, and one to see the end.
    let ended = (0..=bed.store.seen()).any(|_| {
        let item = reader.next(|sequence, flow| {
            assert!((since..=until).contains(&flow.time_ns));
            let mut out = Vec::new();
            encoder.response(&mut out, sequence, flow, mask.as_ref());
            if let Some(mask) = &mask {
                let (mut whole, mut once, mut twice) = (Vec::new(), Vec::new(), Vec::new());
                encoder.response(&mut whole, sequence, flow, None);
                let Some(ResponseTypes::Flow(flow)) = read_message(&whole).response_types else {
                    panic!("no flow")
                };
                mask.apply(&flow.encode_to_vec(), &mut once);
                mask.apply(&once, &mut twice);
                assert!(once == twice, "a second mask takes something more");
                proto::Flow::decode(once.as_slice()).expect("a masked flow");
            }
            read_message(&out);
            given.push(sequence as usize);
        });
        assert!(!matches!(item, Item::Lost(_)));
        matches!(item, Item::Pause | Item::Done)
    });
    assert!(ended, "it goes on without end");

    let filter = Filters::compile(&request.whitelist, &request.blacklist).expect("it was compiled before");
    // The filter says the same of a flow in the store and of what a client reads.
    let passing: Vec<usize> =
        (0..bed.wire.len()).filter(|sequence| filter.matches(&bed.wire[*sequence])).collect();
    assert!(given.iter().all(|sequence| passing.contains(sequence)), "{given:?} of {passing:?}");
    assert!(given.is_sorted());
    let number = usize::try_from(request.number).unwrap_or(usize::MAX);
    if request.follow || request.since.is_some() || request.until.is_some() {
        assert!(request.follow || number == 0 || given.len() <= number);
    } else if request.first || number == 0 {
        let count = if number == 0 { passing.len() } else { number.min(passing.len()) };
        assert_eq!(given, passing[..count]);
    } else {
        assert_eq!(given, passing[passing.len().saturating_sub(number)..]);
    }
}

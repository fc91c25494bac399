//! Encoded flows against prost's reading of them.

use crate::{
    endpoint::{Endpoint, Service},
    flow::{DropSite, Link, LinkKind, Notes, Record, Sample, Translated, Tunnel, TunnelKind},
    serve::{
        encode::{Encoder, NodeInfo},
        mask::Mask,
    },
};
use observer_proto::{
    flow as proto,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost::Message as _;
use std::{net::IpAddr, sync::Arc};

pub(super) fn node() -> NodeInfo {
    NodeInfo {
        cluster: "default".into(),
        name: "n1".into(),
        labels: vec!["a=b".into(), "zone=".into()].into(),
        version: "0.1.0".into(),
    }
}

fn decode(framed: &[u8]) -> GetFlowsResponse {
    assert_eq!(framed[0], 0, "not compressed");
    let len = u32::from_be_bytes(framed[1..5].try_into().unwrap());
    assert_eq!(len as usize, framed.len() - 5);
    let response = GetFlowsResponse::decode(&framed[5..]).unwrap();
    assert_eq!(response.encode_to_vec(), &framed[5..], "not what protobuf libraries write");
    response
}

pub(super) fn encode(sequence: u64, flow: &Sample, paths: &[&str]) -> GetFlowsResponse {
    let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
    let mask = Mask::parse(&paths).unwrap();
    let mut out = Vec::new();
    Encoder::new(&node()).response(&mut out, sequence, &flow.flow(), mask.as_ref());
    if mask.is_none() { decode(&out) } else { GetFlowsResponse::decode(&out[5..]).unwrap() }
}

pub(super) fn wire_flow(response: GetFlowsResponse) -> proto::Flow {
    match response.response_types {
        Some(ResponseTypes::Flow(flow)) => flow,
        other => panic!("no flow: {other:?}"),
    }
}

pub(super) fn pod(name: &str, labels: usize) -> Arc<Endpoint> {
    let endpoint = Endpoint {
        id: 7,
        identity: 4001,
        cluster: "default".into(),
        namespace: "shop".into(),
        labels: (0..labels).map(|n| format!("k8s:label-{n}=value").into()).collect(),
        pod_name: name.into(),
        ..Endpoint::default()
    };
    Arc::new(endpoint)
}

pub(super) fn translated(source: Option<IpAddr>, frontend: Option<(IpAddr, u16)>) -> Arc<Translated> {
    Arc::new(Translated { source, frontend, ..Translated::default() })
}

/// What a drop of a pod's packet looks like.
pub(super) fn dropped() -> Sample {
    Sample {
        record: Record {
            time_ns: 1_767_608_130_123_456_789,
            source_ip: Some("10.0.1.60".parse().unwrap()),
            destination_ip: Some("2001:db8::1".parse().unwrap()),
            source_port: 44916,
            destination_port: 80,
            protocol: 6,
            ip_version: 4,
            flags_or_type: 0x12,
            event_type: 1,
            verdict: 2,
            direction: 1,
            source_mac: [0, 1, 2, 0xab, 0xcd, 0xff],
            packets: 3,
            bytes: 180,
            first_ns: 1_767_608_130_000_000_000,
            notes: Notes(Notes::SUM.0 | Notes::OPENER_GUESSED.0),
            ..Record::default()
        },
        source: pod("web-0", 3),
        destination: pod("api-1", 0),
        destination_service: Some(Arc::new(Service { namespace: "shop".into(), name: "api".into() })),
        link: Some(Arc::new(Link { index: 4, name: "veth1".into(), kind: LinkKind::Pod })),
        drop: Some(Arc::new(DropSite {
            kernel_reason: "NETFILTER_DROP".into(),
            hubble_reason: 133,
            location: Ok("nf_hook_slow+0xab".into()),
        })),
        translated: Some(translated(None, Some(("10.96.0.10".parse().unwrap(), 80)))),
        ..Sample::default()
    }
}

#[test]
#[expect(deprecated, reason = "Hubble still fills the fields")]
fn a_drop_has_every_field_where_hubble_has_it() {
    let response = encode(5, &dropped(), &[]);
    assert_eq!(response.node_name, "default/n1");
    assert_eq!(response.time, Some(prost_types::Timestamp { seconds: 1_767_608_130, nanos: 123_456_789 }));
    let flow = wire_flow(response.clone());
    assert_eq!(flow.time, response.time);
    assert_eq!((flow.uuid.len(), &flow.uuid[14..15], &flow.uuid[18..]), (36, "4", "-8000-000000000005"));
    assert_eq!(flow.verdict(), proto::Verdict::Dropped);
    assert_eq!((flow.drop_reason, flow.drop_reason_desc()), (133, proto::DropReason::PolicyDenied));
    assert_eq!(flow.event_type, Some(proto::CiliumEventType { r#type: 1, sub_type: 133 }));
    let ethernet = flow.ethernet.as_ref().unwrap();
    assert_eq!(
        (ethernet.source.as_str(), ethernet.destination.as_str()),
        ("00:01:02:ab:cd:ff", "00:00:00:00:00:00")
    );
    let ip = flow.ip.as_ref().unwrap();
    assert_eq!((ip.source.as_str(), ip.destination.as_str()), ("10.0.1.60", "2001:db8::1"));
    let Some(proto::layer4::Protocol::Tcp(tcp)) = &flow.l4.as_ref().unwrap().protocol else {
        panic!("no TCP")
    };
    assert_eq!((tcp.source_port, tcp.destination_port), (44916, 80));
    assert_eq!(tcp.flags, Some(proto::TcpFlags { syn: true, ack: true, ..Default::default() }));
    assert_eq!(flow.source.as_ref().unwrap().pod_name, "web-0");
    assert_eq!(flow.destination.as_ref().unwrap().pod_name, "api-1");
    assert_eq!(flow.destination_service.as_ref().unwrap().name, "api");
    assert_eq!(flow.interface, Some(proto::NetworkInterface { index: 4, name: "veth1".into() }));
    assert_eq!((flow.is_reply, flow.reply), (None, false));
    assert_eq!(flow.node_labels, ["a=b", "zone="]);
    assert_eq!(flow.emitter, Some(proto::Emitter { name: "Observer".into(), version: "0.1.0".into() }));
    assert_eq!(flow.summary, "TCP Flags: SYN, ACK; NETFILTER_DROP at nf_hook_slow+0xab");
    assert_eq!(
        extensions(&flow),
        [
            "bytes=180",
            "first_seen=2026-01-05T10:15:30Z",
            "frontend=10.96.0.10:80",
            "kernel_drop_reason=NETFILTER_DROP",
            "kernel_location=nf_hook_slow+0xab",
            "opener_guessed=true",
            "packets=3",
            "sum=true",
        ]
    );
}

#[test]
fn a_flow_has_the_facts_that_it_knows_in_extensions() {
    let flow = Sample {
        record: Record {
            event_type: 4,
            packets: 12,
            bytes: 1 << 40,
            first_ns: 1_767_608_130_000_001_000,
            retransmits: 2,
            resets: 1,
            notes: Notes(Notes::FRAGMENT.0 | Notes::CONNECT_FAILED.0 | Notes::FINAL.0 | Notes::PARTIAL.0),
            ..Record::default()
        },
        translated: Some(translated(None, Some(("2001:db8::1".parse().unwrap(), 443)))),
        ..Sample::default()
    };
    assert_eq!(
        extensions(&wire_flow(encode(1, &flow, &[]))),
        [
            "bytes=1099511627776",
            "connect_failed=true",
            "final=true",
            "first_seen=2026-01-05T10:15:30.000001Z",
            "fragment=true",
            "frontend=[2001:db8::1]:443",
            "packets=12",
            "partial=true",
            "resets=1",
            "retransmits=2",
        ]
    );
    assert_eq!(wire_flow(encode(1, &Sample::default(), &[])).extensions, None);
}

#[test]
fn what_is_around_a_packet_is_hubbles_tunnel() {
    let tunnel = |kind, protocol| {
        let ends = (("192.168.50.11".parse().unwrap(), 40_000), ("192.168.50.12".parse().unwrap(), 8472));
        let tunnel = Some(Arc::new(Tunnel { kind, protocol, ends: Some(ends), vni: 7 }));
        wire_flow(encode(
            1,
            &Sample { record: Record { packets: 1, ..Record::default() }, tunnel, ..Sample::default() },
            &[],
        ))
    };
    let vxlan = tunnel(TunnelKind::Vxlan, 17).tunnel.unwrap();
    assert_eq!((vxlan.protocol(), vxlan.vni), (proto::tunnel::Protocol::Vxlan, 7));
    let ip = vxlan.ip.unwrap();
    assert_eq!((ip.source.as_str(), ip.destination.as_str()), ("192.168.50.11", "192.168.50.12"));
    assert_eq!(ip.ip_version, proto::IpVersion::IPv4 as i32);
    let Some(proto::layer4::Protocol::Udp(udp)) = vxlan.l4.unwrap().protocol else { panic!("no UDP") };
    assert_eq!((udp.source_port, udp.destination_port), (40_000, 8472));

    let flow = tunnel(TunnelKind::Gre, 47);
    assert_eq!(extensions(&flow), ["packets=1", "tunnel=GRE"]);
    let gre = flow.tunnel.unwrap();
    assert_eq!((gre.protocol(), gre.l4), (proto::tunnel::Protocol::Unknown, None));
}

#[test]
#[expect(deprecated, reason = "Hubble still fills the field")]
fn a_drop_without_a_location_says_why() {
    let site = |hubble_reason, location| {
        Some(Arc::new(DropSite { kernel_reason: "NO_SOCKET".into(), hubble_reason, location }))
    };
    let mut flow = Sample { drop: site(178, Err("no symbols".into())), ..dropped() };
    flow.record.flags_or_type = 2;
    let flow = wire_flow(encode(1, &flow, &[]));
    assert_eq!(flow.summary, "TCP Flags: SYN; NO_SOCKET");
    let texts = extensions(&flow);
    assert!(texts.contains(&"kernel_location_unknown=no symbols".to_owned()), "{texts:?}");
    assert!(!texts.iter().any(|text| text.starts_with("kernel_location=")), "{texts:?}");

    let flow = Sample { drop: site(300, Ok("tcp_v4_rcv+0x1".into())), ..dropped() };
    let flow = wire_flow(encode(1, &flow, &[]));
    assert_eq!(flow.drop_reason_desc, 300);
    assert_eq!(flow.event_type, Some(proto::CiliumEventType { r#type: 1, sub_type: 300 % 256 }));
}

#[test]
#[expect(deprecated, reason = "Hubble still fills the field")]
fn summaries_are_in_hubbles_words() {
    for (ip_version, protocol, icmp_type, notes, expected) in [
        (4, 1, 8, Notes::default(), "ICMPv4 EchoRequest"),
        (6, 58, 135, Notes::default(), "ICMPv6 NeighborSolicitation"),
        (4, 2, 0x16, Notes::default(), "IGMP IGMPv2 Membership Report"),
        (4, 17, 0, Notes::default(), "UDP"),
        (4, 17, 0, Notes::FRAGMENT, "IPv4"),
        (6, 6, 0, Notes::FRAGMENT, "IPv6"),
        (0, 0, 0, Notes::default(), "Ethernet"),
    ] {
        let flags_or_type = u16::from_be_bytes([icmp_type, 0]);
        let flow = Sample::from(Record { protocol, ip_version, flags_or_type, notes, ..Record::default() });
        assert_eq!(wire_flow(encode(1, &flow, &[])).summary, expected);
    }
}

/// The Struct's entries as `key=value`.
fn extensions(flow: &proto::Flow) -> Vec<String> {
    let any = flow.extensions.as_ref().unwrap();
    assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.Struct");
    let values = prost_types::Struct::decode(any.value.as_slice()).unwrap().fields;
    values.iter().map(|(key, value)| format!("{key}={}", show(value))).collect()
}

fn show(value: &prost_types::Value) -> String {
    use prost_types::value::Kind;
    match value.kind.as_ref().unwrap() {
        Kind::NumberValue(n) => n.to_string(),
        Kind::StringValue(s) => s.clone(),
        Kind::BoolValue(b) => b.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn masks_cut_and_keep_parents() {
    let flow = dropped();
    let masked =
        encode(1, &flow, &["source.pod_name", "verdict", "l4.UDP.source_port", "source_service.name"]);
    // Neither time nor node name is in the mask, so the response has none either.
    assert_eq!((masked.time, masked.node_name.as_str()), (None, ""));
    let masked = wire_flow(masked);
    assert_eq!(masked.source, Some(proto::Endpoint { pod_name: "web-0".into(), ..Default::default() }));
    assert_eq!(masked.source_service, Some(proto::Service::default()), "an unset parent is there");
    assert_eq!(masked.l4, Some(proto::Layer4 { protocol: None }), "of a oneof only the active member");
    assert_eq!((masked.verdict, masked.destination, masked.ip, masked.uuid.as_str()), (2, None, None, ""));

    let timed = encode(1, &flow, &["time", "node_name", "source", "source.labels"]);
    assert_eq!((timed.time.unwrap().seconds, timed.node_name.as_str()), (1_767_608_130, "default/n1"));
    assert_eq!(wire_flow(timed).source.unwrap().labels.len(), 3, "the whole field wins over a part");
}

#[test]
fn the_default_mask_of_hubbles_client_is_valid_and_wrong_ones_are_named() {
    let default = "time verdict ethernet IP l4 source.identity source.namespace source.pod_name destination.identity \
        destination.namespace destination.pod_name Type node_name l7 event_type source_service destination_service \
        is_reply Summary ip_trace_id traffic_direction policy_match_type";
    let paths: Vec<_> = default.split_whitespace().map(str::to_owned).collect();
    assert!(Mask::parse(&paths).unwrap().is_some());
    assert_eq!(Mask::parse(&[]), Ok(None));
    for (path, error) in [
        ("sauce", r#"invalid fieldmask: "sauce": Flow has no field "sauce""#),
        ("source.name", r#"invalid fieldmask: "source.name": Endpoint has no field "name""#),
        ("verdict.x", r#"invalid fieldmask: "verdict.x": "verdict" has no fields of its own"#),
        (
            "egress_allowed_by.name",
            r#"invalid fieldmask: "egress_allowed_by.name": "egress_allowed_by" has no fields of its own"#,
        ),
        ("", r#"invalid fieldmask: "": Flow has no field """#),
    ] {
        assert_eq!(Mask::parse(&[path.to_owned()]).unwrap_err(), error);
    }
}

//! Encoded flows against prost's reading of them.

use crate::{
    endpoint::{Endpoint, Service},
    flow::{DropSite, Flow, Link, LinkKind, Notes, Translated, Tristate, Tunnel, TunnelKind},
    serve::{
        encode::{Encoder, NodeInfo},
        mask::Mask,
    },
};
use observer_proto::{
    flow as proto,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use proptest::prelude::*;
use prost::Message as _;
use std::{net::IpAddr, sync::Arc};

fn node() -> NodeInfo {
    NodeInfo {
        cluster: "default".into(),
        name: "n1".into(),
        labels: vec!["a=b".into(), "zone=".into()],
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

fn encode(sequence: u64, flow: &Flow, paths: &[&str]) -> GetFlowsResponse {
    let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
    let mask = Mask::parse(&paths).unwrap();
    let mut out = Vec::new();
    Encoder::new(&node()).response(&mut out, sequence, flow, mask.as_ref());
    if mask.is_none() { decode(&out) } else { GetFlowsResponse::decode(&out[5..]).unwrap() }
}

fn wire_flow(response: GetFlowsResponse) -> proto::Flow {
    match response.response_types {
        Some(ResponseTypes::Flow(flow)) => flow,
        other => panic!("no flow: {other:?}"),
    }
}

fn pod(name: &str, labels: usize) -> Arc<Endpoint> {
    let endpoint = Endpoint {
        id: 7,
        identity: 4001,
        cluster: "default".into(),
        namespace: "shop".into(),
        labels: (0..labels).map(|n| format!("k8s:label-{n}=value")).collect(),
        pod_name: name.into(),
        ..Endpoint::default()
    };
    Arc::new(endpoint)
}

/// What a drop of a pod's packet looks like.
pub(super) fn dropped() -> Flow {
    Flow {
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
        source: pod("web-0", 3),
        destination: pod("api-1", 0),
        destination_service: Some(Arc::new(Service { namespace: "shop".into(), name: "api".into() })),
        link: Some(Arc::new(Link { index: 4, name: "veth1".into(), kind: LinkKind::Pod })),
        drop: Some(Arc::new(DropSite {
            kernel_reason: "NETFILTER_DROP".into(),
            hubble_reason: 133,
            location: Ok("nf_hook_slow+0xab".into()),
        })),
        packets: 3,
        bytes: 180,
        first_ns: 1_767_608_130_000_000_000,
        notes: Notes(Notes::SUM.0 | Notes::OPENER_GUESSED.0),
        translated: Some(translated(None, Some(("10.96.0.10".parse().unwrap(), 80)))),
        ..crate::flow::test_flow()
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
    let flow = Flow {
        event_type: 4,
        packets: 12,
        bytes: 1 << 40,
        first_ns: 1_767_608_130_000_001_000,
        retransmits: 2,
        resets: 1,
        notes: Notes(Notes::FRAGMENT.0 | Notes::CONNECT_FAILED.0 | Notes::FINAL.0 | Notes::PARTIAL.0),
        translated: Some(translated(None, Some(("2001:db8::1".parse().unwrap(), 443)))),
        ..crate::flow::test_flow()
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
    assert_eq!(wire_flow(encode(1, &crate::flow::test_flow(), &[])).extensions, None);
}

#[test]
fn what_is_around_a_packet_is_hubbles_tunnel() {
    let tunnel = |kind, protocol| {
        let ends = (("192.168.50.11".parse().unwrap(), 40_000), ("192.168.50.12".parse().unwrap(), 8472));
        let tunnel = Some(Arc::new(Tunnel { kind, protocol, ends: Some(ends), vni: 7 }));
        wire_flow(encode(1, &Flow { packets: 1, tunnel, ..crate::flow::test_flow() }, &[]))
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
    let flow = Flow { flags_or_type: 2, drop: site(178, Err("no symbols")), ..dropped() };
    let flow = wire_flow(encode(1, &flow, &[]));
    assert_eq!(flow.summary, "TCP Flags: SYN; NO_SOCKET");
    let texts = extensions(&flow);
    assert!(texts.contains(&"kernel_location_unknown=no symbols".to_owned()), "{texts:?}");
    assert!(!texts.iter().any(|text| text.starts_with("kernel_location=")), "{texts:?}");

    let flow = Flow { drop: site(300, Ok("tcp_v4_rcv+0x1".into())), ..dropped() };
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
        let flow = Flow { protocol, ip_version, flags_or_type, notes, ..crate::flow::test_flow() };
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

fn any_tunnel() -> impl Strategy<Value = Option<Arc<Tunnel>>> {
    const KINDS: [TunnelKind; 5] =
        [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre, TunnelKind::IpInIp, TunnelKind::Forgotten];
    let end = || (any::<IpAddr>(), any::<u16>());
    let tunnel =
        (prop::sample::select(&KINDS[..]), any::<u8>(), prop::option::of((end(), end())), any::<u32>())
            .prop_map(|(kind, protocol, ends, vni)| Arc::new(Tunnel { kind, protocol, ends, vni }));
    prop::option::of(tunnel)
}

fn translated(source: Option<IpAddr>, frontend: Option<(IpAddr, u16)>) -> Arc<Translated> {
    Arc::new(Translated { source, frontend })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let ip = || prop::option::of(any::<IpAddr>());
    (
        (any::<i64>(), ip(), ip(), ip(), any::<u16>(), any::<u16>(), any::<u8>()),
        (prop::sample::select(vec![0u8, 4, 6]), any::<u16>(), prop::sample::select(vec![1u8, 4, 5])),
        (0..8u8, 0..3u8, any::<u8>(), 0..9u8, 0..3u8, any::<[u8; 6]>(), any::<[u8; 6]>()),
        (
            0..40usize,
            "[a-zé<>&\"\\\\\u{2028}\n]{0,200}",
            any::<bool>(),
            any::<bool>(),
            prop::option::of(prop_oneof![Just(0), 130..205u16, any::<u16>()]),
        ),
        (any::<u64>(), any::<u64>(), any::<i64>(), any::<u16>(), 0..64u16, ip(), any_tunnel()),
    )
        .prop_map(|(a, b, c, d, e)| Flow {
            time_ns: a.0,
            source_ip: a.1,
            destination_ip: a.2,
            translated: Some(translated(a.3, e.5.map(|ip| (ip, a.4)))),
            source_port: a.4,
            destination_port: a.5,
            protocol: a.6,
            ip_version: b.0,
            flags_or_type: b.1,
            event_type: b.2,
            verdict: c.0,
            direction: c.1,
            observation_point: c.2,
            trace_reason: c.3,
            is_reply: [Tristate::Unset, Tristate::No, Tristate::Yes][usize::from(c.4)],
            source_mac: c.5,
            destination_mac: c.6,
            source: pod(&d.1, d.0),
            destination_service: d
                .2
                .then(|| Arc::new(Service { namespace: String::new(), name: d.1.clone() })),
            link: d.3.then(|| Arc::new(Link { index: 0, name: d.1.clone(), kind: LinkKind::Other })),
            drop: d.4.map(|hubble_reason| {
                Arc::new(DropSite {
                    kernel_reason: d.1.clone(),
                    hubble_reason,
                    location: if d.3 { Ok(d.1.clone()) } else { Err("no symbols") },
                })
            }),
            packets: e.0,
            bytes: e.1,
            first_ns: e.2,
            retransmits: e.3,
            resets: e.3,
            notes: Notes(e.4),
            tunnel: e.6,
            ..crate::flow::test_flow()
        })
}

proptest! {
    #[test]
    fn any_flow_is_read_back_as_it_is(sequence: u64, flow in any_flow()) {
        let wire = wire_flow(encode(sequence, &flow, &[]));
        prop_assert_eq!(wire.verdict, i32::from(flow.verdict));
        prop_assert_eq!(wire.is_reply, flow.is_reply.as_option());
        prop_assert_eq!(wire.traffic_direction, i32::from(flow.direction));
        prop_assert_eq!(wire.source.unwrap(), proto::Endpoint::decode(flow.source.encoded()).unwrap());
        let time = wire.time.unwrap();
        prop_assert_eq!(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos), i128::from(flow.time_ns));
        prop_assert_eq!(wire.interface.is_some(), flow.link.is_some());
        if let Some(ip) = wire.ip {
            let text = |ip: Option<IpAddr>| ip.map_or(String::new(), |ip| ip.to_string());
            prop_assert_eq!(ip.source, text(flow.source_ip));
            prop_assert_eq!(ip.destination, text(flow.destination_ip));
            prop_assert_eq!(ip.source_xlated, text(flow.source_xlated()));
        } else {
            prop_assert_eq!(flow.ip_version, 0);
        }
        if let Some(any) = wire.extensions {
            let fields = prost_types::Struct::decode(any.value.as_slice()).unwrap();
            prop_assert_eq!(fields.encode_to_vec(), any.value);
        }
    }

    #[test]
    fn the_json_line_is_that_of_the_message(sequence: u64, flows in prop::collection::vec(any_flow(), 1..4)) {
        // One encoder for several flows: what it keeps must not leak from one to the next.
        let mut encoder = Encoder::new(&node());
        for flow in &flows {
            let mut line = Vec::new();
            encoder.json_line(&mut line, sequence, flow);
            let expected = observer_proto::json::line(&encode(sequence, flow, &[])).unwrap();
            prop_assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}

use super::*;
use crate::flow::{LinkKind, TunnelKind};
use observer_ebpf::{
    self as abi, Tuple as AbiTuple, drop_flags, flow_flags, flow_reason, hook, link_kind, payload_kind,
    policy::{Judged, POLICY_DENY, decision},
    tunnel_kind,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use zerocopy::{FromZeros as _, IntoBytes as _};

fn decoder() -> Decoder<impl Symbols> {
    let reasons = DropReasons::new([(3, "SKB_DROP_REASON_NO_SOCKET".to_owned())]);
    Decoder {
        clock: Clock::with_offset(1_000),
        sites: DropSites::new(reasons, |_| Ok("tcp_v4_rcv+0x1".to_owned())),
    }
}

fn header<R>(kind: u8) -> Header {
    Header { kind, version: ABI_VERSION, size: size_of::<R>() as u16, cpu: 1, time_ns: 50 }
}

fn tuple() -> AbiTuple {
    AbiTuple {
        source: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
        destination: Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(),
        source_port: 40000,
        destination_port: 80,
        protocol: 6,
        ip_version: 4,
        ..AbiTuple::default()
    }
}

fn flow() -> FlowRecord {
    FlowRecord {
        header: header::<FlowRecord>(kind::FLOW),
        tuple: tuple(),
        flags: flow_flags::ETHERNET,
        hook: hook::EGRESS,
        link_kind: link_kind::POD,
        reason: flow_reason::NEW,
        tcp_flags: 0x02,
        tcp_flags_high: 0xff,
        first_ns: 40,
        packets: 3,
        ..FlowRecord::new_zeroed()
    }
}

fn drop_record() -> DropRecord {
    DropRecord {
        header: header::<DropRecord>(kind::DROP),
        tuple: tuple(),
        reason: 3,
        location: 0x10,
        flags: drop_flags::PARSED | drop_flags::SUM,
        ..DropRecord::new_zeroed()
    }
}

#[test]
fn a_flow() {
    let Ok(Event::Flow(event)) = decoder().decode(flow().as_bytes()) else { panic!("no flow") };
    let packet = event.packet.unwrap();
    assert_eq!(packet.tuple.source, End::new(IpAddr::from([10, 0, 0, 1]), 40000));
    assert_eq!(packet.tuple.destination, End::new(IpAddr::from([10, 0, 0, 2]), 80));
    assert_eq!((event.time_ns, event.kernel_ns, event.first_ns), (1_050, 50, 1_040));
    assert_eq!((event.hook, event.link_kind, event.reason), (Hook::Egress, LinkKind::Pod, FlowReason::New));
    assert_eq!(event.tcp_flags, 0x102);
    assert_eq!(event.packets, 3);
    assert!(event.macs.is_some());
}

#[test]
fn what_policies_say_comes_with_a_flow_and_with_a_denied_packet() {
    let judged = Judged { generation: 7, egress: decision::JUDGED | 3, ingress: 0, flags: 1 };
    let mut record = JudgedFlowRecord { flow: flow(), judged };
    record.flow.header = header::<JudgedFlowRecord>(kind::JUDGED_FLOW);
    let Ok(Event::Flow(event)) = decoder().decode(record.as_bytes()) else { panic!("no flow") };
    assert_eq!((event.judged, event.packets), (Some(judged), 3));

    let mut record = DeniedRecord {
        drop: DropRecord { reason: POLICY_DENY, location: 0, flags: drop_flags::PARSED, ..drop_record() },
        judged,
        source_mac: [1; 6],
        hook: hook::INGRESS,
        link_kind: link_kind::POD,
        flow_flags: flow_flags::ETHERNET | flow_flags::OPENER_GUESSED,
        ..DeniedRecord::new_zeroed()
    };
    record.drop.header = header::<DeniedRecord>(kind::DENIED);
    let Ok(Event::Drop(event)) = decoder().decode(record.as_bytes()) else { panic!("no drop") };
    let denied = event.denied.unwrap();
    assert_eq!((denied.judged, denied.macs.unwrap().source), (judged, [1; 6]));
    assert!(denied.flags.has(flow_flags::OPENER_GUESSED) && event.packet.is_some());
    assert_eq!((event.site.hubble_reason, event.site.is_by_policies()), (181, true));
    record.hook = 9;
    let error = decoder().decode(record.as_bytes()).unwrap_err();
    assert_eq!(error, DecodeError::Field { field: "hook", value: 9 });
}

#[test]
fn a_flow_inside_a_tunnel() {
    let outer = AbiTuple { source_port: 40_001, destination_port: 4789, protocol: 17, ..tuple() };
    let tunnel = abi::Tunnel { tuple: outer, vni: 7, kind: tunnel_kind::VXLAN, ..abi::Tunnel::default() };
    let mut record = TunneledFlowRecord { flow: flow(), tunnel };
    record.flow.header = header::<TunneledFlowRecord>(kind::TUNNELED_FLOW);
    let Ok(Event::Flow(event)) = decoder().decode(record.as_bytes()) else { panic!("no flow") };
    assert_eq!(event.packet.unwrap().tuple.protocol, 6, "the packet inside");
    let tunnel = event.tunnel.unwrap();
    assert_eq!((tunnel.kind, tunnel.protocol, tunnel.vni), (TunnelKind::Vxlan, 17, 7));
    let ends = ((IpAddr::from([10, 0, 0, 1]), 40_001), (IpAddr::from([10, 0, 0, 2]), 4789));
    assert_eq!(tunnel.ends, Some(ends));

    record.tunnel = abi::Tunnel::default();
    let Ok(Event::Flow(event)) = decoder().decode(record.as_bytes()) else { panic!("no flow") };
    let tunnel = event.tunnel.unwrap();
    assert_eq!((tunnel.kind, tunnel.ends), (TunnelKind::Forgotten, None));
    record.tunnel.kind = 9;
    let error = decoder().decode(record.as_bytes()).map(|_| ()).unwrap_err();
    assert_eq!(error, DecodeError::Field { field: "tunnel.kind", value: 9 });
}

#[test]
fn a_drop() {
    let Ok(Event::Drop(event)) = decoder().decode(drop_record().as_bytes()) else { panic!("no drop") };
    assert_eq!(event.site.kernel_reason, "NO_SOCKET");
    assert_eq!(event.site.hubble_reason, 178);
    assert!(event.sum && !event.socket && event.packet.is_some());
    let unparsed = DropRecord { flags: 0, ..drop_record() };
    let Ok(Event::Drop(event)) = decoder().decode(unparsed.as_bytes()) else { panic!("no drop") };
    assert_eq!(event.packet, None);
}

#[test]
fn a_fact() {
    let record = FactRecord {
        header: header::<FactRecord>(kind::FACT),
        tuple: tuple(),
        netns: 7,
        retransmits: 2,
        failed_connects: 1,
        pad: 0,
    };
    let Ok(Event::Fact(event)) = decoder().decode(record.as_bytes()) else { panic!("no fact") };
    assert_eq!((event.retransmits, event.connect_failed, event.netns), (2, true, 7));
}

#[test]
fn an_ipv6_packet_keeps_a_mapped_address_as_it_is() {
    let mut record = flow();
    record.tuple.ip_version = 6;
    let Ok(Event::Flow(event)) = decoder().decode(record.as_bytes()) else { panic!("no flow") };
    assert!(event.packet.unwrap().tuple.source.ip().is_ipv6());
}

#[test]
fn what_is_no_ip_has_no_packet() {
    let record = FlowRecord { tuple: AbiTuple::default(), ..flow() };
    let Ok(Event::Flow(event)) = decoder().decode(record.as_bytes()) else { panic!("no flow") };
    assert_eq!(event.packet, None);
}

#[test]
fn payload_is_as_long_as_it_says() {
    let mut flow = FlowRecord { reason: flow_reason::PAYLOAD, ..flow() };
    (flow.header.kind, flow.header.size) = (kind::PAYLOAD, 131);
    let record = PayloadRecord {
        flow,
        sequence: 7,
        length: 9,
        copied: 3,
        payload: payload_kind::DNS,
        pad: 0,
        before: [1; 4],
    };
    let bytes = [record.as_bytes(), b"abc"].concat();
    let Ok(Event::Flow(event)) = decoder().decode(&bytes) else { panic!("no flow") };
    let payload = Payload { kind: PayloadKind::Dns, sequence: 7, length: 9, bytes: b"abc".as_slice().into() };
    assert_eq!((event.reason, event.payload.as_deref()), (FlowReason::Payload, Some(&payload)));

    let wrong = |record: PayloadRecord| {
        let bytes = [record.as_bytes(), b"abc"].concat();
        decoder().decode(&bytes).map(|_| ()).unwrap_err()
    };
    let size = |want| DecodeError::Size { kind: kind::PAYLOAD, got: 131, want };
    assert_eq!(wrong(PayloadRecord { copied: 4, ..record }), size(132));
    assert_eq!(wrong(PayloadRecord { length: 2, ..record }), size(131));
    let field = |field, value| DecodeError::Field { field, value };
    assert_eq!(wrong(PayloadRecord { payload: 4, ..record }), field("payload", 4));
    let flow = FlowRecord { reason: flow_reason::NEW, ..record.flow };
    assert_eq!(wrong(PayloadRecord { flow, ..record }), field("reason", flow_reason::NEW));
}

#[test]
fn wrong_records_are_named() {
    let with = |change: fn(&mut FlowRecord)| {
        let mut record = flow();
        change(&mut record);
        decoder().decode(record.as_bytes()).map(|_| ()).unwrap_err()
    };
    let field = |field, value| DecodeError::Field { field, value };
    let size = |got| DecodeError::Size { kind: kind::FLOW, got, want: 112 };
    assert_eq!(with(|r| r.header.version = 9), DecodeError::Version(9));
    assert_eq!(with(|r| r.header.kind = 77), DecodeError::Kind(77));
    assert_eq!(with(|r| r.header.size = 111), size(111));
    assert_eq!(with(|r| r.hook = 0), field("hook", 0));
    assert_eq!(with(|r| r.link_kind = 4), field("link_kind", 4));
    assert_eq!(with(|r| r.reason = 6), field("reason", 6));
    assert_eq!(with(|r| r.tuple.ip_version = 5), field("tuple.ip_version", 5));
    assert_eq!(with(|r| r.tuple.source = [1; 16]), field("tuple.ip_version", 4));
    assert_eq!(decoder().decode(&flow().as_bytes()[..100]).unwrap_err(), size(100));
    assert_eq!(decoder().decode(&[1, 2, 3]).unwrap_err(), DecodeError::Short(3));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..160), kind in 0u8..6) {
        if let Some(head) = bytes.get_mut(..2) {
            head.copy_from_slice(&[kind, ABI_VERSION]);
        }
        let _ = decoder().decode(&bytes);
        let length = bytes.len() as u16;
        if let Some(size) = bytes.get_mut(2..4) {
            size.copy_from_slice(&length.to_ne_bytes());
        }
        let _ = decoder().decode(&bytes);
    }

    #[test]
    fn whole_records_of_any_content_never_panic(content in prop::array::uniform32(any::<u8>()), kind in 1u8..5) {
        let length: usize = match kind {
            kind::FLOW => 112,
            kind::DROP => 120,
            kind::FACT => 80,
            _ => 160,
        };
        let mut bytes: Vec<u8> = content.iter().copied().cycle().take(length).collect();
        bytes[0] = kind;
        bytes[1] = ABI_VERSION;
        bytes[2..4].copy_from_slice(&(length as u16).to_ne_bytes());
        let _ = decoder().decode(&bytes);
    }
}

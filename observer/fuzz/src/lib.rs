//! The packet parser against another one.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use observer_ebpf::fuzz::{FirstFragments, read};
use observer_ebpf::parse::{ICMP, ICMPV6, Packet, TCP, UDP, mapped};

const IGMP: u8 = 2;

/// Where both parsers find addresses and a transport, these are the same.
pub fn agrees_with_etherparse(frame: &[u8]) {
    let Ok(packet) = read(frame, &mut FirstFragments::default()) else { return };
    let Ok(other) = LaxSlicedPacket::from_ethernet(frame) else { return };
    let ends = match &other.net {
        // Authentication headers are followed by IPv6 only.
        Some(LaxNetSlice::Ipv4(ip)) if ip.extensions().auth.is_none() => {
            let header = ip.header();
            (4, mapped(header.source()), mapped(header.destination()))
        }
        Some(LaxNetSlice::Ipv6(ip)) => (6, ip.header().source(), ip.header().destination()),
        _ => return,
    };
    let tuple = packet.tuple;
    assert_eq!((tuple.ip_version, tuple.source, tuple.destination), ends);
    // More extension headers than are followed.
    if matches!(tuple.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        return;
    }
    if let Some(transport) = &other.transport {
        assert_eq!(said(&packet), expected(transport), "{other:?}");
    }
}

/// Protocol, the two ports or ICMP's type and code, TCP's flags.
type Transport = (u8, u16, u16, u16);

fn said(Packet { tuple, tcp_flags, tcp_flags_high, .. }: &Packet) -> Transport {
    let flags = u16::from(*tcp_flags) | u16::from(*tcp_flags_high) << 8;
    match tuple.protocol {
        ICMP | ICMPV6 => (tuple.protocol, tuple.icmp_type.into(), tuple.icmp_code.into(), flags),
        protocol => (protocol, tuple.source_port, tuple.destination_port, flags),
    }
}

fn expected(transport: &TransportSlice<'_>) -> Transport {
    match transport {
        TransportSlice::Icmpv4(icmp) => (ICMP, icmp.type_u8().into(), icmp.code_u8().into(), 0),
        TransportSlice::Icmpv6(icmp) => (ICMPV6, icmp.type_u8().into(), icmp.code_u8().into(), 0),
        TransportSlice::Udp(udp) => (UDP, udp.source_port(), udp.destination_port(), 0),
        TransportSlice::Tcp(tcp) => {
            let bits = [
                tcp.fin(),
                tcp.syn(),
                tcp.rst(),
                tcp.psh(),
                tcp.ack(),
                tcp.urg(),
                tcp.ece(),
                tcp.cwr(),
                tcp.ns(),
            ];
            let flags = bits.into_iter().enumerate().map(|(place, set)| u16::from(set) << place).sum();
            (TCP, tcp.source_port(), tcp.destination_port(), flags)
        }
        TransportSlice::Igmp(_) => (IGMP, 0, 0, 0),
    }
}

use std::vec::Vec;

use super::*;
use crate::fuzz::{FirstFragments, Memory, read, read_plain};

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
/// Source 40000, destination 80.
const PORTS: [u8; 4] = [0x9c, 0x40, 0, 80];
/// The part of TCP that is read: a SYN with the NS bit.
const SYN: [u8; 14] = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x51, 2];

fn ethernet(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ether_type.to_be_bytes(), packet].concat()
}

/// `place` is the flags and fragment offset; the header is as long as its first byte says.
fn ipv4(first: u8, place: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let [high, low] = place.to_be_bytes();
    let fixed = [&[first, 0, 0, 0, 0, 7, high, low, 64, protocol, 0, 0][..], &A, &B].concat();
    let options = usize::from(first & 15).saturating_sub(5) * 4;
    ethernet(ETH_IPV4, &[&fixed[..], &[1; 40][..options], rest].concat())
}

/// With a chain of destination options before the transport.
fn ipv6(options: usize, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet =
        [&[0x60, 0, 0, 0, 0, 0, if options > 0 { 60 } else { protocol }, 64][..], &[1; 32]].concat();
    for left in (0..options).rev() {
        packet.extend([if left > 0 { 60 } else { protocol }, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend(rest);
    ethernet(ETH_IPV6, &packet)
}

fn alone(frame: &[u8]) -> Result<Packet, Unparsed> {
    read(frame, &mut FirstFragments::default())
}

fn protocol_and_ports(frame: &[u8]) -> (u8, u16, u16) {
    let Packet { tuple, .. } = alone(frame).unwrap();
    (tuple.protocol, tuple.source_port, tuple.destination_port)
}

#[test]
fn a_syn_is_read_both_ways() {
    let frame = ipv4(0x45, 0, TCP, &SYN);
    let tuple = Tuple {
        source: mapped(A),
        destination: mapped(B),
        source_port: 40_000,
        destination_port: 80,
        protocol: TCP,
        ip_version: 4,
        ..Tuple::default()
    };
    let packet = Packet { tuple, tcp_flags: 2, tcp_flags_high: 1, fragment: false };
    assert_eq!(alone(&frame), Ok(packet));
    assert_eq!(read_plain(&frame), Some(packet));
    assert_eq!(read_plain(&frame[..frame.len() - 1]), None, "its flags are not there");
}

#[test]
fn each_ipv4_header_length() {
    for words in 0..16 {
        let frame = ipv4(0x40 | words, 0, UDP, &PORTS);
        if words < 5 {
            assert_eq!(alone(&frame), Err(Unparsed::Malformed), "{words}");
        } else {
            assert_eq!(protocol_and_ports(&frame), (UDP, 40_000, 80), "{words}");
        }
    }
    assert_eq!(alone(&ipv4(0x65, 0, UDP, &PORTS)), Err(Unparsed::Malformed), "version 6");
}

#[test]
fn six_extension_headers_are_followed_and_no_more() {
    for options in 0..=6 {
        assert_eq!(protocol_and_ports(&ipv6(options, UDP, &PORTS)), (UDP, 40_000, 80), "{options}");
    }
    assert_eq!(protocol_and_ports(&ipv6(7, UDP, &PORTS)), (60, 0, 0));
}

#[test]
fn later_fragments_have_the_ports_of_their_first() {
    let (first, later) = (ipv4(0x45, 0x2000, UDP, &PORTS), ipv4(0x45, 185, UDP, b"no ports"));
    assert_eq!(protocol_and_ports(&later), (UDP, 0, 0));
    let mut fragments = FirstFragments::default();
    assert!(!read(&first, &mut fragments).unwrap().fragment);
    let packet = read(&later, &mut fragments).unwrap();
    assert!(packet.fragment);
    assert_eq!((packet.tuple.source_port, packet.tuple.destination_port), (40_000, 80));
}

#[test]
fn tags_and_what_is_no_ip() {
    let mut tci = 0;
    let tagged = [&ethernet(ETH_QINQ, &[0, 7, 0x81, 0, 0, 42, 8, 0])[..], &[0; 40]].concat();
    assert_eq!(super::ethernet(&crate::fuzz::Memory(&tagged), ETH_QINQ, 14, &mut tci), Some((ETH_IPV4, 22)));
    assert_eq!(tci, 7, "the outer tag");
    assert_eq!(alone(&ethernet(0x0806, &[0; 28])), Err(Unparsed::NotIp));
    assert_eq!(alone(&ethernet(ETH_VLAN, &[0, 7])), Err(Unparsed::Malformed));
}

#[test]
fn an_echo_has_its_identifier_for_ports_and_an_error_has_none() {
    assert_eq!(protocol_and_ports(&ipv4(0x45, 0, ICMP, &[8, 0, 0, 0, 0, 9])), (ICMP, 9, 9));
    assert_eq!(protocol_and_ports(&ipv4(0x45, 0, ICMP, &[3, 3, 0, 0, 0, 9])), (ICMP, 0, 0));
    assert_eq!(protocol_and_ports(&ipv6(0, ICMPV6, &[129, 0, 0, 0, 0, 9])), (ICMPV6, 9, 9));
    assert!(icmp_error(ICMP, 3) && icmp_error(ICMPV6, 1) && !icmp_error(ICMPV6, 129) && !icmp_error(TCP, 3));
}

#[test]
fn an_error_quotes_an_ip_header_and_eight_bytes() {
    let start = [PORTS, [0; 4]].concat();
    let echo = [8, 0, 0, 0, 0, 9, 0, 1];
    for (inner, rest, expected) in
        [(TCP, &start[..], (40_000, 80)), (UDP, &start, (40_000, 80)), (ICMP, &echo, (9, 9))]
    {
        let about = &ipv4(0x45, 0, inner, rest)[14..];
        let error = ipv4(0x46, 0, ICMP, &[&[3, 4, 0, 0, 0, 0, 0, 0][..], about].concat());
        let mut tuple = Tuple::default();
        quoted(&Memory(&error), ICMP, 14, &mut tuple).unwrap();
        assert_eq!(
            (tuple.protocol, tuple.ip_version, tuple.source, tuple.destination),
            (inner, 4, mapped(A), mapped(B))
        );
        assert_eq!((tuple.source_port, tuple.destination_port), expected);
        for end in 0..error.len() {
            assert_eq!(quoted(&Memory(&error[..end]), ICMP, 14, &mut Tuple::default()), None);
        }
    }
    let about = &ipv6(0, UDP, &start)[14..];
    let error = ipv6(0, ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], about].concat());
    let mut tuple = Tuple::default();
    quoted(&Memory(&error), ICMPV6, 14, &mut tuple).unwrap();
    assert_eq!((tuple.protocol, tuple.ip_version, tuple.source), (UDP, 6, [1; 16]));
    assert_eq!((tuple.source_port, tuple.destination_port), (40_000, 80));
    // About a later fragment, whose ports are elsewhere.
    let about = &ipv4(0x45, 100, UDP, &start)[14..];
    let error = ipv4(0x45, 0, ICMP, &[&[11, 1, 0, 0, 0, 0, 0, 0][..], about].concat());
    assert_eq!(quoted(&Memory(&error), ICMP, 14, &mut Tuple::default()), None);
}

#[test]
fn a_first_fragment_may_end_before_the_flags() {
    for (place, readable) in [(0x2000, true), (0, false)] {
        let packet = alone(&ipv4(0x45, place, TCP, &SYN[..8]));
        assert_eq!(packet.is_ok(), readable);
        if let Ok(packet) = packet {
            assert_eq!((packet.tuple.destination_port, packet.tcp_flags, packet.fragment), (80, 0, false));
        }
    }
}

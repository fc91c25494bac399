//! Packets inside packets: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, 2890), IP in IP (RFC 2003, 4213).

use super::{Bytes, ETH_IPV4, ETH_IPV6, Packet, UDP};
use crate::tunnel_kind;

const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const GRE: u8 = 47;

/// IANA's port of VXLAN, and the one that Linux had before it, which flannel and Cilium still use.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;

/// EtherType of a whole Ethernet frame inside (transparent Ethernet bridging).
pub const ETH_FRAME: u16 = 0x6558;

/// What is inside a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// One of [`tunnel_kind`].
    pub kind: u8,
    /// Network identifier of VXLAN and Geneve, key of GRE, else 0.
    pub vni: u32,
    /// [`ETH_FRAME`], or what the packet inside is.
    pub ether_type: u16,
    /// Where it begins.
    pub offset: u32,
}

/// Whether [`inside`] may find something: a look at what was parsed already.
#[inline(always)]
pub fn may_carry(packet: &Packet) -> bool {
    let tuple = &packet.tuple;
    match tuple.protocol {
        UDP => {
            let port = tuple.destination_port;
            (port == VXLAN_PORTS[0] || port == VXLAN_PORTS[1] || port == GENEVE_PORT) && !packet.fragment
        }
        GRE | IPV4_INSIDE | IPV6_INSIDE => !packet.fragment,
        _ => false,
    }
}

/// What a packet carries whose IP header stands at `network`; nothing where it carries none after all, or where IPv6
/// extension headers come before it, which no tunnel of Linux writes.
#[inline(always)]
pub fn inside(bytes: &impl Bytes, network: u32, packet: &Packet) -> Option<Inside> {
    let tuple = &packet.tuple;
    let mut first = [0; 7];
    bytes.read(network, &mut first)?;
    let offset = if tuple.ip_version == 4 {
        network + u32::from(first[0] & 15) * 4
    } else if first[6] == tuple.protocol {
        network + 40
    } else {
        return None;
    };
    match tuple.protocol {
        UDP if tuple.destination_port == GENEVE_PORT => geneve(bytes, offset + 8),
        UDP => vxlan(bytes, offset + 8),
        GRE => gre(bytes, offset),
        IPV4_INSIDE => Some(Inside { kind: tunnel_kind::IP, vni: 0, ether_type: ETH_IPV4, offset }),
        IPV6_INSIDE => Some(Inside { kind: tunnel_kind::IP, vni: 0, ether_type: ETH_IPV6, offset }),
        _ => None,
    }
}

#[inline(always)]
fn vxlan(bytes: &impl Bytes, offset: u32) -> Option<Inside> {
    const HAS_VNI: u8 = 8;
    let mut header = [0; 8];
    bytes.read(offset, &mut header)?;
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let kind = tunnel_kind::VXLAN;
    (header[0] & HAS_VNI != 0).then_some(Inside { kind, vni, ether_type: ETH_FRAME, offset: offset + 8 })
}

#[inline(always)]
fn geneve(bytes: &impl Bytes, offset: u32) -> Option<Inside> {
    let mut header = [0; 8];
    bytes.read(offset, &mut header)?;
    let options = u32::from(header[0] & 63) * 4;
    let inside = Inside {
        kind: tunnel_kind::GENEVE,
        vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
        ether_type: u16::from_be_bytes([header[2], header[3]]),
        offset: offset + 8 + options,
    };
    (header[0] >> 6 == 0).then_some(inside)
}

#[inline(always)]
fn gre(bytes: &impl Bytes, offset: u32) -> Option<Inside> {
    const CHECKSUM: u8 = 0x80;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    // Routing (RFC 1701, long dead) and the versions, of which 1 is PPTP.
    const UNKNOWN: [u8; 2] = [0x4f, 0x07];
    let mut header = [0; 4];
    bytes.read(offset, &mut header)?;
    if header[0] & UNKNOWN[0] != 0 || header[1] & UNKNOWN[1] != 0 {
        return None;
    }
    let mut next = offset + 4;
    if header[0] & CHECKSUM != 0 {
        next += 4;
    }
    let mut key = [0; 4];
    if header[0] & KEY != 0 {
        bytes.read(next, &mut key)?;
        next += 4;
    }
    if header[0] & SEQUENCE != 0 {
        next += 4;
    }
    let ether_type = u16::from_be_bytes([header[2], header[3]]);
    Some(Inside { kind: tunnel_kind::GRE, vni: u32::from_be_bytes(key), ether_type, offset: next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{FirstFragments, Memory, read};
    use std::vec::Vec;

    /// An IPv4 or IPv6 packet behind an Ethernet header, with this behind its IP header.
    fn frame(version: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let header = match version {
            4 => [&[8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0][..], &[10; 8]].concat(),
            _ => [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64][..], &[1; 32]].concat(),
        };
        [&ethernet[..], &header, rest].concat()
    }

    fn udp(port: u16, rest: &[u8]) -> Vec<u8> {
        [&[0x9c, 0x40][..], &port.to_be_bytes(), &[0; 4], rest].concat()
    }

    fn found(frame: &[u8]) -> Option<(u8, u32, u16, usize)> {
        let packet = read(frame, &mut FirstFragments::default()).unwrap();
        assert!(may_carry(&packet), "{packet:?}");
        let inside = inside(&Memory(frame), 14, &packet)?;
        Some((inside.kind, inside.vni, inside.ether_type, frame.len() - inside.offset as usize))
    }

    #[test]
    fn each_tunnel_says_what_is_inside_and_where() {
        let vxlan = [8, 0, 0, 0, 1, 2, 3, 0, 9, 9];
        let geneve = [2, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9];
        let full_gre = [0xb0, 0, 0x86, 0xdd, 1, 1, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9];
        let cases = [
            (17, udp(4789, &vxlan), (tunnel_kind::VXLAN, 0x01_02_03, ETH_FRAME)),
            (17, udp(8472, &vxlan), (tunnel_kind::VXLAN, 0x01_02_03, ETH_FRAME)),
            (17, udp(6081, &geneve), (tunnel_kind::GENEVE, 7, ETH_FRAME)),
            (47, [0, 0, 8, 0, 9, 9].to_vec(), (tunnel_kind::GRE, 0, ETH_IPV4)),
            (47, [0x20, 0, 0x65, 0x58, 0, 0, 0, 5, 9, 9].to_vec(), (tunnel_kind::GRE, 5, ETH_FRAME)),
            (47, full_gre.to_vec(), (tunnel_kind::GRE, 6, ETH_IPV6)),
            (4, [9, 9].to_vec(), (tunnel_kind::IP, 0, ETH_IPV4)),
            (41, [9, 9].to_vec(), (tunnel_kind::IP, 0, ETH_IPV6)),
            (17, udp(6081, &[0, 0, 8, 0, 0, 0, 1, 0, 9, 9]), (tunnel_kind::GENEVE, 1, ETH_IPV4)),
        ];
        for (protocol, rest, (kind, vni, ether_type)) in cases {
            for version in [4, 6] {
                let frame = frame(version, protocol, &rest);
                assert_eq!(found(&frame), Some((kind, vni, ether_type, 2)), "{rest:?}");
            }
        }
    }

    #[test]
    fn what_is_no_tunnel_after_all_carries_nothing() {
        for (protocol, rest) in [
            (17, udp(4789, &[0; 8])),
            (17, udp(4789, &[8, 0, 0, 0, 1, 2, 3])),
            (17, udp(6081, &[0x40, 0, 0x65, 0x58, 0, 0, 7, 0])),
            (47, [0x40, 0, 8, 0, 0, 0, 0, 0].to_vec()),
            (47, [0, 1, 0x88, 0x0b, 0, 0, 0, 0].to_vec()),
            (47, [0x20, 0, 8, 0].to_vec()),
        ] {
            assert_eq!(found(&frame(4, protocol, &rest)), None, "{protocol} {rest:?}");
        }
    }
}

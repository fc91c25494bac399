//! What is around a packet that was carried inside another, as Hubble's `flow.Tunnel`.

use super::{encode::ip_text, wire};
use crate::flow::{Tunnel, TunnelKind};
use observer_proto::flow as proto;

const UDP: u8 = 17;

/// Writes the message. Hubble has names for VXLAN and Geneve only: what the others are stands in `extensions`.
pub(super) fn write(out: &mut Vec<u8>, tunnel: &Tunnel) {
    let protocol = match tunnel.kind {
        TunnelKind::Vxlan => proto::tunnel::Protocol::Vxlan,
        TunnelKind::Geneve => proto::tunnel::Protocol::Geneve,
        TunnelKind::Gre | TunnelKind::IpInIp | TunnelKind::Forgotten => proto::tunnel::Protocol::Unknown,
    };
    wire::number(out, 1, protocol as u64);
    let Some((source, destination)) = tunnel.ends else { return };
    wire::nested(out, 2, |out| {
        wire::nested(out, 1, |out| ip_text(out, source.0));
        wire::nested(out, 2, |out| ip_text(out, destination.0));
        let version = if source.0.is_ipv4() { proto::IpVersion::IPv4 } else { proto::IpVersion::IPv6 };
        wire::number(out, 3, version as u64);
    });
    if tunnel.protocol == UDP {
        wire::nested(out, 3, |out| {
            wire::nested(out, 2, |out| {
                wire::number(out, 1, source.1.into());
                wire::number(out, 2, destination.1.into());
            });
        });
    }
    wire::number(out, 4, tunnel.vni.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn the_outer_headers_are_hubbles_message() {
        let tunnel = Tunnel {
            kind: TunnelKind::Vxlan,
            protocol: UDP,
            ends: Some((
                ("192.168.50.11".parse().unwrap(), 40_000),
                ("192.168.50.12".parse().unwrap(), 8472),
            )),
            vni: 7,
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &tunnel);
        let read = proto::Tunnel::decode(&bytes[..]).unwrap();
        assert_eq!(read.protocol(), proto::tunnel::Protocol::Vxlan);
        let ip = read.ip.unwrap();
        assert_eq!((ip.source.as_str(), ip.destination.as_str()), ("192.168.50.11", "192.168.50.12"));
        assert_eq!(ip.ip_version, proto::IpVersion::IPv4 as i32);
        let Some(proto::layer4::Protocol::Udp(udp)) = read.l4.unwrap().protocol else { panic!("no UDP") };
        assert_eq!((udp.source_port, udp.destination_port, read.vni), (40_000, 8472, 7));

        for kind in [TunnelKind::Gre, TunnelKind::Forgotten] {
            let mut bytes = Vec::new();
            let ends = (kind == TunnelKind::Gre).then_some(tunnel.ends).flatten();
            write(&mut bytes, &Tunnel { kind, protocol: 47, ends, vni: 9 });
            let read = proto::Tunnel::decode(&bytes[..]).unwrap();
            assert_eq!((read.protocol(), read.l4), (proto::tunnel::Protocol::Unknown, None));
            assert_eq!(read.ip.is_some(), kind == TunnelKind::Gre);
        }
    }
}

//! What stands behind each link, by what netlink says of it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

use observer_ebpf::proxy::{LinkWay, way};

use super::Glob;
use super::links::{Link, LinkKind};

/// What netlink says of one link.
struct Raw<'a> {
    ifindex: u32,
    name: &'a str,
    kind: Option<&'a InfoKind>,
    controller: Option<u32>,
    peer_nsid: Option<i32>,
    mac: Option<[u8; 6]>,
    ethernet: bool,
    loopback: bool,
    default_route: bool,
}

impl<'a> Raw<'a> {
    fn read(message: &'a LinkMessage) -> Self {
        let mut raw = Self {
            ifindex: message.header.index,
            name: "",
            kind: None,
            controller: None,
            peer_nsid: None,
            mac: None,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            default_route: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => raw.name = name,
                LinkAttribute::Controller(index) => raw.controller = Some(*index),
                LinkAttribute::Address(address) => raw.mac = address.as_slice().try_into().ok(),
                LinkAttribute::LinkNetNsId(id) => raw.peer_nsid = Some(*id),
                LinkAttribute::LinkInfo(infos) => {
                    raw.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        raw
    }

    /// A node that is itself a container has a veth as its uplink; no default route leads to a pod.
    fn is_pod(&self) -> bool {
        let paired = matches!(self.kind, Some(InfoKind::Veth | InfoKind::Netkit)) && self.peer_nsid.is_some();
        paired && !self.default_route
    }

    fn is_tunnel(&self) -> bool {
        use InfoKind as K;
        matches!(
            self.kind,
            Some(
                K::Vxlan
                    | K::Geneve
                    | K::GreTap
                    | K::GreTap6
                    | K::GreTun
                    | K::GreTun6
                    | K::IpIp
                    | K::Ip6Tnl
                    | K::SitTun
                    | K::Wireguard
                    | K::BareUdp
                    | K::Xfrm
                    | K::Vti
                    | K::Vti6
            )
        )
    }
}

/// The links to attach to, and the names of the others. Bridges of pods alone are among the former only on demand.
pub(super) fn classify(
    messages: &[LinkMessage],
    addresses: &[(u32, IpAddr)],
    default_routes: &HashSet<u32>,
    globs: &[Glob],
    with_bridges: bool,
) -> (Vec<Link>, Vec<String>) {
    let mut links: Vec<Raw<'_>> = messages.iter().map(Raw::read).collect();
    for link in &mut links {
        link.default_route = default_routes.contains(&link.ifindex);
    }
    let with_address: HashSet<u32> = addresses.iter().map(|(index, _)| *index).collect();
    let pods: HashSet<u32> = links.iter().filter(|link| link.is_pod()).map(|link| link.ifindex).collect();
    // A bridge of pods alone leads nowhere else: its traffic is told on their links or on an uplink.
    let leads_out = |bridge: &Raw<'_>| {
        links.iter().any(|port| port.controller == Some(bridge.ifindex) && !pods.contains(&port.ifindex))
    };
    let bridges: HashMap<u32, [u8; 6]> = links
        .iter()
        .filter(|link| link.kind == Some(&InfoKind::Bridge))
        .filter_map(|link| Some((link.ifindex, link.mac?)))
        .collect();
    let has_pods = |bridge: u32| {
        links.iter().any(|port| port.controller == Some(bridge) && pods.contains(&port.ifindex))
    };
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    for link in &links {
        let named = globs.iter().any(|glob| glob.matches(link.name));
        let kind = match link {
            _ if link.loopback => None,
            _ if link.is_pod() || named => Some(LinkKind::Pod),
            _ if link.is_tunnel() => Some(LinkKind::Tunnel),
            _ if link.default_route => Some(LinkKind::Uplink),
            _ if with_bridges
                && bridges.contains_key(&link.ifindex)
                && has_pods(link.ifindex)
                && !leads_out(link) =>
            {
                Some(LinkKind::Bridge)
            }
            _ if link.controller.is_some() || !with_address.contains(&link.ifindex) => None,
            _ if link.kind == Some(&InfoKind::Bridge) && !leads_out(link) => None,
            _ => Some(LinkKind::Uplink),
        };
        let Some(kind) = kind else {
            others.push(link.name.to_owned());
            continue;
        };
        wanted.push(Link {
            ifindex: link.ifindex,
            name: link.name.to_owned(),
            kind,
            ethernet: link.ethernet,
            peer_nsid: link.peer_nsid,
            peer_netns: None,
            way: match link.controller.and_then(|bridge| bridges.get(&bridge)) {
                Some(mac) => LinkWay { way: way::PORT, bridge_mac: *mac },
                None if bridges.contains_key(&link.ifindex) => {
                    LinkWay { way: way::BRIDGE, ..LinkWay::default() }
                }
                None => LinkWay::default(),
            },
            attached_by: "",
            chained: [0; 2],
            error: None,
            repairs: 0,
        });
    }
    wanted.sort_by_key(|link| link.ifindex);
    (wanted, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<InfoKind>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes.push(LinkAttribute::IfName(name.into()));
        if let Some(kind) = kind {
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        }
        message
    }

    fn with(mut message: LinkMessage, attribute: LinkAttribute) -> LinkMessage {
        message.attributes.push(attribute);
        message
    }

    #[test]
    fn tells_pods_uplinks_and_tunnels_apart() {
        let mut lo = link(1, "lo", None);
        lo.header.flags = LinkFlags::Loopback;
        let messages = [
            lo,
            link(2, "eth0", None),
            with(link(3, "veth1", Some(InfoKind::Veth)), LinkAttribute::LinkNetNsId(4)),
            link(4, "veth-local", Some(InfoKind::Veth)),
            link(5, "flannel.1", Some(InfoKind::Vxlan)),
            link(6, "br-pods", Some(InfoKind::Bridge)),
            with(
                with(link(7, "veth2", Some(InfoKind::Veth)), LinkAttribute::LinkNetNsId(0)),
                LinkAttribute::Controller(6),
            ),
            link(8, "br-out", Some(InfoKind::Bridge)),
            with(link(9, "eth1", None), LinkAttribute::Controller(8)),
            link(10, "tap7", Some(InfoKind::Tun)),
            with(link(11, "eth2", Some(InfoKind::Veth)), LinkAttribute::LinkNetNsId(1)),
            with(link(12, "nk3", Some(InfoKind::Netkit)), LinkAttribute::LinkNetNsId(5)),
        ];
        let address = "10.0.0.1".parse().unwrap();
        let addresses = [(1, address), (2, address), (6, address), (8, address)];
        let (wanted, others) =
            classify(&messages, &addresses, &HashSet::from([11]), &["tap*".parse().unwrap()], false);
        let kinds: Vec<(&str, LinkKind)> =
            wanted.iter().map(|link| (link.name.as_str(), link.kind)).collect();
        let expected = [
            ("eth0", LinkKind::Uplink),
            ("veth1", LinkKind::Pod),
            ("flannel.1", LinkKind::Tunnel),
            ("veth2", LinkKind::Pod),
            ("br-out", LinkKind::Uplink),
            ("tap7", LinkKind::Pod),
            ("eth2", LinkKind::Uplink),
            ("nk3", LinkKind::Pod),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(others, ["lo", "veth-local", "br-pods", "eth1"]);
    }
}

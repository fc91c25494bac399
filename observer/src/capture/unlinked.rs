//! Pods of this node that no link of its own leads to: by which way their packets come and go instead.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::links::{LinkKind, LinkTable};
use super::netlink;

/// How a pod is connected that no pod link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlinked {
    /// Its address.
    pub address: IpAddr,
    /// The link of the node that its packets share; empty where that is the node's own network.
    pub link: String,
    /// What kind of link it has itself, such as `macvlan`; empty where its namespace can't be looked into.
    pub kind: String,
}

/// Those of the addresses to which the node's own routes lead out by a default route's link, or not out at all: any other way
/// is that of a CNI that gives pods links. What can't be found out is left out.
pub fn unlinked(table: &LinkTable, addresses: &[IpAddr]) -> io::Result<Vec<Unlinked>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let (links, uplinks) = (netlink::links()?, netlink::default_route_links()?);
    let has_pods = |bridge: u32| {
        let pod = |index| table.get(index).is_some_and(|link| link.kind == LinkKind::Pod);
        links.iter().any(|link| controller(link) == Some(bridge) && pod(link.header.index))
    };
    let mut found = Vec::new();
    for &address in addresses {
        let Some((kind, index)) = route_to(address) else { continue };
        let link = if kind == RouteType::Local {
            String::new()
        } else if uplinks.contains(&index) && !has_pods(index) {
            links.iter().find(|link| link.header.index == index).map_or_else(String::new, name)
        } else {
            continue;
        };
        found.push(Unlinked { address, link, kind: String::new() });
    }
    if found.iter().any(|one| !one.link.is_empty()) {
        let kinds = kinds_elsewhere(table);
        for one in &mut found {
            one.kind = kinds.get(&one.address).cloned().unwrap_or_default();
        }
    }
    Ok(found)
}

/// By addresses in namespaces that no pod link leads to and that have an id here: the kinds of the links that have them.
fn kinds_elsewhere(table: &LinkTable) -> HashMap<IpAddr, String> {
    let linked = |id: i32| table.links.iter().any(|link| link.peer_nsid == Some(id));
    let mut kinds = HashMap::new();
    for id in netlink::namespaces().into_keys().filter(|id| !linked(*id)) {
        // It may be gone by now.
        let (Ok(links), Ok(addresses)) = (netlink::links_in(id), netlink::addresses_in(id)) else { continue };
        let of_links: HashMap<u32, String> =
            links.iter().filter_map(|link| Some((link.header.index, kind(link)?))).collect();
        for (index, address) in addresses {
            if let Some(kind) = of_links.get(&index) {
                kinds.insert(address, kind.clone());
            }
        }
    }
    kinds
}

fn kind(link: &LinkMessage) -> Option<String> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::IpVlan) => Some("ipvlan".to_owned()),
        LinkInfo::Kind(InfoKind::MacVlan) => Some("macvlan".to_owned()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// What the node itself would do with a packet to this address.
fn route_to(address: IpAddr) -> Option<(RouteType, u32)> {
    let mut question = RouteMessage::default();
    question.header.address_family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    question.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    question.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    // There may be no route.
    let answers = netlink::ask(RouteNetlinkMessage::GetRoute(question), 0).ok()?;
    answers.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else { return None };
        let index = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Some((route.header.kind, index?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_that_people_know() {
        let of = |info: Option<InfoKind>| {
            let mut link = LinkMessage::default();
            let infos = info.map(|info| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(info)]));
            link.attributes.extend(infos);
            kind(&link)
        };
        let named = [InfoKind::IpVlan, InfoKind::MacVlan, InfoKind::Veth].map(|info| of(Some(info)));
        assert_eq!(named, ["ipvlan", "macvlan", "veth"].map(|name| Some(name.to_owned())));
        assert_eq!(of(None), None, "a device that is no other's");
    }
}

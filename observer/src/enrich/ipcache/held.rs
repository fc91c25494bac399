//! All addresses that have a name now, for those who look at them.

use super::IpCache;
use crate::{endpoint::Endpoint, enrich::source::Rank};
use ipnet::IpNet;
use std::{collections::BTreeMap, sync::Arc};

/// A named address or net.
#[derive(Clone, Debug)]
pub struct Held {
    /// What it stands for in flows.
    pub endpoint: Arc<Endpoint>,
    /// What has it.
    pub by: HeldBy,
    /// Who says so, where it is known.
    pub rank: Option<Rank>,
    /// Kernel time since when it is so; 0 where nobody saw when it began.
    pub since: u64,
}

/// What has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A pod, or another network namespace.
    Pod,
    /// A node of this name.
    Node(String),
    /// A group of nets.
    Cidr,
}

impl IpCache {
    /// The addresses of pods and nodes, and the nets that have a name, in order.
    pub fn held(&self) -> BTreeMap<IpNet, Held> {
        let mut held = BTreeMap::new();
        self.claims.each(|ip, endpoint, rank, since| {
            let endpoint = Arc::clone(endpoint);
            held.insert(ip.into(), Held { endpoint, by: HeldBy::Pod, rank: Some(rank), since });
        });
        let writer = self.writer();
        let tables = self.tables.load();
        let cidrs = tables.cidrs().map(|(net, endpoint)| {
            let named = |net: &IpNet| {
                let mut ranks = writer.surroundings.iter().rev();
                ranks.find(|(_, from)| from.cidr_groups.iter().any(|group| group.cidrs.contains(net)))
            };
            let rank = named(&net).map(|(rank, _)| *rank);
            (net, Held { endpoint: Arc::clone(endpoint), by: HeldBy::Cidr, rank, since: 0 })
        });
        // A net of one address doesn't hide the pod that has it.
        for (net, cidr) in cidrs {
            held.entry(net).or_insert(cidr);
        }
        // A node's address is no pod's.
        for (rank, from) in &writer.surroundings {
            let nodes = from
                .nodes
                .iter()
                .flat_map(|node| node.addresses.iter().map(|ip| (ip.to_canonical(), node.name.clone())));
            let servers = from.kube_apiservers.iter().map(|ip| (ip.to_canonical(), String::new()));
            for (ip, name) in servers.chain(nodes) {
                let Some(endpoint) = tables.nodes.get(&ip).map(Arc::clone) else { continue };
                held.insert(
                    ip.into(),
                    Held { endpoint, by: HeldBy::Node(name), rank: Some(*rank), since: 0 },
                );
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::source::{CidrGroup, Node, Pod, Snapshot, Surroundings, Window};

    #[test]
    fn whoever_has_an_address_is_there_with_its_source() {
        let cache = IpCache::new("n1");
        let pod = |name: &str, ip: &str| Pod {
            uid: name.into(),
            namespace: "shop".into(),
            name: name.into(),
            ips: vec![ip.parse().unwrap()],
            local: true,
            ..Pod::default()
        };
        let node = |name: &str, ip: &str| Node {
            name: name.into(),
            addresses: vec![ip.parse().unwrap()],
            ..Node::default()
        };
        let office = CidrGroup {
            name: "office".into(),
            cidrs: vec!["10.9.0.0/16".parse().unwrap(), "10.0.0.1/32".parse().unwrap()],
            ..CidrGroup::default()
        };
        let surroundings = Surroundings {
            nodes: vec![node("n1", "192.168.0.1"), node("n2", "10.0.0.2")],
            kube_apiservers: vec!["192.168.0.9".parse().unwrap()],
            cidr_groups: vec![office],
            ..Surroundings::default()
        };
        let pods = vec![pod("web", "10.0.0.1"), pod("hostly", "10.0.0.2"), pod("gone", "10.0.0.3")];
        cache.replace(Rank::Inventory, Snapshot { pods, surroundings }, Window::exact(7));
        cache.upsert_pod(Rank::Local, pod("here", "10.0.0.1"), Window::exact(8));
        cache.remove_pod(Rank::Inventory, "gone", Window::exact(9));
        let shown = cache.held().into_iter().map(|(net, held)| {
            let name = &held.endpoint.pod_name;
            format!("{net} {:?} {name} {} {:?} {}", held.by, held.endpoint.identity, held.rank, held.since)
        });
        let web = cache.lookup("10.0.0.1".parse().unwrap(), 10).identity;
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                format!("10.0.0.1/32 Pod web {web} Some(Inventory) 7"),
                "10.0.0.2/32 Node(\"n2\")  6 Some(Inventory) 0".to_owned(),
                "10.9.0.0/16 Cidr  16777217 Some(Inventory) 0".to_owned(),
                "192.168.0.1/32 Node(\"n1\")  1 Some(Inventory) 0".to_owned(),
                "192.168.0.9/32 Node(\"\")  7 Some(Inventory) 0".to_owned(),
            ]
        );
    }
}

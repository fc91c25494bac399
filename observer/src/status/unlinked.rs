//! Pods of this node that no link of the node leads to, and what of them is told all the same.

use crate::{
    capture::{LinkTable, Unlinked, unlinked},
    decode::Clock,
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    pipeline::BehindLinks,
};
use hashbrown::{HashMap, HashSet};
use observer_proto::control as wire;
use std::{net::IpAddr, sync::Arc};

/// How many are told of. A node has some hundred pods.
const MOST: usize = 1024;

/// As it is now, by name. Of pods behind links it is known by their traffic, else by the node's routes.
pub(super) fn pods(table: &LinkTable, names: &IpCache, behind: &BehindLinks) -> Vec<wire::Unlinked> {
    let seen = table.links.iter().filter_map(|link| behind.endpoint(link.ifindex));
    let linked: HashSet<_> = seen.map(|pod| pod.serial()).collect();
    let now = Clock::kernel_now();
    let (mut asked, mut found): (HashMap<IpAddr, Arc<Endpoint>>, Vec<wire::Unlinked>) = Default::default();
    for (pod, addresses) in names.local_pods() {
        match addresses.first() {
            None => found.push(told(&pod, "host", String::new())),
            // Of two that tell of an address only one is right.
            Some(ip) if !linked.contains(&pod.serial()) && Arc::ptr_eq(&names.lookup(*ip, now), &pod) => {
                asked.insert(*ip, pod);
            }
            Some(_) => {}
        }
    }
    let addresses: Vec<IpAddr> = asked.keys().copied().collect();
    let unlinked = unlinked(table, &addresses).unwrap_or_else(|error| {
        tracing::debug!(%error, "whether all pods have links can't be found out");
        Vec::new()
    });
    found.extend(unlinked.into_iter().filter_map(|Unlinked { address, link, kind }| {
        let pod = asked.get(&address)?;
        let kind = match (kind.as_str(), link.as_str()) {
            (_, "") => "host",
            ("", _) => "unknown",
            (kind, _) => kind,
        };
        Some(told(pod, kind, link))
    }));
    found.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    found.truncate(MOST);
    found
}

fn told(pod: &Endpoint, kind: &str, link: String) -> wire::Unlinked {
    let note = match kind {
        "host" => "in the node's own network: what it sends and is sent is told as the node's".to_owned(),
        _ => format!(
            "refused: no link of the node leads to it alone. None of its packets is told, and policies hold only at egress, for \
             what leaves the node by {link}"
        ),
    };
    let endpoint = format!("{}/{}", pod.namespace, pod.pod_name);
    wire::Unlinked { endpoint, kind: kind.to_owned(), link, note }
}

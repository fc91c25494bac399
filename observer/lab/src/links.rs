//! A node's links and their counters, as the kernel counts them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{LabError, Result, netns};

/// Packets and bytes of one link, seen from the node: `rx` is what the pod sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from the far end.
    pub rx_packets: u64,
    /// Bytes from the far end, Ethernet headers included.
    pub rx_bytes: u64,
    /// Packets to the far end.
    pub tx_packets: u64,
    /// Bytes to the far end, Ethernet headers included.
    pub tx_bytes: u64,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    stats64: Option<Stats>,
}

#[derive(Deserialize)]
struct Stats {
    rx: Side,
    tx: Side,
}

#[derive(Deserialize)]
struct Side {
    packets: u64,
    bytes: u64,
}

/// The counters of all links in a namespace, by link name.
pub fn counters(namespace: &str) -> Result<BTreeMap<String, Counters>> {
    let what = || format!("reading link counters in {namespace}");
    let output = netns::command_in(&netns::path(namespace), "ip")
        .args(["-json", "-stats", "link", "show"])
        .output()
        .map_err(LabError::system(what()))?;
    let links: Vec<Link> =
        serde_json::from_slice(&output.stdout).map_err(|e| LabError::system(what())(e.into()))?;
    let entry = |link: Link| {
        let stats = link.stats64?;
        let counters = Counters {
            rx_packets: stats.rx.packets,
            rx_bytes: stats.rx.bytes,
            tx_packets: stats.tx.packets,
            tx_bytes: stats.tx.bytes,
        };
        Some((link.ifname, counters))
    };
    Ok(links.into_iter().filter_map(entry).collect())
}

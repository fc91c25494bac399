//! A node's links and their counters, as the kernel counts them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

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

/// How long links may take to work after they were set up.
const READY_WITHIN: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Link {
    ifname: String,
    flags: Vec<String>,
    operstate: String,
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

/// All links in a namespace.
fn links(namespace: &str) -> Result<Vec<Link>> {
    let what = || format!("reading the links of {namespace}");
    let output = netns::command_in(&netns::path(namespace), "ip")
        .args(["-json", "-stats", "link", "show"])
        .output()
        .map_err(LabError::system(what()))?;
    serde_json::from_slice(&output.stdout).map_err(|e| LabError::system(what())(e.into()))
}

/// Waits until the links of a namespace, which is told by name or path, can send where they are up. The kernel works off a
/// carrier that came some time later, in a worker (net/core/link_watch.c), and until then throws away what is sent.
pub fn wait_ready(namespace: &str) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let not_ready = |link: &Link| {
            let is_up = link.flags.iter().any(|flag| flag == "UP");
            is_up && link.operstate.ends_with("DOWN")
        };
        let Some(link) = links(namespace)?.into_iter().find(not_ready) else { return Ok(()) };
        if Instant::now() > deadline {
            let what =
                format!("waiting for link {} of {namespace}, which is {}", link.ifname, link.operstate);
            return Err(LabError::system(what)(std::io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The counters of all links in a namespace, by link name.
pub fn counters(namespace: &str) -> Result<BTreeMap<String, Counters>> {
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
    Ok(links(namespace)?.into_iter().filter_map(entry).collect())
}

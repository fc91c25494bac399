//! Kubernetes Events about packets that enforced policies drop, as Hubble's `PacketDrop`: for who owns a pod and has no
//! `observe`. Off unless asked for; few, since etcd keeps each of them.

use crate::{
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    flow::Record,
    store::{Cursor, Step, Store, Stored},
};
use observer_kubernetes::{Event, EventPoster};
use observer_proto::flow::{DropReason, TrafficDirection};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The same is not told again for so long; Hubble's default.
const AGAIN: Duration = Duration::from_mins(2);
/// The time between two Events of this node.
const PACE: Duration = Duration::from_secs(1);
/// What was told lately; more is not told.
const MOST: usize = 4096;

/// Drops by policies, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Told.
    pub(crate) told: AtomicU64,
    /// Not told: the same was, or others, lately.
    pub(crate) suppressed: AtomicU64,
    /// Overwritten before they were looked at.
    pub(crate) overwritten: AtomicU64,
    /// Not taken by the API server.
    pub(crate) failed: AtomicU64,
}

/// A drop, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Dropped {
    namespace: String,
    pod: String,
    is_ingress: bool,
    message: String,
}

/// Tells of drops from now on, until the daemon ends.
pub(crate) async fn follow(
    store: Arc<Store>,
    names: Arc<IpCache>,
    poster: EventPoster,
    counts: Arc<Counts>,
    mut ending: watch::Receiver<bool>,
) {
    let mut cursor = Cursor::new(Arc::clone(&store), store.head());
    let mut losses = store.losses();
    let mut limit = Limit::default();
    loop {
        let mut due = None;
        while due.is_none() {
            match cursor.step() {
                Step::Flow(flow) => {
                    let Some(dropped) = dropped(&flow) else { continue };
                    if limit.lets(&dropped, Instant::now()) {
                        due = Some(dropped);
                    } else {
                        counts.suppressed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Step::Lost(lost) => _ = counts.overwritten.fetch_add(lost, Ordering::Relaxed),
                Step::End => break,
            }
        }
        cursor.park();
        // Nothing of a flow that was lost earlier can be told. Not taken, it would end every wait.
        store.take_losses(&mut losses);
        if let Some(dropped) = due {
            tell(&poster, &names, dropped, &counts).await;
            continue;
        }
        let next = cursor.position();
        tokio::select! {
            () = store.changed(next, &losses) => {}
            _ = ending.wait_for(|down| *down) => return,
        }
        // Rather many flows at once than a look at each.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn tell(poster: &EventPoster, names: &IpCache, dropped: Dropped, counts: &Counts) {
    let Dropped { namespace, pod, message, .. } = dropped;
    let uid = names.uid_of(&namespace, &pod).unwrap_or_default();
    let event = Event { namespace, pod, uid, reason: "PacketDrop", message };
    match poster.post(&event).await {
        Ok(()) => _ = counts.told.fetch_add(1, Ordering::Relaxed),
        Err(why) => {
            if counts.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!("Kubernetes Events can't be written: {why}; further failures are counted");
            }
        }
    }
}

/// What was told lately.
#[derive(Default)]
struct Limit {
    told: HashMap<Dropped, Instant>,
    last: Option<Instant>,
}

impl Limit {
    /// Whether this may be told now; then it is taken to be.
    fn lets(&mut self, dropped: &Dropped, now: Instant) -> bool {
        if self.last.is_some_and(|last| now - last < PACE)
            || self.told.get(dropped).is_some_and(|at| now - *at < AGAIN)
        {
            return false;
        }
        if self.told.len() >= MOST {
            self.told.retain(|_, at| now - *at < AGAIN);
        }
        if self.told.len() >= MOST {
            return false;
        }
        self.last = Some(now);
        self.told.insert(dropped.clone(), now);
        true
    }
}

/// A packet of a pod of this node that a policy dropped.
fn dropped(stored: &Stored<'_>) -> Option<Dropped> {
    if stored.record().event_type != Record::DROP_EVENT {
        return None;
    }
    let flow = stored.flow();
    let reason = DropReason::try_from(i32::from(flow.drop_reason())).ok()?;
    if !matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDeny) {
        return None;
    }
    let is_ingress = i32::from(flow.direction) == TrafficDirection::Ingress as i32;
    let (own, peer, ip) = if is_ingress {
        (flow.destination, flow.source, flow.source_ip)
    } else {
        (flow.source, flow.destination, flow.destination_ip)
    };
    if !own.local || own.pod_name.is_empty() {
        return None;
    }
    let (which, way) = if is_ingress { ("Incoming", "from") } else { ("Outgoing", "to") };
    let reason = reason.as_str_name().to_lowercase();
    let mut message = format!("{which} packet dropped ({reason}) {way} {} {}", name(peer, ip), port(&flow));
    if let Some(policy) = flow.policy {
        let policies: Vec<String> = policy.told().policies.iter().map(ToString::to_string).collect();
        if !policies.is_empty() {
            message = format!("{message} by {}", policies.join(", "));
        }
    }
    // The API server takes 1,024 characters.
    message.truncate(message.floor_char_boundary(1000));
    Some(Dropped { namespace: own.namespace.to_string(), pod: own.pod_name.to_string(), is_ingress, message })
}

fn name(end: &Endpoint, ip: Option<IpAddr>) -> String {
    let ip = ip.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
    if !end.pod_name.is_empty() {
        return format!("{}/{} ({ip})", end.namespace, end.pod_name);
    }
    match end.labels.iter().find_map(|label| label.strip_prefix("reserved:")) {
        Some(reserved) => format!("{reserved} ({ip})"),
        None => ip,
    }
}

fn port(flow: &Record) -> String {
    match flow.protocol {
        6 => format!("TCP/{}", flow.destination_port),
        17 => format!("UDP/{}", flow.destination_port),
        132 => format!("SCTP/{}", flow.destination_port),
        1 => "ICMPv4".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_few_and_each_is_told_again_after_a_while() {
        let mut limit = Limit::default();
        let one = |message: &str| Dropped {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            is_ingress: true,
            message: message.to_owned(),
        };
        let mut now = Instant::now();
        assert!(limit.lets(&one("a"), now));
        assert!(!limit.lets(&one("b"), now), "too soon after the other");
        now += PACE;
        assert!(limit.lets(&one("b"), now));
        now += PACE;
        assert!(!limit.lets(&one("a"), now), "it was told");
        now += AGAIN;
        assert!(limit.lets(&one("a"), now));
        for n in 0..2 * MOST {
            limit.told.insert(one(&n.to_string()), now);
        }
        now += PACE;
        assert!(!limit.lets(&one("c"), now), "there is no room");
        now += AGAIN;
        assert!(limit.lets(&one("c"), now) && limit.told.len() == 1);
    }
}

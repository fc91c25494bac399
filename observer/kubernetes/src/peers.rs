//! Which pods are daemons that serve Hubble's API: where relays find the other nodes'.

use crate::object;
use hashbrown::HashMap;
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Where Hubble serves, if nothing else is said.
const HUBBLE_PORT: u16 = 4244;

/// The pods that are daemons: in a namespace, with labels, serving on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPods {
    namespace: String,
    labels: Vec<(String, String)>,
    port: u16,
}

/// What is wrong with the text that names them.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no pods; write NAMESPACE/KEY=VALUE[,KEY=VALUE][:PORT], such as kube-system/app=observer:4244"
)]
pub struct PeerError(String);

impl FromStr for PeerPods {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let parse = || {
            let (namespace, rest) = text.split_once('/')?;
            let (labels, port) = match rest.rsplit_once(':') {
                Some((labels, port)) => (labels, port.parse().ok().filter(|port| *port != 0)?),
                None => (rest, HUBBLE_PORT),
            };
            let labels = labels.split(',').map(|label| {
                let (key, value) = label.split_once('=')?;
                (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
            });
            let labels = labels.collect::<Option<Vec<_>>>()?;
            (!namespace.is_empty()).then(|| Self { namespace: namespace.to_owned(), labels, port })
        };
        parse().ok_or_else(|| PeerError(text.to_owned()))
    }
}

/// The daemons that run, by their pods' UIDs.
#[derive(Debug)]
pub(crate) struct Peers {
    which: Option<PeerPods>,
    running: HashMap<Box<str>, Running>,
}

#[derive(Debug, PartialEq)]
struct Running {
    node: Box<str>,
    address: SocketAddr,
    round: u32,
}

impl Peers {
    pub(crate) fn new(which: Option<PeerPods>) -> Self {
        Self { which, running: HashMap::new() }
    }

    /// Takes a pod as it is now; whether a daemon came, went or moved.
    pub(crate) fn apply(&mut self, pod: &object::Pod, round: u32) -> bool {
        let uid = pod.metadata.uid.as_str();
        let Some(address) = self.address(pod) else { return self.remove(uid) };
        let running = Running { node: pod.spec.node_name.as_str().into(), address, round };
        let known = self.running.insert(uid.into(), running);
        known.is_none_or(|known| *known.node != *pod.spec.node_name || known.address != address)
    }

    /// Where it serves, if it does.
    fn address(&self, pod: &object::Pod) -> Option<SocketAddr> {
        let PeerPods { namespace, labels, port } = self.which.as_ref()?;
        let (metadata, status) = (&pod.metadata, &pod.status);
        let is_one = metadata.namespace == *namespace
            && labels.iter().all(|(key, value)| metadata.labels.get(key) == Some(value))
            && status.phase == "Running"
            && !pod.spec.node_name.is_empty();
        let ips = status.pod_ips.iter().map(|ip| &ip.ip).chain([&status.pod_ip]);
        // As Hubble: IPv4 where there is one.
        let ip = ips.filter_map(|ip| ip.parse().ok()).min_by_key(|ip: &IpAddr| ip.is_ipv6())?;
        is_one.then(|| SocketAddr::new(ip, *port))
    }

    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        self.running.remove(uid).is_some()
    }

    /// All pods were told; whether any of these is gone.
    pub(crate) fn end(&mut self, round: u32) -> bool {
        let before = self.running.len();
        self.running.retain(|_, running| running.round == round);
        self.running.len() < before
    }

    /// The address of the daemon on each node. While one takes another's place, the one that is last by its UID stays.
    pub(crate) fn by_node(&self) -> HashMap<&str, SocketAddr> {
        let mut all: Vec<_> = self.running.iter().collect();
        all.sort_unstable_by_key(|(uid, _)| *uid);
        all.into_iter().map(|(_, running)| (&*running.node, running.address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_pods_and_what_does_not() {
        let peers: PeerPods = "kube-system/app=observer,tier=node:4254".parse().unwrap();
        assert_eq!((peers.namespace.as_str(), peers.labels.len(), peers.port), ("kube-system", 2, 4254));
        assert_eq!("a/b=".parse::<PeerPods>().unwrap().port, HUBBLE_PORT);
        for bad in ["", "app=observer", "/a=b", "n/app", "n/=b", "n/a=b:0", "n/a=b:x", "n/a=b,"] {
            assert!(
                bad.parse::<PeerPods>().unwrap_err().to_string().contains("NAMESPACE/KEY=VALUE"),
                "{bad}"
            );
        }
    }
}

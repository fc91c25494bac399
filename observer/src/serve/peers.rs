//! The daemons that are known: this one, and those of other nodes by the names' sources. Relays ask for them and for
//! their changes (the peer service).

use super::{api::Streaming, encode::NodeInfo};
use crate::enrich::source::{Node, Peer};
use observer_proto::peer::{ChangeNotification, ChangeNotificationType as Change, Tls};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tonic::Status;

/// Notifications made at a time; a client that doesn't read keeps no more, and gets the state as it then is.
const BATCH: usize = 64;

/// Where this daemon serves.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Its TCP address, if it has one.
    pub(super) tcp: Option<SocketAddr>,
    /// `unix:///path`.
    pub(super) socket: String,
    /// Whether TCP is encrypted.
    pub(super) tls: bool,
}

/// The known daemons, as they are and become.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    pub(super) node: Arc<NodeInfo>,
    pub(super) own: Own,
    pub(super) nodes: watch::Receiver<Arc<[Node]>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// `address:port`, or `unix:///path`.
    pub(super) address: String,
    /// Whom its certificate is for, where it has one.
    pub(super) server_name: Option<String>,
    pub(super) is_own: bool,
}

impl Peers {
    /// By name; this one is always there.
    pub(super) fn now(&mut self) -> BTreeMap<String, Known> {
        let nodes = Arc::clone(&self.nodes.borrow_and_update());
        let others = nodes.iter().filter(|node| node.name != self.node.name);
        let mut all: BTreeMap<_, _> = others
            .filter_map(|node| {
                let Peer { cluster, address } = node.peer.as_ref()?;
                Some((name(cluster, &node.name), self.known(cluster, &node.name, address.clone())))
            })
            .collect();
        let NodeInfo { cluster, name: node, .. } = &*self.node;
        let own = Known { is_own: true, ..self.known(cluster, node, self.own_address(&nodes)) };
        all.insert(name(cluster, node), own);
        all
    }

    /// A daemon's TLS is its cluster's: others are taken to have it where this one has.
    fn known(&self, cluster: &str, node: &str, address: String) -> Known {
        let encrypted = self.own.tls && !address.starts_with("unix:");
        let server_name = encrypted.then(|| {
            format!("{}.{}.hubble-grpc.cilium.io", node.replace('.', "-"), cluster.replace('.', "-"))
        });
        Known { address, server_name, is_own: false }
    }

    /// How others reach this daemon: what was said of its node, else where it listens; for an address of all
    /// interfaces, its node's, IPv4 before IPv6.
    fn own_address(&self, nodes: &[Node]) -> String {
        let mut own = nodes.iter().filter(|node| node.name == self.node.name);
        if let Some(peer) = own.clone().find_map(|node| node.peer.as_ref()) {
            return peer.address.clone();
        }
        let Some(mut listening) = self.own.tcp else { return self.own.socket.clone() };
        if listening.ip().is_unspecified() {
            let reachable = |ip: &&IpAddr| ip.is_ipv4() || listening.is_ipv6();
            let addresses = own.by_ref().flat_map(|node| &node.addresses).filter(reachable);
            if let Some(ip) = addresses.min_by_key(|ip| ip.is_ipv6()) {
                listening.set_ip(*ip);
            }
        }
        listening.to_string()
    }

    /// All of them, then each change.
    pub(super) fn notify(
        mut self,
        mut ending: watch::Receiver<bool>,
        permit: OwnedSemaphorePermit,
    ) -> Streaming<ChangeNotification> {
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(async move {
            let _permit = permit;
            let mut told = BTreeMap::new();
            loop {
                let now = self.now();
                for change in changes(&told, &now) {
                    if sender.send(Ok(change)).await.is_err() {
                        return;
                    }
                }
                told = now;
                let nodes = &mut self.nodes;
                let changed = async {
                    // Where nobody names nodes any more they stay as they are.
                    if nodes.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let ends = tokio::select! {
                    () = changed => false,
                    () = sender.closed() => return,
                    _ = ending.wait_for(|down| *down) => true,
                };
                if ends {
                    break;
                }
            }
            // The client may be gone by now, which is as good.
            let _ = sender.send(Err(Status::unavailable("the server is shutting down"))).await;
        });
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }
}

/// The cluster is named only where it isn't the default one.
fn name(cluster: &str, node: &str) -> String {
    if cluster == "default" { node.to_owned() } else { format!("{cluster}/{node}") }
}

/// A daemon that goes by another name is told as gone and come.
fn changes(old: &BTreeMap<String, Known>, new: &BTreeMap<String, Known>) -> Vec<ChangeNotification> {
    let notification = |change: Change, name: &String, peer: &Known| ChangeNotification {
        name: name.clone(),
        address: peer.address.clone(),
        r#type: change.into(),
        tls: peer.server_name.clone().map(|server_name| Tls { server_name }),
    };
    let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
    let gone = gone.map(|(name, peer)| notification(Change::PeerDeleted, name, peer));
    let come = new.iter().filter_map(|(name, peer)| match old.get(name) {
        None => Some(notification(Change::PeerAdded, name, peer)),
        Some(before) if before != peer => Some(notification(Change::PeerUpdated, name, peer)),
        Some(_) => None,
    });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(own: Own, nodes: Vec<Node>) -> Peers {
        let node = NodeInfo {
            cluster: "east.1".into(),
            name: "n1.example".into(),
            labels: Vec::new().into(),
            version: "1.0.0".into(),
        };
        Peers { node: Arc::new(node), own, nodes: watch::Sender::new(nodes.into()).subscribe() }
    }

    #[test]
    fn others_are_told_an_address_that_reaches() {
        let node = |addresses: &[&str], peer: Option<&str>| Node {
            name: "n1.example".into(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            peer: peer.map(|address| Peer { cluster: "east.1".into(), address: address.into() }),
            ..Node::default()
        };
        for (tcp, node, address) in [
            (None, node(&["10.0.0.1"], None), "unix:///run/s"),
            (Some("10.9.9.9:4244"), node(&["10.0.0.1"], None), "10.9.9.9:4244"),
            (Some("0.0.0.0:4244"), node(&["fd00::1", "10.0.0.1"], None), "10.0.0.1:4244"),
            (Some("[::]:4244"), node(&["fd00::1"], None), "[fd00::1]:4244"),
            (Some("0.0.0.0:4244"), node(&["fd00::1"], None), "0.0.0.0:4244"),
            (Some("0.0.0.0:4244"), node(&["10.0.0.1"], Some("192.0.2.1:80")), "192.0.2.1:80"),
        ] {
            let tcp = tcp.map(|address| address.parse().unwrap());
            let mut peers = peers(Own { tcp, socket: "unix:///run/s".into(), tls: true }, vec![node]);
            let all = peers.now();
            let server_name =
                (!address.starts_with("unix")).then(|| "n1-example.east-1.hubble-grpc.cilium.io".to_owned());
            let expected = Known { address: address.into(), server_name, is_own: true };
            assert_eq!(all, BTreeMap::from([("east.1/n1.example".to_owned(), expected)]));
        }
    }
}

//! GetNodes and Peer.Notify as clients and relays get them.

use super::calls::{Capture, config, connect};
use crate::{
    enrich::source::{Node, Peer},
    serve::{NodeInfo, ServeConfig, start},
    store::{Store, StoreConfig},
};
use observer_proto::{
    observer::{GetNodesRequest, observer_client::ObserverClient},
    peer::{ChangeNotification, ChangeNotificationType as Change, NotifyRequest, peer_client::PeerClient},
    relay::NodeState,
};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Code, Streaming};

fn node(name: &str, cluster: &str, address: &str) -> Node {
    let peer = (!address.is_empty()).then(|| Peer { cluster: cluster.into(), address: address.into() });
    Node { name: name.into(), peer, ..Node::default() }
}

async fn next(stream: &mut Streaming<ChangeNotification>) -> (Change, String, String) {
    let change = stream.message().await.unwrap().unwrap();
    assert_eq!(change.tls, None, "there is no TLS here");
    (change.r#type(), change.name, change.address)
}

#[tokio::test]
async fn relays_are_told_of_all_daemons_and_their_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let nodes = watch::Sender::new(Arc::from([
        node("n1", "default", ""),
        node("n2", "default", "10.0.0.2:4244"),
        node("n3", "east", "10.0.0.3:4244"),
        node("silent", "default", ""),
    ]));
    let config = ServeConfig { nodes: nodes.subscribe(), ..config(directory.path()) };
    let socket = config.socket.clone();
    let own = format!("unix://{}", socket.display());
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    let channel = connect(&socket).await;
    let mut stream = PeerClient::new(channel).notify(NotifyRequest {}).await.unwrap().into_inner();
    for (name, address) in [("east/n3", "10.0.0.3:4244"), ("n1", &own), ("n2", "10.0.0.2:4244")] {
        assert_eq!(next(&mut stream).await, (Change::PeerAdded, name.to_owned(), address.to_owned()));
    }
    nodes.send_replace(Arc::from([
        node("n2", "default", "10.0.0.9:4244"),
        node("n4", "east", "10.0.0.3:4244"),
        node("silent", "default", ""),
    ]));
    for (change, name, address) in [
        (Change::PeerDeleted, "east/n3", "10.0.0.3:4244"),
        (Change::PeerAdded, "east/n4", "10.0.0.3:4244"),
        (Change::PeerUpdated, "n2", "10.0.0.9:4244"),
    ] {
        assert_eq!(next(&mut stream).await, (change, name.to_owned(), address.to_owned()));
    }
    drop(nodes);
    server.shutdown().await;
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn nodes_are_shown_with_the_state_of_their_daemons() {
    let [first, second, gone] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let info = |name: &str| NodeInfo {
        cluster: "default".into(),
        name: name.into(),
        labels: vec![].into(),
        version: "0.1.0".into(),
    };
    let address =
        |directory: &tempfile::TempDir| format!("unix://{}/hubble.sock", directory.path().display());
    let nodes = watch::Sender::new(Arc::from([
        node("n1", "default", ""),
        node("n2", "default", &address(&second)),
        node("n3", "default", &address(&gone)),
    ]));
    let mut servers = Vec::new();
    for (directory, name) in [(&first, "n1"), (&second, "n2")] {
        let (store, mut writer) = Store::new(StoreConfig::default());
        if name == "n2" {
            writer.push(&crate::flow::Sample::default().flow());
        }
        let config = ServeConfig { node: info(name), nodes: nodes.subscribe(), ..config(directory.path()) };
        servers.push(start(config, store, Arc::new(Capture)).await.unwrap());
    }
    let mut client = ObserverClient::new(connect(&first.path().join("hubble.sock")).await);
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    let shown: Vec<_> =
        nodes.iter().map(|node| (&*node.name, node.state(), node.seen_flows, &*node.version)).collect();
    assert_eq!(
        shown,
        [
            ("n1", NodeState::NodeConnected, 0, "observer v0.1.0"),
            ("n2", NodeState::NodeConnected, 1, "observer v0.1.0"),
            ("n3", NodeState::NodeUnavailable, 0, ""),
        ]
    );
    assert!(nodes.iter().all(|node| !node.tls.as_ref().unwrap().enabled));
    assert_eq!(nodes[1].address, address(&second));
}

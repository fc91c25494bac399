//! What is older than the daemon is judged by who opened it where nf_conntrack knows that, and not by either end.

use crate::{
    ALLOWED, DENIED, LAB, denials, find, namespace_of,
    support::{Daemon, PATIENCE, can_run, ends, late::until},
    talk::{got_nothing, speak},
};
use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::flow::FlowFilter;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

/// The server may open whatever it likes: were it the one who opened them, all would be allowed.
const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{ports: [{port: 9100, protocol: TCP}, {port: 9100, protocol: UDP}]}]
";

/// Has the node track connections.
const RULES: &str =
    "table inet t { chain c { type filter hook forward priority 0; ct state established counter; }; }";

/// Of the client: as little as the server's does it tell who opens.
const PORT: u16 = 9200;

#[test]
fn who_opened_what_is_older_is_known() {
    if !can_run("who_opened_what_is_older_is_known") {
        return;
    }
    let lab = Lab::up(&Scenario::parse(LAB, "older").unwrap(), &unique_prefix("older")).unwrap();
    assert!(lab.command_in("n1", "nft").arg(RULES).status().unwrap().success());
    let inside = |namespace, name| namespace_of(&lab, namespace, name);
    let of_pod = |namespace, name| lab.scenario().pod(namespace, name).unwrap().ips[0];
    let (client, server) = (of_pod("web", "client"), of_pod("shop", "server"));
    let (listeners, sockets) = netns::inside(&inside("shop", "server"), || {
        let both = [ALLOWED, DENIED];
        Ok((
            both.map(|port| TcpListener::bind((server, port)).unwrap()),
            both.map(|port| UdpSocket::bind((server, port)).unwrap()),
        ))
    })
    .unwrap();
    let (streams, socket) = netns::inside(&inside("web", "client"), || {
        let connect = |to: &TcpListener| {
            let both = [TcpStream::connect(to.local_addr().unwrap()).unwrap(), to.accept().unwrap().0];
            for end in &both {
                end.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            both
        };
        Ok((listeners.each_ref().map(connect), UdpSocket::bind((client, PORT)).unwrap()))
    })
    .unwrap();
    streams.iter().for_each(speak);
    let mut buffer = [0; 16];
    for there in &sockets {
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", there.local_addr().unwrap()).unwrap();
        there.recv(&mut buffer).unwrap();
    }

    let policies = tempfile::tempdir().unwrap();
    let file = policies.path().join("only.yaml");
    fs::write(&file, POLICY).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", file.to_str().unwrap(), "--policy-mode", "enforce"]);
    let [allowed, denied] = &streams;
    for ([mut here, mut there], answer) in
        [(denied.each_ref(), &sockets[1]), (allowed.each_ref(), &sockets[0])]
    {
        there.write_all(b"answer").unwrap();
        here.write_all(b"more").unwrap();
        answer.send_to(b"answer", (client, PORT)).unwrap();
    }
    // What is denied was sent before.
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddr::new(server, ALLOWED));
    let [mut here, mut there] = allowed.each_ref();
    here.read_exact(&mut [0; 6]).unwrap();
    there.read_exact(&mut [0; 4]).unwrap();
    speak(allowed);
    let [here, there] = denied.each_ref();
    let wanted = [
        (6, there.local_addr().unwrap(), here.local_addr().unwrap()),
        (17, SocketAddr::new(server, DENIED), SocketAddr::new(client, PORT)),
    ];
    until("what is denied is told", || {
        let found: Vec<_> =
            find(&daemon, vec![denials(FlowFilter::default())]).iter().filter_map(ends).collect();
        wanted.iter().all(|wanted| found.contains(wanted)).then_some(())
    });
    for mut end in [here, there] {
        end.set_nonblocking(true).unwrap();
        got_nothing(end.read(&mut buffer));
    }
}

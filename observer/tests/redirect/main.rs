//! The way to the transparent proxy in this machine's kernel, with real curl: who is handed over comes to the proxy with
//! both addresses, and from there to the server under the client's. Needs root.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod bed;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, SocketAddr, TcpListener};

use bed::{Bed, CLIENT, OUTSIDE, PORT, SERVER, SERVICE, SERVICE_PORT, inside};
use observer::proxy::routing::Routing;
use observer_ebpf::proxy::ProxyState;

/// Calls each address of both families from there; the server must see `client`, and the proxy too, with the pod as the
/// server, a service's address or not.
fn calls(bed: &Bed, from: &std::path::Path, client: [&str; 2], servers: &[([&str; 2], u16)]) {
    for family in 0..2 {
        for (server, port) in servers {
            let output = Bed::curl(from, server[family], *port);
            assert!(output.status.success(), "{} -> {}: {output:?}", client[family], server[family]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), client[family], "to {}", server[family]);
            let expected: (IpAddr, SocketAddr) =
                (client[family].parse().unwrap(), SocketAddr::new(SERVER[family].parse().unwrap(), PORT));
            assert_eq!(bed.proxied(), [expected], "to {}", server[family]);
        }
    }
}

/// From pods and from outside, and past the proxy.
fn all_calls(bed: &Bed) {
    let client = bed.pod("client");
    calls(bed, &client, CLIENT, &[(SERVER, PORT), (SERVICE, SERVICE_PORT)]);
    calls(bed, &bed.lab.outside_netns(), OUTSIDE, &[(SERVER, PORT)]);
    // What is not handed over goes by.
    for family in 0..2 {
        let output = Bed::curl(&client, SERVER[family], PORT + 1);
        assert_eq!(String::from_utf8_lossy(&output.stdout), CLIENT[family], "{output:?}");
        assert_eq!(bed.proxied(), []);
    }
}

#[test]
fn routed_pods_and_remote_clients_reach_servers_through_the_proxy() {
    if !support::can_run("redirect") {
        return;
    }
    let mut bed = Bed::up("routed");
    let before = bed.routing();
    bed.start();
    all_calls(&bed);
    // A pod that calls itself through the service comes back from the node.
    let output = Bed::curl(&bed.pod("server"), SERVICE[0], SERVICE_PORT);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bed.proxied().len(), 1);
    // Settings under which the kernel looks at the way back to a sender, or answers, by the packet's mark.
    for setting in [
        "net.ipv4.conf.all.rp_filter=1",
        "net.ipv4.conf.all.src_valid_mark=1",
        "net.ipv4.tcp_fwmark_accept=1",
        "net.ipv4.fwmark_reflect=1",
        "net.ipv6.fwmark_reflect=1",
    ] {
        bed.sysctl(setting);
    }
    all_calls(&bed);
    bed.stop();
    assert_eq!(bed.routing(), before);
}

#[test]
fn bridged_pods_reach_servers_through_the_proxy() {
    if !support::can_run("redirect") {
        return;
    }
    let mut bed = Bed::up("bridged");
    bed.start();
    all_calls(&bed);
}

#[test]
fn without_the_proxy_nobody_takes_its_place() {
    if !support::can_run("redirect") {
        return;
    }
    let mut bed = Bed::up("routed");
    let client = bed.pod("client");
    let refused = || {
        // 28: the connect timed out, since the programs dropped it.
        assert_eq!(Bed::curl(&client, SERVER[0], PORT).status.code(), Some(28));
    };
    refused();
    // A listener of somebody else on the proxy's port, who can't set a mark.
    let node = bed.lab.node_netns("n1");
    let other = inside(&node, || TcpListener::bind("127.0.0.1:0").unwrap());
    bed.tell(ProxyState { ipv4: other.local_addr().unwrap().port(), ..ProxyState::default() });
    refused();
    // What an earlier daemon left is gone on with, and goes with the next one.
    let before = bed.routing();
    inside(&node, || {
        Routing::set_up().unwrap().leave();
        drop(Routing::set_up().unwrap());
    });
    assert_eq!(bed.routing(), before);
}

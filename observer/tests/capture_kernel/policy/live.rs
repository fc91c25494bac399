//! Real traffic between pods.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use observer::capture::{Capture, CaptureConfig, LinkHook};
use observer_ebpf::policy::{OTHERS, POLICY_DENIED, POLICY_REASON, side};
use observer_ebpf::{DropRecord, drop_flags, kind};

use super::*;
use crate::support::{Lab, Watch, Wiring, skip};

/// Pods 1 and 2 of the lab: pod 2 may be sent what `row` says by pod 1, and nothing by others.
fn world(row: &[(u32, u32)]) -> PolicyTables {
    let World(mut tables) = World::new()
        .row(1, side::EGRESS, OTHERS, &all(ALLOWED))
        .row(2, side::INGRESS, OTHERS, &all(DEFAULT))
        .row(2, side::INGRESS, 1, row);
    for pod in 1..=2 {
        let endpoint = PolicyEndpoint { peer: pod, subject: pod, flags: 0 };
        tables.endpoints.insert(bytes(&format!("10.77.0.{pod}")), endpoint);
        tables.endpoints.insert(bytes(&format!("fd77::{pod}")), endpoint);
    }
    tables
}

/// The capture judges by this from its first packet on.
fn judging(lab: &Lab, row: &[(u32, u32)]) -> (Watch, PolicyMaps) {
    judging_by(lab, LinkHook::Auto, row)
}

fn judging_by(lab: &Lab, link_hook: LinkHook, row: &[(u32, u32)]) -> (Watch, PolicyMaps) {
    let config = CaptureConfig { judge: true, link_hook, ..CaptureConfig::default() };
    let mut loaded = lab.node.within(|| Capture::load(&config)).unwrap();
    let mut maps = loaded.policy_maps().unwrap();
    put(&mut maps, row);
    (Watch::of(lab.node.within(|| loaded.attach()).unwrap()), maps)
}

fn put(maps: &mut PolicyMaps, row: &[(u32, u32)]) {
    maps.write(slot(maps.generation()) ^ 1, &world(row)).unwrap();
    maps.flip().unwrap();
    maps.wait_for_programs().unwrap();
}

#[test]
fn the_kernel_takes_the_programs_that_judge() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let (watch, maps) = judging(&lab, &all(ALLOWED));
    for hook in watch.capture.status().status().hooks {
        assert_eq!(hook.error, None, "{}", hook.name);
    }
    // Local addresses change it too.
    assert_eq!(slot(maps.generation()), 1);
}

fn what_is_denied_is_told_once(wiring: Wiring, hook: LinkHook, address: &str) {
    if skip() {
        return;
    }
    let lab = Lab::new(wiring);
    let (mut watch, _maps) = judging_by(&lab, hook, &only(8080, ALLOWED));
    let listen = |port| lab.pods[1].within(|| TcpListener::bind((address, port)).unwrap());
    let (open, closed) = (listen(8080), listen(9090));
    let mut client = lab.pods[0].within(|| TcpStream::connect((address, 8080)).unwrap());
    let (mut server, _) = open.accept().unwrap();
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    lab.pods[0].within(|| {
        let closed: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), 9090).into();
        TcpStream::connect_timeout(&closed, Duration::from_millis(50)).unwrap_err();
        let socket = UdpSocket::bind((if address.contains(':') { "::" } else { "0.0.0.0" }, 0)).unwrap();
        for _ in 0..10 {
            socket.send_to(b"12345678", (address, 9090)).unwrap();
        }
    });
    drop(closed);
    let sums = |watch: &Watch| watch.drops.iter().any(|drop| drop.flags & drop_flags::SUM != 0);
    watch.until("a sum of what was denied", sums);
    let status = watch.capture.status();
    let (flows, drops, _) = watch.stop();
    let denied: Vec<&DropRecord> = drops.iter().filter(|drop| drop.tuple.destination_port == 9090).collect();
    assert!(denied.iter().all(|drop| drop.reason == POLICY_DENIED), "told by the kernel too: {denied:#?}");
    assert!(denied.iter().all(|drop| drop.netns == lab.node.inode()), "{denied:#?}");
    for (protocol, packets) in [(6, 1), (17, 10)] {
        let of: Vec<_> = denied.iter().filter(|drop| drop.tuple.protocol == protocol).collect();
        assert_eq!(of.iter().filter(|drop| drop.header.kind == kind::DENIED).count(), 1, "{of:#?}");
        assert_eq!(of.iter().map(|drop| drop.packets).sum::<u64>(), packets, "{of:#?}");
    }
    assert!(flows.iter().all(|flow| flow.tuple.destination_port != 9090), "{flows:#?}");
    assert!(flows.iter().any(|flow| flow.tuple.destination_port == 8080));
    assert!(drops.iter().all(|drop| drop.reason & POLICY_REASON == 0 || drop.tuple.destination_port == 9090));
    // The mark was found, and not only the reason ignored.
    assert!(status.status().drops.counters.ignored >= 11);
}

#[test]
fn routed_pods_over_ipv4() {
    what_is_denied_is_told_once(Wiring::Routed, LinkHook::Auto, "10.77.0.2");
}

#[test]
fn routed_pods_over_ipv6() {
    what_is_denied_is_told_once(Wiring::Routed, LinkHook::Auto, "fd77::2");
}

#[test]
fn bridged_pods_over_ipv4() {
    what_is_denied_is_told_once(Wiring::Bridged, LinkHook::Auto, "10.77.0.2");
}

#[test]
fn routed_pods_by_classic_filters() {
    what_is_denied_is_told_once(Wiring::Routed, LinkHook::Clsact, "10.77.0.2");
}

#[test]
fn an_established_connection_stops_and_goes_on_with_its_policy() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let (mut watch, mut maps) = judging(&lab, &all(ALLOWED));
    let listener = lab.pods[1].within(|| TcpListener::bind("10.77.0.2:8080").unwrap());
    let mut client = lab.pods[0].within(|| TcpStream::connect("10.77.0.2:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    put(&mut maps, &all(BY_RULE));
    client.write_all(b"pong").unwrap();
    watch.until("it is denied", |watch| !watch.drops.is_empty());
    server.set_nonblocking(true).unwrap();
    assert!(server.read(&mut [0; 4]).is_err(), "it was let through");
    server.set_nonblocking(false).unwrap();
    put(&mut maps, &all(ALLOWED));
    let mut got = [0; 4];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pong");
}

//! How connections end, and what is told of it: given up, reset, pushed out of the full table.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::{Lab, Wiring, skip};
use observer::capture::CaptureConfig;
use observer_ebpf::{FlowRecord, flow_flags, flow_reason};

#[test]
fn a_connect_that_is_given_up_is_told_once_more() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    lab.pods[1].run("nft add table ip mute");
    lab.pods[1].run("nft add chain ip mute in { type filter hook input priority 0; policy drop; }");
    let mut watch = lab.capture(&CaptureConfig::default());
    lab.pods[0].within(|| {
        let mute: SocketAddr = "10.77.0.2:8080".parse().unwrap();
        TcpStream::connect_timeout(&mute, Duration::from_millis(50)).unwrap_err();
    });
    let last = |flows: &[FlowRecord]| flows.iter().filter(|flow| flow.reason == flow_reason::SWEEP).count();
    watch.until("the last record", |watch| last(&watch.flows) > 0);
    assert!(watch.facts.iter().any(|fact| fact.failed_connects == 1), "the fact comes before it");
    let (flows, _, _) = watch.stop();
    let syns: Vec<_> = flows.iter().filter(|flow| flow.tuple.destination_port == 8080).collect();
    let reasons: Vec<u8> = syns.iter().map(|flow| flow.reason).collect();
    assert_eq!(reasons, [flow_reason::NEW, flow_reason::SWEEP]);
    assert_eq!(syns[0].packets, syns[1].packets);
}

#[test]
fn resets_are_counted_for_each_connection() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let watch = lab.capture(&CaptureConfig::default());
    for _ in 0..2 {
        lab.pods[0].within(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let address = |text: &str| text.parse::<SocketAddr>().unwrap().into();
            // A child that was forked a moment ago may still hold the first one.
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address("10.77.0.1:4000")).unwrap();
            socket.connect(&address("10.77.0.2:9")).unwrap_err();
        });
    }
    let (flows, _, _) = watch.stop();
    let resets = |from: u16| {
        let told = flows.iter().filter(move |flow| flow.tuple.source_port == from);
        told.map(|flow| (flow.reason, flow.resets)).collect::<Vec<_>>()
    };
    assert_eq!(resets(4000), [(flow_reason::NEW, 0), (flow_reason::NEW, 0)]);
    assert_eq!(resets(9), [(flow_reason::FLAGS, 1), (flow_reason::FLAGS, 1)]);
}

#[test]
fn an_evicted_connection_is_counted_and_comes_back_as_met_midway() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let listener = lab.pods[1].within(|| TcpListener::bind("10.77.0.2:8080").unwrap());
    let config = CaptureConfig { flow_table_entries: 64, ..CaptureConfig::default() };
    let mut watch = lab.capture(&config);
    let mut client = lab.pods[0].within(|| TcpStream::connect("10.77.0.2:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    watch.until("the connection", |watch| !watch.flows.is_empty());
    // Others, for whom the table has no room, and then the connection again.
    let others = || {
        for _ in 0..500 {
            let sender = UdpSocket::bind("10.77.0.1:0").unwrap();
            sender.send_to(b"x", "10.77.0.2:53").unwrap();
        }
    };
    let midway = |flow: &FlowRecord| {
        flow.tuple.destination_port == 8080 && flow.flags & flow_flags::OPENER_GUESSED != 0
    };
    watch.until("it comes back, and an eviction was counted", |watch| {
        lab.pods[0].within(others);
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        watch.flows.iter().any(midway) && watch.capture.status().status().evicted > 0
    });
}

//! Real traffic between namespaces becomes the flow records that it should.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::{Lab, PATIENCE, Watch, Wiring, skip};
use observer::capture::{Aggregation, CaptureConfig};
use observer_ebpf::{FlowRecord, flow_flags, flow_reason, hook, link_kind};

/// One request and its answer over TCP from pod a to pod b.
fn exchange(lab: &Lab, address: &str) {
    let listener = lab.pods[1].within(|| TcpListener::bind((address, 8080)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            peer.read_exact(&mut request).unwrap();
            peer.write_all(b"pong").unwrap();
        });
        lab.pods[0].within(|| {
            let mut stream = TcpStream::connect((address, 8080)).unwrap();
            stream.write_all(b"ping").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"pong");
        });
    });
}

fn tcp(flows: &[FlowRecord]) -> Vec<&FlowRecord> {
    flows.iter().filter(|flow| flow.tuple.protocol == 6).collect()
}

fn pods_talk(wiring: Wiring, address: &str) {
    if skip() {
        return;
    }
    let lab = Lab::new(wiring);
    let watch = lab.capture(&CaptureConfig::default());
    exchange(&lab, address);
    let status = watch.capture.status();
    let (flows, _, _) = watch.stop();
    let flows = tcp(&flows);
    let is = |flow: &FlowRecord, flag: u16| flow.flags & flag != 0;
    let (replies, requests): (Vec<&FlowRecord>, Vec<&FlowRecord>) =
        flows.iter().partition(|flow| is(flow, flow_flags::REPLY));
    assert!(!replies.is_empty() && !requests.is_empty(), "{flows:#?}");
    for flow in &flows {
        // Between local pods each direction is told once: where it is delivered.
        assert_eq!((flow.hook, flow.link_kind), (hook::EGRESS, link_kind::POD), "{flow:?}");
        assert!(is(flow, flow_flags::TO_LOCAL_POD) && !is(flow, flow_flags::OPENER_GUESSED), "{flow:?}");
    }
    assert!(requests.iter().all(|flow| flow.tuple.destination_port == 8080));
    assert!(replies.iter().all(|flow| flow.tuple.source_port == 8080));
    let news: Vec<_> = flows.iter().filter(|flow| flow.reason == flow_reason::NEW).collect();
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].tcp_flags, 2);
    // What the last records say is what the links counted, to the packet.
    let status = status.status();
    for (hook_packets, of) in [(&requests, 1), (&replies, 0)] {
        let told = hook_packets.iter().map(|flow| flow.packets).max().unwrap();
        assert!(told >= 4, "handshake, data, end: {told} packets");
        let link = &status.links[of];
        assert!(link.egress.packets >= told, "{link:?}");
        assert_eq!(link.egress.malformed, 0);
    }
    let made = status.total(|counters| counters.made);
    assert_eq!(
        made,
        status.total(|counters| counters.submitted) + status.total(|counters| counters.ring_full)
    );
}

#[test]
fn routed_pods_talk_ipv4() {
    pods_talk(Wiring::Routed, "10.77.0.2");
}

#[test]
fn routed_pods_talk_ipv6() {
    pods_talk(Wiring::Routed, "fd77::2");
}

#[test]
fn bridged_pods_talk_ipv4() {
    pods_talk(Wiring::Bridged, "10.77.0.2");
}

#[test]
fn every_level_of_aggregation_counts_the_same_packets() {
    const SENT: u64 = 40;
    if skip() {
        return;
    }
    for level in [Aggregation::None, Aggregation::Low, Aggregation::Medium, Aggregation::Maximum] {
        let lab = Lab::new(Wiring::Routed);
        let watch = lab.capture(&CaptureConfig { aggregation: level, ..CaptureConfig::default() });
        let receiver = lab.pods[1].within(|| UdpSocket::bind("10.77.0.2:53").unwrap());
        lab.pods[0].within(|| {
            let sender = UdpSocket::bind("10.77.0.1:40000").unwrap();
            for _ in 0..SENT {
                sender.send_to(b"12345678", "10.77.0.2:53").unwrap();
            }
        });
        for _ in 0..SENT {
            receiver.recv(&mut [0; 16]).unwrap();
        }
        let (flows, _, _) = watch.stop();
        let udp: Vec<_> = flows.iter().filter(|flow| flow.tuple.protocol == 17).collect();
        let delivered: Vec<_> = udp.iter().filter(|flow| flow.hook == hook::EGRESS).collect();
        assert_eq!(delivered.iter().map(|flow| flow.packets).max(), Some(SENT), "{level:?}");
        let (records, from_endpoint) = match level {
            Aggregation::None => (SENT as usize, SENT as usize),
            Aggregation::Low => (SENT as usize, 0),
            // The first packet, and the sweep's total.
            Aggregation::Medium | Aggregation::Maximum => (2, 0),
        };
        assert_eq!(delivered.len(), records, "{level:?}");
        assert_eq!(udp.len() - delivered.len(), from_endpoint, "{level:?}");
    }
}

/// Larger than what lies in the packet's first buffer, and than what a test run takes.
#[test]
fn a_jumbo_packet_is_one_packet() {
    const PAYLOAD: usize = 8_900;
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    for (index, pod) in lab.pods.iter().enumerate() {
        lab.node.run(&format!("ip link set pod{} mtu 9000", index + 1));
        pod.run("ip link set eth0 mtu 9000");
    }
    let watch = lab.capture(&CaptureConfig { aggregation: Aggregation::None, ..CaptureConfig::default() });
    let receiver = lab.pods[1].within(|| UdpSocket::bind("10.77.0.2:7000").unwrap());
    lab.pods[0].within(|| {
        UdpSocket::bind("10.77.0.1:40000").unwrap().send_to(&[b'x'; PAYLOAD], "10.77.0.2:7000").unwrap();
    });
    assert_eq!(receiver.recv(&mut [0; PAYLOAD + 1]).unwrap(), PAYLOAD);
    let (flows, _, _) = watch.stop();
    let lengths: Vec<u32> =
        flows.iter().filter(|flow| flow.tuple.source_port == 40_000).map(|flow| flow.packet_len).collect();
    // Behind the headers of Ethernet, IP and UDP.
    assert_eq!(lengths, [PAYLOAD as u32 + 42; 2], "once at each link");
}

/// More than are read at a time.
const PACKETS: usize = 3000;

#[test]
fn a_flood_leaves_drops_their_turn() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let mut watch =
        lab.capture(&CaptureConfig { aggregation: Aggregation::None, ..CaptureConfig::default() });
    let socket = lab.pods[0].within(|| UdpSocket::bind("10.77.0.1:0").unwrap());
    for _ in 0..PACKETS {
        // Nothing listens there: each is dropped.
        socket.send_to(b"flood", "10.77.0.2:9").unwrap();
    }
    let start = Instant::now();
    let written = |watch: &Watch| {
        let status = watch.capture.status().status();
        (status.ingress.counters.submitted, status.drops.counters.submitted)
    };
    while written(&watch).0 < PACKETS as u64 || written(&watch).1 == 0 {
        assert!(start.elapsed() < PATIENCE, "{:?}", written(&watch));
        std::thread::sleep(Duration::from_millis(1));
    }
    watch.drain();
    assert!(!watch.drops.is_empty(), "not behind the flood");
    assert!(watch.flows.len() < PACKETS, "not all at once");
    watch.until("the rest", |watch| {
        let status = watch.capture.status().status();
        let counters = [&status.ingress, &status.egress].map(|program| program.counters.submitted);
        watch.flows.iter().filter(|flow| flow.reason == flow_reason::PACKET).count() as u64
            == counters.iter().sum::<u64>()
    });
}

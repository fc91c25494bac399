//! What the kernel drops becomes drop records with its reason, summed to the packet.

use std::net::UdpSocket;

use observer::capture::{CaptureConfig, DropHook};
use observer_ebpf::{DropRecord, drop_flags};

use crate::support::{Lab, Watch, Wiring, skip};

/// Sends UDP packets from pod a.
fn send(lab: &Lab, to: &str, count: usize, ttl: u32) {
    lab.pods[0].within(|| {
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.set_ttl(ttl).unwrap();
        for _ in 0..count {
            // An answer of an earlier packet, such as "no route", may be reported here; the packet then isn't sent.
            while socket.send_to(b"12345678", to).is_err() {}
        }
    });
}

fn named<'a>(watch: &'a Watch, reason: &str) -> Vec<&'a DropRecord> {
    let kernel = watch.capture.kernel();
    watch.drops.iter().filter(|drop| kernel.drop_reason(drop.reason) == Some(reason)).collect()
}

#[test]
fn each_cause_has_its_reason_by_btf() {
    each_cause_has_its_reason(DropHook::TpBtf, "by tp_btf");
}

#[test]
fn each_cause_has_its_reason_by_raw_tracepoint() {
    each_cause_has_its_reason(DropHook::RawTp, "by raw_tp");
}

#[test]
fn each_cause_has_its_reason_by_plain_tracepoint() {
    if skip() {
        return;
    }
    if !std::path::Path::new("/sys/kernel/tracing/events").exists() {
        // Not mounted on this machine: again, in a mount namespace where it is.
        let this = "drops::each_cause_has_its_reason_by_plain_tracepoint";
        let script = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$0\" --exact \"$1\"";
        let mut again = std::process::Command::new("unshare");
        again.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(this);
        let output = again.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    each_cause_has_its_reason(DropHook::Tracepoint, "by tracepoint");
}

fn each_cause_has_its_reason(drop_hook: DropHook, hook_note: &str) {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    lab.node.run("ip route add blackhole 10.78.0.0/24");
    lab.node.run("nft add table ip filter");
    lab.node.run("nft add chain ip filter forward { type filter hook forward priority 0 ; }");
    lab.node.run("nft add rule ip filter forward udp dport 7777 drop");
    let mut watch = lab.capture(&CaptureConfig { drop_hook, ..CaptureConfig::default() });
    let hooks = watch.capture.status().status().hooks;
    assert!(hooks.iter().any(|hook| hook.note == hook_note), "{hooks:?}");
    for hook in watch.capture.status().status().hooks {
        assert_eq!(hook.error, None, "{}", hook.name);
    }
    let (node_netns, pod_netns) = (lab.node.inode(), lab.pods[1].inode());
    let mut cookies = std::collections::BTreeSet::new();
    for (reason, to, ttl, netns) in [
        ("NO_SOCKET", "10.77.0.2:9999", 64, pod_netns),
        ("NETFILTER_DROP", "10.77.0.2:7777", 64, node_netns),
        ("IP_INNOROUTES", "10.79.0.1:53", 64, node_netns),
        ("NOT_SPECIFIED", "10.78.0.1:53", 64, node_netns),
        ("IP_INHDR", "10.77.0.2:9998", 1, node_netns),
    ] {
        send(&lab, to, 1, ttl);
        let port: u16 = to.rsplit(':').next().unwrap().parse().unwrap();
        let is = |drop: &&&DropRecord| drop.tuple.destination_port == port && drop.tuple.protocol == 17;
        watch.until(reason, |watch| named(watch, reason).iter().any(|drop| is(&drop)));
        let found = named(&watch, reason);
        let drop = found.iter().find(is).unwrap();
        assert_eq!(drop.netns, netns, "{reason}: {drop:?}");
        cookies.insert((netns, drop.netns_cookie));
        assert!(drop.flags & drop_flags::PARSED != 0 && drop.location != 0 && drop.ifindex != 0, "{drop:?}");
        assert_eq!(drop.tuple.source[12..], [10, 77, 0, 1]);
    }
    // One cookie for each of the two namespaces.
    let values: std::collections::BTreeSet<u64> = cookies.iter().map(|(_, cookie)| *cookie).collect();
    assert_eq!((cookies.len(), values.len(), values.contains(&0)), (2, 2, false), "{cookies:?}");
}

#[test]
fn sums_are_exact() {
    const SENT: u64 = 500;
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let mut watch = lab.capture(&CaptureConfig::default());
    send(&lab, "10.77.0.2:9999", SENT as usize / 2, 64);
    watch.until("a sum", |watch| watch.drops.iter().any(|drop| drop.flags & drop_flags::SUM != 0));
    let socket_port = |drop: &DropRecord| drop.tuple.source_port;
    send(&lab, "10.77.0.2:9999", SENT as usize / 2, 64);
    let status = watch.capture.status();
    let (_, drops, _) = watch.stop();
    let drops: Vec<_> = drops.iter().filter(|drop| drop.tuple.destination_port == 9999).collect();
    assert_eq!(drops.iter().map(|drop| drop.packets).sum::<u64>(), SENT);
    assert_eq!(drops.iter().map(|drop| drop.bytes).sum::<u64>(), SENT * u64::from(drops[0].packet_len));
    let sockets: std::collections::HashSet<u16> = drops.iter().map(|drop| socket_port(drop)).collect();
    assert_eq!(sockets.len(), 2);
    let counters = status.status().drops.counters;
    assert_eq!(counters.made, counters.submitted + counters.ring_full);
}

#[test]
fn a_full_ring_is_counted_to_the_record() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let config = CaptureConfig {
        flow_ring_bytes: 4096,
        aggregation: observer::capture::Aggregation::Low,
        ..CaptureConfig::default()
    };
    let watch = lab.capture(&config);
    // 4096 bytes have room for 34 records of 120 bytes; nobody reads meanwhile.
    send(&lab, "10.77.0.2:9999", 200, 64);
    let status = watch.capture.status();
    let (flows, drops, _) = watch.stop();
    let status = status.status();
    let (made, submitted, full) = (
        status.total(|counters| counters.made),
        status.total(|counters| counters.submitted),
        status.total(|counters| counters.ring_full),
    );
    assert_eq!(made, submitted + full);
    assert!(full >= 166, "{full} of {made}");
    let written = flows.iter().filter(|flow| flow.reason != observer_ebpf::flow_reason::SWEEP).count();
    let singles = drops.iter().filter(|drop| drop.flags & drop_flags::SUM == 0).count();
    assert_eq!((written + singles) as u64, submitted);
}

#[test]
fn failed_connects_are_counted() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let watch = lab.capture(&CaptureConfig::default());
    lab.pods[0].within(|| {
        let refused = std::net::TcpStream::connect("10.77.0.2:9");
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
    let (flows, _, facts) = watch.stop();
    let fact = facts.iter().find(|fact| fact.netns == lab.pods[0].inode()).expect("a fact");
    assert_eq!((fact.failed_connects, fact.tuple.destination_port), (1, 9));
    assert_eq!(fact.tuple.destination[12..], [10, 77, 0, 2]);
    let syn = flows.iter().find(|flow| flow.tuple.destination_port == 9).expect("the SYN");
    assert_eq!((fact.tuple.source, fact.tuple.source_port), (syn.tuple.source, syn.tuple.source_port));
}

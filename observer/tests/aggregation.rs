//! How many flows a connection becomes at each level, and what the new-flow cap keeps back: exactly.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{
    Entry, Lab,
    scenario::{Family, Party, Traffic},
    unique_prefix,
};
use observer_proto::flow::Flow;
use support::{Daemon, Sums, can_run, ends, extensions, scenario};

/// From the client pod to the server pod, IPv4.
fn traffic(name: &str, count: u64) -> Traffic {
    let mut traffic = scenario("drops.toml").traffic.into_iter().find(|t| t.name == "beside").unwrap();
    name.clone_into(&mut traffic.name);
    traffic.to = Party::Pod("shop".to_owned(), "server".to_owned());
    (traffic.count, traffic.interval_ms, traffic.family) = (Some(count), 0, Family::V4);
    if name == "udp" {
        (traffic.kind, traffic.port, traffic.path) = (observer_lab::Kind::Udp, Some(7000), None);
    }
    traffic
}

/// Records at the packets themselves; the sweep's last totals come on top of them.
fn at_packets<'a>(flows: &'a [Flow], entry: &Entry, reply: bool) -> Vec<&'a Flow> {
    let (source, destination) =
        if reply { (entry.called, entry.source) } else { (entry.source, entry.called) };
    flows
        .iter()
        .filter(|flow| ends(flow) == Some((entry.protocol, source, destination)) && !is_final(flow))
        .collect()
}

fn is_final(flow: &Flow) -> bool {
    extensions(flow).get("notes").is_some_and(|notes| notes.contains("final"))
}

fn packets(flow: &Flow) -> u64 {
    extensions(flow)["packets"].parse().unwrap()
}

#[test]
fn each_level_tells_as_many_flows_as_it_says() {
    if !can_run("aggregation") {
        return;
    }
    let mut lab = Lab::up(&scenario("drops.toml"), &unique_prefix("levels")).unwrap();
    // Flows of a UDP request and its answer; of an HTTP request over TCP, SYN, the handshake's ACK, data and FIN, and of
    // its answer, SYN-ACK, data and FIN. At none and low it depends on how the kernel acknowledges.
    for (level, udp, tcp) in [
        ("none", [2, 2], None),
        ("low", [1, 1], None),
        ("medium", [1, 1], Some([4, 3])),
        ("maximum", [1, 1], Some([2, 2])),
    ] {
        let done = lab.ledger().len();
        let daemon = Daemon::start(&lab, "n1", &["--aggregation", level]);
        lab.play(traffic("udp", 1)).unwrap();
        lab.play(traffic("http", 1)).unwrap();
        lab.wait_traffic();
        Sums::of(&daemon.settled()).check();
        let flows = daemon.flows();
        for entry in lab.ledger().iter().skip(done) {
            assert!(entry.as_expected(), "{entry:?}");
            for (index, reply) in [false, true].into_iter().enumerate() {
                let told = at_packets(&flows, entry, reply);
                let most = told.iter().map(|flow| packets(flow)).max().unwrap_or(0);
                let expected = match (entry.traffic.as_str(), tcp) {
                    ("udp", _) => udp[index],
                    (_, Some(tcp)) => tcp[index],
                    // Every packet at each point.
                    (_, None) => most * udp[index],
                };
                assert!(expected > 0);
                assert_eq!(told.len() as u64, expected, "{level}, reply {reply}: {told:?}");
                if tcp.is_none() {
                    let mut counts: Vec<u64> = told.iter().map(|flow| packets(flow)).collect();
                    counts.sort_unstable();
                    let each: Vec<u64> = (1..=most).flat_map(|n| vec![n; udp[index] as usize]).collect();
                    assert_eq!(counts, each, "{level}: each packet");
                }
            }
        }
        assert!(daemon.stop().0.success());
    }
}

#[test]
fn what_the_cap_on_new_flows_keeps_back_is_counted() {
    if !can_run("new-flow cap") {
        return;
    }
    let mut lab = Lab::up(&scenario("drops.toml"), &unique_prefix("cap")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--new-flow-cap", "100"]);
    let started = std::time::Instant::now();
    lab.play(traffic("udp", 200)).unwrap();
    lab.wait_traffic();
    let seconds = started.elapsed().as_secs_f64();
    let entries = lab.ledger();
    let made: u64 = entries.iter().map(|entry| entry.sent + entry.received).sum();
    assert_eq!(made, 400, "a request and an answer each");
    let sums = Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(sums.lost(), 0, "{sums:?}");
    let kept =
        sums.suppressed("flows egress", "new-flow cap") + sums.suppressed("flows ingress", "new-flow cap");
    let flows = daemon.flows();
    let told: u64 = entries
        .iter()
        .flat_map(|entry| [false, true].map(|reply| at_packets(&flows, entry, reply).len() as u64))
        .sum();
    // A quarter of a second's worth at once, then so many a second, on each CPU.
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    assert!((15.0..=cpus * (25.0 + seconds * 100.0)).contains(&(told as f64)), "{told} in {seconds} s");
    assert!(kept > 0, "{sums:?}");
    assert_eq!(told + kept, made, "told + kept back = made");
}

//! Every drop cause of the lab, over TCP, UDP and ping and both families: told once for each packet, with both ends named
//! and the kernel's own reason; and nothing told of what arrived.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Cause, Entry, Kind, Lab, unique_prefix};
use observer_proto::{
    flow::{Flow, Verdict},
    names::drop_reason_text,
};
use std::net::{IpAddr, SocketAddr};
use support::{Daemon, can_run, ends, extensions, is_late_segment, name, scenario};

/// Drops of nobody's connection, for multicast alone: kernel reason, and place. A neighbour solicitation for a dead host
/// comes out of the far end of the link that leads nowhere, where nobody is in its group. A new link's report of its IPv4 groups
/// comes to an end that routes no multicast.
const EXPLAINED: &[(&str, &str)] =
    &[("NOT_SPECIFIED", "ip6_mc_input"), ("NOT_SPECIFIED", "ip_rcv_finish_core")];

#[test]
fn each_dropped_packet_is_told_with_both_ends_and_the_kernels_reason() {
    if !can_run("drops") {
        return;
    }
    let mut lab = Lab::up(&scenario("drops.toml"), &unique_prefix("drops")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    let odd: Vec<_> = entries.iter().filter(|entry| !entry.as_expected()).collect();
    assert!(odd.is_empty(), "the lab itself is not as expected: {odd:?}");

    let dropped: Vec<&Entry> = entries.iter().filter(|entry| entry.expected != Cause::None).collect();
    for ipv4 in [true, false] {
        let mut causes: Vec<Cause> = dropped
            .iter()
            .filter(|entry| entry.source.is_ipv4() == ipv4)
            .map(|entry| entry.expected)
            .collect();
        causes.sort_unstable();
        causes.dedup();
        assert_eq!(causes.len(), 8, "every cause in this family: {causes:?}");
    }
    daemon.flows_until(|flows| {
        let untold = |entry: &&&Entry| !flows.iter().any(|flow| is_drop(flow) && is_of(flow, entry));
        dropped.iter().find(untold).map(|entry| format!("a drop of {entry:?}"))
    });
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(sums.lost(), 0, "{sums:?}");
    let flows: Vec<Flow> = daemon.flows().into_iter().filter(is_drop).collect();
    for entry in &dropped {
        let told: Vec<&Flow> = flows.iter().filter(|flow| is_of(flow, entry)).collect();
        check(&lab, entry, &told);
    }
    for flow in &flows {
        let of = entries.iter().find(|entry| is_of(flow, entry) || is_answer_to(flow, entry));
        match of {
            Some(entry) if entry.expected == Cause::None => {
                assert!(is_late_segment(flow), "{entry:?} was answered: {flow:?}");
            }
            Some(_) => {}
            None => assert!(is_explained(flow), "a drop of nothing that was sent: {flow:?}"),
        }
    }
}

fn is_drop(flow: &Flow) -> bool {
    flow.event_type.as_ref().is_some_and(|event| event.r#type == 1)
}

/// The port of a ping is its ICMP identifier, which is no port of a flow.
fn end(entry: &Entry, address: SocketAddr) -> SocketAddr {
    if entry.kind == Kind::Ping { SocketAddr::new(address.ip(), 0) } else { address }
}

fn is_of(flow: &Flow, entry: &Entry) -> bool {
    ends(flow) == Some((entry.protocol, end(entry, entry.source), end(entry, entry.called)))
}

fn is_answer_to(flow: &Flow, entry: &Entry) -> bool {
    ends(flow) == Some((entry.protocol, end(entry, entry.called), end(entry, entry.source)))
}

fn is_explained(flow: &Flow) -> bool {
    let extensions = extensions(flow);
    let text = |key: &str| extensions.get(key).map_or("", String::as_str);
    let destination: Option<IpAddr> = flow.ip.as_ref().and_then(|ip| ip.destination.parse().ok());
    EXPLAINED.iter().any(|(reason, place)| {
        text("kernel_drop_reason") == *reason
            && text("kernel_location").starts_with(place)
            && destination.is_some_and(|destination| destination.is_multicast())
    })
}

fn check(lab: &Lab, entry: &Entry, told: &[&Flow]) {
    let pings = pings_alike(lab, entry);
    let sent = if entry.kind == Kind::Ping { pings..=pings } else { entry.unanswered_packets() };
    let packets: u64 = told.iter().map(|flow| number(flow, "packets")).sum();
    assert!(sent.contains(&packets), "{packets} packets of {entry:?}: {told:?}");
    for flow in told {
        assert_eq!(flow.verdict, Verdict::Dropped as i32, "{flow:?}");
        let ip = flow.ip.as_ref().unwrap();
        for (party, endpoint, ip) in
            [(&entry.from, &flow.source, &ip.source), (&entry.to, &flow.destination, &ip.destination)]
        {
            let labels = endpoint.as_ref().map(|endpoint| endpoint.labels.clone()).unwrap_or_default();
            match party.split_once('/').unwrap() {
                ("pod", pod) => assert_eq!(name(endpoint.as_ref(), ip), pod, "{flow:?}"),
                ("node", _) => assert!(labels.contains(&"reserved:host".to_owned()), "{flow:?}"),
                _ => assert!(labels.contains(&"reserved:world".to_owned()), "{flow:?}"),
            }
        }
        let extensions = extensions(flow);
        let reason = &extensions["kernel_drop_reason"];
        assert!(entry.expected_reasons.contains(reason), "{:?}: {flow:?}", entry.expected_reasons);
        let location = &extensions["kernel_location"];
        assert!(location.split_once("+0x").is_some_and(|(symbol, _)| !symbol.is_empty()), "{location}");
        let summary = format!("; {reason} at {location}");
        assert!(flow.summary().ends_with(&summary), "{} has no '{summary}'", flow.summary());
        let sub_type = flow.event_type.as_ref().unwrap().sub_type;
        let text = drop_reason_text(sub_type).unwrap_or_else(|| panic!("{sub_type} is none of Hubble's"));
        assert_eq!(text, hubble_text(entry.expected), "{flow:?}");
        assert_eq!(flow.drop_reason_desc, sub_type, "{flow:?}");
        // The skb's length: where a socket is looked up, the IP header is off it already.
        assert!(number(flow, "bytes") >= if entry.protocol == 6 { 40 } else { entry.bytes_sent }, "{flow:?}");
        assert!(extensions["first_seen"].starts_with("20"), "{flow:?}");
    }
}

/// Pings of the same ends are one for the reader of flows.
fn pings_alike(lab: &Lab, entry: &Entry) -> u64 {
    let alike = |other: &&Entry| {
        other.kind == Kind::Ping
            && other.source.ip() == entry.source.ip()
            && other.called.ip() == entry.called.ip()
            && other.expected == entry.expected
    };
    lab.ledger().iter().filter(alike).count() as u64
}

fn hubble_text(cause: Cause) -> &'static str {
    match cause {
        Cause::None => unreachable!("not dropped"),
        Cause::NftDrop | Cause::NftReject => "Policy denied",
        Cause::ClosedPort => "Socket lookup failed",
        Cause::NoRoute | Cause::Blackhole => "FIB lookup failed",
        Cause::Ttl => "TTL exceeded",
        Cause::TooBig => "Fragmentation needed",
        Cause::Neighbour => "Unknown L3 target address",
    }
}

fn number(flow: &Flow, key: &str) -> u64 {
    extensions(flow).get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Hubble's clients print it.
trait Summary {
    fn summary(&self) -> &str;
}

impl Summary for Flow {
    #[expect(deprecated, reason = "deprecated by Hubble, and still what its clients show")]
    fn summary(&self) -> &str {
        &self.summary
    }
}

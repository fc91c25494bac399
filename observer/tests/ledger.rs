//! Flows held to the ledger: what the lab says that it sent, and what the daemon says that it saw.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use observer_lab::{Cause, Entry, Kind, Lab, links::Counters, unique_prefix};
use observer_proto::{
    control::CaptureStatusResponse,
    flow::{Flow, TraceObservationPoint, TraceReason, layer4::Protocol},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
};
use support::{Daemon, Ends, can_run, ends, is_late_segment, name, scenario};

/// The least number of connections that such a test is worth.
const CONNECTIONS: usize = 2_000;

#[test]
fn routed_pods_flows_are_the_ledgers() {
    flows_are_the_ledgers("routed");
}

#[test]
fn bridged_pods_flows_are_the_ledgers() {
    flows_are_the_ledgers("bridged");
}

fn flows_are_the_ledgers(wiring: &str) {
    if !can_run(wiring) {
        return;
    }
    let mut lab = Lab::up(&scenario(&format!("{wiring}.toml")), &unique_prefix("ledger")).unwrap();
    let node = lab.scenario().nodes[0].name.clone();
    let daemon = Daemon::start(&lab, &node, &[]);
    let (links_before, capture_before) = counted(&lab, &node, &daemon);
    lab.start_traffic().unwrap();
    lab.wait_traffic();

    let entries = lab.ledger();
    let odd: Vec<_> = entries.iter().filter(|entry| !entry.as_expected()).take(3).collect();
    assert!(odd.is_empty(), "the lab itself is not as expected: {odd:?}");
    assert!(entries.len() >= CONNECTIONS, "{} connections", entries.len());

    let answered: Vec<&Entry> = entries.iter().filter(|entry| entry.expected == Cause::None).collect();
    let flows = daemon.flows_until(|flows| {
        let told: HashSet<(Ends, Option<bool>)> =
            flows.iter().filter_map(|flow| Some((ends(flow)?, flow.is_reply))).collect();
        let missing = |entry: &&&Entry| {
            let (client, server) = real_ends(entry);
            !told.contains(&((entry.protocol, client, server), Some(false)))
                || !told.contains(&((entry.protocol, server, client), Some(true)))
        };
        let missing: Vec<_> = answered.iter().filter(missing).collect();
        missing
            .first()
            .map(|first| format!("request and reply of {} connections, as {first:?}", missing.len()))
    });
    check_names_and_replies(&answered, &flows);
    check_nothing_is_extra(&entries, &flows);

    // What the programs counted is what the links counted, to the packet.
    let (links, capture) = counted(&lab, &node, &daemon);
    for pod in &lab.scenario().pods {
        let link = lab.pod_link(pod);
        let counted = |status: &CaptureStatusResponse| {
            let link = status.links.iter().find(|found| found.name == link);
            link.map(|l| [l.received_packets, l.sent_packets, l.received_bytes, l.sent_bytes]).unwrap()
        };
        let (before, after) = (counted(&capture_before), counted(&capture));
        let (kernel_before, kernel) = (links_before[&link], links[&link]);
        let seen: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let made = [
            kernel.rx_packets - kernel_before.rx_packets,
            kernel.tx_packets - kernel_before.tx_packets,
            kernel.rx_bytes - kernel_before.rx_bytes,
            kernel.tx_bytes - kernel_before.tx_bytes,
        ];
        assert_eq!(seen, made, "packets and bytes from {link}, to it");
    }
    check_delivered_packets(&daemon, &lab, &entries);
}

/// What the links and the programs have counted, of one time: the network says this and that by itself, so that a packet
/// may come between the two.
fn counted(lab: &Lab, node: &str, daemon: &Daemon) -> (BTreeMap<String, Counters>, CaptureStatusResponse) {
    let mut links = lab.link_counters(node).unwrap();
    loop {
        let status = daemon.capture_status();
        let again = lab.link_counters(node).unwrap();
        if again == links {
            return (links, status);
        }
        links = again;
    }
}

/// The client and the server of a connection as they really are, whatever was translated between them.
fn real_ends(entry: &Entry) -> (SocketAddr, SocketAddr) {
    let server = entry.served.as_ref().map_or(entry.called, |served| served.local);
    let without_port = |address: SocketAddr| SocketAddr::new(address.ip(), 0);
    if entry.kind == Kind::Ping {
        return (without_port(entry.source), without_port(server));
    }
    (entry.source, server)
}

/// `pod/NAMESPACE/NAME` as the daemon names it; nothing for who is no pod.
fn pod_name(party: &str) -> Option<&str> {
    party.strip_prefix("pod/")
}

fn check_names_and_replies(answered: &[&Entry], flows: &[Flow]) {
    let mut by_ends: HashMap<Ends, Vec<&Flow>> = HashMap::new();
    for flow in flows {
        if let Some(ends) = ends(flow).filter(|_| !is_housekeeping(flow) && !is_late_segment(flow)) {
            by_ends.entry(ends).or_default().push(flow);
        }
    }
    for entry in answered {
        let (client, server) = real_ends(entry);
        let served_by = entry.served.as_ref().map_or(entry.to.as_str(), |served| served.by.as_str());
        for (ends, reply) in
            [((entry.protocol, client, server), false), ((entry.protocol, server, client), true)]
        {
            let told = &by_ends[&ends];
            let (source, destination) =
                if reply { (served_by, entry.from.as_str()) } else { (entry.from.as_str(), served_by) };
            for flow in told {
                let ip = flow.ip.as_ref().unwrap();
                for (party, endpoint, ip) in
                    [(source, &flow.source, &ip.source), (destination, &flow.destination, &ip.destination)]
                {
                    if let Some(pod) = pod_name(party) {
                        assert_eq!(name(endpoint.as_ref(), ip), pod, "{flow:?}");
                    }
                }
                assert_eq!(flow.is_reply, Some(reply), "{flow:?}");
            }
            if entry.kind != Kind::Ping && !reply {
                let new = told.iter().filter(|flow| flow.trace_reason == TraceReason::New as i32).count();
                assert_eq!(new, 1, "{ends:?} of {} is one new connection", entry.traffic);
            }
            let points: HashSet<i32> = told.iter().map(|flow| flow.trace_observation_point).collect();
            assert_eq!(points.len(), 1, "each way is told at one point: {told:?}");
            if entry.to.starts_with("service/") {
                let service = entry.to.trim_start_matches("service/");
                for flow in told {
                    let named = if reply { &flow.source_service } else { &flow.destination_service };
                    let named = named.as_ref().map(|named| format!("{}/{}", named.namespace, named.name));
                    assert_eq!(named.as_deref(), Some(service), "{flow:?}");
                }
            }
        }
    }
}

/// Between hosts that the ledger knows, there is no flow that it does not know.
fn check_nothing_is_extra(entries: &[Entry], flows: &[Flow]) {
    let mut known: HashSet<Ends> = HashSet::new();
    for entry in entries {
        let (client, server) = real_ends(entry);
        known.insert((entry.protocol, client, server));
        known.insert((entry.protocol, server, client));
    }
    let extra: Vec<&Flow> = flows
        .iter()
        .filter(|flow| flow.event_type.as_ref().is_some_and(|event| event.r#type == 4))
        .filter(|flow| ends(flow).is_some_and(|ends| !known.contains(&ends) && !is_housekeeping(flow)))
        .collect();
    assert!(extra.is_empty(), "{} flows of no known connection, such as {:?}", extra.len(), extra[0]);
}

/// Multicast listeners, neighbour discovery (RFC 4861, RFC 3810) and ICMP errors: nobody's connection.
fn is_housekeeping(flow: &Flow) -> bool {
    let protocol = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    let discovery =
        matches!(protocol, Some(Protocol::IcmPv6(icmp)) if matches!(icmp.r#type, 130..=137 | 143));
    discovery || flow.trace_reason == TraceReason::Related as i32
}

/// The last totals of the connections that were delivered through a link are what the link counted.
fn check_delivered_packets(daemon: &Daemon, lab: &Lab, entries: &[Entry]) {
    daemon.flows_until(|flows| {
        // More by now, where a multicast group was reported meanwhile; its flow is in the next look.
        let wanted: BTreeMap<String, u64> = daemon
            .capture_status()
            .links
            .into_iter()
            .filter(|link| link.kind == "pod")
            .map(|link| (link.name, link.sent_packets - link.sent_other_packets))
            .collect();
        assert_eq!(wanted.len(), lab.scenario().pods.len(), "every pod's link is watched");
        assert!(wanted.values().sum::<u64>() > entries.len() as u64);
        let mut last: HashMap<(String, Ends, u64), u64> = HashMap::new();
        for flow in flows {
            let delivered = flow.trace_observation_point == TraceObservationPoint::ToEndpoint as i32;
            let (Some(ends), Some(link), true) = (ends(flow), &flow.interface, delivered) else { continue };
            let (packets, first) = totals(flow);
            let total = last.entry((link.name.clone(), ends, first)).or_default();
            *total = packets.max(*total);
        }
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for ((link, ..), packets) in last {
            *sums.entry(link).or_default() += packets;
        }
        (sums != wanted).then(|| format!("the last totals are {sums:?}, not {wanted:?}"))
    });
}

/// Packets of the connection so far, and a number that tells connections of the same ends apart.
fn totals(flow: &Flow) -> (u64, u64) {
    let extensions = support::extensions(flow);
    let first = extensions.get("first_seen").cloned().unwrap_or_default();
    let hash = first.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (extensions.get("packets").and_then(|text| text.parse().ok()).unwrap_or(0), hash)
}

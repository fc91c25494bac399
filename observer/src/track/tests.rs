//! Scenarios: records and conntrack's entries -> what is told. Each is played in IPv4 and, with the addresses mapped,
//! in IPv6.

use super::*;
use crate::decode::{DropEvent, End, FlowFlags, FlowReason};
use crate::flow::{DropSite, LinkKind, Notes, Tristate, Tunnel, TunnelKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt::Write as _, sync::Arc};

mod batches;
mod scenarios;

/// 10.0.1.1-99 are local pods, 10.0.1.254 and 192.168.0.1 the node's, 10.0.2.x pods elsewhere, 10.96.0.x services.
pub(super) struct Lab;

fn octets(ip: &IpAddr) -> [u8; 4] {
    match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => *ip.octets().last_chunk().unwrap(),
    }
}

impl Addresses for Lab {
    fn is_local_pod(&self, end: &End) -> bool {
        matches!(octets(&end.ip()), [10, 0, 1, 1..=99])
    }
    fn is_node(&self, end: &End) -> bool {
        matches!(octets(&end.ip()), [10, 0, 1, 254] | [192, 168, 0, 1])
    }
    fn has_tunnel(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Four,
    Six,
}

fn end(text: &str, family: Family) -> End {
    let (ip, port) = text.split_once(':').unwrap_or((text, "0"));
    let ip: Ipv4Addr = ip.parse().unwrap();
    let ip = match family {
        Family::Four => IpAddr::V4(ip),
        Family::Six => {
            let [a, b, c, d] = ip.octets();
            IpAddr::V6(Ipv6Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]))
        }
    };
    End::new(ip, port.parse().unwrap())
}

fn ends(text: &str, protocol: &str, family: Family) -> Tuple {
    let (source, destination) = text.split_once('>').unwrap();
    let protocol = match (protocol, family) {
        ("tcp", _) => 6,
        ("udp", _) => 17,
        ("icmp" | "error", Family::Four) => 1,
        ("icmp" | "error", Family::Six) => 58,
        (other, _) => panic!("protocol {other}"),
    };
    Tuple { source: end(source, family), destination: end(destination, family), protocol }
}

/// `tcp original reply`, the kernel's number being the line's.
fn entries(lines: &[&str], family: Family) -> ConntrackTable {
    let mut table = ConntrackTable::new(TableLimits::default());
    for (id, line) in lines.iter().enumerate() {
        let [protocol, original, reply] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        table.insert(Entry {
            id: id as u32,
            original: ends(original, protocol, family),
            reply: ends(reply, protocol, family),
        });
    }
    table
}

fn packet(tuple: Tuple, icmp_type: u8) -> Packet {
    Packet { tuple, ip_version: if tuple.source.ip().is_ipv4() { 4 } else { 6 }, icmp_type, icmp_code: 0 }
}

/// `link hook reason[+flag...] protocol source>destination`, or `drop protocol source>destination`.
fn event(line: &str, time_ns: u64, family: Family) -> Event {
    let words: Vec<&str> = line.split(' ').collect();
    if let ["drop", protocol, tuple] = words[..] {
        return Event::Drop(drop_event(ends(tuple, protocol, family), time_ns));
    }
    let [behind, hook, reason, protocol, tuple] = words[..] else { panic!("{line}") };
    let mut reason = reason.split('+');
    let mut flow = flow_event(ends(tuple, protocol, family), time_ns);
    flow.link_kind = match behind {
        "pod" => LinkKind::Pod,
        "uplink" => LinkKind::Uplink,
        "tunnel" => LinkKind::Tunnel,
        other => panic!("link {other}"),
    };
    flow.hook = match hook {
        "in" => Hook::Ingress,
        "out" => Hook::Egress,
        other => panic!("hook {other}"),
    };
    flow.reason = match reason.next().unwrap() {
        "new" => FlowReason::New,
        "flags" => FlowReason::Flags,
        "packet" => FlowReason::Packet,
        "sweep" => FlowReason::Sweep,
        other => panic!("reason {other}"),
    };
    for flag in reason {
        flow.flags.0 |= match flag {
            "reply" => flow_flags::REPLY,
            "guess" => flow_flags::OPENER_GUESSED,
            "related" => flow_flags::RELATED,
            "forwarded" => flow_flags::FORWARDED,
            "local" => flow_flags::TO_LOCAL_POD,
            other => panic!("flag {other}"),
        };
    }
    Event::Flow(flow)
}

fn flow_event(tuple: Tuple, time_ns: u64) -> FlowEvent {
    FlowEvent {
        time_ns: time_ns as i64,
        kernel_ns: time_ns,
        packet: Some(packet(tuple, if tuple.protocol == 58 { 128 } else { 8 })),
        ifindex: 2,
        link_kind: LinkKind::Pod,
        hook: Hook::Ingress,
        reason: FlowReason::New,
        payload: None,
        flags: FlowFlags(0),
        tcp_flags: 2,
        vlan_tci: 0,
        macs: None,
        tunnel: None,
        packet_len: 60,
        resets: 0,
        packets: 1,
        bytes: 60,
        first_ns: time_ns as i64,
        judged: None,
    }
}

pub(super) fn drop_event(tuple: Tuple, time_ns: u64) -> DropEvent {
    let site =
        DropSite { kernel_reason: "NO_SOCKET".into(), hubble_reason: 178, location: Err("none".into()) };
    DropEvent {
        time_ns: time_ns as i64,
        kernel_ns: time_ns,
        packet: Some(packet(tuple, 0)),
        site: Arc::new(site),
        ifindex: 2,
        netns: 1,
        packet_len: 60,
        ether_type: 0x800,
        tcp_flags: 2,
        sum: false,
        socket: false,
        packets: 1,
        bytes: 60,
        first_ns: time_ns as i64,
        denied: None,
    }
}

fn show_end(end: &End) -> String {
    let ip = Ipv4Addr::from(octets(&end.ip()));
    if end.port() == 0 { ip.to_string() } else { format!("{ip}:{}", end.port()) }
}

/// `point reason direction source>destination [via frontend] [as source_xlated] [guessed]`.
fn show(tracked: &Tracked<'_>) -> String {
    let (head, ends, notes) = match tracked {
        Tracked::Flow(flow) => {
            let reply = flow.reason.as_str_name() == "REPLY";
            let is_reply = if reply { Tristate::Yes } else { Tristate::No };
            assert_eq!(flow.is_reply, is_reply, "is_reply and the reason agree");
            let head =
                [flow.point.as_str_name(), flow.reason.as_str_name(), flow.direction.as_str_name()].join(" ");
            (head, *flow.ends, flow.notes)
        }
        Tracked::Drop(drop) => {
            assert_eq!(drop.ends.source_xlated, None);
            (format!("drop {}", drop.direction.as_str_name()), *drop.ends, drop.notes)
        }
    };
    let mut text = head.to_lowercase().replace('_', "-");
    write!(text, " {}>{}", show_end(&ends.source.unwrap()), show_end(&ends.destination.unwrap())).unwrap();
    if let Some(frontend) = ends.frontend {
        write!(text, " via {}", show_end(&frontend)).unwrap();
    }
    if let Some(ip) = ends.source_xlated {
        write!(text, " as {}", Ipv4Addr::from(octets(&ip))).unwrap();
    }
    if notes.has(Notes::OPENER_GUESSED) {
        text += " guessed";
    }
    text
}

/// A copy that outlives its record.
fn kept(tracked: &Tracked<'_>) -> Tracked<'static> {
    match tracked.clone() {
        Tracked::Flow(TrackedFlow {
            event,
            ends,
            is_reply,
            direction,
            point,
            reason,
            notes,
            retransmits,
        }) => {
            let (event, ends) = (Box::leak(Box::new(event.clone())), Box::leak(Box::new(*ends)));
            Tracked::Flow(TrackedFlow { event, ends, is_reply, direction, point, reason, notes, retransmits })
        }
        Tracked::Drop(TrackedDrop { event, ends, direction, reason, again, retransmits, notes }) => {
            let (event, ends) = (Box::leak(Box::new(event.clone())), Box::leak(Box::new(*ends)));
            Tracked::Drop(TrackedDrop { event, ends, direction, reason, again, retransmits, notes })
        }
    }
}

/// What one record alone is told as, or the name of the counter under which it is not.
fn told(line: &str, table: Option<&ConntrackTable>, family: Family) -> String {
    let mut tracker = Tracker::default();
    let mut out = Vec::new();
    tracker.batch(&mut vec![event(line, 5, family)], table, u64::MAX, &Lab, &mut |tracked| {
        out.push(kept(tracked));
    });
    let counters = tracker.counters();
    assert_eq!(counters.flows + counters.drops + counters.suppressed(), 1);
    match out.first() {
        Some(first) => show(first),
        None if counters.local_delivery == 1 => "not: local delivery".into(),
        None if counters.translated_local == 1 => "not: translated local".into(),
        None if counters.masqueraded == 1 => "not: masqueraded".into(),
        None => "not: forwarded".into(),
    }
}

//! The connections that the programs know, with both ends' names.

use super::{Chosen, Inspection, PART, failed, name};
use crate::{
    capture::TableEntry,
    decode::Clock,
    serve::{Answer, InspectError, encode::proto_time},
};
use observer_ebpf::{DENIED, INSIDE_TUNNEL, SEEN, TELLABLE, tick, ticks_since};
use observer_proto::control::{InspectResponse, InspectedDirection, InspectedEnd, InspectedFlow};
use std::net::{IpAddr, Ipv6Addr};

impl Inspection {
    pub(super) fn flows(&self, chosen: &Chosen, limit: u32, answer: &Answer) -> Result<(), InspectError> {
        let clock = Clock::new();
        let (mut flows, mut left, mut more) = (Vec::new(), limit, 0);
        let walked = self.inspector.flows(&mut |entry| {
            let index = entry.0.ifindex & !INSIDE_TUNNEL;
            let link = chosen.table.get(index).map_or("", |link| &link.name);
            if !chosen.has(link) {
                return true;
            }
            if left == 0 {
                more += 1;
                return true;
            }
            left -= 1;
            flows.push(InspectedFlow { index, interface: link.to_owned(), ..self.flow(entry, &clock) });
            flows.len() < PART || {
                let flows = std::mem::take(&mut flows);
                answer.give(InspectResponse { flows, ..InspectResponse::default() })
            }
        });
        walked.map_err(|error| failed(&error))?;
        answer.give(InspectResponse { flows, more, ..InspectResponse::default() });
        Ok(())
    }

    fn flow(&self, (key, value): &TableEntry, clock: &Clock) -> InspectedFlow {
        let now = Clock::kernel_now();
        let ends = [(key.local, key.local_port), (key.remote, key.remote_port)].map(|(address, port)| {
            let ip = ip(address, value.ip_version);
            let endpoint = self.names.lookup(ip, now);
            let service = self.names.frontend(ip, port, key.protocol);
            InspectedEnd {
                address: ip.to_string(),
                port: port.into(),
                name: name(&endpoint),
                identity: endpoint.identity,
                service: service.map_or_else(String::new, |s| format!("{}/{}", s.namespace, s.name)),
            }
        });
        let directions = value.directions.each_ref().map(|direction| InspectedDirection {
            packets: direction.packets,
            bytes: direction.bytes,
            tcp_flags: u32::from(direction.seen & 0xff),
            told: direction.flags & TELLABLE != 0,
            generation: direction.generation,
            denied: direction.flags & DENIED != 0,
        });
        // What never came has no time of its own.
        let seen = value.directions.iter().filter(|direction| direction.seen & SEEN != 0);
        let idle = seen.map(|direction| ticks_since(tick(now), direction.last)).min().unwrap_or(0);
        let last = now.saturating_sub(u64::from(idle) << 20).max(value.first_ns);
        let ([local, remote], [out, back]) = (ends, directions);
        let (opener, responder, sent, received) =
            if value.opener == 0 { (local, remote, out, back) } else { (remote, local, back, out) };
        let [a, b, c] = key.vni;
        InspectedFlow {
            protocol: key.protocol.into(),
            protocol_name: protocol(key.protocol),
            opener: Some(opener),
            responder: Some(responder),
            guessed: value.guessed != 0,
            sent: Some(sent),
            received: Some(received),
            resets: value.resets.into(),
            first_seen: Some(proto_time(clock.unix(value.first_ns))),
            last_seen: Some(proto_time(clock.unix(last))),
            tunneled: key.ifindex & INSIDE_TUNNEL != 0,
            vni: u32::from_be_bytes([0, a, b, c]),
            forwarded: value.forwarded != 0,
            ..InspectedFlow::default()
        }
    }
}

/// As it stood in the header: the tables have IPv4 addresses mapped.
fn ip(octets: [u8; 16], version: u8) -> IpAddr {
    let ip = Ipv6Addr::from_octets(octets);
    ip.to_ipv4_mapped().filter(|_| version == 4).map_or(IpAddr::V6(ip), IpAddr::V4)
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMPv4".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

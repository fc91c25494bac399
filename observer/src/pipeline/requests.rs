//! Flows of what the proxy tells.

use super::Stages;
use crate::{
    decode::End,
    flow::{Flow, Record, Tristate},
    proxy::{Listener, Told},
    track::Ends,
};
use observer_proto::flow::TrafficDirection;

impl Stages {
    /// Stores all that was told since the last time.
    pub(super) fn say(&mut self, requests: &Listener) {
        let mut any = false;
        requests.drain(|told| {
            self.say_one(&told);
            any = true;
        });
        if any {
            self.writer.publish();
        }
    }

    fn say_one(&mut self, told: &Told) {
        let (source, destination) =
            if told.is_answer { (told.server, told.client) } else { (told.client, told.server) };
        let end = |address: std::net::SocketAddr| Some(End::new(address.ip().to_canonical(), address.port()));
        let ends = Ends { source: end(source), destination: end(destination), ..Ends::default() };
        let mut record = Record {
            time_ns: told.time_ns,
            event_type: Record::L7_EVENT,
            verdict: told.verdict as u8,
            is_reply: if told.is_answer { Tristate::Yes } else { Tristate::No },
            source_ip: Some(source.ip().to_canonical()),
            destination_ip: Some(destination.ip().to_canonical()),
            source_port: source.port(),
            destination_port: destination.port(),
            protocol: told.protocol,
            ip_version: if source.is_ipv4() { 4 } else { 6 },
            ..Record::default()
        };
        if let Some(dns) = told.said.dns().filter(|dns| told.is_answer && dns.rcode == 0) {
            // What policies allow by it they have already.
            for ip in dns.ips.iter().filter_map(|ip| ip.parse().ok()) {
                let client = destination.ip().to_canonical();
                self.filler.learn(client, ip, &dns.query, dns.ttl, told.kernel_ns);
            }
        }
        let Self { filler, writer, .. } = self;
        // The side that policies speak of; else a client of this node sends it out.
        let is_egress = told.is_egress.unwrap_or_else(|| {
            filler.name(&record, &ends, told.kernel_ns, |flow| {
                if told.is_answer { flow.destination.local } else { flow.source.local }
            })
        });
        record.direction = if is_egress { TrafficDirection::Egress } else { TrafficDirection::Ingress } as u8;
        filler.name(&record, &ends, told.kernel_ns, |flow| {
            writer.add(&Flow { l7: Some(&told.said), policy: told.policies.as_ref(), ..*flow });
        });
    }
}

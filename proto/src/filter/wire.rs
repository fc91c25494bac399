//! A wire message as filters see it.

use super::view::{EndpointView, FlowView, HttpView, L4, L7, Side};
use crate::facts::Facts;
use crate::flow::{Endpoint, Flow, layer4::Protocol, layer7::Record};
use std::{borrow::Cow, net::IpAddr};

impl EndpointView for Endpoint {
    fn identity(&self) -> u32 {
        self.identity
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn pod_name(&self) -> &str {
        &self.pod_name
    }
    fn cluster_name(&self) -> &str {
        &self.cluster_name
    }
    fn labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(String::as_str)
    }
    fn workloads(&self) -> impl Iterator<Item = (&str, &str)> {
        self.workloads.iter().map(|w| (w.kind.as_str(), w.name.as_str()))
    }
}

impl Flow {
    fn protocol(&self) -> Option<&Protocol> {
        self.l4.as_ref()?.protocol.as_ref()
    }

    fn record(&self) -> Option<&Record> {
        self.l7.as_ref()?.record.as_ref()
    }
}

impl FlowView for Flow {
    type Endpoint = Endpoint;

    fn ip(&self, side: Side) -> Option<IpAddr> {
        let ip = self.ip.as_ref()?;
        match side {
            Side::Source => &ip.source,
            Side::Destination => &ip.destination,
        }
        .parse()
        .ok()
    }
    fn source_ip_xlated(&self) -> Option<IpAddr> {
        self.ip.as_ref()?.source_xlated.parse().ok()
    }
    fn ip_version(&self) -> i32 {
        self.ip.as_ref().map_or(0, |ip| ip.ip_version)
    }
    fn encrypted(&self) -> bool {
        self.ip.as_ref().is_some_and(|ip| ip.encrypted)
    }
    fn l4(&self) -> Option<L4> {
        Some(match self.protocol()? {
            Protocol::Tcp(_) => L4::Tcp,
            Protocol::Udp(_) => L4::Udp,
            Protocol::IcmPv4(_) => L4::IcmpV4,
            Protocol::IcmPv6(_) => L4::IcmpV6,
            Protocol::Sctp(_) => L4::Sctp,
            Protocol::Vrrp(_) => L4::Vrrp,
            Protocol::Igmp(_) => L4::Igmp,
        })
    }
    fn port(&self, side: Side) -> Option<u16> {
        let (source, destination) = match self.protocol()? {
            Protocol::Tcp(l4) => (l4.source_port, l4.destination_port),
            Protocol::Udp(l4) => (l4.source_port, l4.destination_port),
            Protocol::Sctp(l4) => (l4.source_port, l4.destination_port),
            _ => return None,
        };
        // Hubble compares modulo 65536.
        Some(if side == Side::Source { source as u16 } else { destination as u16 })
    }
    fn tcp_flags(&self) -> Option<u16> {
        let Protocol::Tcp(tcp) = self.protocol()? else { return None };
        tcp.flags.as_ref().map(super::flag_values::tcp_flag_bits)
    }
    fn verdict(&self) -> i32 {
        self.verdict
    }
    fn drop_reason_desc(&self) -> i32 {
        self.drop_reason_desc
    }
    fn kernel_drop_reason(&self) -> Cow<'_, str> {
        Facts::of(self).kernel_reason.into()
    }
    fn event_type(&self) -> Option<(i32, i32)> {
        self.event_type.as_ref().map(|e| (e.r#type, e.sub_type))
    }
    fn is_reply(&self) -> Option<bool> {
        self.is_reply
    }
    fn traffic_direction(&self) -> i32 {
        self.traffic_direction
    }
    fn endpoint(&self, side: Side) -> Option<&Endpoint> {
        match side {
            Side::Source => self.source.as_ref(),
            Side::Destination => self.destination.as_ref(),
        }
    }
    fn service(&self, side: Side) -> Option<(&str, &str)> {
        match side {
            Side::Source => self.source_service.as_ref(),
            Side::Destination => self.destination_service.as_ref(),
        }
        .map(|s| (s.namespace.as_str(), s.name.as_str()))
    }
    fn names(&self, side: Side) -> impl Iterator<Item = &str> {
        match side {
            Side::Source => &self.source_names,
            Side::Destination => &self.destination_names,
        }
        .iter()
        .map(String::as_str)
    }
    fn node_name(&self) -> &str {
        &self.node_name
    }
    fn node_labels(&self) -> impl Iterator<Item = &str> {
        self.node_labels.iter().map(String::as_str)
    }
    fn uuid(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.uuid)
    }
    fn interface(&self) -> Option<(u32, &str)> {
        self.interface.as_ref().map(|i| (i.index, i.name.as_str()))
    }
    fn l7(&self) -> Option<L7> {
        #[expect(deprecated, reason = "older agents still send Kafka records")]
        Some(match &self.l7.as_ref()?.record {
            Some(Record::Dns(_)) => L7::Dns,
            Some(Record::Http(_)) => L7::Http,
            Some(Record::Kafka(_)) => L7::Kafka,
            None => return Facts::of(self).is_of_tls().then_some(L7::Tls),
        })
    }
    fn http(&self) -> Option<HttpView<'_>> {
        let Record::Http(http) = self.record()? else { return None };
        Some(HttpView { code: http.code, method: &http.method, url: &http.url, headers: &http.headers })
    }
    fn dns_query(&self) -> Option<&str> {
        let Record::Dns(dns) = self.record()? else { return None };
        Some(&dns.query)
    }
    fn trace_id(&self) -> Option<&str> {
        Some(&self.trace_context.as_ref()?.parent.as_ref()?.trace_id)
    }
    fn ip_trace_id(&self) -> u64 {
        self.ip_trace_id.as_ref().map_or(0, |t| t.trace_id)
    }
}

//! What filters may ask of a stored flow, in the terms of Hubble's messages.

use super::encode::{NodeInfo, uuid_text};
use crate::{
    endpoint::Endpoint,
    enrich::LabelsNow,
    store::{self, Stored},
};
use observer_proto::filter::{EndpointView, FlowView, HttpView, L4, L7, Side};
use std::{borrow::Cow, net::IpAddr, num::NonZeroU64, sync::Arc};

/// A stored flow with what it takes from its place in the store and from the node.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The flow.
    pub stored: Stored<'a>,
    /// The node that saw it.
    pub node: NodeNow<'a>,
}

/// What flows take from the node, as it is and becomes.
#[derive(Clone, Debug)]
pub struct NodeView {
    name: Arc<str>,
    labels: LabelsNow,
}

/// What flows take from the node, as it is.
#[derive(Clone, Copy, Debug)]
pub struct NodeNow<'a> {
    /// `cluster/node`.
    name: &'a str,
    /// `key=value`.
    labels: &'a [String],
}

impl NodeView {
    /// As it is now.
    pub fn now(&mut self) -> NodeNow<'_> {
        NodeNow { name: &self.name, labels: self.labels.load() }
    }
}

impl Default for NodeView {
    fn default() -> Self {
        Self::from(&NodeInfo::default())
    }
}

impl From<&NodeInfo> for NodeView {
    fn from(node: &NodeInfo) -> Self {
        Self { name: node.full_name().into(), labels: node.labels.follow() }
    }
}

impl FlowView for View<'_> {
    type Endpoint = Endpoint;

    fn ip(&self, side: Side) -> Option<IpAddr> {
        match side {
            Side::Source => self.stored.source_ip(),
            Side::Destination => self.stored.destination_ip(),
        }
    }

    fn source_ip_xlated(&self) -> Option<IpAddr> {
        self.stored.flow().source_xlated()
    }

    fn ip_version(&self) -> i32 {
        store::ip_version(self.stored.record()).into()
    }

    fn encrypted(&self) -> bool {
        false
    }

    fn l4(&self) -> Option<L4> {
        store::l4(self.stored.record())
    }

    fn port(&self, side: Side) -> Option<u16> {
        store::ports(self.stored.record()).map(|(source, destination)| match side {
            Side::Source => source,
            Side::Destination => destination,
        })
    }

    fn tcp_flags(&self) -> Option<u16> {
        store::tcp_flags(self.stored.record())
    }

    fn verdict(&self) -> i32 {
        self.stored.record().verdict.into()
    }

    fn drop_reason_desc(&self) -> i32 {
        self.stored.flow().drop_reason().into()
    }

    fn kernel_drop_reason(&self) -> Cow<'_, str> {
        self.stored.flow().drop.map_or("", |site| site.kernel_reason.as_str()).into()
    }

    fn event_type(&self) -> Option<(i32, i32)> {
        Some((self.stored.record().event_type.into(), self.stored.flow().event_sub_type().into()))
    }

    fn is_reply(&self) -> Option<bool> {
        self.stored.record().is_reply.as_option()
    }

    fn traffic_direction(&self) -> i32 {
        self.stored.record().direction.into()
    }

    fn endpoint(&self, side: Side) -> Option<&Endpoint> {
        Some(match side {
            Side::Source => self.stored.source(),
            Side::Destination => self.stored.destination(),
        })
    }

    fn serial(&self, side: Side) -> Option<NonZeroU64> {
        Some(match side {
            Side::Source => self.stored.source_serial(),
            Side::Destination => self.stored.destination_serial(),
        })
    }

    fn service(&self, side: Side) -> Option<(&str, &str)> {
        let flow = self.stored.flow();
        let service = match side {
            Side::Source => flow.source_service,
            Side::Destination => flow.destination_service,
        };
        service.map(|service| (service.namespace.as_str(), service.name.as_str()))
    }

    fn names(&self, side: Side) -> impl Iterator<Item = &str> {
        let translated = self.stored.flow().translated;
        let names = translated.and_then(|translated| match side {
            Side::Source => translated.source_names.as_ref(),
            Side::Destination => translated.destination_names.as_ref(),
        });
        names.into_iter().flat_map(|names| names.iter()).map(|name| &**name)
    }

    fn node_name(&self) -> &str {
        self.node.name
    }

    fn node_labels(&self) -> impl Iterator<Item = &str> {
        self.node.labels.iter().map(String::as_str)
    }

    fn uuid(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&uuid_text(self.stored.sequence)).into_owned().into()
    }

    fn interface(&self) -> Option<(u32, &str)> {
        self.stored.link().map(|link| (link.index, link.name.as_str()))
    }

    fn l7(&self) -> Option<L7> {
        let l7 = self.stored.flow().l7?;
        let dns = || l7.dns().map(|_| L7::Dns);
        l7.http().map(|_| L7::Http).or_else(dns).or_else(|| l7.tls().map(|_| L7::Tls))
    }

    fn http(&self) -> Option<HttpView<'_>> {
        let http = self.stored.flow().l7?.http()?;
        Some(HttpView { code: http.code, method: &http.method, url: &http.url, headers: &http.headers })
    }

    fn dns_query(&self) -> Option<&str> {
        Some(self.stored.flow().l7?.dns()?.query.as_str())
    }

    fn trace_id(&self) -> Option<&str> {
        self.stored.flow().l7?.trace_id()
    }
}

impl EndpointView for Endpoint {
    fn serial(&self) -> Option<NonZeroU64> {
        Some(Endpoint::serial(self))
    }

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
        &self.cluster
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| &**label)
    }

    fn workloads(&self) -> impl Iterator<Item = (&str, &str)> {
        self.workloads.iter().map(|workload| (workload.kind.as_str(), workload.name.as_str()))
    }
}

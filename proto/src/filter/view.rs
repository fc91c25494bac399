//! What a filter may ask of a flow.

use crate::flow::HttpHeader;
use std::{borrow::Cow, net::IpAddr, num::NonZeroU64};

/// One of a flow's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who sent the packet.
    Source,
    /// Whom it is for.
    Destination,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the protocols say it")]
pub enum L4 {
    Tcp,
    Udp,
    IcmpV4,
    IcmpV6,
    Sctp,
    Vrrp,
    Igmp,
}

/// The application protocol of an L7 record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the protocols say it")]
pub enum L7 {
    Dns,
    Http,
    Kafka,
    /// Hubble has no record of it: what [`crate::facts::Facts`] tell.
    Tls,
}

/// An HTTP record.
#[derive(Clone, Copy, Debug)]
pub struct HttpView<'a> {
    /// Status code; 0 on a request.
    pub code: u32,
    /// Method as sent.
    pub method: &'a str,
    /// The whole URL.
    pub url: &'a str,
    /// Headers as sent.
    pub headers: &'a [HttpHeader],
}

/// Who stands behind an address.
pub trait EndpointView {
    /// A number for this endpoint as it is, never given to another one or to a changed one; none: it is looked at anew
    /// each time.
    fn serial(&self) -> Option<NonZeroU64> {
        None
    }
    /// Security identity.
    fn identity(&self) -> u32;
    /// Namespace, or empty.
    fn namespace(&self) -> &str;
    /// Pod name, or empty.
    fn pod_name(&self) -> &str;
    /// Cluster, or empty.
    fn cluster_name(&self) -> &str;
    /// Labels with their source: `k8s:app=web`.
    fn labels(&self) -> impl Iterator<Item = &str>;
    /// Workloads as (kind, name).
    fn workloads(&self) -> impl Iterator<Item = (&str, &str)>;
}

/// A flow as filters see it. Numbers are those of Hubble's messages. What has a default may be absent from a record that
/// never holds it (L7 on a record of packets, say).
pub trait FlowView {
    /// The endpoint type; [`NoEndpoint`] where there is none.
    type Endpoint: EndpointView;

    /// Address of one end; `None` for non-IP traffic.
    fn ip(&self, side: Side) -> Option<IpAddr>;
    /// The source address after, or before, translation.
    fn source_ip_xlated(&self) -> Option<IpAddr>;
    /// `flow.IPVersion`.
    fn ip_version(&self) -> i32;
    /// Whether the packet came through an encrypted tunnel.
    fn encrypted(&self) -> bool;
    /// Transport protocol.
    fn l4(&self) -> Option<L4>;
    /// Port of one end: TCP, UDP and SCTP only.
    fn port(&self, side: Side) -> Option<u16>;
    /// TCP flags, FIN in bit 0, then SYN, RST, PSH, ACK, URG, ECE, CWR, NS.
    fn tcp_flags(&self) -> Option<u16>;
    /// `flow.Verdict`.
    fn verdict(&self) -> i32;
    /// `flow.DropReason`.
    fn drop_reason_desc(&self) -> i32;
    /// The kernel's own name of a drop's reason, or empty.
    fn kernel_drop_reason(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }
    /// (type, sub type) of the event.
    fn event_type(&self) -> Option<(i32, i32)>;
    /// Hubble's `is_reply`.
    fn is_reply(&self) -> Option<bool>;
    /// `flow.TrafficDirection`.
    fn traffic_direction(&self) -> i32;
    /// The endpoint of one end.
    fn endpoint(&self, side: Side) -> Option<&Self::Endpoint>;
    /// [`EndpointView::serial`] of the endpoint of one end, which a record may know without a look at it.
    #[inline]
    fn serial(&self, side: Side) -> Option<NonZeroU64> {
        self.endpoint(side).and_then(EndpointView::serial)
    }
    /// (namespace, name) of the service of one end.
    fn service(&self, side: Side) -> Option<(&str, &str)>;
    /// DNS names of one end.
    fn names(&self, side: Side) -> impl Iterator<Item = &str>;
    /// The node, as `cluster/node` or `node`.
    fn node_name(&self) -> &str;
    /// Labels of the node, `key=value`.
    fn node_labels(&self) -> impl Iterator<Item = &str>;
    /// The flow's uuid as text.
    fn uuid(&self) -> Cow<'_, str>;
    /// (index, name) of the network interface.
    fn interface(&self) -> Option<(u32, &str)>;

    /// Application protocol.
    fn l7(&self) -> Option<L7> {
        None
    }
    /// The HTTP record.
    fn http(&self) -> Option<HttpView<'_>> {
        None
    }
    /// The name asked for in a DNS record.
    fn dns_query(&self) -> Option<&str> {
        None
    }
    /// The trace id of a traced request.
    fn trace_id(&self) -> Option<&str> {
        None
    }
    /// The trace id in the IP options, 0 = none.
    fn ip_trace_id(&self) -> u64 {
        0
    }
}

/// For records without endpoints.
#[derive(Clone, Copy, Debug)]
pub enum NoEndpoint {}

impl EndpointView for NoEndpoint {
    fn identity(&self) -> u32 {
        match *self {}
    }
    fn namespace(&self) -> &str {
        match *self {}
    }
    fn pod_name(&self) -> &str {
        match *self {}
    }
    fn cluster_name(&self) -> &str {
        match *self {}
    }
    fn labels(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    fn workloads(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::empty()
    }
}

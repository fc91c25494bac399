//! What filters may ask of a stored flow, in the terms of Hubble's messages.

use super::encode::{NodeInfo, uuid_text};
use crate::{
    endpoint::{Endpoint, Service},
    flow::{Flow, Notes},
};
use std::{borrow::Cow, net::IpAddr};

/// One of a flow's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who sent the packet.
    Source,
    /// Whom it is for.
    Destination,
}

/// A stored flow with what it takes from its place in the store and from the node.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// The record.
    pub flow: &'a Flow,
    /// The node that saw it.
    pub node: &'a NodeView,
}

/// What flows take from the node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// `cluster/node`.
    pub name: String,
    /// `key=value`.
    pub labels: Vec<String>,
}

impl From<&NodeInfo> for NodeView {
    fn from(node: &NodeInfo) -> Self {
        Self { name: node.full_name(), labels: node.labels.clone() }
    }
}

impl View<'_> {
    /// Address of one end; `None` for non-IP traffic.
    pub fn ip(&self, side: Side) -> Option<IpAddr> {
        match side {
            Side::Source => self.flow.source_ip,
            Side::Destination => self.flow.destination_ip,
        }
    }

    /// The source address after, or before, translation.
    pub fn source_ip_xlated(&self) -> Option<IpAddr> {
        self.flow.source_xlated
    }

    /// `flow.IPVersion`.
    pub fn ip_version(&self) -> i32 {
        match self.flow.ip_version {
            4 => 1,
            6 => 2,
            _ => 0,
        }
    }

    /// IANA protocol number; 0 = none.
    pub fn protocol(&self) -> u8 {
        self.flow.protocol
    }

    /// Port of one end: TCP, UDP and SCTP only, and not of later fragments.
    pub fn port(&self, side: Side) -> Option<u16> {
        let has_ports = matches!(self.flow.protocol, 6 | 17 | 132) && !self.flow.notes.has(Notes::FRAGMENT);
        has_ports.then_some(match side {
            Side::Source => self.flow.source_port,
            Side::Destination => self.flow.destination_port,
        })
    }

    /// TCP flags, FIN in bit 0, then SYN, RST, PSH, ACK, URG, ECE, CWR, NS.
    pub fn tcp_flags(&self) -> Option<u16> {
        (self.flow.protocol == 6 && !self.flow.notes.has(Notes::FRAGMENT)).then_some(self.flow.tcp_flags)
    }

    /// `flow.Verdict`.
    pub fn verdict(&self) -> i32 {
        self.flow.verdict.into()
    }

    /// `flow.DropReason`; 0 if it is no drop.
    pub fn drop_reason_desc(&self) -> i32 {
        if self.flow.event_type == 1 { self.flow.sub_type.into() } else { 0 }
    }

    /// (type, sub type) of the event.
    pub fn event_type(&self) -> (i32, i32) {
        (self.flow.event_type.into(), self.flow.sub_type.into())
    }

    /// Hubble's `is_reply`.
    pub fn is_reply(&self) -> Option<bool> {
        self.flow.is_reply.as_option()
    }

    /// `flow.TrafficDirection`.
    pub fn traffic_direction(&self) -> i32 {
        self.flow.direction.into()
    }

    /// The endpoint of one end.
    pub fn endpoint(&self, side: Side) -> &Endpoint {
        match side {
            Side::Source => &self.flow.source,
            Side::Destination => &self.flow.destination,
        }
    }

    /// The service of one end.
    pub fn service(&self, side: Side) -> Option<&Service> {
        match side {
            Side::Source => self.flow.source_service.as_deref(),
            Side::Destination => self.flow.destination_service.as_deref(),
        }
    }

    /// The node, as `cluster/node`.
    pub fn node_name(&self) -> &str {
        &self.node.name
    }

    /// Labels of the node, `key=value`.
    pub fn node_labels(&self) -> &[String] {
        &self.node.labels
    }

    /// The flow's uuid as text.
    pub fn uuid(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&uuid_text(self.flow.uuid_high, self.sequence)).into_owned().into()
    }

    /// (index, name) of the network interface.
    pub fn interface(&self) -> Option<(u32, &str)> {
        self.flow.link.as_ref().map(|link| (link.index, link.name.as_str()))
    }
}

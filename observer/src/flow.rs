//! The compact flow: what `enrich` fills and the store keeps. Fixed in size, never a protobuf tree.

#[cfg(test)]
pub(crate) mod any;

use crate::{
    endpoint::{Endpoint, Service},
    layer7::Layer7,
    policy_verdict::PolicyVerdict,
};
use observer_proto::flow::{DropReason, TraceObservationPoint, Verdict};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, net::IpAddr, ops::Deref, sync::Arc};

/// A value that may be unknown, in one byte: Hubble's `is_reply` is unset, false or true, and clients tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Tristate {
    /// Not known: no `is_reply` on the wire.
    #[default]
    Unset,
    /// `false`.
    No,
    /// `true`.
    Yes,
}

impl Tristate {
    /// The wire's form.
    pub fn as_option(self) -> Option<bool> {
        match self {
            Self::Unset => None,
            Self::No => Some(false),
            Self::Yes => Some(true),
        }
    }
}

/// What a flow tells by itself: plain data.
///
/// Numbers are Hubble's own (`proto/flow/flow.proto`) where it has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Unix time in nanoseconds.
    pub time_ns: i64,
    /// Source address as the client should see it.
    pub source_ip: Option<IpAddr>,
    /// Destination address: the backend's, where a service address was translated.
    pub destination_ip: Option<IpAddr>,
    /// Source port; for TCP, UDP, SCTP only.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IANA protocol number, 0 = not IP.
    pub protocol: u8,
    /// 4, 6, or 0.
    pub ip_version: u8,
    /// By the protocol: see [`Record::tcp_flags`], [`Record::icmp`].
    pub flags_or_type: u16,
    /// Hubble's event type: 1 drop, 4 trace, 5 policy verdict, 129 L7.
    pub event_type: u8,
    /// `flow.Verdict`.
    pub verdict: u8,
    /// `flow.TrafficDirection`.
    pub direction: u8,
    /// `flow.TraceObservationPoint`.
    pub observation_point: u8,
    /// `flow.TraceReason`; of a drop only where policies denied it.
    pub trace_reason: u8,
    /// Hubble's `is_reply`.
    pub is_reply: Tristate,
    /// Source MAC; both are zero where they are not known.
    pub source_mac: [u8; 6],
    /// Destination MAC.
    pub destination_mac: [u8; 6],
    /// Packets so far in this direction (flow), or that this record stands for (drop).
    pub packets: u64,
    /// Bytes likewise.
    pub bytes: u64,
    /// Unix time in nanoseconds when the connection, or the first such drop, was seen.
    pub first_ns: i64,
    /// TCP retransmits of the connection so far, up to `u16::MAX`.
    pub retransmits: u16,
    /// TCP resets of the connection so far, both ways, up to `u16::MAX`.
    pub resets: u16,
    /// Facts shown in `extensions`.
    pub notes: Notes,
}

impl Record {
    /// Hubble's event type of a drop.
    pub const DROP_EVENT: u8 = 1;
    /// Of a packet on its way.
    pub const TRACE_EVENT: u8 = 4;
    /// Of a verdict by policies.
    pub const POLICY_EVENT: u8 = 5;
    /// Of what was said inside a connection.
    pub const L7_EVENT: u8 = 129;

    /// Whether this is a drop.
    pub fn is_drop(&self) -> bool {
        self.event_type == Self::DROP_EVENT
    }

    /// Whether this is a verdict by policies; its connection's packets are told by other flows.
    pub fn is_policy_verdict(&self) -> bool {
        self.event_type == Self::POLICY_EVENT
    }

    /// Whether this is what was said inside a connection; its packets are told by other flows.
    pub fn is_l7(&self) -> bool {
        self.event_type == Self::L7_EVENT
    }

    /// Of TCP the packet's flags, FIN in bit 0 up to NS in bit 8.
    pub fn tcp_flags(&self) -> u16 {
        self.flags_or_type
    }

    /// Type and code of ICMP; of IGMP the type.
    pub fn icmp(&self) -> (u8, u8) {
        self.flags_or_type.to_be_bytes().into()
    }

    /// Whether the MAC addresses are known. No frame on a watched link has two of zeros.
    pub fn has_macs(&self) -> bool {
        (self.source_mac, self.destination_mac) != ([0; 6], [0; 6])
    }
}

/// One flow: its record, and what it has in common with many others.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// What it tells by itself.
    pub record: &'a Record,
    /// Who sent it.
    pub source: &'a Arc<Endpoint>,
    /// Who it is for.
    pub destination: &'a Arc<Endpoint>,
    /// The service that the source address and port belong to.
    pub source_service: Option<&'a Arc<Service>>,
    /// The service that the client called.
    pub destination_service: Option<&'a Arc<Service>>,
    /// The interface it was seen on.
    pub link: Option<&'a Arc<Link>>,
    /// What is around the packet, where it was carried inside another.
    pub tunnel: Option<&'a Arc<Tunnel>>,
    /// Why and where it was dropped.
    pub drop: Option<&'a Arc<DropSite>>,
    /// What policies say of it: of a policy verdict, and of a drop why they deny it.
    pub policy: Option<&'a Arc<PolicyVerdict>>,
    /// Addresses that the packet carried or was sent to, where they were translated.
    pub translated: Option<&'a Arc<Translated>>,
    /// What was said, where it is that.
    pub l7: Option<&'a Arc<Layer7>>,
}

impl Deref for Flow<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record
    }
}

impl<'a> Flow<'a> {
    /// `flow.DropReason` of a drop, and of a verdict that denies; else 0 (unknown).
    pub fn drop_reason(&self) -> u16 {
        const DROPPED: u8 = Verdict::Dropped as u8;
        match (self.event_type, self.drop, self.policy) {
            (Record::DROP_EVENT, Some(site), _) => site.hubble_reason,
            // A rule that denies names the connection somehow.
            (Record::POLICY_EVENT, _, Some(policy)) if self.verdict == DROPPED => {
                let by_rule = policy.told().match_type != 0;
                (if by_rule { DropReason::PolicyDeny } else { DropReason::PolicyDenied }) as u16
            }
            _ => 0,
        }
    }

    /// The source before masquerading or after it (Hubble's `source_xlated`), where it differs.
    pub fn source_xlated(&self) -> Option<IpAddr> {
        self.translated?.source
    }

    /// The service address and port that the client really called, where it was translated.
    pub fn frontend(&self) -> Option<(IpAddr, u16)> {
        self.translated?.frontend
    }

    /// By which the destination found the source in DNS, if it did.
    pub fn source_names(&self) -> &'a [Box<str>] {
        self.translated.and_then(|translated| translated.source_names.as_deref()).unwrap_or_default()
    }

    /// By which the source found the destination.
    pub fn destination_names(&self) -> &'a [Box<str>] {
        self.translated.and_then(|translated| translated.destination_names.as_deref()).unwrap_or_default()
    }

    /// Hubble's sub type: of a drop the lower byte of its reason, as Cilium's events have it; of a trace the number of its
    /// point, but for `TO_ENDPOINT`, which is 101 in the API and 0 here.
    pub fn event_sub_type(&self) -> u8 {
        const TO_ENDPOINT: u8 = TraceObservationPoint::ToEndpoint as u8;
        match self.observation_point {
            _ if self.is_drop() => self.drop_reason() as u8,
            TO_ENDPOINT => 0,
            point => point,
        }
    }
}

/// Addresses around a translation, and names that stand for addresses. A node has few, so flows share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Translated {
    /// See [`Flow::source_xlated`].
    pub source: Option<IpAddr>,
    /// See [`Flow::frontend`].
    pub frontend: Option<(IpAddr, u16)>,
    /// By which the destination found the source in DNS, if it did.
    pub source_names: Option<DnsNames>,
    /// By which the source found the destination.
    pub destination_names: Option<DnsNames>,
}

/// Names without the dot at their end.
pub type DnsNames = Arc<[Box<str>]>;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Its index in the node's namespace.
    pub index: u32,
    /// Its name when the flow was seen.
    pub name: String,
    /// What stands behind it.
    pub kind: LinkKind,
}

/// What stands behind a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkKind {
    /// A pod, or any other network namespace at the far end of a veth.
    Pod,
    /// The outside network.
    Uplink,
    /// Other nodes, through an overlay.
    Tunnel,
    /// Seen by the drop program only: loopback, a bridge, an interface inside a pod.
    Other,
}

/// How a packet is carried inside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan,
    /// Geneve.
    Geneve,
    /// GRE.
    Gre,
    /// IPv4 or IPv6 inside either of them.
    IpInIp,
    /// Not known any more: too many other tunneled connections came after this one.
    Forgotten,
}

/// The headers around a packet that was carried inside another; of several, the outermost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// How it is carried.
    pub kind: TunnelKind,
    /// IANA protocol number of the outer packet.
    pub protocol: u8,
    /// Source and destination of the outer packet, with their ports; nothing where they are forgotten.
    pub ends: Option<((IpAddr, u16), (IpAddr, u16))>,
    /// Network identifier of VXLAN and Geneve, key of GRE, else 0.
    pub vni: u32,
}

/// Why and where the kernel dropped a packet; one for each (reason, location), shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DropSite {
    /// The kernel's own name, from its BTF: `NETFILTER_DROP`; `reason 131` where BTF has no name for the number. Empty
    /// where policies denied it and our own programs dropped it.
    pub kernel_reason: String,
    /// The nearest `flow.DropReason`, for clients that know only Hubble's.
    pub hubble_reason: u16,
    /// `symbol+0xoffset`, or why there is none.
    pub location: Result<String, Cow<'static, str>>,
}

impl DropSite {
    /// Whether our own programs dropped it, since policies deny it.
    pub fn is_by_policies(&self) -> bool {
        self.kernel_reason.is_empty()
    }

    /// The kernel's own name of the reason, or Hubble's where policies are the reason.
    pub fn reason(&self) -> &str {
        if !self.is_by_policies() {
            return &self.kernel_reason;
        }
        DropReason::try_from(i32::from(self.hubble_reason)).map_or("", |reason| reason.as_str_name())
    }
}

/// Facts about a flow that Hubble has no field for, as bits; printed by name in `extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes(pub u16);

impl Notes {
    /// Who opened the connection is a guess.
    pub const OPENER_GUESSED: Self = Self(1 << 0);
    /// A later fragment: no ports of its own.
    pub const FRAGMENT: Self = Self(1 << 1);
    /// The connection never got an answer and was given up.
    pub const CONNECT_FAILED: Self = Self(1 << 2);
    /// The sum of further drops like an earlier one.
    pub const SUM: Self = Self(1 << 3);
    /// The connection is over, or fell silent; these are its last totals.
    pub const FINAL: Self = Self(1 << 4);
    /// The connection was met in its middle: it is older than the watch of its link, or its entry was evicted from the
    /// full flow table. Packets, bytes and the like count from `first_ns` on.
    pub const PARTIAL: Self = Self(1 << 5);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the bits of `other`.
    pub fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A flow that has its parts to itself, for tests.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) record: Record,
    pub(crate) source: Arc<Endpoint>,
    pub(crate) destination: Arc<Endpoint>,
    pub(crate) source_service: Option<Arc<Service>>,
    pub(crate) destination_service: Option<Arc<Service>>,
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) tunnel: Option<Arc<Tunnel>>,
    pub(crate) drop: Option<Arc<DropSite>>,
    pub(crate) policy: Option<Arc<PolicyVerdict>>,
    pub(crate) translated: Option<Arc<Translated>>,
    pub(crate) l7: Option<Arc<Layer7>>,
}

#[cfg(any(test, fuzzing))]
impl Sample {
    /// As the stages have it.
    pub(crate) fn flow(&self) -> Flow<'_> {
        Flow {
            record: &self.record,
            source: &self.source,
            destination: &self.destination,
            source_service: self.source_service.as_ref(),
            destination_service: self.destination_service.as_ref(),
            link: self.link.as_ref(),
            tunnel: self.tunnel.as_ref(),
            drop: self.drop.as_ref(),
            policy: self.policy.as_ref(),
            translated: self.translated.as_ref(),
            l7: self.l7.as_ref(),
        }
    }
}

#[cfg(any(test, fuzzing))]
impl From<Record> for Sample {
    fn from(record: Record) -> Self {
        Self { record, ..Self::default() }
    }
}

//! What Observer tells of a flow beyond Hubble's fields, from `extensions`. Other servers tell none of it.

use crate::flow::Flow;
use prost::Message as _;
use prost_types::{Struct, value::Kind};

/// Beginnings of netfilter's functions.
const NETFILTER: [&str; 4] = ["nf_", "nft_", "ipt_", "ip6t_"];

/// Texts are as they were sent: escape them before they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether there are any: a zero is a zero only where this is true.
    pub known: bool,
    /// The kernel's own name of a drop's reason.
    pub kernel_reason: String,
    /// `symbol+0xoffset`.
    pub kernel_location: String,
    /// So far in this direction of the connection; of a drop, what the record stands for.
    pub packets: u64,
    /// Likewise.
    pub bytes: u64,
    /// Segments of the connection sent again so far.
    pub retransmits: u64,
    /// Resets of the connection so far, both ways.
    pub resets: u64,
    /// Nobody answered.
    pub connect_failed: bool,
    /// `ip:port` of the service address that the client called.
    pub frontend: String,
    /// RFC 3339: since when packets and bytes are counted.
    pub first_seen: String,
    /// Of a hello of TLS: `TLS 1.3`.
    pub tls_version: String,
    /// Whom the client asked for.
    pub tls_server_name: String,
    /// Why the server did not go on.
    pub tls_alert: String,
}

impl Facts {
    /// Whatever stands there: what is no fact is none.
    pub fn of(flow: &Flow) -> Self {
        let Some(mut fields) = flow
            .extensions
            .as_ref()
            .filter(|any| any.type_url.ends_with("/google.protobuf.Struct"))
            .and_then(|any| Struct::decode(any.value.as_slice()).ok())
            .map(|extensions| extensions.fields)
        else {
            return Self::default();
        };
        let mut value = |key| fields.remove(key).and_then(|value| value.kind);
        let mut text =
            |key| if let Some(Kind::StringValue(text)) = value(key) { text } else { String::new() };
        let [kernel_reason, kernel_location, frontend, first_seen] =
            ["kernel_drop_reason", "kernel_location", "frontend", "first_seen"].map(&mut text);
        let [tls_version, tls_server_name, tls_alert] =
            ["tls_version", "tls_server_name", "tls_alert"].map(&mut text);
        let mut number =
            |key| if let Some(Kind::NumberValue(number)) = value(key) { number as u64 } else { 0 };
        let [packets, bytes, retransmits, resets] =
            ["packets", "bytes", "retransmits", "resets"].map(&mut number);
        Self {
            // Every record of Observer's stands for a packet at least.
            known: packets > 0,
            connect_failed: matches!(value("connect_failed"), Some(Kind::BoolValue(true))),
            kernel_reason,
            kernel_location,
            packets,
            bytes,
            retransmits,
            resets,
            frontend,
            first_seen,
            tls_version,
            tls_server_name,
            tls_alert,
        }
    }

    /// Whether the flow tells how TLS began.
    pub fn is_of_tls(&self) -> bool {
        !self.tls_version.is_empty() || !self.tls_alert.is_empty()
    }

    /// Whether a packet was dropped by a rule of nftables or iptables.
    pub fn is_by_firewall(&self) -> bool {
        self.kernel_reason == "NETFILTER_DROP"
            || self.is_place_alone() && NETFILTER.iter().any(|name| self.kernel_location.starts_with(name))
    }

    /// Whether only the place tells why a packet was dropped: the kernel gave no reason, or tells none.
    pub fn is_place_alone(&self) -> bool {
        // Before Linux 5.17, and of a number that has no name: words.
        matches!(self.kernel_reason.as_str(), "" | "NOT_SPECIFIED") || self.kernel_reason.contains(' ')
    }

    /// The function in which a packet was dropped: the offset is for who reads the kernel's code.
    pub fn kernel_function(&self) -> &str {
        self.kernel_location.split('+').next().unwrap_or_default()
    }
}

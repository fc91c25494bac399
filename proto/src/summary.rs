//! A flow's Summary from plain packet numbers, in Hubble's words.

use crate::{
    flow::{Dns, Http, L7FlowType, Layer7, layer7::Record},
    names,
};
use std::fmt::{Result, Write};

/// TCP flags in the order and with the names of Hubble's Summary. The bits are those of the TCP header; NS is the
/// lowest bit of the header's byte before (0x100 here).
const TCP_FLAGS: [(u16, &str); 9] = [
    (0x02, "SYN"),
    (0x10, "ACK"),
    (0x04, "RST"),
    (0x01, "FIN"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
    (0x100, "NS"),
];

/// What the Summary of one packet is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// The flags of the TCP header, NS as 0x100.
    Tcp(u16),
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp,
    /// ICMP over IPv4: type and code.
    IcmpV4(u8, u8),
    /// ICMP over IPv6: type and code.
    IcmpV6(u8, u8),
    /// The type of an IGMP message.
    Igmp(u8),
    /// IPv4 with a protocol that none of the others is, or of which only a later fragment was seen.
    IpV4,
    /// IPv6, likewise.
    IpV6,
    /// Not IP.
    Ethernet,
}

/// IP protocol numbers (IANA) that have a Summary of their own.
mod protocol {
    pub(super) const ICMP: u8 = 1;
    pub(super) const IGMP: u8 = 2;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMP_V6: u8 = 58;
    pub(super) const SCTP: u8 = 132;
}

impl Packet {
    /// From the numbers of a packet: IP version (4, 6, else no IP), IP protocol, TCP flags, ICMP type and code
    /// (IGMP's type stands in `icmp_type`). What a protocol does not have is ignored.
    pub fn from_numbers(
        ip_version: u8,
        ip_protocol: u8,
        tcp_flags: u16,
        icmp_type: u8,
        icmp_code: u8,
    ) -> Self {
        match (ip_version, ip_protocol) {
            (4 | 6, protocol::TCP) => Self::Tcp(tcp_flags),
            (4 | 6, protocol::UDP) => Self::Udp,
            (4 | 6, protocol::SCTP) => Self::Sctp,
            (4, protocol::ICMP) => Self::IcmpV4(icmp_type, icmp_code),
            (6, protocol::ICMP_V6) => Self::IcmpV6(icmp_type, icmp_code),
            (4, protocol::IGMP) => Self::Igmp(icmp_type),
            (4, _) => Self::IpV4,
            (6, _) => Self::IpV6,
            _ => Self::Ethernet,
        }
    }
}

/// Writes the Summary of a packet.
pub fn write(packet: Packet, out: &mut impl Write) -> Result {
    match packet {
        Packet::Tcp(flags) => tcp_flags(flags, out),
        Packet::Udp => out.write_str("UDP"),
        Packet::Sctp => out.write_str("SCTP"),
        Packet::IcmpV4(icmp_type, code) => {
            icmp("ICMPv4 ", names::icmp_v4(icmp_type, code), icmp_type, code, out)
        }
        Packet::IcmpV6(icmp_type, code) => {
            icmp("ICMPv6 ", names::icmp_v6(icmp_type, code), icmp_type, code, out)
        }
        Packet::Igmp(igmp_type) => write!(out, "IGMP {}", igmp_name(igmp_type)),
        Packet::IpV4 => out.write_str("IPv4"),
        Packet::IpV6 => out.write_str("IPv6"),
        Packet::Ethernet => out.write_str("Ethernet"),
    }
}

/// Writes `TCP Flags: SYN, ACK`; the flags as in [`Packet::Tcp`].
pub fn tcp_flags(flags: u16, out: &mut impl Write) -> Result {
    out.write_str("TCP Flags: ")?;
    let mut first = true;
    for (bit, name) in TCP_FLAGS {
        if flags & bit != 0 {
            if !first {
                out.write_str(", ")?;
            }
            out.write_str(name)?;
            first = false;
        }
    }
    Ok(())
}

/// A type without codes prints no code unless it has one all the same; an unknown type prints both numbers.
fn icmp(
    prefix: &str,
    name: Option<(&'static str, Option<&'static str>)>,
    icmp_type: u8,
    code: u8,
    out: &mut impl Write,
) -> Result {
    out.write_str(prefix)?;
    match name {
        None => write!(out, "{icmp_type}({code})"),
        Some((name, Some(code_name))) => write!(out, "{name}({code_name})"),
        Some((name, None)) if code == 0 => out.write_str(name),
        Some((name, None)) => write!(out, "{name}(Code: {code})"),
    }
}

/// RFC 1112, 2236 and 3376.
fn igmp_name(igmp_type: u8) -> &'static str {
    match igmp_type {
        0x11 => "IGMP Membership Query",
        0x12 => "IGMPv1 Membership Report",
        0x16 => "IGMPv2 Membership Report",
        0x17 => "Leave Group",
        0x22 => "IGMPv3 Membership Report",
        _ => "Unknown",
    }
}

/// Writes the Summary of a request or response: `HTTP/1.1 GET http://shop/`, `DNS Query shop. A`.
pub fn write_l7(l7: &Layer7, out: &mut impl Write) -> Result {
    let is_response = l7.r#type == L7FlowType::Response as i32;
    match &l7.record {
        Some(Record::Http(http)) if is_response => {
            let Http { protocol, code, method, url, .. } = http;
            write!(out, "{protocol} {code} {}ms ({method} {url})", l7.latency_ns / 1_000_000)
        }
        Some(Record::Http(Http { protocol, method, url, .. })) => write!(out, "{protocol} {method} {url}"),
        Some(Record::Dns(dns)) => write_dns(dns, is_response, out),
        _ => Ok(()),
    }
}

fn write_dns(dns: &Dns, is_response: bool, out: &mut impl Write) -> Result {
    let types = dns.qtypes.join(",");
    if !is_response {
        return write!(out, "DNS Query {} {types}", dns.query);
    }
    let by = if dns.observation_source == "proxy" { "Proxy" } else { "Query" };
    out.write_str("DNS Answer ")?;
    if dns.rcode == 0 {
        if !dns.ips.is_empty() {
            write!(out, "\"{}\" ", dns.ips.join(","))?;
        }
        if !dns.cnames.is_empty() {
            write!(out, "CNAMEs: \"{}\" ", dns.cnames.join(","))?;
        }
    } else {
        write!(out, "RCode: {} ", dns_rcode(dns.rcode))?;
    }
    write!(out, "TTL: {} ({by} {} {types})", dns.ttl, dns.query)
}

/// RFC 6895.
fn dns_rcode(rcode: u32) -> &'static str {
    match rcode {
        0 => "No Error",
        1 => "Format Error",
        2 => "Server Failure",
        3 => "Non-Existent Domain",
        4 => "Not Implemented",
        5 => "Query Refused",
        6 => "Name Exists when it should not",
        7 => "RR Set Exists when it should not",
        8 => "RR Set that should exist does not",
        9 => "Server Not Authoritative for zone",
        10 => "Name not contained in zone",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_what_was_said() {
        let http = |code| {
            let (method, url, protocol) = ("GET".into(), "http://h/p".into(), "HTTP/1.1".into());
            Record::Http(Http { code, method, url, protocol, headers: Vec::new() })
        };
        let dns = |rcode, ips: &[&str], cnames: &[&str], source: &str| {
            Record::Dns(Dns {
                query: "example.com.".into(),
                ips: ips.iter().map(ToString::to_string).collect(),
                ttl: 30,
                cnames: cnames.iter().map(ToString::to_string).collect(),
                observation_source: source.into(),
                rcode,
                qtypes: vec!["A".into()],
                rrtypes: Vec::new(),
            })
        };
        let (request, response) = (L7FlowType::Request, L7FlowType::Response);
        for (kind, record, expected) in [
            (request, http(0), "HTTP/1.1 GET http://h/p"),
            (response, http(200), "HTTP/1.1 200 4ms (GET http://h/p)"),
            (request, dns(0, &[], &[], "proxy"), "DNS Query example.com. A"),
            (
                response,
                dns(0, &["1.1.1.1", "1.0.0.1"], &["c."], "proxy"),
                "DNS Answer \"1.1.1.1,1.0.0.1\" CNAMEs: \"c.\" TTL: 30 (Proxy example.com. A)",
            ),
            (response, dns(0, &[], &[], "observer"), "DNS Answer TTL: 30 (Query example.com. A)"),
            (
                response,
                dns(3, &[], &[], "observer"),
                "DNS Answer RCode: Non-Existent Domain TTL: 30 (Query example.com. A)",
            ),
        ] {
            let mut text = String::new();
            let l7 = Layer7 { r#type: kind.into(), latency_ns: 4_900_000, record: Some(record) };
            write_l7(&l7, &mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn summaries() {
        let table = [
            ((4, 6, 0x02, 0, 0), "TCP Flags: SYN"),
            ((4, 6, 0x12, 0, 0), "TCP Flags: SYN, ACK"),
            ((6, 6, 0x18, 0, 0), "TCP Flags: ACK, PSH"),
            ((4, 6, 0x1ff, 0, 0), "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR, NS"),
            ((4, 6, 0, 0, 0), "TCP Flags: "),
            ((6, 17, 0x02, 0, 0), "UDP"),
            ((4, 132, 0, 0, 0), "SCTP"),
            ((4, 1, 0, 8, 0), "ICMPv4 EchoRequest"),
            ((4, 1, 0, 8, 3), "ICMPv4 EchoRequest(Code: 3)"),
            ((4, 1, 0, 3, 3), "ICMPv4 DestinationUnreachable(Port)"),
            ((4, 1, 0, 5, 9), "ICMPv4 Redirect(Code: 9)"),
            ((4, 1, 0, 77, 0), "ICMPv4 77(0)"),
            ((6, 58, 0, 135, 0), "ICMPv6 NeighborSolicitation"),
            ((6, 58, 0, 1, 4), "ICMPv6 DestinationUnreachable(PortUnreachable)"),
            ((6, 58, 0, 200, 7), "ICMPv6 200(7)"),
            ((4, 2, 0, 0x16, 0), "IGMP IGMPv2 Membership Report"),
            ((4, 58, 0, 135, 0), "IPv4"),
            ((6, 1, 0, 8, 0), "IPv6"),
            ((4, 47, 0, 0, 0), "IPv4"),
            ((0, 6, 0x02, 0, 0), "Ethernet"),
        ];
        for ((version, protocol, flags, icmp_type, code), expected) in table {
            let mut text = String::new();
            write(Packet::from_numbers(version, protocol, flags, icmp_type, code), &mut text).unwrap();
            assert_eq!(text, expected);
        }
    }
}

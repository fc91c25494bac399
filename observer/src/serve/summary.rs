//! The Summary of a packet in Hubble's words.

use crate::flow::{Flow, Notes};
use std::io::Write as _;

/// Hubble's order, which is not that of the bits.
const TCP_FLAGS: [(u16, &str); 9] = [
    (1 << 1, "SYN"),
    (1 << 4, "ACK"),
    (1 << 2, "RST"),
    (1 << 0, "FIN"),
    (1 << 3, "PSH"),
    (1 << 5, "URG"),
    (1 << 6, "ECE"),
    (1 << 7, "CWR"),
    (1 << 8, "NS"),
];

/// Appends the Summary; a later fragment is bare IP.
pub(super) fn packet(out: &mut Vec<u8>, flow: &Flow) {
    let protocol = if flow.notes.has(Notes::FRAGMENT) { 0 } else { flow.protocol };
    let (kind, code) = (flow.icmp_type, flow.icmp_code);
    match (flow.ip_version, protocol) {
        (4 | 6, 6) => {
            out.extend_from_slice(b"TCP Flags: ");
            let mut separator = "";
            for (bit, name) in TCP_FLAGS {
                if flow.tcp_flags & bit != 0 {
                    out.extend_from_slice(separator.as_bytes());
                    out.extend_from_slice(name.as_bytes());
                    separator = ", ";
                }
            }
        }
        (4 | 6, 17) => out.extend_from_slice(b"UDP"),
        (4 | 6, 132) => out.extend_from_slice(b"SCTP"),
        // Writing to a Vec can't fail.
        (4, 1) => drop(write!(out, "ICMPv4 {kind}({code})")),
        (6, 58) => drop(write!(out, "ICMPv6 {kind}({code})")),
        (4, _) => out.extend_from_slice(b"IPv4"),
        (6, _) => out.extend_from_slice(b"IPv6"),
        _ => out.extend_from_slice(b"Ethernet"),
    }
}

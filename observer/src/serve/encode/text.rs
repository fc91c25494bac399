//! Texts of a flow. The formatter of the standard library takes several times as long.

use super::super::wire::first_bytes;
use crate::{
    flow::{Flow, Notes},
    layer7::Layer7,
};
use observer_proto::summary::{self, Packet};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
};

const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Digits of an octet, and how many there are.
const OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([0; 3], 0); 256];
    let mut octet = 0;
    while octet < octets.len() {
        let [hundreds, tens, ones] = [octet / 100, octet / 10 % 10, octet % 10];
        let [hundreds, tens, ones] = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        octets[octet] = match octet {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        octet += 1;
    }
    octets
};

/// Of this life of the daemon, so that ids of two lives never meet; of all lives with the same history, where it has one,
/// since in these no two flows have the same number.
static LIFE: OnceLock<u64> = OnceLock::new();

/// Before the first flow is encoded: the flows have the ids of this history.
pub(in crate::serve) fn begin_life(life: u64) {
    // Of two in a process, which only tests have, each id is of one flow all the same.
    let _ = LIFE.set(life);
}

/// The uuid of a flow by its sequence number: RFC 9562 version 4 in form, unique by the number in its second half.
pub(in crate::serve) fn uuid(sequence: u64) -> [u8; 36] {
    let life = *LIFE.get_or_init(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let high = hex((life ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & !0xf000 | 0x4000);
    let low = hex(sequence & (u64::MAX >> 2) | 1 << 63);
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&high[..8]);
    text[9..13].copy_from_slice(&high[8..12]);
    text[14..18].copy_from_slice(&high[12..]);
    text[19..23].copy_from_slice(&low[..4]);
    text[24..].copy_from_slice(&low[4..]);
    text
}

/// Sixteen digits, all made at once: each in a byte of its own.
fn hex(number: u64) -> [u8; 16] {
    const ONES: u128 = u128::MAX / 0xff;
    let mut digits = u128::from(number);
    for bits in [32, 16, 8, 4] {
        digits = (digits | digits << bits) & (u128::MAX / ((1_u128 << bits) + 1));
    }
    let is_letter = (digits + 6 * ONES) >> 4 & ONES;
    let to_letter = u128::from(b'a' - 10 - b'0');
    (digits + u128::from(b'0') * ONES + is_letter * to_letter).to_be_bytes()
}

pub(super) fn mac(mac: [u8; 6]) -> [u8; 17] {
    let mut text = [b':'; 17];
    for (place, byte) in text.chunks_mut(3).zip(mac) {
        place[..2].copy_from_slice(&HEX[usize::from(byte)]);
    }
    text
}

#[inline]
pub(super) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => v4(out, ip),
        IpAddr::V6(ip) => v6(out, ip),
    }
}

/// `10.0.0.1:80`, `[fd00::1]:80`.
pub(super) fn socket(out: &mut Vec<u8>, ip: IpAddr, port: u16) {
    match ip {
        IpAddr::V4(ip) => v4(out, ip),
        IpAddr::V6(ip) => {
            out.push(b'[');
            v6(out, ip);
            out.push(b']');
        }
    }
    out.push(b':');
    observer_proto::json::unsigned(port.into(), out);
}

fn v4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    // One byte of room, so that three digits can always be copied.
    let (mut text, mut len) = ([0; 17], 0);
    for octet in ip.octets() {
        let (digits, count) = OCTETS[usize::from(octet)];
        text[len..len + 3].copy_from_slice(&digits);
        len += usize::from(count);
        text[len] = b'.';
        len += 1;
    }
    first_bytes(out, text, len - 1);
}

/// RFC 5952: the longest run of zero groups, the first of equal ones, becomes `::`; one alone stays.
fn v6(out: &mut Vec<u8>, ip: Ipv6Addr) {
    if let Some(ip) = ip.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return v4(out, ip);
    }
    let groups = ip.segments();
    let (mut gap, mut run) = (0..0, 0..0);
    for (at, group) in groups.into_iter().enumerate() {
        run = if group == 0 { run.start..at + 1 } else { at + 1..at + 1 };
        if run.len() > gap.len() {
            gap = run.clone();
        }
    }
    if gap.len() < 2 {
        gap = groups.len()..groups.len();
    }
    hex_groups(out, &groups[..gap.start]);
    if !gap.is_empty() {
        out.extend_from_slice(b"::");
        hex_groups(out, &groups[gap.end..]);
    }
}

fn hex_groups(out: &mut Vec<u8>, groups: &[u16]) {
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        let [high, low] = group.to_be_bytes().map(|byte| HEX[usize::from(byte)]);
        let digits = [high[0], high[1], low[0], low[1]];
        let zeros = group.leading_zeros() as usize / 4;
        out.extend_from_slice(&digits[zeros.min(3)..]);
    }
}

/// The summary of the packet alone: `TCP Flags: SYN`; a later fragment is bare IP.
pub(super) fn packet_summary(out: &mut Vec<u8>, flow: &Flow<'_>) {
    let protocol = if flow.notes.has(Notes::FRAGMENT) { 0 } else { flow.protocol };
    let (icmp_type, code) = flow.icmp();
    let packet = Packet::from_numbers(flow.ip_version, protocol, flow.tcp_flags(), icmp_type, code);
    // Writing to a Vec can't fail.
    let _ = summary::write(packet, &mut Text(out));
}

/// The summary of a request or response: `HTTP/1.1 GET http://shop/`.
pub(super) fn l7_summary(out: &mut Vec<u8>, l7: &Layer7) {
    let _ = std::fmt::write(&mut Text(out), format_args!("{l7}"));
}

/// Appends text that others format.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn made(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// Addresses with runs of zeros.
    fn address() -> impl Strategy<Value = IpAddr> {
        let group = prop_oneof![Just(0), Just(0xffff), any::<u16>(), 0..300u16];
        prop_oneof![
            any::<Ipv4Addr>().prop_map(IpAddr::from),
            prop::array::uniform8(group).prop_map(IpAddr::from),
            any::<Ipv4Addr>().prop_map(|ip| ip.to_ipv6_mapped().into()),
            any::<Ipv4Addr>().prop_map(|ip| ip.to_ipv6_compatible().into()),
        ]
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_the_standard_library_does(address in address(), port: u16) {
            prop_assert_eq!(made(|out| ip(out, address)), address.to_string());
            prop_assert_eq!(made(|out| socket(out, address, port)), SocketAddr::new(address, port).to_string());
        }
    }
}

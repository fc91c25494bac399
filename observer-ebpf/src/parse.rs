//! Packet headers, from any source of bytes: a packet at a tcx hook, kernel memory, or a slice in a test.
//!
//! Part of the library, so that the host can test what the programs do; they inline all of it.
#![expect(clippy::inline_always, reason = "a subprogram would lose what the verifier knows of its arguments")]
#![expect(clippy::cast_ptr_alignment, reason = "Head and Packet are aligned")]

pub mod tunnel;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{FragmentKey, Tuple};

/// EtherType of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Of TCP.
pub const TCP: u8 = 6;
/// Of UDP.
pub const UDP: u8 = 17;
/// Of ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// Of SCTP.
pub const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Where bytes of a packet come from. `None` where the packet ends before.
pub trait Bytes {
    /// Copies what stands at `offset`, all of it or nothing.
    fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()>;
}

/// The ports of first fragments, kept for the later ones, which have none.
pub trait Fragments {
    /// Source and destination port of the packet that this fragment is part of.
    fn ports(&self, key: &FragmentKey) -> Option<&[u16; 2]>;
    /// Keeps them. Where there is no room, later fragments have no ports, which their flag says.
    fn keep(&mut self, key: &FragmentKey, ports: [u16; 2]);
}

/// Why a packet has no tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// ARP, LLDP, ...
    NotIp,
    /// A header ends too early or contradicts itself.
    Malformed,
}

/// What the headers say. It lives in a per-CPU map: the stack has 512 bytes. Aligned, so that the target, which has no
/// unaligned loads, copies its addresses by words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Packet {
    /// Its ends.
    pub tuple: Tuple,
    /// As in [`crate::FlowRecord::tcp_flags`].
    pub tcp_flags: u8,
    /// As in [`crate::FlowRecord::tcp_flags_high`].
    pub tcp_flags_high: u8,
    /// A fragment that is not the first.
    pub fragment: bool,
}

/// The start of a packet, copied at once. What is behind the Ethernet header is aligned.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct Head {
    pad: [u8; 2],
    /// Who the frame is for.
    pub destination_mac: [u8; 6],
    /// Who sent it.
    pub source_mac: [u8; 6],
    /// In network order.
    pub ether_type: u16,
    packet: [u64; 7],
}

impl Head {
    /// Size of an Ethernet header.
    pub const ETHERNET: u32 = 14;
    /// Room for what is behind it: IPv6 and the part of TCP that is read, 54 bytes, in whole words.
    pub const PACKET: u32 = 56;

    /// Where a frame goes that starts with an Ethernet header.
    #[inline(always)]
    pub fn frame(&mut self) -> *mut u8 {
        // Of the whole struct: what is written goes beyond the field.
        (&raw mut *self).cast::<u8>().wrapping_add(2)
    }

    /// Where a packet goes that starts with its IP header.
    #[inline(always)]
    pub fn packet(&mut self) -> *mut u8 {
        (&raw mut self.packet).cast()
    }

    /// Part of the packet, which must begin at a multiple of its size.
    #[inline(always)]
    unsafe fn at<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the caller gives offsets below `PACKET`, aligned.
        unsafe { *(&raw const self.packet).cast::<u8>().add(offset).cast::<T>() }
    }
}

/// Copies an address by words.
///
/// # Safety
/// Both must be aligned to 8.
#[inline(always)]
pub unsafe fn copy_address(from: &[u8; 16], to: &mut [u8; 16]) {
    let (from, to) = (from.as_ptr().cast::<u64>(), to.as_mut_ptr().cast::<u64>());
    // SAFETY: as the caller says. Both words at once would be a call in eBPF, for bytes one by one.
    unsafe {
        let (first, second) = (*from, *from.add(1));
        *to = first;
        *to.add(1) = second;
    }
}

/// Whether two addresses are the same.
///
/// # Safety
/// Both must be aligned to 8, and may be read.
#[inline(always)]
#[must_use]
pub unsafe fn same_address(one: *const [u8; 16], other: *const [u8; 16]) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        let ([a, b], [c, d]) = (*one.cast::<[u64; 2]>(), *other.cast::<[u64; 2]>());
        (a ^ c) | (b ^ d) == 0
    }
}

/// Reads the headers of most packets: IP without options or fragments, then TCP or UDP. False where [`ip`] is needed;
/// `available` is how much of the packet was copied.
#[inline(always)]
pub fn plain(head: &Head, available: u32, ether_type: u16, packet: &mut Packet) -> bool {
    // SAFETY: constant offsets below `Head::PACKET`, multiples of the sizes read; the tuple stands at the start of
    // `Packet`, which is aligned to 8.
    unsafe {
        let source = (&raw mut packet.tuple.source).cast::<[u32; 4]>();
        let destination = (&raw mut packet.tuple.destination).cast::<[u32; 4]>();
        let (protocol, version, transport) = match ether_type {
            ETH_IPV4 => {
                let place: u16 = u16::from_be(head.at(6));
                if available < 34 || head.at::<u8>(0) != 0x45 || place & 0x3fff != 0 {
                    return false;
                }
                *source = [0, 0, MAPPED, head.at(12)];
                *destination = [0, 0, MAPPED, head.at(16)];
                (head.at::<u8>(9), 4, 20)
            }
            ETH_IPV6 => {
                if available < 54 || head.at::<u8>(0) >> 4 != 6 {
                    return false;
                }
                *source.cast::<[u64; 2]>() = head.at(8);
                *destination.cast::<[u64; 2]>() = head.at(24);
                (head.at::<u8>(6), 6, 40)
            }
            _ => return false,
        };
        if protocol != TCP && protocol != UDP {
            return false;
        }
        let tuple = &mut packet.tuple;
        (tuple.protocol, tuple.ip_version, tuple.icmp_type, tuple.icmp_code) = (protocol, version, 0, 0);
        tuple.source_port = u16::from_be(head.at(transport));
        tuple.destination_port = u16::from_be(head.at(transport + 2));
        let tcp = protocol == TCP;
        packet.tcp_flags_high = if tcp { head.at::<u8>(transport + 12) & 1 } else { 0 };
        packet.tcp_flags = if tcp { head.at(transport + 13) } else { 0 };
        packet.fragment = false;
    }
    true
}

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The innermost EtherType and where its payload starts: behind the Ethernet header that ends at `offset`, and up to two
/// VLAN tags.
#[inline(always)]
pub fn ethernet(bytes: &impl Bytes, ether_type: u16, offset: u32, vlan_tci: &mut u16) -> Option<(u16, u32)> {
    let (mut ether_type, mut offset) = (ether_type, offset);
    for _ in 0..2 {
        if ether_type != ETH_VLAN && ether_type != ETH_QINQ {
            break;
        }
        let mut tag = [0; 4];
        bytes.read(offset, &mut tag)?;
        if *vlan_tci == 0 {
            *vlan_tci = u16::from_be_bytes([tag[0], tag[1]]);
        }
        ether_type = u16::from_be_bytes([tag[2], tag[3]]);
        offset += 4;
    }
    Some((ether_type, offset))
}

/// Reads the IP header at `offset` and what is behind it.
#[inline(always)]
pub fn ip(
    bytes: &impl Bytes,
    fragments: &mut impl Fragments,
    ether_type: u16,
    offset: u32,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    packet.tuple = Tuple::default();
    packet.tcp_flags = 0;
    packet.tcp_flags_high = 0;
    packet.fragment = false;
    let found = match ether_type {
        ETH_IPV4 => ipv4(bytes, fragments, offset, packet),
        ETH_IPV6 => ipv6(bytes, fragments, offset, packet),
        _ => return Err(Unparsed::NotIp),
    };
    found.ok_or(Unparsed::Malformed)
}

/// What a fragment header says.
struct Fragment {
    id: u32,
    later: bool,
    more: bool,
}

#[inline(always)]
fn ipv4(bytes: &impl Bytes, fragments: &mut impl Fragments, offset: u32, packet: &mut Packet) -> Option<()> {
    let mut header = [0; 20];
    bytes.read(offset, &mut header)?;
    let length = u32::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let place = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment {
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        later: place & 0x1fff != 0,
        more: place & 0x2000 != 0,
    };
    let tuple = &mut packet.tuple;
    (tuple.protocol, tuple.ip_version) = (header[9], 4);
    tuple.source = mapped([header[12], header[13], header[14], header[15]]);
    tuple.destination = mapped([header[16], header[17], header[18], header[19]]);
    transport(bytes, fragments, offset + length, packet, &fragment)
}

/// An IPv4 address as IPv4-mapped IPv6.
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn ipv6(bytes: &impl Bytes, fragments: &mut impl Fragments, offset: u32, packet: &mut Packet) -> Option<()> {
    let mut header = [0; 40];
    bytes.read(offset, &mut header)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let tuple = &mut packet.tuple;
    tuple.ip_version = 6;
    tuple.source.copy_from_slice(&header[8..24]);
    tuple.destination.copy_from_slice(&header[24..40]);
    let mut fragment = Fragment { id: 0, later: false, more: false };
    let mut next = header[6];
    let mut offset = offset + 40;
    // RFC 8200 lets no header but destination options stand twice; a packet with more than these is not followed.
    for _ in 0..6 {
        match next {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6: length in 8 bytes, the first not counted.
            0 | 43 | 60 | 135 | 139 | 140 => {
                let mut option = [0; 2];
                bytes.read(offset, &mut option)?;
                next = option[0];
                offset += (u32::from(option[1]) + 1) * 8;
            }
            // Fragment.
            44 => {
                let mut option = [0; 8];
                bytes.read(offset, &mut option)?;
                let place = u16::from_be_bytes([option[2], option[3]]);
                fragment.id = u32::from_be_bytes([option[4], option[5], option[6], option[7]]);
                fragment.later = place & 0xfff8 != 0;
                fragment.more = place & 1 != 0;
                next = option[0];
                offset += 8;
                if fragment.later {
                    break;
                }
            }
            // Authentication: length in 4 bytes, the first two not counted.
            51 => {
                let mut option = [0; 2];
                bytes.read(offset, &mut option)?;
                next = option[0];
                offset += (u32::from(option[1]) + 2) * 4;
            }
            _ => break,
        }
    }
    packet.tuple.protocol = next;
    transport(bytes, fragments, offset, packet, &fragment)
}

#[inline(always)]
fn transport(
    bytes: &impl Bytes,
    fragments: &mut impl Fragments,
    offset: u32,
    packet: &mut Packet,
    fragment: &Fragment,
) -> Option<()> {
    let tuple = &mut packet.tuple;
    let ported = matches!(tuple.protocol, TCP | UDP | SCTP | UDPLITE);
    if fragment.later {
        packet.fragment = true;
        if ported {
            let key = fragment_key(tuple, fragment);
            if let Some(ports) = fragments.ports(&key) {
                tuple.source_port = ports[0];
                tuple.destination_port = ports[1];
            }
        }
        return Some(());
    }
    match tuple.protocol {
        TCP => {
            let mut header = [0; 14];
            if bytes.read(offset, &mut header).is_none() {
                // The flags may be in the next fragment; the ports are not.
                let mut start = [0; 4];
                bytes.read(offset, &mut start).filter(|()| fragment.more)?;
                header[..4].copy_from_slice(&start);
            }
            ports(tuple, header[0], header[1], header[2], header[3]);
            packet.tcp_flags = header[13];
            packet.tcp_flags_high = header[12] & 1;
        }
        UDP | SCTP | UDPLITE => {
            let mut header = [0; 4];
            bytes.read(offset, &mut header)?;
            ports(tuple, header[0], header[1], header[2], header[3]);
        }
        ICMP | ICMPV6 => {
            let mut header = [0; 6];
            bytes.read(offset, &mut header)?;
            tuple.icmp_type = header[0];
            tuple.icmp_code = header[1];
            if echo(tuple.protocol, header[0]) != Echo::No {
                ports(tuple, header[4], header[5], header[4], header[5]);
            }
        }
        _ => {}
    }
    if fragment.more && ported {
        let key = fragment_key(tuple, fragment);
        fragments.keep(&key, [tuple.source_port, tuple.destination_port]);
    }
    Some(())
}

#[inline(always)]
fn ports(tuple: &mut Tuple, a: u8, b: u8, c: u8, d: u8) {
    tuple.source_port = u16::from_be_bytes([a, b]);
    tuple.destination_port = u16::from_be_bytes([c, d]);
}

#[inline(always)]
fn fragment_key(tuple: &Tuple, fragment: &Fragment) -> FragmentKey {
    FragmentKey {
        source: tuple.source,
        destination: tuple.destination,
        id: fragment.id,
        protocol: u32::from(tuple.protocol),
    }
}

/// What an ICMP message is to an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It asks for one, or for a time stamp.
    Request,
    /// It answers such a request.
    Reply,
    /// Neither.
    No,
}

/// Whether an ICMP message asks for an echo (or a time stamp) or answers one.
#[inline(always)]
pub fn echo(protocol: u8, icmp_type: u8) -> Echo {
    match (protocol, icmp_type) {
        (ICMP, 8 | 13) | (ICMPV6, 128) => Echo::Request,
        (ICMP, 0 | 14) | (ICMPV6, 129) => Echo::Reply,
        _ => Echo::No,
    }
}

/// The type of the ICMP message that this one answers, or its own.
#[inline(always)]
pub fn request_type(protocol: u8, icmp_type: u8) -> u8 {
    match (protocol, icmp_type) {
        (ICMP, 0) => 8,
        (ICMP, 14) => 13,
        (ICMPV6, 129) => 128,
        _ => icmp_type,
    }
}

/// The ends of the packet that an ICMP error is about; `network` is where the error's own IP header stands. It needs no
/// more of that packet than every error has: its IP header and eight bytes.
#[inline(always)]
pub fn quoted(bytes: &impl Bytes, protocol: u8, network: u32, tuple: &mut Tuple) -> Option<()> {
    *tuple = Tuple::default();
    let behind = if protocol == ICMP {
        let mut first = [0; 1];
        bytes.read(network, &mut first)?;
        let start = network + u32::from(first[0] & 15) * 4 + 8;
        let mut header = [0; 20];
        bytes.read(start, &mut header)?;
        let place = u16::from_be_bytes([header[6], header[7]]);
        if header[0] >> 4 != 4 || place & 0x1fff != 0 {
            return None;
        }
        (tuple.protocol, tuple.ip_version) = (header[9], 4);
        tuple.source = mapped([header[12], header[13], header[14], header[15]]);
        tuple.destination = mapped([header[16], header[17], header[18], header[19]]);
        start + u32::from(header[0] & 15) * 4
    } else {
        // Errors with further headers are rare, and those about packets with some.
        let mut next = [0; 1];
        bytes.read(network + 6, &mut next)?;
        if next[0] != ICMPV6 {
            return None;
        }
        let start = network + 40 + 8;
        let mut header = [0; 40];
        bytes.read(start, &mut header)?;
        (tuple.protocol, tuple.ip_version) = (header[6], 6);
        tuple.source.copy_from_slice(&header[8..24]);
        tuple.destination.copy_from_slice(&header[24..40]);
        start + 40
    };
    let mut header = [0; 8];
    bytes.read(behind, &mut header)?;
    match tuple.protocol {
        TCP | UDP | SCTP | UDPLITE => ports(tuple, header[0], header[1], header[2], header[3]),
        ICMP | ICMPV6 if echo(tuple.protocol, header[0]) != Echo::No => {
            tuple.icmp_type = header[0];
            ports(tuple, header[4], header[5], header[4], header[5]);
        }
        _ => {}
    }
    Some(())
}

/// Whether an ICMP message is an error about another packet.
#[inline(always)]
pub fn icmp_error(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMP => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        ICMPV6 => (1..128).contains(&icmp_type),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

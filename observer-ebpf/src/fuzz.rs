//! What must hold for any bytes of a packet; called by the fuzzer and by a test with its corpus.

use std::collections::HashMap;

use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::FragmentKey;
use crate::parse::tunnel;
use crate::parse::{self, Bytes, Echo, Fragments, Head, Packet, Unparsed};

const UDPLITE: u8 = 136;

/// A packet in memory.
pub struct Memory<'a>(pub &'a [u8]);

impl Bytes for Memory<'_> {
    fn read<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> Option<()> {
        let from = self.0.get(offset as usize..)?;
        *into = *from.first_chunk()?;
        Some(())
    }
}

/// First fragments, without a bound.
#[derive(Default)]
pub struct FirstFragments(HashMap<FragmentKey, [u16; 2]>);

impl Fragments for FirstFragments {
    fn ports(&self, key: &FragmentKey) -> Option<&[u16; 2]> {
        self.0.get(key)
    }

    fn keep(&mut self, key: &FragmentKey, ports: [u16; 2]) {
        self.0.insert(*key, ports);
    }
}

/// Reads an Ethernet frame as the flow programs do, but for the short way of [`parse::plain`].
pub fn read(frame: &[u8], fragments: &mut FirstFragments) -> Result<Packet, Unparsed> {
    let bytes = Memory(frame);
    let mut ether_type = [0; 2];
    bytes.read(12, &mut ether_type).ok_or(Unparsed::Malformed)?;
    let (ether_type, offset) =
        parse::ethernet(&bytes, u16::from_be_bytes(ether_type), Head::ETHERNET, &mut 0)
            .ok_or(Unparsed::Malformed)?;
    let mut packet = Packet::default();
    parse::ip(&bytes, fragments, ether_type, offset, &mut packet).map(|()| packet)
}

/// What [`parse::plain`] makes of the frame, where it is a packet for it.
pub fn read_plain(frame: &[u8]) -> Option<Packet> {
    let mut head = Head::new_zeroed();
    let length = frame.len().min((Head::ETHERNET + Head::PACKET) as usize);
    // Two bytes before the Ethernet header align what is behind it.
    head.as_mut_bytes()[2..2 + length].copy_from_slice(&frame[..length]);
    let available = (length as u32).checked_sub(Head::ETHERNET)?;
    let ether_type = u16::from_be(head.ether_type);
    let mut packet = Packet::default();
    parse::plain(&head, available, ether_type, &mut packet).then_some(packet)
}

/// Checks one Ethernet frame.
///
/// # Panics
/// Where something does not hold.
pub fn packet(frame: &[u8]) {
    let found = read(frame, &mut FirstFragments::default());
    if let Some(plain) = read_plain(frame) {
        assert_eq!(Ok(plain), found, "the short way reads another packet");
    }
    for end in 0..frame.len() {
        let cut = read(&frame[..end], &mut FirstFragments::default());
        let without_flags = found.map(|packet| Packet { tcp_flags: 0, tcp_flags_high: 0, ..packet });
        assert!(
            cut == found || cut == Err(Unparsed::Malformed) || cut == without_flags,
            "cut at {end} it is {cut:?}, else {found:?}"
        );
    }
    let Ok(packet) = found else { return };
    check(&packet);
    let tagged = ![[8, 0], [0x86, 0xdd]].iter().any(|ether_type| frame.get(12..14) == Some(ether_type));
    if !tagged {
        check_inside(frame, &packet, Head::ETHERNET);
    }
    let mut fragments = FirstFragments::default();
    assert_eq!(read(frame, &mut fragments), found);
    if !fragments.0.is_empty() {
        assert!(!packet.fragment, "the ports of a later fragment were kept");
        assert_eq!(read(frame, &mut fragments), found, "its own ports change a first fragment");
    }
}

/// What is inside a tunnel begins behind the outer headers, and so does what is inside that.
fn check_inside(frame: &[u8], packet: &Packet, network: u32) {
    let bytes = Memory(frame);
    if !tunnel::may_carry(packet) {
        return;
    }
    let Some(inside) = tunnel::inside(&bytes, network, packet) else { return };
    assert!(inside.offset >= network + 20, "{inside:?} of {packet:?}");
    let mut inner = Packet::default();
    let mut fragments = FirstFragments::default();
    if parse::ip(&bytes, &mut fragments, inside.ether_type, inside.offset, &mut inner).is_ok() {
        check(&inner);
        check_inside(frame, &inner, inside.offset);
    }
}

/// What every packet says is what its protocol can say.
fn check(packet: &Packet) {
    let tuple = &packet.tuple;
    let mapped =
        |address: &[u8; 16]| *address == parse::mapped([address[12], address[13], address[14], address[15]]);
    match tuple.ip_version {
        4 => assert!(mapped(&tuple.source) && mapped(&tuple.destination)),
        version => assert_eq!(version, 6),
    }
    let icmp = matches!(tuple.protocol, parse::ICMP | parse::ICMPV6) && !packet.fragment;
    let echo = icmp && parse::echo(tuple.protocol, tuple.icmp_type) != Echo::No;
    let ported = matches!(tuple.protocol, parse::TCP | parse::UDP | parse::SCTP | UDPLITE);
    assert!(icmp || (tuple.icmp_type, tuple.icmp_code) == (0, 0));
    assert!(ported || echo || (tuple.source_port, tuple.destination_port) == (0, 0));
    assert!(!echo || tuple.source_port == tuple.destination_port);
    let tcp = tuple.protocol == parse::TCP && !packet.fragment;
    assert!(tcp || (packet.tcp_flags, packet.tcp_flags_high) == (0, 0));
    assert!(packet.tcp_flags_high <= 1);
    assert!(!(echo && parse::icmp_error(tuple.protocol, tuple.icmp_type)));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_holds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observer/fuzz/corpus/packet");
        let files: std::vec::Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            std::println!("{}", file.display());
            super::packet(&fs::read(file).unwrap());
        }
    }
}

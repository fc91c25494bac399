//! The few messages and attributes of ctnetlink that are needed (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Parsed here and not by `netlink-packet-netfilter`: its 0.4 doesn't know the ICMP identifiers, the connection's id or
//! the type of a message (new, ended), and allocates a tree for each.

use super::connection::Entry;
use crate::decode::{End, Tuple};
use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use std::net::IpAddr;

const SUBSYSTEM: u16 = 1 << 8;
const MESSAGE_NEW: u16 = SUBSYSTEM;
const MESSAGE_GET: u16 = SUBSYSTEM | 1;
const MESSAGE_DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`: family, version, resource.
const GENERIC_HEADER: usize = 4;
const HEADER: usize = 16;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: set on what was met in its middle, where the first packet's sender counts as the opener.
const BE_LIBERAL: u8 = 8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A connection, new or dumped; and whether who opened it is only the kernel's guess.
    New(Entry, bool),
    /// A connection's end.
    End {
        /// The kernel's number for it.
        id: u32,
        /// Its opener's tuple.
        original: Tuple,
    },
    /// The end of a dump.
    Done,
    /// An error number, positive.
    Error(i32),
    /// Nothing of interest.
    Other,
}

/// A message that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A request for all connections, of both address families.
pub(super) fn dump_request() -> [u8; HEADER + GENERIC_HEADER] {
    let mut request = [0; HEADER + GENERIC_HEADER];
    let length = request.len() as u32;
    let mut message = NetlinkBuffer::new(&mut request[..]);
    message.set_length(length);
    message.set_message_type(MESSAGE_GET);
    message.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    request
}

/// The messages of one datagram; ends after one whose length is wrong.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(rest) else {
            rest = &[];
            return Some(Err(Malformed));
        };
        let length = message.length() as usize;
        let Some(body) = rest.get(HEADER..length) else {
            rest = &[];
            return Some(Err(Malformed));
        };
        let kind = message.message_type();
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(parse(kind, body))
    })
}

fn parse(kind: u16, body: &[u8]) -> Result<Message, Malformed> {
    match kind {
        NLMSG_DONE => Ok(Message::Done),
        NLMSG_ERROR => {
            let code = body.first_chunk().ok_or(Malformed)?;
            Ok(Message::Error(i32::from_ne_bytes(*code).saturating_neg()))
        }
        MESSAGE_NEW | MESSAGE_DELETE => {
            let (mut original, mut reply, mut id, mut is_guess) = (None, None, None, false);
            for (attribute, value) in attributes(body.get(GENERIC_HEADER..).ok_or(Malformed)?) {
                match attribute? {
                    CTA_TUPLE_ORIG => original = Some(tuple(value)?),
                    CTA_TUPLE_REPLY => reply = Some(tuple(value)?),
                    CTA_PROTOINFO => is_guess = is_met_midway(value)?,
                    CTA_ID => id = Some(u32::from_be_bytes(exactly(value)?)),
                    _ => {}
                }
            }
            let (original, id) = (original.ok_or(Malformed)?, id.ok_or(Malformed)?);
            if kind == MESSAGE_DELETE {
                return Ok(Message::End { id, original });
            }
            Ok(Message::New(Entry { id, original, reply: reply.ok_or(Malformed)? }, is_guess))
        }
        _ => Ok(Message::Other),
    }
}

/// Of what a protocol says of a connection.
fn is_met_midway(value: &[u8]) -> Result<bool, Malformed> {
    for (attribute, value) in attributes(value) {
        if attribute? != CTA_PROTOINFO_TCP {
            continue;
        }
        for (attribute, value) in attributes(value) {
            if attribute? == CTA_PROTOINFO_TCP_FLAGS_ORIGINAL {
                // The flags, and a mask that counts where they are set.
                return Ok(exactly::<2>(value)?[0] & BE_LIBERAL != 0);
            }
        }
    }
    Ok(false)
}

fn tuple(value: &[u8]) -> Result<Tuple, Malformed> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut source_port, mut destination_port, mut icmp_id) = (None, 0, 0, None);
    for (attribute, value) in attributes(value) {
        match attribute? {
            CTA_TUPLE_IP => {
                for (attribute, value) in attributes(value) {
                    match attribute? {
                        CTA_IP_V4_SRC => source = Some(IpAddr::from(exactly::<4>(value)?)),
                        CTA_IP_V4_DST => destination = Some(IpAddr::from(exactly::<4>(value)?)),
                        CTA_IP_V6_SRC => source = Some(IpAddr::from(exactly::<16>(value)?)),
                        CTA_IP_V6_DST => destination = Some(IpAddr::from(exactly::<16>(value)?)),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (attribute, value) in attributes(value) {
                    match attribute? {
                        CTA_PROTO_NUM => protocol = Some(exactly::<1>(value)?[0]),
                        CTA_PROTO_SRC_PORT => source_port = u16::from_be_bytes(exactly(value)?),
                        CTA_PROTO_DST_PORT => destination_port = u16::from_be_bytes(exactly(value)?),
                        CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                            icmp_id = Some(u16::from_be_bytes(exactly(value)?));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let protocol = protocol.ok_or(Malformed)?;
    // As the kernel's records have it: the echo identifier twice, and no ports where the protocol has none (GRE's key
    // comes in the attributes of ports).
    let (source_port, destination_port) = match (icmp_id, protocol) {
        (Some(id), _) => (id, id),
        (None, TCP | UDP | SCTP) => (source_port, destination_port),
        _ => (0, 0),
    };
    Ok(Tuple {
        source: End::new(source.ok_or(Malformed)?, source_port),
        destination: End::new(destination.ok_or(Malformed)?, destination_port),
        protocol,
    })
}

/// Kind and value of each attribute; the last one may be malformed.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (Result<u16, Malformed>, &[u8])> {
    NlasIterator::new(bytes).map(|attribute| {
        let Ok(nla) = attribute else { return (Err(Malformed), &[][..]) };
        let (kind, length) = (nla.kind(), usize::from(nla.length()));
        match nla.into_inner().get(NLA_HEADER_SIZE..length) {
            Some(value) => (Ok(kind), value),
            None => (Err(Malformed), &[][..]),
        }
    })
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, values: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &values.concat())
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((body.len() + HEADER) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn ip4(kind: u16, from: [u8; 4], to: [u8; 4], proto: &[Vec<u8>]) -> Vec<u8> {
        let ip = nested(CTA_TUPLE_IP, &[attribute(CTA_IP_V4_SRC, &from), attribute(CTA_IP_V4_DST, &to)]);
        nested(kind, &[ip, nested(CTA_TUPLE_PROTO, proto)])
    }

    fn ports(protocol: u8, source: u16, destination: u16) -> Vec<Vec<u8>> {
        vec![
            attribute(CTA_PROTO_NUM, &[protocol]),
            attribute(CTA_PROTO_SRC_PORT, &source.to_be_bytes()),
            attribute(CTA_PROTO_DST_PORT, &destination.to_be_bytes()),
        ]
    }

    fn connection(kind: u16) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        body.extend(ip4(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 96, 0, 1], &ports(TCP, 4000, 80)));
        body.extend(ip4(CTA_TUPLE_REPLY, [10, 0, 0, 2], [10, 0, 0, 1], &ports(TCP, 8080, 4000)));
        body.extend(attribute(CTA_ID, &7u32.to_be_bytes()));
        body.extend(attribute(999, &[1, 2, 3]));
        message(kind, &body)
    }

    fn end(ip: [u8; 4], port: u16) -> End {
        End::new(ip.into(), port)
    }

    #[test]
    fn a_connection_and_its_end_in_one_datagram() {
        let original =
            Tuple { source: end([10, 0, 0, 1], 4000), destination: end([10, 96, 0, 1], 80), protocol: TCP };
        let reply =
            Tuple { source: end([10, 0, 0, 2], 8080), destination: end([10, 0, 0, 1], 4000), protocol: TCP };
        let datagram =
            [connection(MESSAGE_NEW), connection(MESSAGE_DELETE), message(NLMSG_DONE, &[0; 4])].concat();
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(
            read,
            [
                Ok(Message::New(Entry { id: 7, original, reply }, false)),
                Ok(Message::End { id: 7, original }),
                Ok(Message::Done),
            ]
        );
    }

    #[test]
    fn what_the_kernel_met_midway_is_a_guess() {
        for (flags, expected) in [(3, false), (3 | BE_LIBERAL, true)] {
            let tcp = [attribute(1, &[3]), attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, 0])];
            let mut datagram = connection(MESSAGE_NEW);
            datagram.extend(nested(CTA_PROTOINFO, &[nested(CTA_PROTOINFO_TCP, &tcp)]));
            let length = datagram.len() as u32;
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            let Some(Ok(Message::New(_, is_guess))) = messages(&datagram).next() else {
                panic!("no connection")
            };
            assert_eq!(is_guess, expected);
        }
    }

    #[test]
    fn tuples_of_other_protocols() {
        let id = [attribute(CTA_PROTO_NUM, &[1]), attribute(CTA_PROTO_ICMP_ID, &9u16.to_be_bytes())];
        for (proto, want) in [(id.to_vec(), (9, 9)), (ports(47, 5, 6), (0, 0)), (ports(SCTP, 5, 6), (5, 6))] {
            let bytes = ip4(CTA_TUPLE_ORIG, [1; 4], [2; 4], &proto);
            let tuple = tuple(&bytes[4..]).unwrap();
            assert_eq!((tuple.source.port(), tuple.destination.port()), want);
        }
        let ip =
            nested(CTA_TUPLE_IP, &[attribute(CTA_IP_V6_SRC, &[1; 16]), attribute(CTA_IP_V6_DST, &[2; 16])]);
        let six = tuple(&[ip, nested(CTA_TUPLE_PROTO, &ports(UDP, 1, 2))].concat()).unwrap();
        assert_eq!(six.destination.ip(), IpAddr::from([2u8; 16]));
    }

    #[test]
    fn an_error_is_told_as_a_positive_number() {
        let datagram = message(NLMSG_ERROR, &(-22i32).to_ne_bytes());
        assert_eq!(messages(&datagram).collect::<Vec<_>>(), [Ok(Message::Error(22))]);
    }

    #[test]
    fn what_is_cut_off_or_missing_is_malformed() {
        let whole = connection(MESSAGE_NEW);
        for length in 1..whole.len() {
            let read: Vec<_> = messages(&whole[..length]).collect();
            assert_eq!(read, [Err(Malformed)], "cut at {length}");
        }
        let no_reply = ip4(CTA_TUPLE_ORIG, [1; 4], [2; 4], &ports(TCP, 1, 2));
        let body = [vec![2, 0, 0, 0], no_reply, attribute(CTA_ID, &[0; 4])].concat();
        assert_eq!(messages(&message(MESSAGE_NEW, &body)).collect::<Vec<_>>(), [Err(Malformed)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            messages(&bytes).for_each(drop);
            for kind in [MESSAGE_NEW, MESSAGE_DELETE, NLMSG_ERROR] {
                messages(&message(kind, &bytes)).for_each(drop);
            }
        }

        #[test]
        fn no_flipped_byte_makes_it_panic(at in 0usize..1000, value in any::<u8>()) {
            let mut bytes = connection(MESSAGE_NEW);
            let at = at % bytes.len();
            bytes[at] = value;
            prop_assert!(messages(&bytes).count() <= bytes.len());
        }
    }
}

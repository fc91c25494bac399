//! Route netlink: ids of network namespaces, addresses in them, and word of changes.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::{io, net::IpAddr};

// Multicast groups (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_NSID: u32 = 28;
/// How many messages one wake-up reads at most: all of them only say "look again".
const MAX_DRAINED: usize = 4096;
/// Addresses of one namespace, at most.
const MAX_ADDRESSES: usize = 4096;

/// A socket for questions.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let netlink = Self::connected(NETLINK_ROUTE)?;
        // Without it (Linux < 4.20) a dump would ignore the namespace id and answer for this namespace.
        netlink.socket.set_netlink_get_strict_chk(true)?;
        Ok(netlink)
    }

    /// For questions of another protocol.
    pub(super) fn connected(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The id that this namespace has for the one behind `fd`; `None` where it has none.
    pub(super) fn nsid(&mut self, fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(fd.as_raw_fd() as u32));
        let mut id = None;
        self.ask(RouteNetlinkMessage::GetNsId(question), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewNsId(answer) = answer {
                id = answer.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
            }
        })?;
        Ok(id)
    }

    /// The addresses in a namespace, of this one without an id; no loopback and link-local ones.
    pub(super) fn addresses(&mut self, nsid: Option<i32>) -> io::Result<Vec<IpAddr>> {
        let mut ips = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = AddressMessage::default();
            question.header.family = family;
            question.attributes.extend(nsid.map(AddressAttribute::TargetNetNsId));
            self.ask(RouteNetlinkMessage::GetAddress(question), NLM_F_DUMP, |answer| {
                if let RouteNetlinkMessage::NewAddress(answer) = answer
                    && ips.len() < MAX_ADDRESSES
                {
                    ips.extend(address(&answer, nsid.is_none()));
                }
            })?;
        }
        Ok(ips)
    }

    pub(super) fn ask<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        question: M,
        flags: u16,
        mut on_answer: impl FnMut(M),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (data, _) = self.socket.recv_from_full()?;
            let mut rest = &data[..];
            while rest.len() >= size_of::<u32>() {
                let answer = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                // Padded to 4 bytes, but for the last one.
                let length = (answer.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
                rest = &rest[length..];
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_some() { Err(error.to_io()) } else { Ok(()) };
                    }
                    // A dump that is refused ends with the error's number.
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(answer) => on_answer(answer),
                    _ => {}
                }
            }
        }
    }
}

/// The host's address of an answer. Its own link-local ones count only for this namespace: elsewhere they are not unique.
fn address(answer: &AddressMessage, own: bool) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| answer.attributes.iter().find_map(wanted);
    // On a point-to-point link IFA_ADDRESS is the peer's.
    let local = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let ip =
        local.or_else(|| find(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None }))?;
    let unique = !matches!(answer.header.scope, AddressScope::Host | AddressScope::Link);
    let useful = !ip.is_loopback() && !ip.is_unspecified() && (own || unique);
    useful.then_some(ip)
}

/// A socket for word of changes, in this namespace and in those that it has ids for.
#[derive(Debug)]
pub(super) struct Events {
    socket: Socket,
    of_all_namespaces: bool,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Needs CAP_NET_BROADCAST; without it changes elsewhere are seen at the next look.
        let of_all = socket.set_listen_all_namespaces(true);
        if let Err(error) = &of_all {
            tracing::debug!(%error, "no netlink events of other network namespaces");
        }
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NSID] {
            socket.add_membership(group)?;
        }
        Ok(Self { socket, of_all_namespaces: of_all.is_ok() })
    }

    /// Else they are of this namespace only.
    pub(super) fn are_of_all_namespaces(&self) -> bool {
        self.of_all_namespaces
    }

    /// Reads what is there; whether something was.
    pub(super) fn drain(&self) -> bool {
        let mut buffer = Vec::with_capacity(1);
        let mut any = false;
        for _ in 0..MAX_DRAINED {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Too many for the socket's buffer (ENOBUFS): something changed all the same.
                Err(_) => return true,
            }
        }
        any
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

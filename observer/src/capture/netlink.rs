//! Rtnetlink questions and notifications, over blocking sockets.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use std::net::IpAddr;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const GROUPS: [u32; 3] = [1, 5, 9];

/// A socket that becomes readable when links or addresses change.
pub(super) fn notifications() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// What the notifications said, beyond that there is something to look at.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Indices of links that are gone. Another link may have the index by now.
    pub(super) deleted: Vec<u32>,
    /// Some notifications were lost.
    pub(super) overrun: bool,
}

/// Empties it. What changed is looked up afresh; only what can't be seen that way is taken from the messages.
pub(super) fn changes(socket: &Socket) -> Changes {
    let mut changes = Changes::default();
    let mut buffer = Vec::with_capacity(65_536);
    loop {
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {
                // The kernel sends one notification at a time.
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer);
                // A port that leaves a bridge is told as a deleted link of the bridge's family.
                if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) =
                    message.map(|message| message.payload)
                    && link.header.interface_family == AddressFamily::Unspec
                {
                    changes.deleted.push(link.header.index);
                }
                buffer.clear();
            }
            // An overrun is reported once and clears itself.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                changes.overrun = true;
            }
            Err(_) => return changes,
        }
    }
}

/// All links.
pub(super) fn links() -> io::Result<Vec<LinkMessage>> {
    let answers = ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(answers.into_iter().filter_map(link).collect())
}

/// All addresses, with the index of their link.
pub(super) fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let answers = ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
    Ok(answers.into_iter().filter_map(address).collect())
}

/// The same in another namespace, by its id here.
pub(super) fn addresses_in(id: i32) -> io::Result<Vec<(u32, IpAddr)>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = AddressMessage::default();
        question.header.family = family;
        question.attributes.push(AddressAttribute::TargetNetNsId(id));
        let socket = open()?;
        // Else the kernel does not look at the id.
        socket.set_netlink_get_strict_chk(true)?;
        let answers = exchange(&socket, RouteNetlinkMessage::GetAddress(question), NLM_F_DUMP)?;
        all.extend(answers.into_iter().filter_map(address));
    }
    Ok(all)
}

/// All links of another namespace, by its id here.
pub(super) fn links_in(id: i32) -> io::Result<Vec<LinkMessage>> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfNetnsId(id));
    let answers = ask(RouteNetlinkMessage::GetLink(question), NLM_F_DUMP)?;
    Ok(answers.into_iter().filter_map(link).collect())
}

fn link(answer: RouteNetlinkMessage) -> Option<LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

fn address(answer: RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // On point-to-point links ADDRESS is the other side's.
    Some((message.header.index, find(true).or_else(|| find(false))?))
}

/// The node's own addresses, sorted.
pub fn node_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(own(&addresses()?))
}

/// Those of all links, loopback's left out.
pub(super) fn own(addresses: &[(u32, IpAddr)]) -> Vec<IpAddr> {
    let all = addresses.iter().map(|(_, address)| *address);
    let mut own: Vec<IpAddr> = all.filter(|address| !address.is_loopback()).collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// Indices of the links that a default route leads to.
pub(super) fn default_route_links() -> io::Result<HashSet<u32>> {
    let mut links = HashSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for answer in ask(RouteNetlinkMessage::GetRoute(question), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            if route.header.destination_prefix_length != 0 {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => links.extend([*index]),
                    RouteAttribute::MultiPath(hops) => {
                        links.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(links)
}

/// Ids of the namespaces at the far end of the node's own uplinks: what is in them is outside, no local pod.
pub fn namespaces_outside() -> io::Result<HashSet<i32>> {
    let uplinks = default_route_links()?;
    let far_end = |link: &LinkMessage| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkNetNsId(id) => Some(*id),
            _ => None,
        })
    };
    Ok(links()?.iter().filter(|link| uplinks.contains(&link.header.index)).filter_map(far_end).collect())
}

/// Inode numbers of the network namespaces that have an id in this one, by that id.
///
/// Looks at named namespaces and those of processes; one that neither a name nor a process holds stays unknown.
pub(super) fn namespaces() -> HashMap<i32, u32> {
    let named = ["/run/netns", "/var/run/netns", "/run/docker/netns"].into_iter().flat_map(entries);
    let processes = entries("/proc")
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
        })
        .map(|path| path.join("ns/net"));
    let mut found = HashMap::new();
    let mut seen = HashSet::new();
    for path in named.chain(processes) {
        // A process may be gone by now, or not ours to look at.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        let inode = meta.ino() as u32;
        if !seen.insert(inode) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if let Some(id) = namespace_id(&file) {
            found.insert(id, inode);
        }
    }
    found
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn namespace_id(file: &File) -> Option<i32> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(u32::try_from(file.as_raw_fd()).ok()?));
    let answers = ask(RouteNetlinkMessage::GetNsId(message), 0).ok()?;
    answers.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewNsId(message) = answer else { return None };
        message.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        })
    })
}

/// Asks the kernel and collects what it answers; with `NLM_F_ACK` that may be nothing.
pub(crate) fn ask<M: NetlinkSerializable + NetlinkDeserializable>(
    question: M,
    flags: u16,
) -> io::Result<Vec<M>> {
    exchange(&open()?, question, flags)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn exchange<M: NetlinkSerializable + NetlinkDeserializable>(
    socket: &Socket,
    question: M,
    flags: u16,
) -> io::Result<Vec<M>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    packet.finalize();
    let mut buffer = vec![0; packet.buffer_len()];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, super::error::chain(&e)))?;
            // Messages start at multiples of four.
            let length = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
            rest = &rest[length..];
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 && !answers.is_empty() {
            return Ok(answers);
        }
    }
}

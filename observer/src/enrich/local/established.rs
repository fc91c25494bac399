//! Connections of the node itself, and where SSH is served.

use super::{
    listeners::{Listeners, sockets},
    netlink::Netlink,
};
use netlink_packet_sock_diag::{IPPROTO_TCP, inet::StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::{collections::BTreeSet, io, net::SocketAddr};

/// Connections that are kept, at most.
const MAX_CONNECTIONS: usize = 65_536;

/// Both ends of a TCP connection of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Established {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// The TCP connections of the calling thread's network namespace that are wanted.
pub(crate) fn established(wanted: impl Fn(&Established) -> bool) -> io::Result<Vec<Established>> {
    let mut netlink = Netlink::connected(NETLINK_SOCK_DIAG)?;
    let mut found = Vec::new();
    sockets(&mut netlink, IPPROTO_TCP, &StateFlags::ESTABLISHED, |header| {
        let socket = &header.socket_id;
        let ends = Established {
            local: SocketAddr::new(socket.source_address.to_canonical(), socket.source_port),
            remote: SocketAddr::new(socket.destination_address.to_canonical(), socket.destination_port),
        };
        if found.len() < MAX_CONNECTIONS && wanted(&ends) {
            found.push(ends);
        }
    })?;
    Ok(found)
}

/// The ports that a program or unit listens on whose name begins with `ssh`.
pub(crate) fn ports_of_sshd() -> io::Result<BTreeSet<u16>> {
    let (services, _) = Listeners::open()?.services(&[]).map_err(io::Error::other)?;
    let ssh = services.iter().filter(|service| service.name.starts_with("ssh"));
    Ok(ssh.flat_map(|service| &service.ports).map(|port| port.port).collect())
}

//! The proxy's sockets: they take connections to any address, and make some from any.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use observer_ebpf::proxy::FROM_PROXY;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// From here on are the ports of connections that are made under a client's address: below those that Linux gives to the
/// client itself, so that both may call the same server at once.
const FIRST_PORT: u16 = 16_384;
const PORTS: u16 = 16_384;
/// So many of them are tried.
const TRIES: u32 = 64;
/// Connections that wait to be accepted; the kernel takes what net.core.somaxconn allows.
const BACKLOG: i32 = 4096;

/// Listens on the loopback address of a family: only what the programs assign to it comes from outside.
pub fn listen(ipv6: bool) -> io::Result<Socket> {
    let address: SocketAddr =
        if ipv6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let socket = transparent(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Begins to connect to a server under the client's address; the socket becomes writable when that is done or has failed.
/// `port` begins the search for a free one. A pod that calls itself would be answered within itself, so there the node's
/// own address is taken.
pub fn connect(client: SocketAddr, server: SocketAddr, port: u16) -> io::Result<Socket> {
    for offset in 0..TRIES {
        let socket = transparent(server)?;
        if client.ip() != server.ip() {
            let port = FIRST_PORT + (u32::from(port).wrapping_add(offset * 257) % u32::from(PORTS)) as u16;
            // Others that are bound to it may go on, as long as they call other servers.
            socket.set_reuse_address(true)?;
            match socket.bind(&SockAddr::from(SocketAddr::new(client.ip(), port))) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                bound => bound?,
            }
        }
        match socket.connect(&server.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => return Ok(socket),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn transparent(like: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(like), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_mark(FROM_PROXY)?;
    if like.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

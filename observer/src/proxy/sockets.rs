//! The proxy's sockets: they take connections to any address, and make some from any.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use observer_ebpf::proxy::FROM_PROXY;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::datagrams::{sum_up, tell_destinations, udp_header};

/// From here on are the ports of connections that are made under a client's address: below those that Linux gives to the
/// client itself, so that both may call the same server at once.
const FIRST_PORT: u16 = 16_384;
const PORTS: u16 = 16_384;
/// So many of them are tried.
const TRIES: u32 = 64;
/// Queries that wait to be read, with what the kernel keeps of each.
const QUERIES_BYTES: usize = 4 << 20;
/// Connections that wait to be accepted; the kernel takes what net.core.somaxconn allows.
const BACKLOG: i32 = 4096;

/// Listens on the loopback address of a family: only what the programs assign to it comes from outside.
pub fn listen(ipv6: bool) -> io::Result<Socket> {
    let address: SocketAddr =
        if ipv6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let socket = transparent(address, Type::STREAM)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Waits for datagrams at the address of a [`listen`]er: the programs know one port for both.
pub fn listen_udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = transparent(address, Type::DGRAM)?;
    tell_destinations(&socket, address.is_ipv6())?;
    // For bursts; as much of it as net.core.rmem_max allows.
    socket.set_recv_buffer_size(QUERIES_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Begins to connect to a server under the client's address; the socket becomes writable when that is done or has failed.
/// `port` begins the search for a free one. Without a client the node's own address is taken, as for a pod that calls itself,
/// which would be answered within itself.
pub fn connect(client: Option<SocketAddr>, server: SocketAddr, port: u16) -> io::Result<Socket> {
    connected(client, server, port, Type::STREAM)
}

/// Likewise a socket for datagrams to a server and from it.
pub fn connect_udp(client: Option<SocketAddr>, server: SocketAddr, port: u16) -> io::Result<Socket> {
    connected(client, server, port, Type::DGRAM)
}

/// Sends a datagram to a client as if the server did.
pub fn answer(server: SocketAddr, client: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let socket = transparent(server, Type::DGRAM)?;
    socket.set_reuse_address(true)?;
    match socket.bind(&server.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => answer_raw(server, client, datagram),
        bound => bound.and_then(|()| socket.send_to(datagram, &client.into())).map(drop),
    }
}

/// Likewise where a server of the node itself has the port; it takes CAP_NET_RAW.
fn answer_raw(server: SocketAddr, client: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::RAW, Some(Protocol::UDP))?;
    make_transparent(&socket, server)?;
    if server.is_ipv6() {
        sum_up(&socket)?;
    }
    let header =
        udp_header(server.port(), client.port(), datagram.len()).ok_or(io::ErrorKind::InvalidData)?;
    // A raw socket has no ports.
    let (from, to) = (SocketAddr::new(server.ip(), 0), SocketAddr::new(client.ip(), 0));
    socket.bind(&from.into())?;
    socket.send_to(&[&header[..], datagram].concat(), &to.into()).map(drop)
}

fn connected(client: Option<SocketAddr>, server: SocketAddr, port: u16, kind: Type) -> io::Result<Socket> {
    for offset in 0..TRIES {
        let socket = transparent(server, kind)?;
        if let Some(client) = client {
            let port = FIRST_PORT + (u32::from(port).wrapping_add(offset * 257) % u32::from(PORTS)) as u16;
            if kind == Type::STREAM {
                // Others that are bound to it may go on, as long as they call other servers.
                socket.set_reuse_address(true)?;
            }
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

fn transparent(like: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(like), kind, None)?;
    make_transparent(&socket, like)?;
    if like.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

fn make_transparent(socket: &Socket, like: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_mark(FROM_PROXY)?;
    if like.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

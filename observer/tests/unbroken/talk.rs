//! A client and a server that go on speaking.

use crate::{
    ALLOWED, DENIED, namespace_of,
    support::{PATIENCE, late::until},
};
use observer_lab::{Lab, netns};
use socket2::SockRef;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A datagram that no other is like.
pub(crate) fn datagram(size: usize) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut bytes = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
    bytes.resize(size, b'x');
    bytes
}

/// Sends a datagram until it is there: a socket's buffer may be full, and a path's size not known yet. Returns from where it came.
pub(crate) fn deliver(bytes: &[u8], to: &UdpSocket, send: impl Fn(&[u8])) -> SocketAddr {
    to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 2_048];
    until("a datagram", || {
        send(bytes);
        loop {
            match to.recv_from(&mut buffer) {
                Ok((length, from)) if buffer[..length] == *bytes => return Some(from),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

pub(crate) fn speak([here, there]: &[TcpStream; 2]) {
    for (mut from, mut to) in [(here, there), (there, here)] {
        from.write_all(b"still there").unwrap();
        to.read_exact(&mut [0; 11]).unwrap();
    }
}

pub(crate) fn got_nothing<T>(result: std::io::Result<T>) {
    assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// The client and the server by one family, and what they say to each other.
pub(crate) struct Talk {
    pub(crate) client: String,
    pub(crate) ip: IpAddr,
    /// The server's: by the port that is allowed, and by the one that is denied.
    pub(crate) sockets: [UdpSocket; 2],
    pub(crate) listeners: [TcpListener; 2],
    /// The client's, which goes on with the first of those.
    socket: UdpSocket,
    open: Vec<[TcpStream; 2]>,
}

impl Talk {
    pub(crate) fn new(lab: &Lab, family: usize) -> Self {
        let ip = lab.scenario().pod("shop", "server").unwrap().ips[family];
        let client = namespace_of(lab, "web", "client");
        let ports = [ALLOWED, DENIED];
        let (sockets, listeners) = netns::inside(&namespace_of(lab, "shop", "server"), || {
            let sockets = ports.map(|port| UdpSocket::bind((ip, port)).unwrap());
            Ok((sockets, ports.map(|port| TcpListener::bind((ip, port)).unwrap())))
        })
        .unwrap();
        sockets[1].set_nonblocking(true).unwrap();
        let socket = netns::inside(&client, || Ok(any_port(ip))).unwrap();
        socket.connect((ip, ALLOWED)).unwrap();
        let mut talk = Self { client, ip, sockets, listeners, socket, open: Vec::new() };
        talk.open = (0..45).map(|_| talk.connect(&talk.listeners[0])).collect();
        talk
    }

    /// A new connection.
    pub(crate) fn connect(&self, to: &TcpListener) -> [TcpStream; 2] {
        let address = to.local_addr().unwrap();
        let here = netns::inside(&self.client, || Ok(TcpStream::connect(address).unwrap())).unwrap();
        let both = [here, to.accept().unwrap().0];
        for end in &both {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        both
    }

    /// What is open goes on.
    pub(crate) fn goes_on(&self) {
        self.open.iter().for_each(speak);
        self.exchange(&self.socket);
    }

    fn exchange(&self, socket: &UdpSocket) {
        let [server, _] = &self.sockets;
        let from = deliver(&datagram(16), server, |bytes| {
            socket.send(bytes).unwrap();
        });
        deliver(&datagram(16), socket, |bytes| {
            server.send_to(bytes, from).unwrap();
        });
    }

    /// New connections by what is allowed are made, and by what is denied a datagram is sent.
    pub(crate) fn begin_anew(&self) {
        let both = self.connect(&self.listeners[0]);
        speak(&both);
        // Else the client runs out of ports.
        SockRef::from(&both[0]).set_linger(Some(Duration::ZERO)).unwrap();
        let socket = netns::inside(&self.client, || Ok(any_port(self.ip))).unwrap();
        socket.send_to(b"denied", (self.ip, DENIED)).unwrap();
        socket.connect((self.ip, ALLOWED)).unwrap();
        self.exchange(&socket);
    }

    pub(crate) fn nothing_denied_came(&self) {
        got_nothing(self.sockets[1].recv(&mut [0; 16]));
    }
}

/// A socket of this family, in the network namespace that one is in.
pub(crate) fn any_port(peer: IpAddr) -> UdpSocket {
    let any =
        if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    UdpSocket::bind((any, 0)).unwrap()
}

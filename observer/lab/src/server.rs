//! What listens in pods and on external hosts: HTTP, metrics, TCP and UDP echo, DNS. One thread a host, one a TCP
//! connection; each tells the ledger what it saw before its client can know that it is done.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use crate::dns::{self, Zone};
use crate::ledger::{Ledger, Served, TOKEN_LEN, read_token};
use crate::scenario::Servers;
use crate::{LabError, Result};

/// A client that says nothing for so long is left alone.
const IDLE: Duration = Duration::from_secs(10);
/// The longest request head that is read.
const MAX_HEAD: usize = 8192;
/// In a UDP payload after the token: the sender wants no echo.
pub(crate) const NO_ECHO: u8 = b's';

/// What all servers share.
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) zone: Zone,
}

impl Shared {
    /// Tells the ledger.
    fn served(&self, seen: Option<(u64, Served)>) {
        if let Some((id, seen)) = seen {
            self.ledger.served(id, seen);
        }
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Http,
    Metrics,
    Echo,
}

#[derive(Clone, Copy)]
enum Datagram {
    Echo,
    Dns,
}

/// The open listeners of one host.
pub(crate) struct Host {
    name: String,
    streams: Vec<(TcpListener, Stream)>,
    datagrams: Vec<(UdpSocket, Datagram)>,
}

/// Opens the listeners in the calling thread's namespace, one socket an address, so that each knows its own.
pub(crate) fn listen(name: &str, addresses: &[IpAddr], servers: Servers) -> Result<Host> {
    let mut host = Host { name: name.to_owned(), streams: Vec::new(), datagrams: Vec::new() };
    for address in addresses {
        let at = |port: Option<u16>| port.map(|port| SocketAddr::new(*address, port));
        let problem = |local: SocketAddr| LabError::system(format!("{name}: listening on {local}"));
        for (local, stream) in
            [(servers.http, Stream::Http), (servers.metrics, Stream::Metrics), (servers.echo, Stream::Echo)]
        {
            if let Some(local) = at(local) {
                let socket =
                    bind(local, Type::STREAM).and_then(|socket| socket.listen(1024).map(|()| socket));
                host.streams.push((socket.map_err(problem(local))?.into(), stream));
            }
        }
        for (local, datagram) in [(servers.echo, Datagram::Echo), (servers.dns, Datagram::Dns)] {
            if let Some(local) = at(local) {
                let socket = bind(local, Type::DGRAM);
                host.datagrams.push((socket.map_err(problem(local))?.into(), datagram));
            }
        }
    }
    Ok(host)
}

fn bind(local: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), kind, None)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_nonblocking(true)?;
    if kind == Type::DGRAM {
        // Room for a flood; the kernel takes what net.core.rmem_max allows.
        socket.set_recv_buffer_size(4 << 20)?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

impl Host {
    /// Serves until the write end of `stop` is closed.
    pub(crate) fn serve(self, shared: &Arc<Shared>, stop: &PipeReader) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let fds = self
                .streams
                .iter()
                .map(|(s, _)| s.as_fd())
                .chain(self.datagrams.iter().map(|(d, _)| d.as_fd()));
            let mut fds: Vec<_> = std::iter::once(stop.as_fd())
                .chain(fds)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            if !fds[0].revents().is_empty() {
                return;
            }
            for (listener, kind) in &self.streams {
                while let Ok((stream, peer)) = listener.accept() {
                    let (shared, name, kind) = (Arc::clone(shared), self.name.clone(), *kind);
                    // Ends by itself: reads and writes time out.
                    std::thread::spawn(move || serve_stream(&stream, peer, kind, name, &shared));
                }
            }
            for (socket, kind) in &self.datagrams {
                // Of a flood, many at once.
                let mut seen = None;
                // Bounded, so that a flood on one socket doesn't starve the others.
                for _ in 0..256 {
                    let Ok((length, peer)) = socket.recv_from(&mut buffer) else { break };
                    self.serve_datagram(socket, &buffer[..length], peer, *kind, shared, &mut seen);
                }
                shared.served(seen);
            }
        }
    }

    fn serve_datagram(
        &self,
        socket: &UdpSocket,
        payload: &[u8],
        peer: SocketAddr,
        kind: Datagram,
        shared: &Shared,
        seen: &mut Option<(u64, Served)>,
    ) {
        let (id, reply) = match kind {
            Datagram::Dns => {
                let token =
                    payload.len().checked_sub(TOKEN_LEN).and_then(|start| read_token(&payload[start..]));
                (token, dns::answer(payload, &shared.zone))
            }
            Datagram::Echo if payload.get(TOKEN_LEN) == Some(&NO_ECHO) => (read_token(payload), None),
            Datagram::Echo => (read_token(payload), Some(payload.to_vec())),
        };
        if let Some(id) = id {
            if seen.as_ref().is_none_or(|(known, served)| *known != id || served.peer != peer) {
                shared.served(seen.take());
                *seen = socket.local_addr().ok().map(|local| {
                    let by = self.name.clone();
                    (id, Served { by, local, peer, bytes_received: 0, bytes_sent: 0, received: 0 })
                });
            }
            if let Some((_, served)) = seen {
                served.bytes_received += payload.len() as u64;
                served.bytes_sent += reply.as_ref().map_or(0, Vec::len) as u64;
                served.received += 1;
            }
        }
        if let Some(reply) = reply {
            shared.served(seen.take());
            // A reply that can't be sent is one the client misses, and its entry says so.
            let _ = socket.send_to(&reply, peer);
        }
    }
}

/// What one connection gave: the ledger's id, bytes in, bytes out.
type Seen = (Option<u64>, u64, u64);

fn serve_stream(stream: &TcpStream, peer: SocketAddr, kind: Stream, by: String, shared: &Shared) {
    let run = || -> io::Result<Seen> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        match kind {
            Stream::Echo => echo(stream),
            Stream::Http => http(stream, api),
            Stream::Metrics => http(stream, metrics),
        }
    };
    if let (Ok((Some(id), bytes_received, bytes_sent)), Ok(local)) = (run(), stream.local_addr()) {
        let seen = Served { by, local, peer, bytes_received, bytes_sent, received: 1 };
        shared.ledger.served(id, seen);
    }
    // Only now can the client see the end of the stream, so its entry is never read without this side. An error means
    // that the client is gone.
    let _ = stream.shutdown(Shutdown::Write);
}

fn echo(mut stream: &TcpStream) -> io::Result<Seen> {
    let mut buffer = [0; 16384];
    let mut start = Vec::new();
    let mut total = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok((read_token(&start), total, total));
        }
        let wanted = TOKEN_LEN.saturating_sub(start.len()).min(length);
        start.extend(&buffer[..wanted]);
        stream.write_all(&buffer[..length])?;
        total += length as u64;
    }
}

/// Answers one request: (status line, content type, body) by method and path.
fn http(
    mut stream: &TcpStream,
    route: fn(&str, &str) -> (&'static str, &'static str, &'static str),
) -> io::Result<Seen> {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 || head.len() > MAX_HEAD {
            return Ok((None, 0, 0));
        }
        head.extend(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("x-lab-id: "))
        .and_then(|token| read_token(token.as_bytes()));
    let (status, kind, body) = route(method, path);
    let length = body.len();
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(reply.as_bytes())?;
    Ok((id, head.len() as u64, reply.len() as u64))
}

fn api(method: &str, path: &str) -> (&'static str, &'static str, &'static str) {
    let json = "application/json";
    match (method, path) {
        ("GET", "/api/v1/charges") => ("200 OK", json, r#"{"charges":[{"id":"ch_1","amount":1250}]}"#),
        ("POST", "/api/v1/charges") => ("201 Created", json, r#"{"id":"ch_2","amount":900}"#),
        ("GET", "/api/v1/refunds") => ("200 OK", json, r#"{"refunds":[{"id":"re_1","charge":"ch_1"}]}"#),
        ("GET" | "POST", _) => ("404 Not Found", json, r#"{"error":"not found"}"#),
        _ => ("405 Method Not Allowed", json, r#"{"error":"method not allowed"}"#),
    }
}

fn metrics(_: &str, path: &str) -> (&'static str, &'static str, &'static str) {
    let kind = "text/plain; version=0.0.4";
    match path {
        "/metrics" => ("200 OK", kind, "# TYPE lab_up gauge\nlab_up 1\n"),
        _ => ("404 Not Found", kind, "not found\n"),
    }
}

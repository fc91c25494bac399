//! The openers: one thread a traffic entry, in the namespace of its source.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::ledger::{Entry, Ledger, Outcome, Stamp, TOKEN_LEN, token};
use crate::scenario::{Cause, Family, Kind, Traffic};
use crate::server::NO_ECHO;
use crate::{dns, ledger};

/// The source ports in use: inside of the kernel's `ip_local_port_range`.
const PORTS: std::ops::Range<u32> = 32768..60999;
/// Floods send so often a second, each time what is due.
const FLOOD_TICK: Duration = Duration::from_millis(2);
/// With one system call.
const FLOOD_BATCH: usize = 64;

/// Tells all traffic to end, at once also where it waits.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until a moment, or until the stop; true = stopped.
    pub(crate) fn wait_until(&self, moment: Instant) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if *stopped || left.is_zero() {
                return *stopped;
            }
            stopped = self.changed.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Source ports of one host, each used once before any comes again: a port that is used twice within a test would make
/// two connections one flow.
#[derive(Debug, Default)]
pub(crate) struct Ports(AtomicU32);

impl Ports {
    fn next(&self) -> u16 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        (PORTS.start + count % (PORTS.end - PORTS.start)) as u16
    }
}

/// One traffic entry, ready to run in the calling thread's namespace.
pub(crate) struct Opener {
    pub(crate) traffic: Traffic,
    /// The source's addresses.
    pub(crate) sources: Vec<IpAddr>,
    /// The destination's.
    pub(crate) destinations: Vec<IpAddr>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) ledger: Arc<Ledger>,
}

/// What one connection gave.
#[derive(Default)]
struct Told {
    bytes_sent: u64,
    bytes_received: u64,
    sent: u64,
    received: u64,
}

impl Opener {
    /// Runs until the count is reached or `stop`.
    pub(crate) fn run(&self, stop: &Stop) {
        let traffic = &self.traffic;
        let start = Instant::now() + Duration::from_millis(traffic.delay_ms);
        if stop.wait_until(start) {
            return;
        }
        let rounds = if traffic.kind == Kind::Flood { 1 } else { traffic.count.unwrap_or(u64::MAX) };
        let interval = Duration::from_millis(traffic.interval_ms);
        let mut due = Instant::now();
        for round in 0..rounds {
            let ipv4 = match traffic.family {
                Family::V4 => true,
                Family::V6 => false,
                Family::Both => round % 2 == 0,
            };
            self.one(ipv4, stop);
            // Of what was late nothing is made up for: no burst after a pause.
            due = (due + interval).max(Instant::now());
            if stop.wait_until(due) {
                return;
            }
        }
    }

    fn one(&self, ipv4: bool, stop: &Stop) {
        let traffic = &self.traffic;
        let pick = |list: &[IpAddr]| list.iter().copied().find(|address| address.is_ipv4() == ipv4);
        // Validation holds that both exist.
        let (Some(source), Some(destination)) = (pick(&self.sources), pick(&self.destinations)) else {
            return;
        };
        let called = SocketAddr::new(destination, traffic.port.unwrap_or(0));
        let id = self.ledger.next_id();
        let (kind, protocol) = match traffic.kind {
            Kind::Http | Kind::Tcp => (Type::STREAM, Protocol::TCP),
            Kind::Udp | Kind::Flood | Kind::Dns => (Type::DGRAM, Protocol::UDP),
            Kind::Ping if ipv4 => (Type::DGRAM, Protocol::ICMPV4),
            Kind::Ping => (Type::DGRAM, Protocol::ICMPV6),
        };
        let opened = self.open(source, kind, protocol);
        let start = Stamp::now();
        let mut told = Told::default();
        let (source, result) = match opened {
            Ok((socket, source)) => {
                let result = self.talk(&socket, id, called, stop, &mut told);
                // The entry is written before the socket is closed, so its last packets come before its `end` or
                // shortly after.
                (source, result)
            }
            Err(error) => (SocketAddr::new(source, 0), Err(error)),
        };
        let outcome = match result {
            Ok(()) => Outcome::Ok,
            Err(error) => outcome(&error),
        };
        self.ledger.opened(Entry {
            id,
            traffic: traffic.name.clone(),
            kind: traffic.kind,
            protocol: i32::from(protocol) as u8,
            from: traffic.from.to_string(),
            source,
            to: traffic.to.to_string(),
            called,
            served: None,
            expected: traffic.expect,
            expected_reasons: traffic.expect.reasons().iter().map(ToString::to_string).collect(),
            outcome,
            bytes_sent: told.bytes_sent,
            bytes_received: told.bytes_received,
            sent: told.sent,
            received: told.received,
            start,
            end: Stamp::now(),
        });
    }

    /// A socket bound to the source's address and the next free port, which is known also when connecting fails.
    fn open(&self, source: IpAddr, kind: Type, protocol: Protocol) -> io::Result<(Socket, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(source, 0)), kind, Some(protocol))?;
        socket.set_read_timeout(Some(self.traffic.timeout()))?;
        socket.set_write_timeout(Some(self.traffic.timeout()))?;
        match (source, self.traffic.ttl) {
            (_, None) => {}
            (IpAddr::V4(_), Some(ttl)) => socket.set_ttl_v4(ttl)?,
            (IpAddr::V6(_), Some(ttl)) => socket.set_unicast_hops_v6(ttl)?,
        }
        if self.traffic.expect == Cause::TooBig {
            // Don't-fragment, whatever was learned of the path: every packet is too big again.
            if source.is_ipv4() {
                sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::PROBE)?;
            } else {
                sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::PROBE)?;
            }
        }
        for _ in PORTS {
            let local = SocketAddr::new(source, self.ports.next());
            match socket.bind(&local.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound.map(|()| (socket, local)),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn talk(
        &self,
        socket: &Socket,
        id: u64,
        called: SocketAddr,
        stop: &Stop,
        told: &mut Told,
    ) -> io::Result<()> {
        let traffic = &self.traffic;
        if traffic.kind != Kind::Ping && traffic.kind != Kind::Http && traffic.kind != Kind::Tcp {
            socket.connect(&called.into())?;
        }
        match traffic.kind {
            Kind::Http => {
                told.sent = 1;
                socket.connect_timeout(&called.into(), traffic.timeout())?;
                told.received = 1;
                let path = traffic.path.as_deref().unwrap_or("/");
                let token = String::from_utf8_lossy(&token(id)).into_owned();
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: {called}\r\nx-lab-id: {token}\r\nconnection: close\r\n\r\n"
                );
                send_all(socket, request.as_bytes(), told)?;
                let head = read_to_end(socket, told)?;
                if head.starts_with(b"HTTP/1.1 ") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
            }
            Kind::Tcp => {
                told.sent = 1;
                socket.connect_timeout(&called.into(), traffic.timeout())?;
                told.received = 1;
                tcp_echo(socket, &payload(id, traffic.bytes, 0), told)
            }
            Kind::Udp => exchange(socket, &payload(id, traffic.bytes, 0), told).map(|_| ()),
            Kind::Flood => self.flood(socket, &payload(id, traffic.bytes, NO_ECHO), stop, told),
            Kind::Dns => {
                let name = traffic.path.as_deref().unwrap_or_default();
                let answer = exchange(socket, &dns::query(id, name, called.is_ipv4(), &token(id)), told)?;
                if answer.starts_with(&(id as u16).to_be_bytes()) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                }
            }
            Kind::Ping => {
                socket.connect(&called.into())?;
                // Echo request, code 0; the kernel fills in checksum and identifier.
                let kind = if called.is_ipv4() { 8 } else { 128 };
                let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 1];
                message.extend(payload(id, traffic.bytes, 0));
                exchange(socket, &message, told).map(|_| ())
            }
        }
    }

    fn flood(&self, socket: &Socket, payload: &[u8], stop: &Stop, told: &mut Told) -> io::Result<()> {
        let (count, rate) = (self.traffic.count.unwrap_or(0), self.traffic.rate.unwrap_or(1));
        let datagram = [IoSlice::new(payload)];
        let mut nothing: Vec<_> = (0..FLOOD_BATCH).map(|_| SendAncillaryBuffer::default()).collect();
        let mut batch: Vec<_> = nothing.iter_mut().map(|control| MMsgHdr::new(&datagram, control)).collect();
        let start = Instant::now();
        while told.sent < count {
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64 + 1;
            while told.sent < due.min(count) {
                let size =
                    usize::try_from(due.min(count) - told.sent).unwrap_or(FLOOD_BATCH).min(FLOOD_BATCH);
                let sent = sendmmsg(socket, &mut batch[..size], SendFlags::empty())? as u64;
                told.bytes_sent += sent * payload.len() as u64;
                told.sent += sent;
            }
            if stop.wait_until(Instant::now() + FLOOD_TICK) {
                break;
            }
        }
        Ok(())
    }
}

fn payload(id: u64, bytes: usize, wish: u8) -> Vec<u8> {
    let mut payload = vec![b'.'; bytes];
    payload[..TOKEN_LEN].copy_from_slice(&ledger::token(id));
    payload[TOKEN_LEN] = wish;
    payload
}

fn send_all(socket: &Socket, mut bytes: &[u8], told: &mut Told) -> io::Result<()> {
    while !bytes.is_empty() {
        let length = socket.send(bytes)?;
        told.bytes_sent += length as u64;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// Reads until the peer closes; returns the first bytes.
fn read_to_end(mut socket: &Socket, told: &mut Told) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let length = io::Read::read(&mut socket, &mut buffer)?;
        if length == 0 {
            return Ok(first);
        }
        if first.is_empty() {
            first.extend(&buffer[..length.min(64)]);
        }
        told.bytes_received += length as u64;
    }
}

/// Writes and reads by turns, so that neither side waits for the other with full buffers.
fn tcp_echo(mut socket: &Socket, payload: &[u8], told: &mut Told) -> io::Result<()> {
    let mut buffer = [0; 16384];
    for chunk in payload.chunks(buffer.len()) {
        send_all(socket, chunk, told)?;
        let want = told.bytes_sent;
        while told.bytes_received < want {
            let length = io::Read::read(&mut socket, &mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            told.bytes_received += length as u64;
        }
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    read_to_end(socket, told).map(|_| ())
}

/// One datagram there, one back.
fn exchange(mut socket: &Socket, payload: &[u8], told: &mut Told) -> io::Result<Vec<u8>> {
    told.sent = 1;
    told.bytes_sent = socket.send(payload)? as u64;
    let mut buffer = vec![0; 1 << 16];
    let length = io::Read::read(&mut socket, &mut buffer)?;
    told.received = 1;
    told.bytes_received = length as u64;
    buffer.truncate(length);
    Ok(buffer)
}

fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => Outcome::Refused,
        // ICMPv6 "no route" and "time exceeded" arrive as these; EPROTO is IPv6's other hard error.
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => Outcome::Unreachable,
        Some(Errno::MSGSIZE) => Outcome::TooBig,
        Some(Errno::AGAIN | Errno::TIMEDOUT | Errno::INPROGRESS) => Outcome::TimedOut,
        _ if error.kind() == io::ErrorKind::TimedOut => Outcome::TimedOut,
        _ => Outcome::Failed(error.to_string()),
    }
}

//! A client and a server of DNS (RFC 1035). The address of a name is told by the number in it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

#[path = "../l7/dns_stream.rs"]
mod dns_stream;

use dns_stream::{receive, with_length};
use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Mutex,
    time::Duration,
};

/// What a server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) client: IpAddr,
    pub(crate) name: String,
}

const HEADER: usize = 12;

fn question(id: u16, name: &str, is_ipv6: bool) -> Vec<u8> {
    let mut message = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([0, if is_ipv6 { 28 } else { 1 }, 0, 1]);
    message
}

/// The name, where the question ends, and whether it is for IPv6.
fn read(message: &[u8]) -> (String, usize, bool) {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).into_owned());
        at = end;
    }
    (labels.join("."), at + 5, message[at + 2] == 28)
}

/// Of `n7.partner.example` 7, of others 65535.
fn address(name: &str, is_ipv6: bool) -> IpAddr {
    let first = name.split('.').next().unwrap();
    let number: u16 = first.strip_prefix('n').and_then(|number| number.parse().ok()).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    if is_ipv6 {
        Ipv6Addr::from([0xfd98, 0, 0, 0, 0, 0, 0, number]).into()
    } else {
        Ipv4Addr::from([198, 18, high, low]).into()
    }
}

fn answer(query: &[u8], client: IpAddr, log: &Mutex<Vec<Asked>>) -> Vec<u8> {
    let (name, end, is_ipv6) = read(query);
    let ip = address(&name, is_ipv6);
    log.lock().unwrap().push(Asked { client: client.to_canonical(), name });
    let mut message = [query[..2].to_vec(), [0x8180_u16, 1, 1, 0, 0].map(u16::to_be_bytes).concat()].concat();
    message.extend(&query[HEADER..end]);
    let (kind, bytes) = match ip {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (28, ip.octets().to_vec()),
    };
    message.extend([0xc00c_u16, kind, 1, 0, 5, bytes.len() as u16].map(u16::to_be_bytes).concat());
    message.extend(bytes);
    message
}

pub(crate) fn serve_udp(socket: &UdpSocket, log: &Mutex<Vec<Asked>>) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query) {
        let _ = socket.send_to(&answer(&query[..length], client.ip(), log), client);
    }
}

pub(crate) fn serve_tcp(listener: &TcpListener, log: &Mutex<Vec<Asked>>) {
    while let Ok((mut stream, client)) = listener.accept() {
        while let Ok(query) = receive(&mut stream) {
            let answer = answer(&query, client.ip(), log);
            if send(&mut stream, &answer).is_err() {
                break;
            }
        }
    }
}

fn send(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(&with_length(message))
}

/// The code of an answer and the address in it.
fn parse(message: &[u8]) -> (u8, Vec<IpAddr>) {
    let count = usize::from(message[7]);
    let (name, _, is_ipv6) = read(message);
    (message[3] & 15, (0..count).map(|_| address(&name, is_ipv6)).collect())
}

/// What is answered by UDP, waited for as long as resolvers do.
pub(crate) fn ask_udp(server: SocketAddr, name: &str, is_ipv6: bool) -> (u8, Vec<IpAddr>) {
    udp(server, name, is_ipv6, Duration::from_secs(5))
        .unwrap_or_else(|| panic!("{server}: no answer on {name}"))
}

/// Whether any answer comes.
pub(crate) fn try_udp(server: SocketAddr, name: &str, patience: Duration) -> Option<u8> {
    udp(server, name, false, patience).map(|(rcode, _)| rcode)
}

fn udp(server: SocketAddr, name: &str, is_ipv6: bool, patience: Duration) -> Option<(u8, Vec<IpAddr>)> {
    ask_by(&udp_to(server), name, is_ipv6, patience)
}

/// A port to ask from.
pub(crate) fn udp_to(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.connect(server).unwrap();
    socket
}

pub(crate) fn ask_by(
    socket: &UdpSocket,
    name: &str,
    is_ipv6: bool,
    patience: Duration,
) -> Option<(u8, Vec<IpAddr>)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(&question(7, name, is_ipv6)).unwrap();
    let mut message = [0; 512];
    let length = socket.recv(&mut message).ok()?;
    assert_eq!(message[..2], [0, 7]);
    Some(parse(&message[..length]))
}

/// Likewise by TCP.
pub(crate) fn ask_tcp(server: SocketAddr, name: &str, is_ipv6: bool) -> (u8, Vec<IpAddr>) {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    send(&mut stream, &question(7, name, is_ipv6)).unwrap();
    let message = receive(&mut stream).unwrap();
    assert_eq!(message[..2], [0, 7]);
    parse(&message)
}

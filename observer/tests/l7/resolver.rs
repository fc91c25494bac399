//! A client and a server of DNS over UDP and TCP, the server with a log of its own. Messages are made by hand: RFC 1035.

use crate::dns_stream::{receive, with_length};
use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Mutex,
    time::{Duration, Instant},
};

/// What the server answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// With the dot at its end.
    pub(crate) name: String,
    pub(crate) is_tcp: bool,
    pub(crate) rcode: u32,
    pub(crate) ips: Vec<String>,
    pub(crate) cnames: Vec<String>,
    /// From the question to the answer.
    pub(crate) took: Duration,
}

/// First labels of names by what is answered: addresses, an alias of an alias, no such name, a failure, and what is too
/// long for UDP.
pub(crate) const KINDS: [&str; 5] = ["plain", "alias", "nothing", "failure", "long"];

const PLAIN: u16 = 0x8180;
const TRUNCATED: u16 = PLAIN | 0x0200;

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.');
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let header = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    [&header[..], &encoded(name), &[0, 1, 0, 1]].concat()
}

fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let fixed = [kind, 1, 0, 30, data.len() as u16].map(u16::to_be_bytes).concat();
    [&encoded(owner)[..], &fixed, data].concat()
}

/// The answer to a question, and what the log says of it.
fn answer(query: &[u8], is_tcp: bool) -> (Vec<u8>, Answered) {
    let (mut at, mut name) = (12, String::new());
    while query[at] != 0 {
        let length = usize::from(query[at]);
        name += std::str::from_utf8(&query[at + 1..=at + length]).unwrap();
        name.push('.');
        at += 1 + length;
    }
    let address = |last: u8| ([198, 51, 100, last], format!("198.51.100.{last}"));
    let kind = name.split(['-', '.']).next().unwrap();
    let (mut flags, mut owner, mut records, mut ips, mut cnames) =
        (PLAIN, name.clone(), Vec::new(), Vec::new(), Vec::new());
    let mut addresses: Vec<u8> = Vec::new();
    match kind {
        "alias" => {
            for next in ["first.example.", "second.example."] {
                records.push(record(&owner, 5, &encoded(next)));
                cnames.push(next.to_owned());
                next.clone_into(&mut owner);
            }
            addresses.push(7);
        }
        "nothing" => flags |= 3,
        "failure" => flags |= 2,
        "long" if !is_tcp => flags = TRUNCATED,
        "long" => addresses.extend(1..=60),
        _ => addresses.extend([1, 2]),
    }
    for last in addresses {
        let (bytes, text) = address(last);
        records.push(record(&owner, 1, &bytes));
        ips.push(text);
    }
    let id = u16::from_be_bytes([query[0], query[1]]);
    let header = [id, flags, 1, records.len() as u16, 0, 0].map(u16::to_be_bytes).concat();
    let message = [&header[..], &query[12..at + 5], &records.concat()].concat();
    (message, Answered { name, is_tcp, rcode: u32::from(flags & 15), ips, cnames, took: Duration::ZERO })
}

/// Answers datagrams until the process ends.
pub(crate) fn serve_udp(socket: &UdpSocket, log: &Mutex<Vec<Answered>>) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let began = Instant::now();
        let (message, answered) = answer(&query[..length], false);
        log.lock().unwrap().push(Answered { took: began.elapsed(), ..answered });
        socket.send_to(&message, from).unwrap();
    }
}

/// Answers streams until the process ends.
pub(crate) fn serve_tcp(listener: &TcpListener, log: &Mutex<Vec<Answered>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).unwrap();
        while let Ok(query) = receive(&mut stream) {
            let began = Instant::now();
            let (message, answered) = answer(&query, true);
            log.lock().unwrap().push(Answered { took: began.elapsed(), ..answered });
            // In several segments, also where it is the first of all.
            for part in with_length(&message).chunks(700) {
                stream.write_all(part).unwrap();
            }
        }
    }
}

/// Asks for this many names of each kind, by UDP, and what was too long again by TCP, several on a connection.
pub(crate) fn ask(server: SocketAddr, count: u16) {
    let any = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    let mut message = [0; 1500];
    for number in 0..count {
        for kind in KINDS {
            let name = format!("{kind}-{number}-{}.lab.example", u8::from(server.is_ipv6()));
            let query = question(number, &name);
            socket.send(&query).unwrap();
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(message[..2], number.to_be_bytes());
            assert!(length >= query.len());
            if message[2] & 2 != 0 {
                stream.write_all(&with_length(&query)).unwrap();
                assert_eq!(receive(&mut stream).unwrap()[..2], number.to_be_bytes());
            }
        }
    }
}

//! HTTP/2 by hand, for what no client's library would send.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field, not indexed, its name in full (RFC 7541, 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        // Lengths of seven bits, or seven ones and the rest in groups of seven.
        let mut length = vec![text.len().min(127) as u8];
        if let Some(mut rest) = text.len().checked_sub(127) {
            while rest >= 128 {
                length.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            length.push(rest as u8);
        }
        [length, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a call of GetFlows.
pub(crate) fn call() -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/observer.Observer/GetFlows"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

/// A message as gRPC frames it.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A connection that has said hello.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Sends until the server has had enough, and reads what it answers until it closes. Panics if it takes everything.
pub(crate) fn flood(address: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) {
    let mut stream = connect(address);
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
    let refused = pieces.into_iter().any(|piece| stream.write_all(&piece).is_err());
    if !refused {
        // What is sent is not yet read: the end then comes with the answers.
        let _ = stream.shutdown(Shutdown::Write);
    }
    // Closed or reset, as the kernel likes.
    let _ = reader.join().unwrap();
}

/// Waits for the server's end of a connection that it must close.
pub(crate) fn closed(mut stream: TcpStream) {
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut Vec::new());
}

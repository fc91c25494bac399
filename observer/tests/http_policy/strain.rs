//! What the proxy bears: many connections, long bodies, clients and servers that stall, reset and break off. Nothing of it is
//! left behind, and its memory has a bound.

use crate::{
    bed::{Bed, SERVER, reset},
    support::{Daemon, can_run, late, scaled},
};
use std::{
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

const CLIENT: &str = "frontend-app";
const ALLOWED: &str = "GET /api/v1/charges HTTP/1.1\r\nHost: h\r\n\r\n";
const DENIED: &str = "DELETE /api/v1/charges HTTP/1.1\r\nHost: h\r\n\r\n";
const CONNECTIONS: usize = 1_000;
/// What of memory is little, and what kernels may keep of a body.
const MOST: u64 = 64 << 20;
/// What a state is repeated.
const TIMES: usize = 20;

/// Of the daemon: open files, and the most memory that it has had, bytes.
fn taken(daemon: &Daemon) -> (usize, u64) {
    let process = format!("/proc/{}", daemon.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    (std::fs::read_dir(format!("{process}/fd")).unwrap().count(), kib << 10)
}

/// Waits until no connection is left of those since `before`.
fn none_is_left(daemon: &Daemon, before: usize) {
    // Files of other things come and go.
    late::until("no connection is left", || (taken(daemon).0 <= before + 8).then_some(()));
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// The head of an answer.
fn head(reader: &mut impl std::io::BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "ended after {head:?}");
    }
    head
}

/// What a request is answered; the body is read as well.
fn answer(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let head = head(&mut reader);
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let length: u64 = length.unwrap_or(0);
    let read = std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
    assert_eq!(read, length, "{head}");
    head.lines().next().unwrap_or_default().to_owned()
}

/// That only what is allowed was asked.
fn nothing_denied_was_asked(bed: &Bed) {
    let asked = bed.asked();
    let wrong =
        asked.iter().find(|line| !line.ends_with(" /api/v1/charges HTTP/1.1") || line.contains("DELETE"));
    assert_eq!(wrong, None);
}

#[test]
fn a_thousand_connections_are_kept_and_leave_nothing() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon(&[]);
    let before = taken(&daemon).0;
    let mut open: Vec<TcpStream> =
        (0..CONNECTIONS).map(|number| bed.open(CLIENT, SERVER[number % 2])).collect();
    for _ in 0..3 {
        for (request, status) in [(ALLOWED, "HTTP/1.1 200 OK"), (DENIED, "HTTP/1.1 403 Forbidden")] {
            for stream in &mut open {
                say(stream, request);
            }
            for stream in &mut open {
                assert_eq!(answer(stream), status);
            }
        }
    }
    assert_eq!(bed.asked().len(), 3 * CONNECTIONS);
    drop(open);
    none_is_left(&daemon, before);
}

#[test]
fn bodies_of_any_length_pass_and_take_no_memory() {
    if !can_run("http_policy") {
        return;
    }
    let size: u64 = scaled(1 << 28, 1 << 30);
    let bed = Bed::up("routed");
    let daemon = bed.daemon(&[]);
    let mut stream = bed.open(CLIENT, SERVER[0]);
    say(&mut stream, ALLOWED);
    answer(&mut stream);
    let (_, before) = taken(&daemon);
    // There, and back.
    say(&mut stream, &format!("POST /api/v1/charges HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n"));
    std::io::copy(&mut std::io::repeat(b'a').take(size), &mut stream).unwrap();
    assert_eq!(answer(&mut stream), "HTTP/1.1 200 OK");
    say(&mut stream, &format!("GET /api/v1/charges HTTP/1.1\r\nHost: h\r\nX-Size: {size}\r\n\r\n"));
    assert_eq!(answer(&mut stream), "HTTP/1.1 200 OK");
    // A client that doesn't read holds up the server, and a server that doesn't read the client.
    let slow: Vec<TcpStream> = (0..TIMES)
        .map(|_| {
            let mut stream = bed.open(CLIENT, SERVER[0]);
            say(&mut stream, &format!("GET /api/v1/charges HTTP/1.1\r\nHost: h\r\nX-Size: {size}\r\n\r\n"));
            stream
        })
        .collect();
    let mut stalled = bed.open(CLIENT, SERVER[0]);
    stalled.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let request =
        format!("POST /api/v1/charges HTTP/1.1\r\nHost: h\r\nX-Do: stall\r\nContent-Length: {size}\r\n\r\n");
    say(&mut stalled, &request);
    let (mut sent, part) = (0, vec![b'a'; 65_536]);
    while let Ok(more) = stalled.write(&part) {
        sent += more as u64;
    }
    assert!(sent < MOST, "{sent} bytes were taken of a body that nobody reads");
    // Even the most may shrink: Linux adds up resident pages by processor, roughly since 6.2.
    let grown = taken(&daemon).1.saturating_sub(before);
    assert!(grown < MOST, "it takes {grown} bytes more");
    // The slow ones go on where they were.
    for mut stream in slow.into_iter().take(2) {
        assert_eq!(answer(&mut stream), "HTTP/1.1 200 OK");
    }
    nothing_denied_was_asked(&bed);
}

#[test]
fn resets_at_any_time_leave_nothing_and_hang_nobody() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon(&[]);
    let before = taken(&daemon).0;
    let body = "POST /api/v1/charges HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    let long = "GET /api/v1/charges HTTP/1.1\r\nHost: h\r\nX-Size: 100000000\r\n\r\n";
    let stalls = "GET /api/v1/charges HTTP/1.1\r\nHost: h\r\nX-Do: stall\r\n\r\n";
    let begun = &format!("{body}abc");
    // Clients: after so much was said, and so much was read.
    for (said, read) in [
        ("", 0),
        ("GET /api/v1", 0),
        (body, 0),
        (begun, 0),
        (stalls, 0),
        (ALLOWED, 1),
        (DENIED, 1),
        (long, 100_000),
    ] {
        for number in 0..TIMES {
            let mut stream = bed.open(CLIENT, SERVER[number % 2]);
            say(&mut stream, said);
            stream.read_exact(&mut vec![0; read]).unwrap();
            reset(&stream);
        }
    }
    // Servers: before they answer, and within an answer.
    for (what, status) in [("reset", "HTTP/1.1 502 Bad Gateway"), ("break", "HTTP/1.1 200 OK")] {
        for number in 0..TIMES {
            let mut stream = bed.open(CLIENT, SERVER[number % 2]);
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let size = "X-Size: 100000000";
            say(
                &mut stream,
                &format!("GET /api/v1/charges HTTP/1.1\r\nHost: h\r\n{size}\r\nX-Do: {what}\r\n\r\n"),
            );
            let mut reader = BufReader::new(&mut stream);
            assert_eq!(head(&mut reader).lines().next(), Some(status), "{what}");
            if what == "break" {
                let mut rest = Vec::new();
                // It ends, one way or the other, before it is whole.
                let _ = reader.read_to_end(&mut rest);
                assert!(rest.len() < 100_000_000);
            }
        }
    }
    none_is_left(&daemon, before);
    let mut stream = bed.open(CLIENT, SERVER[0]);
    say(&mut stream, ALLOWED);
    assert_eq!(answer(&mut stream), "HTTP/1.1 200 OK");
    nothing_denied_was_asked(&bed);
}

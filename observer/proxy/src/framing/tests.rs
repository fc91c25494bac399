//! What is refused, and what is in order, with where it ends; the same however it is split.

use super::*;

/// How much of the text is passed on, given byte by byte, and whether it then breaks; must be the same given at once.
fn passed(text: &[u8]) -> Result<usize, usize> {
    let at_once = run(text, text.len());
    assert_eq!(at_once, run(text, 1), "{:?}", String::from_utf8_lossy(text));
    at_once
}

fn run(text: &[u8], step: usize) -> Result<usize, usize> {
    let mut framing = Framing::new();
    let (mut given, mut passed) = (0, 0);
    while given < text.len() {
        given = (given + step).min(text.len());
        loop {
            match framing.pass(&text[passed..given]) {
                Ok(0) => break,
                Ok(more) => passed += more,
                Err(Broken) => return Err(passed),
            }
        }
    }
    Ok(passed)
}

/// A request with these lines behind the first, and a host.
fn get(lines: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
}

fn post(coding: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{coding}\r\n{body}").into_bytes()
}

#[test]
fn what_is_in_order_passes_whole() {
    for text in [
        get(""),
        get("A: b\r\nC:\r\nD:\t e \r\n"),
        [get(""), get("")].concat(),
        [b"\r\n".to_vec(), get("")].concat(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        b"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        b"GET http://H:80/a HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        b"GET /a HTTP/1.1\r\nHost:\r\n\r\n".to_vec(),
        b"GET /a HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n".to_vec(),
        [post("Content-Length: 3\r\n", "abc"), get("")].concat(),
        post("Content-Length: 0\r\n", ""),
        [post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n"), get("")]
            .concat(),
        post("Transfer-Encoding: CHUNKED\r\n", "0\r\nX-Sum: 1\r\n\r\n"),
    ] {
        assert_eq!(passed(&text), Ok(text.len()), "{:?}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let wrong: &[&[u8]] = &[
        // Two lengths, or a length in doubt.
        &post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"),
        &post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
        &post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
        &post("Content-Length: 3, 3\r\n", "abc"),
        &post("Content-Length: +3\r\n", "abc"),
        &post("Content-Length: -3\r\n", "abc"),
        &post("Content-Length: 0x3\r\n", "abc"),
        &post("Content-Length: 3 3\r\n", "abc"),
        &post("Content-Length:\r\n", "abc"),
        &post("Content-Length: 99999999999999999999\r\n", "abc"),
        &post("Content-Length : 3\r\n", "abc"),
        &post(" Content-Length: 3\r\n", "abc"),
        // Codings.
        &post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: identity\r\n", ""),
        &post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding:\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        &post("Transfer-Encoding\x00: chunked\r\n", "0\r\n\r\n"),
        &post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        &post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        b"POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Lines.
        &get("A: b\r\n c\r\n"),
        &get("A: b\r\n\tc\r\n"),
        &get(" A: b\r\n"),
        &get("A b\r\n"),
        &get(": b\r\n"),
        &get("A: \x00\r\n"),
        b"GET /a HTTP/1.1\nHost: h\n\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\n",
        b"\n\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/1.1\r\n Host: h\r\n\r\n",
        // The first line.
        b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/1.2\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET /a http/1.1\r\nHost: h\r\n\r\n",
        b"GE(T /a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
        // Hosts.
        b"GET /a HTTP/1.1\r\n\r\n",
        &get("Host: h\r\n"),
        &get("hOST: other\r\n"),
        b"GET /a HTTP/1.1\r\nHost: h/admin\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n",
        b"GET http://h/a HTTP/1.1\r\nHost: other\r\n\r\n",
        b"GET http://u@h/a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET https://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET h/a HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    for text in wrong {
        assert_eq!(passed(text), Err(0), "{:?}", String::from_utf8_lossy(text));
    }
    for body in [
        "\r\n",
        "x\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;\x0b\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nabc",
    ] {
        let text = post(chunked, body);
        assert_eq!(passed(&text), Err(text.len() - body.len()), "{body:?}");
    }
    for (body, good) in [
        ("3\r\nabcd\r\n0\r\n\r\n", 6),
        ("3\r\nabc\n0\r\n\r\n", 6),
        ("3\r\nabc0\r\n\r\n", 6),
        ("0\r\nContent-Length: 3\r\n\r\n", 3),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", 3),
        ("0\r\nHost: h\r\n\r\n", 3),
        ("0\r\nA: b\n\r\n", 3),
        ("0\r\n A: b\r\n\r\n", 3),
        ("0\r\nA: b\r\n c\r\n\r\n", 9),
        ("0\r\nA b\r\n\r\n", 3),
    ] {
        let text = post(chunked, body);
        assert_eq!(passed(&text), Err(text.len() - body.len() + good), "{body:?}");
    }
}

#[test]
fn what_is_not_whole_is_awaited_but_not_for_ever() {
    assert_eq!(passed(b"GET /a HTTP/1.1\r\nHost: h\r\n\r"), Ok(0));
    assert_eq!(passed(&post("Transfer-Encoding: chunked\r\n", "3")), Ok(57));
    let endless = [b"GET /a HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; MOST_HEAD]].concat();
    assert_eq!(run(&endless, endless.len()), Err(0));
    let size = post("Transfer-Encoding: chunked\r\n", &format!("3;{}", "a".repeat(MOST_CHUNK_LINE)));
    assert_eq!(run(&size, size.len()), Err(57));
    let lines = "A: b\r\n".repeat(MOST_TRAILERS / 6 + 1);
    assert!(run(&post("Transfer-Encoding: chunked\r\n", &format!("0\r\n{lines}\r\n")), 1 << 20).is_err());
    let many = "A: b\r\n".repeat(MOST_HEADERS);
    assert_eq!(run(&get(&many), 1 << 20), Err(0));
}

#[test]
fn another_protocol_passes_as_it_is() {
    let mut framing = Framing::new();
    framing.switch();
    assert_eq!(framing.pass(b"\0\n\r"), Ok(3));
}

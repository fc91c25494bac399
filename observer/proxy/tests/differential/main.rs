//! Requests of all shapes to two real servers, straight and through the proxy: the answers are the same, but for their date.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod servers;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use observer_proxy::{Limits, Ruling, Session, serve};
use servers::Servers;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Allows everything to a server.
struct To(PathBuf);

impl Session for To {
    type Asked = ();
    type Server = UnixStream;

    fn ask(&self, _: &Parts) -> (Ruling, ()) {
        (Ruling::Allow, ())
    }

    fn answered(&self, (): (), _: u16) {}

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0).await
    }
}

/// An answer without what differs from one to the next.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    reason: String,
    headers: BTreeSet<(String, String)>,
    body: Vec<u8>,
    /// Whether the server ends the connection.
    ends: bool,
}

/// All shapes of requests.
fn shapes() -> Vec<String> {
    let mut shapes = Vec::new();
    let targets = [
        "/",
        "/index.html",
        "/text.txt",
        "/empty.txt",
        "/big.txt",
        "/dir",
        "/dir/",
        "/missing",
        "/a%20b.txt",
        "/%69ndex.html",
        "/dir/../index.html",
        "//index.html",
        "/index.html?x=1&y=%2F",
        "/said",
        "/status/204",
        "/status/301",
        "/status/401",
        "/status/418",
        "/status/500",
        "/status/503",
    ];
    let headers = [
        "",
        "Accept-Encoding: gzip\r\n",
        "Range: bytes=1-3\r\n",
        "Range: bytes=99999999-\r\n",
        "If-None-Match: *\r\n",
        "If-Modified-Since: Fri, 27 Nov 2037 00:00:00 GMT\r\n",
        "Connection: close\r\n",
        "Cookie: a=b\r\nCookie: c=d\r\nX-One: 1\r\nx-one: 2\r\nEmpty:\r\n",
    ];
    for target in targets {
        for lines in headers {
            shapes.push(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n"));
        }
        shapes.push(format!("HEAD {target} HTTP/1.1\r\nHost: h:80\r\n\r\n"));
        shapes.push(format!("GET {target} HTTP/1.0\r\n\r\n"));
        shapes.push(format!("GET http://h{target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "x-own"] {
        for target in ["/said", "/index.html", "/missing", "/cgi/cat.sh"] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n");
            shapes.push(format!("{head}\r\n"));
            shapes.push(format!("{head}Content-Length: 0\r\n\r\n"));
            shapes.push(format!("{head}Content-Length: 5\r\n\r\nhello"));
            shapes.push(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"));
            shapes.push(format!("{head}Connection: close\r\nContent-Length: 5\r\n\r\nhello"));
        }
    }
    let long = "x".repeat(4000);
    let body = "y".repeat(200_000);
    shapes.extend([
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n".to_owned(),
        format!("GET /said?{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("GET /said HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n"),
        format!("POST /cgi/cat.sh HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n{body}"),
        "POST /cgi/cat.sh HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n".to_owned(),
    ]);
    shapes
}

/// Sends it, and reads one answer.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let head = loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        if let Ok(httparse::Status::Complete(length)) = response.parse(&read) {
            // Nothing is final that begins with 1.
            if response.code != Some(100) {
                break length;
            }
            read.drain(..length);
            continue;
        }
        let step = stream.read_buf(&mut read).await.unwrap();
        assert!(step > 0, "no answer to {request:?} but {:?}", String::from_utf8_lossy(&read));
    };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&read).unwrap();
    let status = response.code.unwrap();
    let reason = response.reason.unwrap().to_owned();
    let all: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let value = |name: &str| all.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let mut rest = read.split_off(head);
    let has_none = request.starts_with("HEAD ") || status == 204 || status == 304;
    let (mut body, mut is_closed) = (Vec::new(), false);
    if has_none {
    } else if value("transfer-encoding").is_some() {
        body = chunked(&mut stream, rest).await;
    } else if let Some(length) = value("content-length") {
        let length: usize = length.parse().unwrap();
        while rest.len() < length && stream.read_buf(&mut rest).await.unwrap() > 0 {}
        body = rest;
    } else {
        stream.read_to_end(&mut rest).await.unwrap();
        (body, is_closed) = (rest, true);
    }
    let ends = is_closed
        || matches!(timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await, Ok(Ok(0) | Err(_)));
    // How the body's end is told is each connection's own matter, and so is the word for what `ends` says.
    let own = ["date", "connection", "transfer-encoding"];
    let headers = all.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
    Answer { status, reason, headers, body, ends }
}

async fn chunked(stream: &mut (impl AsyncRead + Unpin), mut rest: Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let found = rest.windows(2).position(|pair| pair == b"\r\n");
        if let Some(end) = found {
            let size = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            while rest.len() < end + 2 + size + 2 {
                assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
            }
            body.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest.drain(..end + 2 + size + 2);
            if size == 0 {
                return body;
            }
        } else {
            assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
        }
    }
}

/// What differs between the answer that a server gives straight and the one through the proxy.
async fn difference(socket: PathBuf, request: String) -> Option<String> {
    let straight = answer(UnixStream::connect(&socket).await.unwrap(), &request).await;
    let (client, near) = duplex(1 << 16);
    tokio::spawn(serve(near, Arc::new(To(socket.clone())), Limits::default()));
    let through = answer(client, &request).await;
    if straight == through {
        return None;
    }
    let line = request.lines().take(4).collect::<Vec<_>>().join(" | ");
    let line: String = line.chars().take(120).collect();
    let short = |answer: &Answer| {
        let Answer { status, reason, headers, body, ends } = answer;
        format!("{status} {reason} ends={ends} {} bytes {headers:?}", body.len())
    };
    let server = socket.file_name().unwrap().display();
    Some(format!("{server} {line}\n  straight {}\n  through  {}", short(&straight), short(&through)))
}

#[tokio::test]
async fn answers_are_those_of_the_servers() {
    let Some(servers) = Servers::start().await else { return };
    let shapes = shapes();
    assert!(shapes.len() > 300, "{}", shapes.len());
    let mut running = JoinSet::new();
    let mut differences = Vec::new();
    for socket in servers.sockets() {
        for request in &shapes {
            // As many as the servers take without complaint.
            if running.len() == 32 {
                differences.extend(running.join_next().await.unwrap().unwrap());
            }
            running.spawn(difference(socket.clone(), request.clone()));
        }
    }
    differences.extend(running.join_all().await.into_iter().flatten());
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        2 * shapes.len(),
        differences.join("\n")
    );
}

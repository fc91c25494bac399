//! A client and a server of HTTP/1 that speak in every shape that it has, the server with a log of its own.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Mutex,
    time::{Duration, Instant},
};

/// What the server did.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    /// The pod that answered.
    pub(crate) by: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) shape: String,
    pub(crate) code: u16,
    /// From the end of the request's head to the response's first byte.
    pub(crate) took: Duration,
}

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One request.
    Plain,
    /// Several, one after the other.
    KeepAlive,
    /// Several at once.
    Pipelined,
    /// Each byte in a segment.
    Bytewise,
    /// A body that is sent in chunks, and one that comes in chunks.
    Chunked,
    /// A body that is sent when the server says that it may be.
    Continued,
    /// Bodies of more than a segment, and of more than is ever copied.
    Large,
    /// No body, whatever the head says.
    Head,
    /// Another protocol from the response on.
    Upgraded,
    /// The server thinks for a moment, and refuses.
    Slow,
}

impl Shape {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Plain,
        Self::KeepAlive,
        Self::Pipelined,
        Self::Bytewise,
        Self::Chunked,
        Self::Continued,
        Self::Large,
        Self::Head,
        Self::Upgraded,
        Self::Slow,
    ];
}

/// What looks like a request and a response, for bodies.
const FALSE: &str = "GET /false HTTP/1.1\r\nHost: false\r\n\r\nHTTP/1.1 500 False\r\n\r\n";

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    shape: Shape,
}

/// Holds one conversation of this shape, on this of several ways to the server.
pub(crate) fn converse(way: usize, server: SocketAddr, shape: Shape, round: usize) {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let port = stream.local_addr().unwrap().port();
    let reader = BufReader::new(stream.try_clone().unwrap());
    let mut client = Client { stream, reader, shape };
    let target = |number: usize| format!("/{shape:?}/{way}/{port}/{round}/{number}?x=%20");
    match shape {
        Shape::Plain | Shape::Bytewise | Shape::Slow => client.ask("GET", &target(0), "", ""),
        Shape::KeepAlive => {
            for number in 0..5 {
                let method = ["GET", "POST", "DELETE", "PUT", "OPTIONS"][number];
                client.ask(method, &target(number), "", &FALSE.repeat(number));
            }
        }
        Shape::Pipelined => {
            let mut requests = String::new();
            for number in 0..5 {
                requests += &client.request("GET", &target(number), "", "");
            }
            client.stream.write_all(requests.as_bytes()).unwrap();
            (0..5).for_each(|_| client.answer(false));
        }
        Shape::Chunked => {
            let body = format!("{:x}\r\n{FALSE}\r\n0\r\n\r\n", FALSE.len());
            let head = client.head("POST", &target(0), "transfer-encoding: chunked\r\n");
            client.send(&[head.as_bytes(), body.as_bytes()].concat());
            client.answer(false);
            client.ask("GET", &target(1), "", "");
        }
        Shape::Continued => {
            let fields = format!("expect: 100-continue\r\ncontent-length: {}\r\n", FALSE.len());
            let head = client.head("PUT", &target(0), &fields);
            client.send(head.as_bytes());
            client.lines();
            client.send(FALSE.as_bytes());
            client.answer(false);
        }
        Shape::Large => {
            for number in 0..3 {
                client.ask("POST", &target(number), "", &FALSE.repeat(700 * (number + 1)));
            }
        }
        Shape::Head => {
            for number in 0..3 {
                let method = if number == 1 { "GET" } else { "HEAD" };
                let request = client.request(method, &target(number), "", "");
                client.send(request.as_bytes());
                client.answer(method == "HEAD");
            }
        }
        Shape::Upgraded => {
            client.ask("GET", &target(0), "connection: upgrade\r\nupgrade: echo\r\n", "");
            client.send(FALSE.as_bytes());
            let mut echoed = vec![0; FALSE.len()];
            client.reader.read_exact(&mut echoed).unwrap();
            assert_eq!(echoed, FALSE.as_bytes());
        }
    }
}

impl Client {
    fn head(&self, method: &str, target: &str, fields: &str) -> String {
        let shape = self.shape;
        format!(
            "{method} {target} HTTP/1.1\r\nhost: shop\r\nauthorization: Basic c2VjcmV0\r\nx-shape: {shape:?}\r\n{fields}\r\n"
        )
    }

    fn request(&self, method: &str, target: &str, fields: &str, body: &str) -> String {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        self.head(method, target, &format!("{fields}{length}")) + body
    }

    fn ask(&mut self, method: &str, target: &str, fields: &str, body: &str) {
        let request = self.request(method, target, fields, body);
        self.send(request.as_bytes());
        self.answer(false);
    }

    fn send(&mut self, bytes: &[u8]) {
        let size = if self.shape == Shape::Bytewise { 1 } else { bytes.len() };
        bytes.chunks(size).for_each(|part| self.stream.write_all(part).unwrap());
    }

    /// A head's lines.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "{:?} {lines:?}", self.shape);
            match line.trim_end() {
                "" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    fn answer(&mut self, is_head: bool) {
        let lines = self.lines();
        if !is_head && !lines[0].starts_with("HTTP/1.1 304") {
            read_body(&mut self.reader, &lines);
        }
    }
}

/// By a head's lines, which are in lower case.
fn read_body(reader: &mut BufReader<TcpStream>, lines: &[String]) {
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
    if let Some(length) = length {
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
    }
    while lines.iter().any(|line| line == "transfer-encoding: chunked") {
        let mut size = String::new();
        reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        reader.read_exact(&mut vec![0; size + 2]).unwrap();
        if size == 0 {
            return;
        }
    }
}

/// Answers whoever comes, until the process ends.
pub(crate) fn serve(listener: &TcpListener, by: &str, log: &Mutex<Vec<Logged>>) {
    while let Ok((stream, _)) = listener.accept() {
        answer_all(&stream, by, log);
    }
}

fn answer_all(stream: &TcpStream, by: &str, log: &Mutex<Vec<Logged>>) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream;
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let began = Instant::now();
        if lines.iter().any(|line| line == "expect: 100-continue") {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        read_body(&mut reader, &lines);
        let mut words = lines[0].split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let shape = lines.iter().find_map(|line| line.strip_prefix("x-shape: ")).unwrap().to_owned();
        let (code, response) = response(&shape, &target);
        if shape == "Slow" {
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = began.elapsed();
        // Before the client can know.
        let entry =
            Logged { by: by.to_owned(), method: method.clone(), target, shape: shape.clone(), code, took };
        log.lock().unwrap().push(entry);
        let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let response = if method == "HEAD" { &response[..end] } else { &response };
        let size = if shape == "Bytewise" { 1 } else { response.len() };
        response.chunks(size).for_each(|part| writer.write_all(part).unwrap());
        if code == 101 {
            let mut bytes = vec![0; FALSE.len()];
            reader.read_exact(&mut bytes).unwrap();
            writer.write_all(&bytes).unwrap();
        }
    }
}

fn response(shape: &str, target: &str) -> (u16, Vec<u8>) {
    let number: usize = target.split(['/', '?']).nth(5).unwrap().parse().unwrap();
    let (code, word) = match (shape, number) {
        ("Upgraded", _) => return (101, b"HTTP/1.1 101 Switching\r\nupgrade: echo\r\n\r\n".to_vec()),
        ("Slow", _) => (503, "Busy"),
        ("KeepAlive", 2) => return (204, b"HTTP/1.1 204 None\r\n\r\n".to_vec()),
        ("KeepAlive", 4) => return (304, b"HTTP/1.1 304 Same\r\ncontent-length: 9\r\n\r\n".to_vec()),
        ("KeepAlive", 1) => (404, "Missing"),
        _ => (200, "OK"),
    };
    let body = FALSE.repeat(if shape == "Large" { 3000 } else { number + 1 });
    let mut response = format!("HTTP/1.1 {code} {word}\r\nserver: dialogue\r\n");
    if shape == "Chunked" {
        response += "transfer-encoding: chunked\r\n\r\n";
        for part in [&body[..5], &body[5..]] {
            write!(response, "{:x}\r\n{part}\r\n", part.len()).unwrap();
        }
        response += "0\r\n\r\n";
    } else {
        write!(response, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    }
    (code, response.into_bytes())
}

//! Whatever a client and a server say, and however the network carries it: what is told was said, and of what was carried whole
//! all is told.

use observer_l7::{
    Connection, Counters, Segment, Told,
    head::{Head, Start, field},
};
use proptest::prelude::*;

/// What was told: requests by method and target; responses by the target of their request, the code, and their own mark.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Ledger {
    requests: Vec<String>,
    responses: Vec<(String, u16, String)>,
}

impl Told for Ledger {
    type Asked = String;

    fn request(&mut self, head: &Head<'_>) -> String {
        let Start::Request { method, target } = head.start else { panic!("{head:?}") };
        self.requests.push(format!("{method} {target}"));
        target.to_owned()
    }

    fn response(&mut self, head: &Head<'_>, asked: String, _: u64) {
        let Start::Response { code } = head.start else { panic!("{head:?}") };
        let mark = field(head.fields, "x-mark").map(|mark| String::from_utf8_lossy(mark).into_owned());
        self.responses.push((asked, code, mark.unwrap_or_default()));
    }
}

/// One request and what answers it.
#[derive(Clone, Debug)]
struct Exchange {
    method: &'static str,
    request_body: Body,
    /// 100 and the like before the response.
    interim: bool,
    code: u16,
    response_body: Body,
    /// A field of so many bytes.
    padding: usize,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl Body {
    fn fields(&self) -> String {
        match self {
            Self::None => "Content-Length: 0\r\n".to_owned(),
            Self::Length(bytes) => format!("content-length:{}\r\n", bytes.len()),
            Self::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Length(bytes) => bytes.clone(),
            Self::Chunked(chunks) => {
                let mut bytes = Vec::new();
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    bytes.extend(format!("{:x};e=1\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
                bytes
            }
        }
    }
}

impl Exchange {
    fn request(&self, number: usize) -> Vec<u8> {
        let head = format!(
            "{} /item/{number}?q HTTP/1.1\r\nHost: shop\r\nx-padding: {}\r\n{}\r\n",
            self.method,
            "p".repeat(self.padding),
            self.request_body.fields()
        );
        [head.into_bytes(), self.request_body.bytes()].concat()
    }

    fn response(&self, number: usize) -> Vec<u8> {
        let interim = if self.interim { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
        let fields = self.response_body.fields();
        let head = format!("{interim}HTTP/1.1 {} Word\r\nX-Mark: {number}\r\n{fields}\r\n", self.code);
        let has_none = self.method == "HEAD" || matches!(self.code, 204 | 304);
        let body = if has_none { Vec::new() } else { self.response_body.bytes() };
        [head.into_bytes(), body].concat()
    }
}

/// Bodies hold what could be taken for heads.
fn body() -> impl Strategy<Value = Body> {
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            Just(b"HTTP/1.1 500 False\r\n\r\nGET /false HTTP/1.1\r\n\r\n".repeat(3)),
            Just(b"GET /false HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ]
    };
    prop_oneof![
        Just(Body::None),
        bytes().prop_map(Body::Length),
        prop::collection::vec(bytes(), 0..4).prop_map(Body::Chunked),
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"]);
    let code = prop::sample::select(vec![200, 201, 204, 301, 304, 404, 500, 503]);
    (method, body(), any::<bool>(), code, body(), 0..600_usize).prop_map(
        |(method, request_body, interim, code, response_body, padding)| Exchange {
            method,
            request_body,
            interim,
            code,
            response_body,
            padding,
        },
    )
}

/// How the network carries a stretch of bytes: the sizes of segments, and by their number which is late or comes twice.
#[derive(Clone, Debug)]
struct Carriage {
    sizes: Vec<usize>,
    late: Vec<bool>,
    again: Vec<bool>,
}

fn carriage() -> impl Strategy<Value = Carriage> {
    let sizes = prop_oneof![Just(vec![1]), Just(vec![1448]), prop::collection::vec(1..700_usize, 1..8),];
    let bits = || prop::collection::vec(prop::bool::weighted(0.2), 1..16);
    (sizes, bits(), bits()).prop_map(|(sizes, late, again)| Carriage { sizes, late, again })
}

/// One end's bytes on the wire.
struct Sender {
    sequence: u32,
    by_first: bool,
}

/// A segment, and what of it arrives.
type Sent = (bool, u32, Vec<u8>);

impl Sender {
    fn send(&mut self, bytes: &[u8], carriage: &Carriage) -> Vec<Sent> {
        let mut sent: Vec<Sent> = Vec::new();
        let mut at = 0;
        let mut number = 0;
        while at < bytes.len() {
            let size = carriage.sizes[number % carriage.sizes.len()].min(bytes.len() - at);
            let segment = (self.by_first, self.sequence, bytes[at..at + size].to_vec());
            self.sequence = self.sequence.wrapping_add(size as u32);
            at += size;
            if carriage.again[number % carriage.again.len()] {
                sent.push(segment.clone());
            }
            sent.push(segment);
            number += 1;
        }
        // The first of a stretch comes first: before a head is seen, nobody knows what it would be behind.
        for place in (3..sent.len()).step_by(2) {
            if carriage.late[place / 2 % carriage.late.len()] {
                sent.swap(place - 1, place);
            }
        }
        sent
    }
}

fn carry(sent: &[Sent], keeps: impl Fn(usize) -> bool) -> (Ledger, Counters) {
    let (mut connection, mut counters, mut ledger) =
        (Connection::default(), Counters::default(), Ledger::default());
    for (number, (by_first, sequence, bytes)) in sent.iter().enumerate().filter(|(n, _)| keeps(*n)) {
        let segment =
            Segment { sequence: *sequence, length: bytes.len() as u32, bytes, time_ns: number as u64 };
        connection.take(*by_first, &segment, &mut counters, &mut ledger);
        assert!(connection.kept() < 128 << 10, "{}", connection.kept());
    }
    (ledger, counters)
}

/// What is sent, and what was said by it. `depth` requests go out before the first answer comes.
fn play(exchanges: &[Exchange], depth: usize, ways: &[Carriage; 2], start: u32) -> (Vec<Sent>, Ledger) {
    let mut client = Sender { sequence: start, by_first: true };
    let mut server = Sender { sequence: start.wrapping_mul(7), by_first: false };
    let (mut sent, mut said) = (Vec::new(), Ledger::default());
    for (begin, together) in exchanges.chunks(depth).enumerate().map(|(n, part)| (n * depth, part)) {
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        for (offset, exchange) in together.iter().enumerate() {
            let number = begin + offset;
            requests.extend(exchange.request(number));
            responses.extend(exchange.response(number));
            said.requests.push(format!("{} /item/{number}?q", exchange.method));
            said.responses.push((format!("/item/{number}?q"), exchange.code, number.to_string()));
        }
        sent.extend(client.send(&requests, &ways[0]));
        sent.extend(server.send(&responses, &ways[1]));
    }
    (sent, said)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_carried_whole_is_told(
        exchanges in prop::collection::vec(exchange(), 1..8),
        depth in 1..5_usize,
        ways in [carriage(), carriage()],
        start: u32,
    ) {
        let (sent, said) = play(&exchanges, depth, &ways, start);
        let (told, counters) = carry(&sent, |_| true);
        prop_assert_eq!(&told, &said, "{:?}", counters);
        prop_assert_eq!((counters.requests, counters.responses), (said.requests.len() as u64, said.responses.len() as u64));
        prop_assert_eq!(Counters { requests: 0, responses: 0, ..counters }, Counters::default());
    }

    #[test]
    fn whatever_is_lost_nothing_is_told_that_was_not_said(
        exchanges in prop::collection::vec(exchange(), 1..12),
        depth in 1..4_usize,
        ways in [carriage(), carriage()],
        lost in prop::collection::vec(prop::bool::weighted(0.15), 1..64),
    ) {
        let (sent, said) = play(&exchanges, depth, &ways, 1);
        // The first of each side comes: where a connection begins in its middle, nobody can know what waits.
        let firsts = [true, false].map(|side| sent.iter().position(|(by_first, ..)| *by_first == side));
        let (told, counters) =
            carry(&sent, |number| firsts.contains(&Some(number)) || !lost[number % lost.len()]);
        for (target, code, mark) in &told.responses {
            // What is inside bodies may look like it, where nobody knows that it is inside one; but it never is another's answer.
            if !mark.is_empty() {
                prop_assert!(said.responses.contains(&(target.clone(), *code, mark.clone())), "{target} {code} {mark} {counters:?}");
            }
        }
        prop_assert!(told.responses.len() <= told.requests.len());
    }

    #[test]
    fn any_bytes_are_taken(
        segments in prop::collection::vec((any::<bool>(), 0..64_u32, 0..64_u32, "(GET|HTTP/1.1|[ -~\r\n]){0,40}"), 0..60)
    ) {
        let (mut connection, mut counters, mut ledger) = (Connection::default(), Counters::default(), Ledger::default());
        for (by_first, sequence, more, text) in segments {
            let bytes = text.as_bytes();
            let segment = Segment { sequence, length: bytes.len() as u32 + more, bytes, time_ns: u64::from(sequence) << 26 };
            connection.take(by_first, &segment, &mut counters, &mut ledger);
        }
    }
}

fn both(client: &[&str], server: &[&str]) -> (Ledger, Counters) {
    let whole = Carriage { sizes: vec![usize::MAX], late: vec![false], again: vec![false] };
    let (mut a, mut b) = (Sender { sequence: 1, by_first: true }, Sender { sequence: 1, by_first: false });
    let mut sent = Vec::new();
    for place in 0..client.len().max(server.len()) {
        sent.extend(client.get(place).map(|text| a.send(text.as_bytes(), &whole)).unwrap_or_default());
        sent.extend(server.get(place).map(|text| b.send(text.as_bytes(), &whole)).unwrap_or_default());
    }
    carry(&sent, |_| true)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn behind_an_upgrade_and_in_a_tunnel_nothing_is_looked_for() {
    for (request, response, code) in [
        ("GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n", 101),
        ("CONNECT shop:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", 200),
    ] {
        let (told, counters) = both(&[request, GET, GET], &[response, "HTTP/1.1 200 OK\r\n\r\n"]);
        assert_eq!((told.requests.len(), told.responses.len()), (1, 1), "{counters:?}");
        assert_eq!(told.responses[0].1, code);
    }
}

#[test]
fn a_body_that_ends_with_the_connection_hides_nothing() {
    let (told, _) = both(&[GET], &["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 500 No\r\n\r\n"]);
    assert_eq!(told.responses.len(), 1);
}

#[test]
fn what_is_not_to_be_believed_is_counted() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000));
    for (text, wanted) in [
        (
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
            Counters { malformed: 1, ..Counters::default() },
        ),
        ("POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n", Counters { malformed: 1, ..Counters::default() }),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            Counters { malformed: 1, ..Counters::default() },
        ),
        ("GET key\r\n", Counters { malformed: 1, ..Counters::default() }),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Counters { http2: 1, ..Counters::default() }),
        (long.as_str(), Counters { too_long: 1, ..Counters::default() }),
        ("HTTP/1.1 200 OK\r\n\r\n", Counters { unasked: 1, ..Counters::default() }),
    ] {
        assert_eq!(both(&[text], &[]), (Ledger::default(), wanted), "{text:.60}");
    }
}

#[test]
fn bodies_are_passed_over_though_nobody_copied_them() {
    let mut connection = Connection::default();
    let (mut counters, mut ledger) = (Counters::default(), Ledger::default());
    let mut sequences = [10_u32, 20];
    let mut give = |by_first: bool, bytes: &[u8], missing: u32, is_seen: bool| {
        let sequence = &mut sequences[usize::from(!by_first)];
        let length = bytes.len() as u32 + missing;
        let segment = Segment { sequence: *sequence, length, bytes, time_ns: 1 };
        if is_seen {
            connection.take(by_first, &segment, &mut counters, &mut ledger);
        }
        *sequence = sequence.wrapping_add(length);
    };
    for _ in 0..3 {
        give(true, GET.as_bytes(), 0, true);
        give(false, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\nabc", 60_000, true);
        give(false, b"", 239_997, false);
        give(true, GET.as_bytes(), 0, true);
        give(false, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9999\r\nabc", 60_000, true);
        give(false, b"", 1_000_000, false);
    }
    assert_eq!((ledger.requests.len(), ledger.responses.len()), (6, 6), "{counters:?}");
}

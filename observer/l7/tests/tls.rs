//! Hellos of real programs, and such as are made up: however the network carries them, what is told was said.

use observer_l7::{
    Counters, Handshake, Segment, TlsTold,
    tls::{First, alert_name},
};
use proptest::prelude::*;
use std::{fs, path::Path};

/// What was told, in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger(Vec<String>);

impl TlsTold for Ledger {
    type Asked = String;

    fn hello(&mut self, hello: First<'_>) -> String {
        let First::Client { server_name, version } = hello else { panic!("{hello:?}") };
        let name = server_name.map(|name| name.to_string()).unwrap_or_default();
        self.0.push(format!("{} {name}", version.name()));
        name
    }

    fn answer(&mut self, answer: First<'_>, asked: Option<(String, u64)>) {
        let said = match answer {
            First::Server { version } => version.name().to_owned(),
            First::Alert(number) => alert_name(number).unwrap_or("unknown").to_owned(),
            First::Client { .. } => panic!("{answer:?}"),
        };
        self.0.push(format!("{said} to {asked:?}"));
    }
}

/// Takes segments that are each of the first end or the other.
fn told(segments: &[(bool, Segment<'_>)]) -> (Vec<String>, Counters) {
    let (mut handshake, mut counters, mut ledger) =
        (Handshake::default(), Counters::default(), Ledger::default());
    for (by_first, segment) in segments {
        handshake.take(*by_first, segment, &mut counters, &mut ledger);
    }
    (ledger.0, counters)
}

fn segment(bytes: &[u8], sequence: u32, time_ns: u64) -> Segment<'_> {
    Segment { sequence, length: bytes.len() as u32, bytes, time_ns }
}

#[test]
fn hellos_of_openssl_are_read() {
    for (file, expected) in [
        ("openssl-tls13", ["TLS 1.3 shop.example", "TLS 1.3 to Some((\"shop.example\", 5))"]),
        ("openssl-tls12", ["TLS 1.2 shop.example", "TLS 1.2 to Some((\"shop.example\", 5))"]),
        ("openssl-refused", ["TLS 1.3 shop.example", "protocol_version to Some((\"shop.example\", 5))"]),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/tls").join(file);
        let parts = fs::read(path).unwrap();
        let mut ways = [Vec::new(), Vec::new()];
        let mut rest = &parts[..];
        while let [way, _, length, behind @ ..] = rest {
            let (bytes, behind) = behind.split_at(usize::from(*length));
            ways[usize::from(*way)].extend(bytes);
            rest = behind;
        }
        let [hello, answer] = [(&ways[0], 5), (&ways[1], 10)].map(|(bytes, at)| segment(bytes, 7, at));
        let (told, counters) = told(&[(false, hello), (true, answer)]);
        assert_eq!(told, expected);
        assert_eq!(counters, Counters { requests: 1, responses: 1, ..Counters::default() });
    }
}

fn with_length(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length(content)].concat()
}

/// A message with its head, without records.
fn message(kind: u8, version: u16, middle: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([9; 32]);
    body.extend([3, 1, 2, 3]);
    body.extend(middle);
    if !extensions.is_empty() {
        body.extend(with_length(&extensions.concat()));
    }
    let length = (body.len() as u32).to_be_bytes();
    [&[kind], &length[1..], &body[..]].concat()
}

fn client(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    message(1, version, &[0, 2, 0x13, 1, 1, 0], extensions)
}

fn server_name(name: &[u8]) -> Vec<u8> {
    // One of a type that nobody knows before it.
    let entry = [&[7, 0, 1, b'x', 0][..], &with_length(name)].concat();
    extension(0, &with_length(&entry))
}

fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &with_length(part)].concat()).collect()
}

#[test]
fn versions_are_those_that_are_spoken() {
    let versions = |list: &[u8]| extension(43, &[&[list.len() as u8], list].concat());
    for (hello, expected) in [
        (client(0x300, &[]), "SSL 3.0 "),
        (client(0x303, &[]), "TLS 1.2 "),
        // What nobody knows, the highest, a draft's.
        (client(0x303, &[versions(&[0x7a, 0x7a, 3, 3, 3, 4, 0x7f, 0x1c])]), "TLS 1.3 "),
        (client(0x302, &[versions(&[0x7a, 0x7a])]), "TLS 1.1 "),
        (client(0x303, &[server_name(b"a\x1b[2J\\\xffB")]), "TLS 1.2 a\\027[2j\\\\\\255b"),
        (message(2, 0x303, &[0, 2, 0], &[]), "TLS 1.2 to None"),
        (message(2, 0x303, &[0, 2, 0], &[extension(43, &[3, 4])]), "TLS 1.3 to None"),
    ] {
        let bytes = in_records(&hello, 5000);
        let (told, counters) = told(&[(true, segment(&bytes, 0, 0))]);
        assert_eq!(told, [expected], "{counters:?}");
    }
}

#[test]
fn what_is_no_hello_is_counted() {
    let malformed = Counters { malformed: 1, ..Counters::default() };
    let too_long = Counters { too_long: 1, ..Counters::default() };
    let whole = in_records(&client(0x303, &[server_name(&[b'a'; 255])]), 5000);
    for (bytes, expected) in [
        (in_records(&client(0x303, &[server_name(&[b'a'; 256])]), 5000), malformed),
        (in_records(&client(0x303, &[server_name(b"")]), 5000), malformed),
        (in_records(&client(0x305, &[]), 5000), malformed),
        (in_records(&client(0x303, &[vec![0, 0, 0, 9, 1]]), 5000), malformed),
        (in_records(&message(2, 0x303, &[0, 2, 0], &[extension(43, &[3])]), 5000), malformed),
        (in_records(&message(11, 0x303, &[], &[]), 5000), malformed),
        (in_records(&client(0x303, &[extension(21, &[0; 8200])]), 5000), too_long),
        (b"\x16\x02\x00\x00\x01\x01".to_vec(), malformed),
        (b"\x16\x03\x00\x00\x00".to_vec(), malformed),
        (b"\x16HELO\r\n".to_vec(), malformed),
        // Not fatal.
        (vec![21, 3, 3, 0, 2, 1, 112], malformed),
    ] {
        let (told, counters) = told(&[(true, segment(&bytes, 0, 0))]);
        assert_eq!((told.as_slice(), counters), (&[][..], expected), "{bytes:?}");
    }
    // What was not copied, an answer from who asked, and another hello.
    let cut = Segment { length: whole.len() as u32, ..segment(&whole[..100], 0, 0) };
    assert_eq!(told(&[(true, cut)]).1, Counters { gaps: 1, ..Counters::default() });
    let twice = told(&[(true, segment(&whole, 0, 0)), (false, segment(&whole, 0, 0))]).1;
    assert_eq!(twice, Counters { requests: 1, malformed: 1, ..Counters::default() });
}

proptest! {
    #[test]
    fn however_a_hello_is_cut_it_is_told_once(
        name in "[a-z.]{1,60}",
        padding in 0_usize..3000,
        record in 1_usize..3000,
        cuts in proptest::collection::vec(1_usize..900, 1..9),
        order in proptest::collection::vec(0_usize..5, 12),
        first in any::<u32>(),
    ) {
        let hello = client(0x303, &[extension(21, &vec![0; padding]), server_name(name.as_bytes())]);
        let bytes = in_records(&hello, record.max(hello.len() / 20));
        let mut segments = Vec::new();
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + cuts.next().unwrap().max(&(bytes.len() / 20)));
            segments.push(segment(&bytes[at..end], first.wrapping_add(at as u32), 1));
            at = end;
        }
        // The first comes first: by it a hello is recognised. Some overtake, some come again.
        for (place, by) in order.iter().enumerate().skip(1) {
            if place + by < segments.len() {
                segments.swap(place, place + by);
            }
        }
        segments.insert(segments.len() / 2, segments[0]);
        let segments: Vec<_> = segments.into_iter().map(|segment| (true, segment)).collect();
        let (told, counters) = told(&segments);
        prop_assert_eq!(told, [format!("TLS 1.2 {name}")], "{:?}", counters);
    }
}

//! Heads against a second reader, which is plain and slow: whatever both take they read alike.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use observer_l7::head::{self, Body, MOST_FIELDS, NoHead, Start};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

/// The first line's three words, and the fields.
type Plain<'a> = ([&'a [u8]; 3], Vec<(&'a [u8], &'a [u8])>);

/// By the letter of RFC 9112, sections 2 to 5, with CRLF alone; nothing where a head is not whole or not such.
fn plain(bytes: &[u8]) -> Option<(Plain<'_>, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut rest = &bytes[..end];
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let mut words = lines[0].splitn(3, |byte| *byte == b' ');
    let first = [words.next()?, words.next()?, words.next().unwrap_or_default()];
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let trimmed = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = value.iter().position(|byte| !trimmed(byte)).unwrap_or(value.len());
        let stop = value.iter().rposition(|byte| !trimmed(byte)).map_or(start, |at| at + 1);
        fields.push((name, &value[start..stop]));
    }
    Some(((first, fields), end + 4))
}

const HEADS: [&[u8]; 6] = [
    b"GET /a/b?c=d HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nUser-Agent: curl/8\r\n\r\n",
    b"POST /api HTTP/1.0\r\nContent-Length: 12\r\nContent-Type:application/json\r\n\r\n{\"a\":\"b\"}",
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length:  5 \r\nSet-Cookie: a=b; Path=/\r\n\r\nhello",
    b"HTTP/1.1 304 \r\nETag: \"x\"\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost:\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n",
];

fn agree(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let read = match head::read(bytes, &mut fields) {
        Ok(read) => read,
        Err(NoHead::Partial | NoHead::Malformed | NoHead::Http2) => return false,
    };
    assert!(read.length <= bytes.len() && bytes[..read.length].ends_with(b"\n"));
    // Lines that end without CR, and heads behind empty lines, are taken by servers too, but not by the plain reader.
    let Some(((first, plain_fields), length)) = plain(bytes) else { return false };
    let is_plain = !bytes[..length].windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
        && !bytes.starts_with(b"\r\n")
        && !bytes.starts_with(b"\n");
    if !is_plain {
        return false;
    }
    assert_eq!(read.length, length);
    match read.start {
        Start::Request { method, target } => {
            assert_eq!([method.as_bytes(), target.as_bytes()], [first[0], first[1]]);
            assert_eq!(first[2], format!("HTTP/1.{}", read.minor).as_bytes());
        }
        Start::Response { code } => {
            assert_eq!(first[0], format!("HTTP/1.{}", read.minor).as_bytes());
            assert_eq!(first[1].get(..3).unwrap(), format!("{code:03}").as_bytes());
        }
    }
    let read_fields: Vec<_> = read.fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(read_fields, plain_fields);
    let lengths: Vec<_> =
        plain_fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length")).collect();
    if let (Body::Length(length), [(_, digits), ..]) = (read.body, lengths.as_slice())
        && !digits.contains(&b',')
    {
        assert_eq!(std::str::from_utf8(digits).unwrap().parse(), Ok(length));
    }
    true
}

/// A million in `make soak`; the same every time, so that what fails fails again.
#[test]
fn mutated_heads_are_read_as_the_plain_reader_reads_them() {
    let cases: u64 = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 50_000 };
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut agreed = 0;
    for case in 0..cases {
        let mut bytes = HEADS[case as usize % HEADS.len()].to_vec();
        for _ in 0..random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            let byte = if random.next_u32() & 1 == 0 {
                random.next_u32() as u8
            } else {
                b" \r\n:\tA1/;,"[random.next_u32() as usize % 10]
            };
            match random.next_u32() % 3 {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        agreed += u64::from(agree(&bytes));
    }
    assert!(agreed > cases / 4, "{agreed} of {cases}");
}

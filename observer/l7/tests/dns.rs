//! DNS messages against hickory-proto: whatever both take they read alike, and what it takes of what matters here we take.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hickory_proto::{
    op::Message as Theirs,
    rr::{Name as TheirName, RData},
};
use observer_l7::dns::{Data, Message, Name};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

const MESSAGES: [&[u8]; 4] = [
    b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01",
    b"\x12\x34\x81\x80\0\x01\0\x03\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\
      \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10\
      \xc0\x2d\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\0\0\x01\
      \xc0\x2d\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\0\0\x02",
    b"\0\x01\x85\x83\0\x01\0\0\0\x01\0\0\x02no\x07example\0\0\x1c\0\x01\
      \xc0\x0f\0\x06\0\x01\0\0\0\x05\0\x16\x02ns\xc0\x0f\x01r\xc0\x0f\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
    b"\0\x02\x81\x80\0\x01\0\x01\0\0\0\0\x01a\x01b\0\0\x1c\0\x01\
      \xc0\x0c\0\x1c\0\x01\0\0\x0e\x10\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
];

fn is_same(ours: &Name<'_>, theirs: &TheirName) -> bool {
    ours.labels().eq(theirs.iter())
}

/// Whether both take it.
fn agree(bytes: &[u8]) -> bool {
    let theirs = Theirs::from_vec(bytes);
    let ours = Message::read(bytes);
    let (Ok(theirs), Ok(ours)) = (&theirs, &ours) else {
        // Theirs reads all four sections, so it refuses more.
        assert!(theirs.is_err() || ours.is_ok(), "{theirs:?}");
        return false;
    };
    assert_eq!(ours.id(), theirs.metadata.id);
    assert_eq!(u16::from(ours.rcode()), u16::from(theirs.metadata.response_code) & 15);
    let questions: Vec<_> = ours.questions().collect::<Result<_, _>>().unwrap();
    assert_eq!(questions.len(), theirs.queries.len());
    for (ours, theirs) in questions.iter().zip(&theirs.queries) {
        assert!(is_same(&ours.name, theirs.name()), "{ours:?} {theirs:?}");
        assert_eq!(ours.kind, u16::from(theirs.query_type()));
    }
    let answers: Vec<_> = ours.answers().collect::<Result<_, _>>().unwrap();
    let theirs = &theirs.answers;
    assert_eq!(answers.len(), theirs.len());
    for (ours, theirs) in answers.iter().zip(theirs) {
        assert!(is_same(&ours.name, &theirs.name), "{ours:?} {theirs:?}");
        assert_eq!(ours.kind, u16::from(theirs.record_type()));
        match (ours.data, &theirs.data) {
            (Data::Address(ip), RData::A(a)) => assert_eq!(ip, std::net::IpAddr::from(a.0)),
            (Data::Address(ip), RData::AAAA(a)) => assert_eq!(ip, std::net::IpAddr::from(a.0)),
            (Data::Alias(name), RData::CNAME(alias)) => assert!(is_same(&name, alias)),
            (Data::Other(_), _) => {}
            (ours, theirs) => panic!("{ours:?} {theirs:?}"),
        }
        if ours.ttl != theirs.ttl {
            assert!(ours.ttl == 0 && theirs.ttl >> 31 == 1, "{} {}", ours.ttl, theirs.ttl);
        }
    }
    true
}

/// A million in `make soak`; the same every time.
#[test]
fn mutated_messages_are_read_as_hickory_reads_them() {
    let cases: u64 = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 50_000 };
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut agreed = 0;
    for case in 0..cases {
        let mut bytes = MESSAGES[case as usize % MESSAGES.len()].to_vec();
        for _ in 0..random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            let byte = if random.next_u32() & 1 == 0 {
                random.next_u32() as u8
            } else {
                [0, 1, 4, 0x0c, 0x10, 0xc0, 0xff, 0x3f][random.next_u32() as usize % 8]
            };
            match random.next_u32() % 4 {
                0 | 1 => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        agreed += u64::from(agree(&bytes));
    }
    assert!(agreed > cases / 8, "{agreed} of {cases}");
}

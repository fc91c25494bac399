//! Records of payload through decode, track and this stage.

use super::{FORGOTTEN_IN_NEED_NS, MOST_CONNECTIONS, Reader, Redaction, Said, Turned};
use crate::{
    decode::{Clock, Decoder, DropReasons, DropSites, End},
    track::{Addresses, Tracked, Tracker},
};
use observer_ebpf::{
    ABI_VERSION, FlowRecord, Header, PayloadRecord, Tuple, flow_reason, hook, kind, link_kind, parse::mapped,
    payload_kind,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

const SECOND: u64 = 1_000_000_000;

struct Nobody;

impl Addresses for Nobody {
    fn is_local_pod(&self, _: &End) -> bool {
        false
    }
    fn is_node(&self, _: &End) -> bool {
        false
    }
    fn has_tunnel(&self) -> bool {
        false
    }
}

/// A TCP segment of a connection that began at some time.
#[derive(Clone, Copy)]
struct Sent<'a> {
    port: u32,
    is_reply: bool,
    sequence: u32,
    bytes: &'a [u8],
    at_ns: u64,
    first_ns: u64,
}

fn record(sent: Sent<'_>) -> Vec<u8> {
    let client = ([10, 0, (sent.port >> 24) as u8, (sent.port >> 16) as u8], sent.port as u16);
    let ends = [client, ([10, 9, 9, 9], 80)];
    let (from, to) = if sent.is_reply { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
    let record = PayloadRecord {
        flow: FlowRecord {
            header: Header {
                kind: kind::PAYLOAD,
                version: ABI_VERSION,
                size: (size_of::<PayloadRecord>() + sent.bytes.len()) as u16,
                cpu: 0,
                time_ns: sent.at_ns,
            },
            tuple: Tuple {
                source: mapped(from.0),
                destination: mapped(to.0),
                source_port: from.1,
                destination_port: to.1,
                protocol: 6,
                ip_version: 4,
                ..Tuple::default()
            },
            flags: u16::from(sent.is_reply),
            hook: hook::EGRESS,
            link_kind: link_kind::POD,
            reason: flow_reason::PAYLOAD,
            packets: 3,
            first_ns: sent.first_ns,
            ..FlowRecord::new_zeroed()
        },
        sequence: sent.sequence,
        length: sent.bytes.len() as u32,
        copied: sent.bytes.len() as u16,
        payload: payload_kind::HTTP,
        pad: 0,
        before: [0; 4],
    };
    [record.as_bytes(), sent.bytes].concat()
}

fn give(reader: &mut Reader, sent: Sent<'_>) -> Vec<Said> {
    let sites = DropSites::new(DropReasons::new([]), |_| Err("no symbols"));
    let mut decoder = Decoder { clock: Clock::with_offset(0), sites };
    let mut said = Vec::new();
    let mut events = vec![decoder.decode(&record(sent)).unwrap()];
    Tracker::default().batch(&mut events, None, u64::MAX, &Nobody, &mut |tracked| {
        let Tracked::Flow(flow) = tracked else { panic!("{tracked:?}") };
        reader.take(flow, flow.event.payload.as_ref().unwrap(), &mut |each| said.push(each.clone()));
    });
    said
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nhost: u:p@h\r\ncookie: c\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn request(port: u32, at_ns: u64) -> Sent<'static> {
    Sent { port, is_reply: false, sequence: 1, bytes: REQUEST, at_ns, first_ns: 0 }
}

#[test]
fn a_request_and_its_response_are_told_without_what_is_secret() {
    let mut reader = Reader::default();
    let asked = give(&mut reader, request(40_000, SECOND));
    let sent = Sent { is_reply: true, bytes: RESPONSE, at_ns: 3 * SECOND, ..request(40_000, 0) };
    let answered = give(&mut reader, sent);
    let ([asked], [answered]) = (&asked[..], &answered[..]) else { panic!("{asked:?} {answered:?}") };
    assert_eq!((asked.is_response, answered.is_response), (false, true));
    assert_eq!(answered.l7.message().latency_ns, 2 * SECOND);
    let (request, response) = (asked.l7.http().unwrap(), answered.l7.http().unwrap());
    assert_eq!(
        (request.url.as_str(), response.url.as_str()),
        ("http://u:HUBBLE_REDACTED@h/a", request.url.as_str())
    );
    assert_eq!(request.headers[1].value, "HUBBLE_REDACTED");
    assert_eq!((response.code, response.method.as_str()), (200, "GET"));
}

#[test]
fn ports_that_are_used_again_begin_anew() {
    let mut reader = Reader::default();
    give(&mut reader, request(40_000, SECOND));
    // The answer belongs to the next connection, whose request nobody saw.
    let sent = Sent {
        is_reply: true,
        bytes: RESPONSE,
        at_ns: 3 * SECOND,
        first_ns: 2 * SECOND,
        ..request(40_000, 0)
    };
    assert!(give(&mut reader, sent).is_empty());
    assert_eq!(reader.counters().0.unasked, 1);
}

#[test]
fn connections_are_bounded_and_the_silent_make_room() {
    let mut reader = Reader::new(Redaction::default());
    // The start of a head each.
    let cut = |port, at_ns| Sent { bytes: &REQUEST[..20], ..request(port, at_ns) };
    for port in 0..=MOST_CONNECTIONS as u32 {
        give(&mut reader, cut(port, SECOND));
    }
    assert_eq!(reader.counters().1, Turned { away: 1, ..Turned::default() });
    let kept = reader.kept;
    assert!(kept >= MOST_CONNECTIONS * 20, "{kept}");
    give(&mut reader, cut(1, 2 * SECOND));
    assert_eq!(give(&mut reader, request(99_999, 2 * SECOND + FORGOTTEN_IN_NEED_NS)).len(), 1);
    assert!(reader.connections.len() <= 2 && reader.kept < kept / 1000, "{}", reader.kept);
    assert_eq!(reader.counters().1.away, 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut reader = Reader::default();
    let long = [b"GET /", &[b'a'; 4000][..]].concat();
    for port in 0..2 * (super::MOST_KEPT / long.len()) as u32 {
        give(&mut reader, Sent { bytes: &long, ..request(port, SECOND) });
        assert!(reader.kept <= super::MOST_KEPT);
    }
    assert!(reader.counters().1.forgotten > 0);
}

//! The daemon's own work for one request of HTTP and its response, on one core: from the kernel's two records with their
//! payload to two stored flows.

mod support;

use observer::{
    decode::{Clock, Decoder, DropReasons, DropSites, End},
    enrich::{Enricher, Filler, ipcache::IpCache},
    l7::{Reader, Redaction},
    store::{Store, StoreConfig},
    track::{Addresses, Tracked, Tracker},
};
use observer_ebpf::{
    ABI_VERSION, FlowRecord, Header, PayloadRecord, Tuple, flow_reason, hook, kind, link_kind, parse::mapped,
    payload_kind,
};
use std::sync::Arc;
use support::time_row;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Connections that are kept open, and requests of each.
const CONNECTIONS: u16 = 64;
const REQUESTS: u32 = 128;
/// Records taken from the ring at a time.
const BATCH: usize = 512;
const ROUNDS: usize = 21;

const REQUEST: &str = "GET /api/v1/charges/4711?expand=customer HTTP/1.1\r\nhost: payments-api.payments.svc:8080\r\n\
    user-agent: frontend/2.7 (linux; amd64)\r\naccept: application/json\r\naccept-encoding: gzip, deflate\r\n\
    authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abcdefghijklmnop\r\nx-request-id: 5b1c6a1e-2f6d-4c3b-9a55\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nconnection: keep-alive\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nserver: payments-api\r\ndate: Fri, 27 Nov 2026 08:00:00 GMT\r\n\
    content-type: application/json\r\ncache-control: no-store\r\nx-request-id: 5b1c6a1e-2f6d-4c3b-9a55\r\n\
    content-length: 21\r\n\r\n{\"id\":4711,\"ok\":true}";

/// Nobody is anybody.
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

fn record(port: u16, is_reply: bool, sequence: u32, bytes: &[u8], at_ns: u64) -> Vec<u8> {
    let (client, server) = (([10, 244, 1, 10], 40_000 + port), ([10, 244, 1, 20], 8080));
    let (from, to) = if is_reply { (server, client) } else { (client, server) };
    let record = PayloadRecord {
        flow: FlowRecord {
            header: Header {
                kind: kind::PAYLOAD,
                version: ABI_VERSION,
                size: (size_of::<PayloadRecord>() + bytes.len()) as u16,
                cpu: 0,
                time_ns: at_ns,
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
            flags: u16::from(is_reply),
            hook: hook::EGRESS,
            link_kind: link_kind::POD,
            reason: flow_reason::PAYLOAD,
            packets: 3,
            first_ns: 1,
            ..FlowRecord::new_zeroed()
        },
        sequence,
        length: bytes.len() as u32,
        copied: bytes.len() as u16,
        payload: payload_kind::HTTP,
        pad: 0,
        before: [0; 4],
    };
    [record.as_bytes(), bytes].concat()
}

/// All connections in turn, each request followed by its response.
fn records() -> Vec<Vec<u8>> {
    let response = RESPONSE.as_bytes();
    let mut records = Vec::new();
    for number in 0..REQUESTS {
        for port in 0..CONNECTIONS {
            let at_ns = 1_000_000 * (u64::from(number) * u64::from(CONNECTIONS) + u64::from(port) + 1);
            let [asked, answered] = [REQUEST.len(), response.len()].map(|length| 1 + number * length as u32);
            records.push(record(port, false, asked, REQUEST.as_bytes(), at_ns));
            records.push(record(port, true, answered, response, at_ns + 500_000));
        }
    }
    records
}

fn main() {
    let records = records();
    let requests = records.len() / 2;
    let sites = DropSites::new(DropReasons::new([]), |_| Err("no symbols"));
    let mut decoder = Decoder { clock: Clock::with_offset(0), sites };
    let mut filler = Filler::new(Enricher::new(Arc::new(IpCache::new("n1"))));
    let (_store, mut writer) = Store::new(StoreConfig { flows: records.len(), bytes: usize::MAX });
    let (mut tracker, mut events) = (Tracker::default(), Vec::new());
    let mut told = 0;
    time_row("request of HTTP", ROUNDS, requests, || {
        // The same connections from their beginning.
        let mut reader = Reader::new(Redaction::default());
        told = 0;
        for batch in records.chunks(BATCH) {
            events.extend(batch.iter().filter_map(|record| decoder.decode(record).ok()));
            tracker.batch(&mut events, None, u64::MAX, &Nobody, &mut |tracked| {
                let Tracked::Flow(flow) = tracked else { return };
                let Some(payload) = &flow.event.payload else { return };
                reader.take(flow, payload, &mut |said| {
                    told += 1;
                    said.learn(flow, &mut filler);
                    filler.fill(tracked, None, |flow| said.flow(flow, |flow| writer.add(flow)));
                });
            });
            writer.publish();
        }
    });
    assert_eq!(told, records.len(), "each request and response is told");
}

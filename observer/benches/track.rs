//! Nanoseconds an event in decode and track together, with conntrack's table full of other connections.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use observer::decode::{Clock, Decoder, DropReasons, DropSites, End, Tuple};
use observer::track::{Addresses, ConntrackTable, Entry, TableLimits, Tracker};
use observer_ebpf::{
    ABI_VERSION, DropRecord, FlowRecord, Header, Tuple as AbiTuple, drop_flags, flow_reason, hook, kind,
    link_kind,
};
use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

const EVENTS: u16 = 1000;
const CONNECTIONS: u32 = 100_000;

struct Pods;

impl Addresses for Pods {
    fn is_local_pod(&self, ip: &IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 1])
    }
    fn is_node(&self, ip: &IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets() == [10, 0, 0, 1])
    }
    fn has_tunnel(&self) -> bool {
        false
    }
}

fn end(ip: [u8; 4], port: u16) -> End {
    End { ip: ip.into(), port }
}

/// Calls of a service, the first [`EVENTS`] by the pod of the records.
fn table() -> ConntrackTable {
    let mut table = ConntrackTable::new(TableLimits::default());
    for id in 0..CONNECTIONS {
        let client = end([10, 0, 1, (id / 1000) as u8], 10_000 + (id % 1000) as u16);
        let original = Tuple { source: client, destination: end([10, 96, 0, 1], 80), protocol: 6 };
        let reply = Tuple { source: end([10, 0, 2, 1], 8080), destination: client, protocol: 6 };
        table.insert(Entry { id, original, reply });
    }
    table
}

fn header<R>(kind: u8, number: u16) -> Header {
    Header {
        kind,
        version: ABI_VERSION,
        size: size_of::<R>() as u16,
        cpu: 0,
        time_ns: 1_000_000 + u64::from(number),
    }
}

fn tuple(number: u16, destination: [u8; 4]) -> AbiTuple {
    AbiTuple {
        source: Ipv4Addr::from([10, 0, 1, 0]).to_ipv6_mapped().octets(),
        destination: Ipv4Addr::from(destination).to_ipv6_mapped().octets(),
        source_port: 10_000 + number,
        destination_port: 80,
        protocol: 6,
        ip_version: 4,
        ..AbiTuple::default()
    }
}

fn flow(number: u16, destination: [u8; 4], hook: u8) -> Vec<u8> {
    FlowRecord {
        header: header::<FlowRecord>(kind::FLOW, number),
        tuple: tuple(number, destination),
        hook,
        link_kind: link_kind::POD,
        reason: flow_reason::NEW,
        ..FlowRecord::new_zeroed()
    }
    .as_bytes()
    .to_vec()
}

fn drop_record(number: u16) -> Vec<u8> {
    DropRecord {
        header: header::<DropRecord>(kind::DROP, number),
        tuple: tuple(number, [10, 0, 1, 2]),
        reason: 3,
        location: 0x1000,
        flags: drop_flags::PARSED,
        ..DropRecord::new_zeroed()
    }
    .as_bytes()
    .to_vec()
}

/// One record by its number.
type MakeRecord = fn(u16) -> Vec<u8>;

fn decode_and_track(criterion: &mut Criterion) {
    let table = table();
    let mut group = criterion.benchmark_group("decode+track");
    group.throughput(Throughput::Elements(u64::from(EVENTS)));
    let cases: [(&str, MakeRecord); 4] = [
        ("delivery, not in conntrack", |n| flow(n, [10, 0, 1, 2], hook::EGRESS)),
        ("service call, translated", |n| flow(n, [10, 96, 0, 1], hook::INGRESS)),
        ("local delivery, suppressed", |n| flow(n, [10, 0, 1, 2], hook::INGRESS)),
        ("drop", drop_record),
    ];
    for (name, record) in cases {
        let records: Vec<Vec<u8>> = (0..EVENTS).map(record).collect();
        let reasons = DropReasons::new([(3, "NO_SOCKET".to_owned())]);
        let mut decoder = Decoder {
            clock: Clock::with_offset(0),
            sites: DropSites::new(reasons, |_| Ok("tcp_v4_rcv+0x10".to_owned())),
        };
        let mut tracker = Tracker::default();
        let (mut events, mut out) = (Vec::new(), Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    out.clear();
                    events.extend(records.iter().filter_map(|record| decoder.decode(record).ok()));
                    tracker.batch(&mut events, Some(&table), u64::MAX, &Pods, &mut out);
                    black_box(out.len())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("conntrack");
    group.throughput(Throughput::Elements(u64::from(CONNECTIONS)));
    group.sample_size(10);
    group.bench_function("insert", |bencher| bencher.iter(|| black_box(self::table().len())));
    group.finish();
}

criterion_group!(benches, decode_and_track);
criterion_main!(benches);

//! Requests and frames that nobody sends by accident.

use crate::{
    bed::{Bed, Got, follow},
    raw::{self, CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, field, frame},
};
use observer::serve::Refusal;
use observer_proto::{
    flow::FlowFilter,
    observer::{GetFlowsRequest, ServerStatusResponse},
};
use prost::Message as _;
use std::{io::Write as _, net::TcpStream};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

/// Of either kind: whether frames or resets are too many is seen first by the one or the other.
fn cut_off(bed: &Bed) -> u64 {
    bed.counters().refused(Refusal::Flood) + bed.counters().refused(Refusal::Protocol)
}

/// A hundred thousand frames, as far as they are taken, while somebody else follows.
fn flood(name: &str, piece: impl Fn(u32) -> Vec<u8>) {
    let bed = Bed::start(|_| {});
    let mut rounds = 0;
    bed.leaves_nothing(10 << 20, || {
        rounds += 1;
        let mut follower = bed
            .runtime
            .block_on(async { bed.client().await.get_flows(follow()).await })
            .unwrap()
            .into_inner();
        raw::flood(bed.tcp(), (0..100_000).map(&piece));
        crate::bed::until(name, || cut_off(&bed) == rounds);
        bed.push(10);
        let mut got = Got::default();
        bed.runtime.block_on(got.until(&mut follower, 10));
        assert_eq!(got.lost, 0, "{name}");
    });
}

#[test]
fn rapid_reset_is_cut_off() {
    flood("rapid reset", |number| {
        let stream = 2 * number + 1;
        [
            frame(HEADERS, END_HEADERS, stream, &raw::call()),
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    });
}

#[test]
fn a_flood_of_pings_is_cut_off() {
    flood("pings", |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes()));
}

#[test]
fn a_flood_of_settings_is_cut_off() {
    flood("settings", |number| frame(SETTINGS, 0, 0, &[&[0, 4], &(number + 1).to_be_bytes()[..]].concat()));
}

#[test]
fn a_flood_of_headers_is_cut_off() {
    // They never end.
    flood("headers", |number| {
        let some = field("x-some", &"x".repeat(1000));
        if number == 0 { frame(HEADERS, 0, 1, &raw::call()) } else { frame(CONTINUATION, 0, 1, &some) }
    });
}

#[test]
fn a_flood_of_empty_data_is_cut_off() {
    flood("empty data", |number| {
        if number == 0 { frame(HEADERS, END_HEADERS, 1, &raw::call()) } else { frame(DATA, 0, 1, &[]) }
    });
}

#[test]
fn what_is_no_http2_is_told_apart() {
    let bed = Bed::start(|_| {});
    let mut rounds = 0;
    bed.leaves_nothing(8 << 20, || {
        rounds += 1;
        let mut http1 = TcpStream::connect(bed.tcp()).unwrap();
        http1.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        raw::closed(http1);
        bed.refused(Refusal::NotHttp2, rounds);
        drop(TcpStream::connect(bed.tcp()).unwrap());
        bed.refused(Refusal::Closed, rounds);
    });
}

/// Sends bytes for a message as they are.
struct Bytes;

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &bytes);
        Ok(())
    }
}

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ServerStatusResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<(), ServerStatusResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), ServerStatusResponse>::default().decoder()
    }
}

#[test]
fn hostile_requests_are_refused_by_name() {
    let bed = Bed::start(|_| {});
    let of = |filters: Vec<FlowFilter>| {
        GetFlowsRequest { whitelist: filters, ..GetFlowsRequest::default() }.encode_to_vec()
    };
    let url =
        |pattern: &str| of(vec![FlowFilter { http_url: vec![pattern.to_owned()], ..FlowFilter::default() }]);
    // A group in a group, unknown fields all of them.
    let nested = [vec![0x7b; 10_000], vec![0x7c; 10_000]].concat();
    let uuid = |bytes: usize| of(vec![FlowFilter { uuid: vec!["x".repeat(bytes)], ..FlowFilter::default() }]);
    let cases = [
        ("one byte more than 4 MiB", vec![0; (4 << 20) + 1], Code::OutOfRange, "4194304"),
        (
            "10,000 filters",
            of(vec![FlowFilter::default(); 10_000]),
            Code::InvalidArgument,
            "whitelist: 10000 filters",
        ),
        ("a filter of 3 MiB", uuid(3 << 20), Code::InvalidArgument, "whitelist: a filter of"),
        ("a pattern of 64 KiB", url(&"x".repeat(64 << 10)), Code::InvalidArgument, "whitelist: a filter of"),
        ("a pattern that is huge compiled", url("((x{1000}){1000}){1000}"), Code::Unknown, "http_url"),
        (
            "a pattern nested 1,000 deep",
            url(&["(".repeat(1000), ")".repeat(1000)].concat()),
            Code::Unknown,
            "http_url",
        ),
        ("groups nested 10,000 deep", nested, Code::Internal, "recursion limit"),
        ("bytes that are no message", vec![0xff; 100], Code::Internal, "decode"),
    ];
    bed.leaves_nothing(16 << 20, || {
        bed.runtime.block_on(async {
            for (name, bytes, code, text) in &cases {
                let status = call(&bed, bytes.clone()).await.expect_err(name);
                assert_eq!(status.code(), *code, "{name}: {status}");
                assert!(
                    status.message().replace(' ', "_").contains(&text.replace(' ', "_")),
                    "{name}: {status}"
                );
            }
            // One that takes long where a pattern may look back.
            call(&bed, url("(a*)*b")).await.unwrap();
        });
        bed.serves();
    });
    assert_eq!(bed.counters().answered(Code::OutOfRange), 2);
    assert_eq!(bed.counters().answered(Code::InvalidArgument), 6);
}

async fn call(bed: &Bed, bytes: Vec<u8>) -> Result<(), Status> {
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("unix://{}", bed.socket().display())).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/observer.Observer/GetFlows");
    let mut stream = grpc.server_streaming(Request::new(bytes), path, Bytes).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

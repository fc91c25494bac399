//! Records of OpenTelemetry's logs, and a Collector that does not take them.

use super::*;
use crate::export::{config::Flags, otlp::records};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use observer_proto::flow::{
    self as wire, Dns, Http, L7FlowType, Layer4, Layer7, LostEvent, LostEventSource, Tcp, TraceContext,
    TraceParent, Verdict, layer4::Protocol, layer7::Record as Said,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message as _;
use std::{
    convert::Infallible,
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// `key=value` of each attribute, in their order.
fn attributes(record: &LogRecord) -> Vec<String> {
    let text = |value: &AnyValue| match value.value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    let list = |value: &AnyValue| match value.value.as_ref().unwrap() {
        Value::ArrayValue(list) => {
            format!("[{}]", list.values.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        _ => text(value),
    };
    record
        .attributes
        .iter()
        .map(|entry| format!("{}={}", entry.key, list(entry.value.as_ref().unwrap())))
        .collect()
}

fn record_of(flow: Flow) -> LogRecord {
    let time = flow.time;
    let event =
        ExportEvent { time, response_types: Some(ResponseTypes::Flow(flow)), ..ExportEvent::default() };
    records::record(&event).unwrap()
}

fn end(name: &str) -> wire::Endpoint {
    wire::Endpoint {
        identity: 5000,
        namespace: "shop".into(),
        labels: vec![format!("k8s:app={name}")],
        pod_name: format!("{name}-0"),
        workloads: vec![wire::Workload { name: name.into(), kind: "Deployment".into() }],
        ..wire::Endpoint::default()
    }
}

fn request() -> Flow {
    Flow {
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        uuid: "u-1".into(),
        verdict: Verdict::Dropped.into(),
        drop_reason_desc: wire::DropReason::PolicyDenied.into(),
        ip: Some(wire::Ip {
            source: "10.0.0.1".into(),
            destination: "10.0.0.2".into(),
            ip_version: wire::IpVersion::IPv4.into(),
            ..wire::Ip::default()
        }),
        l4: Some(Layer4 {
            protocol: Some(Protocol::Tcp(Tcp { source_port: 40_000, destination_port: 80, flags: None })),
        }),
        source: Some(end("web")),
        destination: Some(end("api")),
        destination_service: Some(wire::Service { name: "api".into(), namespace: "shop".into() }),
        event_type: Some(wire::CiliumEventType { r#type: 129, sub_type: 0 }),
        is_reply: Some(false),
        traffic_direction: wire::TrafficDirection::Ingress.into(),
        l7: Some(Layer7 {
            r#type: L7FlowType::Request.into(),
            latency_ns: 0,
            record: Some(Said::Http(Http {
                method: "GET".into(),
                url: "http://api/x".into(),
                protocol: "HTTP/1.1".into(),
                ..Http::default()
            })),
        }),
        trace_context: Some(TraceContext {
            parent: Some(TraceParent { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into() }),
        }),
        ..Flow::default()
    }
}

#[test]
fn a_flow_becomes_a_record() {
    let record = record_of(request());
    assert_eq!(record.time_unix_nano, 1_700_000_000_000_000_005);
    assert_eq!((record.severity_text.as_str(), record.event_name.as_str()), ("WARN", "hubble.flow"));
    assert_eq!(record.trace_id[..4], [0x4b, 0xf9, 0x2f, 0x35]);
    let Some(Value::StringValue(body)) = record.body.as_ref().unwrap().value.as_ref() else { panic!() };
    assert!(
        body.starts_with("shop/web-0:40000 (ID:5000) -> shop/api-0:80 (ID:5000) http-request DROPPED"),
        "{body}"
    );
    let wanted = [
        "log.record.uid=u-1",
        "flow.verdict=DROPPED",
        "flow.drop_reason=POLICY_DENIED",
        "flow.event_type=l7",
        "flow.is_reply=false",
        "network.io.direction=receive",
        "source.address=10.0.0.1",
        "destination.address=10.0.0.2",
        "network.type=ipv4",
        "network.transport=tcp",
        "source.port=40000",
        "destination.port=80",
        "source.k8s.namespace.name=shop",
        "source.k8s.pod.name=web-0",
        "source.k8s.workload.name=web",
        "source.k8s.workload.kind=Deployment",
        "source.identity=5000",
        "source.labels=[k8s:app=web]",
        "destination.k8s.namespace.name=shop",
        "destination.k8s.pod.name=api-0",
        "destination.k8s.workload.name=api",
        "destination.k8s.workload.kind=Deployment",
        "destination.identity=5000",
        "destination.labels=[k8s:app=api]",
        "destination.k8s.service.name=api",
        "destination.k8s.service.namespace=shop",
        "flow.l7.type=request",
        "network.protocol.name=http",
        "network.protocol.version=1.1",
        "http.request.method=GET",
        "url.full=http://api/x",
    ];
    assert_eq!(attributes(&record), wanted);
}

#[test]
fn an_answer_of_dns_and_a_loss_become_records() {
    let answer = Flow {
        l7: Some(Layer7 {
            r#type: L7FlowType::Response.into(),
            latency_ns: 1500,
            record: Some(Said::Dns(Dns {
                query: "db.data.".into(),
                ips: vec!["10.0.0.2".into()],
                qtypes: vec!["A".into()],
                ..Dns::default()
            })),
        }),
        ..Flow::default()
    };
    let wanted = [
        "flow.l7.type=response",
        "flow.l7.latency_ns=1500",
        "network.protocol.name=dns",
        "dns.question.name=db.data.",
        "dns.question.types=[A]",
        "dns.answers=[10.0.0.2]",
        "dns.response_code=0",
    ];
    assert_eq!(attributes(&record_of(answer)), wanted);
    let lost = LostEvent {
        source: LostEventSource::HubbleRingBuffer.into(),
        num_events_lost: 7,
        ..LostEvent::default()
    };
    let event =
        ExportEvent { response_types: Some(ResponseTypes::LostEvents(lost)), ..ExportEvent::default() };
    let record = records::record(&event).unwrap();
    assert_eq!(attributes(&record), ["lost_events.source=HUBBLE_RING_BUFFER", "lost_events.count=7"]);
}

/// Of a Collector.
struct Collector {
    address: std::net::SocketAddr,
    /// gRPC's code that it answers with.
    code: Arc<AtomicU64>,
    /// Requests and their `authorization`.
    got: Arc<Mutex<Vec<(ExportLogsServiceRequest, String)>>>,
}

impl Collector {
    /// Answers with this message, and a code that may change.
    fn start(runtime: &Runtime, answer: &'static [u8], code: u64) -> Self {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            code: Arc::new(AtomicU64::new(code)),
            got: Arc::default(),
        };
        let (code, got) = (Arc::clone(&collector.code), Arc::clone(&collector.got));
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (code, got) = (Arc::clone(&code), Arc::clone(&got));
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (code, got) = (Arc::clone(&code), Arc::clone(&got));
                    async move {
                        assert_eq!(
                            request.uri().path(),
                            "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
                        );
                        let who = request.headers().get("authorization");
                        let who = who.map_or("", |value| value.to_str().unwrap()).to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let message = ExportLogsServiceRequest::decode(&body[5..]).unwrap();
                        let code = code.load(Ordering::Relaxed);
                        got.lock().unwrap().push((message, who));
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", code.into());
                        let mut bytes = vec![0, 0, 0, 0, answer.len() as u8];
                        bytes.extend_from_slice(answer);
                        let bytes = if code == 0 { Bytes::from(bytes) } else { Bytes::new() };
                        let body =
                            http_body_util::Full::new(bytes).with_trailers(async { Some(Ok(trailers)) });
                        Ok::<_, Infallible>(response.body(body).unwrap())
                    }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        collector
    }

    fn exporter(&self) -> Exporter {
        let flags = Flags {
            otlp_endpoint: Some(format!("http://{}", self.address)),
            otlp_headers: vec!["Authorization=Bearer x".into()],
            ..Flags::default()
        };
        flags.check().unwrap().pop().unwrap()
    }

    /// Times of records, batch by batch.
    fn batches(&self) -> Vec<Vec<u64>> {
        let got = self.got.lock().unwrap();
        let times = |request: &ExportLogsServiceRequest| {
            let [resource] = &request.resource_logs[..] else { panic!("{request:?}") };
            let [scope] = &resource.scope_logs[..] else { panic!("{request:?}") };
            assert_eq!(scope.scope.as_ref().unwrap().name, "observer");
            scope.log_records.iter().map(|record| record.time_unix_nano).collect()
        };
        got.iter().map(|(request, _)| times(request)).collect()
    }
}

#[test]
fn a_batch_is_sent_until_it_is_taken() {
    // Unavailable.
    let mut bed = Bed::new(65_536);
    let collector = Collector::start(&bed.runtime, b"", 14);
    let exports = bed.start_one(collector.exporter());
    bed.push(1..101);
    until("two tries", || collector.batches().len() >= 2);
    assert!(bed.counts("otlp").suspended);
    collector.code.store(0, Ordering::Relaxed);
    until("all of it", || bed.counts("otlp").written == 100);
    bed.end(exports);
    let batches = collector.batches();
    let (last, tried) = batches.split_last().unwrap();
    assert_eq!(*last, (1..101).collect::<Vec<u64>>());
    assert!(tried.iter().all(|batch| batch == last));
    assert!(collector.got.lock().unwrap().iter().all(|(_, who)| who == "Bearer x"));
    let counts = bed.counts("otlp");
    assert_eq!((counts.waiting, counts.refused, counts.suspended), (0, 0, false));
}

#[test]
fn what_the_collector_refuses_is_counted() {
    // Invalid argument; then ExportLogsServiceResponse.partial_success.rejected_log_records = 30 of each batch.
    for (answer, code, refused) in [(&b""[..], 3, 100), (b"\x0a\x02\x08\x1e", 0, 30)] {
        let mut bed = Bed::new(65_536);
        let collector = Collector::start(&bed.runtime, answer, code);
        let exports = bed.start_one(collector.exporter());
        bed.push(1..101);
        until("its answer", || bed.counts("otlp").waiting == 0 && bed.counts("otlp").refused > 0);
        bed.end(exports);
        let counts = bed.counts("otlp");
        assert_eq!((counts.refused, counts.written), (refused, 100 - refused), "{counts:?}");
    }
}

#[test]
fn what_is_wrong_with_a_target_is_told() {
    let endpoint = |endpoint: &str| Flags { otlp_endpoint: Some(endpoint.into()), ..Flags::default() };
    let with = |change: fn(&mut Flags)| {
        let mut flags = endpoint("http://c:4317");
        change(&mut flags);
        flags
    };
    let mut wrong = String::new();
    for (flags, wanted) in [
        (
            endpoint("collector:4317"),
            "otlp-endpoint: `collector:4317` is no address of a Collector: write one such as",
        ),
        (endpoint("http://"), "otlp-endpoint: "),
        (endpoint("http://c:x"), "otlp-endpoint: "),
        (endpoint("http://c/v1/logs"), "otlp-endpoint: "),
        (
            with(|flags| flags.otlp_headers = vec!["secret".into()]),
            "otlp-headers: number 1 is not of the form name=value",
        ),
        (
            with(|flags| flags.otlp_headers = vec!["a b=x".into()]),
            "otlp-headers: `a b` is no name of a header",
        ),
        (
            with(|flags| flags.otlp_headers = vec!["a=\u{1}x".into()]),
            "otlp-headers: `a` has a value that is no visible ASCII",
        ),
        (
            with(|flags| flags.otlp_ca_file = Some("/x".into())),
            "otlp-ca-file: without TLS there is nobody to trust",
        ),
        (
            Flags { otlp_ca_file: Some("/nowhere".into()), ..endpoint("https://c") },
            "otlp-ca-file: /nowhere: ",
        ),
        (
            Flags { otlp_headers: vec!["a=b".into()], ..Flags::default() },
            "otlp-headers: there is no Collector: add --export-otlp-endpoint",
        ),
        (with(|flags| flags.size_mb = Some(1)), "file-max-size-mb: there is no file: add --export-file-path"),
    ] {
        match flags.check() {
            Err((flag, problem)) if format!("{flag}: {problem}").starts_with(wanted) => {}
            other => _ = writeln!(wrong, "wanted {wanted}\nfound  {other:?}"),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let both = Flags { file_path: Some("stdout".into()), ..endpoint("https://[::1]") }.check().unwrap();
    let names: Vec<&str> = both.iter().map(|exporter| exporter.name.as_str()).collect();
    assert_eq!(names, ["static", "otlp"]);
}

//! Calls from a client over the unix socket.

use crate::{
    enrich::{
        ipcache::IpCache,
        source::{Node, Rank, Surroundings},
    },
    flow::{Record, Sample},
    serve::{CaptureInfo, NodeInfo, Refusal, ServeConfig, ServeError, Server, start},
    store::{LossSource, Store, StoreConfig, Writer},
};
use observer_proto::{
    control::{CaptureStatusRequest, CaptureStatusResponse, RecordRequest, control_client::ControlClient},
    flow::{FlowFilter, LostEventSource, Verdict},
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNodesRequest, ServerStatusRequest,
        get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
    peer::{ChangeNotificationType, NotifyRequest, peer_client::PeerClient},
};
use prost_types::Timestamp;
use std::{path::Path, sync::Arc};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

pub(super) struct Capture;

impl CaptureInfo for Capture {
    fn capture_status(&self) -> CaptureStatusResponse {
        CaptureStatusResponse { kernel: "6.12".into(), ..CaptureStatusResponse::default() }
    }
}

struct Bed {
    directory: tempfile::TempDir,
    server: Server,
    store: Arc<Store>,
    writer: Writer,
}

pub(super) fn config(directory: &Path) -> ServeConfig {
    let node = NodeInfo {
        cluster: "default".into(),
        name: "n1".into(),
        labels: vec![].into(),
        version: "0.1.0".into(),
    };
    ServeConfig {
        socket: directory.join("hubble.sock"),
        control_socket: directory.join("control.sock"),
        group: "root".into(),
        ..ServeConfig::new(node)
    }
}

async fn bed(flows: usize) -> Bed {
    bed_of(&IpCache::new("n1"), flows).await
}

async fn bed_of(names: &IpCache, flows: usize) -> Bed {
    let directory = tempfile::tempdir().unwrap();
    let (store, writer) = Store::new(StoreConfig { flows, bytes: usize::MAX });
    let mut config = config(directory.path());
    config.node.labels = names.node_labels();
    let server = start(config, Arc::clone(&store), Arc::new(Capture)).await.unwrap();
    Bed { directory, server, store, writer }
}

/// A flow `second` seconds after 1970; every third is dropped.
fn at(second: u64) -> Sample {
    let verdict = if second.is_multiple_of(3) { Verdict::Dropped } else { Verdict::Forwarded };
    Sample::from(Record {
        time_ns: second as i64 * 1_000_000_000,
        verdict: verdict as u8,
        ..Record::default()
    })
}

pub(super) async fn connect(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    endpoint.connect().await.unwrap()
}

impl Bed {
    async fn channel(&self, socket: &str) -> Channel {
        connect(&self.directory.path().join(socket)).await
    }

    async fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel("hubble.sock").await)
    }

    async fn stream(&self, request: GetFlowsRequest) -> Result<Streaming<GetFlowsResponse>, Status> {
        self.client().await.get_flows(request).await.map(tonic::Response::into_inner)
    }

    /// The seconds of all flows of a request that ends by itself.
    async fn seconds(&self, request: GetFlowsRequest) -> Vec<i64> {
        let mut stream = self.stream(request).await.unwrap();
        let mut seconds = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            seconds.push(response.time.unwrap().seconds);
        }
        seconds
    }

    fn push(&mut self, seconds: impl IntoIterator<Item = u64>) {
        for second in seconds {
            self.writer.push(&at(second).flow());
        }
        self.writer.publish();
    }
}

fn drops() -> Vec<FlowFilter> {
    vec![FlowFilter { verdict: vec![Verdict::Dropped.into()], ..FlowFilter::default() }]
}

#[tokio::test]
async fn what_a_request_selects() {
    let mut bed = bed(100).await;
    bed.push(1..=10);
    // Out of order: an older one late.
    bed.push([4]);
    let request = GetFlowsRequest::default;
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let all = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4];
    for (name, request, expected) in [
        ("no number is everything", request(), all.clone()),
        ("all", GetFlowsRequest { number: u64::MAX, ..request() }, all.clone()),
        ("last, the newest included", GetFlowsRequest { number: 3, ..request() }, vec![9, 10, 4]),
        ("first", GetFlowsRequest { number: 3, first: true, ..request() }, vec![1, 2, 3]),
        ("last matching", GetFlowsRequest { number: 2, whitelist: drops(), ..request() }, vec![6, 9]),
        (
            "first matching",
            GetFlowsRequest { number: 2, first: true, whitelist: drops(), ..request() },
            vec![3, 6],
        ),
        ("blacklist", GetFlowsRequest { number: 3, blacklist: drops(), ..request() }, vec![8, 10, 4]),
        // Hubble walks back to the late 4 and answers with what is behind it, nothing.
        ("since passes a late older one", GetFlowsRequest { since: time(8), ..request() }, vec![8, 9, 10]),
        ("since", GetFlowsRequest { since: time(8), whitelist: drops(), ..request() }, vec![9]),
        (
            "since decides over number",
            GetFlowsRequest { since: time(2), number: 2, whitelist: drops(), ..request() },
            vec![3, 6],
        ),
        ("since in the future", GetFlowsRequest { since: time(253_402_300_799), ..request() }, vec![]),
        ("until", GetFlowsRequest { until: time(3), ..request() }, vec![1, 2, 3]),
        // Hubble ends at the 5.
        ("until passes newer ones", GetFlowsRequest { until: time(4), ..request() }, vec![1, 2, 3, 4, 4]),
        ("until before since", GetFlowsRequest { since: time(3), until: time(2), ..request() }, vec![]),
    ] {
        assert_eq!(bed.seconds(request).await, expected, "{name}");
    }
}

#[tokio::test]
async fn following_starts_where_asked_and_goes_on() {
    let mut bed = bed(100).await;
    bed.push(1..=5);
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut new_only = bed.stream(follow.clone()).await.unwrap();
    let mut last_two = bed.stream(GetFlowsRequest { number: 2, ..follow.clone() }).await.unwrap();
    let since = Some(Timestamp { seconds: 3, nanos: 0 });
    let mut from_three = bed.stream(GetFlowsRequest { since, number: 1, ..follow }).await.unwrap();
    bed.push(6..=7);
    for (stream, expected) in [(&mut new_only, 6..=7), (&mut last_two, 4..=7), (&mut from_three, 3..=7)] {
        for second in expected {
            let response = stream.message().await.unwrap().unwrap();
            assert_eq!(response.time.unwrap().seconds, second);
        }
    }
}

#[tokio::test]
async fn flows_have_the_labels_that_the_node_has_when_they_are_told() {
    let names = IpCache::new("n1");
    let mut bed = bed_of(&names, 100).await;
    let in_a_zone = vec![FlowFilter { node_labels: vec!["zone".into()], ..FlowFilter::default() }];
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let filtered = GetFlowsRequest { whitelist: in_a_zone.clone(), ..GetFlowsRequest::default() };
    let mut all = bed.stream(follow.clone()).await.unwrap();
    bed.push([1]);
    assert_eq!(second_and_labels(&mut all).await, (1, vec![]));
    assert!(bed.seconds(filtered.clone()).await.is_empty());
    let mut some = bed.stream(GetFlowsRequest { whitelist: in_a_zone, ..follow }).await.unwrap();
    let labels = [("zone".to_owned(), "a".to_owned()), ("arch".to_owned(), "arm64".to_owned())].into();
    let node = Node { name: "n1".into(), labels, ..Node::default() };
    let surroundings = Surroundings { nodes: vec![node], ..Surroundings::default() };
    names.set_surroundings(Rank::Kubernetes, surroundings);
    bed.push([2]);
    for stream in [&mut all, &mut some] {
        assert_eq!(second_and_labels(stream).await, (2, vec!["arch=arm64".to_owned(), "zone=a".to_owned()]));
    }
    assert_eq!(bed.seconds(filtered).await, [1, 2]);
}

async fn second_and_labels(stream: &mut Streaming<GetFlowsResponse>) -> (i64, Vec<String>) {
    let response = stream.message().await.unwrap().unwrap();
    let Some(ResponseTypes::Flow(flow)) = response.response_types else { panic!("no flow") };
    (response.time.unwrap().seconds, flow.node_labels)
}

#[tokio::test]
async fn refused_requests_say_why() {
    let bed = bed(100).await;
    let request = GetFlowsRequest::default;
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    for (request, code, text) in [
        (
            GetFlowsRequest { first: true, follow: true, ..request() },
            Code::InvalidArgument,
            "first cannot be specified with follow",
        ),
        (
            GetFlowsRequest { field_mask: mask("nose"), ..request() },
            Code::Unknown,
            r#"invalid fieldmask: "nose": Flow has no field "nose""#,
        ),
        (
            GetFlowsRequest { whitelist: vec![FlowFilter::default(); 257], ..request() },
            Code::InvalidArgument,
            "whitelist: 257 filters are more than the limit of 128",
        ),
        (
            GetFlowsRequest { until: Some(Timestamp { seconds: 0, nanos: -1 }), ..request() },
            Code::InvalidArgument,
            "until: not a valid timestamp",
        ),
    ] {
        let status = bed.stream(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(text), "{status}");
        assert_eq!(status.metadata().get("hubble-server-version").unwrap(), "0.1.0");
    }
    let bad = FlowFilter { protocol: vec!["bogus".into()], ..FlowFilter::default() };
    let status = bed.stream(GetFlowsRequest { whitelist: vec![bad], ..request() }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, r#"invalid protocol filter: unknown protocol: "bogus""#)
    );
    let large = GetFlowsRequest {
        whitelist: vec![FlowFilter { uuid: vec!["x".repeat(5 << 20)], ..FlowFilter::default() }],
        ..request()
    };
    assert_eq!(bed.stream(large).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_slow_reader_loses_by_exact_count() {
    const FLOWS: u64 = 40_000;
    let mut bed = bed(1000).await;
    let mut stream =
        bed.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await.unwrap();
    bed.push([0]);
    assert!(stream.message().await.unwrap().is_some());
    for from in (1..FLOWS).step_by(100) {
        bed.push(from..(from + 100).min(FLOWS));
        if from % 1000 == 1 {
            tokio::task::yield_now().await;
        }
    }
    let (mut read, mut lost, mut previous) = (1, 0, 0);
    while read + lost < FLOWS {
        let response = stream.message().await.unwrap().unwrap();
        match response.response_types.unwrap() {
            ResponseTypes::Flow(flow) => {
                let second = flow.time.unwrap().seconds;
                assert!(second > previous, "{second} after {previous}");
                previous = second;
                read += 1;
            }
            ResponseTypes::LostEvents(event) => {
                assert_eq!(event.source(), LostEventSource::HubbleRingBuffer);
                assert!(event.first.unwrap().seconds <= event.last.unwrap().seconds);
                lost += event.num_events_lost;
            }
            ResponseTypes::NodeStatus(_) => panic!("a node status"),
        }
    }
    assert_eq!(read + lost, FLOWS);
    assert!(lost > 0, "nothing was overwritten: the test shows nothing");
    assert_eq!(bed.store.seen(), FLOWS);
}

#[tokio::test]
async fn losses_of_earlier_stages_reach_open_streams() {
    let bed = bed(100).await;
    bed.store.report_lost(LossSource::KernelRing, 99, 1, 1);
    let mut stream =
        bed.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await.unwrap();
    bed.store.report_lost(LossSource::KernelRing, 5, 2_000_000_000, 3_000_000_000);
    let response = stream.message().await.unwrap().unwrap();
    let Some(ResponseTypes::LostEvents(event)) = response.response_types else { panic!("no loss") };
    assert_eq!((event.source(), event.num_events_lost), (LostEventSource::PerfEventRingBuffer, 5));
    assert_eq!((event.first.unwrap().seconds, event.last.unwrap().seconds), (2, 3));
}

#[tokio::test]
async fn the_other_calls_answer_or_say_that_they_are_not_built_in() {
    let mut bed = bed(1024).await;
    bed.push(1..=3);
    let mut client = bed.client().await;
    let status = client.server_status(ServerStatusRequest {}).await.unwrap();
    assert_eq!(status.metadata().get("hubble-server-version").unwrap(), "0.1.0");
    let status = status.into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (3, 1024, 3));
    assert_eq!(status.version, "observer v0.1.0");
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].name.as_str()), (1, "n1"));

    let channel = bed.channel("hubble.sock").await;
    for service in ["", "hubble.server.Observer"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status, 1);
    }
    let mut peers = PeerClient::new(channel.clone()).notify(NotifyRequest {}).await.unwrap().into_inner();
    let own = peers.message().await.unwrap().unwrap();
    assert_eq!((own.name.as_str(), own.r#type()), ("n1", ChangeNotificationType::PeerAdded));

    let mut control = ControlClient::new(bed.channel("control.sock").await);
    let capture = control.capture_status(CaptureStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((capture.kernel.as_str(), capture.node_name.as_str()), ("6.12", "default/n1"));
    assert_eq!(capture.store.unwrap().flows, 3);
    let record = control.record(RecordRequest::default()).await.unwrap_err();
    assert_eq!((record.code(), record.message()), (Code::Unimplemented, "not built in: record"));
    let misplaced = ControlClient::new(channel).capture_status(CaptureStatusRequest {}).await.unwrap_err();
    assert_eq!(misplaced.code(), Code::Unimplemented, "control must not be on the open socket");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let bed = bed(10).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(bed.channel("hubble.sock").await)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["observer.Observer", "peer.Peer"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn shutdown_ends_streams_with_unavailable_after_what_was_stored() {
    let mut bed = bed(100).await;
    let mut idle = bed.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await.unwrap();
    let mut unread =
        bed.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await.unwrap();
    bed.push([1]);
    idle.message().await.unwrap().unwrap();
    bed.push([2, 3]);
    let before = std::time::Instant::now();
    let Bed { server, directory, .. } = bed;
    server.shutdown().await;
    assert!(before.elapsed().as_millis() < 2500);
    for _ in 0..2 {
        idle.message().await.unwrap().expect("a flow that was stored before the end");
    }
    assert_eq!(idle.message().await.unwrap_err().code(), Code::Unavailable);
    while let Ok(Some(_)) = unread.message().await {}
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "sockets are left");
}

#[tokio::test]
async fn tcp_needs_insecure_and_streams_are_limited() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let mut config = ServeConfig { listen: Some("127.0.0.1:0".parse().unwrap()), ..config(directory.path()) };
    let refused = start(config.clone(), Arc::clone(&store), Arc::new(Capture)).await.unwrap_err();
    assert!(matches!(refused, ServeError::NeedsTls { .. }), "{refused}");

    (config.insecure, config.limits.streams) = (true, 1);
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    let url = format!("http://{}", server.tcp_address().unwrap());
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = ObserverClient::new(channel);
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let first = client.get_flows(follow.clone()).await.unwrap();
    let second = client.get_flows(follow.clone()).await.unwrap_err();
    assert_eq!((second.code(), second.message()), (Code::ResourceExhausted, "too many streams: at most 1"));
    drop(first);
    server.shutdown().await;
}

#[tokio::test]
async fn connections_are_limited_and_a_place_is_free_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let mut config = config(directory.path());
    config.limits.connections = 1;
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    let connect = |socket: &str| {
        let path = directory.path().join(socket);
        tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display())).unwrap()
    };
    let mut first = ObserverClient::new(connect("hubble.sock").connect().await.unwrap());
    first.server_status(ServerStatusRequest {}).await.unwrap();

    let mut second = tokio::net::UnixStream::connect(directory.path().join("hubble.sock")).await.unwrap();
    let read = tokio::io::AsyncReadExt::read(&mut second, &mut [0; 1]).await;
    assert_eq!(read.unwrap_or(0), 0, "closed without a word");
    assert_eq!(server.counters().refused(Refusal::Connections), 1);
    let mut control = ControlClient::new(connect("control.sock").connect().await.unwrap());
    control.capture_status(CaptureStatusRequest {}).await.unwrap();

    // The server notices the end in its own time; until then it refuses, which is an answer to wait for.
    drop(first);
    loop {
        if let Ok(channel) = connect("hubble.sock").connect().await
            && ObserverClient::new(channel).server_status(ServerStatusRequest {}).await.is_ok()
        {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.shutdown().await;
}

//! The stats service as a client gets it.

use super::calls::{Capture, config, connect};
use crate::{
    endpoint::Endpoint,
    flow::{Record, Sample},
    serve::{Server, start},
    store::{Store, StoreConfig, Writer},
};
use observer_proto::stats::{
    GetServicesResponse, HealthRequest, ServicesRequest, Window, WindowRequest, stats_client::StatsClient,
};
use prost_types::Duration;
use std::sync::Arc;
use tonic::{Code, transport::Channel};

async fn bed() -> (tempfile::TempDir, Server, Writer, StatsClient<Channel>) {
    let directory = tempfile::tempdir().unwrap();
    let (store, writer) = Store::new(StoreConfig::default());
    let config = config(directory.path());
    let socket = config.socket.clone();
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    (directory, server, writer, StatsClient::new(connect(&socket).await))
}

fn push(writer: &mut Writer, ports: impl Iterator<Item = u16>) {
    let world = Arc::new(Endpoint { labels: Arc::from(["reserved:world".into()]), ..Endpoint::default() });
    for port in ports {
        writer.push(
            &Sample {
                record: Record {
                    protocol: 17,
                    destination_port: port,
                    bytes: u64::from(port),
                    ..Record::default()
                },
                source: Arc::clone(&world),
                destination: Arc::clone(&world),
                ..Sample::default()
            }
            .flow(),
        );
    }
    writer.publish();
}

fn window(seconds: i64) -> WindowRequest {
    WindowRequest { window: Some(Duration { seconds, nanos: 0 }), limit: 3, follow: false }
}

#[tokio::test]
async fn edges_come_once_or_each_second() {
    let (_directory, server, mut writer, mut client) = bed().await;
    push(&mut writer, 1..=10);
    let follow = WindowRequest { follow: true, ..window(300) };
    let mut stream = client.get_edges(follow).await.unwrap().into_inner();
    let all = loop {
        let answer = stream.message().await.unwrap().unwrap();
        let Window { flows, lost, from, until, .. } = answer.window.unwrap();
        assert!(lost == 0 && from.unwrap().seconds <= until.unwrap().seconds);
        let other = answer.other.as_ref().unwrap();
        assert_eq!(answer.edges.iter().map(|edge| edge.flows).sum::<u64>() + other.flows, flows);
        if flows == 10 {
            break answer;
        }
    };
    let edges: Vec<_> =
        all.edges.iter().map(|edge| (&*edge.client, &*edge.server, &*edge.protocol, edge.port)).collect();
    assert_eq!(
        edges,
        [("world", "world", "UDP", 10), ("world", "world", "UDP", 9), ("world", "world", "UDP", 8)]
    );
    assert_eq!(all.other.unwrap().bytes, (1..=7).sum::<u64>());

    let once: Vec<_> =
        tokio_stream::StreamExt::collect(client.get_edges(window(60)).await.unwrap().into_inner()).await;
    assert_eq!(once.len(), 1);
    server.shutdown().await;
    while let Ok(answer) = stream.message().await {
        assert!(answer.is_some(), "an end without a word");
    }
}

#[tokio::test]
async fn every_call_answers_and_says_what_it_can_not() {
    let (_directory, server, mut writer, mut client) = bed().await;
    push(&mut writer, 1..=3);
    let mut health = client.get_health(HealthRequest { follow: true }).await.unwrap().into_inner();
    loop {
        let windows = health.message().await.unwrap().unwrap().windows;
        assert_eq!(windows.len(), 3);
        if windows.iter().all(|about| about.window.as_ref().unwrap().flows == 3 && about.bytes == 6) {
            break;
        }
    }
    let talkers =
        client.get_talkers(window(900)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!((talkers.talkers.len(), talkers.talkers[0].sent_bytes), (1, 6));
    let drops = client.get_drops(window(900)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(drops.drops, []);
    let policies =
        client.get_policies(window(60)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let about = policies.window.unwrap();
    assert_eq!((policies.policies, about.flows, about.policy_verdicts), (vec![], 3, 0));
    let signals =
        client.get_signals(window(60)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let (http, dns) = (signals.http.unwrap(), signals.dns.unwrap());
    assert_eq!((http.routes.len(), dns.routes.len(), signals.bounds_us.len()), (0, 0, 17));
    for (request, text) in [
        (window(7), "window: 7.000000000 s are not kept; ask for 60, 300 or 900 s"),
        (WindowRequest { limit: 2000, ..window(60) }, "limit: 2000 rows are more than the limit of 1024"),
    ] {
        let refused = client.get_edges(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text));
    }
    let services = client.get_services(ServicesRequest { names: vec!["shop/api".into()] }).await.unwrap();
    let GetServicesResponse { services, not_built_in } = services.into_inner();
    assert_eq!((services, &*not_built_in), (vec![], "this daemon does not follow the Kubernetes API"));
    assert_eq!(server.counters().answered(Code::Unimplemented), 0);
}

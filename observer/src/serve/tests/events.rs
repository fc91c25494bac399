//! Agent and debug events as a client gets them.

use super::calls::{Capture, config, connect};
use crate::{
    events::Events,
    serve::{ServeConfig, Server, start},
    store::{Store, StoreConfig},
};
use observer_proto::{
    flow::{AgentEvent, AgentEventType, DebugEventType, agent_event::Notification},
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, observer_client::ObserverClient,
    },
};
use prost_types::Timestamp;
use std::sync::Arc;
use tonic::{Code, Status, Streaming, transport::Channel};

struct Bed {
    _directory: tempfile::TempDir,
    _server: Server,
    events: Arc<Events>,
    client: ObserverClient<Channel>,
}

async fn bed() -> Bed {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::new(StoreConfig::default());
    let events = Arc::new(Events::default());
    let config = ServeConfig { events: Arc::clone(&events), ..config(directory.path()) };
    let socket = config.socket.clone();
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    let client = ObserverClient::new(connect(&socket).await);
    Bed { _directory: directory, _server: server, events, client }
}

impl Bed {
    async fn agent(
        &self,
        request: GetAgentEventsRequest,
    ) -> Result<Streaming<GetAgentEventsResponse>, Status> {
        self.client.clone().get_agent_events(request).await.map(tonic::Response::into_inner)
    }

    async fn words(&self, request: GetAgentEventsRequest) -> Vec<String> {
        let mut stream = self.agent(request).await.unwrap();
        let mut all = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            assert_eq!(response.node_name, "default/n1");
            all.push(words(&response.agent_event.unwrap()));
        }
        all
    }
}

fn words(event: &AgentEvent) -> String {
    match event.notification.as_ref().unwrap() {
        Notification::Unknown(unknown) => format!("{} {}", unknown.r#type, unknown.notification),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn agent_events_are_selected_as_flows_are() {
    let bed = bed().await;
    let request = GetAgentEventsRequest::default;
    assert_eq!(bed.words(request()).await, [""; 0]);
    for number in 0..200 {
        bed.events.note("n", number.to_string());
    }
    let numbers = |range: std::ops::Range<u32>| range.map(|number| format!("n {number}")).collect::<Vec<_>>();
    let mut all = bed.agent(request()).await.unwrap();
    let mut middle = None;
    for number in 0..200 {
        let response = all.message().await.unwrap().unwrap();
        if number == 100 {
            middle = response.time;
        }
    }
    assert!(all.message().await.unwrap().is_none());
    let far = Some(Timestamp { seconds: 4_000_000_000, nanos: 0 });
    for (name, request, expected) in [
        ("everything", request(), numbers(0..200)),
        ("last", GetAgentEventsRequest { number: 3, ..request() }, numbers(197..200)),
        ("more than there are", GetAgentEventsRequest { number: 1000, ..request() }, numbers(0..200)),
        ("first", GetAgentEventsRequest { number: 3, first: true, ..request() }, numbers(0..3)),
        ("since decides", GetAgentEventsRequest { number: 2, since: middle, ..request() }, numbers(100..102)),
        ("since later", GetAgentEventsRequest { since: far, ..request() }, vec![]),
        ("until before", GetAgentEventsRequest { until: Some(Timestamp::default()), ..request() }, vec![]),
        ("until later", GetAgentEventsRequest { until: far, number: 1, ..request() }, numbers(199..200)),
    ] {
        assert_eq!(bed.words(request).await, expected, "{name}");
    }
    let refused =
        bed.agent(GetAgentEventsRequest { first: true, follow: true, ..request() }).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "first cannot be specified with follow")
    );
}

#[tokio::test]
async fn events_are_followed_and_what_was_overwritten_is_told() {
    const MANY: u64 = 100_000;
    let bed = bed().await;
    bed.events.note("n", "old");
    let follow = GetAgentEventsRequest { follow: true, ..GetAgentEventsRequest::default() };
    let mut new_only = bed.agent(follow).await.unwrap();
    let mut from_last = bed.agent(GetAgentEventsRequest { number: 1, ..follow }).await.unwrap();
    bed.events.note("n", "new");
    for (stream, expected) in [(&mut new_only, &["n new"][..]), (&mut from_last, &["n old", "n new"])] {
        for expected in expected {
            let event = stream.message().await.unwrap().unwrap().agent_event.unwrap();
            assert_eq!(words(&event), *expected);
        }
    }
    // More than the ring, the channels and the sockets hold, while nobody reads.
    for _ in 0..MANY {
        bed.events.note("n", "x".repeat(100));
    }
    let (mut read, mut lost) = (0, 0);
    while read + lost < MANY {
        let event = new_only.message().await.unwrap().unwrap().agent_event.unwrap();
        match words(&event).strip_prefix("lost ") {
            Some(words) => lost += words.split(' ').next().unwrap().parse::<u64>().unwrap(),
            None => read += 1,
        }
    }
    assert_eq!(read + lost, MANY);
    assert!(lost > 0, "nothing was overwritten: the test shows nothing");
}

#[tokio::test]
async fn debug_events_tell_of_the_capture() {
    let bed = bed().await;
    bed.events.debug("ring full");
    let request = GetDebugEventsRequest { number: 1, ..GetDebugEventsRequest::default() };
    let mut stream = bed.client.clone().get_debug_events(request).await.unwrap().into_inner();
    let event = stream.message().await.unwrap().unwrap().debug_event.unwrap();
    assert_eq!((event.r#type(), event.message.as_str()), (DebugEventType::DbgGeneric, "ring full"));
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn the_start_is_an_agent_event() {
    let bed = bed().await;
    bed.events.started();
    let mut stream = bed.agent(GetAgentEventsRequest::default()).await.unwrap();
    let event = stream.message().await.unwrap().unwrap().agent_event.unwrap();
    assert_eq!(event.r#type(), AgentEventType::AgentStarted);
    assert!(matches!(event.notification, Some(Notification::AgentStart(start)) if start.time.is_some()));
}

//! What the server counts, for the view that is shown.

use super::Reader;
use crate::{connect::Connection, connect::Target, policy::explained, rpc};
use observe_tui::link::{Message, Topic, Window};
use observer_proto::{
    answers::rows::Answer,
    client::Endpoint,
    control::{
        CaptureStatusRequest, ExplainPolicyRequest, ListPoliciesRequest, control_client::ControlClient,
    },
    observer::{GetNodesRequest, observer_client::ObserverClient},
    stats::{HealthRequest, WindowRequest, stats_client::StatsClient},
};
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

/// The longest answer that is asked for.
const LIMIT: u32 = 1024;
/// Before the next try.
const AGAIN: Duration = Duration::from_secs(2);

/// Reads until nobody listens, whatever becomes of the connection.
pub(super) async fn read(reader: Reader, topic: Topic, window: Window) {
    if topic != Topic::Nothing {
        tokio::select! {
            () = counted(reader.clone(), topic, window) => {}
            () = beside(&reader, topic) => {}
        }
    }
}

async fn counted(mut reader: Reader, topic: Topic, window: Window) {
    loop {
        let connection = reader.connected().await;
        // What else is wrong with the connection is told with the flows.
        if let Err(status) = told(&reader, connection, topic, window).await
            && status.code() == Code::Unimplemented
            && reader.to.send(Message::NoCounts(topic)).await.is_err()
        {
            return;
        }
        sleep(AGAIN).await;
    }
}

/// Reads one stream of counts to its end.
async fn told(reader: &Reader, connection: Connection, topic: Topic, window: Window) -> Result<(), Status> {
    let length = prost_types::Duration { seconds: window.seconds(), nanos: 0 };
    let request = WindowRequest { window: Some(length), limit: LIMIT, follow: true };
    let mut client = StatsClient::new(connection.clone());
    let counts = |answer| Message::Counts(window, Box::new(answer));
    match topic {
        Topic::Nothing => Ok(()),
        Topic::Drops => {
            let stream = client.get_drops(request).await?.into_inner();
            hand_over(reader, stream, |answer| counts(Answer::Drops(answer))).await
        }
        Topic::Edges => {
            let stream = client.get_edges(request).await?.into_inner();
            hand_over(reader, stream, |answer| counts(Answer::Edges(answer))).await
        }
        Topic::Talkers => {
            let stream = client.get_talkers(request).await?.into_inner();
            hand_over(reader, stream, |answer| counts(Answer::Talkers(answer))).await
        }
        Topic::Policies => {
            let stream = client.get_policies(request).await?.into_inner();
            hand_over(reader, stream, |answer| counts(Answer::Policies(answer))).await
        }
        Topic::Signals => {
            let stream = client.get_signals(request).await?.into_inner();
            hand_over(reader, stream, |answer| counts(Answer::Signals(Box::new(answer)))).await
        }
        Topic::Nodes => {
            let stream = client.get_health(HealthRequest { follow: true }).await?.into_inner();
            hand_over(reader, stream, |answer| Message::Health(Box::new(answer))).await
        }
    }
}

async fn hand_over<T>(
    reader: &Reader,
    mut stream: Streaming<T>,
    message: impl Fn(T) -> Message,
) -> Result<(), Status> {
    while let Some(answer) = stream.message().await? {
        if reader.to.send(message(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What the view needs beside counts, asked again and again; it ends when nobody listens.
async fn beside(reader: &Reader, topic: Topic) {
    loop {
        let messages = match topic {
            Topic::Policies => vec![Message::Policies(policies(reader).await)],
            Topic::Nodes => {
                vec![Message::Nodes(nodes(reader).await), Message::Capture(capture(reader).await)]
            }
            _ => return std::future::pending().await,
        };
        for message in messages {
            if reader.to.send(message).await.is_err() {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// The daemon's control socket is on its own machine: behind any other address there may be many daemons.
async fn control(reader: &Reader) -> Result<ControlClient<Connection>, String> {
    if !matches!(reader.target.endpoint, Endpoint::Unix(_)) {
        return Err("the daemon tells it on its own machine only, through its control socket".to_owned());
    }
    let target = Target::control(None, &reader.settings)?;
    Ok(ControlClient::new(target.connect().await?))
}

async fn policies(reader: &Reader) -> Result<Box<observer_proto::control::ListPoliciesResponse>, String> {
    let request = ListPoliciesRequest { rules: true, ..ListPoliciesRequest::default() };
    let answer = control(reader).await?.list_policies(rpc::request(&reader.settings, request)).await;
    answer.map(|answer| Box::new(answer.into_inner())).map_err(|status| rpc::text(&status))
}

/// What policies say of a flow's connection.
pub(super) async fn explain(reader: Reader, uuid: String, request: ExplainPolicyRequest) {
    let answer = explanation(&reader, &request).await;
    // That nobody listens is its end, and needs no word.
    let _ = reader.to.send(Message::Explained { uuid, answer }).await;
}

async fn explanation(reader: &Reader, request: &ExplainPolicyRequest) -> Result<String, String> {
    let asked = rpc::request(&reader.settings, request.clone());
    let answer = control(reader).await?.explain_policy(asked).await;
    answer.map(|answer| explained(request, answer.get_ref())).map_err(|status| rpc::text(&status))
}

async fn capture(reader: &Reader) -> Result<Box<observer_proto::control::CaptureStatusResponse>, String> {
    let request = rpc::request(&reader.settings, CaptureStatusRequest {});
    let answer = control(reader).await?.capture_status(request).await;
    answer.map(|answer| Box::new(answer.into_inner())).map_err(|status| rpc::text(&status))
}

async fn nodes(reader: &Reader) -> Result<Vec<observer_proto::observer::Node>, String> {
    let Some(connection) = reader.connection.borrow().clone() else {
        return Err("there is no connection".to_owned());
    };
    let mut client = ObserverClient::new(connection);
    let answer = client.get_nodes(rpc::request(&reader.settings, GetNodesRequest {})).await;
    answer.map(|answer| answer.into_inner().nodes).map_err(|status| rpc::text(&status))
}

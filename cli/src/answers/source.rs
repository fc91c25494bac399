//! Flows from a server or from files, one by one.

use super::Range;
use crate::{
    Failure,
    connect::{Connection, Target, is_broken},
    input::Input,
    offline, rpc,
    settings::Settings,
};
use observer_proto::{
    filter::{FilterLists, Filters},
    flow::Flow,
    observer::{
        GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
    text::{self, Stream},
};
use std::path::PathBuf;
use tonic::{Code, Status};

/// What an answer is made of.
pub(crate) enum Piece<'a> {
    Flow(&'a Flow),
    /// So many flows did not come.
    Lost(u64),
}

/// A server that was reached.
pub(crate) struct Server {
    target: Target,
    pub(crate) channel: Connection,
}

impl Server {
    pub(crate) async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let target = Target::choose(settings)?;
        let channel = target.connect().await?;
        Ok(Self { target, channel })
    }

    /// What a call of our own says that failed; none where the server doesn't know it, as every Hubble but ours.
    pub(crate) async fn unknown_or_failed<T>(&self, answer: Result<T, Status>) -> Result<Option<T>, Failure> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(Failure::Text(self.target.failed(&status).await)),
        }
    }
}

/// Asks, and hands over what comes, until the stream ends.
pub(crate) async fn from_server(
    server: &Server,
    request: GetFlowsRequest,
    mut take: impl FnMut(Piece<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut client = ObserverClient::new(server.channel.clone());
    let mut stream = match client.get_flows(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::Cancelled && !is_broken(&status) => return Ok(()),
        Err(status) => return Err(Failure::Text(server.target.failed(&status).await)),
    };
    loop {
        match stream.message().await {
            Ok(Some(response)) => piece(&response, &mut take)?,
            Ok(None) => return Ok(()),
            Err(status) if status.code() == Code::Cancelled => return Ok(()),
            Err(status) => return Err(Failure::Text(rpc::text(&status))),
        }
    }
}

/// Hands over what files hold that passes the filters and is of that time.
pub(crate) fn from_files(
    paths: &[PathBuf],
    filters: &FilterLists,
    (since, until): Range,
    mut take: impl FnMut(Piece<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let filters =
        Filters::compile(&filters.whitelist, &filters.blacklist).map_err(|error| error.to_string())?;
    let mut input = Input::open(paths)?;
    while let Some(response) = input.next()? {
        let time = response.time.map(|time| (time.seconds, time.nanos));
        let is_out = since.is_some_and(|since| time < Some((since.seconds, since.nanos)))
            || until.is_some_and(|until| time > Some((until.seconds, until.nanos)));
        let passes = |flow: &Flow| filters.matches(flow);
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) if is_out || !passes(flow) => {}
            _ => piece(&response, &mut take)?,
        }
    }
    eprint!("{}", offline::notes(input.skipped()));
    Ok(())
}

fn piece(
    response: &GetFlowsResponse,
    take: &mut impl FnMut(Piece<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => take(Piece::Flow(flow)),
        Some(ResponseTypes::LostEvents(lost)) => take(Piece::Lost(lost.num_events_lost)),
        // Nodes that are missing make an answer a part of the truth.
        Some(ResponseTypes::NodeStatus(_)) if text::stream(response, false) == Some(Stream::Err) => {
            let mut line = String::new();
            if text::flows_response(text::Options::default(), response, &mut line).is_ok() {
                eprint!("{line}");
            }
            Ok(())
        }
        Some(ResponseTypes::NodeStatus(_)) | None => Ok(()),
    }
}

//! `observe reflect`: the server's API as it tells it itself.

use crate::{
    Failure,
    args::Globals,
    connect::{Connection, Target},
    output, rpc,
};
use clap::Args;
use observer_proto::json;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use std::collections::BTreeSet;
use tokio_stream::iter;
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// What every server has, and nobody wants to read about.
const PLUMBING: [&str; 3] = [
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.health.v1.Health",
];

/// It has no flags of its own.
#[derive(Args)]
pub(crate) struct ReflectArgs {}

pub(super) async fn run(globals: &Globals, _: ReflectArgs) -> Result<(), Failure> {
    let target = Target::choose(&globals.settings()?)?;
    let mut client = ServerReflectionClient::new(target.connect().await?);
    let services = match ask(&mut client, MessageRequest::ListServices(String::new())).await? {
        MessageResponse::ListServicesResponse(list) => list.service,
        other => return Err(unexpected(&other)),
    };
    let mut waiting: Vec<MessageRequest> = services
        .into_iter()
        .rev()
        .filter(|service| !PLUMBING.contains(&service.name.as_str()))
        .map(|service| MessageRequest::FileContainingSymbol(service.name))
        .collect();
    // A file is told once, however many import it.
    let mut told = BTreeSet::new();
    while let Some(request) = waiting.pop() {
        let MessageResponse::FileDescriptorResponse(files) = ask(&mut client, request).await? else {
            continue;
        };
        for encoded in files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(encoded.as_slice()).map_err(|error| error.to_string())?;
            if !told.insert(file.name().to_owned()) {
                continue;
            }
            output::whole(&(json::descriptor_line(&encoded)? + "\n"))?;
            waiting.extend(file.dependency.into_iter().map(MessageRequest::FileByFilename));
        }
    }
    Ok(())
}

async fn ask(
    client: &mut ServerReflectionClient<Connection>,
    request: MessageRequest,
) -> Result<MessageResponse, Failure> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let failed = |status: tonic::Status| Failure::Text(rpc::text(&status));
    let mut answers = client.server_reflection_info(iter([request])).await.map_err(failed)?.into_inner();
    let answer = answers.message().await.map_err(failed)?;
    answer
        .and_then(|answer| answer.message_response)
        .ok_or_else(|| "the server ended the reflection without an answer".to_owned().into())
}

fn unexpected(response: &MessageResponse) -> Failure {
    format!("unexpected response: {response:?}").into()
}

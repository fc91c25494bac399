//! What a shell is offered for a value: words from the table of the flags, and names that the server knows now.

use crate::{args, connect::Connection, connect::Target, rpc, settings::Settings};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use observer_proto::{
    filter::{drop_reasons, flags::Complete},
    flow::{Endpoint, Flow},
    observer::{
        GetFlowsRequest, GetNamespacesRequest, GetNodesRequest, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
};
use prost_types::FieldMask;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// The variable by which a shell's script asks for completions.
pub(crate) const VARIABLE: &str = "OBSERVE_COMPLETE";
/// How long the server may take: a user waits for it at each press of the key.
const PATIENCE: Duration = Duration::from_millis(250);
/// How many of the last flows are looked at for names.
const SAMPLE_FLOWS: u64 = 2048;
/// How many values are offered.
const MAX_OFFERED: usize = 1000;

/// For the definition of a flag; `None` where nothing is known.
pub(crate) fn candidates(complete: Complete) -> Option<ArgValueCandidates> {
    match complete {
        Complete::Nothing => None,
        Complete::Words(words) => Some(of(words)),
        Complete::DropReasons => {
            Some(ArgValueCandidates::new(|| drop_reasons().map(CompletionCandidate::new).collect()))
        }
        live => Some(ArgValueCandidates::new(move || offered(ask_server(live)))),
    }
}

/// For a flag with values of its own.
pub(crate) fn of(words: &'static [&'static str]) -> ArgValueCandidates {
    ArgValueCandidates::new(move || words.iter().map(CompletionCandidate::new).collect())
}

fn offered(names: BTreeSet<String>) -> Vec<CompletionCandidate> {
    let clean =
        |name: &String| !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    names.into_iter().filter(clean).take(MAX_OFFERED).map(CompletionCandidate::new).collect()
}

/// What came within the time; a server that can't be reached offers nothing.
fn ask_server(kind: Complete) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // The words stand behind `--`, as the script passes them.
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(2).collect();
    let Ok(settings) = args::globals_of(words).settings() else { return names };
    // Half an answer offers half the names.
    patiently(PATIENCE, ask(&settings, kind, &mut names));
    names
}

/// Waits so long, and not for what goes on in threads: a name server that doesn't answer is waited for by the system.
fn patiently<T>(patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { timeout(patience, answer).await.ok() });
    runtime.shutdown_background();
    answer
}

async fn ask(settings: &Settings, kind: Complete, names: &mut BTreeSet<String>) -> Option<()> {
    let channel = Target::choose(settings).ok()?.connect().await.ok()?;
    let mut client = ObserverClient::new(channel);
    match kind {
        Complete::Namespaces => {
            let answer = client.get_namespaces(rpc::request(settings, GetNamespacesRequest {})).await.ok()?;
            names.extend(answer.into_inner().namespaces.into_iter().map(|namespace| namespace.namespace));
        }
        Complete::Nodes => {
            let answer = client.get_nodes(rpc::request(settings, GetNodesRequest {})).await.ok()?;
            names.extend(answer.into_inner().nodes.into_iter().map(|node| node.name));
        }
        Complete::Pods => {
            let fields =
                ["source.namespace", "source.pod_name", "destination.namespace", "destination.pod_name"];
            sample(&mut client, &fields, |flow| {
                names.extend(
                    ends(flow)
                        .filter(|end| !end.pod_name.is_empty())
                        .map(|end| format!("{}/{}", end.namespace, end.pod_name)),
                );
            })
            .await?;
        }
        Complete::Services => {
            sample(&mut client, &["source_service", "destination_service"], |flow| {
                let services = [flow.source_service.as_ref(), flow.destination_service.as_ref()];
                names.extend(
                    services
                        .into_iter()
                        .flatten()
                        .map(|service| format!("{}/{}", service.namespace, service.name)),
                );
            })
            .await?;
        }
        Complete::Workloads => {
            sample(&mut client, &["source.workloads", "destination.workloads"], |flow| {
                names.extend(
                    ends(flow)
                        .flat_map(|end| &end.workloads)
                        .map(|workload| format!("{}/{}", workload.kind, workload.name)),
                );
            })
            .await?;
        }
        Complete::Labels => {
            sample(&mut client, &["source.labels", "destination.labels"], |flow| {
                names.extend(ends(flow).flat_map(|end| end.labels.iter().cloned()));
            })
            .await?;
        }
        Complete::Nothing | Complete::Words(_) | Complete::DropReasons => {}
    }
    Some(())
}

fn ends(flow: &Flow) -> impl Iterator<Item = &Endpoint> {
    [flow.source.as_ref(), flow.destination.as_ref()].into_iter().flatten()
}

async fn sample(
    client: &mut ObserverClient<Connection>,
    fields: &[&str],
    mut take: impl FnMut(&Flow),
) -> Option<()> {
    let request = GetFlowsRequest {
        number: SAMPLE_FLOWS,
        field_mask: Some(FieldMask { paths: fields.iter().map(|path| (*path).to_owned()).collect() }),
        ..GetFlowsRequest::default()
    };
    let mut stream = client.get_flows(request).await.ok()?.into_inner();
    while let Some(response) = stream.message().await.ok()? {
        if let Some(ResponseTypes::Flow(flow)) = &response.response_types {
            take(flow);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_no_answer_is_not_waited_for() {
        // The thread waits until the test has ended.
        let (answer, waiting) = std::sync::mpsc::channel::<()>();
        let asked = async { tokio::task::spawn_blocking(move || waiting.recv()).await };
        assert!(patiently(Duration::ZERO, asked).is_none());
        drop(answer);
    }
}

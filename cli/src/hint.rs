//! Why a filter may match nothing: what the server has seen, and which names of the filter it does not know.

use crate::connect::Connection;
use observer_proto::{
    flow::FlowFilter,
    observer::{
        GetFlowsRequest, ServerStatusRequest, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
    text::status::grouped,
};
use prost_types::FieldMask;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// How many of the last flows are looked at for pod names.
const SAMPLE_FLOWS: u64 = 4096;
/// How long the server may take for them.
const SAMPLE_TIME: Duration = Duration::from_secs(3);
/// How many names one hint speaks of.
const MAX_NAMES: usize = 4;

/// (namespace, pod) of the server's last flows.
pub(crate) type Pods = BTreeSet<(String, String)>;

/// Whether there is a filter that could be wrong.
pub(crate) fn applies(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> bool {
    !whitelist.is_empty() || !blacklist.is_empty()
}

pub(crate) fn say(text: Option<String>) {
    if let Some(text) = text {
        eprintln!("{text}");
    }
}

/// Asks the server. No answer, no hint.
pub(crate) async fn gather(channel: Connection, whitelist: &[FlowFilter]) -> Option<String> {
    let mut client = ObserverClient::new(channel);
    let seen = timeout(SAMPLE_TIME, client.server_status(ServerStatusRequest {}))
        .await
        .ok()?
        .ok()?
        .into_inner()
        .seen_flows;
    let mut pods = Pods::new();
    // Half an answer is enough: a name in it is known for certain.
    let complete = timeout(SAMPLE_TIME, sample(&mut client, &mut pods)).await.is_ok_and(|r| r.is_some());
    let unknown = if complete { unknown_names(whitelist, &pods) } else { Vec::new() };
    Some(text(seen, &unknown))
}

async fn sample(client: &mut ObserverClient<Connection>, pods: &mut Pods) -> Option<()> {
    let paths = ["source.namespace", "source.pod_name", "destination.namespace", "destination.pod_name"];
    let request = GetFlowsRequest {
        number: SAMPLE_FLOWS,
        field_mask: Some(FieldMask { paths: paths.map(str::to_owned).to_vec() }),
        ..GetFlowsRequest::default()
    };
    let mut stream = client.get_flows(request).await.ok()?.into_inner();
    while let Some(response) = stream.message().await.ok()? {
        if let Some(ResponseTypes::Flow(flow)) = response.response_types {
            pods.extend(
                [flow.source, flow.destination].into_iter().flatten().map(|e| (e.namespace, e.pod_name)),
            );
        }
    }
    Some(())
}

/// A name of the filter that no known pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unknown {
    Pod(String),
    Namespace(String),
    /// Given without a namespace, which means `default`.
    Bare(String),
}

fn unknown_names(whitelist: &[FlowFilter], pods: &Pods) -> Vec<Unknown> {
    let mut out = Vec::new();
    for name in whitelist.iter().flat_map(|f| f.source_pod.iter().chain(&f.destination_pod)) {
        let (namespace, prefix) = name.split_once('/').unwrap_or(("default", name));
        let known = pods.iter().any(|(own, pod)| {
            (namespace.is_empty() || own == namespace)
                && pod.starts_with(prefix)
                && !(own.is_empty() && pod.is_empty())
        });
        let unknown = match name.split_once('/') {
            None => Unknown::Bare(name.clone()),
            Some((namespace, "")) => Unknown::Namespace(namespace.to_owned()),
            Some(_) => Unknown::Pod(name.clone()),
        };
        if !known && !out.contains(&unknown) {
            out.push(unknown);
        }
    }
    out
}

fn text(seen: u64, unknown: &[Unknown]) -> String {
    let head = format!("hint: 0 of {} flows matched", grouped(seen));
    let names = unknown.iter().take(MAX_NAMES).map(|name| match name {
        Unknown::Pod(pod) => format!("no pod {} is known", pod.escape_debug()),
        Unknown::Namespace(namespace) if namespace.is_empty() => "no pod is known".to_owned(),
        Unknown::Namespace(namespace) => format!("no pod in namespace {} is known", namespace.escape_debug()),
        Unknown::Bare(pod) => format!("'{0}' means default/{0}", pod.escape_debug()),
    });
    let rest = (unknown.len() > MAX_NAMES).then(|| format!("and {} more", unknown.len() - MAX_NAMES));
    std::iter::once(head).chain(names).chain(rest).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_proto::filter;

    #[test]
    fn the_hint_names_what_the_server_does_not_know() {
        let pods: Pods = [("payments", "payments-api-0"), ("default", "db-0"), ("", "")]
            .into_iter()
            .map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()))
            .collect();
        let hint = |flags: &[(&str, &str)]| {
            text(12_345, &unknown_names(&filter::parse(flags.iter().copied()).unwrap().whitelist, &pods))
        };
        for (flags, expected) in [
            (
                &[("from-pod", "payments/payments-apo"), ("to-pod", "web")][..],
                "hint: 0 of 12,345 flows matched; no pod payments/payments-apo is known; 'web' means default/web",
            ),
            (&[("pod", "web")], "hint: 0 of 12,345 flows matched; 'web' means default/web"),
            (&[("pod", "payments/payments-api")], "hint: 0 of 12,345 flows matched"),
            (&[("pod", "db")], "hint: 0 of 12,345 flows matched"),
            (&[("pod", "/payments")], "hint: 0 of 12,345 flows matched"),
            (&[("pod", "/x")], "hint: 0 of 12,345 flows matched; no pod /x is known"),
            (&[("namespace", "shop")], "hint: 0 of 12,345 flows matched; no pod in namespace shop is known"),
            (&[("verdict", "DROPPED")], "hint: 0 of 12,345 flows matched"),
            (&[("not", "true"), ("pod", "web")], "hint: 0 of 12,345 flows matched"),
            (
                &[("pod", "a"), ("pod", "b"), ("pod", "c"), ("pod", "x"), ("pod", "y")],
                "hint: 0 of 12,345 flows matched; 'a' means default/a; 'b' means default/b; 'c' means default/c; \
                 'x' means default/x; and 1 more",
            ),
        ] {
            assert_eq!(hint(flags), expected);
        }
    }
}

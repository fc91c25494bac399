//! Hubble's UI pointed straight at the daemon: the calls of its backend, and what it draws from the answers.
//!
//! It asks for ServerStatus and GetNodes every few seconds and gives up on any error but UNAVAILABLE. Its map comes from
//! GetFlows with `reply: [false]` in each filter: a card for each end with labels and an identity, a link for each flow.

use crate::{
    support::{Daemon, PATIENCE, can_run, demo, name},
    tally::{Outcome, Tally, ensure},
};
use observer_proto::{
    flow::{Flow, FlowFilter, Verdict},
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNodesRequest, ServerStatusRequest,
        get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
};
use std::collections::BTreeSet;
use tokio_stream::StreamExt as _;

#[test]
fn the_calls_of_the_ui() {
    if !can_run("the_calls_of_the_ui") {
        return;
    }
    let (_lab, daemon) = demo("ui", 2, &[]);
    daemon.settled();
    let mut tally = Tally::default();
    tally.case("37", "ServerStatus", server_status(&daemon));
    tally.case("37", "GetNodes", nodes(&daemon));
    let flows = shown(&daemon, &request("payments"));
    tally.case("37", "GetFlows of a namespace: what its filters mean", selected(&daemon, &flows));
    tally.case("37", "GetFlows of a namespace: cards", cards(&flows));
    tally.case("37", "GetFlows of a namespace: links", links(&flows));
    let dropped = FlowFilter { verdict: vec![Verdict::Dropped as i32], ..FlowFilter::default() };
    tally.case(
        "37",
        "GetFlows of a namespace: dropped only",
        dropped_only(&shown(&daemon, &with(request("payments"), &dropped))),
    );
}

fn server_status(daemon: &Daemon) -> Outcome {
    let call =
        daemon.call(async |channel| ObserverClient::new(channel).server_status(ServerStatusRequest {}).await);
    let status = call.map_err(|status| format!("{status:?}"))?.into_inner();
    ensure(status.num_flows > 0 && status.max_flows > 0 && status.flows_rate > 0.0, || format!("{status:?}"))
}

fn nodes(daemon: &Daemon) -> Outcome {
    let call = daemon.call(async |channel| ObserverClient::new(channel).get_nodes(GetNodesRequest {}).await);
    let nodes = call.map_err(|status| format!("{status:?}"))?.into_inner().nodes;
    let own = nodes.iter().find(|node| node.name.ends_with("n1"));
    ensure(own.is_some_and(|node| node.num_flows > 0 && node.uptime_ns > 0), || format!("{nodes:?}"))
}

/// As the backend makes it for a namespace that was picked.
fn request(namespace: &str) -> GetFlowsRequest {
    let here = vec![format!("{namespace}/")];
    let to = FlowFilter { destination_pod: here.clone(), reply: vec![false], ..FlowFilter::default() };
    let from = FlowFilter { source_pod: here, reply: vec![false], ..FlowFilter::default() };
    let hidden = |label: &str| {
        let labels = vec![label.to_owned()];
        [
            FlowFilter { source_label: labels.clone(), ..FlowFilter::default() },
            FlowFilter { destination_label: labels, ..FlowFilter::default() },
        ]
    };
    let dns = FlowFilter {
        destination_label: vec!["k8s:k8s-app=kube-dns".into()],
        destination_port: vec!["53".into()],
        ..FlowFilter::default()
    };
    GetFlowsRequest {
        number: 10_000,
        follow: true,
        whitelist: vec![from, to],
        blacklist: [hidden("reserved:unknown"), hidden("reserved:host"), hidden("reserved:remote-node")]
            .into_iter()
            .flatten()
            .chain([dns])
            .collect(),
        ..GetFlowsRequest::default()
    }
}

fn with(mut request: GetFlowsRequest, more: &FlowFilter) -> GetFlowsRequest {
    for filter in &mut request.whitelist {
        filter.verdict.clone_from(&more.verdict);
    }
    request
}

/// What comes at once; the stream itself goes on. Nothing tells where the history ends: it is as long as the answer to who
/// does not follow.
fn shown(daemon: &Daemon, request: &GetFlowsRequest) -> Vec<Flow> {
    let history = daemon.responses(GetFlowsRequest { follow: false, ..request.clone() }).len();
    daemon.call(async |channel| {
        let stream = ObserverClient::new(channel).get_flows(request.clone()).await.unwrap().into_inner();
        let shown = stream.take(history).filter_map(|next| flow(next.unwrap())).collect();
        tokio::time::timeout(PATIENCE, shown).await.expect("as much as without following")
    })
}

fn flow(response: GetFlowsResponse) -> Option<Flow> {
    match response.response_types {
        Some(ResponseTypes::Flow(flow)) => Some(flow),
        _ => None,
    }
}

/// The same from all flows up to then, by what the filters mean: no reply, or dropped and nobody knows.
fn selected(daemon: &Daemon, shown: &[Flow]) -> Outcome {
    let time = |flow: &Flow| flow.time.map(|time| (time.seconds, time.nanos));
    let last = shown.last().and_then(time);
    let is_here = |flow: &Flow| {
        [&flow.source, &flow.destination].into_iter().flatten().any(|end| end.namespace == "payments")
    };
    let is_asked = |flow: &Flow| match flow.is_reply {
        Some(reply) => !reply,
        None => flow.verdict() == Verdict::Dropped,
    };
    let hides =
        |label: &String| ["reserved:unknown", "reserved:host", "reserved:remote-node"].contains(&&**label);
    let is_hidden = |flow: &Flow| {
        let ends = || [&flow.source, &flow.destination].into_iter().flatten();
        ends().any(|end| end.labels.iter().any(hides))
            || flow.destination.iter().any(|end| end.labels.contains(&"k8s:k8s-app=kube-dns".to_owned()))
    };
    let wanted: BTreeSet<String> = daemon
        .flows()
        .into_iter()
        .filter(|flow| time(flow) <= last && is_here(flow) && is_asked(flow) && !is_hidden(flow))
        .map(|flow| flow.uuid)
        .collect();
    let found: BTreeSet<String> = shown.iter().map(|flow| flow.uuid.clone()).collect();
    ensure(wanted.len() > 10 && found == wanted, || format!("{} flows, wanted {}", found.len(), wanted.len()))
}

/// A flow without one of these gives no card, no link or no colour.
fn cards(shown: &[Flow]) -> Outcome {
    for flow in shown {
        let ends = [flow.source.as_ref(), flow.destination.as_ref()];
        for end in ends {
            let end = end.ok_or_else(|| format!("an end is missing: {flow:?}"))?;
            ensure(end.identity > 0 && !end.labels.is_empty(), || format!("no identity or labels: {end:?}"))?;
            let is_app = |label: &String| label.starts_with("k8s:app=") || label.starts_with("k8s:k8s-app=");
            ensure(end.pod_name.is_empty() || end.labels.iter().any(is_app), || format!("no app: {end:?}"))?;
        }
        ensure(flow.l4.is_some() && flow.ip.is_some() && flow.time.is_some(), || format!("{flow:?}"))?;
        ensure(flow.verdict() != Verdict::Unknown && flow.node_name == "default/n1", || format!("{flow:?}"))?;
    }
    Ok(())
}

fn links(shown: &[Flow]) -> Outcome {
    let end = |end: &Option<observer_proto::flow::Endpoint>, ip: &str| match end {
        Some(end) if !end.workloads.is_empty() => end.workloads[0].name.clone(),
        end => name(end.as_ref(), ip),
    };
    let found: BTreeSet<(String, String)> = shown
        .iter()
        .map(|flow| {
            let ip = flow.ip.clone().unwrap_or_default();
            (end(&flow.source, &ip.source), end(&flow.destination, &ip.destination))
        })
        .collect();
    for (from, to) in [
        ("frontend-app", "payments-api"),
        ("finance-tool", "payments-api"),
        ("payments-api", "payments-api"),
        ("payments-api", "analytics-service"),
        ("payments-api", "203.0.113.10"),
    ] {
        ensure(found.contains(&(from.to_owned(), to.to_owned())), || {
            format!("{from} -> {to} is not in {found:?}")
        })?;
    }
    let back = ("payments-api".to_owned(), "frontend-app".to_owned());
    ensure(!found.contains(&back), || "a reply became a link".to_owned())
}

fn dropped_only(shown: &[Flow]) -> Outcome {
    ensure(!shown.is_empty() && shown.iter().all(|flow| flow.verdict() == Verdict::Dropped), || {
        format!("{} flows", shown.len())
    })
}

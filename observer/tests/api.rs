//! The API as a client finds it: what requests select from real flows, and how those flows are filled.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, netns, scenario::Traffic};
use observer_proto::{
    filter,
    flow::{CiliumEventType, Endpoint, Flow, FlowType, Verdict, layer4::Protocol},
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest,
        get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
};
use support::{Daemon, PATIENCE, can_run, demo, extensions, name};
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint as Address};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[test]
fn requests_and_flows_of_the_demo() {
    if !can_run("requests_and_flows_of_the_demo") {
        return;
    }
    // One of each kind, IPv4 and IPv6.
    let (mut lab, daemon) = demo("api", 2, &["--listen", "127.0.0.1:4244", "--insecure"]);
    let flows = daemon.flows_until(|flows| {
        let has =
            |flag: &[&str]| flows.iter().any(|flow| flag.iter().all(|part| compact(flow).contains(part)));
        [
            &["web/frontend-app", "payments/payments-api", "FORWARDED"][..],
            &["NETFILTER_DROP", "DROPPED"],
            &["NO_SOCKET"],
            &["data/analytics-service", "web/frontend-app", "ICMP"],
        ]
        .iter()
        .find(|parts| !has(parts))
        .map(|parts| format!("a flow with {parts:?}"))
    });
    flows_are_filled(&flows);
    drops_are_filled(&flows);
    undisturbed(&daemon, ranges);
    filters(&daemon);
    unary_calls(&daemon);
    over_tcp(&lab);
    following(&mut lab, &daemon);
    assert!(daemon.stop().0.success());
    identities_are_stable(&mut lab, &flows);
}

/// A flow as one line, for a look at what is in it.
fn compact(flow: &Flow) -> String {
    let ip = flow.ip.clone().unwrap_or_default();
    let protocol = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_)) => "ICMP",
        _ => "",
    };
    let (from, to) =
        (name(flow.source.as_ref(), &ip.source), name(flow.destination.as_ref(), &ip.destination));
    let extensions = extensions(flow);
    format!("{from} -> {to} {protocol} {} {} {extensions:?}", flow.verdict().as_str_name(), summary(flow))
}

#[expect(deprecated, reason = "clients print it")]
fn summary(flow: &Flow) -> &str {
    &flow.summary
}

fn flows_are_filled(flows: &[Flow]) {
    let uuids: HashSet<&str> = flows.iter().map(|flow| flow.uuid.as_str()).collect();
    assert_eq!(uuids.len(), flows.len(), "each flow has an uuid of its own");
    let times: Vec<_> = flows.iter().map(|flow| flow.time.map(|time| (time.seconds, time.nanos))).collect();
    assert!(times.is_sorted(), "the store is in order of time");
    for flow in flows {
        assert_eq!(flow.node_name, "default/n1");
        assert_eq!(flow.emitter.as_ref().unwrap().name, "Observer", "{flow:?}");
        assert_eq!(flow.emitter.as_ref().unwrap().version, env!("CARGO_PKG_VERSION"));
        assert_eq!(flow.r#type(), FlowType::L3L4);
        let (source, destination) = (flow.source.as_ref().unwrap(), flow.destination.as_ref().unwrap());
        for endpoint in [source, destination] {
            assert!(endpoint.labels.is_sorted(), "{endpoint:?}");
            check_endpoint(endpoint);
        }
        if flow.verdict() == Verdict::Forwarded {
            assert!(flow.is_reply.is_some(), "{flow:?}");
            #[expect(deprecated, reason = "older clients read it")]
            let reply = flow.reply;
            assert_eq!(flow.is_reply, Some(reply));
        }
    }
    let frontend = flows
        .iter()
        .flat_map(|flow| [flow.source.as_ref(), flow.destination.as_ref()])
        .flatten()
        .find(|endpoint| endpoint.pod_name == "frontend-app-7b5b9c6d4-x2x9z")
        .unwrap();
    assert_eq!(
        frontend.labels,
        [
            "k8s:app=frontend-app",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=frontend",
            "k8s:io.kubernetes.pod.namespace=web",
            "k8s:tier=web",
        ]
    );
    assert_eq!(frontend.cluster_name, "default");
    assert_eq!(frontend.workloads.len(), 1);
    assert_eq!((&*frontend.workloads[0].kind, &*frontend.workloads[0].name), ("Deployment", "frontend-app"));
    let id = |pod: &str| -> HashSet<u32> {
        let ends = flows.iter().flat_map(|flow| [flow.source.as_ref(), flow.destination.as_ref()]).flatten();
        ends.filter(|endpoint| endpoint.pod_name == pod).map(|endpoint| endpoint.identity).collect()
    };
    assert_eq!(id("payments-api-6c8f7d9b5-k4m2p").len(), 1);
    assert_eq!(id("payments-api-6c8f7d9b5-k4m2p"), id("payments-api-6c8f7d9b5-q9w7t"), "equal labels");
}

/// Identity numbers and labels fit each other.
fn check_endpoint(endpoint: &Endpoint) {
    let label = |text: &str| endpoint.labels.iter().any(|label| label == text);
    match endpoint.identity {
        1 => assert!(label("reserved:host"), "{endpoint:?}"),
        2 => assert!(label("reserved:world"), "{endpoint:?}"),
        0 => {}
        256..0x100_0000 => {
            assert!(!endpoint.pod_name.is_empty() && !endpoint.labels.is_empty(), "{endpoint:?}");
        }
        0x100_0000.. => {
            assert!(label("reserved:world"), "{endpoint:?}");
            assert!(endpoint.labels.iter().any(|label| label.starts_with("cidr")), "{endpoint:?}");
        }
        other => assert!(endpoint.labels.iter().any(|l| l.starts_with("reserved:")), "{other}: {endpoint:?}"),
    }
}

fn drops_are_filled(flows: &[Flow]) {
    let drops: Vec<&Flow> = flows.iter().filter(|flow| flow.verdict() == Verdict::Dropped).collect();
    assert!(!drops.is_empty());
    let mut by_reason: BTreeMap<String, u32> = BTreeMap::new();
    for flow in drops {
        let event = flow.event_type.unwrap();
        assert_eq!(event.r#type, 1, "{flow:?}");
        assert_eq!(event.sub_type, flow.drop_reason_desc, "{flow:?}");
        #[expect(deprecated, reason = "older clients read it")]
        let number = flow.drop_reason;
        assert_eq!(number.cast_signed(), flow.drop_reason_desc);
        let extensions = extensions(flow);
        let reason = extensions.iter().find(|(_, value)| summary(flow).contains(&***value));
        assert!(
            reason.is_some(),
            "the kernel's reason is in Summary and extensions: {} {extensions:?}",
            summary(flow)
        );
        *by_reason.entry(summary(flow).to_owned()).or_default() += 1;
    }
    for reason in ["NETFILTER_DROP", "NO_SOCKET"] {
        assert!(by_reason.keys().any(|summary| summary.contains(reason)), "{reason}: {by_reason:?}");
    }
}

/// Another daemon gives the same labels the same numbers.
fn identities_are_stable(lab: &mut Lab, flows: &[Flow]) {
    let identities = |flows: &[Flow]| -> BTreeMap<Vec<String>, u32> {
        let ends = flows.iter().flat_map(|flow| [flow.source.clone(), flow.destination.clone()]).flatten();
        ends.filter(|end| !end.pod_name.is_empty()).map(|end| (end.labels, end.identity)).collect()
    };
    let first = identities(flows);
    let numbers: HashSet<u32> = first.values().copied().collect();
    assert_eq!(numbers.len(), first.len(), "different labels have different numbers: {first:?}");
    let other = Daemon::start(lab, "n1", &[]);
    let charges = lab.scenario().traffic.iter().find(|traffic| traffic.name == "charges").unwrap().clone();
    lab.play(Traffic { count: Some(1), delay_ms: 0, interval_ms: 0, ..charges }).unwrap();
    lab.wait_traffic();
    let second = identities(
        &other
            .flows_until(|flows| (identities(flows).len() < 2).then(|| "flows between two pods".to_owned())),
    );
    for (labels, identity) in second {
        assert_eq!(first.get(&labels), Some(&identity), "{labels:?}");
    }
}

fn flow(response: GetFlowsResponse) -> Flow {
    let (time, node) = (response.time, response.node_name);
    let Some(ResponseTypes::Flow(flow)) = response.response_types else { panic!("no flow") };
    assert_eq!((time, &node), (flow.time, &flow.node_name), "the response repeats the flow's");
    flow
}

fn uuids(daemon: &Daemon, request: GetFlowsRequest) -> Vec<String> {
    daemon.responses(request).into_iter().map(|response| flow(response).uuid).collect()
}

/// Looks again where a flow came meanwhile: what the network says by itself (routers are asked for, multicast groups
/// joined) comes when it likes.
fn undisturbed(daemon: &Daemon, look: impl Fn(&Daemon)) {
    for _ in 0..5 {
        let before = daemon.flows().len();
        let outcome = catch_unwind(AssertUnwindSafe(|| look(daemon)));
        if outcome.is_ok() {
            return;
        }
        assert_ne!(daemon.flows().len(), before, "it failed, and no flow came meanwhile");
    }
    panic!("flows come all the time");
}

fn ranges(daemon: &Daemon) {
    let all = daemon.flows();
    let ids: Vec<&str> = all.iter().map(|flow| flow.uuid.as_str()).collect();
    let base = GetFlowsRequest::default;
    assert_eq!(uuids(daemon, base()), ids, "no number is everything");
    assert_eq!(uuids(daemon, GetFlowsRequest { number: 7, ..base() }), ids[ids.len() - 7..]);
    assert_eq!(uuids(daemon, GetFlowsRequest { number: 7, first: true, ..base() }), ids[..7]);
    let middle = all[all.len() / 2].time;
    let key = |time: Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
    let ids_where = |keep: &dyn Fn(&Flow) -> bool| -> Vec<&str> {
        all.iter().filter(|flow| keep(flow)).map(|flow| flow.uuid.as_str()).collect()
    };
    let since = ids_where(&|flow| key(flow.time) >= key(middle));
    let until = ids_where(&|flow| key(flow.time) <= key(middle));
    assert!(!since.is_empty() && !until.is_empty() && since.len() < ids.len() && until.len() < ids.len());
    assert_eq!(uuids(daemon, GetFlowsRequest { since: middle, ..base() }), since);
    assert_eq!(uuids(daemon, GetFlowsRequest { until: middle, ..base() }), until);
    let both = GetFlowsRequest { since: middle, until: middle, ..base() };
    assert_eq!(uuids(daemon, both), ids_where(&|flow| key(flow.time) == key(middle)));
    let refused = daemon.call(async |channel| {
        let request = GetFlowsRequest { first: true, follow: true, ..base() };
        ObserverClient::new(channel).get_flows(request).await.unwrap_err()
    });
    assert_eq!(refused.message(), "first cannot be specified with follow");
    impossible_ranges(daemon);
}

/// Nothing or an error, never everything.
fn impossible_ranges(daemon: &Daemon) {
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let (future, past, year_9999) = (time(4_000_000_000, 0), time(1, 0), time(253_402_300_799, 999_999_999));
    let base = || GetFlowsRequest { number: u64::MAX, ..GetFlowsRequest::default() };
    for request in [
        GetFlowsRequest { since: future, ..base() },
        GetFlowsRequest { since: year_9999, ..base() },
        GetFlowsRequest { until: past, ..base() },
        GetFlowsRequest { since: future, until: past, ..base() },
        GetFlowsRequest { since: year_9999, first: true, ..base() },
    ] {
        assert_eq!(daemon.responses(request.clone()), [], "{request:?}");
    }
    for (bad, field) in [
        (GetFlowsRequest { since: time(0, -1), ..base() }, "since"),
        (GetFlowsRequest { since: time(0, 1_000_000_000), ..base() }, "since"),
        (GetFlowsRequest { until: time(253_402_300_800, 0), ..base() }, "until"),
        (GetFlowsRequest { until: time(i64::MIN, i32::MIN), ..base() }, "until"),
    ] {
        let refused =
            daemon.call(async |channel| ObserverClient::new(channel).get_flows(bad).await.unwrap_err());
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().starts_with(&format!("{field}: not a valid timestamp")), "{refused}");
    }
}

/// A request with the filters that these flags stand for.
fn request(flags: &[&str]) -> GetFlowsRequest {
    let mut words = flags.iter().peekable();
    let mut pairs = Vec::new();
    while let Some(flag) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-')).copied().unwrap_or_default();
        pairs.push((flag.trim_start_matches('-'), value));
    }
    let lists = filter::parse(pairs).unwrap();
    GetFlowsRequest {
        number: u64::MAX,
        whitelist: lists.whitelist,
        blacklist: lists.blacklist,
        ..GetFlowsRequest::default()
    }
}

fn port(flow: &Flow) -> [u32; 2] {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => [tcp.source_port, tcp.destination_port],
        Some(Protocol::Udp(udp)) => [udp.source_port, udp.destination_port],
        _ => [0, 0],
    }
}

/// What a filter is to let through, written without the filters' own code.
type Wanted = fn(&Flow) -> bool;

fn filters(daemon: &Daemon) {
    fn end(flow: &Flow, side: usize) -> Endpoint {
        [&flow.source, &flow.destination][side].clone().unwrap_or_default()
    }
    fn ip(flow: &Flow, side: usize) -> IpAddr {
        let ip = flow.ip.clone().unwrap();
        [ip.source, ip.destination][side].parse().unwrap()
    }
    fn event(flow: &Flow) -> CiliumEventType {
        flow.event_type.unwrap()
    }
    fn event_is(flow: &Flow, number: i32) -> bool {
        event(flow).r#type == number
    }
    let partner: [IpAddr; 2] = ["203.0.113.10".parse().unwrap(), "2001:db8:113::10".parse().unwrap()];
    assert!(daemon.flows().iter().any(|flow| partner.contains(&ip(flow, 1))));
    let cases: &[(&[&str], Wanted)] = &[
        (&["--from-pod", "web/frontend-app"], |f| {
            end(f, 0).namespace == "web" && end(f, 0).pod_name.starts_with("frontend-app")
        }),
        (&["--from-pod", "web/frontend-app", "--to-pod", "payments/payments-api"], |f| {
            end(f, 0).pod_name.starts_with("frontend-app") && end(f, 1).pod_name.starts_with("payments-api")
        }),
        (&["--pod", "kube-system/coredns"], |f| {
            (0..2).any(|side| end(f, side).pod_name.starts_with("coredns"))
        }),
        (&["--namespace", "ops"], |f| (0..2).any(|side| end(f, side).namespace == "ops")),
        (&["--to-namespace", "tenant-b"], |f| end(f, 1).namespace == "tenant-b"),
        (&["--ip", "203.0.113.10"], |f| (0..2).any(|side| ip(f, side).to_string() == "203.0.113.10")),
        (&["--to-ip", "2001:db8::/32"], |f| ip(f, 1).to_string().starts_with("2001:db8:")),
        (&["--from-ip", "10.244.1.0/24"], |f| ip(f, 0).to_string().starts_with("10.244.1.")),
        (&["--port", "8080"], |f| port(f).contains(&8080)),
        (&["--to-port", "53"], |f| port(f)[1] == 53),
        (&["--protocol", "udp"], |f| {
            matches!(f.l4.as_ref().and_then(|l4| l4.protocol.as_ref()), Some(Protocol::Udp(_)))
        }),
        (&["--protocol", "icmpv6"], |f| {
            matches!(f.l4.as_ref().and_then(|l4| l4.protocol.as_ref()), Some(Protocol::IcmPv6(_)))
        }),
        (&["--verdict", "DROPPED"], |f| f.verdict() == Verdict::Dropped),
        (&["--type", "drop"], |f| event_is(f, 1)),
        (&["--type", "trace"], |f| event_is(f, 4)),
        (&["--type", "trace:to-stack"], |f| event_is(f, 4) && event(f).sub_type == 3),
        (&["--label", "app=payments-api"], |f| {
            (0..2).any(|side| end(f, side).labels.iter().any(|label| label == "k8s:app=payments-api"))
        }),
        (&["--to-label", "reserved:world"], |f| {
            end(f, 1).labels.iter().any(|label| label == "reserved:world")
        }),
        (&["--from-identity", "host"], |f| end(f, 0).identity == 1),
        (&["--to-workload", "StatefulSet/finance-tool"], |f| {
            end(f, 1).workloads.iter().any(|w| w.kind == "StatefulSet" && w.name == "finance-tool")
        }),
        (&["--not", "--verdict", "FORWARDED"], |f| f.verdict() != Verdict::Forwarded),
        (&["--to-pod", "payments/payments-api", "--not", "--port", "8080"], |f| {
            end(f, 1).pod_name.starts_with("payments-api") && !port(f).contains(&8080)
        }),
    ];
    for (flags, wanted) in cases {
        let (passed, all) = (uuids(daemon, request(flags)), daemon.flows());
        let expected: Vec<&str> = all
            .iter()
            .filter(|flow| wanted(flow))
            .map(|flow| flow.uuid.as_str())
            .take(passed.len())
            .collect();
        assert!(!passed.is_empty(), "{flags:?} lets nothing through");
        assert!(passed.len() < all.len(), "{flags:?} lets everything through");
        assert_eq!(passed, expected, "{flags:?}");
    }
    // Hubble's own way to select replies; `observe` has no flag for it yet.
    for reply in [false, true] {
        let filter = observer_proto::flow::FlowFilter { reply: vec![reply], ..Default::default() };
        let request = GetFlowsRequest { number: u64::MAX, whitelist: vec![filter], ..Default::default() };
        let passed: Vec<Flow> = daemon.responses(request).into_iter().map(flow).collect();
        assert!(!passed.is_empty());
        let fits = |flow: &Flow| {
            flow.is_reply == Some(reply)
                || (!reply && flow.is_reply.is_none() && flow.verdict() == Verdict::Dropped)
        };
        assert!(passed.iter().all(fits), "reply {reply}");
    }
    let bad = daemon.call(async |channel| {
        let filter =
            observer_proto::flow::FlowFilter { source_pod: vec![String::new()], ..Default::default() };
        let request = GetFlowsRequest { whitelist: vec![filter], ..Default::default() };
        ObserverClient::new(channel).get_flows(request).await.unwrap_err()
    });
    assert_eq!(bad.code(), tonic::Code::Unknown, "{bad:?}");
    assert!(filter::parse_raw("{").is_err());
}

fn unary_calls(daemon: &Daemon) {
    let flows = daemon.flows();
    daemon.call(async |channel| {
        let mut client = ObserverClient::new(channel.clone());
        let response = client.server_status(ServerStatusRequest {}).await.unwrap();
        let version = response.metadata().get("hubble-server-version").unwrap().to_str().unwrap().to_owned();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
        let status = response.into_inner();
        assert!(
            status.num_flows >= flows.len() as u64 && status.seen_flows >= status.num_flows,
            "{status:?}"
        );
        assert!(
            status.max_flows >= 65_535 && status.uptime_ns > 0 && !status.version.is_empty(),
            "{status:?}"
        );
        let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
        assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1"]);
        let namespaces =
            client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
        let names: Vec<&str> = namespaces.iter().map(|namespace| namespace.namespace.as_str()).collect();
        assert_eq!(
            names,
            ["data", "kube-system", "monitoring", "ops", "payments", "tenant-a", "tenant-b", "web"]
        );
        assert!(namespaces.iter().all(|namespace| namespace.cluster == "default"));
        check_health(channel.clone()).await;
        check_reflection(channel).await;
    });
}

async fn check_health(channel: Channel) {
    let mut health = HealthClient::new(channel);
    for service in ["hubble.server.Observer", ""] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "no.such.Service".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
}

async fn check_reflection(channel: Channel) {
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let message_request = Some(MessageRequest::ListServices(String::new()));
            let request = ServerReflectionRequest { host: String::new(), message_request };
            let mut client = ServerReflectionClient::new(channel.clone());
            let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
            let response = stream.into_inner().next().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else {
                panic!("no list of services")
            };
            list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    for services in [services!(v1), services!(v1alpha)] {
        for wanted in ["observer.Observer", "peer.Peer", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == wanted), "{wanted}: {services:?}");
        }
        assert!(!services.iter().any(|name| name.contains("Control")), "never on this socket: {services:?}");
    }
}

/// The same API on TCP, which is reached only from inside of the node.
fn over_tcp(lab: &Lab) {
    let node = lab.node_netns("n1");
    let served = netns::inside(node.file_name().unwrap().to_str().unwrap(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(runtime.block_on(async {
            let channel = Address::from_static("http://127.0.0.1:4244").connect().await.unwrap();
            check_health(channel.clone()).await;
            check_reflection(channel.clone()).await;
            let mut client = ObserverClient::new(channel);
            let request = GetFlowsRequest { number: 3, ..Default::default() };
            client.get_flows(request).await.unwrap().into_inner().collect::<Vec<_>>().await.len()
        }))
    });
    assert_eq!(served.unwrap(), 3);
}

fn following(lab: &mut Lab, daemon: &Daemon) {
    let mut ping = lab.scenario().traffic.iter().find(|traffic| traffic.name == "ping").unwrap().clone();
    (ping.count, ping.delay_ms, ping.interval_ms) = (Some(1), 0, 0);
    // The last totals of an earlier connection may still come, and what an earlier packet was answered.
    let first_seen = |flow: &Flow| extensions(flow).remove("first_seen");
    let before = daemon.flows();
    let earlier: HashSet<_> = before.iter().map(first_seen).collect();
    let followed = daemon.call(async |channel| {
        let mut request = request(&["--protocol", "icmp"]);
        (request.number, request.follow) = (0, true);
        let mut stream = ObserverClient::new(channel).get_flows(request).await.unwrap().into_inner();
        lab.play(ping).unwrap();
        let mut flows = Vec::new();
        while flows.len() < 2 {
            let next = tokio::time::timeout(PATIENCE, stream.next()).await;
            flows.push(flow(next.expect("flows of the ping").unwrap().unwrap()));
            flows.retain(|flow| flow.is_reply.is_some() && !earlier.contains(&first_seen(flow)));
        }
        flows
    });
    lab.wait_traffic();
    assert_eq!(followed.iter().map(|flow| flow.is_reply).collect::<Vec<_>>(), [Some(false), Some(true)]);
    assert!(daemon.flows().len() > before.len());
}

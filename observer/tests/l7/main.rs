//! HTTP, DNS and TLS that a daemon saw, held against what servers and clients logged themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod by_name;
mod dialogue;
mod dns_stream;
mod resolver;
mod secure;
#[path = "../support/mod.rs"]
mod support;

use dialogue::{Logged, Shape, converse, serve};
use observer_lab::{
    Entry, Lab, Outcome, netns,
    scenario::{Kind, Pod, ServicePort},
    unique_prefix,
};
use observer_proto::{
    flow::{Dns, Flow, HttpHeader, L7FlowType, TrafficDirection, Verdict, layer4::Protocol, layer7::Record},
    stats::{Signal, WindowRequest, stats_client},
};
use resolver::Answered;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};
use support::{Daemon, OBSERVER, can_run, get_as, late, scaled, scenario, sum};

/// What a request or response says, of each kind of record.
fn said(flow: &Flow) -> Option<(L7FlowType, u64, &Record)> {
    let l7 = flow.l7.as_ref()?;
    Some((L7FlowType::try_from(l7.r#type).unwrap(), l7.latency_ns, l7.record.as_ref()?))
}

fn pod(end: Option<&observer_proto::flow::Endpoint>) -> String {
    support::name(end, "")
}

/// Client and server by name, whoever sends.
fn parties(flow: &Flow) -> (String, String) {
    let (source, destination) = (pod(flow.source.as_ref()), pod(flow.destination.as_ref()));
    if flow.is_reply == Some(true) { (destination, source) } else { (source, destination) }
}

fn id_of(headers: &[HttpHeader]) -> Option<String> {
    headers
        .iter()
        .find(|header| header.key.eq_ignore_ascii_case("x-lab-id"))
        .map(|header| header.value.clone())
}

#[test]
fn every_request_and_query_of_the_lab_is_told_once_with_its_answer() {
    if !can_run("every_request_and_query_of_the_lab_is_told_once_with_its_answer") {
        return;
    }
    for file in ["routed.toml", "bridged.toml"] {
        let mut lab = Lab::up(&scenario(file), &unique_prefix("l7")).unwrap();
        let counted = "dns:query;labelsContext=source_pod http:exemplars=true;sourceContext=pod flow";
        let arguments = ["--l7", "all", "--max-flows", "200000", "--metrics-server", "127.0.0.1:0"];
        let daemon = Daemon::start(&lab, "n1", &[&arguments[..], &["--metrics", counted]].concat());
        let share = scaled(4, 1);
        for mut traffic in lab.scenario().traffic.clone() {
            if matches!(traffic.kind, Kind::Http | Kind::Dns) {
                traffic.count = traffic.count.map(|count| count.div_ceil(share));
                traffic.interval_ms = 0;
                lab.play(traffic).unwrap();
            }
        }
        lab.wait_traffic();
        let ledger = lab.ledger();
        assert!(ledger.iter().all(Entry::as_expected), "the lab itself is not as expected");
        assert!(ledger.iter().all(|entry| entry.outcome == Outcome::Ok));
        let wanted = |kind| ledger.iter().filter(|entry| entry.kind == kind).count();
        let (http, dns) = (wanted(Kind::Http), wanted(Kind::Dns));
        assert!(http >= 100 && dns >= 20, "{http} {dns}");

        let count = |flows: &[Flow], wanted: fn(&Record) -> bool| {
            flows.iter().filter_map(said).filter(|(.., record)| wanted(record)).count()
        };
        let is_http: fn(&Record) -> bool = |record| matches!(record, Record::Http(_));
        let is_dns: fn(&Record) -> bool = |record| matches!(record, Record::Dns(_));
        let flows = daemon.flows_until(|flows| {
            let (h, d) = (count(flows, is_http), count(flows, is_dns));
            (h < 2 * http || d < 2 * dns).then(|| format!("{h} of 2 x {http} HTTP, {d} of 2 x {dns} DNS"))
        });
        assert_eq!((count(&flows, is_http), count(&flows, is_dns)), (2 * http, 2 * dns), "none is invented");
        let mut requests = BTreeMap::new();
        for flow in flows.iter().filter(|flow| flow.l7.is_some()) {
            assert_eq!(flow.verdict(), Verdict::Forwarded);
            assert_eq!(flow.event_type.unwrap().r#type, 129);
            match said(flow).unwrap() {
                (L7FlowType::Request, 0, Record::Http(http)) => {
                    assert_eq!((flow.is_reply, http.code), (Some(false), 0));
                    let id = id_of(&http.headers).unwrap();
                    assert!(requests.insert(id, (http.url.clone(), parties(flow))).is_none());
                }
                (L7FlowType::Response, latency, Record::Http(http)) => {
                    assert!(latency > 0 && flow.is_reply == Some(true) && http.code == 200, "{flow:?}");
                }
                (L7FlowType::Request, 0, Record::Dns(dns)) => {
                    assert_eq!((flow.is_reply, dns.observation_source.as_str()), (Some(false), "observer"));
                }
                (L7FlowType::Response, latency, Record::Dns(dns)) => {
                    assert!(latency > 0 && flow.is_reply == Some(true), "{flow:?}");
                    assert_eq!((dns.rcode, dns.ttl), (0, 30), "{dns:?}");
                    assert!(!dns.ips.is_empty() && dns.query.ends_with('.'), "{dns:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        // By pod, and by the pod behind a service.
        for entry in ledger.iter().filter(|entry| entry.kind == Kind::Http) {
            let id = format!("lab-{:012x}", entry.id);
            let (url, (client, server)) = requests.get(&id).unwrap_or_else(|| panic!("{entry:?}"));
            let traffic =
                lab.scenario().traffic.iter().find(|traffic| traffic.name == entry.traffic).unwrap();
            assert_eq!(*url, format!("http://{}{}", entry.called, traffic.path.as_ref().unwrap()));
            for (name, party) in
                [(client, Some(&entry.from)), (server, entry.served.as_ref().map(|served| &served.by))]
            {
                let party = party.unwrap();
                let named = party.strip_prefix("pod/");
                assert!(named.is_none_or(|pod| pod == name), "{entry:?}: {client} -> {server}");
            }
        }
        let sums = support::Sums::of(&daemon.settled());
        sums.check();
        agrees_with(&scraped(&lab, &daemon, flows.len()), &flows);
        are_in_the_statistics(&daemon, http as u64, dns as u64);
    }
}

/// The page of metrics once all these flows are counted, which is some milliseconds after they are stored.
fn scraped(lab: &Lab, daemon: &Daemon, flows: usize) -> String {
    let address = daemon.metrics_address();
    let node = lab.node_netns("n1").file_name().unwrap().to_str().unwrap().to_owned();
    late::until(&format!("{flows} flows in the metrics"), || {
        let form = "application/openmetrics-text";
        let page = netns::inside(&node, || Ok(get_as(address, "/metrics", form).1)).unwrap();
        // Of what the network says by itself there may be more by now.
        (sum(&page, "hubble_flows_processed_total", "") >= flows as u64).then_some(page)
    })
}

/// Metrics of HTTP and DNS tell of what flows tell.
fn agrees_with(page: &str, flows: &[Flow]) {
    let counts = |kind: L7FlowType, wanted: &dyn Fn(&Record) -> bool| {
        flows.iter().filter_map(said).filter(|(of, _, record)| *of == kind && wanted(record)).count() as u64
    };
    let http = |record: &Record| matches!(record, Record::Http(_));
    let dns = |record: &Record| matches!(record, Record::Dns(_));
    let (requests, responses) = (counts(L7FlowType::Request, &http), counts(L7FlowType::Response, &http));
    assert_eq!(sum(page, "hubble_http_requests_total", "protocol=\"HTTP/1.1\""), requests, "{page}");
    assert_eq!(sum(page, "hubble_http_responses_total", "status=\"200\""), responses);
    assert_eq!(sum(page, "hubble_http_request_duration_seconds_count", "method=\"GET\""), responses);
    assert_eq!(sum(page, "hubble_http_request_duration_seconds_bucket", "le=\"+Inf\""), responses);
    assert_eq!(sum(page, "hubble_dns_queries_total", "rcode=\"\""), counts(L7FlowType::Request, &dns));
    let answers = counts(L7FlowType::Response, &dns);
    assert_eq!(sum(page, "hubble_dns_responses_total", "rcode=\"No Error\""), answers);
    let types = flows.iter().filter_map(said).map(|(.., record)| match record {
        Record::Dns(dns) => dns.rrtypes.len() as u64,
        _ => 0,
    });
    assert_eq!(sum(page, "hubble_dns_response_types_total", "query=\""), types.sum::<u64>());
    for subtype in ["DNS", "HTTP"] {
        let both = if subtype == "DNS" { 2 * answers } else { requests + responses };
        let labels = format!("protocol=\"{subtype}\",type=\"L7\",subtype=\"{subtype}\"");
        assert_eq!(sum(page, "hubble_flows_processed_total", &labels), both);
    }
}

/// As many requests and answers as were made, by server and by route.
fn are_in_the_statistics(daemon: &Daemon, http: u64, dns: u64) {
    let told = late::until("all in the statistics", || {
        let told = daemon.call(async |channel| {
            let window = Some(prost_types::Duration { seconds: 900, nanos: 0 });
            let request = WindowRequest { window, ..WindowRequest::default() };
            let mut client = stats_client::StatsClient::new(channel);
            client.get_signals(request).await.unwrap().into_inner().message().await.unwrap().unwrap()
        });
        (told.window.as_ref().unwrap().l7 >= 2 * (http + dns)).then_some(told)
    });
    for (protocol, count) in [(told.http.unwrap(), http), (told.dns.unwrap(), dns)] {
        for rows in [&protocol.servers, &protocol.routes] {
            let sum = |of: fn(&Signal) -> u64| rows.iter().map(of).sum::<u64>();
            assert_eq!((sum(|row| row.requests), sum(|row| row.responses)), (count, count), "{rows:?}");
            assert_eq!(sum(|row| row.times.iter().sum()), count, "each answer's time is known");
            assert_eq!(sum(|row| row.client_errors + row.server_errors), 0);
        }
    }
}

/// One of the scenario's streams, once.
fn once(lab: &mut Lab, name: &str, path: &str) {
    let mut traffic = lab.scenario().traffic.iter().find(|traffic| traffic.name == name).unwrap().clone();
    (traffic.count, traffic.path) = (Some(1), Some(path.to_owned()));
    lab.play(traffic).unwrap();
    lab.wait_traffic();
}

/// What DNS is asked for in the next one.
const NAME: &str = "api.partner.example";

#[test]
fn who_was_told_an_address_by_dns_has_its_name_in_flows() {
    if !can_run("who_was_told_an_address_by_dns_has_its_name_in_flows") {
        return;
    }
    let mut lab = Lab::up(&scenario("routed.toml"), &unique_prefix("l7n")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--l7", "dns"]);
    once(&mut lab, "dns", NAME);
    let is_answer = |flow: &Flow| matches!(said(flow), Some((L7FlowType::Response, _, Record::Dns(dns))) if !dns.ips.is_empty());
    daemon.flows_until(|flows| (!flows.iter().any(is_answer)).then(|| "the answer".to_owned()));
    once(&mut lab, "outside", "/api/v1/charges");
    // IPv4 was asked for.
    let to_it = |flow: &Flow| flow.ip.as_ref().is_some_and(|ip| ip.destination == "203.0.113.10");
    let from_it = |flow: &Flow| flow.ip.as_ref().is_some_and(|ip| ip.source == "203.0.113.10");
    let flows = daemon.flows_until(|flows| {
        (!flows.iter().any(to_it) || !flows.iter().any(from_it)).then(|| "both ways".to_owned())
    });
    for flow in &flows {
        let wanted = |is_it: bool| if is_it { vec![NAME.to_owned()] } else { Vec::new() };
        assert_eq!(flow.destination_names, wanted(to_it(flow)), "{flow:?}");
        assert_eq!(flow.source_names, wanted(from_it(flow)), "{flow:?}");
        assert!(flow.l7.is_none() || is_dns(flow), "HTTP was not asked for");
    }
    // And `observe why` knows what the client was told.
    let observe = Path::new(OBSERVER).with_file_name("observe");
    assert!(observe.exists(), "{} is missing: build it with `cargo build -p observe`", observe.display());
    let server = format!("unix://{}", daemon.dir.path().join("hubble.sock").display());
    let question = ["why", "--from-pod", "web/client-a", "--to-ip", "203.0.113.10", "-o", "json"];
    let output = Command::new(observe).args(question).args(["--server", &server]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["outcome"], "answered", "{report}");
    let name = &report["dns"]["names"][0];
    assert_eq!((name["name"].as_str(), name["answers"].as_u64()), (Some(NAME), Some(1)), "{report}");
    assert_eq!(name["addresses"], serde_json::json!(["203.0.113.10"]));
}

fn is_dns(flow: &Flow) -> bool {
    matches!(said(flow), Some((.., Record::Dns(_))))
}

/// Where the servers of HTTP in every shape listen.
const PORT: u16 = 9000;

/// A way to them: who asks, and whom.
struct Way {
    client: &'static str,
    /// A pod, or a service of pods.
    server: &'static str,
    rounds: usize,
}

#[test]
fn whatever_shape_a_request_has_it_is_told_once_with_its_status_and_time() {
    if !can_run("whatever_shape_a_request_has_it_is_told_once_with_its_status_and_time") {
        return;
    }
    // Of both families together more than 5,000 requests; with SOAK ten times as many.
    let rounds = scaled(38, 380);
    let requests: usize = [
        ("routed.toml", vec![Way { client: "web/client-a", server: "shop/api-0", rounds }]),
        ("bridged.toml", vec![Way { client: "web/client-a", server: "shop/api", rounds }]),
        (
            "two-nodes.toml",
            vec![
                Way { client: "web/client-1", server: "shop/server-2", rounds: rounds / 2 },
                Way { client: "web/client-1", server: "shop/server", rounds: rounds / 2 },
            ],
        ),
    ]
    .iter()
    .map(|(file, ways)| requests_are_told(file, ways))
    .sum();
    assert!(requests >= 5000, "{requests}");
}

/// Has all shapes be asked for on these ways, and gives the count.
fn requests_are_told(file: &str, ways: &[Way]) -> usize {
    let mut scenario = scenario(file);
    for service in scenario.services.iter_mut().filter(|service| service.namespace == "shop") {
        let http = service.ports[0].clone();
        service.ports.push(ServicePort {
            name: Some("shapes".into()),
            port: PORT,
            target_port: PORT,
            ..http
        });
    }
    let lab = Lab::up(&scenario, &unique_prefix("l7s")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--l7", "http", "--max-flows", "200000"]);
    let space = |pod: &Pod| lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned();
    let log: Arc<Mutex<Vec<Logged>>> = Arc::default();
    let servers: Vec<_> = scenario.pods.iter().filter(|pod| pod.namespace == "shop").collect();
    for (server, ip) in servers.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (*pod, *ip))) {
        let at = SocketAddr::new(ip, PORT);
        let listener = netns::inside(&space(server), || Ok(TcpListener::bind(at).unwrap())).unwrap();
        let (log, by) = (Arc::clone(&log), pod_name(server));
        std::thread::spawn(move || serve(&listener, &by, &log));
    }
    let mut number = 0;
    for Way { client, server, rounds } in ways {
        let is_it = |pod: &&Pod| pod_name(pod) == *client;
        let client = space(scenario.pods.iter().find(is_it).unwrap());
        let (namespace, name) = server.split_once('/').unwrap();
        let service = scenario.services.iter().find(|service| service.name == name);
        let pod = || &scenario.pod(namespace, name).unwrap().ips;
        for ip in service.map_or_else(pod, |service| &service.cluster_ips) {
            number += 1;
            netns::inside(&client, || {
                for round in 0..*rounds {
                    for shape in Shape::ALL {
                        converse(number, SocketAddr::new(*ip, PORT), *shape, round);
                    }
                }
                Ok(())
            })
            .unwrap();
        }
    }
    let log = log.lock().unwrap().clone();
    let answered: BTreeSet<_> = log.iter().map(|entry| &entry.by).collect();
    let is_by_service = ways.iter().any(|way| scenario.pods.iter().all(|pod| pod_name(pod) != way.server));
    assert_eq!(answered.len(), if is_by_service { 2 } else { 1 }, "all who should answer do");

    let told = |flows: &[Flow]| {
        let of_server = flows.iter().filter_map(|flow| match said(flow)? {
            (kind, latency, Record::Http(http)) => Some((kind, latency, http.clone(), flow.clone())),
            _ => None,
        });
        of_server.collect::<Vec<_>>()
    };
    let flows = daemon.flows_until(|flows| {
        let told = told(flows).len();
        (told < 2 * log.len()).then(|| format!("{told} of 2 x {} requests and responses", log.len()))
    });
    let told = told(&flows);
    assert_eq!(told.len(), 2 * log.len(), "none is invented");
    let mut of_request: BTreeMap<(&str, &str), Vec<_>> = BTreeMap::new();
    for flow in &told {
        let target = flow.2.url.strip_prefix("http://shop").unwrap();
        of_request.entry((&*flow.2.method, target)).or_default().push(flow);
    }
    let mut off_by = Vec::new();
    for entry in &log {
        let found = of_request.get(&(&*entry.method, &*entry.target)).map_or(&[][..], Vec::as_slice);
        let [(L7FlowType::Request, _, request, asked), (L7FlowType::Response, latency, response, answered)] =
            found
        else {
            panic!("{entry:?}: {found:#?}");
        };
        assert_eq!((request.code, response.code), (0, u32::from(entry.code)), "{entry:?}");
        assert_eq!(parties(asked), (ways[0].client.to_owned(), entry.by.clone()));
        assert_eq!(parties(answered), parties(asked));
        // Of pods of the node it is told where they are delivered, of others where they leave.
        let is_here = lab.scenario().pods.iter().any(|pod| pod.node == "n1" && pod_name(pod) == entry.by);
        let direction = if is_here { TrafficDirection::Ingress } else { TrafficDirection::Egress };
        assert_eq!(asked.traffic_direction(), direction);
        // The server's own time lies within what the network saw.
        let server_ns = entry.took.as_nanos() as u64;
        assert!(*latency >= server_ns.saturating_sub(1_000_000), "{latency} {server_ns} {entry:?}");
        off_by.push(latency.abs_diff(server_ns));
        for (name, value) in [("authorization", "HUBBLE_REDACTED"), ("x-shape", entry.shape.as_str())] {
            let header = request.headers.iter().find(|header| header.key == name).unwrap();
            assert_eq!(header.value, value);
        }
    }
    print_off_by(&format!("requests of HTTP in {file}"), off_by);
    nothing_was_left_out(&daemon);
    log.len()
}

#[test]
fn where_ports_are_named_nothing_is_looked_for_at_others() {
    if !can_run("where_ports_are_named_nothing_is_looked_for_at_others") {
        return;
    }
    let lab = Lab::up(&scenario("routed.toml"), &unique_prefix("l7o")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--l7", "all", "--l7-ports", "dns=5353 http=9001,9002"]);
    let space = |namespace: &str, name: &str| {
        let pod = lab.scenario().pod(namespace, name).unwrap();
        lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned()
    };
    let (client, server) = (space("web", "client-a"), space("shop", "api-0"));
    // What is not told comes first.
    for (way, port) in [PORT, 9001].into_iter().enumerate() {
        let at = SocketAddr::new("10.244.1.20".parse().unwrap(), port);
        let listener = netns::inside(&server, || Ok(TcpListener::bind(at).unwrap())).unwrap();
        std::thread::spawn(move || serve(&listener, "shop/api-0", &Mutex::default()));
        netns::inside(&client, || {
            converse(way, at, Shape::Plain, 0);
            Ok(())
        })
        .unwrap();
    }
    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().filter(|flow| said(flow).is_some()).count();
        (told < 2).then(|| format!("{told} of a request and its response"))
    });
    let urls: Vec<_> = flows
        .iter()
        .filter_map(|flow| match said(flow)? {
            (.., Record::Http(http)) => Some(http.url.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(urls.len() == 2 && urls.iter().all(|url| url.contains("/Plain/1/")), "{urls:?}");
}

/// How far latencies are from the server's own, which has no part in how long it waits to be run.
fn print_off_by(what: &str, mut off_by: Vec<u64>) {
    off_by.sort_unstable();
    let near = off_by.partition_point(|nanos| *nanos <= 1_000_000);
    println!(
        "{} {what}, each told once, none invented, none not parsed; latency within 1 ms of the log's: {:.2} %, half within {} us",
        off_by.len(),
        100.0 * near as f64 / off_by.len() as f64,
        off_by[off_by.len() / 2] / 1000
    );
}

fn nothing_was_left_out(daemon: &Daemon) {
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    for (cause, count) in sums.suppressed.iter().filter(|((stage, _), _)| stage == "l7") {
        assert_eq!(*count, 0, "{cause:?}");
    }
}

/// Kind and latency of a question or an answer, and what it is in.
type Told<'a> = (L7FlowType, u64, &'a Dns, &'a Flow);

#[test]
fn every_answer_of_a_dns_server_is_told_as_it_gave_it() {
    if !can_run("every_answer_of_a_dns_server_is_told_as_it_gave_it") {
        return;
    }
    let lab = Lab::up(&scenario("bridged.toml"), &unique_prefix("l7d")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--l7", "dns", "--max-flows", "200000"]);
    let pods = lab.scenario().pods.clone();
    let [client, server] = &pods[..2] else { panic!("two pods") };
    let space = |pod: &Pod| lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned();
    let log: Arc<Mutex<Vec<Answered>>> = Arc::default();
    for ip in &server.ips {
        // Where it is expected, and where it is recognised by what it says.
        let at = SocketAddr::new(*ip, if ip.is_ipv4() { 53 } else { 5300 });
        let sockets = || Ok((UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap()));
        let (socket, listener) = netns::inside(&space(server), sockets).unwrap();
        let [udp, tcp] = [(); 2].map(|()| Arc::clone(&log));
        std::thread::spawn(move || resolver::serve_udp(&socket, &udp));
        std::thread::spawn(move || resolver::serve_tcp(&listener, &tcp));
        netns::inside(&space(client), || {
            resolver::ask(at, scaled(450, 4500));
            Ok(())
        })
        .unwrap();
    }
    let log = log.lock().unwrap().clone();
    assert!(log.len() >= 5000, "{}", log.len());
    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().filter(|flow| is_dns(flow)).count();
        (told < 2 * log.len()).then(|| format!("{told} of 2 x {} questions and answers", log.len()))
    });
    let mut of_name: BTreeMap<(String, bool), Vec<Told<'_>>> = BTreeMap::new();
    for flow in &flows {
        let Some((kind, latency, Record::Dns(dns))) = said(flow) else { continue };
        let is_tcp = matches!(flow.l4.as_ref().unwrap().protocol, Some(Protocol::Tcp(_)));
        of_name.entry((dns.query.clone(), is_tcp)).or_default().push((kind, latency, dns, flow));
    }
    assert_eq!(of_name.values().map(Vec::len).sum::<usize>(), 2 * log.len(), "none is invented");
    let parties_are = (pod_name(client), pod_name(server));
    let mut off_by = Vec::new();
    for entry in &log {
        let found = of_name.get(&(entry.name.clone(), entry.is_tcp)).map_or(&[][..], Vec::as_slice);
        let [(L7FlowType::Request, 0, _, asked), (L7FlowType::Response, latency, answer, answered)] = found
        else {
            panic!("{entry:?}: {found:#?}");
        };
        assert_eq!((answer.rcode, &answer.ips, &answer.cnames), (entry.rcode, &entry.ips, &entry.cnames));
        assert_eq!(answer.ttl, if entry.ips.is_empty() { 0 } else { 30 });
        assert_eq!((parties(asked), parties(answered)), (parties_are.clone(), parties_are.clone()));
        off_by.push(latency.abs_diff(entry.took.as_nanos() as u64));
    }
    print_off_by("questions to DNS", off_by);
    nothing_was_left_out(&daemon);
}

fn pod_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

//! The sets of `testdata/policy/sets` on the pods of the demo's scenario.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_policy::{
    engine::{Change, Engine, PeerId, SubjectId},
    explain::Query,
    label::Labels,
    model::{Direction, Policy},
    source::{self, Options},
    wire::{self, Besides},
    world::{CidrGroup, Endpoint, Service, ServicePort, Surroundings, Target},
};
use observer_proto::control::{
    ExplainPolicyRequest, ListPoliciesRequest, PolicyEnd, PolicyHits, PolicyHttpRequest,
    explain_policy_request::Request,
    explain_policy_response::Outcome,
    policy::{Mode, SetBy},
    policy_end::End,
    policy_miss::Kind,
    policy_side::Verdict as WireVerdict,
};
use std::{fs, path::PathBuf};
use toml::{Table, Value};

fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

fn text<'a>(table: &'a Value, field: &str) -> &'a str {
    table[field].as_str().unwrap()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

fn pairs(value: Option<&Value>) -> Vec<(&str, &str)> {
    let table = value.and_then(Value::as_table).into_iter().flatten();
    table.map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect()
}

fn service_port(port: &Value) -> ServicePort {
    let number = |name: &str| port[name].as_integer().unwrap() as u16;
    let protocol = if text(port, "protocol") == "UDP" { 17 } else { 6 };
    ServicePort { port: number("port"), protocol, target: Target::Number(number("target_port")) }
}

/// The demo's pods, its node, services and groups.
fn demo() -> Engine {
    let scenario: Table = fs::read_to_string(testdata("lab/demo.toml")).unwrap().parse().unwrap();
    let list = |name: &str| scenario[name].as_array().unwrap();
    let mut endpoints = Vec::new();
    for pod in list("pods") {
        let namespace = text(pod, "namespace");
        let of_namespace = list("namespaces").iter().find(|other| text(other, "name") == namespace);
        let mut labels: Vec<_> =
            pairs(pod.get("labels")).iter().map(|(k, v)| format!("k8s:{k}={v}")).collect();
        for (key, value) in pairs(of_namespace.and_then(|namespace| namespace.get("labels"))) {
            labels.push(format!("k8s:io.cilium.k8s.namespace.labels.{key}={value}"));
        }
        labels.push(format!("k8s:io.kubernetes.pod.namespace={namespace}"));
        labels.push("k8s:io.cilium.k8s.policy.cluster=default".into());
        let addresses = texts(&pod["ips"]).map(|ip| ip.parse().unwrap()).collect();
        let endpoint = Endpoint { labels: Labels::parse(labels), addresses, ports: Vec::new() };
        endpoints.push((format!("{namespace}/{}", text(pod, "name")).into(), Some(endpoint)));
    }
    let node = &list("nodes")[0];
    let labels = pairs(node.get("labels")).into_iter().map(|(k, v)| format!("k8s:{k}={v}"));
    let labels = Labels::parse(labels.chain(["reserved:host=".into()]));
    let addresses = texts(&node["addresses"]).map(|ip| ip.parse().unwrap()).collect();
    endpoints.push(("host".into(), Some(Endpoint { labels, addresses, ports: Vec::new() })));
    let services = list("services").iter().map(|service| Service {
        namespace: text(service, "namespace").into(),
        name: text(service, "name").into(),
        selector: pairs(service.get("selector")).iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        addresses: texts(&service["cluster_ips"]).map(|ip| ip.parse().unwrap()).collect(),
        ports: service["ports"].as_array().unwrap().iter().map(service_port).collect(),
        ..Service::default()
    });
    let groups = list("cidr_groups").iter().map(|group| CidrGroup {
        name: text(group, "name").into(),
        nets: texts(&group["cidrs"]).map(|net| net.parse().unwrap()).collect(),
        ..CidrGroup::default()
    });
    let surroundings =
        Surroundings { services: services.collect(), groups: groups.collect(), ..Surroundings::default() };
    let mut engine = Engine::new(false);
    engine.apply(Change { endpoints, surroundings: Some(surroundings), ..Change::default() });
    engine
}

fn end(engine: &Engine, name: &str) -> (Option<SubjectId>, PeerId) {
    match engine.endpoint(name) {
        Some((subject, peer)) => (Some(subject), peer),
        None => (None, engine.peer_at(name.parse().unwrap())),
    }
}

/// One line's verdicts, in the line's words.
fn verdicts(engine: &Engine, asked: &str) -> String {
    let words: Vec<&str> = asked.split(' ').collect();
    let (from, to) = (end(engine, words[0]), end(engine, words[2]));
    let (port, protocol) = words[3].split_once('/').unwrap();
    let protocol =
        [("ICMP", 1), ("TCP", 6), ("UDP", 17)].iter().find(|(name, _)| *name == protocol).unwrap().1;
    let request = words.get(5).map(|asked| match words[4] {
        "QUERY" => observer_policy::l7::Request::Dns(asked),
        method => observer_policy::l7::Request::Http { method, path: asked, host: "", headers: Vec::new() },
    });
    let sides = [("out", Direction::Egress, from.0, to.1), ("in", Direction::Ingress, to.0, from.1)];
    let judged = sides.into_iter().filter_map(|(name, direction, subject, peer)| {
        let decision = engine.judge(subject?, direction, peer, protocol, port.parse().unwrap());
        let word = match &request {
            None => support::word(decision.all),
            Some(request) if engine.allows(decision, request) => "pass",
            Some(_) => "refuse",
        };
        Some(format!("{name} {word}"))
    });
    judged.collect::<Vec<_>>().join(", ")
}

#[test]
fn sets_judge_the_demos_traffic_as_they_should() {
    let mut wrong = Vec::new();
    for set in ["tenants", "payments", "host", "web"] {
        let folder = testdata("policy/sets").join(set);
        let mut engine = demo();
        let files = |without: &str| -> Vec<PathBuf> {
            let all = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            all.filter(|file| file.extension().unwrap() == "yaml" && !file.ends_with(without)).collect()
        };
        support::set_policies(&mut engine, source::load(&files("-"), &Options::default()).unwrap());
        assert_eq!(engine.warnings(), [], "{set}");
        for line in fs::read_to_string(folder.join("expected.txt")).unwrap().lines() {
            if let Some(without) = line.strip_prefix("without ") {
                support::set_policies(
                    &mut engine,
                    source::load(&files(without), &Options::default()).unwrap(),
                );
            } else if let Some((asked, expected)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            {
                let found = verdicts(&engine, asked);
                if found != expected {
                    wrong.push(format!("{set}: {line}: {found}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_nothing_has_is_warned_of() {
    let mut engine = demo();
    let spec = [
        ("cnp", "nowhere", "{endpointSelector: {}, ingress: [{}]}"),
        ("cnp", "web", "{endpointSelector: {matchLabels: {app: typo}}, ingress: [{}]}"),
        (
            "knp",
            "payments",
            "{ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: web}]}]}",
        ),
        (
            "cnp",
            "ops",
            "{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: office}]}, {toServices: [{k8sService: {serviceName: x}}]}, {toFQDNs: [{matchName: shop.example}]}]}",
        ),
        (
            "cnp",
            "data",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": prod}}]}]}",
        ),
    ];
    let text: Vec<_> =
        spec.iter().map(|(kind, namespace, spec)| support::document(kind, namespace, "p", spec)).collect();
    support::set_policies(&mut engine, source::parse(&text.join("---\n"), &Options::default()).unwrap());
    let told: Vec<_> =
        engine.warnings().iter().map(|w| format!("{} {}: {}", w.policy, w.path, w.problem)).collect();
    let expected = [
        "NetworkPolicy payments/p spec.ingress[0]: no endpoint has the label k8s:app=frontend",
        "NetworkPolicy payments/p spec.ingress[0]: no pod has a port named web",
        "CiliumNetworkPolicy data/p spec.ingress[0]: no pod is in namespace prod",
        "CiliumNetworkPolicy nowhere/p : selects nothing: no pod is in namespace nowhere",
        "CiliumNetworkPolicy ops/p spec.egress[0]: no CIDR group is named office",
        "CiliumNetworkPolicy ops/p spec.egress[1]: no such service",
        "CiliumNetworkPolicy ops/p spec.egress[2]: by no rule with `rules: dns` do its pods ask for names: answers are learnt as they pass, and the first connection to a name may come too early",
        "CiliumNetworkPolicy ops/p spec.egress[2]: no DNS answer told addresses of shop.example: until one does it matches nothing, and can't be enforced",
        "CiliumNetworkPolicy web/p : selects nothing: no endpoint has the label any:app=typo",
    ];
    assert_eq!(told, expected);
}

fn pod(name: &str) -> PolicyEnd {
    PolicyEnd { end: Some(End::Pod(name.into())), ..PolicyEnd::default() }
}

fn address(address: &str) -> PolicyEnd {
    PolicyEnd { end: Some(End::Address(address.into())), ..PolicyEnd::default() }
}

/// Not the service's own address is judged, which no rule is about.
fn through_services(engine: &Engine) {
    let asked = |to: &str, port, protocol| {
        let (source, destination) = (pod("payments/payments-api"), address(to));
        let (source, destination) = (Some(source), Some(destination));
        let answer = wire::explain(
            engine,
            &ExplainPolicyRequest { source, destination, protocol, port, request: None },
        );
        let answer = answer.unwrap();
        let outcome = answer.outcome();
        (outcome, answer.destination.unwrap().name, answer.notes.join(" "))
    };
    let (coredns, api) = ("kube-system/coredns-76f75df574-7xkzq", "payments/payments-api-6c8f7d9b5-k4m2p");
    let analytics = "data/analytics-service-5f6d8b7c9-h3j5k";
    for (to, port, protocol, outcome, name, note) in [
        (
            "10.96.0.10",
            53,
            17,
            Outcome::Allowed,
            coredns,
            format!(
                "10.96.0.10 is the service kube-system/kube-dns: judged is what stands behind it, {coredns} at 53/UDP"
            ),
        ),
        (
            "fd00:10:96::14",
            8080,
            6,
            Outcome::Allowed,
            api,
            format!(
                "fd00:10:96::14 is the service payments/payments-api: judged is what stands behind it, {api} at 8080/TCP, and 1 more alike"
            ),
        ),
        // Another port behind it, which no rule allows.
        (
            "10.96.0.30",
            80,
            6,
            Outcome::Denied,
            analytics,
            format!(
                "10.96.0.30 is the service data/analytics-service: judged is what stands behind it, {analytics} at 8080/TCP"
            ),
        ),
        (
            "10.96.0.30",
            8080,
            6,
            Outcome::Denied,
            "",
            "10.96.0.30 is the service data/analytics-service, which has no port 8080/TCP".to_owned(),
        ),
        ("203.0.113.10", 8080, 6, Outcome::Allowed, "", String::new()),
    ] {
        assert_eq!(asked(to, port, protocol), (outcome, name.to_owned(), note), "{to}");
    }
    // A packet that was seen with that address had no backend yet.
    let seen = wire::explain_seen(
        engine,
        &ExplainPolicyRequest {
            source: Some(pod("payments/payments-api")),
            destination: Some(address("10.96.0.10")),
            protocol: 17,
            port: 53,
            request: None,
        },
    )
    .unwrap();
    assert_eq!((seen.outcome(), seen.notes.len()), (Outcome::Denied, 0));
}

#[test]
fn messages_say_what_the_engine_says() {
    let mut engine = demo();
    let folder = testdata("policy/sets");
    let load = |set: &str| source::load(&[folder.join(set)], &Options::default()).unwrap();
    support::set_policies(&mut engine, [load("payments"), load("tenants")].concat());

    let asked = |source: PolicyEnd, port, path: &str| {
        let method = "GET".to_owned();
        let http = PolicyHttpRequest { method, path: path.into(), ..PolicyHttpRequest::default() };
        let request = (!path.is_empty()).then_some(Request::Http(http));
        let (source, destination) = (Some(source), Some(pod("payments/payments-api")));
        wire::explain(&engine, &ExplainPolicyRequest { source, destination, protocol: 6, port, request })
    };
    let web = || pod("web/frontend-app");
    let answer = asked(web(), 9000, "").unwrap();
    assert_eq!((answer.outcome(), answer.enforced_outcome()), (Outcome::Denied, Outcome::Denied));
    let (source, destination) = (answer.source.unwrap(), answer.destination.unwrap());
    assert_eq!((source.name.as_str(), source.others), ("web/frontend-app-7b5b9c6d4-x2x9z", 0));
    assert_eq!((destination.name.as_str(), destination.others), ("payments/payments-api-6c8f7d9b5-k4m2p", 1));
    assert_eq!(answer.egress.unwrap().verdict(), WireVerdict::Open);
    let side = answer.ingress.unwrap();
    assert_eq!(side.verdict(), WireVerdict::DefaultDenied);
    assert_eq!(
        (side.isolating[0].name.as_str(), side.isolating[0].log.as_str()),
        ("payments-api", "payments")
    );
    let miss = side.nearest.unwrap();
    let failed: Vec<_> = miss.failed.iter().map(|f| (f.clause(), f.wanted.as_str())).collect();
    assert_eq!(failed, [(Kind::Port, "8080/TCP")]);
    assert_eq!(miss.rule.unwrap().path, "spec.ingress[0].toPorts[0].ports[0]");

    for (path, outcome) in [
        ("", Outcome::SomeRequests),
        ("/api/v1/charges", Outcome::Allowed),
        ("/api/v1/refunds", Outcome::RequestRefused),
    ] {
        assert_eq!(asked(web(), 8080, path).unwrap().outcome(), outcome, "{path}");
    }
    through_services(&engine);
    // Of several addresses that of the packet; the other's is of the same family.
    for (at, addresses) in [
        ("fd00:10:244:1::a", ["fd00:10:244:1::a", "fd00:10:244:1::14"]),
        ("fd00::dead", ["fd00:10:244:1::a", "fd00:10:244:1::14"]),
        ("10.244.1.10", ["10.244.1.10", "10.244.1.20"]),
        ("", ["10.244.1.10", "10.244.1.20"]),
    ] {
        let answer = asked(PolicyEnd { at: at.into(), ..web() }, 80, "").unwrap();
        assert_eq!([answer.source, answer.destination].map(|end| end.unwrap().address), addresses, "{at}");
    }
    for (end, wrong) in [
        (pod("web"), "source: \"web\" is no pod; write namespace/name"),
        (pod("web/x"), "source: no pod web/x is known; name one of the inventory, or give its address"),
        (
            PolicyEnd { end: Some(End::Entity("moon".into())), ..PolicyEnd::default() },
            "source: \"moon\" is no entity that can be asked about",
        ),
        (address("10.0.0"), "source: \"10.0.0\" is no address"),
        (PolicyEnd::default(), "source: an end is missing"),
        (
            pod("tenant-a/tenant-a-"),
            "source: tenant-a/tenant-a- could be pods with different labels or ports: ",
        ),
    ] {
        let told = asked(end, 80, "").unwrap_err();
        assert!(told.starts_with(wrong), "{told}");
    }

    let hits = PolicyHits { allowed: 3, denied: 1, refused: 2, ..PolicyHits::default() };
    let besides = |_: &Policy| Besides { set_by: SetBy::PolicyAnnotation, hits: Some(hits) };
    let request = ListPoliciesRequest { namespace: "payments".into(), rules: true, ..Default::default() };
    let listed = wire::list(&engine, &request, besides).policies;
    let names: Vec<_> = listed.iter().map(|policy| (policy.kind.as_str(), policy.name.as_str())).collect();
    assert_eq!(names, [("NetworkPolicy", "payments-dns"), ("CiliumNetworkPolicy", "payments-api")]);
    let api = &listed[1];
    assert_eq!(
        (api.mode(), api.mode_set_by(), api.hits),
        (Mode::Enforce, SetBy::PolicyAnnotation, Some(hits))
    );
    assert_eq!((api.selected, api.endpoints.len(), api.rule_count), (2, 2, 6));
    let rule = &api.rules[0];
    assert_eq!(
        rule.peers,
        [
            "k8s:io.kubernetes.pod.namespace=web, any:app=frontend-app, k8s:io.cilium.k8s.policy.cluster=default"
        ]
    );
    assert_eq!(rule.ports, ["8080/TCP, HTTP GET|POST /api/v1/charges"]);
    let listed = wire::list(&engine, &request, besides);
    assert_eq!((listed.open_count, listed.open_pods.len()), (0, 0), "of some policies that is not known");
    let listed = wire::list(&engine, &ListPoliciesRequest::default(), besides);
    let open: Vec<_> =
        listed.open_pods.iter().map(|pod| (pod.name.as_str(), pod.ingress, pod.egress)).collect();
    assert_eq!(listed.open_count, open.len() as u64);
    assert!(open.contains(&("web/frontend-app-7b5b9c6d4-x2x9z", true, true)), "{open:?}");
    assert!(!open.iter().any(|(name, ..)| name.starts_with("payments/payments-api")), "{open:?}");
    let all = listed.policies;
    assert!(all.len() == 6 && all.iter().all(|policy| policy.rules.is_empty() && policy.rule_count > 0));
}

#[test]
fn explanations_name_rules_policies_and_the_nearest_miss() {
    let mut engine = demo();
    let folder = testdata("policy/sets");
    let load = |set: &str| source::load(&[folder.join(set)], &Options::default()).unwrap();
    let mut all = [load("tenants"), load("payments")].concat();
    // The places are the same wherever the project lies.
    for policy in &mut all {
        policy.file = policy.file.as_ref().map(|file| PathBuf::from(file.file_name().unwrap()).into());
    }
    support::set_policies(&mut engine, all);
    let explain = |from: &str, to: &str, direction, protocol, port| {
        let (from, to) = (end(&engine, from), end(&engine, to));
        let (subject, peer) = if direction == Direction::Ingress { (to.0, from.1) } else { (from.0, to.1) };
        let query = Query { subject: subject.unwrap(), direction, peer, protocol, port, request: None };
        engine.explain(query).to_string()
    };
    let (web, payments) = ("web/frontend-app-7b5b9c6d4-x2x9z", "payments/payments-api-6c8f7d9b5-k4m2p");
    let tenant = "tenant-a/tenant-a-client-0";
    let told = [
        explain(web, payments, Direction::Ingress, 6, 9000),
        explain(web, payments, Direction::Ingress, 6, 8080),
        explain(web, payments, Direction::Egress, 6, 8080),
        explain("host", payments, Direction::Ingress, 6, 80),
        explain(tenant, "tenant-b/tenant-b-server-0", Direction::Egress, 6, 7000),
        explain(tenant, "monitoring/prometheus-0", Direction::Egress, 6, 9090),
    ];
    let expected = fs::read_to_string(folder.join("explained.txt")).unwrap();
    assert_eq!(told.join("\n") + "\n", expected);
}

//! A small cluster for the tests, given to the engine and to the naive evaluator alike.
#![allow(dead_code, reason = "each test uses its own part of this")]

pub(crate) mod naive;
pub(crate) mod random;

use naive::{Cluster, End, Pod};
use observer_policy::{
    engine::{Change, Decision, Engine, PeerId, SubjectId, Verdict},
    label::Labels,
    model::{Direction, Mode, Policy},
    world::{Endpoint, NamedPort},
};
use std::{net::IpAddr, sync::Arc};

/// What the kinds are in the tables of this folder.
pub(crate) fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let (version, kind, namespaced) = match kind {
        "knp" => ("networking.k8s.io/v1", "NetworkPolicy", true),
        "cnp" => ("cilium.io/v2", "CiliumNetworkPolicy", true),
        "ccnp" => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", false),
        _ => panic!("{kind} is no kind"),
    };
    let namespace = if namespaced { format!(", namespace: {namespace}") } else { String::new() };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {spec}\n")
}

/// Three namespaces with six pods, two nodes.
pub(crate) fn cluster() -> Cluster {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let pod = |name: &str, labels: &[(&str, &str)], ips: &[&str], ports: &[(&str, u8, u16)]| {
        let (namespace, name) = name.split_once('/').unwrap();
        let namespace_labels: &[(&str, &str)] = match namespace {
            "a" => &[("team", "red")],
            "b" => &[("team", "blue")],
            _ => &[],
        };
        let mut namespace_labels: std::collections::BTreeMap<_, _> = pairs(namespace_labels);
        namespace_labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        Pod {
            namespace: namespace.into(),
            name: name.into(),
            labels: pairs(labels),
            namespace_labels,
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: ports
                .iter()
                .map(|(name, protocol, port)| ((*name).to_owned(), *protocol, *port))
                .collect(),
        }
    };
    Cluster {
        pods: vec![
            pod("a/web", &[("app", "web"), ("tier", "front")], &["10.0.1.1"], &[("http", 6, 80)]),
            pod(
                "a/api",
                &[("app", "api"), ("flag", "")],
                &["10.0.1.2"],
                &[("http", 6, 8080), ("dns", 17, 53)],
            ),
            pod("a/db", &[("app", "db"), ("tier", "back")], &["10.1.2.5"], &[]),
            pod("b/web", &[("app", "web")], &["10.0.2.1"], &[("http", 6, 8000)]),
            pod("b/cli", &[("app", "cli")], &["10.0.2.2", "fd00::2"], &[]),
            pod("c/x", &[], &["172.16.0.1"], &[("http", 17, 80)]),
        ],
        host_labels: pairs(&[("role", "edge")]),
        host: "192.168.0.1".parse().unwrap(),
        remote: "192.168.0.2".parse().unwrap(),
        dual_stack: false,
    }
}

/// The engine with everything of a cluster but its policies.
pub(crate) fn engine(cluster: &Cluster) -> Engine {
    let mut engine = Engine::new(cluster.dual_stack);
    engine.apply(Change { endpoints: endpoints(cluster), ..Change::default() });
    engine
}

/// Pods by `namespace/name`, and the two nodes.
pub(crate) fn endpoints(cluster: &Cluster) -> Vec<(Arc<str>, Option<Endpoint>)> {
    let pods = cluster.pods.iter().enumerate().map(|(n, pod)| {
        let port = |(name, protocol, port): &(String, u8, u16)| NamedPort {
            name: name.as_str().into(),
            protocol: *protocol,
            port: *port,
        };
        let endpoint = Endpoint {
            labels: Labels::parse(cluster.labels(&End::Pod(n))),
            ports: pod.ports.iter().map(port).collect(),
            addresses: pod.ips.clone(),
        };
        (format!("{}/{}", pod.namespace, pod.name).into(), Some(endpoint))
    });
    let node = |name: &str, end: &End, ip| {
        let labels = Labels::parse(cluster.labels(end));
        (name.into(), Some(Endpoint { labels, addresses: vec![ip], ..Endpoint::default() }))
    };
    let nodes = [node("host", &End::Host, cluster.host), node("remote", &End::Remote, cluster.remote)];
    pods.chain(nodes).collect()
}

/// Sets the policies, each in the mode of its annotation, else enforced.
pub(crate) fn set_policies(engine: &mut Engine, policies: Vec<Policy>) {
    let with_mode = |policy: Policy| {
        let mode = policy.mode.unwrap_or(Mode::Enforce);
        (Arc::new(policy), mode)
    };
    let policies = engine.difference(policies.into_iter().map(with_mode).collect());
    engine.apply(Change { policies, ..Change::default() });
}

/// A side of a connection, as both evaluators are asked about it.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) subject: End,
    pub(crate) direction: Direction,
    pub(crate) peer: End,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

pub(crate) fn subject(engine: &Engine, cluster: &Cluster, end: &End) -> SubjectId {
    engine.subject_at(cluster.address(end)).unwrap()
}

pub(crate) fn peer(engine: &Engine, cluster: &Cluster, end: &End) -> PeerId {
    engine.peer_at(cluster.address(end))
}

pub(crate) fn judge(engine: &Engine, cluster: &Cluster, question: &Question) -> Decision {
    let subject = subject(engine, cluster, &question.subject);
    let peer = peer(engine, cluster, &question.peer);
    engine.judge(subject, question.direction, peer, question.protocol, question.port)
}

pub(crate) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Open => "open",
        Verdict::Allowed => "allow",
        Verdict::Requests => "requests",
        Verdict::Denied => "deny",
        Verdict::DefaultDenied => "default-deny",
    }
}

/// Reads `a/web`, `host`, `remote` or an address of the world.
pub(crate) fn end(cluster: &Cluster, text: &str) -> End {
    match text {
        "host" => End::Host,
        "remote" => End::Remote,
        _ => {
            if let Ok(address) = text.parse::<IpAddr>() {
                return End::World(address);
            }
            let (text, ip) = text.split_once('@').unwrap_or((text, "0"));
            let is = |pod: &Pod| format!("{}/{}", pod.namespace, pod.name) == text;
            let place = cluster.pods.iter().position(is).unwrap_or_else(|| panic!("no pod {text}"));
            if ip == "6" { End::PodAt(place, 1) } else { End::Pod(place) }
        }
    }
}

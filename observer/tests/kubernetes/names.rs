//! A daemon on a node of the lab, by the rights that it needs and no others: names and policies of the API, live, and what
//! becomes of them while the API is away.

use crate::{
    cluster::Cluster,
    deployed::observe,
    support::{Daemon, OBSERVER, can_run, late, name, scenario},
};
use observer_lab::{Lab, Scenario, netns, scenario::Traffic, unique_prefix};
use observer_proto::{
    control::KubernetesResource,
    flow::{Flow, FlowFilter, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use serde_json::json;
use std::{
    net::UdpSocket,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// What the daemon reads, and no more.
fn role() -> String {
    let rule = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    let cilium = ["ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies", "ciliumcidrgroups"];
    let rules = [
        rule("", &["pods", "namespaces", "nodes", "services"]),
        rule("discovery.k8s.io", &["endpointslices"]),
        rule("networking.k8s.io", &["networkpolicies"]),
        rule("cilium.io", &cilium),
    ];
    let metadata = json!({ "name": "observer" });
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules })
        .to_string()
}

const BINDING: [&str; 5] = [
    "create",
    "clusterrolebinding",
    "observer",
    "--clusterrole=observer",
    "--serviceaccount=kube-system:observer",
];

/// A cluster of two nodes, and who may read it.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    pub(crate) cluster: Cluster,
}

impl Bed {
    pub(crate) fn new(prefix: &str) -> Self {
        let lab = Lab::up(&scenario("two-nodes.toml"), &unique_prefix(prefix)).unwrap();
        let cluster = Cluster::start(&lab);
        cluster.populate(lab.scenario());
        cluster.apply(&role());
        cluster.kubectl(&["create", "serviceaccount", "observer", "-n", "kube-system"]);
        cluster.kubectl(&BINDING);
        Self { lab, cluster }
    }

    /// A daemon of the first node with this access, which follows policies, too.
    pub(crate) fn daemon(&self, kubeconfig: &Path) -> Daemon {
        Daemon::spawn(self.command(kubeconfig), tempfile::tempdir().unwrap())
    }

    pub(crate) fn command(&self, kubeconfig: &Path) -> Command {
        let mut command = self.names_alone(kubeconfig);
        command.arg("--kubernetes-policies");
        command
    }

    /// The same without policies.
    pub(crate) fn names_alone(&self, kubeconfig: &Path) -> Command {
        let mut command = self.lab.command_in("n1", OBSERVER);
        command.args(["--node-name", "n1", "--local-namespaces=false", "--kubernetes"]);
        command.arg("--kubeconfig").arg(kubeconfig);
        command
    }

    pub(crate) fn scenario(&self) -> Scenario {
        self.lab.scenario().clone()
    }

    /// The network namespace of a pod of the lab, or of a node.
    pub(crate) fn netns(&self, namespace: &str, name: &str) -> String {
        let pod = self.lab.scenario().pod(namespace, name);
        let file = pod.map_or_else(|| self.lab.node_netns(name), |pod| self.lab.pod_netns(pod));
        file.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Opens one connection of this traffic.
    pub(crate) fn play(&mut self, traffic: &str) {
        let wanted = self.lab.scenario().traffic.iter().find(|one| one.name == traffic).unwrap().clone();
        self.lab.play(Traffic { count: Some(1), delay_ms: 0, interval_ms: 0, ..wanted }).unwrap();
        self.lab.wait_traffic();
    }
}

pub(crate) fn resource(daemon: &Daemon, name: &str) -> KubernetesResource {
    let status = daemon.capture_status().kubernetes;
    status.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no {name}: {status:?}")).clone()
}

pub(crate) fn synced(daemon: &Daemon, but: &[&str]) {
    late::until("all resources are told", || {
        let status = daemon.capture_status().kubernetes;
        let is_well = |one: &KubernetesResource| {
            one.state == if but.contains(&one.name.as_str()) { "absent" } else { "synced" }
        };
        (status.len() == 9 && status.iter().all(is_well)).then_some(())
    });
}

pub(crate) const CILIUM: [&str; 3] =
    ["ciliumcidrgroups", "ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"];

/// Both ends of a flow.
fn ends(flow: &Flow) -> String {
    let ip = flow.ip.as_ref().unwrap();
    format!(
        "{} -> {}",
        name(flow.source.as_ref(), &ip.source),
        name(flow.destination.as_ref(), &ip.destination)
    )
}

/// Follows what goes from one pod to another.
pub(crate) fn between(from: &str, to: &str) -> GetFlowsRequest {
    let filter = FlowFilter {
        source_pod: vec![from.to_owned()],
        destination_pod: vec![to.to_owned()],
        ..FlowFilter::default()
    };
    GetFlowsRequest { follow: true, whitelist: vec![filter], ..GetFlowsRequest::default() }
}

pub(crate) fn flow(response: ResponseTypes) -> Option<Flow> {
    match response {
        ResponseTypes::Flow(flow) => Some(flow),
        _ => None,
    }
}

/// What is to hold of a change: how soon it is seen.
pub(crate) const SOON: Duration = Duration::from_secs(1);

#[test]
fn pods_services_and_policies_of_the_api_are_those_of_flows() {
    if !can_run("kubernetes: names") {
        return;
    }
    let mut bed = Bed::new("k8snames");
    bed.cluster.install_crds();
    let daemon = bed.daemon(&bed.cluster.kubeconfig_of("kube-system", "observer"));
    synced(&daemon, &[]);

    let follower = daemon.follow(between("web/client-1", "shop/server-2"));
    bed.play("direct-1");
    let seen = follower.until("client-1 to server-2", flow);
    assert_eq!(ends(&seen), "web/client-1 -> shop/server-2");
    let (source, destination) = (seen.source.unwrap(), seen.destination.unwrap());
    assert_eq!(
        (source.workloads[0].kind.as_str(), source.workloads[0].name.as_str()),
        ("Deployment", "client")
    );
    for label in [
        "k8s:app=client",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
    ] {
        assert!(source.labels.iter().any(|own| own == label), "{label}: {:?}", source.labels);
    }
    assert!(source.id != 0 && destination.id == 0, "one is local");
    bed.play("service-1");
    let flows = daemon.flows_until(|flows| {
        let is_there =
            |flow: &Flow| flow.destination_service.as_ref().is_some_and(|service| service.name == "server");
        (!flows.iter().any(is_there)).then(|| "a flow to the service".to_owned())
    });
    assert!(!flows.iter().any(|flow| ends(flow).contains("unknown")), "all ends are known");
    bed.play("host");
    daemon.flows_until(|flows| {
        let is_host = |flow: &Flow| flow.source.as_ref().is_some_and(|end| end.identity == 1);
        (!flows.iter().any(is_host)).then(|| "a flow of the node".to_owned())
    });

    // A policy of each kind changes verdicts; so does another one's end.
    let kubernetes = r#"{ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "closed", "namespace": "shop" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } }"#;
    let cilium = r#"{ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "open", "namespace": "shop" },
        "spec": { "endpointSelector": { "matchLabels": { "app": "server" } },
          "ingress": [{ "fromEndpoints": [{ "matchLabels": { "k8s:io.kubernetes.pod.namespace": "web" } }] }] } }"#;
    for (document, count, verdict) in [(kubernetes, 1, Verdict::Audit), (cilium, 2, Verdict::Forwarded)] {
        bed.cluster.apply(document);
        let applied = Instant::now();
        late::until("the policy", || (daemon.policies().policies.len() == count).then_some(()));
        let took = applied.elapsed();
        println!("a policy is in force {took:?} after it was applied");
        assert!(took < SOON || cfg!(debug_assertions), "{took:?}");
        let before = daemon.flows().len();
        bed.play("direct-2");
        daemon.flows_until(|flows| {
            let is_it = |flow: &Flow| {
                flow.event_type.is_some_and(|event| event.r#type == 5)
                    && ends(flow) == "web/client-2 -> shop/server-1"
                    && flow.verdict() == verdict
            };
            (!flows[before..].iter().any(is_it)).then(|| format!("a verdict {verdict:?}"))
        });
    }
    let listed = daemon.policies();
    assert_eq!((listed.policies.len(), listed.problem.as_str()), (2, ""), "{listed:?}");
    bed.cluster.delete(cilium);
    late::until("one policy", || (daemon.policies().policies.len() == 1).then_some(()));

    // A pod goes, another one takes its address.
    let mut pod = bed.scenario().pods[0].clone();
    bed.cluster.kubectl(&["delete", "pod", "client-1", "-n", "web", "--force", "--grace-period=0"]);
    "client-3".clone_into(&mut pod.name);
    bed.cluster.run_pod(&bed.scenario(), &pod);
    late::until("client-3", || (resource(&daemon, "pods").objects == 4).then_some(()));
    let before = daemon.flows().len();
    let follower = daemon.follow(between("web/client-3", "shop/server-2"));
    bed.play("direct-1");
    assert_eq!(ends(&follower.until("client-3 to server-2", flow)), "web/client-3 -> shop/server-2");
    daemon.settled();
    let late_ones = daemon.flows().split_off(before);
    assert!(!late_ones.iter().any(|flow| ends(flow).contains("client-1")), "{late_ones:?}");
    let status = daemon.capture_status().kubernetes;
    // Of a definition that was just made the server says for a moment that it can't tell yet.
    let is_well = |one: &KubernetesResource| {
        one.malformed == 0 && (one.failures == 0 || CILIUM.contains(&one.name.as_str()))
    };
    assert!(status.iter().all(is_well), "{status:?}");
}

#[test]
fn a_service_without_a_selector_has_the_endpoints_of_its_slices() {
    if !can_run("kubernetes: slices") {
        return;
    }
    let bed = Bed::new("k8sslices");
    bed.cluster.install_crds();
    let daemon = bed.daemon(&bed.cluster.kubeconfig_of("kube-system", "observer"));
    synced(&daemon, &[]);
    assert_eq!(resource(&daemon, "endpointslices").objects, 2, "one of each family");
    let why = || {
        let mut observe = observe(&bed.lab.node_netns("n1"));
        observe.args(["why", "--from-pod", "web/client-1", "--to-service", "shop/server", "--server"]);
        let socket = daemon.dir.path().join("hubble.sock");
        let said = observe.arg(format!("unix://{}", socket.display())).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let said = why();
    for (address, pod) in
        [("10.244.1.20:8080", "shop/server-1"), ("[fd00:10:244:2::14]:8080", "shop/server-2")]
    {
        let line = said.lines().find(|line| line.contains(address)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(" ready ") && line.ends_with(pod), "{said}");
    }
    bed.cluster.kubectl(&["delete", "endpointslices", "--all", "-n", "shop"]);
    late::until("no slice", || (resource(&daemon, "endpointslices").objects == 0).then_some(()));
    assert!(!why().contains("8080"));
    let outside = bed.scenario().outside.addresses[0].addr();
    let metadata = json!({ "name": "outside", "namespace": "web", "labels": { "kubernetes.io/service-name": "outside" } });
    let ports = json!([{ "name": "echo", "port": 7009, "protocol": "UDP" }]);
    let slice = |is_ready: bool| {
        let endpoints = json!([{ "addresses": [outside], "conditions": { "ready": is_ready } }]);
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports })
        .to_string()
    };
    let spec = json!({ "ports": ports });
    bed.cluster.apply(
        &json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec }).to_string(),
    );
    bed.cluster.apply(&slice(false));
    let to = json!([{ "k8sService": { "serviceName": "outside", "namespace": "web" } }]);
    let spec = json!({ "endpointSelector": {}, "egress": [{ "toServices": to }] });
    let policy = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "name": "out", "namespace": "web" }, "spec": spec });
    bed.cluster.apply(&policy.to_string());
    late::until("the policy", || (daemon.policies().policies.len() == 1).then_some(()));
    let client = bed.netns("web", "client-1");
    let verdict = || {
        let before = daemon.flows().len();
        let send = || Ok(UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", (outside, 7009)).unwrap());
        netns::inside(&client, send).unwrap();
        let is_it = |flow: &&Flow| {
            flow.event_type.is_some_and(|event| event.r#type == 5)
                && flow.ip.as_ref().is_some_and(|ip| ip.destination == outside.to_string())
        };
        let flows = daemon.flows_until(|flows| {
            flows[before..].iter().find(is_it).is_none().then(|| "a verdict".to_owned())
        });
        flows[before..].iter().find(is_it).unwrap().verdict()
    };
    for (is_ready, wanted) in [(false, Verdict::Audit), (true, Verdict::Forwarded), (false, Verdict::Audit)] {
        bed.cluster.apply(&slice(is_ready));
        late::until("the verdict", || (verdict() == wanted).then_some(()));
    }
}

#[test]
fn the_api_may_come_late_and_go_and_say_no() {
    if !can_run("kubernetes: the API away") {
        return;
    }
    let mut bed = Bed::new("k8saway");
    let kubeconfig = bed.cluster.kubeconfig_of("kube-system", "observer");
    bed.cluster.kill_server();
    let daemon = bed.daemon(&kubeconfig);
    bed.play("direct-1");
    let flows = daemon.flows_until(|flows| flows.is_empty().then(|| "flows without names".to_owned()));
    let unknown = |end: Option<&observer_proto::flow::Endpoint>| end.unwrap().labels == ["reserved:unknown"];
    assert!(flows.iter().any(|flow| unknown(flow.source.as_ref()) && unknown(flow.destination.as_ref())));
    assert_eq!(resource(&daemon, "pods").state, "waiting");
    bed.cluster.start_server();
    synced(&daemon, &CILIUM);
    let follower = daemon.follow(between("web/client-1", "shop/server-2"));
    bed.play("direct-1");
    follower.until("client-1 to server-2", flow);

    // Names stay while it is away.
    bed.cluster.kill_server();
    late::until("the watch is broken", || (resource(&daemon, "pods").state == "failing").then_some(()));
    bed.play("direct-1");
    follower.until("client-1 to server-2 without an API", flow);
    // Its rights are gone when it comes back, then its token.
    bed.cluster.start_server();
    synced(&daemon, &CILIUM);
    bed.cluster.kubectl(&["delete", "clusterrolebinding", "observer"]);
    bed.cluster.kill_server();
    bed.cluster.start_server();
    late::until("it may read nothing", || {
        let pods = resource(&daemon, "pods");
        pods.error.starts_with("403 Forbidden: ").then_some(())
    });
    bed.cluster.kubectl(&BINDING);
    synced(&daemon, &CILIUM);
    bed.cluster.kubectl(&["delete", "serviceaccount", "observer", "-n", "kube-system"]);
    bed.cluster.kubectl(&["create", "serviceaccount", "observer", "-n", "kube-system"]);
    bed.cluster.kill_server();
    bed.cluster.start_server();
    late::until("its token is none", || {
        resource(&daemon, "pods").error.starts_with("401 Unauthorized").then_some(())
    });
    bed.cluster.renew("kube-system", "observer");
    synced(&daemon, &CILIUM);

    // Definitions come later.
    bed.cluster.install_crds();
    bed.cluster.apply(
        r#"{ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "open", "namespace": "shop" },
        "spec": { "endpointSelector": {}, "ingress": [{ "fromEntities": ["all"] }] } }"#,
    );
    late::until("the policy", || (daemon.policies().policies.len() == 1).then_some(()));
    assert_eq!(resource(&daemon, "pods").objects, 4);
}

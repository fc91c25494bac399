//! `deploy/`: what the chart makes, whether the API takes it, and whether the daemon can do its work with it.

use crate::{
    cluster::{Cluster, program},
    container::{Container, Objects, decoded},
    support::{Daemon, OBSERVER, can_run, empty_node, extensions, get, late, scenario},
};
use observer_lab::{Lab, netns, unique_prefix};
use observer_proto::{
    control::{hook::State, policy::Mode},
    flow::{DropReason, Flow, Verdict},
    observer::{GetNodesRequest, observer_client::ObserverClient},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn helm(arguments: &[&str], values: &[&str]) -> Output {
    let mut command = Command::new(program("helm"));
    command.args(arguments).arg(project("deploy/helm/observer")).env_clear().env("HOME", "/nonexistent");
    command.args(values.iter().flat_map(|value| ["--set", value])).output().unwrap()
}

/// What the chart makes of these values, in the namespace `observer`.
pub(crate) fn render(values: &[&str]) -> String {
    let made = helm(&["template", "observer", "--namespace", "observer"], values);
    assert!(made.status.success(), "{values:?}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// The objects in it, by kind and name.
pub(crate) fn objects(text: &str) -> Objects {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    objects.into_iter().map(|it| ((text(&it["kind"]), text(&it["metadata"]["name"])), it)).collect()
}

/// What the daemon reads.
const READ: [&str; 9] = [
    "pods",
    "namespaces",
    "nodes",
    "services",
    "endpointslices.discovery.k8s.io",
    "networkpolicies.networking.k8s.io",
    "ciliumnetworkpolicies.cilium.io",
    "ciliumclusterwidenetworkpolicies.cilium.io",
    "ciliumcidrgroups.cilium.io",
];

/// Everything that is off by default.
const ALL: [&str; 9] = [
    "features.kernelPlaces=true",
    "features.hostNames=true",
    "features.oldKernels=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=prometheus",
    "metrics.flows=drop flow tcp",
    "networkPolicy.enabled=true",
    "networkPolicy.host=true",
    "config.max-flows=131072",
];

/// Prometheus' operator's resource, as far as the API has to know it.
const SERVICE_MONITORS: &str = r#"{ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": { "name": "servicemonitors.monitoring.coreos.com" },
    "spec": { "group": "monitoring.coreos.com", "scope": "Namespaced",
              "names": { "plural": "servicemonitors", "singular": "servicemonitor", "kind": "ServiceMonitor" },
              "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema":
                  { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }] } }"#;

#[test]
fn the_plain_manifests_are_what_the_chart_makes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("observer.yaml");
    let made = Command::new(project("scripts/manifests")).arg(&file).status().unwrap();
    assert!(made.success());
    let [made, kept] =
        [file, project("deploy/kubernetes/observer.yaml")].map(|file| std::fs::read_to_string(file).unwrap());
    assert!(
        kept.contains(concat!("image: \"observer:", env!("CARGO_PKG_VERSION"))),
        "Chart.yaml is of another version"
    );
    assert!(made == kept, "deploy/kubernetes/observer.yaml is old: scripts/manifests makes it anew");
}

#[test]
fn the_chart_refuses_what_can_not_be() {
    let linted = helm(&["lint", "--strict"], &[]);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    for (value, place) in [
        ("server.prt=1", "/server"),
        ("server.port=0", "/server/port"),
        ("server.address=eth0", "/server/address"),
        ("policy.mode=deny", "/policy/mode"),
        ("config.Max_Flows=1", "Max_Flows"),
        ("config.max-flows.most=1", "/config/max-flows"),
        ("cluster=a/b", "/cluster"),
        ("privileged=true", "privileged"),
    ] {
        let made = helm(&["template", "observer"], &[value]);
        let error = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(!made.status.success() && error.contains(place), "{value}: {error}");
    }
}

#[test]
fn the_api_takes_it_and_gives_the_daemon_no_right_but_to_read() {
    if !can_run("kubernetes: deploy") {
        return;
    }
    let lab = empty_node("k8sdep");
    let cluster = Cluster::start(&lab);
    cluster.install_crds();
    cluster.apply(SERVICE_MONITORS);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    cluster.kubectl(&["create", "namespace", "observer"]);
    let strict = ["apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-"];
    for values in
        [&[][..], &ALL, &["server.tls.enabled=false"], &["server.enabled=false", "metrics.enabled=false"]]
    {
        let text = render(values);
        let said = cluster.kubectl_with(&strict, &text);
        assert_eq!(said.lines().count(), objects(&text).len(), "{said}");
    }

    for file in ["observer", "hubble-relay"] {
        cluster.apply_file(&project(&format!("deploy/kubernetes/{file}.yaml")));
    }

    // What any service account may, and besides this one reads what is named here.
    let may = |account: &Path| {
        let said = cluster.kubectl_as(account, &["auth", "can-i", "--list", "--no-headers"], "");
        let said = String::from_utf8(said.stdout).unwrap();
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        said.lines().map(squeeze).collect::<BTreeSet<_>>()
    };
    cluster.kubectl(&["create", "serviceaccount", "any", "-n", "observer"]);
    let any = may(&cluster.kubeconfig_of("observer", "any"));
    let ours = cluster.kubeconfig_of("observer", "observer");
    let rights: BTreeSet<_> = READ.map(|what| format!("{what} [] [] [list watch]")).into();
    late::until("the rights of the role", || (&may(&ours) - &any == rights).then_some(()));
}

#[test]
fn helm_installs_it_and_an_upgrade_keeps_its_certificates() {
    if !can_run("kubernetes: helm") {
        return;
    }
    let lab = empty_node("k8shelm");
    let cluster = Cluster::start(&lab);
    let chart = project("deploy/helm/observer").display().to_string();
    let helm = |task: &str, values: &[&str]| {
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let arguments = [&[task, "seer", &chart, "-n", "seers"], &sets.collect::<Vec<_>>()[..]].concat();
        let done = cluster.helm(&arguments);
        let [said, error] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        if done.status.success() { Ok(said) } else { Err(error) }
    };
    cluster.kubectl(&["create", "namespace", "seers"]);
    let notes = helm("install", &["cluster=blue.example"]).unwrap();
    assert!(notes.contains("hubble-peer.seers.svc.cluster.local:443"), "{notes}");
    let secrets = || {
        let all =
            "jsonpath={range .items[?(@.type=='kubernetes.io/tls')]}{.metadata.name} {.data}{\"\\n\"}{end}";
        cluster.kubectl(&["get", "secrets", "-n", "seers", "-o", all])
    };
    let made = secrets();
    assert_eq!(made.lines().count(), 3, "{made}");
    let notes =
        helm("upgrade", &["cluster=blue.example", "policy.auditOnly=false", "policy.mode=enforce"]).unwrap();
    assert!(notes.contains("the usual mode is enforce"), "{notes}");
    assert!(secrets() == made, "an upgrade made other certificates");
    let config = cluster.kubectl(&["get", "configmap", "seer", "-n", "seers", "-o", "jsonpath={.data}"]);
    assert!(config.contains(r#"cluster = \"blue.example\""#), "{config}");
    cluster.kubectl(&["delete", "secret", "observer-relay-certs", "-n", "seers"]);
    let error = helm("upgrade", &[]).unwrap_err();
    assert!(error.contains("the secret observer-relay-certs is gone"), "{error}");
    cluster.kubectl(&["delete", "secret", "observer-server-certs", "observer-client-certs", "-n", "seers"]);
    helm("upgrade", &[]).unwrap();
    assert_eq!(secrets().lines().count(), 3);
}

/// The demo's node in a cluster that has the chart installed, with the chart's container as its daemon.
struct Deployed {
    daemon: Daemon,
    container: Container,
    objects: Objects,
    cluster: Cluster,
    lab: Lab,
}

impl Deployed {
    fn new(name: &str, values: &[&str]) -> Self {
        let lab = Lab::up(&scenario("demo.toml"), &unique_prefix(name)).unwrap();
        let cluster = Cluster::start(&lab);
        cluster.install_crds();
        cluster.populate(lab.scenario());
        // A test reads its log as text.
        let made = render(&[values, &["config.log-format=text"]].concat());
        cluster.kubectl(&["create", "namespace", "observer"]);
        cluster.apply(&made);
        let objects = objects(&made);
        let dir = tempfile::tempdir().unwrap();
        let container = Container::of(&objects, &cluster.account("observer", "observer"), dir.path());
        let mut command = container.command(&lab.node_netns("n1"));
        // As a kubelet sets them.
        command.env("OBSERVER_NODE_NAME", "n1");
        command.env("KUBERNETES_SERVICE_HOST", cluster.address().ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", cluster.address().port().to_string());
        let daemon = Daemon::spawn(command, dir);
        late::until("all that the role lets it read", || {
            let read = daemon.capture_status().kubernetes;
            (read.len() == READ.len() && read.iter().all(|one| one.state == "synced")).then_some(())
        });
        let status = daemon.capture_status();
        for hook in &status.hooks {
            assert_eq!(hook.state, State::Attached as i32, "{hook:?}");
        }
        for link in &status.links {
            assert_eq!(link.problem, "", "{link:?}");
        }
        Self { daemon, container, objects, cluster, lab }
    }
}

#[test]
fn the_daemon_does_its_work_with_the_rights_that_it_is_given() {
    if !can_run("kubernetes: capabilities") {
        return;
    }
    let values = ["metrics.flows=drop", "config.l7=all"];
    let Deployed { mut lab, daemon, container, objects, cluster } = Deployed::new("k8srun", &values);
    for mut traffic in lab.scenario().traffic.clone() {
        (traffic.count, traffic.interval_ms, traffic.delay_ms) = (Some(1), 0, 0);
        lab.play(traffic).unwrap();
    }
    lab.wait_traffic();
    daemon.flows_until(|flows| {
        let has = |what: fn(&Flow) -> bool| flows.iter().any(what);
        let missing = [
            ("a request", has(|flow| flow.l7.is_some())),
            (
                "a pod",
                has(|flow| flow.source.as_ref().is_some_and(|end| end.pod_name.starts_with("frontend"))),
            ),
            (
                "a drop with its reason",
                has(|flow| flow.verdict() == Verdict::Dropped && flow.drop_reason_desc != 0),
            ),
        ];
        missing.into_iter().find(|(_, is_there)| !is_there).map(|(what, _)| what.to_owned())
    });

    // A daemon of the same DaemonSet on another node is found by its labels, with the port of both.
    let template = &objects[&("DaemonSet".to_owned(), "observer".to_owned())]["spec"]["template"];
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" } });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "observer-n2", "namespace": "observer", "labels": template["metadata"]["labels"] },
        "spec": { "nodeName": "n2", "hostNetwork": true, "containers": [{ "name": "observer", "image": "none" }] },
        "status": { "phase": "Running", "podIP": "192.168.50.12", "podIPs": [{ "ip": "192.168.50.12" }] },
    });
    cluster.apply(&node.to_string());
    cluster.apply(&pod.to_string());
    cluster.set_status(&pod.to_string());
    late::until("the daemon of another node", || {
        let nodes =
            daemon.call(async |channel| ObserverClient::new(channel).get_nodes(GetNodesRequest {}).await);
        let nodes = nodes.unwrap().into_inner().nodes;
        nodes.iter().any(|node| node.name == "n2" && node.address == "192.168.50.12:4244").then_some(())
    });

    // The node's own network has what probes, Prometheus and a client with a certificate ask for.
    let node = lab.node_netns("n1");
    let port = |name: &str| {
        let ports = container.spec()["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_u64().unwrap()
    };
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let request = &container.spec()[probe]["httpGet"];
        let address = format!("{}:{}", request["host"].as_str().unwrap(), port("metrics")).parse().unwrap();
        let path = request["path"].as_str().unwrap();
        let (head, _) = inside(&node, || get(address, path));
        assert!(head.starts_with("HTTP/1.1 200"), "{probe}: {head}");
    }
    let (_, page) =
        inside(&node, || get(format!("192.168.50.11:{}", port("metrics")).parse().unwrap(), "/metrics"));
    assert!(page.contains("\nhubble_drop_total{"), "{page}");
    let client = &objects[&("Secret".to_owned(), "observer-client-certs".to_owned())]["data"];
    let dir = tempfile::tempdir().unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::fs::write(dir.path().join(file), decoded(client[file].as_str().unwrap())).unwrap();
    }
    let mut observe = netns::command_in(&node, Path::new(OBSERVER).with_file_name("observe"));
    observe.args(["status", "--server", &format!("tls://192.168.50.11:{}", port("hubble"))]);
    observe.arg("--tls-ca-cert-files").arg(container.file("observer-server-certs", "ca.crt"));
    observe.args(["--tls-server-name", "hubble-peer.default.hubble-grpc.cilium.io"]);
    let certificate = |flag: &str, file: &str| [flag.to_owned(), dir.path().join(file).display().to_string()];
    let stranger = observe.output().unwrap();
    assert!(!stranger.status.success(), "let in without a certificate: {stranger:?}");
    observe.args(certificate("--tls-client-cert-file", "tls.crt"));
    let known = observe.args(certificate("--tls-client-key-file", "tls.key")).output().unwrap();
    assert!(known.status.success(), "{known:?}");
}

#[test]
fn policies_are_enforced_with_the_rights_that_it_is_given() {
    if !can_run("kubernetes: enforce") {
        return;
    }
    let values = [
        "policy.auditOnly=false",
        "policy.mode=enforce",
        "features.kernelPlaces=true",
        "server.tls.enabled=false",
        "networkPolicy.host=true",
    ];
    let Deployed { lab, daemon, cluster, .. } = Deployed::new("k8senf", &values);
    cluster.apply_file(&project("testdata/policy/sets/payments"));
    late::until("all policies enforced", || {
        let policies = daemon.policies().policies;
        (policies.len() == 3 && policies.iter().all(|policy| policy.mode() == Mode::Enforce)).then_some(())
    });
    let pod = |name: &str| lab.scenario().pods.iter().find(|pod| pod.name.starts_with(name)).unwrap();
    let server = pod("payments-api").ips[0];
    let ask = |path| inside(&lab.pod_netns(pod("frontend-app")), || get((server, 8080).into(), path).0);
    assert!(ask("/api/v1/charges").starts_with("HTTP/1.1 200"));
    assert!(ask("/api/v1/unknown").starts_with("HTTP/1.1 403"));
    let opens = |from: &Path, to: (IpAddr, u16)| {
        let timeout = Duration::from_millis(300);
        let connect = || TcpStream::connect_timeout(&to.into(), timeout).map(drop);
        inside(from, connect).map_err(|error| error.kind())
    };
    assert_eq!(opens(&lab.pod_netns(pod("analytics-service")), (server, 8080)), Err(ErrorKind::TimedOut));
    // The chart's own policy keeps the world from the daemon's ports, and nobody else.
    let node = lab.scenario().nodes[0].addresses[0];
    for port in [4244, 9965] {
        assert_eq!(opens(&lab.outside_netns(), (node, port)), Err(ErrorKind::TimedOut));
        assert_eq!(opens(&lab.pod_netns(pod("analytics-service")), (node, port)), Ok(()));
    }
    assert_eq!(opens(&lab.outside_netns(), (node, 22)), Err(ErrorKind::ConnectionRefused));
    // A firewall rule of the lab's refuses this one.
    assert!(opens(&lab.pod_netns(pod("frontend-app")), (server, 9000)).is_err());
    daemon.flows_until(|flows| {
        let denied = |flow: &Flow| flow.drop_reason_desc() == DropReason::PolicyDenied;
        let placed =
            |flow: &Flow| extensions(flow).get("kernel_location").is_some_and(|place| place.contains("+0x"));
        let missing =
            [("a denied connection", flows.iter().any(denied)), ("a drop's place", flows.iter().any(placed))];
        missing.into_iter().find(|(_, is_there)| !is_there).map(|(what, _)| what.to_owned())
    });
}

fn inside<T: Send>(node: &Path, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(node.file_name().unwrap().to_str().unwrap(), || Ok(work())).unwrap()
}

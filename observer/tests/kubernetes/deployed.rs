//! Nodes of a lab in a cluster that has the chart installed, each with the chart's container as its daemon.

use crate::{
    cluster::Cluster,
    container::{Container, Objects, decoded},
    deploy::{objects, project, render},
    support::{Daemon, OBSERVER, can_run, extensions, get, late, scenario},
};
use observer_lab::{Lab, netns, scenario::Pod, unique_prefix};
use observer_proto::{
    control::{hook::State, policy::Mode},
    flow::{DropReason, Flow, Verdict},
    observer::{GetNodesRequest, observer_client::ObserverClient},
};
use serde_json::json;
use std::{
    io::ErrorKind,
    net::{IpAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

pub(crate) struct Deployed {
    pub(crate) objects: Objects,
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
}

impl Deployed {
    /// The lab of this scenario and the chart with these values.
    pub(crate) fn new(name: &str, file: &str, values: &[&str]) -> Self {
        let lab = Lab::up(&scenario(file), &unique_prefix(name)).unwrap();
        let cluster = Cluster::start(&lab);
        cluster.install_crds();
        cluster.populate(lab.scenario());
        // A test reads its log as text.
        let made = render(&[values, &["config.log-format=text"]].concat());
        cluster.kubectl(&["create", "namespace", "observer"]);
        cluster.apply(&made);
        Self { objects: objects(&made), cluster, lab }
    }

    /// Starts the daemon of a node, and waits until all is attached and it has read all that it may.
    pub(crate) fn start(&self, node: &str) -> (Daemon, Container) {
        let (cluster, dir) = (&self.cluster, tempfile::tempdir().unwrap());
        let container = Container::of(&self.objects, &cluster.account("observer", "observer"), dir.path());
        let mut command = container.command(&self.lab.node_netns(node));
        // As a kubelet sets them.
        command.env("OBSERVER_NODE_NAME", node);
        command.env("KUBERNETES_SERVICE_HOST", cluster.address().ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", cluster.address().port().to_string());
        let daemon = Daemon::spawn(command, dir);
        late::until("all that the role lets it read", || {
            let read = daemon.capture_status().kubernetes;
            (!read.is_empty() && read.iter().all(|one| one.state == "synced")).then_some(())
        });
        let status = daemon.capture_status();
        for hook in &status.hooks {
            assert_eq!(hook.state, State::Attached as i32, "{hook:?}");
        }
        for link in &status.links {
            assert_eq!(link.problem, "", "{link:?}");
        }
        (daemon, container)
    }

    /// Makes the DaemonSet's pod on a node, as its controller and a kubelet would.
    pub(crate) fn run_pod(&self, node: &str, address: &str) {
        let template = &self.objects[&("DaemonSet".to_owned(), "observer".to_owned())]["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": format!("observer-{node}"), "namespace": "observer", "labels": labels },
            "spec": { "nodeName": node, "hostNetwork": true, "containers": [{ "name": "observer", "image": "none" }] },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
        });
        self.cluster.apply(&pod.to_string());
        self.cluster.set_status(&pod.to_string());
    }

    /// Writes the files of a secret into a folder.
    pub(crate) fn write_secret(&self, name: &str, folder: &Path) {
        let secret = &self.objects[&("Secret".to_owned(), name.to_owned())]["data"];
        for (file, content) in secret.as_object().unwrap() {
            std::fs::write(folder.join(file), decoded(content.as_str().unwrap())).unwrap();
        }
    }

    fn pod(&self, name: &str) -> &Pod {
        self.lab.scenario().pods.iter().find(|pod| pod.name.starts_with(name)).unwrap()
    }

    fn pod_netns(&self, name: &str) -> PathBuf {
        self.lab.pod_netns(self.pod(name))
    }
}

/// Frontends may ask for one name, and reach payments.
const NAMES: &str = r#"{ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
    "metadata": { "namespace": "web", "name": "names" },
    "spec": { "endpointSelector": { "matchLabels": { "app": "frontend-app" } }, "egress": [
        { "toEndpoints": [{ "matchLabels": { "k8s:io.kubernetes.pod.namespace": "payments" } }] },
        { "toEndpoints": [{ "matchLabels": { "k8s:io.kubernetes.pod.namespace": "kube-system" } }],
          "toPorts": [{ "ports": [{ "port": "53", "protocol": "UDP" }],
                        "rules": { "dns": [{ "matchName": "api.partner.example" }] } }] }] } }"#;

/// How a DNS server answers when it is asked for the addresses of a name.
fn rcode(server: IpAddr, name: &str) -> u8 {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let head = [0x4b, 0x38, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let query: Vec<u8> = head.into_iter().chain(labels).chain([0, 0, 1, 0, 1]).collect();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect((server, 53)).unwrap();
    socket.send(&query).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(length > head.len() && answer[..2] == head[..2], "{answer:?}");
    answer[3] & 15
}

/// `observe` in the network namespace of this file.
pub(crate) fn observe(netns: &Path) -> Command {
    netns::command_in(netns, Path::new(OBSERVER).with_file_name("observe"))
}

#[test]
fn the_daemon_does_its_work_with_the_rights_that_it_is_given() {
    if !can_run("kubernetes: capabilities") {
        return;
    }
    // Without policies the three capabilities are all.
    let values = ["metrics.flows=drop", "config.l7=all", "policy.fromApi=false"];
    let mut deployed = Deployed::new("k8srun", "demo.toml", &values);
    let (daemon, container) = deployed.start("n1");
    for mut traffic in deployed.lab.scenario().traffic.clone() {
        (traffic.count, traffic.interval_ms, traffic.delay_ms) = (Some(1), 0, 0);
        deployed.lab.play(traffic).unwrap();
    }
    deployed.lab.wait_traffic();
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
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" } });
    deployed.cluster.apply(&node.to_string());
    deployed.run_pod("n2", "192.168.50.12");
    late::until("the daemon of another node", || {
        let nodes =
            daemon.call(async |channel| ObserverClient::new(channel).get_nodes(GetNodesRequest {}).await);
        let nodes = nodes.unwrap().into_inner().nodes;
        nodes.iter().any(|node| node.name == "n2" && node.address == "192.168.50.12:4244").then_some(())
    });

    // The node's own network has what probes, Prometheus and a client with a certificate ask for.
    let node = deployed.lab.node_netns("n1");
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
    let dir = tempfile::tempdir().unwrap();
    deployed.write_secret("observer-client-certs", dir.path());
    let mut observe = observe(&node);
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
    let deployed = Deployed::new("k8senf", "demo.toml", &values);
    let (daemon, _) = deployed.start("n1");
    deployed.cluster.apply_file(&project("testdata/policy/sets/payments"));
    deployed.cluster.apply(NAMES);
    late::until("all policies enforced", || {
        let policies = daemon.policies().policies;
        (policies.len() == 4 && policies.iter().all(|policy| policy.mode() == Mode::Enforce)).then_some(())
    });
    let server = deployed.pod("payments-api").ips[0];
    let [frontend, analytics] = ["frontend-app", "analytics-service"].map(|name| deployed.pod_netns(name));
    let ask = |path| inside(&frontend, || get((server, 8080).into(), path).0);
    assert!(ask("/api/v1/charges").starts_with("HTTP/1.1 200"));
    assert!(ask("/api/v1/unknown").starts_with("HTTP/1.1 403"));
    // The proxy answers as the server, from its port.
    let dns = deployed.pod("coredns").ips[0];
    assert_eq!(inside(&frontend, || rcode(dns, "api.partner.example")), 0);
    assert_eq!(inside(&frontend, || rcode(dns, "example.com")), 5);
    let opens = |from: &Path, to: (IpAddr, u16)| {
        let timeout = Duration::from_millis(300);
        let connect = || TcpStream::connect_timeout(&to.into(), timeout).map(drop);
        inside(from, connect).map_err(|error| error.kind())
    };
    assert_eq!(opens(&analytics, (server, 8080)), Err(ErrorKind::TimedOut));
    // The chart's own policy keeps the world from the daemon's ports, and nobody else.
    let node = deployed.lab.scenario().nodes[0].addresses[0];
    let outside = deployed.lab.outside_netns();
    for port in [4244, 9965] {
        assert_eq!(opens(&outside, (node, port)), Err(ErrorKind::TimedOut));
        assert_eq!(opens(&analytics, (node, port)), Ok(()));
    }
    assert_eq!(opens(&outside, (node, 22)), Err(ErrorKind::ConnectionRefused));
    // A firewall rule of the lab's refuses this one.
    assert!(opens(&frontend, (server, 9000)).is_err());
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

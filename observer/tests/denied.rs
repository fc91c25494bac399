//! What is denied is told once a packet, as a verdict and as a drop and by nobody else: by a rule that says so, and because nobody
//! knows the pod and `--unknown-identity` says so.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::flow::{DropReason, Flow, TrafficDirection, Verdict};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};
use support::{Daemon, OBSERVER, Sums, can_run, ends, late::until};

const LAB: &str = r#"
name = "denied"
[outside]
addresses = ["192.168.50.1/24", "fd00:50::1/64"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11", "fd00:50::b"]
[[pods]]
name = "client"
namespace = "web"
node = "n1"
ips = ["10.244.1.10", "fd00:10:244:1::a"]
labels = { app = "client" }
[[pods]]
name = "stranger"
namespace = "web"
node = "n1"
ips = ["10.244.1.11", "fd00:10:244:1::b"]
labels = { app = "stranger" }
[[pods]]
name = "server"
namespace = "shop"
node = "n1"
ips = ["10.244.1.20", "fd00:10:244:1::14"]
labels = { app = "server" }
"#;

const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEntities: [all]}]
  ingressDeny: [{toPorts: [{ports: [{port: '9101', protocol: UDP}]}]}]
";

const ALLOWED: u16 = 9100;
const DENIED: u16 = 9101;
/// Packets to each, each of a connection of its own.
const PACKETS: usize = 20;

/// A daemon that is told of these pods only.
fn daemon(lab: &Lab, known: impl Fn(&str) -> bool, policy: &Path) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    inventory(lab, known, dir.path());
    let mut command = lab.command_in("n1", OBSERVER);
    // Else the pod has the name of its namespace.
    command.args(["--node-name", "n1", "--local-namespaces", "false"]);
    command.args(["--policy-mode", "enforce", "--unknown-identity", "deny"]);
    command.arg("--inventory").arg(dir.path().join("inventory.yaml")).arg("--policy").arg(policy);
    Daemon::spawn(command, dir)
}

fn inventory(lab: &Lab, known: impl Fn(&str) -> bool, dir: &Path) {
    let mut scenario = lab.scenario().clone();
    scenario.pods.retain(|pod| known(&pod.name));
    let text = observer_lab::Inventory::of(&scenario).to_text().unwrap();
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join("inventory.yaml")).unwrap();
}

struct Pod {
    namespace: String,
    ips: Vec<IpAddr>,
}

impl Pod {
    fn of(lab: &Lab, namespace: &str, name: &str) -> Self {
        let pod = lab.scenario().pod(namespace, name).unwrap();
        let file = lab.pod_netns(pod).file_name().unwrap().to_string_lossy().into_owned();
        Self { namespace: file, ips: pod.ips.clone() }
    }

    /// Sends one packet on each of so many new connections, over both families in turn; the ends of each.
    fn send(&self, to: &Self, port: u16, packets: usize) -> Vec<(SocketAddr, SocketAddr)> {
        let send = |packet: usize| {
            let family = packet % 2;
            let socket = UdpSocket::bind((self.ips[family], 0)).unwrap();
            let to = SocketAddr::new(to.ips[family], port);
            socket.send_to(b"one", to).unwrap();
            (socket.local_addr().unwrap(), to)
        };
        netns::inside(&self.namespace, || Ok((0..packets).map(send).collect())).unwrap()
    }

    /// Listens over both families.
    fn listen(&self, port: u16) -> [UdpSocket; 2] {
        let bind = |ip| {
            let socket = UdpSocket::bind((ip, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        netns::inside(&self.namespace, || Ok([bind(self.ips[0]), bind(self.ips[1])])).unwrap()
    }
}

/// From how many a packet came.
fn received(sockets: &[UdpSocket; 2]) -> usize {
    sockets.iter().map(|socket| std::iter::from_fn(|| socket.recv_from(&mut [0; 16]).ok()).count()).sum()
}

#[test]
fn what_is_denied_is_told_once_a_packet() {
    if !can_run("what_is_denied_is_told_once_a_packet") {
        return;
    }
    let lab = Lab::up(&Scenario::parse(LAB, "denied").unwrap(), &unique_prefix("denied")).unwrap();
    let policies = tempfile::tempdir().unwrap();
    let policy = policies.path().join("server.yaml");
    fs::write(&policy, POLICY).unwrap();
    let daemon = daemon(&lab, |name| name != "stranger", &policy);
    let [client, stranger, server] = [("web", "client"), ("web", "stranger"), ("shop", "server")]
        .map(|(namespace, name)| Pod::of(&lab, namespace, name));
    let [allowed, denied] = [ALLOWED, DENIED].map(|port| server.listen(port));

    client.send(&server, ALLOWED, PACKETS);
    until("what is allowed is there", || (received(&allowed) > 0).then_some(()));
    let by_rule = client.send(&server, DENIED, PACKETS);
    let from_stranger = stranger.send(&server, ALLOWED, PACKETS);
    let to_stranger = client.send(&stranger, ALLOWED, PACKETS);
    assert_eq!(received(&denied), 0);
    assert_eq!(received(&allowed), 0, "nobody knows who sent it");

    let wanted = [
        (&by_rule, DropReason::PolicyDeny, TrafficDirection::Ingress, vec!["server"]),
        (&from_stranger, DropReason::PolicyDenied, TrafficDirection::Egress, vec![]),
        (&to_stranger, DropReason::PolicyDenied, TrafficDirection::Ingress, vec![]),
    ];
    let is_drop = |flow: &Flow| flow.event_type.is_some_and(|event| event.r#type == 1);
    daemon.flows_until(|flows| {
        let drops = flows.iter().filter(|flow| is_drop(flow)).count();
        (drops < wanted.len() * PACKETS).then(|| format!("{drops} drops"))
    });
    Sums::of(&daemon.settled()).check();
    let mut told: BTreeMap<_, Vec<Flow>> = BTreeMap::new();
    for flow in daemon.flows() {
        if let Some((_, source, destination)) = ends(&flow) {
            told.entry((source, destination)).or_default().push(flow);
        }
    }
    for (packets, reason, side, by) in wanted {
        for packet in packets {
            // What is sent to a pod that nobody knows leaves its sender first, as what goes to the world does.
            let told: Vec<&Flow> =
                told[packet].iter().filter(|flow| flow.verdict() == Verdict::Dropped).collect();
            let [verdict, drop] = told[..] else { panic!("once each, and by nobody else: {told:#?}") };
            assert_eq!((is_drop(verdict), is_drop(drop)), (false, true), "{told:#?}");
            for flow in told {
                assert_eq!(
                    (flow.verdict(), flow.drop_reason_desc()),
                    (Verdict::Dropped, reason),
                    "{flow:#?}"
                );
                assert_eq!(flow.traffic_direction(), side, "{flow:#?}");
                let sides = [&flow.egress_denied_by, &flow.ingress_denied_by];
                let names = sides[usize::from(side == TrafficDirection::Ingress)];
                assert_eq!(names.iter().map(|policy| &*policy.name).collect::<Vec<_>>(), by, "{flow:#?}");
            }
            assert_eq!(drop.event_type.unwrap().sub_type, reason as i32);
        }
    }

    // Once it is known who it is, what it sends is there.
    inventory(&lab, |_| true, daemon.dir.path());
    until("the pod is known", || {
        stranger.send(&server, ALLOWED, 2);
        (received(&allowed) > 0).then_some(())
    });
    drop(daemon);
    assert!(lab.command_in("n1", OBSERVER).arg("detach").output().unwrap().status.success());
}

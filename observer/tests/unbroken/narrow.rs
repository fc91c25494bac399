//! The MTU of a path is found by ICMP errors, whatever a policy denies.

use crate::{
    ALLOWED, DENIED, file_name,
    support::{Daemon, PATIENCE, can_run, ends, scenario},
    talk::{any_port, datagram, deliver},
};
use observer_lab::{Lab, netns, unique_prefix};
use observer_proto::flow::{DropReason, Flow};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
};

/// What the client may do.
const NARROW: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: narrow, namespace: web}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{ports: [{port: 9100, protocol: TCP}, {port: 9100, protocol: UDP}]}]
";

/// The smallest that IPv6 allows.
const SMALL_MTU: usize = 1_280;

#[test]
fn a_narrow_path_is_found_under_a_policy() {
    if !can_run("a_narrow_path_is_found_under_a_policy") {
        return;
    }
    let mut scenario = scenario("two-nodes.toml");
    scenario.traffic.clear();
    let lab = Lab::up(&scenario, &unique_prefix("narrow")).unwrap();
    // For each of these the far node tells the client how large a packet may be.
    let names = [("shop", "server-2"), ("web", "client-2")];
    let pods = names.map(|(namespace, name)| lab.scenario().pod(namespace, name).unwrap());
    for ip in pods.iter().flat_map(|pod| &pod.ips) {
        let route = format!("route replace {ip} dev br0 mtu {SMALL_MTU}");
        assert!(ip_in(&lab.node_netns("n2"), &route).is_empty());
    }
    let policies = tempfile::tempdir().unwrap();
    let policy = policies.path().join("narrow.yaml");
    fs::write(&policy, NARROW).unwrap();
    let args = ["--policy", policy.to_str().unwrap(), "--policy-mode", "enforce"];
    let daemon = Daemon::start(&lab, "n1", &args);

    let client = lab.pod_netns(lab.scenario().pod("web", "client-1").unwrap());
    let name = file_name(&client);
    let is_known =
        |ip: IpAddr| ip_in(&client, &format!("route get {ip}")).contains(&format!("mtu {SMALL_MTU}"));
    let [tcp, udp] = pods;
    for ip in tcp.ips.iter().copied() {
        assert!(!is_known(ip));
        let listener =
            netns::inside(&file_name(&lab.pod_netns(tcp)), || Ok(TcpListener::bind((ip, ALLOWED)).unwrap()))
                .unwrap();
        let mut here = netns::inside(&name, || Ok(TcpStream::connect((ip, ALLOWED)).unwrap())).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        here.set_write_timeout(Some(PATIENCE)).unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| here.write_all(&vec![7; 256 * 1_024]).unwrap());
            there.read_exact(&mut vec![0; 256 * 1_024]).unwrap();
        });
        assert!(is_known(ip), "TCP {ip}");
    }
    for ip in udp.ips.iter().copied() {
        assert!(!is_known(ip));
        let socket =
            netns::inside(&file_name(&lab.pod_netns(udp)), || Ok(UdpSocket::bind((ip, ALLOWED)).unwrap()))
                .unwrap();
        let here = netns::inside(&name, || Ok(any_port(ip))).unwrap();
        deliver(&datagram(1_400), &socket, |bytes| {
            here.send_to(bytes, (ip, ALLOWED)).unwrap();
        });
        assert!(is_known(ip), "UDP {ip}");
        here.send_to(b"denied", (ip, DENIED)).unwrap();
    }
    // The policy is enforced, and nothing but those two were dropped by it.
    let denied = daemon.flows_until(|flows| (policy_drops(flows).len() < 2).then(|| "denied".to_owned()));
    let ports = policy_drops(&denied)
        .into_iter()
        .map(|flow| ends(flow).map(|(protocol, _, to)| (protocol, to.port())));
    let ports: BTreeSet<_> = ports.collect();
    assert_eq!(ports, BTreeSet::from([Some((17, DENIED))]));
}

fn policy_drops(flows: &[Flow]) -> Vec<&Flow> {
    let is_drop = |flow: &&Flow| flow.event_type.is_some_and(|event| event.r#type == 1);
    let drops = flows.iter().filter(is_drop);
    drops.filter(|flow| flow.drop_reason_desc() == DropReason::PolicyDenied).collect()
}

fn ip_in(namespace: &Path, arguments: &str) -> String {
    let output = netns::command_in(namespace, "ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

use super::*;
use rustix::time::{ClockId, clock_gettime};

const FULL: &str = "
cluster: lab
nodes:
  - {name: n1, addresses: [192.168.0.1, fd00:a::1], labels: {zone: a}}
  - {name: n2, addresses: [192.168.0.2]}
namespaces:
  - {name: web, labels: {team: red}}
pods:
  - name: frontend-7d9f8-x2x4b
    namespace: web
    uid: 8e0f
    node: n1
    ips: [10.0.0.1, fd00::1]
    labels: {app: frontend, pod-template-hash: 7d9f8}
    owner: {kind: ReplicaSet, name: frontend-7d9f8}
    service_account: front
    ports: [{name: http, port: 8080}]
  - {name: agent, node: n2, ips: [192.168.0.2], host_network: true}
  - {name: job, namespace: web, ips: [10.0.0.1], phase: Succeeded}
services:
  - name: frontend
    namespace: web
    cluster_ips: [10.96.0.1]
    ports: [{port: 80, target_port: 8080, node_port: 30080, name: http}, {port: 53, protocol: UDP, target_port: dns}, {port: 9}]
    selector: {app: frontend}
cidr_groups:
  - {name: office, cidrs: [10.1.2.3/16, 1.1.1.1], labels: {kind: site}}
";

fn read(text: &str) -> Result<Snapshot, String> {
    parse(Path::new("inventory.yaml"), text, "n1").map_err(|error| error.to_string())
}

#[test]
fn the_documentation_s_example_is_read() {
    let text = include_str!("../../../docs/inventory.md");
    let (_, example) = text.split_once("```yaml\n").unwrap();
    let got = read(example.split_once("```").unwrap().0).unwrap();
    let Surroundings { nodes, services, cidr_groups, .. } = &got.surroundings;
    assert_eq!((got.pods.len(), nodes.len(), services.len(), cidr_groups.len()), (3, 1, 1, 1));
    assert_eq!(got.pods[0].workloads[0].kind, "Deployment");
    assert!(got.pods[1].local && got.pods[1].host_network && got.pods[2].finished);
}

#[test]
fn a_full_inventory_is_read() {
    let got = read(FULL).unwrap();
    let frontend = Pod {
        uid: "8e0f".into(),
        cluster: "lab".into(),
        namespace: "web".into(),
        name: "frontend-7d9f8-x2x4b".into(),
        ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        local: true,
        labels: [
            "k8s:app=frontend",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web",
            "k8s:io.cilium.k8s.namespace.labels.team=red",
            "k8s:io.cilium.k8s.policy.cluster=lab",
            "k8s:io.cilium.k8s.policy.serviceaccount=front",
            "k8s:io.kubernetes.pod.namespace=web",
        ]
        .map(String::from)
        .to_vec(),
        workloads: vec![Workload { kind: "Deployment".into(), name: "frontend".into() }],
        other_labels: vec!["k8s:pod-template-hash=7d9f8".into()],
        ports: vec![PodPort { name: "http".into(), protocol: 6, port: 8080 }],
        ..Pod::default()
    };
    assert_eq!(got.pods[0], frontend);
    let agent = &got.pods[1];
    assert_eq!((agent.uid.as_str(), agent.local, agent.host_network), ("default/agent", false, true));
    assert!(got.pods[2].finished && got.pods[2].local);
    let ports = &got.surroundings.services[0].ports;
    assert_eq!(ports.iter().map(|port| port.node_port).collect::<Vec<_>>(), [Some(30080), None, None]);
    let targets: Vec<_> = ports.iter().map(|p| (p.port, p.protocol, &p.target)).collect();
    let (eighty, dns, nine) =
        (TargetPort::Number(8080), TargetPort::Name("dns".into()), TargetPort::Number(9));
    assert_eq!(targets, [(80, 6, &eighty), (53, 17, &dns), (9, 6, &nine)]);
    let office = CidrGroup {
        name: "office".into(),
        cidrs: vec!["10.1.0.0/16".parse().unwrap(), "1.1.1.1/32".parse().unwrap()],
        labels: [("kind".to_owned(), "site".to_owned())].into(),
    };
    assert_eq!(got.surroundings.cidr_groups, [office]);
}

#[test]
fn nothing_is_an_inventory_too() {
    for text in ["", "\n", "# none yet\n", "{}", "pods: []"] {
        assert_eq!(read(text), Ok(Snapshot::default()), "{text:?}");
    }
}

#[test]
fn faults_name_line_field_and_what_is_right() {
    let table = include_str!("../../../testdata/inventory/faults.txt");
    let cases: Vec<_> = table.split("\n---\n").filter(|case| !case.trim().is_empty()).collect();
    let mut wrong = Vec::new();
    for case in &cases {
        let (yaml, expected) = case.split_once("\n=> ").unwrap_or((case, ""));
        let got = match read(yaml) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error,
        };
        if got != expected.trim_end() {
            wrong.push(format!("{yaml}\n=> {got}"));
        }
    }
    assert!(wrong.is_empty(), "these differ:\n{}", wrong.join("\n---\n"));
    assert!(cases.len() >= 25, "{}", cases.len());
}

#[test]
fn what_the_file_says_makes_no_second_or_endless_line() {
    for name in ["r\\nts", "r\\e[31m", "r\\u202e"] {
        let error = read(&format!("services: [{{name: x, \"{name}\": 1}}]")).unwrap_err();
        assert!(error.starts_with("inventory.yaml:1:") && !error.contains(char::is_control), "{error:?}");
        assert!(!error.contains('\u{202e}'), "{error:?}");
    }
    let long = read(&format!("pods: [{{name: x, ips: [{}]}}]", "é".repeat(500_000))).unwrap_err();
    assert!(long.chars().count() < 2_100 && long.ends_with('…'), "{} characters", long.chars().count());
}

#[test]
fn bombs_are_refused_at_once() {
    let levels = "abcdefghij".chars().zip("bcdefghijk".chars());
    let level =
        |(from, to): (char, char)| format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(","));
    let bomb = format!("a: &a [x,x,x,x,x,x,x,x,x]\n{}", levels.map(level).collect::<String>());
    let nested = "[".repeat(10_000);
    let merged = format!("pods: {}", "[&a {name: x}, *a".to_owned() + &", *a".repeat(5000) + "]");
    for text in [bomb, nested.clone(), format!("pods: {nested}"), merged, "\0".into(), "pods: \"\\".into()] {
        // Of this thread alone: what else the machine does takes none of it.
        let worked_ms = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec * 1000 + time.tv_nsec / 1_000_000
        };
        let start = worked_ms();
        let error = read(&text).unwrap_err();
        assert!(worked_ms() - start < 500, "{} ms", worked_ms() - start);
        assert!(error.lines().count() == 1 && error.len() < 500, "{error}");
    }
}

#[test]
fn addresses_of_daemons_are_checked() {
    let address = |text: &str| {
        let nodes = read(&format!("cluster: lab\nnodes: [{{name: n1, hubble_address: {text:?}}}]"))?
            .surroundings
            .nodes;
        let peer = nodes[0].peer.clone().unwrap();
        assert_eq!(peer.cluster, "lab");
        Ok(peer.address)
    };
    for (text, expected) in [
        ("10.0.0.3:80", "10.0.0.3:80"),
        ("10.0.0.3", "10.0.0.3:4244"),
        ("fd00::3", "[fd00::3]:4244"),
        ("[fd00::3]:80", "[fd00::3]:80"),
        ("127.0.0.1:4245", "127.0.0.1:4245"),
        ("unix:///run/observer/hubble.sock", "unix:///run/observer/hubble.sock"),
    ] {
        assert_eq!(address(text), Ok(expected.to_owned()), "{text}");
    }
    for text in [
        "",
        "n2",
        "n2:4244",
        "10.0.0.3:0",
        "0.0.0.0:4244",
        "10.0.0.3:70000",
        "unix:///",
        "unix://x",
        "/run/x",
    ] {
        let error: String = address(text).unwrap_err();
        let start =
            format!("inventory.yaml:2:36: nodes[0].hubble_address: {text:?} is no address of a daemon; ");
        assert!(error.starts_with(&start), "{error}");
    }
}

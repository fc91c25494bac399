//! Policies about names, enforced by the daemon in a lab: which may be asked for, and that the first connection to one that
//! was asked for finds its way, by every way to a server.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

#[path = "dns_policy/resolver.rs"]
mod resolver;
mod support;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::{
    control::policy::Mode,
    flow::{Flow, L7FlowType, Verdict, layer7::Record},
};
use resolver::{Asked, ask_tcp, ask_udp};
use std::{
    collections::HashSet,
    fmt::Write as _,
    io::Read as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{Daemon, can_run};

/// In the client's pod and on the other node.
const SERVERS: [[&str; 2]; 2] = [["10.81.0.2", "fd81::2"], ["10.82.0.2", "fd82::2"]];
const SERVICE: [&str; 2] = ["10.96.8.53", "fd96::53"];
/// Where the names lie: the last two bytes are the name's number.
const WORLD: [&str; 2] = ["198.18.0.0/16", "fd98::/64"];
const PORT: u16 = 8080;

const POLICY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-name, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: dns}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*.partner.example"}, {matchName: "once.example"}]}
  - toEntities: [host]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*.partner.example"}]}
  - toFQDNs: [{matchPattern: "*.partner.example"}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
"#;

struct Bed {
    lab: Lab,
    policies: tempfile::TempDir,
    /// What servers were asked.
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Bed {
    fn up(wiring: &str) -> Self {
        let mut text =
            String::from("name = \"names\"\n[outside]\naddresses = [\"192.168.81.1/24\", \"fd80::1/64\"]\n");
        for (node, number) in [("n1", 11), ("n2", 12)] {
            let kind = if node == "n1" { wiring } else { "routed" };
            write!(
                text,
                "[[nodes]]\nname = \"{node}\"\nwiring = \"{kind}\"\naddresses = [\"192.168.81.{number}\", \
                 \"fd80::{number}\"]\n"
            )
            .unwrap();
            if kind == "bridged" {
                text += "gateways = [\"10.81.0.254/24\", \"fd81::fe/64\"]\n";
            }
        }
        let client = ["10.81.0.1", "fd81::1"];
        for (name, app, node, [ipv4, ipv6]) in [
            ("client", "client", "n1", client),
            ("dns", "dns", "n1", SERVERS[0]),
            ("dns-far", "dns", "n2", SERVERS[1]),
        ] {
            write!(
                text,
                "[[pods]]\nname = \"{name}\"\nnamespace = \"shop\"\nnode = \"{node}\"\nips = [\"{ipv4}\", \"{ipv6}\"]\n\
                 labels = {{ app = \"{app}\" }}\n"
            )
            .unwrap();
        }
        let [ipv4, ipv6] = SERVICE;
        write!(
            text,
            "[[services]]\nname = \"dns\"\nnamespace = \"shop\"\ncluster_ips = [\"{ipv4}\", \"{ipv6}\"]\n\
             selector = {{ app = \"dns\" }}\nports = [{{ port = 53, target_port = 53, protocol = \"UDP\" }}, \
             {{ port = 53, target_port = 53 }}]\n"
        )
        .unwrap();
        let scenario = Scenario::parse(&text, "names").unwrap();
        let lab = Lab::up(&scenario, &unique_prefix("names")).unwrap();
        let asked = Arc::default();
        for pod in ["dns", "dns-far"] {
            serve(&lab.pod_netns(lab.scenario().pod("shop", pod).unwrap()), &asked);
        }
        listen_outside(&lab);
        let policies = tempfile::tempdir().unwrap();
        std::fs::write(policies.path().join("by-name.yaml"), POLICY).unwrap();
        Self { lab, policies, asked }
    }

    fn daemon(&self, mode: &str) -> Daemon {
        let folder = self.policies.path().to_str().unwrap();
        let args = ["--policy", folder, "--policy-mode", mode, "--local-namespaces", "false"];
        Daemon::start(&self.lab, "n1", &args)
    }

    /// Works in the client's pod.
    fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.lab.pod_netns(self.lab.scenario().pod("shop", "client").unwrap()), work)
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn inside<T: Send>(file: &Path, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(file.file_name().unwrap().to_str().unwrap(), || Ok(work())).unwrap()
}

/// Answers in a pod by both protocols and families, until the process ends.
fn serve(pod: &Path, asked: &Arc<Mutex<Vec<Asked>>>) {
    let (udp, tcp) = inside(pod, || {
        let any = (Ipv6Addr::UNSPECIFIED, 53);
        (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap())
    });
    let log = Arc::clone(asked);
    std::thread::spawn(move || resolver::serve_udp(&udp, &log));
    let log = Arc::clone(asked);
    std::thread::spawn(move || resolver::serve_tcp(&tcp, &log));
}

/// Takes connections to any address of the world, and says nothing.
fn listen_outside(lab: &Lab) {
    let outside = lab.outside_netns();
    for [family, net] in [["-4", WORLD[0]], ["-6", WORLD[1]]] {
        let mut command = netns::command_in(&outside, "ip");
        assert!(
            command.args([family, "route", "add", "local", net, "dev", "lo"]).status().unwrap().success()
        );
    }
    let listener = inside(&outside, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            open.push(stream);
        }
    });
}

/// Connects by the first packet alone: a second one is sent after a second only.
fn connects(ip: IpAddr) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(ip, PORT), Duration::from_millis(700)).is_ok()
}

/// What a flow tells of DNS: verdict, whether it answers, the name, the addresses.
fn told(flow: &Flow) -> Option<(Verdict, bool, String, usize)> {
    let l7 = flow.l7.as_ref()?;
    let Some(Record::Dns(dns)) = &l7.record else { return None };
    assert_eq!(dns.observation_source, "proxy");
    let is_answer = l7.r#type == L7FlowType::Response as i32;
    Some((flow.verdict(), is_answer, dns.query.clone(), dns.ips.len()))
}

/// Every way to a server: to the pods themselves, on the own node and another one, and through the service.
fn ways() -> Vec<SocketAddr> {
    let all = [SERVERS[0], SERVERS[1], SERVICE];
    all.iter().flatten().map(|ip| SocketAddr::new(ip.parse().unwrap(), 53)).collect()
}

fn names_are_held(wiring: &str) {
    let bed = Bed::up(wiring);
    let daemon = bed.daemon("enforce");
    // Nobody knows it by name yet.
    assert!(!bed.as_client(|| connects("198.18.99.99".parse().unwrap())));
    for server in ways() {
        for ask in [ask_udp, ask_tcp] {
            let (rcode, _) = bed.as_client(|| ask(server, "evil.example", false));
            assert_eq!(rcode, 5, "{server}: not refused");
            assert_eq!(bed.asked(), [], "{server}: the server was asked");
            let (rcode, ips) = bed.as_client(|| ask(server, "once.example", false));
            assert_eq!((rcode, ips.len()), (0, 1), "{server}");
            let asked = bed.asked();
            assert_eq!(asked.len(), 1, "{server}");
            assert_eq!(asked[0].name, "once.example");
            assert_eq!(asked[0].client.is_ipv6(), server.is_ipv6(), "{server}: asked by {}", asked[0].client);
        }
    }
    // It may be asked for, but policies don't allow it.
    assert!(!bed.as_client(|| connects("198.18.255.255".parse().unwrap())));
    for (number, server) in (0_u16..200).zip(ways().into_iter().cycle()) {
        let ask = if number % 3 == 0 { ask_tcp } else { ask_udp };
        let connected = bed.as_client(|| {
            let (rcode, ips) = ask(server, &format!("n{number}.partner.example"), number % 2 == 1);
            assert_eq!((rcode, ips.len()), (0, 1), "{number}: {server}");
            (connects(ips[0]), ips[0])
        });
        assert!(connected.0, "{number}: {server}: lost the race to {}", connected.1);
    }
    let flows = daemon.flows_until(|flows| {
        let told: HashSet<_> = flows.iter().filter_map(told).collect();
        let wanted = [
            (Verdict::Dropped, false, "evil.example.".to_owned(), 0),
            (Verdict::Forwarded, false, "once.example.".to_owned(), 0),
            (Verdict::Forwarded, true, "once.example.".to_owned(), 1),
            (Verdict::Forwarded, true, "n199.partner.example.".to_owned(), 1),
        ];
        let missing: Vec<_> = wanted.iter().filter(|wanted| !told.contains(*wanted)).collect();
        (!missing.is_empty()).then(|| format!("{missing:?}"))
    });
    let denied = flows.iter().find(|flow| told(flow).is_some_and(|told| told.0 == Verdict::Dropped));
    let denied = denied.unwrap();
    assert_eq!(denied.egress_denied_by[0].name, "by-name", "{denied:?}");
    assert_eq!(denied.source.as_ref().unwrap().pod_name, "client");
    let is_redirected = |flow: &&Flow| {
        flow.verdict() == Verdict::Redirected
            && flow.l4.as_ref().is_some_and(|l4| format!("{l4:?}").contains("Udp"))
    };
    assert!(flows.iter().any(|flow| is_redirected(&flow)), "no verdict REDIRECTED");
    let counters = daemon.capture_status().counters;
    let late =
        counters.iter().find(|counter| counter.cause == "DNS answers: not held until policies had them");
    assert_eq!(late.unwrap().value, 0);
}

#[test]
fn the_first_connection_to_a_name_finds_its_way_routed() {
    if can_run("dns_policy") {
        names_are_held("routed");
    }
}

#[test]
fn the_first_connection_to_a_name_finds_its_way_bridged() {
    if can_run("dns_policy") {
        names_are_held("bridged");
    }
}

/// As caches of DNS on nodes do it: the server has the address and the port that the proxy answers from.
#[test]
fn a_server_of_the_node_itself_is_asked_and_answered_for() {
    if !can_run("dns_policy") {
        return;
    }
    let bed = Bed::up("routed");
    serve(&bed.lab.node_netns("n1"), &bed.asked);
    let _daemon = bed.daemon("enforce");
    for (number, ip) in ["192.168.81.11", "fd80::11"].into_iter().enumerate() {
        let server = SocketAddr::new(ip.parse().unwrap(), 53);
        for (part, ask) in [ask_udp, ask_tcp].into_iter().enumerate() {
            assert_eq!(bed.as_client(|| ask(server, "once.example", false)).0, 5, "{server}");
            assert_eq!(bed.asked(), []);
            let name = format!("n{}.partner.example", 2 * number + part);
            let connected = bed.as_client(|| {
                let (rcode, ips) = ask(server, &name, false);
                assert_eq!(rcode, 0, "{server}");
                connects(ips[0])
            });
            assert!(connected, "{server}: {name}");
            assert_eq!(bed.asked().len(), 1);
        }
    }
}

#[test]
fn in_mode_audit_every_name_is_answered_and_told() {
    if !can_run("dns_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon("audit");
    let server = ways()[0];
    for ask in [ask_udp, ask_tcp] {
        let (rcode, ips) = bed.as_client(|| ask(server, "evil.example", false));
        assert_eq!((rcode, ips.len(), bed.asked().len()), (0, 1, 1));
    }
    daemon.flows_until(|flows| {
        let audited =
            flows.iter().filter_map(told).filter(|told| told.0 == Verdict::Audit && !told.1).count();
        (audited != 2).then(|| format!("{audited} audited"))
    });
}

#[test]
fn without_a_daemon_no_query_passes_and_with_the_next_one_they_do() {
    if !can_run("dns_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let server = ways()[0];
    let daemon = bed.daemon("enforce");
    assert_eq!(bed.as_client(|| ask_udp(server, "once.example", false)).0, 0);
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    bed.asked();
    let answer = bed.as_client(|| resolver::try_udp(server, "once.example", Duration::from_millis(500)));
    assert_eq!((answer, bed.asked()), (None, vec![]));
    // A server that doesn't answer, and one that isn't there.
    let daemon = bed.daemon("enforce");
    assert_eq!(bed.as_client(|| ask_udp(server, "once.example", false)).0, 0);
    let mut stream = bed.as_client(|| TcpStream::connect(server).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::io::Write::write_all(&mut stream, &[0xff, 0xff, 0]).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0, "a query without end was waited for");
    drop(daemon);
}

#[test]
fn no_query_is_lost_while_policies_change() {
    if !can_run("dns_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon("audit");
    let ended = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let ask = |server: SocketAddr| {
            bed.as_client(|| {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(ask_udp(server, "once.example", false).0, 0);
                    count += 1;
                }
                count
            })
        };
        let asking: Vec<_> = ways().into_iter().map(|server| scope.spawn(move || ask(server))).collect();
        for _ in 0..10 {
            for mode in [Mode::Enforce, Mode::Audit] {
                daemon.set_mode("shop", "by-name", mode);
            }
        }
        ended.store(true, Ordering::Relaxed);
        asking.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert!(asked > 100, "{asked}");
}

#[test]
fn who_keeps_a_port_is_not_let_by_once_that_is_enforced() {
    if !can_run("dns_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon("audit");
    let socket = bed.as_client(|| resolver::udp_to(ways()[0]));
    let ask = |patience_ms| {
        let patience = Duration::from_millis(patience_ms);
        resolver::ask_by(&socket, "once.example", false, patience).map(|(rcode, _)| rcode)
    };
    assert_eq!(ask(5_000), Some(0));
    daemon.set_mode("shop", "by-name", Mode::Enforce);
    assert_eq!(ask(5_000), Some(0));
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    bed.asked();
    assert_eq!((ask(500), bed.asked()), (None, vec![]));
}

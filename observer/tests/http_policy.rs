//! Policies about requests of HTTP, enforced by the daemon in a lab, with real curl: who may ask what, by every way there.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod support;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::flow::{Flow, Verdict, layer7::Record};
use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
};
use support::{Daemon, can_run};

const PORT: u16 = 8080;
const SERVER: [&str; 2] = ["10.71.0.9", "fd71::9"];
const SERVICE: [&str; 2] = ["10.96.7.1", "fd96::71"];
const CLIENTS: [&str; 4] = ["frontend-app", "analytics-service", "finance-tool", "tenant"];

/// Who may ask what; everything else is denied, and the tenant everything before it is asked.
const POLICY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: payments, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: payments}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend-app}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: "GET|POST", path: /api/v1/charges}]}
  - fromEndpoints: [{matchLabels: {app: analytics-service}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: /api/v1/charges}]}
  - fromEndpoints: [{matchLabels: {app: finance-tool}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: POST, path: /api/v1/refunds}]}
"#;

struct Bed {
    lab: Lab,
    policies: tempfile::TempDir,
    /// What the server was asked: the client's address, the method and the target.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    fn up(wiring: &str) -> Self {
        let mut text = String::from(
            "name = \"payments\"\n[outside]\naddresses = [\"192.168.71.1/24\", \"fd70::1/64\"]\n",
        );
        for (node, number) in [("n1", 11), ("n2", 12)] {
            let kind = if node == "n1" { wiring } else { "routed" };
            write!(
                text,
                "[[nodes]]\nname = \"{node}\"\nwiring = \"{kind}\"\naddresses = [\"192.168.71.{number}\", \
                 \"fd70::{number}\"]\n"
            )
            .unwrap();
            if kind == "bridged" {
                text += "gateways = [\"10.71.0.254/24\", \"fd71::fe/64\"]\n";
            }
        }
        let mut pod = |name: &str, node: &str, ips: [String; 2]| {
            let app = name.trim_end_matches("-far");
            let [ipv4, ipv6] = ips;
            write!(
                text,
                "[[pods]]\nname = \"{name}\"\nnamespace = \"shop\"\nnode = \"{node}\"\nips = [\"{ipv4}\", \
                 \"{ipv6}\"]\nlabels = {{ app = \"{app}\" }}\n"
            )
            .unwrap();
        };
        for (number, name) in CLIENTS.iter().enumerate() {
            pod(name, "n1", [format!("10.71.0.{}", number + 1), format!("fd71::{}", number + 1)]);
            pod(
                &format!("{name}-far"),
                "n2",
                [format!("10.72.0.{}", number + 1), format!("fd72::{}", number + 1)],
            );
        }
        pod("payments", "n1", SERVER.map(str::to_owned));
        let [ipv4, ipv6] = SERVICE;
        write!(
            text,
            "[[services]]\nname = \"payments\"\nnamespace = \"shop\"\ncluster_ips = [\"{ipv4}\", \"{ipv6}\"]\n\
             selector = {{ app = \"payments\" }}\nports = [{{ port = 80, target_port = {PORT} }}]\n"
        )
        .unwrap();
        let scenario = Scenario::parse(&text, "payments").unwrap();
        let lab = Lab::up(&scenario, &unique_prefix("payments")).unwrap();
        let asked = Arc::default();
        serve(&lab, &asked);
        let policies = tempfile::tempdir().unwrap();
        std::fs::write(policies.path().join("payments.yaml"), POLICY).unwrap();
        Self { lab, policies, asked }
    }

    fn daemon(&self, more: &[&str]) -> Daemon {
        self.daemon_in("enforce", more)
    }

    fn daemon_in(&self, mode: &str, more: &[&str]) -> Daemon {
        let folder = self.policies.path().to_str().unwrap();
        let args = ["--policy", folder, "--policy-mode", mode, "--local-namespaces", "false"];
        Daemon::start(&self.lab, "n1", &[&args, more].concat())
    }

    fn pod(&self, name: &str) -> PathBuf {
        self.lab.pod_netns(self.lab.scenario().pod("shop", name).unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Asks from all clients by all ways, and holds what comes of it against what may.
    fn play(&self, far: &str) {
        for client in CLIENTS {
            let from = self.pod(&format!("{client}{far}"));
            for (method, path) in
                [("GET", "charges"), ("POST", "charges"), ("POST", "refunds"), ("DELETE", "charges")]
            {
                // What is dropped is waited for.
                if client == "tenant" && method != "GET" {
                    continue;
                }
                for family in 0..2 {
                    for (address, port) in [(SERVER[family], PORT), (SERVICE[family], 80)] {
                        // A service is known on its own node only where the lab has rules for it, which is everywhere.
                        let what = format!("{client}{far} {method} {path} to {address}");
                        let output = curl(&from, method, address, port, &format!("/api/v1/{path}"));
                        let status = String::from_utf8_lossy(&output.stdout).into_owned();
                        let allowed = matches!(
                            (client, method, path),
                            ("frontend-app", "GET" | "POST", "charges")
                                | ("analytics-service", "GET", "charges")
                                | ("finance-tool", "POST", "refunds")
                        );
                        match (client, allowed) {
                            // 28: its packets are dropped.
                            ("tenant", _) => assert_eq!(output.status.code(), Some(28), "{what}: {output:?}"),
                            (_, true) => assert_eq!(status, "200", "{what}: {output:?}"),
                            (_, false) => assert_eq!(status, "403", "{what}: {output:?}"),
                        }
                        let asked = self.asked();
                        assert_eq!(
                            asked.len(),
                            usize::from(allowed && client != "tenant"),
                            "{what}: {asked:?}"
                        );
                    }
                }
            }
        }
    }
}

/// The status that curl is answered with; a tenant is not waited for long.
fn curl(from: &Path, method: &str, address: &str, port: u16, path: &str) -> Output {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    netns::command_in(from, "curl")
        .args(["-sSg", "--noproxy", "*", "-m", "30", "--connect-timeout", "0.3", "-o", "/dev/null"])
        .args(["-w", "%{http_code}", "-X", method])
        .arg(format!("http://{host}:{port}{path}"))
        .output()
        .unwrap()
}

/// Answers everything, and keeps what it was asked.
fn serve(lab: &Lab, asked: &Arc<Mutex<Vec<String>>>) {
    let pod = lab.scenario().pod("shop", "payments").unwrap();
    let name = lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned();
    let listener =
        netns::inside(&name, || Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap())).unwrap();
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || answer(&stream, &asked));
        }
    });
}

fn answer(stream: &TcpStream, asked: &Mutex<Vec<String>>) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let _ = reader.read_exact(&mut body);
        let line = head.lines().next().unwrap_or_default();
        asked.lock().unwrap().push(format!("{} {line}", peer.ip().to_canonical()));
        let mut stream = stream;
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// What a flow tells of a request.
fn told(flow: &Flow) -> Option<(i32, u32, String, String)> {
    let Some(Record::Http(http)) = &flow.l7.as_ref()?.record else { return None };
    Some((flow.verdict, http.code, http.method.clone(), http.url.clone()))
}

#[test]
fn who_may_ask_what_is_held_by_every_way() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon(&[]);
    bed.play("");
    bed.play("-far");
    // What was told of it.
    let flows = daemon.flows_until(|flows| {
        let has = |verdict: Verdict, method: &str| {
            flows.iter().filter_map(told).any(|(found, _, of, url)| {
                found == verdict as i32 && of == method && url.ends_with("/api/v1/charges")
            })
        };
        let all = has(Verdict::Forwarded, "GET") && has(Verdict::Dropped, "DELETE");
        (!all).then(|| format!("{:?}", flows.iter().filter_map(told).take(5).collect::<Vec<_>>()))
    });
    let denied = flows.iter().find(|flow| {
        told(flow)
            .is_some_and(|(verdict, _, method, _)| verdict == Verdict::Dropped as i32 && method == "DELETE")
    });
    let denied = denied.unwrap();
    assert_eq!(denied.ingress_denied_by[0].name, "payments", "{denied:?}");
    assert_eq!(denied.source.as_ref().unwrap().namespace, "shop");
    let answered =
        flows.iter().filter_map(told).any(|(_, code, method, _)| code == 403 && method == "DELETE");
    assert!(answered);
    assert!(flows.iter().any(|flow| flow.verdict == Verdict::Redirected as i32), "no verdict REDIRECTED");
}

#[test]
fn bridged_pods_are_held_to_it_too() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("bridged");
    let _daemon = bed.daemon(&[]);
    bed.play("");
}

#[test]
fn without_a_daemon_nothing_passes_unjudged_unless_that_was_said() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let client = bed.pod("frontend-app");
    let status = || {
        let output = curl(&client, "GET", SERVER[0], PORT, "/api/v1/charges");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let daemon = bed.daemon(&[]);
    assert_eq!(status(), "200");
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    assert_eq!(status(), "000", "it passed though nobody judged it");
    let daemon = bed.daemon(&["--l7-on-failure", "allow"]);
    assert_eq!(status(), "200");
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    assert_eq!(status(), "200");
    // A connection that was open before, unproxied, ends with the next daemon.
    let mut open = netns::inside(client.file_name().unwrap().to_str().unwrap(), || {
        Ok(TcpStream::connect((SERVER[0], PORT)).unwrap())
    })
    .unwrap();
    let daemon = bed.daemon(&[]);
    let _ = open.write_all(b"GET /api/v1/refunds HTTP/1.1\r\nHost: h\r\n\r\n");
    open.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let read = open.read(&mut [0; 100]);
    assert!(read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "{read:?}");
    assert_eq!(status(), "200");
    daemon.stop();
    let output = bed.lab.command_in("n1", support::OBSERVER).arg("detach").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rules = bed.lab.command_in("n1", "ip").args(["rule", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&rules.stdout).contains("fwmark"), "{rules:?}");
}

#[test]
fn in_mode_audit_all_requests_pass_and_those_that_would_not_are_told() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let client = bed.pod("frontend-app");
    // Open before there are policies: it stays as it is, and nobody judges it.
    let mut open = netns::inside(client.file_name().unwrap().to_str().unwrap(), || {
        Ok(TcpStream::connect((SERVER[0], PORT)).unwrap())
    })
    .unwrap();
    let daemon = bed.daemon_in("audit", &[]);
    open.write_all(b"DELETE /open HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    open.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert!(open.read(&mut [0; 100]).unwrap() > 0);
    assert_eq!(bed.asked(), ["10.71.0.1 DELETE /open HTTP/1.1"]);
    for family in 0..2 {
        for (address, port) in [(SERVER[family], PORT), (SERVICE[family], 80)] {
            for (method, path) in [("GET", "charges"), ("DELETE", "charges")] {
                let output = curl(&client, method, address, port, &format!("/api/v1/{path}"));
                assert_eq!(
                    String::from_utf8_lossy(&output.stdout),
                    "200",
                    "{method} to {address}: {output:?}"
                );
                assert_eq!(bed.asked().len(), 1);
            }
        }
    }
    // Whom no rule allows anything is denied at the connection, and passes as well.
    let output = curl(&bed.pod("tenant"), "GET", SERVER[0], PORT, "/api/v1/charges");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
    let flows = daemon.flows_until(|flows| {
        let of = |wanted: Verdict, method: &str| {
            let told = flows.iter().filter_map(told);
            told.filter(|(verdict, code, of, _)| *verdict == wanted as i32 && *code == 0 && of == method)
                .count()
        };
        let found = (of(Verdict::Forwarded, "GET"), of(Verdict::Audit, "DELETE"));
        (found != (4, 4)).then(|| format!("{found:?}"))
    });
    assert!(flows.iter().any(|flow| flow.verdict == Verdict::Redirected as i32), "no verdict REDIRECTED");
    let is_audit = |flow: &&Flow| told(flow).is_some_and(|(verdict, ..)| verdict == Verdict::Audit as i32);
    let audited = flows.iter().find(is_audit).unwrap();
    assert_eq!(audited.ingress_denied_by[0].name, "payments", "{audited:?}");
    // A daemon that dies takes the programs with it: what it judged ends, what is new passes.
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    let output = curl(&client, "GET", SERVER[0], PORT, "/api/v1/charges");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
}

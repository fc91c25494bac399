//! Payments in a lab: who may ask them what, from where, and what they say that they were asked.

use crate::support::Daemon;
use observer_lab::{Lab, Scenario, netns, unique_prefix};
use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How much a server writes at once.
const PART: usize = 16_000;
/// How long a server stalls that was asked to; nobody waits for its end.
const STALLED: Duration = Duration::from_mins(1);
pub(crate) const PORT: u16 = 8080;
pub(crate) const SERVER: [&str; 2] = ["10.71.0.9", "fd71::9"];
pub(crate) const SERVICE: [&str; 2] = ["10.96.7.1", "fd96::71"];
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

pub(crate) struct Bed {
    pub(crate) lab: Lab,
    policies: tempfile::TempDir,
    /// What the server was asked: the client's address, the method and the target.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    pub(crate) fn up(wiring: &str) -> Self {
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

    pub(crate) fn daemon(&self, more: &[&str]) -> Daemon {
        self.daemon_in("enforce", more)
    }

    pub(crate) fn daemon_in(&self, mode: &str, others: &[&str]) -> Daemon {
        let folder = self.policies.path().to_str().unwrap();
        let args = ["--policy", folder, "--policy-mode", mode, "--local-namespaces", "false"];
        Daemon::start(&self.lab, "n1", &[&args, others].concat())
    }

    pub(crate) fn pod(&self, name: &str) -> PathBuf {
        self.lab.pod_netns(self.lab.scenario().pod("shop", name).unwrap())
    }

    /// A connection of a pod, which asks nothing yet.
    pub(crate) fn open(&self, pod: &str, server: &str) -> TcpStream {
        let pod = self.pod(pod);
        let connect = || Ok(TcpStream::connect((server, PORT)).unwrap());
        netns::inside(pod.file_name().unwrap().to_str().unwrap(), connect).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Asks from all clients by all ways, and holds what comes of it against what may.
    pub(crate) fn play(&self, far: &str) {
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
pub(crate) fn curl(from: &Path, method: &str, address: &str, port: u16, path: &str) -> Output {
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
        let field = |name: &str| {
            head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
        };
        let number = |name: &str| field(name).and_then(|value| value.parse().ok()).unwrap_or(0_u64);
        let line = head.lines().next().unwrap_or_default();
        asked.lock().unwrap().push(format!("{} {line}", peer.ip().to_canonical()));
        let told = field("x-do: ").unwrap_or_default();
        if told == "stall" {
            // Until the client goes away, and nothing of the body is read.
            std::thread::sleep(STALLED);
        }
        if told == "reset" {
            return reset(stream);
        }
        let length = number("content-length: ");
        if std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap_or(0) < length {
            return;
        }
        let size = number("x-size: ");
        let (size, body) = if size == 0 { (2, &b"ok"[..]) } else { (size, &[b'a'; PART][..]) };
        let mut stream = stream;
        if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").is_err() {
            return;
        }
        let mut left = size;
        while left > 0 {
            let part = &body[..body.len().min(left as usize)];
            if stream.write_all(part).is_err() {
                return;
            }
            left -= part.len() as u64;
            if told == "break" {
                return reset(stream);
            }
        }
    }
}

/// Ends a connection by a reset.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}

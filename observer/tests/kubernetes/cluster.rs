//! A real Kubernetes API for the nodes of a lab: etcd and kube-apiserver in a network namespace of their own, which hangs
//! on the lab's network outside as a node does. Nobody else is there: no scheduler, no kubelet, no controller, so an object
//! is what a test made it, status included.

use crate::support::{PATIENCE, late};
use observer_lab::{Lab, Namespaces, links::wait_ready, netns, unique_prefix};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// In a namespace of its own: no other server can have it.
const PORT: u16 = 6443;
const ADMIN_TOKEN: &str = "admin";

/// A program that `scripts/setup-kubernetes` builds.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/kubernetes").join(name);
    assert!(path.exists(), "{} is missing: make test-kubernetes builds it", path.display());
    path
}

/// A file or folder of `testdata/kubernetes`.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kubernetes").join(name)
}

/// A Kubernetes API that runs; it ends with this value.
pub(crate) struct Cluster {
    server: Option<Child>,
    etcd: Child,
    address: SocketAddr,
    netns: PathBuf,
    dir: TempDir,
    // The last: its processes have ended by then.
    _namespaces: Namespaces,
}

impl Cluster {
    /// Starts one on the network outside of the lab's nodes, and waits until it answers. There is nothing in it but what
    /// the server makes itself.
    pub(crate) fn start(lab: &Lab) -> Self {
        let name = unique_prefix("control");
        let namespaces = Namespaces::make(&name, &[&name]).unwrap();
        let ip = plug_in(lab, &name);
        let dir = tempfile::tempdir().unwrap();
        let (address, netns) = (SocketAddr::new(ip, PORT), netns::path(&name));
        write_secrets(dir.path(), ip);
        let etcd = start_etcd(&netns, dir.path());
        let mut cluster = Self { server: None, etcd, address, netns, dir, _namespaces: namespaces };
        std::fs::write(cluster.admin(), cluster.kubeconfig_with(&json!({ "token": ADMIN_TOKEN }))).unwrap();
        cluster.start_server();
        cluster
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's certificate authority, PEM.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The kubeconfig of one who may do all.
    pub(crate) fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// A kubeconfig of a service account, which must be there. Its token is in a file beside it, see [`Cluster::renew`].
    pub(crate) fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.renew(namespace, account);
        let file = token.with_extension("kubeconfig");
        std::fs::write(&file, self.kubeconfig_with(&json!({ "tokenFile": token }))).unwrap();
        file
    }

    /// Writes a new token of a service account into the file where its kubeconfig has it, as a kubelet does: at once, by a
    /// rename. The old one holds on. Returns the file.
    pub(crate) fn renew(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", account, "-n", namespace, "--duration=1h"]);
        let file = self.dir.path().join(format!("{namespace}.{account}.token"));
        let new = file.with_extension("new");
        std::fs::write(&new, token.trim()).unwrap();
        std::fs::rename(new, &file).unwrap();
        file
    }

    /// A service account as a pod has it: a folder with its token, the server's authority and its namespace.
    pub(crate) fn account(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.renew(namespace, account);
        let folder = token.with_extension("account");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(token, folder.join("token")).unwrap();
        std::fs::copy(self.ca(), folder.join("ca.crt")).unwrap();
        std::fs::write(folder.join("namespace"), namespace).unwrap();
        folder
    }

    fn kubeconfig_with(&self, user: &serde_json::Value) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "lab",
                "cluster": { "server": format!("https://{}", self.address), "certificate-authority": self.ca() },
            }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" } }],
            "current-context": "lab",
        })
        .to_string()
    }

    /// What kubectl says as admin. Panics where it fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    /// The same, with this on stdin.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_as(&self.admin(), arguments, input);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl by a kubeconfig, whatever comes of it.
    pub(crate) fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Output {
        self.run("kubectl", kubeconfig, arguments, input)
    }

    /// Runs helm as admin, whatever comes of it.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Output {
        self.run("helm", &self.admin(), arguments, "")
    }

    fn run(&self, tool: &str, kubeconfig: &Path, arguments: &[&str], input: &str) -> Output {
        let mut command = netns::command_in(&self.netns, program(tool));
        command.args(arguments).env_clear().env("HOME", self.dir.path()).env("KUBECONFIG", kubeconfig);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // It may end without reading all.
            scope.spawn(move || _ = stdin.write_all(input.as_bytes()));
            child.wait_with_output().unwrap()
        })
    }

    /// Applies these documents, YAML or JSON.
    pub(crate) fn apply(&self, documents: &str) {
        self.kubectl_with(&["apply", "--server-side", "-f", "-"], documents);
    }

    /// Applies a file, or all files of a folder.
    pub(crate) fn apply_file(&self, path: &Path) {
        self.kubectl(&["apply", "--server-side", "-f", path.to_str().unwrap()]);
    }

    /// Deletes what these documents name, at once: there is no kubelet that would end a pod.
    pub(crate) fn delete(&self, documents: &str) {
        self.kubectl_with(&["delete", "--force", "--grace-period=0", "-f", "-"], documents);
    }

    /// Installs Cilium's resources and waits until they are served.
    pub(crate) fn install_crds(&self) {
        self.apply_file(&testdata("crds"));
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    }

    /// Starts the server, which was killed or never there, and waits until it answers.
    pub(crate) fn start_server(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let ip = self.address.ip();
        let mut command = netns::command_in(&self.netns, program("kube-apiserver"));
        command.args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={ip}"),
            format!("--advertise-address={ip}"),
            format!("--secure-port={PORT}"),
            format!("--cert-dir={}", file("certs")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/108".to_owned(),
            format!("--service-account-issuer=https://{}", self.address),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes the service accounts, classes and priorities that these ask for.
            "--disable-admission-plugins=ServiceAccount,DefaultStorageClass,TaintNodesByCondition,Priority"
                .to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ]);
        self.server = Some(spawn(command, &self.dir.path().join("kube-apiserver.log")));
        let ready = || {
            let raw = self.kubectl_as(&self.admin(), &["get", "--raw=/readyz"], "").status.success();
            // Made in the background, later than the server calls itself ready.
            raw && self.kubectl_as(&self.admin(), &["get", "namespace", "default"], "").status.success()
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while !ready() {
            let log = || std::fs::read_to_string(self.dir.path().join("kube-apiserver.log")).unwrap();
            assert!(std::time::Instant::now() < deadline, "the API server is not ready:\n{}", log());
        }
    }

    /// The server is gone without a word; etcd keeps what it knew.
    pub(crate) fn kill_server(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// The server takes connections and answers nothing, until [`Cluster::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// The server goes on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.server.as_ref().unwrap()), signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Gives a namespace a link on the bridge outside, with the last address there is. Returns that.
fn plug_in(lab: &Lab, name: &str) -> IpAddr {
    let scenario = lab.scenario();
    let range = scenario.outside.addresses.iter().find(|range| range.addr().is_ipv4()).unwrap();
    let ip = range.hosts().last().unwrap();
    assert!(!scenario.nodes.iter().any(|node| node.addresses.contains(&ip)), "{ip} is a node's");
    late::ip_tool(
        &format!("-n {} -batch -", lab.outside_netns().file_name().unwrap().display()),
        &format!("link add api type veth peer name eth0 netns {name}\nlink set api master br0 up\n"),
    );
    late::ip_tool(
        &format!("-n {name} -batch -"),
        &format!(
            "link set lo up\nlink set eth0 up\naddr add {ip}/{} dev eth0\nroute add default via {}\n",
            range.prefix_len(),
            range.addr()
        ),
    );
    wait_ready(name).unwrap();
    ip
}

/// The server's certificate, the keys of service accounts' tokens, and who the first user is.
fn write_secrets(dir: &Path, ip: IpAddr) {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([ip.to_string()]).unwrap().self_signed(&key).unwrap();
    // What it signs itself with is its own authority.
    write("ca.crt", &certificate.pem());
    write("server.crt", &certificate.pem());
    write("server.key", &key.serialize_pem());
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    write("tokens.csv", &format!("{ADMIN_TOKEN},admin,1,\"system:masters\"\n"));
}

fn start_etcd(netns: &Path, dir: &Path) -> Child {
    let mut command = netns::command_in(netns, program("etcd"));
    // Nothing of it outlives the test.
    command.arg("--data-dir").arg(dir.join("etcd")).arg("--unsafe-no-fsync");
    spawn(command, &dir.join("etcd.log"))
}

/// Starts a program with its output in a file.
fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.env_clear().stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

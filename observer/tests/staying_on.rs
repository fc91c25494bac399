//! Enforcement does not end with the daemon: not when it is killed, not when it is stopped, and not while the next one starts.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use aya::programs::{SchedClassifier, TcAttachType};
use observer_lab::{Lab, netns, unique_prefix};
use observer_proto::control::{
    Policy,
    policy::{Mode, SetBy},
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Instant,
};
use support::{Daemon, OBSERVER, PATIENCE, can_run, late::until, scenario};
use tempfile::TempDir;

/// The server takes port 9100 and nothing else.
const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-9100, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{ports: [{port: 9100, protocol: TCP}, {port: 9100, protocol: UDP}]}]
";

/// What daemons keep of a node; the lab removes it, whatever becomes of the test.
fn kept(lab: &Lab) -> PathBuf {
    let inode = fs::metadata(lab.node_netns("n1")).unwrap().ino();
    Path::new("/sys/fs/bpf/observer").join(inode.to_string())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Programs on the two hooks of the node's links.
fn programs(lab: &Lab) -> usize {
    let count = |link: &str, hook| SchedClassifier::query_tcx(link, hook).unwrap().1.len();
    netns::inside(&file_name(&lab.node_netns("n1")), || {
        let both = |link: &str| count(link, TcAttachType::Ingress) + count(link, TcAttachType::Egress);
        Ok(["veth0", "veth1", "eth0"].into_iter().map(both).sum())
    })
    .unwrap()
}

/// The client and the server, and what they say to each other.
struct Talk {
    client: String,
    ip: IpAddr,
    allowed: UdpSocket,
    denied: UdpSocket,
    open: [TcpStream; 2],
}

impl Talk {
    fn new(lab: &Lab) -> Self {
        let pod = |namespace, name| lab.scenario().pod(namespace, name).unwrap();
        let (client, server) = (pod("web", "client"), pod("shop", "server"));
        let ip = server.ips[0];
        let names = [client, server].map(|pod| file_name(&lab.pod_netns(pod)));
        let (allowed, denied, listener) = netns::inside(&names[1], || {
            let socket = |port| UdpSocket::bind((ip, port)).unwrap();
            Ok((socket(9100), socket(9101), TcpListener::bind((ip, 9100)).unwrap()))
        })
        .unwrap();
        allowed.set_read_timeout(Some(PATIENCE)).unwrap();
        denied.set_nonblocking(true).unwrap();
        let here = netns::inside(&names[0], || Ok(TcpStream::connect((ip, 9100)).unwrap())).unwrap();
        let open = [here, listener.accept().unwrap().0];
        for end in &open {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let [client, _] = names;
        Self { client, ip, allowed, denied, open }
    }

    /// Whether what the policy denies passes. What it allows does, behind the other on the same way, and the connection
    /// that was open before goes on.
    fn denied_passes(&self) -> bool {
        netns::inside(&self.client, || {
            let sender = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            for port in [9101, 9100] {
                sender.send_to(b"hello", (self.ip, port)).unwrap();
            }
            Ok(())
        })
        .unwrap();
        let mut buffer = [0; 16];
        self.allowed.recv(&mut buffer).unwrap();
        let [here, there] = &self.open;
        for (mut from, mut to) in [(here, there), (there, here)] {
            from.write_all(b"still there").unwrap();
            to.read_exact(&mut [0; 11]).unwrap();
        }
        match self.denied.recv(&mut buffer) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }
}

fn start(lab: &Lab, dir: TempDir) -> Daemon {
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "n1", "--inventory"]).arg(dir.path().join("inventory.yaml"));
    command.arg("--policy").arg(dir.path().join("policy.yaml"));
    Daemon::spawn(command, dir)
}

fn only_policy(policies: &[Policy]) -> (Mode, SetBy) {
    let [policy] = policies else { panic!("{policies:?}") };
    assert_eq!(policy.warnings, []);
    (policy.mode(), policy.mode_set_by())
}

fn detach(lab: &Lab) -> Output {
    lab.command_in("n1", OBSERVER).arg("detach").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn enforcement_outlives_the_daemon_until_it_is_taken_back() {
    if !can_run("enforcement_outlives_the_daemon_until_it_is_taken_back") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("staying")).unwrap();
    let kept = kept(&lab);
    let dir = tempfile::tempdir().unwrap();
    lab.write_inventory(&dir.path().join("inventory.yaml")).unwrap();
    fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    let daemon = start(&lab, dir);
    let talk = Talk::new(&lab);
    assert!(talk.denied_passes(), "in mode audit nothing is dropped");
    assert!(!kept.exists(), "and nothing stays");

    let asked = Instant::now();
    let set = daemon.set_mode("shop", "only-9100", Mode::Enforce);
    eprintln!("enforced after {:.1?}", asked.elapsed());
    assert_eq!(only_policy(&set.policies), (Mode::Enforce, SetBy::Command));
    assert!(!talk.denied_passes(), "enforced");
    let (status, _, dir) = daemon.end(Signal::KILL);
    assert!(!status.success());
    assert!(!talk.denied_passes(), "after kill -9");
    assert_eq!(programs(&lab), 6);

    let daemon = start(&lab, dir);
    assert!(!talk.denied_passes(), "after the restart");
    assert_eq!(programs(&lab), 6, "taken over, not put beside");
    assert_eq!(only_policy(&daemon.policies().policies), (Mode::Enforce, SetBy::Command));
    let links: BTreeSet<String> = daemon.capture_status().links.into_iter().map(|link| link.name).collect();
    let refused = detach(&lab);
    assert!(text(&refused.stderr).contains("another observer (pid "), "{refused:?}");
    assert!(!refused.status.success());
    let (status, _, dir) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    assert!(!talk.denied_passes(), "after a stop in order");
    let mut record = lab.command_in("n1", OBSERVER);
    let refused = record.arg("record").arg(dir.path().join("no.rec")).output().unwrap();
    assert!(text(&refused.stderr).contains("observer detach"), "{refused:?}");
    assert!(!refused.status.success() && !dir.path().join("no.rec").exists());

    let detached = detach(&lab);
    let links = links.into_iter().collect::<Vec<_>>().join(", ");
    let said = format!("removed {} with the programs on {links}\n", kept.display());
    assert_eq!((detached.status.success(), text(&detached.stdout)), (true, &*said), "{detached:?}");
    until("no program is left", || (programs(&lab) == 0).then_some(()));
    assert!(talk.denied_passes() && !kept.exists());
    let detached = detach(&lab);
    assert_eq!(text(&detached.stdout), "nothing of observer is left in this network namespace\n");
    assert!(detached.status.success());

    // What the command said is kept apart from the programs.
    let daemon = start(&lab, dir);
    assert!(!talk.denied_passes(), "enforced again");
    let set = daemon.set_mode("shop", "only-9100", Mode::Unknown);
    assert_eq!(only_policy(&set.policies), (Mode::Audit, SetBy::Default));
    assert!(talk.denied_passes() && !kept.exists(), "taken back");
    daemon.end(Signal::KILL);
    until("nothing outlives a daemon that enforces nothing", || (programs(&lab) == 0).then_some(()));
}

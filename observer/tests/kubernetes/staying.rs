//! What policies of the API deny stays denied while a daemon starts again, with the API there or not.

use crate::{
    names::{Bed, CILIUM, synced},
    support::{Daemon, can_run, late},
};
use observer_lab::netns;
use observer_proto::control::policy::Mode;
use rustix::process::Signal;
use std::{
    cell::Cell,
    io::ErrorKind,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Pods of the namespace open nothing.
const CLOSED: &str = r#"{ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "closed", "namespace": "web" },
    "spec": { "podSelector": {}, "policyTypes": ["Egress"] } }"#;

/// One pod sends to another all the time, each time as a new connection.
struct Knocks {
    server: UdpSocket,
    heard: Cell<usize>,
    sent: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Knocks {
    fn new(bed: &Bed) -> Self {
        let at = (bed.scenario().pod("shop", "server-1").unwrap().ips[0], 7001);
        let inside = bed.netns("web", "client-1");
        let bind = || Ok(UdpSocket::bind(at).unwrap());
        let server = netns::inside(&bed.netns("shop", "server-1"), bind).unwrap();
        server.set_nonblocking(true).unwrap();
        let (sent, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (sent, ends) = (Arc::clone(&sent), Arc::clone(&ends));
            move || {
                let knock = || {
                    while !ends.load(Ordering::Relaxed) {
                        // An error is one that is denied.
                        let _ = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"knock", at);
                        sent.fetch_add(1, Ordering::Release);
                        // The pace of knocks.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Ok(())
                };
                netns::inside(&inside, knock).unwrap();
            }
        });
        Self { server, heard: Cell::default(), sent, ends, thread: Some(thread) }
    }

    /// How many came through.
    fn heard(&self) -> usize {
        let next = || match self.server.recv(&mut [0; 16]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        };
        let new = std::iter::repeat_with(next).take_while(|came| *came).count();
        self.heard.set(self.heard.get() + new);
        self.heard.get()
    }

    /// Whether any of the next ones comes through.
    fn pass(&self) -> bool {
        let (heard, before) = (self.heard(), self.sent.load(Ordering::Acquire));
        late::until("more knocks", || (self.sent.load(Ordering::Acquire) >= before + 5).then_some(()));
        self.heard() > heard
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn what_is_enforced_outlives_the_daemon_and_the_api() {
    if !can_run("kubernetes: enforcement stays on") {
        return;
    }
    let mut bed = Bed::new("k8sstay");
    let kubeconfig = bed.cluster.kubeconfig_of("kube-system", "observer");
    let launch = |bed: &Bed, dir| {
        let mut command = bed.command(&kubeconfig);
        command.args(["--policy-mode", "enforce"]);
        Daemon::launch(command, dir)
    };
    let is_ready = |daemon: &Daemon| {
        daemon.log_line(" ready ");
        synced(daemon, &CILIUM);
    };
    let daemon = launch(&bed, tempfile::tempdir().unwrap());
    is_ready(&daemon);
    let knocks = Knocks::new(&bed);
    assert!(knocks.pass());
    bed.cluster.apply(CLOSED);
    late::until("it is denied", || (!knocks.pass()).then_some(()));
    let heard = knocks.heard();

    // With the API there.
    let (_, _, dir) = daemon.end(Signal::KILL);
    let daemon = launch(&bed, dir);
    is_ready(&daemon);
    assert!(!knocks.pass());

    // Without, and without a daemon that could be asked.
    bed.cluster.kill_server();
    let (_, _, dir) = daemon.end(Signal::KILL);
    let daemon = launch(&bed, dir);
    let said = daemon.log_line("what an earlier daemon enforces here stays as it is");
    assert!(["pods, ", "networkpolicies, ", "refused"].iter().all(|part| said.contains(part)), "{said}");
    assert!(!knocks.pass() && !daemon.log().contains(" ready "));
    let (status, _, dir) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    let daemon = launch(&bed, dir);
    daemon.log_line("stays as it is");
    bed.cluster.start_server();
    is_ready(&daemon);
    let policies = daemon.policies().policies;
    let [closed] = &policies[..] else { panic!("{policies:?}") };
    assert_eq!((closed.name.as_str(), closed.mode()), ("closed", Mode::Enforce));
    assert!(!knocks.pass());
    assert_eq!(knocks.heard(), heard, "nothing came through in all that time");
    bed.cluster.delete(CLOSED);
    late::until("it passes", || knocks.pass().then_some(()));
}

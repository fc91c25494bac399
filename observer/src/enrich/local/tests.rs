//! On real network namespaces; needs root and iproute2.

use super::*;
use crate::enrich::{identity, source::Sources};
use observer_lab::Namespaces;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Instant,
};

/// Two named namespaces, and one that only a process holds; gone with this value.
struct Lab {
    node: String,
    pod: String,
    process: Option<Child>,
    #[expect(dead_code, reason = "held: it removes the namespaces")]
    namespaces: Namespaces,
}

fn run(line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Lab {
    fn build() -> Self {
        let prefix = format!("enrich-{}", std::process::id());
        let (node, pod) = (format!("{prefix}-node"), format!("{prefix}-pod"));
        let namespaces = Namespaces::make(&prefix, &[&node, &pod]).unwrap();
        let mut lab = Self { node: node.clone(), pod: pod.clone(), process: None, namespaces };
        run(&format!("ip -n {node} link add v0 type veth peer name eth0 netns {pod}"));
        run(&format!("ip -n {node} addr add 10.77.0.1/24 dev v0"));
        run(&format!("ip -n {pod} addr add 10.77.0.2/24 dev eth0"));
        run(&format!("ip -n {pod} addr add fd00:77::2/64 dev eth0 nodad"));

        let mut process = Command::new("unshare");
        process.args(["--net", "sh", "-c", "echo ready; read -r end"]);
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (pid, stdout) = (process.id(), process.stdout.take());
        lab.process = Some(process);
        // Only then it has left this namespace.
        BufReader::new(stdout.unwrap()).read_line(&mut String::new()).unwrap();
        run(&format!("ip -n {node} link add v1 type veth peer name eth0 netns {pid}"));
        run(&format!("nsenter --net=/proc/{pid}/ns/net ip addr add 10.77.1.2/24 dev eth0"));
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The kernel tells at once; 5 s is for a busy machine.
fn await_that(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: not within 5 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn namespaces_with_a_link_to_here_are_named() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI_NO_SKIP").is_none(), "skipped: not root");
        println!("SKIP: making network namespaces needs root");
        return;
    }
    let lab = Lab::build();
    // A thread of its own, which ends in the other namespace.
    std::thread::scope(|scope| scope.spawn(|| in_node(&lab)).join()).unwrap();
}

fn in_node(lab: &Lab) {
    let node = File::open(format!("/run/netns/{}", lab.node)).unwrap();
    move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let cache = Arc::new(IpCache::new("n1"));
    let sources: Vec<Box<dyn Source>> = vec![Box::new(LocalNamespaces::open().unwrap())];
    let running = Sources::start(sources, &cache).unwrap();

    let label = format!("netns:name={}", lab.pod);
    for address in ["10.77.0.2", "fd00:77::2"] {
        let pod = cache.lookup(ip(address), Clock::kernel_now());
        assert_eq!((&*pod.namespace, &*pod.pod_name), ("netns", &*lab.pod), "{address}");
        assert_eq!(*pod.labels, [label.as_str()]);
        assert_eq!(pod.identity, identity::candidate(std::slice::from_ref(&label), 0));
        assert!(pod.local && pod.id != 0);
    }
    let process = cache.lookup(ip("10.77.1.2"), Clock::kernel_now());
    let by_cgroup = ["container", "systemd", "process"];
    assert!(by_cgroup.contains(&&*process.namespace), "{process:?}");
    assert_eq!(cache.lookup(ip("10.77.0.1"), Clock::kernel_now()).identity, 1);
    // No namespace of this machine that has no link to the node.
    assert_eq!(cache.local_pod_addresses(), ["10.77.0.2", "10.77.1.2", "fd00:77::2"].map(ip));

    run(&format!("ip -n {} addr add 10.77.0.3/24 dev eth0", lab.pod));
    await_that("a new address", || cache.lookup(ip("10.77.0.3"), Clock::kernel_now()).pod_name == lab.pod);
    let before = Clock::kernel_now();
    run(&format!("ip netns del {}", lab.pod));
    await_that("a namespace that is gone", || {
        cache.lookup(ip("10.77.0.2"), Clock::kernel_now()).identity == 0
    });
    assert_eq!(cache.lookup(ip("10.77.0.2"), before).pod_name, lab.pod, "late events are still named");
    assert_eq!(cache.local_pod_addresses(), [ip("10.77.1.2")]);
    let start = Instant::now();
    drop(running);
    assert!(start.elapsed() < Duration::from_secs(1));
}

//! Pods that come when the daemon runs already, and go before it ends.

use super::PATIENCE;
use aya::programs::{SchedClassifier, TcAttachType};
use observer_lab::{Lab, links::wait_ready, netns};
use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A pod that the lab does not know, wired as the lab's routed pods are.
pub(crate) struct Late {
    pub(crate) netns: String,
    pub(crate) node: String,
    pub(crate) link: String,
    pub(crate) ip: IpAddr,
    /// The link's index, where it is to have a certain one.
    pub(crate) index: Option<u32>,
}

impl Late {
    pub(crate) fn new(lab: &Lab, name: &str, ip: &str) -> Self {
        let node = node(lab);
        let (netns, link) = (format!("{node}-{name}"), format!("veth{name}"));
        Self { netns, node, link, ip: ip.parse().unwrap(), index: None }
    }

    pub(crate) fn up(&self) {
        let Self { netns, node, link, ip, index } = self;
        let index = index.map_or_else(String::new, |index| format!("index {index}"));
        ip_tool(&format!("netns add {netns}"), "");
        ip_tool(&format!("-n {node} link add {link} {index} type veth peer name eth0 netns {netns}"), "");
        self.route();
        ip_tool(
            &format!("-n {netns} -batch -"),
            &format!(
                "link set lo up\nlink set eth0 up\naddr add {ip} dev eth0\n\
                 route add default via 169.254.1.1 dev eth0 onlink src {ip}\n"
            ),
        );
    }

    /// Takes the link up, with address and route, which a link loses that goes down or elsewhere.
    pub(crate) fn route(&self) {
        let Self { link, ip, .. } = self;
        ip_tool(
            &format!("-n {} -batch -", self.node),
            &format!(
                "link set {link} up\naddr replace 169.254.1.1/32 dev {link}\nroute replace {ip} dev {link}\n"
            ),
        );
    }

    /// The veth goes with the namespace, but a little later.
    pub(crate) fn down(&self) {
        ip_tool(&format!("-n {} link del {}", self.node, self.link), "");
        ip_tool(&format!("netns del {}", self.netns), "");
    }

    /// Sends a packet from this port (0 = any) to a server, and waits for the answer that may come. Returns where it
    /// came from.
    pub(crate) fn send(&self, port: u16, server: IpAddr) -> SocketAddr {
        wait_ready(&self.netns).unwrap();
        netns::inside(&self.netns, || {
            let socket = UdpSocket::bind((self.ip, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.send_to(&[b'x'; 64], (server, 7000)).unwrap();
            let _ = socket.recv_from(&mut [0; 128]);
            Ok(socket.local_addr().unwrap())
        })
        .unwrap()
    }

    /// Waits until both programs are on its link; returns how long that took.
    pub(crate) fn attached(&self) -> Duration {
        let since = Instant::now();
        let count = |hook| SchedClassifier::query_tcx(&self.link, hook).map_or(0, |(_, found)| found.len());
        netns::inside(&self.node, || {
            until("the link attached", || {
                (count(TcAttachType::Ingress) == 1 && count(TcAttachType::Egress) == 1).then_some(())
            });
            Ok(since.elapsed())
        })
        .unwrap()
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).output();
    }
}

pub(crate) fn node(lab: &Lab) -> String {
    lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned()
}

/// The server that answers.
pub(crate) fn server(lab: &Lab) -> IpAddr {
    lab.scenario().pods[1].ips.iter().copied().find(IpAddr::is_ipv4).unwrap()
}

pub(crate) fn ip_tool(arguments: &str, script: &str) {
    let mut command = Command::new("ip");
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for this; netlink's word reaches the daemon, but nothing tells of that.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! What enforced policies allow goes on, and what they deny stays denied: when the daemon comes amid open connections, while a
//! pod scans, while policies change, with a broken file among them, with the daemon stopped, and where a path is narrow.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod full;
mod narrow;
mod older;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::{
    control::policy::Mode,
    flow::{DropReason, Flow, FlowFilter},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use rustix::process::{Signal, kill_process};
use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::Instant,
};
use support::{Daemon, Follower, can_run, ends, late::until, scaled};
use talk::{Talk, any_port, datagram, deliver, got_nothing, speak};

const LAB: &str = r#"
name = "unbroken"
[outside]
addresses = ["192.168.50.1/24", "fd00:50::1/64"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11", "fd00:50::b"]
[[pods]]
name = "client"
namespace = "web"
node = "n1"
ips = ["10.244.1.10", "fd00:10:244:1::a"]
labels = { app = "client" }
[[pods]]
name = "scanner"
namespace = "web"
node = "n1"
ips = ["10.244.1.11", "fd00:10:244:1::b"]
labels = { app = "scanner" }
[[pods]]
name = "server"
namespace = "shop"
node = "n1"
ips = ["10.244.1.20", "fd00:10:244:1::14"]
labels = { app = "server" }
"#;

const ALLOWED: u16 = 9100;
const DENIED: u16 = 9101;
/// Denied as well: tells that all that was dropped before was told.
const MARK: u16 = 9102;
/// Policies, a file each.
const FILES: usize = 100;

/// These pods take this port and nothing else, and open nothing: a connection older than the daemon may have been opened by
/// either end.
fn only(name: &str, app: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [Ingress, Egress]\n  \
         ingress: [{{ports: [{{port: {port}, protocol: TCP}}, {{port: {port}, protocol: UDP}}]}}]\n"
    )
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn namespace_of(lab: &Lab, namespace: &str, name: &str) -> String {
    file_name(&lab.pod_netns(lab.scenario().pod(namespace, name).unwrap()))
}

/// What policies drop.
fn denials(filter: FlowFilter) -> FlowFilter {
    FlowFilter {
        drop_reason_desc: vec![DropReason::PolicyDenied.into(), DropReason::PolicyDeny.into()],
        ..filter
    }
}

/// All that is kept of these.
fn find(daemon: &Daemon, filters: Vec<FlowFilter>) -> Vec<Flow> {
    let request = GetFlowsRequest { number: u64::MAX, whitelist: filters, ..GetFlowsRequest::default() };
    let flow = |response: observer_proto::observer::GetFlowsResponse| match response.response_types {
        Some(ResponseTypes::Flow(flow)) => Some(flow),
        _ => None,
    };
    daemon.responses(request).into_iter().filter_map(flow).collect()
}

/// Follows what policies drop of what they should allow, and of what is sent to the mark.
fn follow_drops(daemon: &Daemon) -> Follower {
    let to = |port: u16| FlowFilter { destination_port: vec![port.to_string()], ..FlowFilter::default() };
    let from = FlowFilter { source_port: vec![ALLOWED.to_string()], ..FlowFilter::default() };
    let whitelist = [to(ALLOWED), from, to(MARK)].map(denials).into();
    daemon.follow(GetFlowsRequest { follow: true, whitelist, ..GetFlowsRequest::default() })
}

#[test]
fn established_connections_go_on() {
    if !can_run("established_connections_go_on") {
        return;
    }
    let lab = Lab::up(&Scenario::parse(LAB, "unbroken").unwrap(), &unique_prefix("unbroken")).unwrap();
    let ruleset = ruleset(&lab);
    let talks = [0, 1].map(|family| Talk::new(&lab, family));
    talks.iter().for_each(Talk::goes_on);
    let to_be_cut: Vec<[TcpStream; 2]> =
        talks.iter().flat_map(|talk| (0..5).map(|_| talk.connect(&talk.listeners[1]))).collect();
    to_be_cut.iter().for_each(speak);

    let policies = tempfile::tempdir().unwrap();
    let file = |number: usize| policies.path().join(format!("{number:03}.yaml"));
    for number in 0..FILES {
        let (name, app) = match number {
            0 => ("only".to_owned(), "server".to_owned()),
            1 => ("also".to_owned(), "server".to_owned()),
            _ => (format!("other-{number}"), format!("other-{number}")),
        };
        fs::write(file(number), only(&name, &app, ALLOWED)).unwrap();
    }
    let folder = policies.path().to_str().unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", folder, "--policy-mode", "enforce"]);
    let drops = follow_drops(&daemon);
    let play = Play { lab: &lab, daemon: &daemon, talks: &talks, drops, since: Instant::now() };

    play.cut(&to_be_cut);
    play.done("100 connections older than the daemon");
    play.scan();
    play.done("a scan");
    play.change_modes();
    play.done("changes of modes");
    play.stop_the_daemon(&ruleset);
    play.done("a daemon that is stopped");

    // One of the files is broken, and others say the contrary of before: nothing of that is taken.
    fs::write(file(FILES - 1), "kind: NetworkPolicy\n").unwrap();
    let problem = play.problem("");
    for (number, name) in ["only", "also"].into_iter().enumerate() {
        fs::write(file(number), only(name, "server", DENIED)).unwrap();
    }
    fs::write(file(FILES - 1), only("other", "other", 0)).unwrap();
    let problem = play.problem(&problem);
    assert!(problem.contains(&file_name(&file(FILES - 1))), "{problem}");
    assert_eq!(daemon.policies().policies.len(), FILES);
    play.done("a broken file");
    let revision = daemon.policies().revision;
    fs::write(file(FILES - 1), only("other", "other", 1)).unwrap();
    until("the mended set is taken", || {
        let policies = daemon.policies();
        (policies.problem.is_empty() && policies.revision > revision).then_some(())
    });
    for talk in &talks {
        let socket = netns::inside(&talk.client, || Ok(any_port(talk.ip))).unwrap();
        deliver(&datagram(16), &talk.sockets[1], |bytes| {
            socket.send_to(bytes, (talk.ip, DENIED)).unwrap();
        });
    }
}

struct Play<'a> {
    lab: &'a Lab,
    daemon: &'a Daemon,
    talks: &'a [Talk; 2],
    drops: Follower,
    since: Instant,
}

impl Play<'_> {
    /// All is as it was after `what`.
    fn done(&self, what: &str) {
        for talk in self.talks {
            talk.goes_on();
            talk.begin_anew();
            talk.nothing_denied_came();
        }
        self.nothing_allowed_was_dropped();
        eprintln!("{what}: nothing broke, {:.1?} after the start", self.since.elapsed());
    }

    /// All went well, and no first try of it was dropped.
    fn nothing_allowed_was_dropped(&self) {
        // While the rings are full they might not take the mark's.
        self.daemon.settled();
        let talk = &self.talks[0];
        let socket = netns::inside(&talk.client, || Ok(any_port(talk.ip))).unwrap();
        socket.connect((talk.ip, MARK)).unwrap();
        socket.send(b"mark").unwrap();
        let mark = (17, socket.local_addr().unwrap(), SocketAddr::new(talk.ip, MARK));
        self.drops.until("the drop of the mark", |response| {
            let ResponseTypes::Flow(flow) = response else { return None };
            let found = ends(&flow).unwrap();
            assert_eq!(found.2.port(), MARK, "dropped: {flow:#?}");
            (found == mark).then_some(())
        });
    }

    /// What policies deny is cut, older than the daemon or not.
    fn cut(&self, streams: &[[TcpStream; 2]]) {
        for mut stream in streams.iter().flatten() {
            stream.write_all(b"denied").unwrap();
        }
        let ends_of = |[here, _]: &[TcpStream; 2]| [here.local_addr().unwrap(), here.peer_addr().unwrap()];
        self.until_denied(6, &streams.iter().map(ends_of).collect());
        for mut stream in streams.iter().flatten() {
            stream.set_nonblocking(true).unwrap();
            got_nothing(stream.read(&mut [0; 16]));
        }
    }

    /// Waits until packets between all of these ends were denied, whichever way.
    fn until_denied(&self, protocol: u8, wanted: &BTreeSet<[SocketAddr; 2]>) {
        until("all that is denied is told", || {
            let found = find(self.daemon, vec![denials(FlowFilter::default())]);
            let found: BTreeSet<[SocketAddr; 2]> = found
                .iter()
                .filter_map(ends)
                .filter(|(found, ..)| *found == protocol)
                .flat_map(|(_, source, destination)| [[source, destination], [destination, source]])
                .collect();
            wanted.is_subset(&found).then_some(())
        });
    }

    /// A pod tries many ports of the server, where they are denied, and of the client, where they are not.
    fn scan(&self) {
        let ports: u16 = scaled(20_000, 100_000_u32).div_euclid(2).try_into().unwrap();
        let pods = [("shop", "server"), ("web", "client")].map(|(namespace, name)| {
            let pod = self.lab.scenario().pod(namespace, name).unwrap();
            pod.ips.clone()
        });
        let scan = || {
            netns::inside(&namespace_of(self.lab, "web", "scanner"), || {
                let targets: Vec<(UdpSocket, IpAddr)> =
                    pods.iter().flatten().map(|ip| (any_port(*ip), *ip)).collect();
                for port in 10_000..10_000 + ports {
                    for (socket, ip) in &targets {
                        socket.send_to(b"open?", (*ip, port)).unwrap();
                    }
                }
                Ok(())
            })
            .unwrap();
        };
        std::thread::scope(|scope| {
            let scan = scope.spawn(scan);
            let mut rounds = 0;
            while !scan.is_finished() {
                self.talks.iter().for_each(Talk::goes_on);
                rounds += 1;
            }
            eprintln!("{rounds} rounds of talk while {ports} ports of two pods were tried over each family");
        });
    }

    /// Policies change again and again under new connections.
    fn change_modes(&self) {
        let times = scaled(50, 1_000);
        let before = self.daemon.policies().revision;
        let change = || {
            for number in 0..times {
                let mode = if number % 2 == 0 { Mode::Audit } else { Mode::Enforce };
                let response = self.daemon.set_mode("shop", "also", mode);
                assert_eq!(response.policies[0].mode(), mode);
            }
        };
        std::thread::scope(|scope| {
            let changes = scope.spawn(change);
            let mut rounds = 0;
            while !changes.is_finished() {
                self.talks.iter().for_each(Talk::begin_anew);
                rounds += 1;
            }
            eprintln!("{rounds} rounds of new connections while policies changed {times} times");
        });
        assert!(self.daemon.policies().revision >= before + times);
    }

    /// First packets have the right verdicts without the daemon, and by nothing but its programs.
    fn stop_the_daemon(&self, rules: &str) {
        kill_process(self.daemon.pid(), Signal::STOP).unwrap();
        let stat = format!("/proc/{}/stat", self.daemon.pid().as_raw_nonzero());
        until("the daemon stopped", || fs::read_to_string(&stat).unwrap().contains(") T ").then_some(()));
        let [mut tcp, mut udp] = [BTreeSet::new(), BTreeSet::new()];
        for talk in self.talks {
            let denied = SocketAddr::new(talk.ip, DENIED);
            talk.begin_anew();
            let (socket, stream) = netns::inside(&talk.client, || {
                let socket = any_port(talk.ip);
                socket.connect(denied).unwrap();
                socket.send(b"denied").unwrap();
                let stream =
                    socket2::Socket::new(socket2::Domain::for_address(denied), socket2::Type::STREAM, None)
                        .unwrap();
                stream.set_nonblocking(true).unwrap();
                let error = stream.connect(&denied.into()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
                Ok((socket, TcpStream::from(stream)))
            })
            .unwrap();
            udp.insert([socket.local_addr().unwrap(), denied]);
            tcp.insert([stream.local_addr().unwrap(), denied]);
            talk.begin_anew();
            talk.goes_on();
            talk.nothing_denied_came();
            talk.listeners[1].set_nonblocking(true).unwrap();
            got_nothing(talk.listeners[1].accept());
            assert_eq!(stream.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        }
        assert_eq!(ruleset(self.lab), rules);
        kill_process(self.daemon.pid(), Signal::CONT).unwrap();
        self.until_denied(6, &tcp);
        self.until_denied(17, &udp);
    }

    /// Waits for a problem with the files that is another than this.
    fn problem(&self, before: &str) -> String {
        until("a problem is told", || {
            let problem = self.daemon.policies().problem;
            (!problem.is_empty() && problem != before).then_some(problem)
        })
    }
}

fn ruleset(lab: &Lab) -> String {
    let output = lab.command_in("n1", "nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

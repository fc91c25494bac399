//! nf_conntrack for real, in network namespaces of this test's own. Needs root, `ip`, `nft` and `conntrack`.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

use observer::decode::{Clock, End, Tuple};
use observer::track::{ConntrackSource, ConntrackTable, SourceOptions, TableLimits, Translation};
use observer_lab::{Namespaces, links::wait_ready};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);
const FRONTEND: &str = "10.96.0.1:80";
const BACKEND: &str = "10.1.2.2:8080";
const GATEWAY: &str = "10.1.2.1";

/// Two pods and a node that translates both ends of calls to the service.
struct Lab {
    name: String,
    #[expect(dead_code, reason = "held: it removes the namespaces")]
    namespaces: Namespaces,
}

impl Lab {
    /// Nothing, with the reason printed, where it can't be built.
    fn build(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI_NO_SKIP").is_none(), "this test needs root");
            println!("SKIP: network namespaces need root");
            return None;
        }
        let name = format!("track-{test}-{}", std::process::id());
        let [node, a, b] = ["node", "a", "b"].map(|part| format!("{name}-{part}"));
        let lab = Self { namespaces: Namespaces::make(&name, &[&node, &a, &b]).unwrap(), name };
        for space in [&node, &a, &b] {
            run(&["ip", "-n", space, "link", "set", "lo", "up"]);
        }
        for (pod, subnet, link) in [(&a, "10.1.1", "va"), (&b, "10.1.2", "vb")] {
            run(&[
                "ip", "-n", &node, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod,
            ]);
            for (space, link, address) in
                [(&node, link, format!("{subnet}.1/24")), (pod, "eth0", format!("{subnet}.2/24"))]
            {
                run(&["ip", "-n", space, "addr", "add", &address, "dev", link]);
                run(&["ip", "-n", space, "link", "set", link, "up"]);
            }
            run(&["ip", "-n", pod, "route", "add", "default", "via", &format!("{subnet}.1")]);
        }
        for space in [&node, &a, &b] {
            wait_ready(space).unwrap();
        }
        lab.on_node(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        lab.on_node(&[
            "nft",
            "table ip track { chain pre { type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 tcp dport 80 \
             dnat to 10.1.2.2:8080; }; chain post { type nat hook postrouting priority srcnat; ip daddr 10.1.2.2 tcp \
             dport 8080 masquerade; }; }",
        ]);
        Some(lab)
    }

    fn space(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    fn on_node(&self, command: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.space("node")], command].concat());
    }

    /// Moves this thread into one of the namespaces. A test's thread ends with the test.
    fn enter(&self, part: &str) {
        let file = File::open(format!("/run/netns/{}", self.space(part))).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// A server in pod b.
    fn listen(&self) -> TcpListener {
        self.enter("b");
        TcpListener::bind(BACKEND).unwrap()
    }

    /// Pod a calls the service, is answered, and both ends stay open.
    fn call(&self, server: &TcpListener) -> (TcpStream, TcpStream) {
        self.enter("a");
        let frontend: SocketAddr = FRONTEND.parse().unwrap();
        let mut client = TcpStream::connect_timeout(&frontend, PATIENCE).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        accepted.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        self.enter("node");
        (client, accepted)
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn end(address: SocketAddr) -> End {
    End::new(address.ip(), address.port())
}

fn parsed(address: &str) -> End {
    end(address.parse().unwrap())
}

fn table() -> ConntrackTable {
    ConntrackTable::new(TableLimits::default())
}

/// Drains until `done`, waiting for events.
fn drain_until(
    source: &mut ConntrackSource,
    table: &mut ConntrackTable,
    done: impl Fn(&ConntrackSource, &ConntrackTable) -> bool,
) {
    let began = Instant::now();
    loop {
        source.drain(&mut |update| table.apply(&update), Clock::kernel_now());
        if done(source, table) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{:?} {:?}", source.counters(), table.counters());
        let moment = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _ = poll(&mut [PollFd::from_borrowed_fd(source.fd(), PollFlags::IN)], Some(&moment));
    }
}

/// All ways in which packets of the call are seen, both directions.
fn assert_every_view(table: &ConntrackTable, client: End) {
    let (frontend, backend) = (parsed(FRONTEND), parsed(BACKEND));
    let called_from = table.translate(&tcp(client, frontend), None).expect("the call is known").called_from;
    assert_eq!(called_from.ip(), GATEWAY.parse::<IpAddr>().unwrap());
    let forward = Translation { from_client: true, client, frontend, backend, called_from };
    for (source, destination) in [(client, frontend), (client, backend), (called_from, backend)] {
        let seen = tcp(source, destination);
        assert_eq!(table.translate(&seen, None), Some(forward), "{seen:?}");
        let back = Translation { from_client: false, ..forward };
        assert_eq!(table.translate(&seen.reversed(), None), Some(back), "{seen:?}, reversed");
    }
}

fn tcp(source: End, destination: End) -> Tuple {
    Tuple { source, destination, protocol: 6 }
}

#[test]
fn events_tell_of_a_translated_connection_and_of_its_end() {
    let Some(lab) = Lab::build("ev") else { return };
    let server = lab.listen();
    lab.enter("node");
    let mut table = table();
    let mut source =
        ConntrackSource::open(SourceOptions::default(), &mut |update| table.apply(&update)).unwrap();
    assert_eq!((source.counters().dumps, table.len()), (1, 0));

    let (client, _accepted) = lab.call(&server);
    let client = end(client.local_addr().unwrap());
    let call = tcp(client, parsed(FRONTEND));
    drain_until(&mut source, &mut table, |_, table| table.translate(&call, None).is_some());
    assert_every_view(&table, client);
    assert!(source.counters().events >= 1);

    lab.on_node(&["conntrack", "-D", "-p", "tcp"]);
    let later = || Some(Clock::kernel_now());
    drain_until(&mut source, &mut table, |_, table| table.translate(&call, later()).is_none());
    assert_every_view(&table, client);
    assert_eq!(source.counters().malformed, 0);
    table.expire(u64::MAX);
    assert!(table.is_empty());
}

#[test]
fn a_dump_at_the_start_tells_of_connections_that_are_there() {
    let Some(lab) = Lab::build("du") else { return };
    let server = lab.listen();
    let (client, _accepted) = lab.call(&server);
    let mut table = table();
    let options = SourceOptions { dump_interval: Duration::ZERO, ..SourceOptions::default() };
    let mut source = ConntrackSource::open(options, &mut |update| table.apply(&update)).unwrap();
    assert_eq!((source.counters().dumps, source.counters().dumped), (1, 1));
    assert_every_view(&table, end(client.local_addr().unwrap()));

    // The kernel may tell of no end of a connection older than its listener; the next dump shows it.
    lab.on_node(&["conntrack", "-D", "-p", "tcp"]);
    let call = tcp(end(client.local_addr().unwrap()), parsed(FRONTEND));
    drain_until(&mut source, &mut table, |_, table| {
        table.translate(&call, Some(Clock::kernel_now())).is_none()
    });
}

#[test]
fn an_overrun_is_counted_and_made_good_by_a_dump() {
    const CALLS: usize = 300;
    let Some(lab) = Lab::build("ov") else { return };
    lab.enter("b");
    let server = UdpSocket::bind("10.1.2.2:9").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    lab.enter("node");
    let mut table = table();
    let options = SourceOptions { receive_buffer: 1, dump_pause: Duration::ZERO, ..SourceOptions::default() };
    let mut source = ConntrackSource::open(options, &mut |update| table.apply(&update)).unwrap();

    lab.enter("a");
    let clients: Vec<UdpSocket> = (0..CALLS)
        .map(|_| {
            let client = UdpSocket::bind("10.1.1.2:0").unwrap();
            client.send_to(b"x", "10.1.2.2:9").unwrap();
            // What has arrived has an entry, and its event was sent or lost.
            server.recv(&mut [0]).unwrap();
            client
        })
        .collect();
    lab.enter("node");
    drain_until(&mut source, &mut table, |source, _| source.counters().dumps >= 2);
    assert!(source.counters().overruns >= 1, "{:?}", source.counters());
    for client in &clients {
        let source = end(client.local_addr().unwrap());
        let seen = Tuple { source, destination: parsed("10.1.2.2:9"), protocol: 17 };
        assert!(table.translate(&seen, None).is_some_and(|known| known.from_client), "{seen:?}");
    }

    // And events come again.
    lab.enter("a");
    let late = UdpSocket::bind("10.1.1.2:0").unwrap();
    late.send_to(b"x", "10.1.2.2:9").unwrap();
    lab.enter("node");
    let (events, seen) = (
        source.counters().events,
        Tuple { source: end(late.local_addr().unwrap()), destination: parsed("10.1.2.2:9"), protocol: 17 },
    );
    drain_until(&mut source, &mut table, |_, table| table.translate(&seen, None).is_some());
    assert!(source.counters().events > events);
}

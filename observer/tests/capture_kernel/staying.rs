//! Programs that stay when the capture goes: the next one takes them over, link by link, or takes them off.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Instant;

use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use observer::capture::{Capture, CaptureConfig, LinkHook, Loaded, PolicyTables, detach};
use observer_ebpf::policy::{
    NO_TABLE, OTHERS, PolicyCut, PolicyEndpoint, PolicyRowKey, cut_key, decision, slot,
};

use crate::support::{Lab, Netns, PATIENCE, Wiring, skip};

/// Where files stand for the node; the lab removes them, whatever becomes of the test.
fn files(lab: &Lab) -> PathBuf {
    Path::new("/sys/fs/bpf/observer").join(lab.node.inode().to_string())
}

/// Ids of the programs on the hooks of both pods' links.
fn on_hooks(lab: &Lab) -> BTreeMap<String, Vec<u32>> {
    let sides = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];
    lab.node.within(|| {
        let hooks = ["pod1", "pod2"].into_iter().flat_map(|link| sides.map(|side| (link, side)));
        hooks
            .map(|(link, (side, hook))| {
                let (_, programs) = SchedClassifier::query_tcx(link, hook).unwrap();
                (format!("{link} {side}"), programs.iter().map(ProgramInfo::id).collect())
            })
            .collect()
    })
}

fn start(lab: &Lab) -> Capture {
    lab.node.within(|| Capture::start(&CaptureConfig::default()).unwrap())
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not seen: {what}");
        std::thread::yield_now();
    }
}

fn are_off(lab: &Lab) -> bool {
    on_hooks(lab).values().all(Vec::is_empty)
}

#[test]
fn programs_that_stay_are_taken_over_between_two_packets_and_go_when_told() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let capture = start(&lab);
    assert!(!files.exists(), "nothing stays that wasn't told to");
    let table = capture.links();
    let index = table.links.iter().find(|link| link.name == "pod1").unwrap().ifindex;
    capture.keeper().stay(true).unwrap();
    let stayed = on_hooks(&lab);
    assert!(stayed.values().all(|programs| programs.len() == 1), "{stayed:?}");
    drop(capture);
    assert_eq!(on_hooks(&lab), stayed);

    // The link stays what it is, with another program.
    let held: FdLink = PinnedLink::from_pin(files.join(format!("link-{index}-ingress"))).unwrap().into();
    let before = held.info().unwrap();
    let capture = start(&lab);
    let taken = on_hooks(&lab);
    for (hook, programs) in &taken {
        assert!(programs.len() == 1 && *programs != stayed[hook], "{hook}: {programs:?} after {stayed:?}");
    }
    let after = held.info().unwrap();
    assert_eq!((after.id(), after.program_id()), (before.id(), taken["pod1 ingress"][0]));
    assert!(!files.exists(), "this one does not stay");
    drop((held, capture));
    until("the hooks are empty", || are_off(&lab));
}

#[test]
fn links_that_come_stay_and_links_that_go_leave_no_file() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let capture = start(&lab);
    capture.keeper().stay(true).unwrap();
    let third = Netns::new("c");
    lab.wire(&third, 3);
    let index_of = |name: &str| {
        let table = capture.links();
        table.links.iter().find(|link| link.name == name && link.error.is_none()).map(|link| link.ifindex)
    };
    until("pod3 is attached to", || index_of("pod3").is_some());
    let kept = files.join(format!("link-{}-egress", index_of("pod3").unwrap()));
    assert!(kept.exists());
    lab.node.run("ip link del pod3");
    until("pod3's file is gone", || !kept.exists());

    // One that goes while nobody looks leaves its file to the next daemon.
    let index = index_of("pod2").unwrap();
    drop(capture);
    lab.node.run("ip link del pod2");
    assert!(files.join(format!("link-{index}-ingress")).exists());
    let capture = start(&lab);
    assert!(!files.exists());
    drop(capture);
}

#[test]
fn what_stays_is_detached_by_hand() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let capture = start(&lab);
    capture.keeper().stay(true).unwrap();
    drop(capture);
    let detached = lab.node.within(|| detach().unwrap());
    let names: Vec<&str> = detached.kept.iter().map(String::as_str).collect();
    assert_eq!((names, &detached.folder), (vec!["pod1", "pod2"], &files));
    assert!(detached.filters.is_empty() && !files.exists(), "{detached:?}");
    until("the hooks are empty", || are_off(&lab));
    let detached = lab.node.within(|| detach().unwrap());
    assert!(detached.kept.is_empty() && detached.filters.is_empty(), "{detached:?}");
}

/// The second pod takes TCP and UDP on port 80 and nothing else.
fn only_port_80() -> PolicyTables {
    const ALLOWED: u32 = decision::JUDGED | 1;
    const DENIED: u32 = decision::JUDGED | decision::DENIED | decision::AUDITED | 2;
    const WORLD: u32 = 9;
    let mut tables = PolicyTables::default();
    for number in 0..2 {
        let IpAddr::V4(pod) = format!("10.77.0.{}", number + 1).parse().unwrap() else { panic!() };
        let endpoint = PolicyEndpoint { peer: number, subject: number, flags: 0 };
        tables.endpoints.insert(pod.to_ipv6_mapped().octets(), endpoint);
    }
    tables.nets.insert((0, [0; 16]), WORLD);
    tables.nets.insert((96, std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets()), WORLD);
    tables.sides = vec![[NO_TABLE; 2], [NO_TABLE, 0]];
    let from = [(0, 0, DENIED), (6, 80, ALLOWED), (6, 81, DENIED), (17, 80, ALLOWED), (17, 81, DENIED)];
    let cuts = from.map(|(protocol, port, decision)| PolicyCut { from: cut_key(protocol, port), decision });
    let row = tables.place_row(&cuts);
    tables.rows.insert(PolicyRowKey { table: 0, peer: OTHERS }, row);
    tables
}

/// Loaded, and nothing in its maps yet.
fn load(lab: &Lab) -> Loaded {
    let config = CaptureConfig { judge: true, ..CaptureConfig::default() };
    let loaded = lab.node.within(|| Capture::load(&config)).unwrap();
    assert_eq!(loaded.why_not_enforced(), None);
    loaded
}

#[test]
fn by_clsact_nothing_is_enforced_as_nothing_would_stay() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let config = CaptureConfig { judge: true, link_hook: LinkHook::Clsact, ..CaptureConfig::default() };
    let loaded = lab.node.within(|| Capture::load(&config)).unwrap();
    let why = loaded.why_not_enforced().unwrap();
    assert!(why.contains("clsact"), "{why}");
    let capture = lab.node.within(|| loaded.attach()).unwrap();
    assert!(capture.keeper().stay(true).unwrap_err().contains("tcx"));
    assert!(!files.exists());
}

/// Fills its maps and attaches it, to stay; the generation that is in force.
fn enforce(lab: &Lab, mut loaded: Loaded) -> (Capture, u32) {
    let mut maps = loaded.policy_maps().unwrap();
    maps.write(slot(maps.generation()) ^ 1, &only_port_80()).unwrap();
    let generation = maps.flip().unwrap();
    loaded.stay().unwrap();
    (lab.node.within(|| loaded.attach()).unwrap(), generation)
}

/// Two pods and what they say to each other.
struct Talk<'a> {
    lab: &'a Lab,
    ports: [UdpSocket; 2],
    client: TcpStream,
    server: TcpStream,
}

impl<'a> Talk<'a> {
    fn new(lab: &'a Lab) -> Self {
        let [from, to] = &lab.pods;
        let (ports, listener) = to.within(|| {
            let ports = [80, 81].map(|port| UdpSocket::bind(("10.77.0.2", port)).unwrap());
            (ports, TcpListener::bind("10.77.0.2:80").unwrap())
        });
        ports[0].set_read_timeout(Some(PATIENCE)).unwrap();
        ports[1].set_nonblocking(true).unwrap();
        let client = from.within(|| TcpStream::connect("10.77.0.2:80").unwrap());
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { lab, ports, client, server }
    }

    /// Whether what comes anew to port 81 passes. To port 80 it does, behind the other on the same way.
    fn passes(&self) -> bool {
        self.lab.pods[0].within(|| {
            let sender = UdpSocket::bind("10.77.0.1:0").unwrap();
            sender.send_to(b"denied", "10.77.0.2:81").unwrap();
            sender.send_to(b"allowed", "10.77.0.2:80").unwrap();
        });
        let mut buffer = [0; 16];
        self.ports[0].recv(&mut buffer).unwrap();
        match self.ports[1].recv(&mut buffer) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }

    /// The connection that is open goes on, both ways.
    fn goes_on(&self) {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.write_all(b"still there").unwrap();
            to.read_exact(&mut [0; 11]).unwrap();
        }
    }
}

#[test]
fn what_was_denied_stays_denied_and_open_connections_go_on_through_restarts() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let (capture, first) = enforce(&lab, load(&lab));
    let talk = Talk::new(&lab);
    let is_enforced = |when: &str| {
        assert!(!talk.passes(), "{when}");
        talk.goes_on();
    };
    is_enforced("with a daemon");
    let table = files.join("tables-v5/SHORT_FLOW_TABLE");
    let id = || MapData::from_pin(&table).unwrap().info().unwrap().id();
    let kept = id();
    drop(capture);
    is_enforced("without one");
    let next = load(&lab);
    is_enforced("while the next one loads");
    let (capture, second) = enforce(&lab, next);
    is_enforced("with the next one");
    assert_eq!(id(), kept, "it goes on with the connections");
    assert!(second > first, "numbers of generations don't come again: {second} after {first}");
    drop(capture);
    // One that has no policies.
    let capture = start(&lab);
    assert!(talk.passes() && !files.exists());
    talk.goes_on();
    drop(capture);
    until("the hooks are empty", || are_off(&lab));
}

#[test]
fn tables_of_another_form_are_not_gone_on_with() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let files = files(&lab);
    let (capture, _) = enforce(&lab, load(&lab));
    let talk = Talk::new(&lab);
    drop(capture);
    let [short, long] = ["SHORT_FLOW_TABLE", "FLOW_TABLE"].map(|name| files.join("tables-v5").join(name));
    let id = |path: &Path| MapData::from_pin(path).unwrap().info().unwrap().id();
    for (from, to) in [(&short, &long), (&long, &short)] {
        std::fs::remove_file(to).unwrap();
        MapData::from_pin(from).unwrap().pin(to).unwrap();
        let wrong = id(to);
        let next = load(&lab);
        assert!(!talk.passes());
        let (next, _) = enforce(&lab, next);
        assert!(!talk.passes());
        assert_ne!(id(to), wrong);
        talk.goes_on();
        drop(next);
    }
}

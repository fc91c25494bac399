//! A host without Kubernetes and without an inventory: what runs here has a name all the same.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod plain;
mod support;

use observer_lab::{Lab, Scenario, unique_prefix};
use observer_proto::{
    flow::{Endpoint, Flow, FlowFilter, Service},
    observer::GetFlowsRequest,
};
use plain::{Cgroups, Idle, addresses, inside, poke};
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};
use support::{Daemon, OBSERVER, can_run, empty_node, late::until};

const SCENARIO: &str = r#"
name = "plain"
[outside]
addresses = ["192.168.50.1/24"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11"]
[[pods]]
name = "blue"
namespace = "host"
node = "n1"
ips = ["10.244.1.10"]
[[pods]]
name = "green"
namespace = "host"
node = "n1"
ips = ["10.244.1.20"]
servers = { echo = 7000 }
[[externals]]
name = "partner"
addresses = ["203.0.113.10"]
servers = { echo = 7000 }
[[traffic]]
name = "between"
from = "pod/host/blue"
kind = "udp"
to = "pod/host/green"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "out"
from = "pod/host/blue"
kind = "udp"
to = "external/partner"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "from-host"
from = "node/n1"
kind = "udp"
to = "pod/host/green"
port = 7000
family = "v4"
count = 1
[[traffic]]
name = "host-out"
from = "node/n1"
kind = "udp"
to = "external/partner"
port = 7000
family = "v4"
count = 1
"#;

#[test]
fn namespaces_and_processes_have_names() {
    if !can_run("namespaces_and_processes_have_names") {
        return;
    }
    let scenario = Scenario::parse(SCENARIO, "plain").unwrap();
    let mut lab = Lab::up(&scenario, &unique_prefix("plain")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unnamed = Idle::in_namespace("exec tail -f /dev/null", "tail");
    unnamed.link(&lab, 0);

    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "plain"]);
    let daemon = Daemon::spawn(command, dir);
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    // Nobody answers there; the kernel says so, and the packet was delivered.
    poke(&lab, 0);

    let name = |pod: usize| {
        let path = lab.pod_netns(&lab.scenario().pods[pod]);
        format!("netns/{}", path.file_name().unwrap().to_str().unwrap())
    };
    let (blue, green) = (name(0), name(1));
    let entries = lab.ledger();
    let source = |traffic: &str| -> SocketAddr {
        entries.iter().find(|entry| entry.traffic == traffic).unwrap().source
    };
    let wanted = [
        (source("between").ip().to_string(), "10.244.1.20", blue.as_str(), green.as_str()),
        (source("out").ip().to_string(), "203.0.113.10", &blue, "reserved:world"),
        (source("from-host").ip().to_string(), "10.244.1.20", "reserved:host", &green),
        (source("host-out").ip().to_string(), "203.0.113.10", "reserved:host", "reserved:world"),
        ("10.250.0.1".to_owned(), "10.250.0.2", "reserved:host", "process/tail"),
    ];
    daemon.flows_until(|flows| {
        let told: HashMap<(String, String), (String, String)> = flows.iter().map(told).collect();
        wanted.iter().find_map(|(from, to, source, destination)| {
            let found = told.get(&(from.clone(), (*to).to_owned()));
            let fits = found.is_some_and(|(s, d)| s == source && d == destination);
            (!fits).then(|| format!("{from} ({source}) -> {to} ({destination}), but {found:?} of {told:#?}"))
        })
    });
    // Such a name filters like a pod's.
    let to = FlowFilter { destination_pod: vec!["process/tail".to_owned()], ..FlowFilter::default() };
    assert!(!filtered(&daemon, to).is_empty());
}

fn filtered(daemon: &Daemon, filter: FlowFilter) -> Vec<observer_proto::observer::GetFlowsResponse> {
    let whitelist = vec![filter];
    daemon.responses(GetFlowsRequest { number: u64::MAX, whitelist, ..GetFlowsRequest::default() })
}

/// A container's full id.
fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

#[test]
fn what_runs_here_is_named_by_container_unit_or_command() {
    let test = "what_runs_here_is_named_by_container_unit_or_command";
    if !can_run(test) {
        return;
    }
    let Some(cgroups) = Cgroups::make(test, &unique_prefix("plain")) else { return };
    let lab = empty_node("plain");
    let container = |number: u8| format!("container/{}", &id(number)[..12]);
    let table: [(String, String); 8] = [
        (format!("system.slice/docker-{}.scope", id(1)), container(1)),
        (format!("kubepods.slice/kubepods-pod7c.slice/cri-containerd-{}.scope", id(2)), container(2)),
        (format!("kubepods.slice/crio-{}.scope/container", id(3)), container(3)),
        (format!("machine.slice/libpod-{}.scope/init", id(4)), container(4)),
        (format!("docker/{}", id(5)), container(5)),
        ("lxc.payload.web/init.scope".to_owned(), "container/web".to_owned()),
        ("system.slice/shop.service".to_owned(), "systemd/shop.service".to_owned()),
        ("user.slice/session-1.scope".to_owned(), "process/tail".to_owned()),
    ];
    let processes: Vec<Idle> = (1..)
        .zip(&table)
        .map(|(number, (cgroup, _))| {
            let idle = Idle::in_namespace("exec tail -f /dev/null", "tail");
            cgroups.put(idle.pid(), cgroup);
            idle.link(&lab, number);
            idle
        })
        .collect();
    // What listens on the node itself.
    let holders = inside(&lab.node_netns("n1"), || {
        [
            (Idle::holding(TcpListener::bind("[::]:7001").unwrap()), &table[0].0),
            (Idle::holding(UdpSocket::bind("0.0.0.0:7002").unwrap()), &table[6].0),
            (Idle::holding(TcpListener::bind("0.0.0.0:7003").unwrap()), &table[7].0),
        ]
    });
    for (holder, cgroup) in &holders {
        cgroups.put(holder.pid(), cgroup);
    }

    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "plain"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    let node = addresses(1, 1);
    let mut wanted = BTreeSet::new();
    for (number, (_, name)) in (1..).zip(&table) {
        poke(&lab, number);
        for (from, to) in addresses(number, 1).into_iter().zip(addresses(number, 2)) {
            wanted.insert((end(from, "reserved:host"), end(to, name)));
        }
    }
    inside(&processes[0].netns(), || {
        for address in node {
            TcpStream::connect((address, 7001)).unwrap();
        }
        TcpStream::connect((node[0], 7003)).unwrap();
        UdpSocket::bind((addresses(1, 2)[0], 0)).unwrap().send_to(b"hello", (node[0], 7002)).unwrap();
    });
    for (address, service) in
        [(node[0], &table[0].1), (node[1], &table[0].1), (node[0], &table[6].1), (node[0], &table[7].1)]
    {
        let client = addresses(1, 2)[usize::from(address.is_ipv6())];
        wanted.insert((end(client, &table[0].1), end(address, service)));
        if *service != table[6].1 {
            // Connections are answered, by the same name.
            wanted.insert((end(address, service), end(client, &table[0].1)));
        }
    }
    daemon.flows_until(|flows| {
        let told: BTreeSet<_> = flows.iter().map(told_with_services).collect();
        let missing: Vec<_> = wanted.difference(&told).collect();
        (!missing.is_empty()).then(|| format!("{missing:#?} of {told:#?}"))
    });
    let to =
        |service: &str| FlowFilter { destination_service: vec![service.to_owned()], ..FlowFilter::default() };
    assert!(!filtered(&daemon, to("systemd/shop")).is_empty(), "what listens filters like a service");
}

#[test]
fn what_listens_is_named_as_it_is_now() {
    let test = "what_listens_is_named_as_it_is_now";
    if !can_run(test) {
        return;
    }
    let Some(cgroups) = Cgroups::make(test, &unique_prefix("plain-listener")) else { return };
    let lab = empty_node("plain-listener");
    let client = Idle::in_namespace("exec tail -f /dev/null", "tail");
    cgroups.put(client.pid(), "client");
    client.link(&lab, 1);
    let node = addresses(1, 1)[0];
    let server = SocketAddr::new(node, 7001);
    let listen = |cgroup: &str| inside(&lab.node_netns("n1"), || Idle::listening(server, &cgroups, cgroup));

    let first = listen("system.slice/first.service");
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "plain"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    let told_as = |name: &str| {
        daemon.flows_until(|flows| {
            // A new connection, for the name as it is by now.
            inside(&client.netns(), || TcpStream::connect(server).unwrap());
            let wanted = end(node, name);
            let is_told = flows.iter().any(|flow| told_with_services(flow).1 == wanted);
            (!is_told).then(|| format!("{wanted} of {} flows", flows.len()))
        });
    };
    told_as("systemd/first.service");
    cgroups.put(first.pid(), "system.slice/moved.service");
    told_as("systemd/moved.service");
    drop(first);
    let _second = listen("user.slice/session-1.scope");
    told_as("process/tail");
}

#[test]
fn a_namespace_is_named_by_who_is_in_it_now() {
    let test = "a_namespace_is_named_by_who_is_in_it_now";
    if !can_run(test) {
        return;
    }
    let Some(cgroups) = Cgroups::make(test, &unique_prefix("plain-leader")) else { return };
    let lab = empty_node("plain-leader");
    let leader = Idle::in_namespace("tail -f /dev/null & exec sleep infinity", "sleep");
    let children = format!("/proc/{0}/task/{0}/children", leader.pid());
    let child: u32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    // Ends only with a signal of its own.
    let child = Other(child);
    until("the child runs its command", || (plain::comm(child.0).as_deref() == Some("tail")).then_some(()));
    for pid in [leader.pid(), child.0] {
        cgroups.put(pid, "user.slice/session-1.scope");
    }
    leader.link(&lab, 1);
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "plain"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    let [v4, v6] = addresses(1, 2);
    let told_as = |name: &str| {
        daemon.flows_until(|flows| {
            // New packets, for the names as they are by now.
            poke(&lab, 1);
            let told: BTreeSet<_> = flows.iter().map(|flow| told_with_services(flow).1).collect();
            let missing = [v4, v6].map(|ip| end(ip, name)).into_iter().find(|wanted| !told.contains(wanted));
            missing.map(|missing| format!("{missing} of {told:#?}"))
        })
    };
    told_as("process/sleep");
    drop(leader);
    told_as("process/tail");
    // With its last process the namespace goes, and another takes its addresses.
    drop(child);
    let successor = Idle::in_namespace("exec tail -f /dev/null", "tail");
    cgroups.put(successor.pid(), &format!("docker/{}", id(9)));
    until("the link of the namespace that is gone", || (!plain::has_link(&lab, "plain1")).then_some(()));
    successor.link(&lab, 1);
    let flows = told_as(&format!("container/{}", &id(9)[..12]));
    let names: BTreeSet<_> = flows.iter().map(|flow| party(flow.destination.as_ref())).collect();
    for name in ["process/sleep", "process/tail"] {
        assert!(names.contains(name), "flows keep the name of their time: {names:?}");
    }
}

/// A process that is nobody's child here; ends with this value.
struct Other(u32);

impl Drop for Other {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        until("the process is gone", || plain::comm(self.0).is_none().then_some(()));
    }
}

/// `address (name)`.
fn end(address: IpAddr, name: &str) -> String {
    format!("{address} ({name})")
}

/// Both ends of a flow with their names, a service's where there is one.
fn told_with_services(flow: &Flow) -> (String, String) {
    let ip = flow.ip.clone().unwrap_or_default();
    let name = |endpoint: Option<&Endpoint>, service: Option<&Service>| match service {
        Some(service) => format!("{}/{}", service.namespace, service.name),
        None => party(endpoint),
    };
    let source = name(flow.source.as_ref(), flow.source_service.as_ref());
    let destination = name(flow.destination.as_ref(), flow.destination_service.as_ref());
    (format!("{} ({source})", ip.source), format!("{} ({destination})", ip.destination))
}

/// Addresses and names of a flow.
fn told(flow: &Flow) -> ((String, String), (String, String)) {
    let ip = flow.ip.clone().unwrap_or_default();
    ((ip.source, ip.destination), (party(flow.source.as_ref()), party(flow.destination.as_ref())))
}

fn party(endpoint: Option<&Endpoint>) -> String {
    let Some(endpoint) = endpoint else { return String::new() };
    if endpoint.pod_name.is_empty() {
        return endpoint
            .labels
            .iter()
            .find(|label| label.starts_with("reserved:"))
            .cloned()
            .unwrap_or_default();
    }
    format!("{}/{}", endpoint.namespace, endpoint.pod_name)
}

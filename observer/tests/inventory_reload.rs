//! The inventory is followed: new names and labels hold from then on, old flows keep theirs, a bad file changes nothing.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, Scenario, scenario::Traffic, unique_prefix};
use observer_proto::{
    flow::{Endpoint, Flow, FlowFilter, layer4::Protocol},
    observer::GetFlowsRequest,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE, can_run};

const SCENARIO: &str = r#"
name = "reload"
[outside]
addresses = ["192.168.50.1/24"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11"]
[[pods]]
name = "client"
namespace = "web"
node = "n1"
ips = ["10.244.1.10"]
[[pods]]
name = "api"
namespace = "shop"
node = "n1"
ips = ["10.244.1.20"]
servers = { echo = 7000 }
[[traffic]]
name = "call"
from = "pod/web/client"
kind = "tcp"
to = "pod/shop/api"
port = 7000
family = "v4"
count = 1
"#;

/// Calls once; both ends of the new connection as its first flow has them.
fn call(lab: &mut Lab, daemon: &Daemon) -> (u32, Endpoint, Endpoint) {
    let traffic: Traffic = lab.scenario().traffic[0].clone();
    lab.play(traffic).unwrap();
    lab.wait_traffic();
    let port = u32::from(lab.ledger().last().unwrap().source.port());
    let flows = daemon.flows_until(|flows| ends(flows, port).is_none().then(|| "the call".to_owned()));
    let (source, destination) = ends(&flows, port).unwrap();
    (port, source, destination)
}

fn ends(flows: &[Flow], port: u32) -> Option<(Endpoint, Endpoint)> {
    let from = |flow: &&Flow| match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => tcp.source_port == port,
        _ => false,
    };
    let flow = flows.iter().find(from)?;
    Some((flow.source.clone()?, flow.destination.clone()?))
}

fn count(daemon: &Daemon, text: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(text)).count()
}

/// Writes the file and waits until the log has `text` once more.
fn write(daemon: &Daemon, file: &Path, content: &str, text: &str) {
    let before = count(daemon, text);
    std::fs::write(file, content).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while count(daemon, text) == before {
        assert!(Instant::now() < deadline, "no {text:?} in:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

const RELOADED: &str = "inventory reloaded";

#[test]
fn the_inventory_is_followed() {
    if !can_run("the_inventory_is_followed") {
        return;
    }
    let scenario = Scenario::parse(SCENARIO, "reload").unwrap();
    let mut lab = Lab::up(&scenario, &unique_prefix("reload")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inventory.yaml");
    let client = "- {name: client, namespace: web, uid: c1, ips: [10.244.1.10], labels: {app: client}}\n";
    let api = "- {name: api, namespace: shop, uid: a1, ips: [10.244.1.20], labels: {app: api}}\n";
    std::fs::write(&file, format!("pods:\n{client}")).unwrap();
    let mut command = lab.command_in("n1", OBSERVER);
    command.args(["--node-name", "n1", "--local-namespaces=false", "--inventory"]).arg(&file);
    let daemon = Daemon::spawn(command, dir);

    let (_, source, unknown) = call(&mut lab, &daemon);
    assert_eq!((&*source.pod_name, &*unknown.pod_name), ("client", ""), "{unknown:?}");

    // Added.
    write(&daemon, &file, &format!("pods:\n{client}{api}"), RELOADED);
    let (port, first_client, first_api) = call(&mut lab, &daemon);
    assert_eq!((&*first_api.namespace, &*first_api.pod_name), ("shop", "api"));
    assert_eq!(first_client, source, "what did not change is as it was");

    // Renamed, and the other one's labels changed.
    let relabelled = client.replace("app: client", "app: client, tier: gold");
    let renamed = api.replace("name: api,", "name: api-v2,").replace("a1", "a2");
    write(&daemon, &file, &format!("pods:\n{relabelled}{renamed}"), RELOADED);
    let (_, new_client, new_api) = call(&mut lab, &daemon);
    assert_eq!((&*new_client.pod_name, &*new_api.pod_name), ("client", "api-v2"));
    assert_eq!(new_api.identity, first_api.identity, "equal labels, equal identity");
    assert_ne!(new_client.identity, first_client.identity, "new labels, new identity");
    assert!(new_client.labels.contains(&"k8s:tier=gold".to_owned()), "{new_client:?}");
    assert_eq!(ends(&daemon.flows(), port), Some((first_client, first_api)), "an old flow keeps its names");

    // A bad file is told by place and field, and changes nothing: neither what is bad in it nor what is good.
    let bad = format!("pods:\n{client}{}", api.replace("10.244.1.20", "10.244.1.300"));
    let complaint = "inventory.yaml:3:47: pods[1].ips[0]: \"10.244.1.300\" is no address";
    write(&daemon, &file, &bad, complaint);
    assert!(daemon.log_line(complaint).contains("the old inventory stays in force"));
    let (_, kept_client, kept_api) = call(&mut lab, &daemon);
    assert_eq!((kept_client, &kept_api), (new_client, &new_api));
    // Removed, by a file that is good again; it tells of the node, too.
    let in_zone = |daemon: &Daemon| {
        let filter = FlowFilter { node_labels: vec!["zone=a".into()], ..FlowFilter::default() };
        let request = GetFlowsRequest { whitelist: vec![filter], number: 1, ..GetFlowsRequest::default() };
        daemon.responses(request).len()
    };
    assert_eq!(in_zone(&daemon), 0);
    let node = "nodes:\n- {name: n1, labels: {zone: a}}\n";
    write(&daemon, &file, &format!("{node}pods:\n{relabelled}"), RELOADED);
    let (_, client, gone) = call(&mut lab, &daemon);
    assert_eq!((&*client.pod_name, &*gone.pod_name), ("client", ""), "{gone:?}");
    assert_ne!(gone.identity, kept_api.identity);
    assert_eq!(in_zone(&daemon), 1);
    assert_eq!(daemon.flows().last().unwrap().node_labels, ["zone=a"]);
}

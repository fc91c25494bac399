//! The real relay, as `deploy/kubernetes` has it, before two nodes' daemons that it finds by the API.

use crate::{
    deploy::{objects, project},
    deployed::{Deployed, observe},
    support::{can_run, late},
};
use observer_lab::{netns, scenario::Traffic};
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command, Stdio},
};

const NODES: [(&str, &str); 2] = [("n1", "192.168.50.11"), ("n2", "192.168.50.12")];
const ADDRESS: &str = "127.0.0.1:4245";

/// A relay; it ends with this value.
struct Relay(Child);

impl Relay {
    /// Starts the container of `hubble-relay.yaml` in a node's network, with the secret's files from `folder` and a daemon
    /// where its service would lead.
    fn start(netns: &Path, folder: &Path) -> Self {
        let text = std::fs::read_to_string(project("deploy/kubernetes/hubble-relay.yaml")).unwrap();
        let deployment = &objects(&text)[&("Deployment".to_owned(), "hubble-relay".to_owned())];
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let program = project("target/interop").join(container["command"][0].as_str().unwrap());
        assert!(program.exists(), "{} is missing: make test-kubernetes builds it", program.display());
        let mut command = netns::command_in(netns, program);
        for argument in container["args"].as_array().unwrap() {
            let argument = argument.as_str().unwrap();
            let service = "hubble-peer.observer.svc.cluster.local.:443";
            let argument = argument.replace("/certs/", &format!("{}/", folder.display()));
            command.arg(argument.replace(service, &format!("{}:4244", NODES[0].1)));
        }
        let log = std::fs::File::create(folder.join("relay.log")).unwrap();
        command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
        Self(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).args(["--server", ADDRESS]).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn the_real_relay_finds_the_daemons_of_all_nodes_by_the_chart() {
    if !can_run("kubernetes: relay") {
        return;
    }
    let mut deployed = Deployed::new("k8srelay", "two-nodes.toml", &[]);
    let mut daemons = NODES.map(|(node, _)| Some(deployed.start(node)));
    for (node, address) in NODES {
        deployed.run_pod(node, address);
    }
    let folder = tempfile::tempdir().unwrap();
    deployed.write_secret("observer-relay-certs", folder.path());
    let netns = deployed.lab.node_netns("n1");
    let _relay = Relay::start(&netns, folder.path());
    let status = |wanted: &str| {
        late::until(wanted, || said(observe(&netns), &["status"]).contains(wanted).then_some(()));
    };
    status("Connected Nodes: 2/2");

    for traffic in deployed.lab.scenario().traffic.clone() {
        deployed.lab.play(Traffic { count: Some(2), delay_ms: 0, interval_ms: 0, ..traffic }).unwrap();
    }
    deployed.lab.wait_traffic();
    late::until("flows of both nodes between named pods", || {
        let said = said(observe(&netns), &["--last", "1000", "--from-namespace", "web", "-o", "json"]);
        let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let nodes: BTreeSet<_> =
            lines.filter_map(|it| Some(it["flow"]["node_name"].as_str()?.to_owned())).collect();
        (nodes == NODES.map(|(node, _)| format!("default/{node}")).into()).then_some(())
    });

    // As a node that burns down.
    let (daemon, _) = daemons[1].take().unwrap();
    drop(daemon.end(rustix::process::Signal::KILL));
    status("Unavailable Nodes: 1\n  - n2");
}

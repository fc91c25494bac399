//! The real relay before two daemons: cases 35 and 36.

use crate::{
    calls::tcp,
    flows::value,
    programs::{Client, certificates, relay, replayed},
    support::{Daemon, OBSERVER, PATIENCE, can_run, scenario},
    tally::{Outcome, Tally, ensure, like},
    tmux::Tmux,
};
use observer_lab::{Lab, unique_prefix};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const DASHBOARD: &str = "dashboard";
const NODES: [(&str, &str); 2] = [("n1", "192.168.50.11:4244"), ("n2", "192.168.50.12:4244")];

/// Plain, or with mutual TLS everywhere but on the socket.
struct Transport {
    /// The case's number.
    number: &'static str,
    daemon: Vec<String>,
    relay: Vec<String>,
    /// How a column of `list nodes` and a name in `watch peers` tell of it.
    column: &'static str,
    peer: fn(&str) -> String,
}

impl Transport {
    fn plain() -> Self {
        Self {
            number: "35",
            daemon: vec!["--insecure".into()],
            relay: ["--disable-client-tls", "--disable-server-tls"].map(str::to_owned).into(),
            column: "Disabled",
            peer: str::to_owned,
        }
    }

    fn tls(certificates: &Path) -> Self {
        let flags = |flags: &[(&str, &str)]| {
            flags
                .iter()
                .flat_map(|(flag, file)| [(*flag).to_owned(), certificates.join(file).display().to_string()])
                .collect()
        };
        Self {
            number: "36",
            daemon: flags(&[
                ("--tls-cert-file", "server.crt"),
                ("--tls-key-file", "server.key"),
                ("--tls-client-ca-files", "ca.crt"),
            ]),
            relay: flags(&[
                ("--tls-hubble-client-cert-file", "relay.crt"),
                ("--tls-hubble-client-key-file", "relay.key"),
                ("--tls-hubble-server-ca-files", "ca.crt"),
                ("--tls-relay-server-cert-file", "relay.crt"),
                ("--tls-relay-server-key-file", "relay.key"),
                ("--tls-relay-client-ca-files", "ca.crt"),
            ]),
            column: "Enabled",
            peer: |node| format!("{node} (TLS.ServerName: {node}.default.hubble-grpc.cilium.io)"),
        }
    }
}

#[test]
fn two_daemons_behind_a_relay() {
    if can_run("two_daemons_behind_a_relay") {
        let mut tally = Tally::default();
        behind_a_relay("relay", &Transport::plain(), &mut tally, |client| client);
    }
}

#[test]
fn two_daemons_behind_a_relay_by_mutual_tls() {
    if !can_run("two_daemons_behind_a_relay_by_mutual_tls") {
        return;
    }
    let mut tally = Tally::default();
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    tally.case("4", "hubble status --server tls://HOST:PORT with a client certificate", straight(dir.path()));
    behind_a_relay("relaytls", &Transport::tls(dir.path()), &mut tally, |client| {
        client.by_tls(dir.path(), "relay.hubble-relay.cilium.io")
    });
}

/// One daemon, no relay: who has a certificate is let in, who has none or calls another name is not.
fn straight(certificates: &Path) -> Outcome {
    let transport = Transport::tls(certificates);
    let args: Vec<&str> =
        ["--listen", "127.0.0.1:0"].into_iter().chain(transport.daemon.iter().map(String::as_str)).collect();
    let daemon = replayed("demo", &args);
    let client = || Client::hubble(format!("tls://{}", tcp(&daemon)));
    let status =
        client().by_tls(certificates, "n1.default.hubble-grpc.cilium.io").run("status", &[]).clean()?;
    like("stdout", &status, "Healthcheck (via *): Ok\n...\n")?;
    for stranger in [client().by_tls(certificates, "n1.hubble-relay.cilium.io"), client()] {
        let ran = stranger.run("status --tls-allow-insecure=false", &[]);
        ensure(ran.code == Some(1) && ran.stdout.is_empty(), || format!("let in: {ran:?}"))?;
    }
    Ok(())
}

fn behind_a_relay(
    name: &str,
    transport: &Transport,
    tally: &mut Tally,
    as_client: impl Fn(Client) -> Client,
) {
    let mut lab = Lab::up(&scenario("two-nodes.toml"), &unique_prefix(name)).unwrap();
    let mut daemons: Vec<Daemon> =
        NODES.iter().map(|(node, address)| daemon(&lab, node, address, transport)).collect();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    for daemon in &daemons {
        daemon.settled();
    }
    let netns = lab.node_netns("n1");
    let dir = tempfile::tempdir().unwrap();
    let peers = format!("unix://{}", daemons[0].dir.path().join("hubble.sock").display());
    let relay_args: Vec<&str> =
        ["--peer-service", &peers].into_iter().chain(transport.relay.iter().map(String::as_str)).collect();
    let _relay = relay(&netns, dir.path(), &relay_args);
    let hubble = as_client(Client::hubble("127.0.0.1:4245").inside(netns.clone()));
    let number = transport.number;

    tally.case(
        "32",
        &format!("hubble watch peers of two nodes ({number})"),
        peers_of_two(&Client::hubble(peers), transport),
    );
    if transport.column == "Disabled" {
        tally.case(number, "health of the relay on port 4222", health(&netns, dir.path()));
    }
    tally.case(number, "hubble status through the relay: two nodes", two_nodes(&hubble));
    tally.case(
        "31",
        &format!("hubble list nodes through the relay ({number})"),
        list_nodes(&hubble, transport),
    );
    tally.case(number, "hubble observe through the relay: both nodes, by time", merged(&hubble));
    tally.case(number, "hubble observe -f through the relay", follow(&mut lab, &hubble));
    let dashboard = (transport.column == "Disabled").then(|| dashboard(&netns, dir.path()));
    // As a node that burns down: without a word.
    drop(daemons.pop().unwrap().end(rustix::process::Signal::KILL));
    tally.case(number, "hubble status through the relay: one node is gone", one_gone(&hubble));
    tally.case(number, "hubble observe through the relay: one node is gone", named(&hubble));
    if let Some(tmux) = dashboard {
        tmux.shows(DASHBOARD, &["PARTIAL 1/2 nodes"]);
        tally.case(number, "observe tui through the relay: both nodes, and one that is gone", Ok(()));
    }
}

/// The dashboard in a terminal in that node, when it has shown both nodes.
fn dashboard(netns: &Path, home: &Path) -> Tmux {
    let tmux = Tmux(unique_prefix("relaytui"));
    let line = format!(
        "env -u XDG_STATE_HOME -u XDG_CONFIG_HOME HOME={} OBSERVE_SERVER=127.0.0.1:4245 nsenter --net={} {} tui",
        home.display(),
        netns.display(),
        Path::new(OBSERVER).with_file_name("observe").display(),
    );
    tmux.start(DASHBOARD, (120, 36), &line);
    tmux.shows(DASHBOARD, &["LIVE"]);
    tmux.keys(DASHBOARD, &["7"]);
    tmux.until(DASHBOARD, "a row of each node", |screen| {
        NODES.iter().all(|(node, _)| screen.lines().any(|line| line.contains(node) && line.contains(" ok ")))
    });
    tmux
}

/// The daemon of a node, by whose inventory it knows the other's.
fn daemon(lab: &Lab, node: &str, address: &str, transport: &Transport) -> Daemon {
    let mut inventory: serde_json::Value = serde_json::from_str(&lab.inventory().to_text().unwrap()).unwrap();
    for entry in inventory["nodes"].as_array_mut().unwrap() {
        let (_, address) = NODES.iter().find(|(node, _)| entry["name"] == *node).unwrap();
        entry["hubble_address"] = (*address).into();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inventory.yaml");
    std::fs::write(&file, inventory.to_string()).unwrap();
    let mut command = lab.command_in(node, OBSERVER);
    command.args(["--node-name", node, "--listen", address, "--inventory"]).arg(file).args(&transport.daemon);
    Daemon::spawn(command, dir)
}

/// Repeats until it holds; the relay finds peers and losses in its own time.
fn until(look: impl Fn() -> Outcome) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Err(problem) if Instant::now() > deadline => return Err(problem),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            Ok(()) => return Ok(()),
        }
    }
}

fn peers_of_two(hubble: &Client, transport: &Transport) -> Outcome {
    let mut watch = hubble.start("watch peers");
    let mut lines: Vec<String> = (0..2).map_while(|_| watch.line()).collect();
    lines.sort();
    let wanted = NODES.map(|(node, address)| format!("PEER_ADDED   {address} {}\n", (transport.peer)(node)));
    like("stdout", &(lines.join("\n") + "\n"), &wanted.concat())
}

/// Kubernetes probes it so.
fn health(netns: &Path, dir: &Path) -> Outcome {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let name = netns.file_name().unwrap().to_str().unwrap();
    until(|| {
        observer_lab::netns::inside(name, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Ok(runtime.block_on(async {
                let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:4222");
                let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
                let request = HealthCheckRequest { service: "hubble.server.Observer".into() };
                let answer =
                    HealthClient::new(channel).check(request).await.map_err(|error| error.to_string())?;
                let status = answer.into_inner().status();
                ensure(status == ServingStatus::Serving, || format!("{status:?}"))
            }))
        })
        .unwrap()
        .map_err(|problem| format!("{problem}; {}", std::fs::read_to_string(dir.join("relay.log")).unwrap()))
    })
}

fn two_nodes(hubble: &Client) -> Outcome {
    until(|| {
        let status = hubble.run("status", &[]).clean()?;
        like(
            "stdout",
            &status,
            "Healthcheck (via *): Ok\nCurrent/Max Flows: */131,072 *\nFlows/s: *\nConnected Nodes: 2/2\n",
        )
    })
}

fn list_nodes(hubble: &Client, transport: &Transport) -> Outcome {
    let nodes = hubble.run("list nodes -o wide", &[]).clean()?;
    let wanted = NODES
        .map(|(node, address)| format!("{node} *Connected * observer v* {address} *{}\n", transport.column));
    like("stdout", &nodes, &format!("NAME *\n{}", wanted.concat()))
}

fn merged(hubble: &Client) -> Outcome {
    // The relay sorts what its buffer of 100 flows holds, so many from each node.
    let flows = hubble.run("observe --last 40 -o json", &[]).clean()?;
    let flows: Vec<_> = flows.lines().map(value).collect();
    for (node, _) in NODES {
        let count = flows.iter().filter(|line| line["node_name"] == format!("default/{node}")).count();
        ensure(count == 40, || format!("{count} flows of {node}"))?;
    }
    let times = flows.iter().map(|line| line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    ensure(times.is_sorted(), || "not in order of time".to_owned())
}

fn follow(lab: &mut Lab, hubble: &Client) -> Outcome {
    let mut follower = hubble.start("observe -f -o json --protocol udp --port 7000");
    let mut direct =
        lab.scenario().traffic.iter().find(|traffic| traffic.name == "direct-1").unwrap().clone();
    (direct.count, direct.delay_ms, direct.interval_ms) = (None, 0, 20);
    lab.play(direct).unwrap();
    let mut nodes = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let Some(line) = follower.line() else { break };
        nodes.extend(value(&line)["node_name"].as_str().map(str::to_owned));
        if nodes.len() == NODES.len() {
            break;
        }
    }
    lab.stop_traffic();
    ensure(nodes.len() == NODES.len(), || format!("flows of {nodes:?} only"))?;
    let (code, stderr) = follower.interrupt();
    ensure(code == Some(0) && stderr.is_empty(), || format!("after Ctrl-C: {code:?} {stderr}"))
}

fn one_gone(hubble: &Client) -> Outcome {
    until(|| {
        let status = hubble.run("status", &[]).clean()?;
        like("stdout", &status, "...\nConnected Nodes: 1/2\nUnavailable Nodes: 1\n- n2\n")
    })
}

/// Flows go on, and the one that is missing has its name on stderr.
fn named(hubble: &Client) -> Outcome {
    let ran = hubble.run("observe --last 5", &[]);
    ensure(ran.code == Some(0) && ran.stdout.lines().count() == 5, || format!("{ran:?}"))?;
    like("stderr", &ran.stderr, "*: 1 nodes are unavailable: n2\n")
}

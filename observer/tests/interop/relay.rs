//! The real relay before two daemons: cases 35 and 36.

use crate::{
    flows::value,
    programs::{Client, relay},
    support::{Daemon, can_run, scenario},
    tally::{Outcome, Tally, ensure, like},
};
use observer_lab::{Lab, unique_prefix};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const NODES: [(&str, &str); 2] = [("n1", "192.168.50.11:4244"), ("n2", "192.168.50.12:4244")];

#[test]
fn two_daemons_behind_a_relay() {
    if !can_run("two_daemons_behind_a_relay") {
        return;
    }
    let mut lab = Lab::up(&scenario("two-nodes.toml"), &unique_prefix("relay")).unwrap();
    let mut daemons: Vec<Daemon> = NODES
        .iter()
        .map(|(node, address)| Daemon::start(&lab, node, &["--listen", address, "--insecure"]))
        .collect();
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    for daemon in &daemons {
        daemon.settled();
    }
    let mut tally = Tally::default();
    let netns = lab.node_netns("n1");
    let dir = tempfile::tempdir().unwrap();
    let peers = format!("unix://{}", daemons[0].dir.path().join("hubble.sock").display());
    let _relay = relay(
        &netns,
        dir.path(),
        &["--peer-service", &peers, "--disable-client-tls", "--disable-server-tls"],
    );
    let hubble = Client::hubble("127.0.0.1:4245").inside(netns.clone());

    tally.case("32", "hubble watch peers of two nodes", peers_of_two(&Client::hubble(peers.clone())));
    tally.case("35", "health of the relay on port 4222", health(&netns, dir.path()));
    tally.case("35", "hubble status through the relay: two nodes", two_nodes(&hubble));
    tally.case("31", "hubble list nodes through the relay", list_nodes(&hubble));
    tally.case("35", "hubble observe through the relay: both nodes, by time", merged(&hubble));
    tally.case("35", "hubble observe -f through the relay", follow(&mut lab, &hubble));
    // As a node that burns down: without a word.
    drop(daemons.pop().unwrap().end(rustix::process::Signal::KILL));
    tally.case("35", "hubble status through the relay: one node is gone", one_gone(&hubble));
    tally.case("35", "hubble observe through the relay: one node is gone", named(&hubble));
}

/// Repeats until it holds; the relay finds peers and losses in its own time.
fn until(look: impl Fn() -> Outcome) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match look() {
            Err(problem) if Instant::now() > deadline => return Err(problem),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            Ok(()) => return Ok(()),
        }
    }
}

fn peers_of_two(hubble: &Client) -> Outcome {
    let mut watch = hubble.start("watch peers");
    let mut lines: Vec<String> = (0..2).map_while(|_| watch.line()).collect();
    lines.sort();
    like(
        "stdout",
        &(lines.join("\n") + "\n"),
        "PEER_ADDED   192.168.50.11:4244 n1\nPEER_ADDED   192.168.50.12:4244 n2\n",
    )
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

fn list_nodes(hubble: &Client) -> Outcome {
    let nodes = hubble.run("list nodes -o wide", &[]).clean()?;
    like(
        "stdout",
        &nodes,
        "NAME *\nn1 *Connected * observer v* 192.168.50.11:4244 *Disabled\nn2 *Connected * observer v* 192.168.50.12:4244 *Disabled\n",
    )
}

fn merged(hubble: &Client) -> Outcome {
    let flows = hubble.run("observe --all -o json", &[]).clean()?;
    let flows: Vec<_> = flows.lines().map(value).collect();
    for (node, _) in NODES {
        let count = flows.iter().filter(|line| line["node_name"] == format!("default/{node}")).count();
        ensure(count > 50, || format!("{count} flows of {node}"))?;
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

//! `observer-lab`: plays a scenario until told to stop.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use observer_lab::scenario::{Party, Pod, Scenario, Service};
use observer_lab::{Cause, Lab, state};
use tokio::signal::unix::{SignalKind, signal};

/// Network namespaces with pods, services, drops and traffic, from a scenario file.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the lab and play its traffic until Ctrl-C, SIGTERM or the end of --seconds; then remove it.
    Up {
        /// The scenario (TOML).
        scenario: PathBuf,
        /// Start of the namespaces' names; the scenario's name where left out.
        #[arg(long)]
        prefix: Option<String>,
        /// Play for so long.
        #[arg(long)]
        seconds: Option<u64>,
        /// Write the inventory for the daemon here, before the traffic starts.
        #[arg(long)]
        inventory: Option<PathBuf>,
        /// Write the ledger here at the end (JSON lines).
        #[arg(long)]
        ledger: Option<PathBuf>,
    },
    /// Remove labs whose player is dead.
    Clean {
        /// Only the lab of this prefix.
        prefix: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observer-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Action::Up { scenario, prefix, seconds, inventory, ledger } => {
            let scenario = Scenario::load(&scenario)?;
            let prefix = prefix.unwrap_or_else(|| scenario.name.clone());
            up(&scenario, &prefix, seconds, inventory.as_deref(), ledger.as_deref())
        }
        Action::Clean { prefix } => {
            for removed in state::clean(prefix.as_deref())? {
                say(&format!("removed lab {removed}\n"));
            }
            Ok(())
        }
    }
}

fn up(
    scenario: &Scenario,
    prefix: &str,
    seconds: Option<u64>,
    inventory: Option<&Path>,
    ledger: Option<&Path>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the signal handler")?;
    runtime.block_on(async {
        // Registered before anything is built: a signal while building must not leave half a lab.
        let mut terminated = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let mut lab = Lab::up(scenario, prefix)?;
        say(&describe(&lab));
        if let Some(path) = inventory {
            lab.write_inventory(path)?;
            say(&format!("  inventory  {}\n", path.display()));
        }
        lab.start_traffic()?;
        // The demo waits for this line.
        say("ready\n");
        let end = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        lab.stop_traffic();
        let entries = lab.ledger();
        let expected = entries.iter().filter(|entry| entry.as_expected()).count();
        say(&format!("lab {prefix}: {} connections, {expected} as expected\n", entries.len()));
        for odd in entries.iter().filter(|entry| !entry.as_expected()).take(10) {
            say(&format!(
                "  not as expected: {} {} -> {}: {:?}\n",
                odd.traffic, odd.from, odd.to, odd.outcome
            ));
        }
        if let Some(path) = ledger {
            lab.write_ledger(path)?;
        }
        lab.down()?;
        Ok(())
    })
}

/// Prints; a reader that has gone away doesn't keep the lab from being taken down.
fn say(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn addresses(list: &[IpAddr]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A port may be of two protocols.
fn service_line(scenario: &Scenario, service: &Service) -> String {
    let ports: Vec<_> =
        service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol.nft())).collect();
    let backends = scenario.backends(service).len();
    format!(
        "  service    {}/{} {} {}, {backends} backend{}",
        service.namespace,
        service.name,
        addresses(&service.cluster_ips),
        ports.join(" "),
        if backends == 1 { "" } else { "s" }
    )
}

/// What was made, in a block to read.
fn describe(lab: &Lab) -> String {
    let scenario = lab.scenario();
    let mut lines = vec![format!("lab {}: {} namespaces", scenario.name, lab.namespaces().len())];
    for node in &scenario.nodes {
        let wiring = format!("{:?}", node.wiring).to_lowercase();
        let netns = lab.node_netns(&node.name);
        lines.push(format!(
            "  node       {} ({wiring}) {}  --net={}",
            node.name,
            addresses(&node.addresses),
            netns.display()
        ));
    }
    let listening = |pod: &Pod| {
        let servers = pod.servers;
        [("http", servers.http), ("echo", servers.echo), ("dns", servers.dns), ("metrics", servers.metrics)]
            .iter()
            .filter_map(|(name, port)| port.map(|port| format!(" {name}:{port}")))
            .collect::<String>()
    };
    for pod in &scenario.pods {
        lines.push(format!("  pod        {} {}{}", pod.path(), addresses(&pod.ips), listening(pod)));
    }
    lines.extend(scenario.services.iter().map(|service| service_line(scenario, service)));
    for external in &scenario.externals {
        lines.push(format!("  outside    {} {}", external.name, addresses(&external.addresses)));
    }
    let mut drops = BTreeSet::new();
    for traffic in scenario.traffic.iter().filter(|traffic| traffic.expect != Cause::None) {
        let reasons = traffic.expect.reasons().join("|");
        let to = match &traffic.to {
            Party::Drop(name) => name.clone(),
            other => other.to_string(),
        };
        drops.insert(format!("  drop       {} -> {to}: {reasons}", traffic.from));
    }
    lines.extend(drops);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_tell_their_ports_apart_and_count_their_backends() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/lab/demo.toml");
        let scenario = Scenario::load(Path::new(path)).unwrap();
        let line = |name: &str| {
            let service = scenario.services.iter().find(|service| service.name == name).unwrap();
            service_line(&scenario, service)
        };
        let analytics = line("analytics-service");
        assert!(analytics.ends_with(" 80/tcp 7000/tcp 7000/udp, 1 backend"), "{analytics}");
        let api = line("payments-api");
        assert!(api.ends_with(" 8080/tcp, 2 backends"), "{api}");
    }
}

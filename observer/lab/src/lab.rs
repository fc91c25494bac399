//! A running lab.

use std::collections::{BTreeMap, HashMap};
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use crate::ledger::Ledger;
use crate::links::{self, Counters};
use crate::plan::Plan;
use crate::scenario::{Party, Pod, Scenario, Traffic};
use crate::server::{self, Shared};
use crate::state::{self, Claim};
use crate::traffic::{Opener, Ports, Stop};
use crate::{Entry, Inventory, LabError, Result, dns, netns};

/// A prefix that no other lab of this machine has: for tests that run side by side.
pub fn unique_prefix(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A lab that is up: its namespaces exist and its servers listen. Dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    scenario: Scenario,
    prefix: String,
    claim: Option<Claim>,
    ledger: Arc<Ledger>,
    stop: Arc<Stop>,
    ports: HashMap<String, Arc<Ports>>,
    /// Closed to stop the servers.
    servers_alive: Option<PipeWriter>,
    servers: Vec<JoinHandle<()>>,
    openers: Vec<JoinHandle<()>>,
}

impl Lab {
    /// Removes what dead players left, then builds the scenario. Needs root.
    pub fn up(scenario: &Scenario, prefix: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        state::clean(None)?;
        let plan = Plan { scenario, prefix };
        let claim = Claim::take(prefix, plan.namespaces())?;
        // From here on an error drops the lab, which takes down what is there.
        let mut lab = Self {
            scenario: scenario.clone(),
            prefix: prefix.into(),
            claim: Some(claim),
            ledger: Arc::default(),
            stop: Arc::default(),
            ports: HashMap::new(),
            servers_alive: None,
            servers: Vec::new(),
            openers: Vec::new(),
        };
        plan.build()?;
        lab.start_servers()?;
        plan.namespaces().iter().try_for_each(|namespace| links::wait_ready(namespace))?;
        Ok(lab)
    }

    fn plan(&self) -> Plan<'_> {
        Plan { scenario: &self.scenario, prefix: &self.prefix }
    }

    fn start_servers(&mut self) -> Result<()> {
        let shared = Arc::new(Shared { ledger: Arc::clone(&self.ledger), zone: dns::zone(&self.scenario) });
        let (reader, writer) = std::io::pipe().map_err(LabError::system("making a pipe"))?;
        self.servers_alive = Some(writer);
        let plan = self.plan();
        let pods = self.scenario.pods.iter().map(|pod| {
            (plan.pod(pod), Party::Pod(pod.namespace.clone(), pod.name.clone()), &pod.ips, pod.servers)
        });
        let externals = self.scenario.externals.iter().map(|external| {
            (plan.outside(), Party::External(external.name.clone()), &external.addresses, external.servers)
        });
        let mut threads = Vec::new();
        for (namespace, party, addresses, servers) in pods.chain(externals) {
            let host = netns::inside(&namespace, || server::listen(&party.to_string(), addresses, servers))?;
            let stop = reader.try_clone().map_err(LabError::system("copying a pipe"))?;
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || host.serve(&shared, &stop)));
        }
        self.servers = threads;
        Ok(())
    }

    /// Starts all traffic of the scenario.
    pub fn start_traffic(&mut self) -> Result<()> {
        self.start_traffic_where(|_| true)
    }

    /// Starts the traffic entries that `chosen` picks.
    pub fn start_traffic_where(&mut self, chosen: impl Fn(&Traffic) -> bool) -> Result<()> {
        let picked: Vec<Traffic> = self.scenario.traffic.iter().filter(|t| chosen(t)).cloned().collect();
        picked.into_iter().try_for_each(|traffic| self.play(traffic))
    }

    /// Starts one stream of traffic, from the scenario or not. It must name parties of the scenario.
    pub fn play(&mut self, traffic: Traffic) -> Result<()> {
        let namespace = self.namespace_of(&traffic.from).ok_or_else(|| LabError::Invalid {
            scenario: self.scenario.name.clone(),
            message: format!("traffic {}: from = \"{}\" is not declared", traffic.name, traffic.from),
        })?;
        let opener = Opener {
            sources: self.scenario.addresses(&traffic.from),
            destinations: self.scenario.addresses(&traffic.to),
            ports: Arc::clone(self.ports.entry(traffic.from.to_string()).or_default()),
            ledger: Arc::clone(&self.ledger),
            traffic,
        };
        let stop = Arc::clone(&self.stop);
        let name = namespace.clone();
        let (entered, wait) = std::sync::mpsc::channel();
        self.openers.push(std::thread::spawn(move || {
            let result = netns::enter(&name);
            let inside = result.is_ok();
            // The receiver waits for exactly this.
            let _ = entered.send(result);
            if inside {
                opener.run(&stop);
            }
        }));
        wait.recv().unwrap_or_else(|_| {
            Err(LabError::system(format!("entering {namespace}"))(std::io::ErrorKind::Other.into()))
        })
    }

    /// Waits until all started traffic has ended by itself; traffic without a count needs [`Lab::stop_traffic`].
    pub fn wait_traffic(&mut self) {
        for opener in self.openers.drain(..) {
            // A panic there is a bug of the lab, and shows here.
            opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }

    /// Ends all traffic, each stream after the connection it is in. It can be started again.
    pub fn stop_traffic(&mut self) {
        self.stop.stop();
        self.wait_traffic();
        self.stop = Arc::default();
    }

    /// Takes the lab down and tells whether all is gone.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        self.stop.stop();
        self.servers_alive = None;
        // Sockets keep a namespace alive: they are closed first.
        for thread in self.openers.drain(..).chain(self.servers.drain(..)) {
            // A thread that panicked has closed its sockets too.
            let _ = thread.join();
        }
        self.claim.take().map_or(Ok(()), |claim| claim.release())
    }

    /// Every connection so far, both sides joined.
    pub fn ledger(&self) -> Vec<Entry> {
        self.ledger.entries()
    }

    /// Connections the ledger had no room for.
    pub fn ledger_left_out(&self) -> u64 {
        self.ledger.left_out()
    }

    /// Writes the ledger as JSON lines.
    pub fn write_ledger(&self, path: &Path) -> Result<()> {
        let problem = || format!("writing the ledger to {}", path.display());
        let mut text = String::new();
        for entry in self.ledger() {
            text += &serde_json::to_string(&entry).map_err(|e| LabError::system(problem())(e.into()))?;
            text.push('\n');
        }
        std::fs::write(path, text).map_err(LabError::system(problem()))
    }

    /// Who is who, for the daemon.
    pub fn inventory(&self) -> Inventory {
        Inventory::of(&self.scenario)
    }

    /// Writes the inventory file.
    pub fn write_inventory(&self, path: &Path) -> Result<()> {
        let problem = || format!("writing the inventory to {}", path.display());
        let text = self.inventory().to_text().map_err(|e| LabError::system(problem())(e.into()))?;
        std::fs::write(path, text).map_err(LabError::system(problem()))
    }

    /// The scenario that is played.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The namespace file of a node, for `nsenter --net=`.
    pub fn node_netns(&self, node: &str) -> PathBuf {
        netns::path(&self.plan().node(node))
    }

    /// The namespace file of a pod.
    pub fn pod_netns(&self, pod: &Pod) -> PathBuf {
        netns::path(&self.plan().pod(pod))
    }

    /// The namespace file of the network outside.
    pub fn outside_netns(&self) -> PathBuf {
        netns::path(&self.plan().outside())
    }

    /// All namespaces' names, as `ip netns` lists them.
    pub fn namespaces(&self) -> Vec<String> {
        self.plan().namespaces()
    }

    /// A command that runs a program in a node's namespace.
    pub fn command_in(&self, node: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        netns::command_in(&self.node_netns(node), program)
    }

    /// The node's end of a pod's veth.
    pub fn pod_link(&self, pod: &Pod) -> String {
        self.plan().pod_link(pod)
    }

    /// The counters of a node's links, by link name.
    pub fn link_counters(&self, node: &str) -> Result<BTreeMap<String, Counters>> {
        links::counters(&self.plan().node(node))
    }

    fn namespace_of(&self, party: &Party) -> Option<String> {
        let plan = self.plan();
        match party {
            Party::Pod(namespace, name) => self.scenario.pod(namespace, name).map(|pod| plan.pod(pod)),
            Party::Node(name) => {
                self.scenario.nodes.iter().find(|n| n.name == *name).map(|n| plan.node(&n.name))
            }
            Party::External(_) => Some(plan.outside()),
            Party::Service(..) | Party::Drop(_) | Party::Address(_) => None,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("lab {}: {error}", self.prefix);
        }
    }
}

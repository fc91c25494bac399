//! Capture: the eBPF programs, their links and rings, and everything they count.
//!
//! [`Capture`] is the whole of it for the pipeline's thread. Two threads stand behind it: one attaches and detaches as
//! links come and go, one sweeps the tables once a second; neither holds up the rings. When the [`Capture`] is dropped,
//! nothing is left in the kernel, unless its [`Keeper`] was told that it stays.

mod age;
mod attach;
mod classify;
mod clsact;
mod config;
mod counters;
mod detach;
mod error;
mod flow_table;
mod generation;
mod glob;
mod hooks;
mod inspect;
pub mod kernel;
mod lines;
mod links;
mod near;
pub(crate) mod netlink;
mod object;
mod openers;
mod pins;
mod pod;
mod policy;
mod proxy;
mod ring;
mod rings;
mod slots;
mod sweep;
mod tables;
mod unlinked;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub use attach::Keeper;
pub use config::{Aggregation, CaptureConfig, DEFAULT_IGNORED_REASONS, DropHook, LinkHook};
pub use counters::{AttachTimes, CaptureStatus, Fill, HookStatus, LinkStatus, ProgramStatus, StatusHandle};
pub use detach::{Detached, detach, staying_on};
pub use error::CaptureError;
pub use glob::Glob;
pub use inspect::{
    Inspector, MapUse, OnHook, PolicyInForce, ProgramUse, RingUse, TableEntry, count_runs, statistics_on,
};
pub use links::{Link, LinkKind, LinkTable};
pub use netlink::{namespaces_outside, node_addresses};
pub use openers::Opener;
pub use policy::{PolicyMaps, PolicyNet, PolicyTables};
pub use proxy::ProxySwitch;
pub use rings::Drained;
pub use unlinked::{Unlinked, unlinked};

/// What has a number in the programs' maps.
type Inode = u32;

/// The running capture.
#[derive(Debug)]
pub struct Capture {
    rings: rings::Rings,
    sweeper: sweep::Sweeper,
    keeper: Keeper,
    links: links::Watcher,
    shared: Arc<counters::Shared>,
    tables: Arc<tables::Tables>,
    facts: Arc<kernel::btf::KernelFacts>,
    handles: Arc<inspect::Handles>,
}

/// The programs in the kernel, on no link yet.
#[derive(Debug)]
pub struct Loaded {
    object: object::Object,
    config: CaptureConfig,
    facts: Arc<kernel::btf::KernelFacts>,
}

impl Loaded {
    /// The maps that the programs judge by; `None` where they were not to judge, or the kernel refuses those that do, as
    /// the status of the hooks then says.
    pub fn policy_maps(&mut self) -> Option<PolicyMaps> {
        self.object.policy_maps()
    }

    /// Where the programs that judge are told of the proxy; `None` where there are none.
    pub fn proxy_switch(&mut self) -> Option<ProxySwitch> {
        self.object.proxy_switch()
    }

    /// Tells the programs that judge who opened connections that are older than they are: for those that they have no
    /// entry of. Returns how many they have no room for.
    pub fn tell_openers(&mut self, openers: impl Iterator<Item = Opener>) -> Result<usize, CaptureError> {
        self.object.tell_openers(openers)
    }

    /// Why nothing can be dropped by policies, if so.
    pub fn why_not_enforced(&self) -> Option<String> {
        self.object.why_not_enforced()
    }

    /// Has the programs stay when the daemon goes, as [`Keeper::stay`] does it later.
    pub fn stay(&mut self) -> Result<(), String> {
        self.object.stay()
    }

    /// Attaches them to every link of this thread's network namespace that the configuration means, now and when more of
    /// them appear. No link is no error: it waits for some. Programs of an earlier daemon that stayed there are replaced
    /// between two packets.
    pub fn attach(self) -> Result<Capture, CaptureError> {
        let Self { mut object, config, facts } = self;
        let handles = Arc::new(object.handles());
        let rings = object.rings()?;
        let tables = Arc::new(object.tables()?);
        tables.ignore_reasons(&config, &facts)?;
        let shared = Arc::new(object.shared()?);
        let sweeper = sweep::Sweeper::start(object.sweep_maps()?, &config, Arc::clone(&shared.swept))?;
        let keeper = Keeper::new(object.attacher());
        let links = links::Watcher::start(keeper.clone(), Arc::clone(&shared), Arc::clone(&tables), &config)?;
        Ok(Capture { rings, sweeper, keeper, links, shared, tables, facts, handles })
    }
}

impl Capture {
    /// Loads the programs into the kernel. What they drop is seen from now on, flows when they are attached.
    pub fn load(config: &CaptureConfig) -> Result<Loaded, CaptureError> {
        let facts = Arc::new(kernel::btf::KernelFacts::read()?);
        let object = object::load(config, &facts)?;
        Ok(Loaded { object, config: config.clone(), facts })
    }

    /// [`Capture::load`] and [`Loaded::attach`].
    pub fn start(config: &CaptureConfig) -> Result<Self, CaptureError> {
        Self::load(config)?.attach()
    }

    /// Waits until there may be something to drain, one of `others` is readable, or the time is up.
    ///
    /// After a full batch it lets the rings fill for up to 10 ms, since a wake-up costs more than a record.
    pub fn wait(&mut self, others: &[BorrowedFd<'_>], timeout: Duration) -> Result<(), CaptureError> {
        self.rings.wait(others, timeout)
    }

    /// Gives records in the rings to `each`, drops first; not all where there are very many, and then [`Capture::wait`]
    /// returns at once.
    pub fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<Drained, CaptureError> {
        self.rings.drain(each)
    }

    /// Whether [`Capture::wait`] now lets the rings fill.
    pub fn is_busy(&self) -> bool {
        self.rings.is_busy()
    }

    /// Once a second: gives `each` what the last sweep of the tables found (sums of drops, last totals of connections
    /// that fell silent, facts) and starts the next one beside the caller.
    ///
    /// A sweep's totals may be older than those of a record drained before: of two, the higher one is right.
    pub fn sweep(&mut self, each: &mut dyn FnMut(&[u8])) -> usize {
        self.sweeper.collect(each)
    }

    /// Says whether the programs stay when the daemon goes.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Detaches all programs that don't stay, and gives `each` all that is left, however young. What was counted is then told in full.
    pub fn stop(mut self, each: &mut dyn FnMut(&[u8])) -> Result<usize, CaptureError> {
        self.links.stop();
        Ok(self.rings.drain_all(each)? + self.sweeper.finish(each))
    }

    /// Tells the programs which addresses local pods have, and which ones beside the links' own the node has.
    pub fn set_local_addresses(&self, pods: &[IpAddr], nodes: &[IpAddr]) -> Result<(), CaptureError> {
        self.tables.set_local_addresses(pods, nodes)
    }

    /// Tells them the ports (protocol, port) that services listen on: the side of a connection that has one is asked.
    pub fn set_service_ports(&self, ports: &[(u8, u16)]) -> Result<(), CaptureError> {
        self.tables.set_service_ports(ports)
    }

    /// Adds network namespaces, by inode, to those whose drops are told: the node's and those behind pod links.
    pub fn set_watched_netns(&self, inodes: &[u32]) -> Result<(), CaptureError> {
        self.tables.set_watched(inodes)
    }

    /// The links and addresses of the node as of now.
    pub fn links(&self) -> Arc<LinkTable> {
        self.shared.links.load_full()
    }

    /// What is attached and counted, readable from any thread.
    pub fn status(&self) -> StatusHandle {
        StatusHandle::new(Arc::clone(&self.shared))
    }

    /// What is known of this kernel: drop reason names.
    pub fn kernel(&self) -> Arc<kernel::btf::KernelFacts> {
        Arc::clone(&self.facts)
    }
}

//! Where names come from: the trait of all sources, and what they tell the IP cache.

use super::{ipcache::IpCache, labels::LabelMap};
use crate::endpoint::Workload;
use ipnet::IpNet;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc, thread::JoinHandle, time::Duration};

/// Precedence: where two sources name one address, the greater one is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rank {
    /// Local network namespaces: always there, but they know only what runs here.
    Local,
    /// The inventory file.
    Inventory,
    /// The Kubernetes API.
    Kubernetes,
}

/// When a change happened: after `since` and not after `at`, in kernel time ([`crate::decode::Clock::kernel_now`]), as
/// events have it: no step of the wall clock comes between a name and its packets. A source that is told of changes has
/// both equal; one that looks now and then has its last look in `since`, and 0 in its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The last time the old state was seen.
    pub since: u64,
    /// The first time the new state was seen.
    pub at: u64,
}

impl Window {
    /// A change whose time is known.
    pub fn exact(at: u64) -> Self {
        Self { since: at, at }
    }
}

/// A pod, or anything else that has addresses and labels of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// What tells it from an earlier or later pod of the same name; unique within its source.
    pub uid: String,
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it uses its node's network: then its addresses are the node's.
    pub host_network: bool,
    /// Whether it has Succeeded or Failed: then its addresses are free, though Kubernetes goes on showing them.
    pub finished: bool,
    /// Whether it runs on this node.
    pub local: bool,
    /// Security labels, sorted, see [`super::labels`].
    pub labels: Vec<String>,
    /// The owner workloads.
    pub workloads: Vec<Workload>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: LabelMap,
    /// Where its own daemon serves Hubble's API, if it does. A recording plays no other daemons.
    #[serde(skip)]
    pub peer: Option<Peer>,
}

/// A daemon that serves Hubble's API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The cluster of its node.
    pub cluster: String,
    /// `address:port`, or `unix:///path`.
    pub address: String,
}

/// A service with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Its cluster addresses; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which pods stand behind it.
    pub selector: LabelMap,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port's name, empty where it has none.
    pub name: String,
    /// The port that clients call.
    pub port: u16,
    /// IANA protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The pods' port.
    pub target: TargetPort,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the pod gives it.
    Name(String),
}

/// A named list of CIDRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrGroup {
    /// Its name.
    pub name: String,
    /// Its CIDRs, without host bits.
    pub cidrs: Vec<IpNet>,
}

/// What a source knows besides pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Addresses that serve the Kubernetes API.
    pub kube_apiservers: Vec<IpAddr>,
    /// All services.
    pub services: Vec<ServiceEntry>,
    /// What listens on the node itself: named like a service, but never what stands behind a translated address.
    pub listeners: Vec<ServiceEntry>,
    /// All CIDR groups.
    pub cidr_groups: Vec<CidrGroup>,
}

/// All that a source knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// All pods.
    pub pods: Vec<Pod>,
    /// The rest.
    pub surroundings: Surroundings,
}

/// One change that a source tells the IP cache of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Everything that the source knows now; what it knew before and isn't in it is gone.
    All(Rank, Snapshot, Window),
    /// A pod is new, or changed.
    Pod(Rank, Pod, Window),
    /// The pod of this UID is gone. Pods of the same name or address with another UID are left alone.
    Gone(Rank, String, Window),
    /// All that the source knows besides pods.
    Surroundings(Rank, Surroundings),
}

/// Keeps the changes that an IP cache makes, for a recording.
pub trait Journal: std::fmt::Debug + Send + Sync {
    /// Has the change made by `make`, which tells whether it was one, and keeps it if so. Nothing that is kept besides
    /// comes between the two.
    fn keep(&self, change: &Change, make: &mut dyn FnMut() -> bool);
}

/// Why a source can't start; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The inventory file.
    #[error(transparent)]
    Inventory(#[from] super::inventory::InventoryError),
    /// Local network namespaces.
    #[error("cannot look into local network namespaces: {0}")]
    Local(#[from] super::local::LocalError),
    /// The thread for it.
    #[error("cannot start a thread for a source of names: {0}")]
    Thread(#[source] std::io::Error),
}

/// Something that knows names. It runs in a thread of its own, off the event path.
pub trait Source: Send + 'static {
    /// Its precedence; no two sources of one daemon share it.
    fn rank(&self) -> Rank;
    /// The first load, before events are taken: an error here stops the daemon.
    fn load(&mut self, cache: &IpCache) -> Result<(), SourceError>;
    /// Follows changes until told to stop. A failed reload keeps what was there.
    fn follow(&mut self, cache: &IpCache, stop: &Stop);
}

/// The running sources. Dropping it stops and joins them.
#[derive(Debug)]
pub struct Sources {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Sources {
    /// Loads each source once, then follows it in its own thread.
    pub fn start(sources: Vec<Box<dyn Source>>, cache: &Arc<IpCache>) -> Result<Self, SourceError> {
        let stop = Stop::new().map_err(|e| SourceError::Thread(e.into()))?;
        let mut running = Self { stop, threads: Vec::new() };
        for mut source in sources {
            source.load(cache)?;
            let (cache, stop) = (Arc::clone(cache), running.stop.clone());
            let name = format!("names-{:?}", source.rank()).to_lowercase();
            let thread = std::thread::Builder::new().name(name).spawn(move || source.follow(&cache, &stop));
            running.threads.push(thread.map_err(SourceError::Thread)?);
        }
        Ok(running)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            // A source that panicked has told so itself.
            let _ = thread.join();
        }
    }
}

/// Tells threads to stop, and lets them wait for that and for descriptors of their own.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Not set.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends all waits, those to come too.
    pub fn set(&self) {
        // Can fail only if the counter is full: then it is set.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until `fd` can be read, the time is over, or it is time to stop: only then `true`.
    pub fn wait(&self, fd: Option<BorrowedFd<'_>>, time: Duration) -> bool {
        let mut fds = vec![PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        fds.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut fds, Some(&time)) {
            Ok(_) => fds[0].revents().contains(PollFlags::IN),
            Err(Errno::INTR | Errno::AGAIN) => false,
            // Nothing to wait on any more: going on would spin.
            Err(_) => true,
        }
    }
}

/// Readable when it is set.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

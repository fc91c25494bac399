//! Where names come from: the trait of all sources, and what they tell the IP cache.

use super::ipcache::IpCache;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, thread::JoinHandle, time::Duration};

pub use observer_inventory::{
    CidrGroup, Node, Peer, Pod, PodPort, ServiceEntry, ServicePort, Snapshot, Surroundings, TargetPort,
};

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

impl Rank {
    /// All, with what metrics call them.
    pub(crate) const ALL: [(Self, &str); 3] =
        [(Self::Local, "local"), (Self::Inventory, "inventory"), (Self::Kubernetes, "kubernetes")];
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
    /// Several pods are new or changed, and those of these UIDs are gone; in which order nobody knows.
    Pods(Rank, Vec<Pod>, Vec<String>, Window),
    /// Whether the source has yet to tell of all pods for the first time: until then whoever nobody knows may be a pod.
    Awaited(Rank, bool),
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
    Inventory(#[from] observer_inventory::InventoryError),
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

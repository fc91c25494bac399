//! Names from local network namespaces, so that a plain host shows more than addresses.
//!
//! A namespace is named by what a user knows it by: its name under /run/netns, else the container, systemd unit or
//! command of its oldest process. It becomes an endpoint that filters like a pod: `netns/blue`,
//! `container/3f2a9c01d4e5`, `systemd/nginx.service`, `process/sleep`; its one label says the same in full and makes its
//! identity: `netns:name=blue`, `container:id=<64 digits>`, `systemd:unit=nginx.service`, `process:command=sleep`.
//!
//! What listens on the node itself is named alike, as a service at the node's addresses: `systemd/sshd.service`.
//!
//! Addresses come by netlink with the namespace's id as this namespace sees it, so nothing enters another namespace. One
//! without an id has no link to here and is left out. Netlink tells of changes of these, so they are kept until it does;
//! processes and names are looked at each second.

mod cgroup;
mod established;
mod listeners;
mod netlink;
mod scan;

pub(crate) use established::{Established, established, ports_of_sshd};

use super::{
    ipcache::IpCache,
    source::{Node, Rank, Snapshot, Source, SourceError, Stop, Surroundings, Window},
};
use crate::decode::Clock;
use listeners::Listeners;
use netlink::{Events, Netlink};
use rustix::fd::AsFd as _;
use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

/// How often processes and names are looked at; netlink tells of links, addresses and ids at once.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long what netlink answered is believed without word of a change: of a default route that moves there is none.
const BELIEVED: Duration = Duration::from_secs(5);
/// Events come in bursts: one look for each.
const SETTLE: Duration = Duration::from_millis(20);
/// While events never end, a look's rest is this many times its own length: no more than a fifth of one CPU.
const REST: u32 = 4;

/// Why local namespaces can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No netlink.
    #[error("route netlink: {0}")]
    Netlink(#[source] io::Error),
    /// The kernel does not tell what listens.
    #[error("sock_diag netlink: {0}; has this kernel CONFIG_INET_DIAG?")]
    Listeners(#[source] io::Error),
    /// No /proc.
    #[error("{path}: {source}; is /proc mounted?")]
    Proc {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The local network namespaces as a source of names.
#[derive(Debug)]
pub struct LocalNamespaces {
    netlink: Netlink,
    events: Events,
    listeners: Listeners,
    answers: Answers,
    /// Kernel time.
    last_look: u64,
    /// Troubles that were told, so that each is told once.
    told: BTreeSet<String>,
}

/// What netlink answered.
#[derive(Debug, Default)]
struct Answers {
    /// Nothing where it has to be asked again.
    since: Option<Instant>,
    own: Vec<IpAddr>,
    outside: HashSet<i32>,
    namespaces: scan::Known,
}

impl LocalNamespaces {
    /// Opens the netlink sockets, in the calling thread's network namespace.
    pub fn open() -> Result<Self, LocalError> {
        let netlink = Netlink::open().map_err(LocalError::Netlink)?;
        let events = Events::open().map_err(LocalError::Netlink)?;
        let listeners = Listeners::open().map_err(LocalError::Listeners)?;
        let (answers, told) = Default::default();
        Ok(Self { netlink, events, listeners, answers, last_look: 0, told })
    }

    fn look(&mut self, cache: &IpCache) -> Result<(), LocalError> {
        let at = Clock::kernel_now();
        // Those that came while settling belong to this look.
        let is_told = self.events.drain();
        let is_believed = self.answers.since.is_some_and(|since| since.elapsed() < BELIEVED);
        if is_told || !is_believed || !self.events.are_of_all_namespaces() {
            self.ask().map_err(LocalError::Netlink)?;
        }
        let Answers { own, outside, namespaces, .. } = &mut self.answers;
        let found = scan::scan(&mut self.netlink, outside, namespaces)?;
        // Namespaces have names without it.
        let (listeners, troubles) = self.listeners.services(own).unwrap_or_else(|error| {
            (Vec::new(), vec![format!("what listens on the node has no name: {error}")])
        });
        for trouble in found.troubles.into_iter().chain(troubles) {
            if self.told.len() < scan::MAX_NAMESPACES && self.told.insert(trouble.clone()) {
                tracing::warn!("local names: {trouble}");
            }
        }
        let node = Node { name: cache.node().to_owned(), addresses: own.clone(), ..Node::default() };
        let surroundings = Surroundings { nodes: vec![node], listeners, ..Surroundings::default() };
        let window = Window { since: self.last_look, at };
        cache.replace(Rank::Local, Snapshot { pods: found.pods, surroundings }, window);
        self.last_look = at;
        cache.confirm(Rank::Local, at);
        Ok(())
    }

    /// What `scan` then misses, it asks for itself.
    fn ask(&mut self) -> io::Result<()> {
        self.answers = Answers::default();
        self.answers.own = self.netlink.addresses(None)?;
        self.answers.outside = crate::capture::namespaces_outside()?;
        self.answers.since = Some(Instant::now());
        Ok(())
    }
}

impl Source for LocalNamespaces {
    fn rank(&self) -> Rank {
        Rank::Local
    }

    fn load(&mut self, cache: &IpCache) -> Result<(), SourceError> {
        Ok(self.look(cache)?)
    }

    fn follow(&mut self, cache: &IpCache, stop: &Stop) {
        let mut took = Duration::ZERO;
        while !stop.wait(Some(self.events.as_fd()), INTERVAL) {
            if self.events.drain() {
                self.answers.since = None;
                if stop.wait(None, SETTLE.max(took * REST)) {
                    return;
                }
            }
            let start = Instant::now();
            if let Err(error) = self.look(cache) {
                let text = error.to_string();
                if self.told.insert(text.clone()) {
                    tracing::warn!("cannot look into local network namespaces: {text}; the last names stay");
                }
            }
            took = start.elapsed();
        }
    }
}

#[cfg(test)]
mod tests;

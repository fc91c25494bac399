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
//! without an id has no link to here and is left out.

mod cgroup;
mod listeners;
mod netlink;
mod scan;

use super::{
    ipcache::IpCache,
    source::{Node, Rank, Snapshot, Source, SourceError, Stop, Surroundings, Window},
};
use crate::decode::Clock;
use listeners::Listeners;
use netlink::{Events, Netlink};
use rustix::fd::AsFd as _;
use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

/// How often processes and names are looked at; netlink tells of links, addresses and ids at once.
const INTERVAL: Duration = Duration::from_secs(1);
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
    /// Kernel time.
    last_look: u64,
    /// Troubles that were told, so that each is told once.
    told: BTreeSet<String>,
}

impl LocalNamespaces {
    /// Opens the netlink sockets, in the calling thread's network namespace.
    pub fn open() -> Result<Self, LocalError> {
        let netlink = Netlink::open().map_err(LocalError::Netlink)?;
        let events = Events::open().map_err(LocalError::Netlink)?;
        let listeners = Listeners::open().map_err(LocalError::Listeners)?;
        Ok(Self { netlink, events, listeners, last_look: 0, told: BTreeSet::new() })
    }

    fn look(&mut self, cache: &IpCache) -> Result<(), LocalError> {
        let at = Clock::kernel_now();
        let own = self.netlink.addresses(None).map_err(LocalError::Netlink)?;
        let outside = crate::capture::namespaces_outside().map_err(LocalError::Netlink)?;
        let found = scan::scan(&mut self.netlink, &outside)?;
        // Namespaces have names without it.
        let (listeners, troubles) = self.listeners.services(&own).unwrap_or_else(|error| {
            (Vec::new(), vec![format!("what listens on the node has no name: {error}")])
        });
        for trouble in found.troubles.into_iter().chain(troubles) {
            if self.told.len() < scan::MAX_NAMESPACES && self.told.insert(trouble.clone()) {
                tracing::warn!("local names: {trouble}");
            }
        }
        let node = Node { name: cache.node().to_owned(), addresses: own, ..Node::default() };
        let surroundings = Surroundings { nodes: vec![node], listeners, ..Surroundings::default() };
        let window = Window { since: self.last_look, at };
        cache.replace(Rank::Local, Snapshot { pods: found.pods, surroundings }, window);
        self.last_look = at;
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
            if self.events.drain() && stop.wait(None, SETTLE.max(took * REST)) {
                return;
            }
            let start = Instant::now();
            // Those that came while settling belong to this look.
            self.events.drain();
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

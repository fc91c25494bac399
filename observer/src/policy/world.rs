//! The policies compiled for the endpoints that there are, published whole.
//!
//! There are two of them. Who judges reads the one; the other takes in a change and takes its place, and then the first
//! takes it in too, once nobody reads it any more. So neither waits for the other but for that.

use super::feed::Fed;
use crate::{
    endpoint::Endpoint,
    enrich::{identity::LOCAL_SCOPE, reserved::Reserved},
};
use hashbrown::HashMap;
use observer_inventory::policy::HOST;
use observer_policy::engine::{self, Engine, PeerId, PolicyKey, WithMode};
use std::{
    net::IpAddr,
    num::NonZeroU64,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Before the name of another node.
pub(super) const NODE: &str = "node:";
/// What serves the Kubernetes API and is no node.
pub(super) const KUBE_APISERVER: &str = "kube-apiserver";

/// The engine, and which of its endpoints is which of the IP cache's.
#[derive(Debug)]
pub struct World {
    /// The policies, compiled.
    pub engine: Engine,
    /// By the number of the endpoint's version.
    names: HashMap<NonZeroU64, Arc<str>>,
    /// Of the set of policies.
    pub(super) revision: u64,
}

/// What becomes of policies, each gone or in its mode.
pub(super) type Policed = Vec<(PolicyKey, Option<WithMode>)>;

/// A change of both.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) fed: Fed,
    /// The next set's revision, and what it changes.
    pub(super) policies: Option<(u64, Policed)>,
}

impl World {
    /// Without endpoints and policies.
    pub(super) fn new() -> Self {
        // The world is one identity for both families, as the IP cache has it.
        Self { engine: Engine::new(false), names: HashMap::new(), revision: 0 }
    }

    pub(super) fn apply(&mut self, change: Change) {
        let Change { fed: Fed { endpoints, names, surroundings }, policies } = change;
        let (revision, policies) = policies.unwrap_or((self.revision, Vec::new()));
        self.revision = revision;
        self.engine.apply(engine::Change { endpoints, policies, surroundings });
        for (serial, name) in names {
            match name {
                Some(name) => self.names.insert(serial, name),
                None => self.names.remove(&serial),
            };
        }
    }

    /// The name of a pod, or of the own node, by this version of its endpoint.
    pub(super) fn name(&self, endpoint: &Endpoint, reserved: &Reserved) -> Option<&str> {
        if endpoint.serial() == reserved.host.serial() {
            return Some(HOST);
        }
        self.names.get(&endpoint.serial()).map(|name| &**name)
    }

    /// The other end of a connection; nothing where it isn't certain, or is another by now.
    pub(super) fn peer(&self, endpoint: &Endpoint, address: IpAddr, reserved: &Reserved) -> Option<PeerId> {
        if let Some(name) = self.name(endpoint, reserved) {
            return self.engine.peer_of(name, address);
        }
        let owner = self.engine.name_at(address);
        let is_it = match endpoint.identity {
            identity if identity == reserved.world.identity || identity >= LOCAL_SCOPE => owner.is_none(),
            identity
                if identity == reserved.remote_node.identity
                    || identity == reserved.kube_apiserver.identity =>
            {
                owner.is_some_and(|owner| owner.starts_with(NODE) || owner == KUBE_APISERVER)
            }
            _ => false,
        };
        is_it.then(|| self.engine.peer_at(address))
    }
}

/// The published world and its twin.
#[derive(Debug)]
pub(super) struct Worlds {
    both: [RwLock<World>; 2],
    /// Which of them is read.
    published: AtomicUsize,
}

impl Worlds {
    /// As they are after the first change.
    pub(super) fn new(change: Change) -> Self {
        let worlds =
            Self { both: [World::new(), World::new()].map(RwLock::new), published: AtomicUsize::new(0) };
        worlds.apply(change);
        worlds
    }

    /// The published one. Its next change but one waits for the reader.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, World> {
        loop {
            match self.both[self.published.load(Ordering::Acquire)].try_read() {
                Ok(world) => return world,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                // Only the other one is ever changed: since this look it is the published one.
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }

    /// Publishes the change. Only one thread at a time may do so.
    pub(super) fn apply(&self, change: Change) {
        let old = self.published.load(Ordering::Acquire);
        let write = |number: usize| self.both[number].write().unwrap_or_else(PoisonError::into_inner);
        write(1 - old).apply(change.clone());
        self.published.store(1 - old, Ordering::Release);
        write(old).apply(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_published_beside_a_reader_and_only_then_waits_for_it() {
        let change = |revision| Change { policies: Some((revision, Vec::new())), ..Change::default() };
        let worlds = Worlds::new(change(1));
        let old = worlds.read();
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| worlds.apply(change(2)));
            while worlds.read().revision == 1 {
                std::thread::yield_now();
            }
            assert!(old.revision == 1 && !changing.is_finished());
            drop(old);
        });
        assert_eq!(worlds.both.map(|world| world.into_inner().unwrap().revision), [2, 2]);
    }
}

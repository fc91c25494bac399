//! The policies compiled for the endpoints that there are, published whole.
//!
//! There are two of them. Who judges reads the one; the other takes in a change and takes its place, and then the first
//! takes it in too, once nobody reads it any more. So neither waits for the other but for that.

use super::{Policies, feed::Fed};
use crate::{
    endpoint::Endpoint,
    enrich::{identity::LOCAL_SCOPE, reserved::Reserved},
};
use hashbrown::HashMap;
use observer_inventory::policy::HOST;
use observer_policy::engine::{self, Engine, PeerId, PolicyKey, WithMode};
use std::{net::IpAddr, num::NonZeroU64, sync::Arc, time::Duration};

/// Before the name of another node.
pub(super) const NODE: &str = "node:";
/// What serves the Kubernetes API and is no node.
pub(super) const KUBE_APISERVER: &str = "kube-apiserver";

/// How soon it is looked again whether somebody reads still: readers are done with a batch, or an answer.
const READERS: Duration = Duration::from_millis(1);

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
        let owner = self.engine.owner_at(address);
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

/// The one that nobody reads.
#[derive(Debug)]
pub(super) struct Standby(pub(super) Arc<World>);

impl Standby {
    /// Publishes the change.
    pub(super) fn apply(&mut self, policies: &Policies, change: &Change) {
        self.take(change);
        self.0 = policies.world.swap(Arc::clone(&self.0));
        self.take(change);
    }

    fn take(&mut self, change: &Change) {
        loop {
            if let Some(world) = Arc::get_mut(&mut self.0) {
                return world.apply(change.clone());
            }
            std::thread::sleep(READERS);
        }
    }
}

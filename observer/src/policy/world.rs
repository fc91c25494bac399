//! The policies compiled for the endpoints that there are, published whole.
//!
//! There are two of them. Who judges reads the one; the other takes in a change and takes its place, and then the first
//! takes it in too, once nobody reads it any more. So neither waits for the other but for that.
//!
//! Where the kernel judges, each has a slot there, since numbers mean nothing but in the world that gave them. A slot is
//! filled before its world is published; and a world is changed only when no program reads its slot any more and all that
//! was decided by it has been told.

use super::{
    drained::Drained,
    feed::Fed,
    kernel::{Kernel, Made},
};
use crate::{
    capture::CaptureError,
    decode::Clock,
    endpoint::Endpoint,
    enrich::{identity::LOCAL_SCOPE, reserved::Reserved, source::ServiceEntry},
};
use hashbrown::HashMap;
use observer_ebpf::policy::slot;
use observer_inventory::policy::HOST;
use observer_policy::engine::{self, Engine, PeerId, PolicyKey, WithMode};
use rustix::io::Errno;
use std::{
    net::IpAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    names: HashMap<NonZeroU64, Named>,
    /// Those of this node, and how many versions of each are among the names.
    local: HashMap<Arc<str>, usize>,
    pub(super) services: Arc<[ServiceEntry]>,
    /// Of the set of policies, see [`super::Set`].
    pub revision: u64,
    /// What its slot in the kernel says of addresses, where that is known.
    made: Option<Made>,
}

/// The engine's name of a pod, and whether it is on this node.
pub(super) type Named = (Arc<str>, bool);

/// What becomes of policies, each gone or in its mode.
pub(super) type Policed = Vec<(PolicyKey, Option<WithMode>)>;

/// A change of both.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) fed: Fed,
    /// The next set's revision, and what it changes.
    pub(super) policies: Option<(u64, Policed)>,
}

impl Change {
    /// Both, the later one's word counting.
    fn then(self, later: Self) -> Self {
        Self { fed: self.fed.then(later.fed), policies: later.policies.or(self.policies) }
    }
}

impl World {
    /// Without endpoints and policies.
    pub(super) fn new() -> Self {
        // The world is one identity for both families, as the IP cache has it.
        let engine = Engine::new(false);
        let services = Arc::from([]);
        Self { engine, names: HashMap::new(), local: HashMap::new(), services, revision: 0, made: None }
    }

    pub(super) fn apply(&mut self, change: Change) {
        let Change { fed: Fed { endpoints, names, surroundings, services }, policies } = change;
        let (revision, policies) = policies.unwrap_or((self.revision, Vec::new()));
        self.revision = revision;
        self.engine.apply(engine::Change { endpoints, policies, surroundings });
        self.services = services.unwrap_or_else(|| Arc::clone(&self.services));
        for (serial, name) in names {
            if let Some((name, true)) = &name {
                *self.local.entry(Arc::clone(name)).or_default() += 1;
            }
            let old = match name {
                Some(name) => {
                    // Whether it is on this node may be another answer.
                    self.engine.touch(&name.0);
                    self.names.insert(serial, name)
                }
                None => self.names.remove(&serial),
            };
            if let Some((old, true)) = old
                && let Some(versions) = self.local.get_mut(&old)
            {
                *versions -= 1;
                if *versions == 0 {
                    self.local.remove(&old);
                    self.engine.touch(&old);
                }
            }
        }
    }

    /// What takes a change of policies back.
    fn back_from(&self, (_, policies): &(u64, Policed)) -> (u64, Policed) {
        let now = policies.iter().map(|(key, _)| (key.clone(), self.engine.policy(key)));
        (self.revision, now.collect())
    }

    /// What its slot is to hold; it is to be given back once the slot holds it.
    fn make(&mut self) -> Made {
        let Self { engine, local, services, made, .. } = self;
        Made::anew(made.take(), engine, services, |name| local.contains_key(name))
    }

    /// Whether the engine's name is that of a pod of this node.
    pub(super) fn is_local(&self, name: &str) -> bool {
        self.local.contains_key(name)
    }

    /// The name of a pod, or of the own node, by this version of its endpoint.
    pub(super) fn name(&self, endpoint: &Endpoint, reserved: &Reserved) -> Option<&str> {
        if endpoint.serial() == reserved.host.serial() {
            return Some(HOST);
        }
        self.names.get(&endpoint.serial()).map(|(name, _)| &**name)
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

/// The published world and its twin. In the kernel's maps each has its slot.
#[derive(Debug)]
pub(super) struct Worlds {
    both: [RwLock<World>; 2],
    /// Which of them is read.
    published: AtomicUsize,
    /// The generations that each decided are later than this one; [`NONE`] while nothing that is to come is its.
    since: [AtomicU64; 2],
    writing: Mutex<Writing>,
    /// Whether the kernel judges.
    in_kernel: AtomicBool,
    pub(super) drained: Drained,
}

/// In [`Worlds::since`]: no generation has so many bits.
const NONE: u64 = u64::MAX;

/// What only changes need.
#[derive(Debug, Default)]
struct Writing {
    kernel: Option<Box<dyn Kernel>>,
    /// What each world still has to take in.
    behind: [Option<Change>; 2],
}

impl Worlds {
    /// As they are after the first change.
    pub(super) fn new(change: Change) -> Result<Self, Errno> {
        let mut both = [World::new(), World::new()];
        both[0].apply(change.clone());
        both[1].apply(change);
        Ok(Self {
            both: both.map(RwLock::new),
            published: AtomicUsize::new(0),
            since: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            writing: Mutex::default(),
            in_kernel: AtomicBool::new(false),
            drained: Drained::new()?,
        })
    }

    /// Has the kernel judge from now on, whose programs are not attached yet; how many addresses found no room there.
    pub(super) fn enter(&self, mut kernel: Box<dyn Kernel>) -> Result<usize, CaptureError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let in_force = slot(kernel.generation());
        let next = (1 - in_force) as usize;
        let mut made = self.lock(next).make();
        kernel.write(next as u32, &made.tables, None)?;
        let left_out = made.left_out;
        made.keep_addresses();
        self.lock(next).made = Some(made);
        self.since[next].store(kernel.generation().into(), Ordering::Release);
        kernel.flip()?;
        self.published.store(next, Ordering::Release);
        writing.kernel = Some(kernel);
        self.in_kernel.store(true, Ordering::Release);
        Ok(left_out)
    }

    /// Whether the kernel judges.
    pub(super) fn are_in_kernel(&self) -> bool {
        self.in_kernel.load(Ordering::Acquire)
    }

    /// The published one, and its number. Its next change but one waits for the reader.
    pub(super) fn read(&self) -> (usize, RwLockReadGuard<'_, World>) {
        loop {
            let published = self.published.load(Ordering::Acquire);
            match self.both[published].try_read() {
                Ok(world) => return (published, world),
                Err(TryLockError::Poisoned(poisoned)) => return (published, poisoned.into_inner()),
                // Only the other one is ever changed: since this look it is the published one.
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }

    /// Whether a world is still that by which the kernel decided in this generation.
    pub(super) fn decided(&self, number: usize, generation: u32) -> bool {
        match u32::try_from(self.since[number].load(Ordering::Acquire)) {
            // Generations begin again after the last number.
            Ok(since) => (1..1 << 31).contains(&generation.wrapping_sub(since)),
            Err(_) => false,
        }
    }

    /// A world by its number, if nobody changes it now.
    pub(super) fn try_read(&self, number: usize) -> Option<RwLockReadGuard<'_, World>> {
        match self.both[number].try_read() {
            Ok(world) => Some(world),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self, number: usize) -> RwLockWriteGuard<'_, World> {
        self.both[number].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the change; how many addresses the kernel has no room for. An error is the kernel's: then policies are as
    /// they were, and names go on being tried.
    pub(super) fn apply(&self, change: Change) -> Result<usize, CaptureError> {
        self.apply_then(change, || {})
    }

    /// Likewise; calls `published` as soon as it is in force, which is before all that was decided by the old ones is told.
    pub(super) fn apply_then(&self, change: Change, published: impl FnOnce()) -> Result<usize, CaptureError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { kernel, behind } = &mut *writing;
        let old = self.published.load(Ordering::Acquire);
        let next = 1 - old;
        let mut left_out = 0;
        let back = {
            let mut world = self.lock(next);
            let back = change.policies.as_ref().map(|policies| world.back_from(policies));
            let all = behind[next].take().unwrap_or_default();
            world.apply(all.then(change.clone()));
            back
        };
        behind[old] = Some(behind[old].take().unwrap_or_default().then(change));
        if let Some(kernel) = kernel {
            // The guard is let go of before the kernel writes: nobody else writes, and nobody reads it yet.
            let made = self.lock(next).make();
            left_out = made.left_out;
            if let Err(why) = self.put_in_force(&mut **kernel, next, made) {
                if back.is_some() {
                    self.lock(next).apply(Change { policies: back, ..Change::default() });
                    behind[old].iter_mut().for_each(|change| change.policies = None);
                    behind[old].take_if(|change| change.fed.is_empty());
                }
                return Err(why);
            }
        }
        self.published.store(next, Ordering::Release);
        published();
        if let Some(kernel) = kernel {
            if let Err(error) = kernel.wait_for_programs() {
                tracing::warn!(%error, "packets may be told without the policies that judged them");
            }
            self.drained.wait(Clock::kernel_now());
            self.since[old].store(NONE, Ordering::Release);
        }
        let mut world = self.lock(old);
        behind[old].take().into_iter().for_each(|change| world.apply(change));
        Ok(left_out)
    }

    fn put_in_force(&self, kernel: &mut dyn Kernel, next: usize, made: Made) -> Result<(), CaptureError> {
        kernel.write(next as u32, &made.tables, made.only.as_deref())?;
        self.lock(next).made = Some(made);
        // Before the first packet is judged by it: the next generation is none before this one.
        self.since[next].store(kernel.generation().into(), Ordering::Release);
        let flipped = kernel.flip();
        if flipped.is_err() {
            self.since[next].store(NONE, Ordering::Release);
        }
        flipped.map(|_| ())
    }

    /// Whether names were not taken in by the kernel, which may have room for them now.
    pub(super) fn are_behind(&self) -> bool {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.behind.iter().any(Option::is_some)
    }
}

#[cfg(test)]
pub(super) mod tests;

//! Policies: read from files and the Kubernetes API, and what they say of each new connection on the sides that are on this node.
//!
//! ```text
//! files, API ─┐
//!             ├─> Updater, a thread ─> World, published whole ─> Judge, the pipeline's thread ─> policy verdicts
//! IP cache ───┘                         └─> the kernel's maps ─> flow programs ─> records ─┘
//! ```
//!
//! Where the kernel judges, `Judge` names what it decided; else, and in replays, it judges itself.

mod drained;
mod feed;
mod judge;
mod kernel;
mod lockout;
mod modes;
mod named;
mod requests;
mod rulings;
mod set;
#[cfg(test)]
mod tests;
mod update;
mod world;

pub(crate) use drained::Drained;
pub(crate) use judge::Judge;
pub use kernel::{Made, tables as kernel_tables};
pub use modes::ModesError;
pub use requests::Judged;
pub(crate) use requests::{Ruled, Said};
pub use set::{Declared, Set};
pub use update::{CommandError, Follower, Named, Updater};
pub use world::World;
use world::Worlds;

use crate::{capture::CaptureError, policy_verdict::PolicyName};
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use observer_policy::{
    Dialect,
    model::{Mode, PolicyId},
    source::{LoadError, Options},
};
use observer_proto::control::PolicyHits;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where policies come from, and how they are read.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the user's, and each stands by itself")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Files and folders.
    pub files: Vec<PathBuf>,
    /// Whether those of the Kubernetes API count, too. With neither nothing is judged.
    pub of_kubernetes: bool,
    /// The mode of those that say none.
    pub mode: Mode,
    /// Whose reading of a NetworkPolicy.
    pub dialect: Dialect,
    /// What none exceeds.
    pub cap: Option<Cap>,
    /// Whether a pod's connections are dropped until it is known who the pod is.
    pub unknown_denied: bool,
    /// Whether connections pass whose requests can't be judged, since the proxy is not there.
    pub l7_on_failure_allows: bool,
    /// Enforces also what cuts this node off.
    pub allow_lockout: bool,
    /// The TCP port that this daemon serves.
    pub own_port: Option<u16>,
    /// Where modes are kept that commands say; without they last as long as the daemon.
    pub state_dir: Option<PathBuf>,
}

/// The mode that no policy exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The mode.
    pub most: Mode,
    /// Why, in a clause such as "a replay drops nothing".
    pub why: Arc<str>,
}

impl PolicyConfig {
    /// Whether there are policies, or may be.
    pub fn is_given(&self) -> bool {
        !self.files.is_empty() || self.of_kubernetes
    }

    /// Whether connections are judged.
    pub fn judges(&self) -> bool {
        self.is_given() && self.cap.as_ref().is_none_or(|cap| cap.most > Mode::Observe)
    }

    /// Whether any may be enforced.
    pub fn may_enforce(&self) -> bool {
        self.is_given() && self.cap.as_ref().is_none_or(|cap| cap.most == Mode::Enforce)
    }

    /// How documents are read.
    pub fn options(&self, cluster: &str) -> Options {
        Options { dialect: self.dialect, cluster: cluster.into() }
    }

    /// Lets nothing be dropped, for this reason unless there is one already.
    pub(crate) fn drop_nothing(&mut self, why: &str) {
        self.cap.get_or_insert_with(|| Cap { most: Mode::Audit, why: why.into() });
    }
}

/// Why there are no policies to judge by.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file that can't be read, or a document that is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The modes that commands said.
    #[error(transparent)]
    Modes(#[from] ModesError),
    /// Enforcement would end with the daemon.
    #[error("enforcement would not stay on without the daemon, so it is not taken: {0}")]
    Staying(String),
    /// The node would be cut off; what of it, by which policies.
    #[error("{0}")]
    Lockout(String),
    /// The thread that follows files and names.
    #[error("cannot start a thread for policies: {0}")]
    Thread(#[source] std::io::Error),
    /// The kernel has no room for them.
    #[error("the kernel does not take the policies: {0}")]
    Kernel(#[from] CaptureError),
}

/// The policies in force, for those who judge and those who ask.
#[derive(Debug)]
pub struct Policies {
    worlds: Worlds,
    set: ArcSwap<Set>,
    hits: Mutex<HashMap<PolicyId, Arc<Hits>>>,
    /// What is wrong with the files, while they are not what is in force.
    problem: Mutex<Option<String>>,
    /// What is counted of all connections.
    pub counters: Counters,
}

/// What is counted of all connections, a side each.
#[derive(Debug, Default)]
pub struct Counters {
    /// Verdicts given to the store.
    pub verdicts: AtomicU64,
    /// Of these, those that would have been denied.
    pub audited: AtomicU64,
    /// Of these, those that were denied.
    pub denied: AtomicU64,
    /// Judged by policies that are evaluated only, so that no verdict is told.
    pub observed: AtomicU64,
    /// Not judged: who an end is was not certain, or not known to policies yet.
    pub ends_unknown: AtomicU64,
    /// Not judged: to a service of which nobody told the backend.
    pub backend_unknown: AtomicU64,
    /// Judged by the kernel, and not told: the policies by which it was are gone.
    pub forgotten: AtomicU64,
    /// Sets of policies that were refused after the start.
    pub refused: AtomicU64,
    /// Changes of names that the kernel had no room for: who is new is judged as the world.
    pub names_refused: AtomicU64,
    /// Connections that the proxy has taken.
    pub proxied: AtomicU64,
    /// Of these, ended since the client's requests could not be read, or could be read in two ways.
    pub proxied_refused: AtomicU64,
    /// Of these, ended since the client took too long.
    pub proxied_late: AtomicU64,
    /// Queries of DNS that the proxy did not take: as many as may be were waiting for their answers.
    pub queries_turned_away: AtomicU64,
    /// Answers of DNS that were let go before policies had their addresses, since that took too long.
    pub answers_late: AtomicU64,
    /// Requests, and answers, that the proxy had and that are told.
    pub requests_told: AtomicU64,
    /// Those that are not: there was no room for them on the way.
    pub requests_lost: AtomicU64,
    /// Addresses that the kernel's maps have no room for now: who has them is judged as the world.
    pub left_out: AtomicU64,
}

/// Connections that a policy decided on, a side each, and requests.
#[derive(Debug, Default)]
pub struct Hits {
    allowed: AtomicU64,
    denied: AtomicU64,
    would_deny: AtomicU64,
    refused: AtomicU64,
    would_refuse: AtomicU64,
}

impl Hits {
    /// So far.
    pub fn read(&self) -> PolicyHits {
        let Self { allowed, denied, would_deny, refused, would_refuse } = self;
        let [allowed, denied, would_deny, refused, would_refuse] =
            [allowed, denied, would_deny, refused, would_refuse].map(|count| count.load(Ordering::Relaxed));
        PolicyHits { allowed, denied, refused, would_deny, would_refuse }
    }
}

impl Policies {
    fn new(worlds: Worlds, set: Set) -> Self {
        Self {
            worlds,
            set: ArcSwap::from_pointee(set),
            hits: Mutex::default(),
            problem: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// The policies compiled for the endpoints that there are. To be let go of soon: the next change waits for it.
    pub fn world(&self) -> RwLockReadGuard<'_, World> {
        self.worlds.read().1
    }

    /// Where the pipeline's thread tells how far it has come.
    pub(crate) fn drained(&self) -> &Drained {
        &self.worlds.drained
    }

    /// The policies as they were read.
    pub fn set(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// Why the files are not what is in force, if they are not.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a policy decided.
    pub fn hits(&self, policy: &PolicyId) -> PolicyHits {
        self.all_hits().get(policy).map(|hits| hits.read()).unwrap_or_default()
    }

    /// Counts a request with the policies that refuse it, or would.
    pub(crate) fn count_refused(&self, by: &[PolicyName], is_refused: bool) {
        for policy in by.iter().filter_map(rulings::id) {
            let hits = self.hits_of(&policy);
            Self::count(if is_refused { &hits.refused } else { &hits.would_refuse });
        }
    }

    fn hits_of(&self, policy: &PolicyId) -> Arc<Hits> {
        Arc::clone(self.all_hits().entry_ref(policy).or_default())
    }

    fn all_hits(&self) -> MutexGuard<'_, HashMap<PolicyId, Arc<Hits>>> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

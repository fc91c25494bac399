//! Follows files and names, off the event path, and publishes what comes of them.

mod command;

pub use command::{CommandError, Named};

use super::{
    Policies, PolicyConfig, PolicyError, Set,
    feed::{Fed, Feed},
    kernel::Kernel,
    lockout,
    modes::Modes,
    world::{Change, Worlds},
};
use crate::{
    capture::Keeper,
    enrich::{ipcache::IpCache, source::Stop},
    followed::{Followed, INTERVAL, Look},
};
use observer_kubernetes::{ApiPolicies, Shown};
use observer_policy::{
    engine::Engine,
    model::{Policy, PolicyId},
};
use observer_proto::flow::{AgentEventType, PolicyUpdateNotification, agent_event::Notification};
use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How soon a change of names counts.
const NAMES: Duration = Duration::from_millis(50);

/// How many problems are named.
const MOST_NAMED: usize = 5;

/// All policies; of two of one name that of the files, which are of this node alone.
fn together(files: &[Arc<Policy>], api: Option<&mut Api>) -> Vec<Arc<Policy>> {
    let mut all = files.to_vec();
    let Some(api) = api else { return all };
    // Before the look: what changes in between is looked at again.
    let generation = api.policies.generation();
    if !api.policies.are_complete() {
        return all;
    }
    let (policies, mut problems) = api.policies.all();
    let known: HashSet<&PolicyId> = files.iter().map(|policy| &policy.id).collect();
    let (new, twice): (Vec<_>, Vec<_>) = policies.into_iter().partition(|policy| !known.contains(&policy.id));
    problems.extend(twice.iter().filter(|policy| policy.part == 0).map(|policy| {
        format!("{} of the Kubernetes API is also in a file, which counts here", policy.id).into()
    }));
    (api.taken, api.problems) = (Some(generation), problems);
    all.extend(new);
    all
}

/// Tells addresses.
struct Own(Box<dyn Fn() -> Vec<IpAddr> + Send>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

/// What changes the policies in force.
#[derive(Debug)]
pub struct Updater {
    /// Those of the Kubernetes API, where they count.
    api: Option<Api>,
    /// As they were read last.
    from_files: Vec<Arc<Policy>>,
    config: PolicyConfig,
    cluster: String,
    cache: Arc<IpCache>,
    policies: Arc<Policies>,
    modes: Modes,
    feed: Feed,
    /// Tells the addresses of the node's links.
    own: Own,
    /// Has enforcement stay on when the daemon goes, where the kernel judges.
    keeper: Option<Keeper>,
    followed: Followed,
    /// The last thing said about policies that are not taken, so that each is said once.
    complaint: Option<String>,
    /// The files are not what is in force.
    has_bad_files: bool,
}

/// The policies of the Kubernetes API.
#[derive(Debug)]
struct Api {
    policies: Arc<ApiPolicies>,
    /// As of which change they were taken.
    taken: Option<u64>,
    /// What is wrong with some of them.
    problems: Vec<Arc<str>>,
}

impl Updater {
    /// Reads the files for the first time, for the names that there are.
    pub fn load(
        config: PolicyConfig,
        cluster: &str,
        cache: Arc<IpCache>,
        kubernetes: Option<&Shown>,
    ) -> Result<Self, PolicyError> {
        let modes = Modes::read(config.state_dir.as_deref())?;
        let mut followed = Followed::new(config.files.clone());
        let from_files = loop {
            let files = Set::files(&config, cluster);
            if followed.are_whole() {
                break files?;
            }
            followed.look();
        };
        let policies = kubernetes.and_then(|shown| shown.policies.clone());
        let mut api = policies.map(|policies| Api { policies, taken: None, problems: Vec::new() });
        let set = Set::new(together(&from_files, api.as_mut()), &config);
        cache.resolved().want(set.names());
        let mut feed = Feed::new(kubernetes.map(|shown| Arc::clone(&shown.backends)));
        let names = feed.changes(&cache, &[]).unwrap_or_default();
        let set = Set { revision: 1, ..set.in_modes(&config, feed.modes(), &modes) };
        lockout::refuse(&set, &config, &cache, &[])?;
        let all = Engine::new(false).difference(set.with_modes());
        let worlds = Worlds::new(Change { fed: names, policies: Some((set.revision, all)) });
        let worlds = worlds.map_err(|error| PolicyError::Thread(error.into()))?;
        let policies = Arc::new(Policies::new(worlds, set));
        let (cluster, own) = (cluster.to_owned(), Own(Box::new(Vec::new)));
        let updater = Self {
            api,
            from_files,
            config,
            cluster,
            cache,
            policies,
            modes,
            feed,
            own,
            keeper: None,
            followed,
            complaint: None,
            has_bad_files: false,
        };
        updater.say();
        updater.tell("policies loaded");
        Ok(updater)
    }

    /// Has the kernel judge from now on, by maps whose programs are not attached yet.
    pub(crate) fn judge_in_kernel(&mut self, kernel: Box<dyn Kernel>) -> Result<(), PolicyError> {
        let left_out = self.policies.worlds.enter(kernel)?;
        self.policies.counters.left_out.store(left_out as u64, Ordering::Relaxed);
        Ok(())
    }

    /// From now on the node has the addresses of its links, too, as they are and become.
    pub(crate) fn watch_own(&mut self, addresses: impl Fn() -> Vec<IpAddr> + Send + 'static) {
        self.own = Own(Box::new(addresses));
        self.follow_names();
    }

    /// Whether any policy is enforced.
    pub(crate) fn enforces(&self) -> bool {
        self.policies.set().enforces()
    }

    /// From now on programs stay on while policies are enforced, by this.
    pub(crate) fn kept_by(&mut self, keeper: Keeper) {
        self.keeper = Some(keeper);
    }

    /// Enforces nothing from now on, for this reason.
    pub(crate) fn drop_nothing(&mut self, why: &str) -> Result<(), PolicyError> {
        self.config.drop_nothing(why);
        let set = self.in_modes(Set::clone(&self.policies.set()));
        self.put(set)?;
        self.tell("modes of policies changed");
        Ok(())
    }

    /// The policies in force.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Takes in the names as they are now.
    pub fn follow_names(&mut self) {
        let mut own = (self.own.0)();
        own.sort_unstable();
        let Some(fed) = self.feed.changes(&self.cache, &own) else { return };
        if fed.is_empty() {
            self.cache.resolved().take(self.feed.resolved());
        } else {
            self.take_names(fed);
        }
        let set = self.policies.set();
        let in_modes = self.in_modes(Set::clone(&set));
        if in_modes == *set {
            return;
        }
        // A namespace says something else.
        match self.put(in_modes) {
            Ok(()) => self.tell("modes of policies changed"),
            Err(why) => self.refuse(&why.to_string()),
        }
    }

    /// Those that the kernel refuses are tried again with every change, and now and then.
    fn take_names(&mut self, fed: Fed) {
        let counters = &self.policies.counters;
        // What is held until then is let go.
        let (names, resolved) = (self.cache.resolved(), self.feed.resolved());
        let change = Change { fed, policies: None };
        match self.policies.worlds.apply_then(change, || names.take(resolved)) {
            Ok(left_out) => {
                if counters.left_out.swap(left_out as u64, Ordering::Relaxed) < left_out as u64 {
                    tracing::warn!(
                        left_out,
                        "the kernel's maps have no room for more names: judged as the world"
                    );
                }
            }
            Err(why) => {
                if counters.names_refused.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        "the kernel does not take new names, which are judged as the world: {why}"
                    );
                }
            }
        }
    }

    /// Looks at the files; each trouble is told once.
    pub(super) fn look(&mut self) {
        if self.policies.worlds.are_behind() {
            self.take_names(Fed::default());
        }
        if self.followed.look() == Look::Changed {
            self.take_again();
        }
    }

    fn take_again(&mut self) {
        match Set::files(&self.config, &self.cluster) {
            // The next look finds something new.
            _ if !self.followed.are_whole() => {}
            Ok(files) => {
                (self.from_files, self.has_bad_files) = (files, false);
                self.put_together("policies reloaded");
            }
            Err(error) => {
                self.has_bad_files = true;
                self.refuse(&error.to_string());
            }
        }
    }

    /// Takes what has changed in the Kubernetes API, if anything has.
    pub(super) fn follow_api(&mut self) {
        let Some(Api { policies, taken, .. }) = &self.api else { return };
        if policies.are_complete() && *taken != Some(policies.generation()) {
            self.put_together("policies changed in the Kubernetes API");
        }
    }

    /// Puts in force what files and the API say.
    fn put_together(&mut self, what: &str) {
        let old: Vec<_> = self.api.iter().flat_map(|api| api.problems.iter().cloned()).collect();
        let policies = together(&self.from_files, self.api.as_mut());
        let new = self.api.iter().flat_map(|api| &api.problems).filter(|problem| !old.contains(problem));
        for problem in new.take(MOST_NAMED) {
            tracing::warn!("{problem}; its last version that was right, if any, stays in force");
            self.cache.events().note("policies", format!("refused: {problem}"));
            self.policies.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        let set = Set::new(policies, &self.config);
        match self.put(self.in_modes(set)) {
            Ok(()) => {
                // Of files that are bad it goes on to be true.
                if !self.has_bad_files {
                    self.complaint = None;
                }
                self.say();
                self.tell(what);
            }
            Err(why) => self.refuse(&why.to_string()),
        }
    }

    fn in_modes(&self, set: Set) -> Set {
        set.in_modes(&self.config, self.feed.modes(), &self.modes)
    }

    /// Tells why policies are not taken, each reason once.
    fn refuse(&mut self, why: &str) {
        if self.complaint.as_deref() != Some(why) {
            self.policies.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{why}; the old policies stay in force");
            self.cache.events().note("policies", format!("refused: {why}"));
            self.complaint = Some(why.to_owned());
            self.say();
        }
    }

    /// Puts a set in force, or leaves the old one there.
    fn put(&mut self, mut set: Set) -> Result<(), PolicyError> {
        lockout::refuse(&set, &self.config, &self.cache, &(self.own.0)())?;
        let before = self.policies.set();
        set.revision = before.revision + 1;
        let old = before.enforces();
        // What is enforced stays on from its first packet.
        if set.enforces() && !old {
            self.stay(true)?;
        }
        let policies = self.policies.world().engine.difference(set.with_modes());
        let change = Change { policies: Some((set.revision, policies)), ..Change::default() };
        let applied = self.policies.worlds.apply(change);
        let enforces = if applied.is_ok() { set.enforces() } else { old };
        if !enforces && let Err(error) = self.stay(false) {
            tracing::error!("{error}");
        }
        self.policies.counters.left_out.store(applied? as u64, Ordering::Relaxed);
        self.cache.resolved().want(set.names());
        self.policies.forget_hits_of_others(&set);
        self.policies.set.store(Arc::new(set));
        Ok(())
    }

    fn stay(&self, stays: bool) -> Result<(), PolicyError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.stay(stays).map_err(PolicyError::Staying)
    }

    /// What is wrong, to those who ask.
    fn say(&self) {
        let api = self.api.iter().flat_map(|api| api.problems.iter().map(|problem| &**problem));
        let mut problems: Vec<&str> = self.complaint.as_deref().into_iter().chain(api).collect();
        let more = problems.len().saturating_sub(MOST_NAMED);
        problems.truncate(MOST_NAMED);
        let mut text = problems.join("; ");
        if more > 0 {
            // Writing to a String can't fail.
            let _ = write!(text, "; and {more} more");
        }
        let problem = Some(text).filter(|text| !text.is_empty());
        *self.policies.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// What is in force now, to the log and to clients.
    fn tell(&self, what: &str) {
        let set = self.policies.set();
        let warnings = self.policies.world().engine.warnings().len();
        let [observe, audit, enforce] = set.in_each_mode();
        tracing::info!(
            policies = set.ids().len(),
            observe,
            audit,
            enforce,
            revision = set.revision,
            warnings,
            "{what}"
        );
        if let Some(text) = set.capped() {
            tracing::warn!("policies {text}");
        }
        self.cache.events().tell(
            AgentEventType::PolicyUpdated,
            Notification::PolicyUpdate(PolicyUpdateNotification {
                labels: Vec::new(),
                revision: set.revision,
                rule_count: set.policies.len() as i64,
            }),
        );
    }
}

impl Policies {
    fn forget_hits_of_others(&self, set: &Set) {
        let ids = set.ids();
        self.all_hits().retain(|id, _| ids.contains(id));
    }
}

/// The thread that follows files and names. Dropping it stops and joins it.
#[derive(Debug)]
pub struct Follower {
    policies: Arc<Policies>,
    updater: Arc<Mutex<Updater>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows in a thread of its own.
    pub fn start(updater: Updater) -> Result<Self, PolicyError> {
        let stop = Stop::new().map_err(|error| PolicyError::Thread(error.into()))?;
        let (policies, names) = (Arc::clone(updater.policies()), Arc::clone(updater.cache.resolved()));
        names.wakes().map_err(|error| PolicyError::Thread(error.into()))?;
        let updater = Arc::new(Mutex::new(updater));
        let follow = {
            let (ending, updater) = (stop.clone(), Arc::clone(&updater));
            move || {
                let mut looked = Instant::now();
                while !ending.wait(names.wakes().ok(), NAMES) {
                    names.woke();
                    let mut updater = updater.lock().unwrap_or_else(PoisonError::into_inner);
                    updater.follow_names();
                    updater.follow_api();
                    if looked.elapsed() >= INTERVAL {
                        looked = Instant::now();
                        updater.look();
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("policies".to_owned()).spawn(follow);
        Ok(Self { policies, updater, stop, thread: Some(thread.map_err(PolicyError::Thread)?) })
    }

    /// The policies in force.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// What changes them, for who knows better when names change.
    pub fn updater(&self) -> &Arc<Mutex<Updater>> {
        &self.updater
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // If it panicked it has told so itself.
            let _ = thread.join();
        }
    }
}

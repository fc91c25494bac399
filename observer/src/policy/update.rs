//! Follows files and names, off the event path, and publishes what comes of them.

use super::{
    Policies, PolicyConfig, PolicyError, Set,
    feed::{Fed, Feed},
    world::{Change, Worlds},
};
use crate::{
    enrich::{ipcache::IpCache, source::Stop},
    followed::{Followed, INTERVAL, Look},
};
use observer_policy::engine::Engine;
use observer_proto::flow::{AgentEventType, PolicyUpdateNotification, agent_event::Notification};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How soon a change of names counts.
const NAMES: Duration = Duration::from_millis(50);

/// What changes the policies in force.
#[derive(Debug)]
pub struct Updater {
    config: PolicyConfig,
    cluster: String,
    cache: Arc<IpCache>,
    policies: Arc<Policies>,
    feed: Feed,
    followed: Followed,
    /// The last thing said about bad files, so that each is said once.
    complaint: Option<String>,
}

impl Updater {
    /// Reads the files for the first time, for the names that there are.
    pub fn load(config: PolicyConfig, cluster: &str, cache: Arc<IpCache>) -> Result<Self, PolicyError> {
        let mut followed = Followed::new(config.files.clone());
        let set = loop {
            let set = Set::load(&config, cluster, 1);
            if followed.are_whole() {
                break set?;
            }
            followed.look();
        };
        let mut feed = Feed::default();
        let names = feed.changes(&cache).unwrap_or_default();
        let set = set.in_modes(&config, feed.modes());
        let all = Engine::new(false).difference(set.with_modes());
        let worlds = Worlds::new(Change { fed: names, policies: Some((set.revision, all)) });
        let policies = Arc::new(Policies::new(worlds, set));
        let updater =
            Self { config, cluster: cluster.to_owned(), cache, policies, feed, followed, complaint: None };
        updater.tell("policies loaded");
        Ok(updater)
    }

    /// The policies in force.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Takes in the names as they are now.
    pub fn follow_names(&mut self) {
        let Some(fed) = self.feed.changes(&self.cache) else { return };
        let set = self.policies.set();
        let in_modes = Set::clone(&set).in_modes(&self.config, self.feed.modes());
        if in_modes == *set {
            self.policies.worlds.apply(Change { fed, policies: None });
        } else {
            // A namespace says something else.
            self.put(fed, in_modes);
            self.tell("modes of policies changed");
        }
    }

    /// Looks at the files; each trouble is told once.
    pub(super) fn look(&mut self) {
        if self.followed.look() == Look::Changed {
            self.take_again();
        }
    }

    fn take_again(&mut self) {
        let revision = self.policies.set().revision + 1;
        match Set::load(&self.config, &self.cluster, revision) {
            // The next look finds something new.
            _ if !self.followed.are_whole() => {}
            Ok(set) => {
                self.put(Fed::default(), set.in_modes(&self.config, self.feed.modes()));
                self.complaint = None;
                self.say(None);
                self.tell("policies reloaded");
            }
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() != Some(&text) {
                    self.policies.counters.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("{text}; the old policies stay in force");
                    self.cache.events().note("policies", format!("refused: {text}"));
                    self.say(Some(text.clone()));
                    self.complaint = Some(text);
                }
            }
        }
    }

    fn put(&mut self, fed: Fed, set: Set) {
        let policies = self.policies.world().engine.difference(set.with_modes());
        self.policies.worlds.apply(Change { fed, policies: Some((set.revision, policies)) });
        self.policies.forget_hits_of_others(&set);
        self.policies.set.store(Arc::new(set));
    }

    fn say(&self, problem: Option<String>) {
        *self.policies.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// What is in force now, to the log and to clients.
    fn tell(&self, what: &str) {
        let set = self.policies.set();
        let warnings = self.policies.world().engine.warnings().len();
        tracing::info!(
            policies = set.ids().len(),
            revision = set.revision,
            mode = ?self.config.mode,
            warnings,
            "{what}"
        );
        if let Some(text) = set.not_enforced() {
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
        let policies = Arc::clone(updater.policies());
        let updater = Arc::new(Mutex::new(updater));
        let follow = {
            let (ending, updater) = (stop.clone(), Arc::clone(&updater));
            move || {
                let mut looked = Instant::now();
                while !ending.wait(None, NAMES) {
                    let mut updater = updater.lock().unwrap_or_else(PoisonError::into_inner);
                    updater.follow_names();
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

//! The documents, read whole or not at all, with the mode of each policy.

use super::PolicyConfig;
use observer_policy::{
    engine::WithMode,
    model::{Mode, Policy, PolicyId},
    source::{self, LoadError, Options},
};
use observer_proto::control::policy::SetBy;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

/// Policies that ask for what is not built in which are named in the log.
const MOST_NAMED: usize = 5;

/// The policies that were read together.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Counts the sets that were taken.
    pub revision: u64,
    /// In the order of their files.
    pub policies: Vec<Declared>,
    /// When they were read.
    pub loaded: SystemTime,
}

/// A policy with its mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The policy, or one of the `specs` of one.
    pub policy: Arc<Policy>,
    /// The mode that was asked for.
    pub asked: Mode,
    /// By what.
    pub asked_by: SetBy,
}

impl Declared {
    /// The mode that it has.
    pub fn mode(&self) -> Mode {
        self.asked
    }
}

impl Set {
    /// Reads all files.
    pub(super) fn load(config: &PolicyConfig, cluster: &str, revision: u64) -> Result<Self, LoadError> {
        let options = Options { dialect: config.dialect, cluster: cluster.into() };
        let declared = |policy: Policy| Declared {
            policy: Arc::new(policy),
            asked: config.mode,
            asked_by: SetBy::Default,
        };
        let policies = source::load(&config.files, &options)?;
        Ok(Self {
            revision,
            policies: policies.into_iter().map(declared).collect(),
            loaded: SystemTime::now(),
        })
    }

    /// With the mode of each by the strongest word: the policy's own, its namespace's, the daemon's.
    pub(super) fn in_modes(mut self, config: &PolicyConfig, namespaces: &BTreeMap<String, Mode>) -> Self {
        for Declared { policy, asked, asked_by } in &mut self.policies {
            (*asked, *asked_by) = match (policy.mode, namespaces.get(&*policy.id.namespace)) {
                (Some(mode), _) => (mode, SetBy::PolicyAnnotation),
                (None, Some(mode)) => (*mode, SetBy::NamespaceAnnotation),
                (None, None) => (config.mode, SetBy::Default),
            };
        }
        self
    }

    /// For the engine.
    pub(super) fn with_modes(&self) -> Vec<WithMode> {
        self.policies.iter().map(|declared| (Arc::clone(&declared.policy), declared.mode())).collect()
    }

    /// Names of policies, `specs` of one being one.
    pub fn ids(&self) -> BTreeSet<&PolicyId> {
        self.policies.iter().map(|declared| &declared.policy.id).collect()
    }

    /// What those must be told who asked for enforcement, if anybody did.
    pub(super) fn not_enforced(&self) -> Option<String> {
        let asking = self.policies.iter().filter(|declared| declared.asked == Mode::Enforce);
        let ids: BTreeSet<&PolicyId> = asking.map(|declared| &declared.policy.id).collect();
        let mut names: Vec<String> = ids.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        if ids.len() > MOST_NAMED {
            names.push(format!("{} more", ids.len() - MOST_NAMED));
        }
        let what = "asking for mode enforce, which is not built in yet; judged as audit, nothing is dropped";
        (!ids.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
    }
}

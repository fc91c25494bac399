//! The documents, read whole or not at all, with the mode of each policy.

use super::PolicyConfig;
use observer_policy::{
    engine::WithMode,
    model::{Mode, Policy, PolicyId},
    source::{self, LoadError, Options},
};
use std::{collections::BTreeSet, sync::Arc};

/// Policies that ask for what is not built in which are named in the log.
const MOST_NAMED: usize = 5;

/// The policies that were read together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// Counts the sets that were taken.
    pub revision: u64,
    /// In the order of their files.
    pub policies: Vec<Declared>,
}

/// A policy with its mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The policy, or one of the `specs` of one.
    pub policy: Arc<Policy>,
    /// The mode that was asked for: by its own annotation, else the daemon's.
    pub asked: Mode,
}

impl Declared {
    /// The mode that it has: enforcement is not built in, so the nearest to it.
    pub fn mode(&self) -> Mode {
        self.asked.min(Mode::Audit)
    }
}

impl Set {
    /// Reads all files.
    pub(super) fn load(config: &PolicyConfig, cluster: &str, revision: u64) -> Result<Self, LoadError> {
        let options = Options { dialect: config.dialect, cluster: cluster.into() };
        let declared = |policy: Policy| {
            let asked = policy.mode.unwrap_or(config.mode);
            Declared { policy: Arc::new(policy), asked }
        };
        let policies = source::load(&config.files, &options)?;
        Ok(Self { revision, policies: policies.into_iter().map(declared).collect() })
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

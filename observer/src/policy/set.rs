//! The documents, read whole or not at all, with the mode of each policy.

use super::{Cap, PolicyConfig, modes::Modes};
use observer_policy::{
    engine::WithMode,
    model::{Mode, NamePattern, Policy, PolicyId, Side, Term},
    source::{self, LoadError},
};
use observer_proto::control::policy::SetBy;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

/// Policies whose mode is not the one asked for which are named in the log.
const MOST_NAMED: usize = 5;

/// The policies that were read together.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Counts the sets that were in force, a change of modes making another; 0 before it is.
    pub revision: u64,
    /// In the order of their files.
    pub policies: Vec<Declared>,
    /// When they were read.
    pub loaded: SystemTime,
    /// What none of them exceeds.
    pub(super) cap: Option<Cap>,
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
    most: Mode,
}

impl Declared {
    /// The mode that it has.
    pub fn mode(&self) -> Mode {
        self.asked.min(self.most)
    }

    /// By what it has that mode.
    pub fn set_by(&self) -> SetBy {
        if self.is_capped() { SetBy::Cap } else { self.asked_by }
    }

    fn is_capped(&self) -> bool {
        self.asked > self.most
    }
}

impl Set {
    /// Reads all files.
    pub(super) fn files(config: &PolicyConfig, cluster: &str) -> Result<Vec<Arc<Policy>>, LoadError> {
        let policies = source::load(&config.files, &config.options(cluster))?;
        Ok(policies.into_iter().map(Arc::new).collect())
    }

    /// These policies, no two of one name.
    pub(super) fn new(policies: Vec<Arc<Policy>>, config: &PolicyConfig) -> Self {
        let declared =
            |policy| Declared { policy, asked: config.mode, asked_by: SetBy::Default, most: Mode::Enforce };
        Self {
            revision: 0,
            policies: policies.into_iter().map(declared).collect(),
            loaded: SystemTime::now(),
            cap: None,
        }
    }

    /// With the mode of each by the strongest word: a command's, the policy's own, its namespace's, the daemon's.
    pub(super) fn in_modes(
        mut self,
        config: &PolicyConfig,
        namespaces: &BTreeMap<String, Mode>,
        commands: &Modes,
    ) -> Self {
        self.cap.clone_from(&config.cap);
        for Declared { policy, asked, asked_by, most } in &mut self.policies {
            *most = config.cap.as_ref().map_or(Mode::Enforce, |cap| cap.most);
            let words = [
                (commands.of(&policy.id), SetBy::Command),
                (policy.mode, SetBy::PolicyAnnotation),
                (namespaces.get(&*policy.id.namespace).copied(), SetBy::NamespaceAnnotation),
            ];
            let strongest = words.into_iter().find_map(|(mode, by)| Some((mode?, by)));
            (*asked, *asked_by) = strongest.unwrap_or((config.mode, SetBy::Default));
        }
        self
    }

    /// The names of DNS that any allows.
    pub(super) fn names(&self) -> Vec<NamePattern> {
        let policies = self.policies.iter().map(|declared| &declared.policy);
        let rules = policies.flat_map(|policy| policy.egress.iter().flat_map(Side::rules));
        let names = rules.flat_map(|rule| rule.peers.terms()).filter_map(|term| match term {
            Term::Name(pattern) => Some(pattern.clone()),
            _ => None,
        });
        names.collect()
    }

    /// For the engine.
    pub(super) fn with_modes(&self) -> Vec<WithMode> {
        self.policies.iter().map(|declared| (Arc::clone(&declared.policy), declared.mode())).collect()
    }

    /// Names of policies, `specs` of one being one.
    pub fn ids(&self) -> BTreeSet<&PolicyId> {
        self.policies.iter().map(|declared| &declared.policy.id).collect()
    }

    /// How many are in each mode: observed, audited and enforced.
    pub(super) fn in_each_mode(&self) -> [usize; 3] {
        let modes: BTreeMap<_, _> =
            self.policies.iter().map(|declared| (&declared.policy.id, declared.mode())).collect();
        [Mode::Observe, Mode::Audit, Mode::Enforce]
            .map(|mode| modes.values().filter(|own| **own == mode).count())
    }

    /// Whether any is enforced.
    pub(super) fn enforces(&self) -> bool {
        self.policies.iter().any(|declared| declared.mode() == Mode::Enforce)
    }

    /// Why a policy's mode is not the one asked for, where it is not.
    pub fn why_not_as_asked(&self, one: &Declared) -> Option<String> {
        let cap = self.cap.as_ref().filter(|_| one.is_capped())?;
        Some(format!("asks for mode {} and is in mode {}: {}", one.asked, cap.most, cap.why))
    }

    /// The same of all that are capped, for the log.
    pub(super) fn capped(&self) -> Option<String> {
        let capped = self.policies.iter().filter(|declared| declared.is_capped());
        let ids: BTreeSet<&PolicyId> = capped.map(|declared| &declared.policy.id).collect();
        let mut names: Vec<String> = ids.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        if ids.len() > MOST_NAMED {
            names.push(format!("{} more", ids.len() - MOST_NAMED));
        }
        let Cap { most, why } = self.cap.as_ref().filter(|_| !ids.is_empty())?;
        Some(format!("in mode {most} and not as they ask, since {why}: {}", names.join(", ")))
    }
}

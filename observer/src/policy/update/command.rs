//! Modes that commands say.

use super::{Set, Updater};
use crate::policy::{ModesError, PolicyError};
use observer_policy::model::{Mode, PolicyId};
use std::collections::BTreeSet;

/// Policies that are named where a name means several, or none.
const MOST_NAMED: usize = 5;

/// A policy as people name it; what is empty is left open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// Such as `NetworkPolicy`.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Why a mode is not as a command says. One line, which says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such policy.
    #[error("{0}")]
    Unknown(String),
    /// There are several.
    #[error("{0}")]
    Ambiguous(String),
    /// The policies are not taken so.
    #[error(transparent)]
    Refused(#[from] PolicyError),
    /// The word can't be kept, so it does not count.
    #[error(transparent)]
    NotTaken(#[from] ModesError),
    /// It counts, but only as long as this daemon runs.
    #[error("the mode is in force, but not after a restart: {0}")]
    NotKept(#[source] ModesError),
}

impl Updater {
    /// From now on a policy is in this mode, over restarts; `None` takes back what was said before.
    pub fn command(&mut self, named: Named<'_>, mode: Option<Mode>) -> Result<PolicyId, CommandError> {
        let old = self.policies.set();
        let ids = old.ids();
        let policy =
            named.among(&ids, mode.is_none().then(|| self.modes.policies()).into_iter().flatten())?;
        let modes = self.modes.with(&policy, mode)?;
        let set = Set::clone(&old).in_modes(&self.config, self.feed.modes(), &modes);
        let prepared = modes.prepare()?;
        if set != *old {
            self.put(set)?;
        }
        self.modes = modes;
        let kept = prepared.keep().map_err(CommandError::NotKept);
        let word = mode.map_or_else(|| "default".to_owned(), |mode| mode.to_string());
        self.cache.events().note("policies", format!("mode of {policy}: {word}, by command"));
        self.tell("modes of policies changed");
        kept.map(|()| policy)
    }
}

impl Named<'_> {
    fn is(&self, id: &PolicyId) -> bool {
        let is = |given: &str, own: &str| given.is_empty() || given == own;
        is(self.kind, &id.kind.to_string()) && is(self.namespace, &id.namespace) && *self.name == *id.name
    }

    /// The one that is meant, among those that are loaded and `others`.
    fn among<'a>(
        &self,
        loaded: &BTreeSet<&'a PolicyId>,
        others: impl Iterator<Item = &'a PolicyId>,
    ) -> Result<PolicyId, CommandError> {
        let known: BTreeSet<&PolicyId> = loaded.iter().copied().chain(others).collect();
        let meant: Vec<&PolicyId> = known.iter().copied().filter(|id| self.is(id)).collect();
        let named = [self.kind, self.namespace, self.name];
        let named = named.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
        match meant[..] {
            [policy] => Ok(policy.clone()),
            [] => {
                let alike = Named { name: self.name, ..Named::default() };
                let alike: Vec<&PolicyId> = known.into_iter().filter(|id| alike.is(id)).collect();
                let hint = match alike[..] {
                    [] => "`observe policy list` shows all".to_owned(),
                    _ => format!("there is {}", some(&alike)),
                };
                Err(CommandError::Unknown(format!("no policy is named {named}; {hint}")))
            }
            _ => Err(CommandError::Ambiguous(format!(
                "{named} means {} policies: {}; name one as KIND/NAMESPACE/NAME",
                meant.len(),
                some(&meant)
            ))),
        }
    }
}

fn some(ids: &[&PolicyId]) -> String {
    let mut names: Vec<String> = ids.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if ids.len() > MOST_NAMED {
        names.push(format!("{} more", ids.len() - MOST_NAMED));
    }
    names.join(", ")
}

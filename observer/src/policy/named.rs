//! The names behind the numbers of the kernel's maps, for those who look at them.

use super::{Policies, rulings::deciding};
use hashbrown::HashMap;
use observer_policy::{engine::RuleSetId, model::Mode};
use std::collections::BTreeSet;

impl Policies {
    /// The policies that decide in each of these sets of rules, as the world has them that fills this slot of the kernel's
    /// maps; nothing where another is published by now.
    pub(crate) fn deciding(&self, slot: u32, sets: &BTreeSet<u32>) -> Option<HashMap<u32, Vec<String>>> {
        let (number, world) = self.worlds.read();
        if number != slot as usize {
            return None;
        }
        let names = |set: u32| {
            let ruling = world.engine.ruling(RuleSetId(set), Mode::Observe)?;
            let names = deciding(&ruling).into_iter().map(|policy| {
                let slash = if policy.id.namespace.is_empty() { "" } else { "/" };
                format!("{}{slash}{}", policy.id.namespace, policy.id.name)
            });
            Some(names.collect())
        };
        Some(sets.iter().filter_map(|set| Some((*set, names(*set)?))).collect())
    }
}

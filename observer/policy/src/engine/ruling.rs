//! A verdict by the policies of some modes alone, with its names: what is told, where others only are evaluated.

use super::{Engine, MatchType, Named, RuleSetId, Verdict};
use crate::model::{Mode, Policy};

/// A verdict by the policies of some modes.
#[derive(Clone, Debug)]
pub struct Ruling<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// How exactly the deciding rule names the connection.
    pub match_type: MatchType,
    /// The rules that decided; none where none had to, or on default deny.
    pub rules: Vec<Named<'a>>,
    /// On default deny: the policies without which the side would be open.
    pub isolating: Vec<&'a Policy>,
}

impl Engine {
    /// What a set of rules comes to by the policies whose mode is `least` or goes further; nothing where none of them
    /// selects the subject.
    pub fn ruling(&self, id: RuleSetId, least: Mode) -> Option<Ruling<'_>> {
        let set = self.rule_sets.get(id.0 as usize)?;
        let slots = set.policies.iter().filter_map(|number| self.policies.get(*number as usize));
        let selecting = slots.filter(|slot| slot.mode >= least);
        let mut isolating: Vec<&Policy> = selecting.map(|slot| &*slot.policy).collect();
        if isolating.is_empty() {
            return None;
        }
        isolating.retain(|policy| policy.isolates(set.direction));
        let counts = |place: u32| self.policies.get(place as usize).is_some_and(|slot| slot.mode >= least);
        let (verdict, match_type, deciding) =
            set.among(|member| counts(member.place.policy), !isolating.is_empty());
        if verdict != Verdict::DefaultDenied {
            isolating.clear();
        }
        let rules = self.named(set.direction, deciding.iter());
        Some(Ruling { verdict, match_type, rules, isolating })
    }
}

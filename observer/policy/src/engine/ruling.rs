//! A verdict by the policies of some modes alone, with its names: what is told, where others only are evaluated.

use super::{Engine, MatchType, Named, RuleSetId, Verdict, decision::Member};
use crate::{
    l7::{L7, Request},
    model::{Direction, Mode, Policy},
};

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

    /// As [`Engine::ruling`], of a request in a connection that these rules are about: one that no rule allows is denied by
    /// default, and where requests are not read the connection's own verdict holds.
    pub fn ruling_on(&self, id: RuleSetId, least: Mode, request: &Request<'_>) -> Option<Ruling<'_>> {
        let mut ruling = self.ruling(id, least)?;
        if ruling.verdict != Verdict::Requests {
            return Some(ruling);
        }
        let set = self.rule_sets.get(id.0 as usize)?;
        let allows = |member: &&Member| {
            let slot = self.policies.get(member.place.policy as usize);
            slot.is_some_and(|slot| slot.mode >= least) && self.lets(set.direction, member, request)
        };
        let allowing = self.named(set.direction, set.members.iter().filter(allows));
        ruling.verdict = if allowing.is_empty() { Verdict::DefaultDenied } else { Verdict::Allowed };
        // Those that are denied, too, are told by whom: by the rules of which none allows them.
        if !allowing.is_empty() {
            ruling.rules = allowing;
        }
        Some(ruling)
    }

    /// Which rules of a set allow a request, a bit each: of two requests with the same bits the same is said. Nothing where
    /// there are more rules than bits.
    pub fn letting(&self, id: RuleSetId, request: &Request<'_>) -> Option<u64> {
        let set = self.rule_sets.get(id.0 as usize)?;
        let is_short = set.members.len() <= u64::BITS as usize;
        let bit = |(at, member)| u64::from(self.lets(set.direction, member, request)) << at;
        is_short.then(|| set.members.iter().enumerate().map(bit).sum())
    }

    /// What the rules say about requests.
    pub fn requests_of(&self, id: RuleSetId) -> impl Iterator<Item = &L7> {
        let set = self.rule_sets.get(id.0 as usize);
        let members = set.into_iter().flat_map(|set| set.members.iter().map(move |member| (set, member)));
        members.filter_map(|(set, member)| self.l7(set.direction, member))
    }

    fn l7(&self, direction: Direction, member: &Member) -> Option<&L7> {
        let entries = self.rule(direction, member.place)?.ports.as_ref()?;
        entries.get(member.l7? as usize)?.l7.as_ref()
    }

    /// Whether a rule's entry of ports allows a request.
    pub(super) fn lets(&self, direction: Direction, member: &Member, request: &Request<'_>) -> bool {
        self.l7(direction, member).is_some_and(|l7| l7.allows(request))
    }
}

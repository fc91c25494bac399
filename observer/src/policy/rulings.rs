//! What is told where a set of rules decides: its names, looked up once for each change of policies or endpoints.

use super::{Hits, Policies, World};
use crate::policy_verdict::{PolicyName, PolicyTold, PolicyVerdict};
use hashbrown::{HashMap, HashSet};
use observer_policy::{
    engine::{MatchType, RuleSetId, Ruling, Verdict},
    model::{Direction, Kind, Mode, Policy, PolicyId},
};
use std::{
    hash::{Hash, Hasher},
    sync::{Arc, atomic::Ordering},
};

/// Verdicts that are kept to be shared; when there are more all are made anew.
const MOST_SHARED: usize = 16_384;

/// By the sets of rules of one revision of each of the two worlds' engines.
#[derive(Debug, Default)]
pub(super) struct Rulings {
    known: [OfRevision; 2],
    /// Of earlier revisions too: most changes change no verdict.
    shared: HashSet<Shared>,
}

#[derive(Debug, Default)]
struct OfRevision {
    revision: u64,
    known: HashMap<RuleSetId, Known>,
}

/// A set of rules, looked up.
#[derive(Debug)]
pub(super) struct Known {
    /// By the audited policies and the enforced ones; nothing where those that say something are evaluated only.
    pub(super) verdict: Option<Arc<PolicyVerdict>>,
    /// By the enforced ones alone, where they deny.
    pub(super) denial: Option<Arc<PolicyVerdict>>,
    allowed: bool,
    /// Of the policies that decided, those that are evaluated only among them.
    hits: Box<[Arc<Hits>]>,
    /// Of the enforced ones that deny.
    denials: Box<[Arc<Hits>]>,
}

impl Known {
    /// Counts a connection that passed with those who decided on it.
    pub(super) fn hit(&self) {
        for hits in &self.hits {
            let counter = if self.allowed { &hits.allowed } else { &hits.would_deny };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one that was denied.
    pub(super) fn hit_denied(&self) {
        for hits in &self.denials {
            hits.denied.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Rulings {
    /// What is told where a set of rules decided in this world.
    pub(super) fn of(
        &mut self,
        policies: &Policies,
        (number, world): (usize, &World),
        direction: Direction,
        id: RuleSetId,
    ) -> &Known {
        let engine = &world.engine;
        let Self { known, shared } = self;
        let OfRevision { revision, known } = &mut known[number];
        if *revision != engine.revision() {
            *revision = engine.revision();
            known.clear();
        }
        known.entry(id).or_insert_with(|| {
            let by_all = engine.ruling(id, Mode::Observe);
            let told = engine.ruling(id, Mode::Audit);
            let denial = engine.ruling(id, Mode::Enforce).filter(|ruling| !ruling.verdict.passes());
            let hits = |ruling: &Option<Ruling<'_>>| {
                ruling.iter().flat_map(|ruling| ids(ruling)).map(|id| policies.hits_of(id)).collect()
            };
            let (all, denials) = (hits(&by_all), hits(&denial));
            let mut verdict = |ruling: Ruling<'_>| share(shared, tell(&ruling, direction, world.revision));
            Known {
                allowed: by_all.as_ref().is_some_and(|ruling| ruling.verdict.passes()),
                hits: all,
                denials,
                verdict: told.map(&mut verdict),
                denial: denial.map(&mut verdict),
            }
        })
    }

    /// What is told where nobody knows who is judged, and hence by which policies.
    pub(super) fn of_nobody(&mut self, direction: Direction, revision: u64) -> Arc<PolicyVerdict> {
        let is_egress = direction == Direction::Egress;
        share(&mut self.shared, PolicyTold { is_egress, denies: true, revision, ..PolicyTold::default() })
    }
}

/// Those who decided, each once.
pub(super) fn deciding<'a>(ruling: &Ruling<'a>) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> = ruling.rules.iter().map(|named| named.policy).collect();
    policies.extend(&ruling.isolating);
    policies.sort_by_key(|policy| &policy.id);
    policies.dedup_by_key(|policy| &policy.id);
    policies
}

fn ids<'a>(ruling: &Ruling<'a>) -> Vec<&'a PolicyId> {
    deciding(ruling).into_iter().map(|policy| &policy.id).collect()
}

pub(super) fn tell(ruling: &Ruling<'_>, direction: Direction, revision: u64) -> PolicyTold {
    let deciding = deciding(ruling);
    let match_type = match ruling.verdict {
        // Nothing isolates the side: all of it is allowed.
        Verdict::Open => MatchType::All,
        // The own node comes in, whatever rules say.
        Verdict::Allowed if deciding.is_empty() => MatchType::L3Only,
        _ => ruling.match_type,
    };
    let mut log: Vec<Box<str>> = deciding.iter().filter_map(|policy| policy.log.clone()).collect();
    log.dedup();
    PolicyTold {
        is_egress: direction == Direction::Egress,
        denies: !ruling.verdict.passes(),
        match_type: match_type as u8,
        policies: deciding.iter().map(|policy| name(&policy.id)).collect(),
        log,
        revision,
    }
}

fn name(id: &PolicyId) -> PolicyName {
    PolicyName { kind: word(id.kind), namespace: id.namespace.clone(), name: id.name.clone() }
}

/// What it is the name of.
pub(super) fn id(name: &PolicyName) -> Option<PolicyId> {
    let kinds = [Kind::NetworkPolicy, Kind::CiliumNetworkPolicy, Kind::CiliumClusterwideNetworkPolicy];
    let kind = kinds.into_iter().find(|kind| word(*kind) == name.kind)?;
    Some(PolicyId { kind, namespace: name.namespace.clone(), name: name.name.clone() })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::NetworkPolicy => "NetworkPolicy",
        Kind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
        Kind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
    }
}

/// By what it tells.
#[derive(Debug)]
struct Shared(Arc<PolicyVerdict>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.0.told() == other.0.told()
    }
}

impl Eq for Shared {}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.told().hash(state);
    }
}

impl hashbrown::Equivalent<Shared> for PolicyTold {
    fn equivalent(&self, key: &Shared) -> bool {
        self == key.0.told()
    }
}

fn share(shared: &mut HashSet<Shared>, told: PolicyTold) -> Arc<PolicyVerdict> {
    if let Some(Shared(known)) = shared.get(&told) {
        return Arc::clone(known);
    }
    if shared.len() >= MOST_SHARED {
        shared.clear();
    }
    let verdict = Arc::new(PolicyVerdict::new(told));
    shared.insert(Shared(Arc::clone(&verdict)));
    verdict
}

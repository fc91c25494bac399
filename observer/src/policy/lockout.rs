//! Whether enforced policies would cut this node off from those who keep and use it.

mod facts;

use super::{PolicyConfig, PolicyError, Set};
use crate::enrich::ipcache::IpCache;
use observer_inventory::policy::HOST;
use observer_policy::{
    engine::{Change, Engine, WithMode},
    model::{Direction, Mode, Subject},
    wire::protocol,
    world::{Endpoint, Surroundings},
};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// What would be cut that an error names.
const MOST_NAMED: usize = 4;

/// Something that the node must be able to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    /// Who is at the other end, in words.
    whom: String,
    /// Egress to them, or ingress from them.
    direction: Direction,
    address: IpAddr,
    protocol: u8,
    /// The destination's port. Of several it is not known which is meant: one is enough.
    ports: Vec<u16>,
}

/// What the decision rests on.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The node itself, and who is at the other ends.
    endpoints: Vec<(Arc<str>, Endpoint)>,
    surroundings: Surroundings,
    needs: BTreeSet<Need>,
}

/// Refuses a set whose enforced policies would cut this node off, unless that is allowed. `own` are the addresses of the
/// node's links.
pub(super) fn refuse(
    set: &Set,
    config: &PolicyConfig,
    cache: &IpCache,
    own: &[IpAddr],
) -> Result<(), PolicyError> {
    let enforced: Vec<WithMode> = set.with_modes().into_iter().filter(is_enforced_on_nodes).collect();
    if config.allow_lockout || enforced.is_empty() {
        return Ok(());
    }
    let facts = facts::gather(cache, own, config.own_port).map_err(|why| {
        PolicyError::Lockout(format!(
            "cannot tell whether enforced policies would cut this node off: {why}; --allow-lockout takes them all the \
             same"
        ))
    })?;
    cut_off(&facts, enforced).map_or(Ok(()), |what| Err(PolicyError::Lockout(what)))
}

fn is_enforced_on_nodes((policy, mode): &WithMode) -> bool {
    *mode == Mode::Enforce && matches!(policy.subject, Subject::Nodes(_))
}

/// What these policies, all of them enforced, would cut off.
fn cut_off(facts: &Facts, policies: Vec<WithMode>) -> Option<String> {
    let mut engine = Engine::new(false);
    let policies = engine.difference(policies);
    let endpoints = facts.endpoints.iter().map(|(name, endpoint)| (Arc::clone(name), Some(endpoint.clone())));
    let surroundings = Some(facts.surroundings.clone());
    engine.apply(Change { endpoints: endpoints.collect(), policies, surroundings });
    let (host, _) = engine.endpoint(HOST)?;
    let (mut cut, mut by) = (Vec::new(), BTreeSet::new());
    for need in &facts.needs {
        let peer = engine.peer_at(need.address);
        let judge = |port: &u16| engine.judge(host, need.direction, peer, need.protocol, *port);
        let denied: Vec<_> = need.ports.iter().map(judge).collect();
        if denied.iter().any(|decision| decision.enforced.passes()) {
            continue;
        }
        let rulings = denied.iter().filter_map(|decision| engine.ruling(decision.rules?, Mode::Enforce));
        for ruling in rulings {
            by.extend(ruling.isolating.iter().map(|policy| policy.id.clone()));
            by.extend(ruling.rules.iter().filter(|rule| rule.deny).map(|rule| rule.policy.id.clone()));
        }
        cut.push(need.to_string());
    }
    if cut.is_empty() {
        return None;
    }
    let more = cut.len().saturating_sub(MOST_NAMED);
    cut.truncate(MOST_NAMED);
    if more > 0 {
        cut.push(format!("{more} more"));
    }
    let by: Vec<String> = by.iter().map(ToString::to_string).collect();
    Some(format!(
        "{} in mode enforce would cut this node off: {}; allow that by a rule, or start the daemon with --allow-lockout",
        by.join(", "),
        cut.join(", ")
    ))
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.direction {
            Direction::Egress => "to",
            Direction::Ingress => "from",
        };
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{way} {} {} on {}/{}",
            self.whom,
            self.address,
            ports.join(" or "),
            protocol(self.protocol)
        )
    }
}

#[cfg(test)]
mod tests;

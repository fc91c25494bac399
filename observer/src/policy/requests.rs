//! What policies say of a request in a connection, both sides at once: what its client may ask, and what its server may be
//! asked. A side counts where its pod is on this node; of the other one's its own node knows.

use super::{Policies, World, rulings};
use crate::policy_verdict::PolicyTold;
use observer_policy::{
    engine::{RuleSetId, Ruling},
    l7::Request,
    model::{Direction, Mode, TCP},
};
use std::net::SocketAddr;

/// What is said of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// By the enforced policies it passes.
    pub passes: bool,
    /// By the audited ones too.
    pub passes_audited: bool,
    /// What is told of each side that policies say something about, by the policies that count.
    pub told: Vec<PolicyTold>,
}

impl Policies {
    /// Judges a request that `client` sends to `server`. Where a server may take its target for another one, that must pass
    /// too: `meant` is what it may be.
    pub fn judge_request(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        request: &Request,
        meant: Option<&Request>,
    ) -> Judged {
        let world = self.world();
        let mut judged = Judged { passes: true, passes_audited: true, told: Vec::new() };
        for direction in [Direction::Egress, Direction::Ingress] {
            let Some(rules) = rules_of(&world, direction, client, server) else { continue };
            let ruling = |least, request| world.engine.ruling_on(rules, least, request);
            let both = [Some(request), meant];
            let denies = |least| {
                let mut found = both.into_iter().flatten().filter_map(|request| ruling(least, request));
                found.find(|ruling: &Ruling<'_>| !ruling.verdict.passes())
            };
            let (denial, audited) = (denies(Mode::Enforce), denies(Mode::Audit));
            judged.passes &= denial.is_none();
            judged.passes_audited &= audited.is_none();
            let told = denial.or(audited).or_else(|| ruling(Mode::Audit, request));
            judged.told.extend(told.map(|ruling| rulings::tell(&ruling, direction, world.revision)));
        }
        judged
    }
}

/// The rules of one side, where it is this node's and any policy selects it.
fn rules_of(
    world: &World,
    direction: Direction,
    client: SocketAddr,
    server: SocketAddr,
) -> Option<RuleSetId> {
    let (own, other) = match direction {
        Direction::Egress => (client.ip(), server.ip()),
        Direction::Ingress => (server.ip(), client.ip()),
    };
    let engine = &world.engine;
    if !world.is_local(engine.name_at(own)?) {
        return None;
    }
    let subject = engine.subject_at(own)?;
    engine.judge(subject, direction, engine.peer_at(other), TCP, server.port()).rules
}

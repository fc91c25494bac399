//! What policies say of a request, of HTTP or DNS, both sides at once: what its client may ask, and what its server may be
//! asked. A side counts where its pod is on this node; of the other one's its own node knows.

use super::{Policies, World, rulings};
use crate::policy_verdict::PolicyTold;
use observer_policy::{
    engine::{RuleSetId, Ruling, Verdict as Decided},
    l7::{L7, Request},
    model::{Direction, Mode, TCP},
};
use observer_proto::flow::Verdict;
use std::net::{IpAddr, SocketAddr};

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

impl Judged {
    /// What is told of the request.
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.passes, self.passes_audited) {
            (false, _) => Verdict::Dropped,
            (true, false) => Verdict::Audit,
            (true, true) => Verdict::Forwarded,
        }
    }

    /// Of several sides the first that denies, else the last, which is the server's.
    pub(crate) fn deciding(self) -> Option<PolicyTold> {
        let deciding = self.told.iter().position(|told| told.denies);
        let last = self.told.len().saturating_sub(1);
        self.told.into_iter().nth(deciding.unwrap_or(last))
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

impl Policies {
    /// Whether what is said in a connection of TCP is DNS, as rules have it; where there are none any more, by its port.
    pub(crate) fn speaks_dns(&self, client: SocketAddr, server: SocketAddr) -> bool {
        const DNS: u16 = 53;
        let world = self.world();
        let rules = DIRECTIONS.into_iter().filter_map(|way| rules_of(&world, way, client, server, TCP));
        let mut is_dns = None;
        for l7 in rules.flat_map(|rules| world.engine.requests_of(rules)) {
            is_dns = Some(is_dns.unwrap_or(true) && matches!(l7, L7::Dns(_)));
        }
        is_dns.unwrap_or(server.port() == DNS)
    }

    /// Whether no enforced policy has requests judged in a connection of TCP.
    pub(crate) fn only_audits(&self, client: SocketAddr, server: SocketAddr) -> bool {
        let world = self.world();
        let mut rules = DIRECTIONS.into_iter().filter_map(|way| rules_of(&world, way, client, server, TCP));
        rules.all(|rules| {
            let enforced = world.engine.ruling(rules, Mode::Enforce);
            enforced.is_none_or(|ruling| ruling.verdict != Decided::Requests)
        })
    }

    /// Whether an address is the node's own.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.world().engine.owner(address).is_some_and(|(_, at)| at.is_host)
    }

    /// Judges a request that `client` sends to `server` by this protocol. Where a server may take its target for another one, that must pass
    /// too: `meant` is what it may be.
    pub fn judge_request(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        protocol: u8,
        request: &Request,
        meant: Option<&Request>,
    ) -> Judged {
        let world = self.world();
        let mut judged = Judged { passes: true, passes_audited: true, told: Vec::new() };
        for direction in DIRECTIONS {
            let Some(rules) = rules_of(&world, direction, client, server, protocol) else { continue };
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
    protocol: u8,
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
    engine.judge(subject, direction, engine.peer_at(other), protocol, server.port()).rules
}

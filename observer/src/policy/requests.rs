//! What policies say of a request, of HTTP or DNS, both sides at once: what its client may ask, and what its server may be
//! asked. A side counts where its pod is on this node; of the other one's its own node knows.

use super::{Policies, World, rulings};
use crate::policy_verdict::{PolicyTold, PolicyVerdict};
use observer_policy::{
    engine::{RuleSetId, Ruling, Verdict as Decided},
    l7::{L7, Request},
    model::{Direction, Mode, TCP},
};
use observer_proto::flow::Verdict;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

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
    /// What becomes of the request.
    pub(crate) fn ruled(self) -> Ruled {
        let Self { passes, passes_audited, told } = self;
        let verdict = match (passes, passes_audited) {
            (false, _) => Verdict::Dropped,
            (true, false) => Verdict::Audit,
            (true, true) => Verdict::Forwarded,
        };
        let deciding = told.iter().position(|told| told.denies).unwrap_or(told.len().saturating_sub(1));
        let told = told.into_iter().nth(deciding).map(|told| Arc::new(PolicyVerdict::new(told)));
        Ruled { passes, verdict, told }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    /// Whether it goes on to the server.
    pub(crate) passes: bool,
    /// What is told of it.
    pub(crate) verdict: Verdict,
    /// By which policies: of several sides the first that denies, else the last, which is the server's.
    pub(crate) told: Option<Arc<PolicyVerdict>>,
}

/// A world's number and its engine's revision, by which numbers of rules hold.
type WorldRevision = (usize, u64);
/// Of each side, which rules allow a request, and what a server may take it for.
type Allowing = [(u64, u64); 2];

/// What was said of one connection's requests: of those that the same rules allow the same is said, and it is made once.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    of: Option<WorldRevision>,
    sides: Sides,
    said: Vec<(Allowing, Ruled)>,
}

/// So much is kept; few connections ask for things that so many rules tell apart.
const MOST_KEPT: usize = 16;

/// The rules of each side that is this node's and that any policy selects.
type Sides = [Option<RuleSetId>; 2];

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
        request: &Request<'_>,
        meant: Option<&Request<'_>>,
    ) -> Judged {
        let world = self.world();
        let sides = DIRECTIONS.map(|direction| rules_of(&world, direction, client, server, protocol));
        judge(&world, sides, request, meant)
    }

    /// The same, of one of many in a connection.
    pub(crate) fn judge_another(
        &self,
        said: &Said,
        (client, server, protocol): (SocketAddr, SocketAddr, u8),
        request: &Request<'_>,
        meant: Option<&Request<'_>>,
    ) -> Ruled {
        let (number, world) = self.worlds.read();
        let mut kept = said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { of, sides, said } = &mut *kept;
        let now = Some((number, world.engine.revision()));
        if *of != now {
            *of = now;
            *sides = DIRECTIONS.map(|direction| rules_of(&world, direction, client, server, protocol));
            said.clear();
        }
        let Some(allowing) = allowing(&world, *sides, request, meant) else {
            return judge(&world, *sides, request, meant).ruled();
        };
        if let Some((_, ruled)) = said.iter().find(|(known, _)| *known == allowing) {
            return ruled.clone();
        }
        let ruled = judge(&world, *sides, request, meant).ruled();
        if said.len() == MOST_KEPT {
            said.clear();
        }
        said.push((allowing, ruled.clone()));
        ruled
    }
}

fn allowing(
    world: &World,
    sides: Sides,
    request: &Request<'_>,
    meant: Option<&Request<'_>>,
) -> Option<Allowing> {
    let mut allowing = Allowing::default();
    for (rules, (asked, other)) in sides.into_iter().zip(&mut allowing) {
        let Some(rules) = rules else { continue };
        *asked = world.engine.letting(rules, request)?;
        *other = meant.map_or(Some(*asked), |meant| world.engine.letting(rules, meant))?;
    }
    Some(allowing)
}

fn judge(world: &World, sides: Sides, request: &Request<'_>, meant: Option<&Request<'_>>) -> Judged {
    let mut judged = Judged { passes: true, passes_audited: true, told: Vec::new() };
    for (direction, rules) in DIRECTIONS.into_iter().zip(sides) {
        let Some(rules) = rules else { continue };
        let denies = |ruling: &Option<Ruling<'_>>| ruling.as_ref().is_some_and(|r| !r.verdict.passes());
        let ruling = |least| {
            let of = |request| world.engine.ruling_on(rules, least, request);
            let asked = of(request);
            let worse = meant.filter(|_| !denies(&asked)).map(of).filter(denies);
            worse.unwrap_or(asked)
        };
        let (enforced, audited) = (ruling(Mode::Enforce), ruling(Mode::Audit));
        judged.passes &= !denies(&enforced);
        judged.passes_audited &= !denies(&audited);
        let told = if denies(&enforced) { enforced } else { audited };
        judged.told.extend(told.map(|ruling| rulings::tell(&ruling, direction, world.revision)));
    }
    judged
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

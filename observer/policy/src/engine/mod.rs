//! Policies compiled for the endpoints that there are, and kept so as either changes.
//!
//! Endpoints with the same labels and named ports are one *class*; addresses that no rule tells apart are one *group*;
//! class and group of an address together are its *peer*. Subjects with the same policies share a *table*, which has a
//! *row* for each peer that is named by a rule, and one for everybody else. A row is all protocols and ports in order,
//! cut where the *set of rules* changes. So a verdict is three look-ups, whatever the number of policies.

mod addresses;
mod decision;
mod kernel;
mod look;
mod peers;
mod rules;
mod ruling;
mod selectors;
mod table;
mod update;

pub use decision::{Decision, MatchType, RuleSetId, Verdict};
pub use kernel::{At, Rows, TableId, Touched};
pub use look::Size;
pub use ruling::Ruling;

use crate::{
    l7::Request,
    label::Labels,
    model::{Direction, Mode, Policy, PolicyId, Reach, Rule},
    world::{Endpoint, NamedPort, Surroundings},
};
use addresses::{Addresses, NO_GROUP};
use decision::{Member, RuleSet};
use hashbrown::HashMap;
use peers::{Peer, Peers};
use rules::Compiled;
use selectors::Selectors;
use slab::Slab;
use std::{net::IpAddr, sync::Arc};
use table::{Table, TableKey};

/// The kind of an endpoint, as a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(pub u32);

/// The kind of an endpoint, and where its address lies, as a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// What names one policy, or one of the `specs` of one.
pub type PolicyKey = (PolicyId, u32);

/// A policy and the mode that it has after all that can say it.
pub type WithMode = (Arc<Policy>, Mode);

/// What changed; everything else stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Endpoints by a name of the caller's; `None`: gone.
    pub endpoints: Vec<(Arc<str>, Option<Endpoint>)>,
    /// Policies with the mode that is theirs; `None`: gone.
    pub policies: Vec<(PolicyKey, Option<WithMode>)>,
    /// All of the surroundings.
    pub surroundings: Option<Surroundings>,
}

/// Endpoints with the same labels and ports.
#[derive(Debug)]
struct Class {
    labels: Labels,
    ports: Arc<[NamedPort]>,
    uses: usize,
    peers: Vec<u32>,
    is_world: bool,
    is_host: bool,
}

#[derive(Debug)]
struct Slot {
    policy: Arc<Policy>,
    mode: Mode,
    subject: u32,
    ingress: Box<[Compiled]>,
    egress: Box<[Compiled]>,
}

impl Slot {
    fn rules(&self, direction: Direction) -> &[Compiled] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

#[derive(Debug)]
struct Known {
    endpoint: Endpoint,
    class: u32,
    /// Its peer without an address.
    own: u32,
    /// In the order of its addresses.
    at: Vec<u32>,
}

/// All policies, compiled.
#[derive(Debug)]
pub struct Engine {
    revision: u64,
    classes: Slab<Class>,
    class_numbers: HashMap<(Labels, Arc<[NamedPort]>), u32>,
    /// By class and direction; apart from the classes, so that many fit into the processor's cache.
    tables_of: Vec<[Option<u32>; 2]>,
    host_classes: Vec<u32>,
    /// The classes of the world, for IPv4 and IPv6.
    world: [u32; 2],
    endpoints: HashMap<Arc<str>, Known>,
    of_address: HashMap<IpAddr, (Arc<str>, u32)>,
    surroundings: Surroundings,
    policies: Slab<Slot>,
    policy_numbers: HashMap<PolicyKey, u32>,
    selectors: Selectors,
    addresses: Addresses,
    peers: Peers,
    world_peers: HashMap<Peer, u32>,
    tables: Slab<Option<Table>>,
    table_numbers: HashMap<TableKey, u32>,
    rule_sets: Slab<RuleSet>,
    touched: Touched,
}

/// A rule that a verdict comes from.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its policy.
    pub policy: &'a Policy,
    /// The policy's mode.
    pub mode: Mode,
    /// The rule.
    pub rule: &'a Rule,
    /// Whether it denies.
    pub deny: bool,
}

impl Engine {
    /// Without policies and endpoints. With `dual_stack` the world has an identity for each family, as Cilium has it,
    /// which the selector `reserved:world` misses.
    pub fn new(dual_stack: bool) -> Self {
        let mut this = Self {
            revision: 0,
            classes: Slab::new(),
            class_numbers: HashMap::new(),
            tables_of: Vec::new(),
            host_classes: Vec::new(),
            world: [0; 2],
            endpoints: HashMap::new(),
            of_address: HashMap::new(),
            surroundings: Surroundings::default(),
            policies: Slab::new(),
            policy_numbers: HashMap::new(),
            selectors: Selectors::default(),
            addresses: Addresses::default(),
            peers: Peers::default(),
            world_peers: HashMap::new(),
            tables: Slab::new(),
            table_numbers: HashMap::new(),
            rule_sets: Slab::new(),
            touched: Touched::All,
        };
        let names = if dual_stack { ["world-ipv4", "world-ipv6"] } else { ["world"; 2] };
        this.world = names.map(|name| {
            let labels = Labels::parse([format!("reserved:{name}")]);
            this.acquire_class(&labels, Arc::from([])).0
        });
        this.apply(Change::default());
        this
    }

    /// Counts changes; a row is of one revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An endpoint by the caller's name: what it is as a subject, and as a peer without regard to its addresses.
    pub fn endpoint(&self, name: &str) -> Option<(SubjectId, PeerId)> {
        self.endpoints.get(name).map(|known| (SubjectId(known.class), PeerId(known.own)))
    }

    /// Who has an address: an endpoint, else the world.
    pub fn peer_at(&self, address: IpAddr) -> PeerId {
        if let Some((_, peer)) = self.of_address.get(&address) {
            return PeerId(*peer);
        }
        let class = self.world[usize::from(address.is_ipv6())];
        let peer = Peer { class, group: self.addresses.group_of(address) };
        // Every group has its peers of the world; the one without an address is there always.
        let number = self.peers.number(peer).or_else(|| self.peers.number(Peer { class, group: NO_GROUP }));
        PeerId(number.unwrap_or(0))
    }

    /// An endpoint at one of its addresses, as a peer; at an address that is not its own, without regard to it.
    pub fn peer_of(&self, name: &str, address: IpAddr) -> Option<PeerId> {
        match self.of_address.get(&address) {
            Some((owner, peer)) if **owner == *name => Some(PeerId(*peer)),
            _ => self.endpoint(name).map(|(_, peer)| peer),
        }
    }

    /// The endpoint that has an address.
    pub fn subject_at(&self, address: IpAddr) -> Option<SubjectId> {
        let (name, _) = self.of_address.get(&address)?;
        self.endpoint(name).map(|(subject, _)| subject)
    }

    /// Judges a connection on one side. For ICMP the port is its type. Numbers must be of this revision.
    pub fn judge(
        &self,
        subject: SubjectId,
        direction: Direction,
        peer: PeerId,
        protocol: u8,
        port: u16,
    ) -> Decision {
        let Some(table) = self.table(subject, direction) else { return Decision::OPEN };
        table.look_up(peer.0, protocol, port)
    }

    /// Whether any policy says something about a side of a subject.
    pub fn judges(&self, subject: SubjectId, direction: Direction) -> bool {
        self.table(subject, direction).is_some()
    }

    /// Whether a request passes in a connection with that decision, by all policies.
    pub fn allows(&self, decision: Decision, request: &Request<'_>) -> bool {
        self.passes(decision, decision.all, request, |_| true)
    }

    /// Whether it passes by the enforced policies alone.
    pub fn allows_enforced(&self, decision: Decision, request: &Request<'_>) -> bool {
        self.passes(decision, decision.enforced, request, |mode| mode == Mode::Enforce)
    }

    fn passes(
        &self,
        decision: Decision,
        verdict: Verdict,
        request: &Request<'_>,
        counts: impl Fn(Mode) -> bool,
    ) -> bool {
        match (verdict, decision.rules.and_then(|id| self.rule_sets.get(id.0 as usize))) {
            (Verdict::Requests, Some(set)) => set.members.iter().any(|member| {
                let mode = self.policies.get(member.place.policy as usize).map(|slot| slot.mode);
                mode.is_some_and(&counts) && self.lets(set.direction, member, request)
            }),
            (verdict, _) => verdict.passes(),
        }
    }

    /// The rules that made a verdict.
    pub fn names(&self, id: RuleSetId) -> Vec<Named<'_>> {
        let Some(set) = self.rule_sets.get(id.0 as usize) else { return Vec::new() };
        self.named(set.direction, set.deciding())
    }

    fn named<'a>(&self, direction: Direction, members: impl Iterator<Item = &'a Member>) -> Vec<Named<'_>> {
        let mut places: Vec<_> = members.map(|member| (member.place, member.deny)).collect();
        places.dedup();
        let named = places.into_iter().filter_map(|(place, deny)| {
            let slot = self.policies.get(place.policy as usize)?;
            let rule = self.rule(direction, place)?;
            Some(Named { policy: &slot.policy, mode: slot.mode, rule, deny })
        });
        named.collect()
    }

    /// How exactly the deciding rule names the connection.
    pub fn match_type(&self, id: RuleSetId) -> MatchType {
        self.rule_sets.get(id.0 as usize).map_or(MatchType::None, |set| set.match_type)
    }

    /// A policy, with its mode.
    pub fn policy(&self, key: &PolicyKey) -> Option<WithMode> {
        let slot = self.policies.get(*self.policy_numbers.get(key)? as usize)?;
        Some((Arc::clone(&slot.policy), slot.mode))
    }

    /// Policies that select a subject and say something about a direction, with their modes.
    pub fn policies_of(
        &self,
        subject: SubjectId,
        direction: Direction,
    ) -> impl Iterator<Item = (&Policy, Mode)> {
        let policies = self.table(subject, direction).map(|table| table.key.policies.clone());
        let slots = policies.into_iter().flat_map(|list| list.to_vec());
        slots.filter_map(|number| self.policies.get(number as usize)).map(|slot| (&*slot.policy, slot.mode))
    }

    fn table(&self, subject: SubjectId, direction: Direction) -> Option<&Table> {
        let number = self.tables_of.get(subject.0 as usize)?[direction as usize]?;
        self.tables.get(number as usize)?.as_ref()
    }

    fn rule(&self, direction: Direction, place: table::Place) -> Option<&Rule> {
        let side = self.policies.get(place.policy as usize)?.policy.side(direction)?;
        side.rules().nth(place.rule as usize)
    }

    fn is_host(&self, peer: Peer) -> bool {
        self.classes[peer.class as usize].is_host
    }

    fn is_within(&self, reach: Reach, class: u32) -> bool {
        reach == Reach::Everyone || self.classes[class as usize].is_world
    }
}

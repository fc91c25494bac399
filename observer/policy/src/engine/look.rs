//! What [`crate::explain`], [`crate::warn`] and [`crate::wire`] look at.

use super::{Engine, PeerId, SubjectId, addresses::NO_GROUP, peers::Peer};
use crate::{
    label::Labels,
    model::{Direction, Mode, Policy, Rule},
    world::{Endpoint, NamedPort, Surroundings},
};
use std::{net::IpAddr, sync::Arc};

/// How much there is, for memory and for the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Size {
    /// Policies, each of several `specs` by itself.
    pub policies: usize,
    /// Combinations of labels and named ports.
    pub classes: usize,
    /// Peers that a table could tell apart.
    pub peers: usize,
    /// Tables, each of one direction.
    pub tables: usize,
    /// Peers with a row of their own, over all tables.
    pub rows: usize,
    /// Sets of rules.
    pub rule_sets: usize,
}

impl Engine {
    /// How much there is.
    pub fn size(&self) -> Size {
        Size {
            policies: self.policies.len(),
            classes: self.classes.len(),
            peers: self.peers.iter().count(),
            tables: self.tables.len(),
            rows: self
                .tables
                .iter()
                .filter_map(|(_, table)| table.as_ref())
                .map(|table| table.places().count())
                .sum(),
            rule_sets: self.rule_sets.len(),
        }
    }

    /// Every policy with its mode, in no order.
    pub fn policies(&self) -> impl Iterator<Item = (&Policy, Mode)> {
        self.policies.iter().map(|(_, slot)| (&*slot.policy, slot.mode))
    }

    /// Every policy with its mode and the kinds of endpoints that it selects.
    pub(crate) fn policies_with_kinds(
        &self,
    ) -> impl Iterator<Item = (&Policy, Mode, impl Iterator<Item = u32>)> {
        self.policies.iter().map(move |(_, slot)| {
            let classes = self.selectors.get(slot.subject).classes.iter().copied();
            let selects =
                move |class: &u32| slot.policy.subject.selects(&self.classes[*class as usize].labels);
            (&*slot.policy, slot.mode, classes.filter(selects))
        })
    }

    /// Every endpoint: its name, its kind, and what it is.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&Arc<str>, u32, &Endpoint)> {
        self.endpoints.iter().map(|(name, known)| (name, known.class, &known.endpoint))
    }

    /// What an endpoint is.
    pub(crate) fn endpoint_named(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.get(name).map(|known| &known.endpoint)
    }

    /// The name of the endpoint that has an address.
    pub fn name_at(&self, address: IpAddr) -> Option<&str> {
        self.of_address.get(&address).map(|(name, _)| &**name)
    }

    /// What is at an address: its labels, and the endpoint's name unless it is the world.
    pub(crate) fn at(&self, address: IpAddr) -> (Option<&Arc<str>>, &Labels) {
        let peer = self.peers.get(self.peer_at(address).0);
        (self.of_address.get(&address).map(|(name, _)| name), &self.classes[peer.class as usize].labels)
    }

    /// The world where no rule names the address.
    pub(crate) fn world(&self) -> PeerId {
        let peer = Peer { class: self.world[0], group: NO_GROUP };
        PeerId(self.peers.number(peer).unwrap_or(0))
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Labels and ports of the endpoints, each combination once.
    pub(crate) fn endpoint_kinds(&self) -> impl Iterator<Item = (&Labels, &[NamedPort])> {
        let endpoints = self.classes.iter().filter(|(_, class)| !class.is_world);
        endpoints.map(|(_, class)| (&class.labels, &*class.ports))
    }

    /// Rules that could allow, whether each is about the peer, and whether a name is the port of a destination.
    pub(crate) fn allowing(
        &self,
        subject: SubjectId,
        direction: Direction,
        peer: PeerId,
    ) -> Vec<(&Policy, &Rule, bool, &[NamedPort])> {
        let Some(table) = self.table(subject, direction) else { return Vec::new() };
        let peer = self.peers.get(peer.0);
        let destination = if direction == Direction::Ingress { subject.0 } else { peer.class };
        let ports = &*self.classes[destination as usize].ports;
        let mut rules = Vec::new();
        for &policy in &*table.key.policies {
            let slot = &self.policies[policy as usize];
            let Some(side) = slot.policy.side(direction) else { continue };
            for (rule, compiled) in side.allow.iter().zip(slot.rules(direction)) {
                rules.push((&*slot.policy, rule, compiled.any || self.is_about(compiled, peer), ports));
            }
        }
        rules
    }
}

//! Changes of endpoints, policies and surroundings: only the tables that they reach are made anew.

use super::{
    Change, Class, Engine, Known, PolicyKey, Slot, Touched, WithMode,
    addresses::NO_GROUP,
    peers::Peer,
    rules::{self, Context},
    table::TableKey,
};
use crate::{
    label::Labels,
    model::{Direction, Mode, Policy},
    world::{Endpoint, NamedPort},
};
use hashbrown::HashSet;
use std::{mem, sync::Arc};

/// What a change leaves to be done at its end.
#[derive(Default)]
struct Work {
    /// Classes whose tables may be others now.
    dirty: HashSet<u32>,
    /// Policies that are gone; their numbers stay taken, so that no table mistakes a new one for them.
    retired: Vec<u32>,
    unused_classes: Vec<u32>,
}

impl Engine {
    /// Takes over a change.
    pub fn apply(&mut self, change: Change) {
        self.revision += 1;
        let mut work = Work::default();
        for (name, endpoint) in change.endpoints {
            self.put_endpoint(&name, endpoint, &mut work);
        }
        if let Some(surroundings) = change.surroundings {
            self.surroundings = surroundings;
            let dynamic = self.policies.iter().filter(|(_, slot)| rules::is_dynamic(&slot.policy));
            let again = dynamic.map(|(_, slot)| (slot.policy.clone(), slot.mode)).collect::<Vec<_>>();
            for (policy, mode) in again {
                self.put_policy((policy.id.clone(), policy.part), Some((policy, mode)), true, &mut work);
            }
        }
        for (key, policy) in change.policies {
            self.put_policy(key, policy, false, &mut work);
        }
        for number in &work.retired {
            let slot = &self.policies[*number as usize];
            let sets = slot.ingress.iter().chain(&slot.egress).filter_map(|rule| rule.set);
            sets.for_each(|(set, _)| self.addresses.release(set));
        }
        let regrouped = self.regroup();
        let gone_groups = regrouped.clone().unwrap_or_default();
        let are_others = self.follow_peers(&work);
        self.addresses.forget(&gone_groups);
        let Work { dirty, retired, unused_classes } = &work;
        let is_same = dirty.is_empty() && retired.is_empty() && unused_classes.is_empty();
        if !is_same || regrouped.is_some() || are_others {
            self.touched = Touched::All;
        }
        for number in work.retired {
            let slot = self.policies.remove(number as usize);
            let rules = slot.ingress.iter().chain(&slot.egress);
            let selectors = rules.flat_map(|rule| &rule.selectors).chain([&slot.subject]);
            selectors.for_each(|selector| self.selectors.release(*selector));
        }
        self.drop_classes(&work.unused_classes);
    }

    /// What turns the policies that are there into these.
    pub fn difference(&self, policies: Vec<WithMode>) -> Vec<(PolicyKey, Option<WithMode>)> {
        let key = |policy: &Policy| (policy.id.clone(), policy.part);
        let wanted: HashSet<PolicyKey> = policies.iter().map(|(policy, _)| key(policy)).collect();
        let gone = self.policy_numbers.keys().filter(|key| !wanted.contains(*key));
        let gone = gone.map(|key| (key.clone(), None)).collect::<Vec<_>>();
        gone.into_iter()
            .chain(policies.into_iter().map(|(policy, mode)| (key(&policy), Some((policy, mode)))))
            .collect()
    }

    pub(super) fn acquire_class(&mut self, labels: &Labels, ports: Arc<[NamedPort]>) -> (u32, bool) {
        let key = (labels.clone(), ports);
        if let Some(&class) = self.class_numbers.get(&key) {
            self.classes[class as usize].uses += 1;
            return (class, false);
        }
        let (labels, ports) = key.clone();
        let (is_world, is_host) = (labels.is_world(), labels.is_reserved("host"));
        let entry = Class { labels, ports, uses: 1, peers: Vec::new(), is_world, is_host };
        let class = self.classes.insert(entry) as u32;
        if self.tables_of.len() <= class as usize {
            self.tables_of.resize(class as usize + 1, [None; 2]);
        }
        if is_host {
            self.host_classes.push(class);
        }
        self.selectors.add_class(class, &key.0);
        self.class_numbers.insert(key, class);
        (class, true)
    }

    fn put_endpoint(&mut self, name: &Arc<str>, endpoint: Option<Endpoint>, work: &mut Work) {
        if self.endpoints.get(name).map(|known| &known.endpoint) == endpoint.as_ref() {
            return;
        }
        let old = self.endpoints.remove(name);
        if let Some(endpoint) = endpoint {
            let mut ports = endpoint.ports.clone();
            ports.sort_unstable();
            let (class, is_new) = self.acquire_class(&endpoint.labels, ports.into());
            if is_new {
                work.dirty.insert(class);
            }
            let own = self.peers.acquire(Peer { class, group: NO_GROUP });
            let mut at = Vec::with_capacity(endpoint.addresses.len());
            for address in &endpoint.addresses {
                let peer = self.peers.acquire(Peer { class, group: self.addresses.group_of(*address) });
                at.push(peer);
                self.of_address.insert(*address, (name.clone(), peer));
                self.touched.address(*address);
            }
            self.endpoints.insert(name.clone(), Known { endpoint, class, own, at });
        }
        let Some(old) = old else { return };
        self.peers.release(old.own);
        old.at.iter().for_each(|peer| self.peers.release(*peer));
        let kept = self.endpoints.get(name).map_or(&[][..], |known| &known.endpoint.addresses);
        for address in old.endpoint.addresses.iter().filter(|address| !kept.contains(address)) {
            self.touched.address(*address);
            // Another endpoint may have it by now.
            if self.of_address.get(address).is_some_and(|(owner, _)| owner == name) {
                self.of_address.remove(address);
            }
        }
        let class = &mut self.classes[old.class as usize];
        class.uses -= 1;
        if class.uses == 0 {
            work.unused_classes.push(old.class);
        }
    }

    fn put_policy(&mut self, key: PolicyKey, new: Option<WithMode>, again: bool, work: &mut Work) {
        let old = self.policy_numbers.get(&key).copied();
        if let (Some(old), Some((policy, mode)), false) = (old, &new, again) {
            let slot = &self.policies[old as usize];
            if slot.mode == *mode && slot.policy == *policy {
                return;
            }
        }
        if let Some((policy, mode)) = new {
            let (subject, slot) = self.compile(policy, mode);
            let number = self.policies.insert(slot) as u32;
            self.selectors.add_subject(subject, number);
            work.dirty.extend(&self.selectors.get(subject).classes);
            self.policy_numbers.insert(key, number);
        } else {
            self.policy_numbers.remove(&key);
        }
        let Some(old) = old else { return };
        let slot = &self.policies[old as usize];
        self.selectors.remove_subject(slot.subject, old);
        work.dirty.extend(&self.selectors.get(slot.subject).classes);
        work.retired.push(old);
    }

    fn compile(&mut self, policy: Arc<Policy>, mode: Mode) -> (u32, Slot) {
        let subject = self.selectors.acquire(policy.subject.selector(), &self.classes);
        let mut context = Context {
            selectors: &mut self.selectors,
            addresses: &mut self.addresses,
            classes: &self.classes,
            surroundings: &self.surroundings,
        };
        let mut side = |side: &Option<_>| {
            side.as_ref().map(|side| rules::compile(side, &mut context)).unwrap_or_default()
        };
        let (ingress, egress) = (side(&policy.ingress), side(&policy.egress));
        (subject, Slot { policy, mode, subject, ingress, egress })
    }

    /// Puts endpoints and world into the groups that the rules make now, if these are others; the groups that are gone.
    fn regroup(&mut self) -> Option<Vec<u32>> {
        let changed = self.addresses.regroup();
        let gone = changed.clone().unwrap_or_default();
        if changed.is_some() {
            for known in self.endpoints.values_mut() {
                for (address, peer) in known.endpoint.addresses.iter().zip(&mut known.at) {
                    let new = self
                        .peers
                        .acquire(Peer { class: known.class, group: self.addresses.group_of(*address) });
                    let old = mem::replace(peer, new);
                    self.peers.release(old);
                }
            }
            for (address, (name, peer)) in &mut self.of_address {
                let Some(known) = self.endpoints.get(name) else { continue };
                let places = known.endpoint.addresses.iter().zip(&known.at);
                if let Some((_, new)) = places.into_iter().find(|(own, _)| *own == address) {
                    *peer = *new;
                }
            }
        }
        if changed.is_some() || self.world_peers.is_empty() {
            for class in self.world {
                for group in self.addresses.groups().filter(|group| !gone.contains(group)) {
                    let peer = Peer { class, group };
                    self.world_peers.entry(peer).or_insert_with(|| self.peers.acquire(peer));
                }
            }
            let gone: HashSet<u32> = gone.iter().copied().collect();
            self.world_peers.retain(|peer, number| {
                let stays = !gone.contains(&peer.group);
                if !stays {
                    self.peers.release(*number);
                }
                stays
            });
        }
        changed
    }

    /// Brings the tables to the peers and policies that there are now; whether the peers are others.
    fn follow_peers(&mut self, work: &Work) -> bool {
        let (mut added, unused) = self.peers.changes();
        let gone: HashSet<u32> = unused.iter().copied().collect();
        added.retain(|number| !gone.contains(number));
        for &number in &added {
            let class = self.peers.get(number).class;
            self.classes[class as usize].peers.push(number);
        }
        for &number in &unused {
            let class = self.peers.get(number).class;
            self.classes[class as usize].peers.retain(|other| *other != number);
        }
        for &class in &work.dirty {
            if self.classes[class as usize].uses > 0 {
                self.rekey(class);
            }
        }
        let are_others = !added.is_empty() || !unused.is_empty();
        if are_others {
            let numbers: Vec<usize> = self.tables.iter().map(|(number, _)| number).collect();
            for number in numbers {
                let Some(mut table) = self.tables[number].take() else { continue };
                if table.built < self.revision {
                    for peer in &unused {
                        table.remove_peer(*peer);
                    }
                    for peer in &added {
                        self.add_peer(&mut table, *peer);
                    }
                }
                self.tables[number] = Some(table);
            }
        }
        for number in unused {
            self.peers.remove(number);
        }
        are_others
    }

    /// Gives a class the tables of the policies that select it now.
    fn rekey(&mut self, class: u32) {
        let entry = &self.classes[class as usize];
        let (labels, ports) = (entry.labels.clone(), entry.ports.clone());
        let policies = self.selectors.policies_of(class, &labels);
        for direction in [Direction::Ingress, Direction::Egress] {
            let says = |number: &u32| {
                let policy = &self.policies[*number as usize].policy;
                policy.side(direction).is_some() && policy.subject.selects(&labels)
            };
            let own: Vec<u32> = policies.iter().copied().filter(says).collect();
            let named = |number: &u32| {
                self.policies[*number as usize].rules(direction).iter().any(|rule| !rule.named.is_empty())
            };
            let by_name = direction == Direction::Ingress && own.iter().any(named);
            let key = (!own.is_empty()).then(|| TableKey {
                direction,
                policies: own.into(),
                ports: if by_name { ports.clone() } else { Arc::from([]) },
                lets_host_in: direction == Direction::Ingress && !labels.is_node(),
            });
            let new = key.map(|key| self.acquire_table(key));
            let old = mem::replace(&mut self.tables_of[class as usize][direction as usize], new);
            if let Some(old) = old {
                self.release_table(old);
            }
        }
    }

    fn acquire_table(&mut self, key: TableKey) -> u32 {
        let number = self.table_numbers.get(&key).copied().unwrap_or_else(|| {
            let table = self.build_table(key.clone());
            let number = self.tables.insert(Some(table)) as u32;
            self.table_numbers.insert(key, number);
            number
        });
        if let Some(table) = &mut self.tables[number as usize] {
            table.subjects += 1;
        }
        number
    }

    fn release_table(&mut self, number: u32) {
        let Some(table) = &mut self.tables[number as usize] else { return };
        table.subjects -= 1;
        if table.subjects > 0 {
            return;
        }
        if let Some(table) = self.tables.remove(number as usize) {
            self.table_numbers.remove(&table.key);
            for id in table.rule_sets() {
                self.rule_sets.remove(id.0 as usize);
            }
        }
    }

    fn drop_classes(&mut self, classes: &[u32]) {
        for &class in classes {
            let Some(entry) = self.classes.get(class as usize).filter(|entry| entry.uses == 0) else {
                continue;
            };
            let (labels, ports) = (entry.labels.clone(), entry.ports.clone());
            mem::take(&mut self.tables_of[class as usize])
                .into_iter()
                .flatten()
                .for_each(|table| self.release_table(table));
            self.selectors.remove_class(class, &labels);
            self.class_numbers.remove(&(labels, ports));
            self.host_classes.retain(|other| *other != class);
            self.classes.remove(class as usize);
        }
    }
}

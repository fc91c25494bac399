//! What one kind of subject allows and denies in one direction: a row for each peer that differs from all others.

use super::{
    Engine, Peer,
    decision::{Decision, Member, RuleSet, RuleSetId},
    rules::{Compiled, key},
};
use crate::{
    model::{Direction, Mode},
    world::NamedPort,
};
use hashbrown::HashMap;
use std::{ops::Range, sync::Arc};

/// What makes two subjects have the same table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableKey {
    pub(super) direction: Direction,
    /// Sorted.
    pub(super) policies: Arc<[u32]>,
    /// The subject's ports, if a rule calls one by name at ingress.
    pub(super) ports: Arc<[NamedPort]>,
    /// The own node may always come in, unless a rule denies it.
    pub(super) lets_host_in: bool,
}

/// From where on which decision holds, over all protocols and ports in order; the first is at 0.
pub(super) type Row = [(u32, Decision)];

/// Where a row begins and ends among the rows of its table.
#[derive(Clone, Copy, Debug)]
struct Extent {
    begin: u32,
    end: u32,
}

/// Rows by peer.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) key: TableKey,
    pub(super) subjects: usize,
    pub(super) built: u64,
    pub(super) rules: Box<[Place]>,
    /// The strongest mode of the policies that deny what no rule allows.
    isolates: Option<Mode>,
    of_peer: HashMap<u32, Extent>,
    /// The row of everybody else.
    others: Extent,
    /// All rows, one after the other, with their decisions: a verdict costs one look here.
    rows: Vec<(u32, Decision)>,
    extents: HashMap<RowKey, Extent>,
    sets: HashMap<Box<[Member]>, RuleSetId>,
    with_host: HashMap<Box<[Member]>, RuleSetId>,
}

/// Rules by their places in the table, sorted, with what else decides the row.
type RowKey = (Box<[u32]>, Arc<[NamedPort]>, bool);

/// A rule's place: policy, and number in its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) policy: u32,
    pub(super) rule: u32,
}

impl Table {
    /// The rules that hold for a peer's protocol and port.
    pub(super) fn look_up(&self, peer: u32, protocol: u8, port: u16) -> Decision {
        let row = self.row(*self.of_peer.get(&peer).unwrap_or(&self.others));
        let place = row.partition_point(|(start, _)| *start <= key(protocol, port));
        row[place - 1].1
    }

    fn row(&self, extent: Extent) -> &Row {
        &self.rows[extent.begin as usize..extent.end as usize]
    }

    pub(super) fn remove_peer(&mut self, peer: u32) {
        self.of_peer.remove(&peer);
    }

    /// The cuts of all rows, one row after the other.
    pub(super) fn all_cuts(&self) -> &Row {
        &self.rows
    }

    /// Every row: the peer, `None` for everybody else, and where it stands among all cuts.
    pub(super) fn places(&self) -> impl Iterator<Item = (Option<u32>, Range<usize>)> {
        let own = self.of_peer.iter().map(|(peer, extent)| (Some(*peer), *extent));
        let all = std::iter::once((None, self.others)).chain(own);
        all.map(|(peer, Extent { begin, end })| (peer, begin as usize..end as usize))
    }

    pub(super) fn rule_sets(&self) -> impl Iterator<Item = RuleSetId> {
        self.sets.values().chain(self.with_host.values()).copied()
    }
}

impl Engine {
    /// Builds a table for the peers that there are.
    pub(super) fn build_table(&mut self, key: TableKey) -> Table {
        let direction = key.direction;
        let (mut rules, mut isolates) = (Vec::new(), None);
        for &policy in &*key.policies {
            let slot = &self.policies[policy as usize];
            let Some(side) = slot.policy.side(direction) else { continue };
            isolates = isolates.max(side.isolates.then_some(slot.mode));
            rules.extend((0..slot.rules(direction).len() as u32).map(|rule| Place { policy, rule }));
        }
        let mut table = Table {
            key,
            subjects: 0,
            built: self.revision,
            rules: rules.into(),
            isolates,
            of_peer: HashMap::new(),
            others: Extent { begin: 0, end: 0 },
            rows: Vec::new(),
            extents: HashMap::new(),
            sets: HashMap::new(),
            with_host: HashMap::new(),
        };
        let always = self.rules_for_all(&table);
        table.others = self.row(&mut table, &always, &[], &Arc::from([]), false);
        for (peer, own) in self.rules_by_peer(&table) {
            self.set_row(&mut table, peer, &always, &own);
        }
        table.of_peer.shrink_to_fit();
        table.rows.shrink_to_fit();
        table
    }

    /// Gives a new peer its row, if it is one of its own.
    pub(super) fn add_peer(&mut self, table: &mut Table, number: u32) {
        let peer = self.peers.get(number);
        let own: Vec<u32> = (0..table.rules.len() as u32)
            .filter(|place| {
                let rule = self.compiled(table, *place);
                !rule.any && self.is_about(rule, peer) || self.needs_ports(table, rule, peer)
            })
            .collect();
        if !own.is_empty() || table.key.lets_host_in && self.is_host(peer) {
            let always = self.rules_for_all(table);
            self.set_row(table, number, &always, &own);
        }
    }

    fn compiled(&self, table: &Table, place: u32) -> &Compiled {
        let Place { policy, rule } = table.rules[place as usize];
        &self.policies[policy as usize].rules(table.key.direction)[rule as usize]
    }

    fn rules_for_all(&self, table: &Table) -> Vec<u32> {
        (0..table.rules.len() as u32).filter(|place| self.compiled(table, *place).any).collect()
    }

    /// Whether a rule's peers include one by its labels or its address.
    pub(super) fn is_about(&self, rule: &Compiled, peer: Peer) -> bool {
        rule.selectors.iter().any(|selector| self.selectors.selects(*selector, peer.class))
            || rule.set.is_some_and(|(set, reach)| {
                self.addresses.contains(peer.group, set) && self.is_within(reach, peer.class)
            })
    }

    /// A rule for everybody with a named port is one thing for each destination that has names.
    fn needs_ports(&self, table: &Table, rule: &Compiled, peer: Peer) -> bool {
        rule.any
            && !rule.named.is_empty()
            && table.key.direction == Direction::Egress
            && !self.classes[peer.class as usize].ports.is_empty()
    }

    fn rules_by_peer(&self, table: &Table) -> HashMap<u32, Vec<u32>> {
        let mut by_peer: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut add = |peer: u32, place: u32| {
            let list = by_peer.entry(peer).or_default();
            if list.last() != Some(&place) {
                list.push(place);
            }
        };
        for place in 0..table.rules.len() as u32 {
            let rule = self.compiled(table, place);
            if rule.any && rule.named.is_empty() {
                continue;
            }
            if rule.any {
                let all = self.peers.iter().filter(|(_, peer)| self.needs_ports(table, rule, *peer));
                all.for_each(|(number, _)| add(number, place));
                continue;
            }
            for selector in &rule.selectors {
                for class in &self.selectors.get(*selector).classes {
                    self.classes[*class as usize].peers.iter().for_each(|peer| add(*peer, place));
                }
            }
            if let Some((set, reach)) = rule.set {
                for &group in self.addresses.groups_of(set) {
                    let peers = self.peers.of_group(group);
                    let within = peers.filter(|(_, peer)| self.is_within(reach, peer.class));
                    within.for_each(|(number, _)| add(number, place));
                }
            }
        }
        if table.key.lets_host_in {
            for class in &self.host_classes {
                for number in &self.classes[*class as usize].peers {
                    by_peer.entry(*number).or_default();
                }
            }
        }
        by_peer
    }

    fn set_row(&mut self, table: &mut Table, number: u32, always: &[u32], own: &[u32]) {
        let peer = self.peers.get(number);
        let host = table.key.lets_host_in && self.is_host(peer);
        let ports = match table.key.direction {
            Direction::Ingress => Arc::from([]),
            Direction::Egress => self.classes[peer.class as usize].ports.clone(),
        };
        let row = self.row(table, always, own, &ports, host);
        table.of_peer.insert(number, row);
    }

    fn row(
        &mut self,
        table: &mut Table,
        always: &[u32],
        own: &[u32],
        ports: &Arc<[NamedPort]>,
        host: bool,
    ) -> Extent {
        let mut places: Vec<u32> = always.iter().chain(own).copied().collect();
        places.sort_unstable();
        places.dedup();
        let named = places.iter().any(|place| !self.compiled(table, *place).named.is_empty());
        let ports = if named { ports.clone() } else { Arc::from([]) };
        let row_key = (places.into_boxed_slice(), ports, host);
        if let Some(&extent) = table.extents.get(&row_key) {
            return extent;
        }
        let begin = table.rows.len() as u32;
        let row = self.intervals(table, &row_key);
        table.rows.extend(row);
        let extent = Extent { begin, end: table.rows.len() as u32 };
        table.extents.insert(row_key, extent);
        extent
    }

    /// Cuts all protocols and ports where the set of rules changes.
    fn intervals(&mut self, table: &mut Table, (places, ports, host): &RowKey) -> Vec<(u32, Decision)> {
        let ports =
            if table.key.direction == Direction::Ingress { table.key.ports.clone() } else { ports.clone() };
        let mut spans = Vec::new();
        for &place in places {
            let rule = self.compiled(table, place);
            let member = |exact, l7| Member {
                place: table.rules[place as usize],
                exact,
                l7,
                deny: rule.deny,
                any: rule.any,
            };
            spans.extend(rule.spans(&ports).map(|span| (span.first, span.last, member(span.exact, span.l7))));
        }
        spans.sort_unstable();
        let mut cuts: Vec<u32> = vec![0];
        cuts.extend(spans.iter().flat_map(|(first, last, _)| [*first, last + 1]));
        cuts.sort_unstable();
        cuts.dedup();
        let mut row: Vec<(u32, Decision)> = Vec::new();
        let (mut active, mut next): (Vec<(u32, Member)>, usize) = (Vec::new(), 0);
        for cut in cuts {
            active.retain(|(last, _)| *last >= cut);
            while let Some((first, last, member)) = spans.get(next).filter(|(first, ..)| *first <= cut) {
                debug_assert!(first <= last, "spans that end before they begin are left out");
                active.push((*last, *member));
                next += 1;
            }
            let mut members: Vec<Member> = active.iter().map(|(_, member)| *member).collect();
            members.sort_unstable();
            members.dedup();
            let id = self.rule_set(table, members.into(), *host);
            let decision = Decision { rules: Some(id), ..self.rule_sets[id.0 as usize].decision };
            if row.last().is_none_or(|(_, last)| *last != decision) {
                row.push((cut, decision));
            }
        }
        row
    }

    fn rule_set(&mut self, table: &mut Table, members: Box<[Member]>, host: bool) -> RuleSetId {
        let known = if host { &mut table.with_host } else { &mut table.sets };
        if let Some(&id) = known.get(&members) {
            return id;
        }
        let mode = |member: &Member| self.policies[member.place.policy as usize].mode;
        let set = RuleSet::new(
            table.key.direction,
            Arc::clone(&table.key.policies),
            members.clone(),
            table.isolates,
            host,
            mode,
        );
        let id = RuleSetId(self.rule_sets.insert(set) as u32);
        known.insert(members, id);
        id
    }
}

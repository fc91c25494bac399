//! What the kernel's maps of policies decide, with the names behind their numbers.

use super::{Chosen, Inspection, PART, failed, name, pieces::Piece, pieces::pieces};
use crate::{
    capture::{PolicyInForce, PolicyNet},
    decode::Clock,
    policy::Policies,
    serve::{Answer, InspectError},
};
use ipnet::IpNet;
use observer_ebpf::policy::{NO_TABLE, OTHERS, PolicyRow, PolicyRowKey, decision, side};
use observer_proto::control::{InspectResponse, InspectedRule};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

/// Looks at policies that change meanwhile.
const TRIES: usize = 5;
const DIRECTIONS: [(usize, &str); 2] = [(side::INGRESS, "ingress"), (side::EGRESS, "egress")];

/// Those that a number stands for.
#[derive(Debug, Default)]
struct Alike {
    names: BTreeSet<String>,
    labels: Vec<String>,
}

/// All of a slot, read at one generation.
struct Read {
    generation: u32,
    slot: u32,
    subjects: BTreeMap<u32, Alike>,
    peers: HashMap<u32, Alike>,
    /// By subject: the tables of both sides.
    sides: BTreeMap<u32, [u32; 2]>,
    /// By table: peers with their rows, [`OTHERS`] last.
    rows: BTreeMap<u32, Vec<(u32, PolicyRow)>>,
    /// By where a row stands; many peers have the same.
    pieces: HashMap<PolicyRow, Vec<Piece>>,
    deciding: hashbrown::HashMap<u32, Vec<String>>,
}

impl Inspection {
    pub(super) fn policy(&self, chosen: &Chosen, limit: u32, answer: &Answer) -> Result<(), InspectError> {
        let Some(policies) = &self.policies else {
            return Err(InspectError::Request(
                "the daemon has no policies: start it with --policy FILE or FOLDER".to_owned(),
            ));
        };
        let Some(read) = self.read(policies)? else {
            return Err(InspectError::Request(
                "the kernel does not judge here: `observe status --capture` says why, `observe policy list` what holds"
                    .to_owned(),
            ));
        };
        let behind = self.behind(chosen);
        let is_wanted =
            |alike: &Alike| chosen.globs.is_empty() || alike.names.iter().any(|name| behind.contains(name));
        let (mut policy, mut left, mut more) = (Vec::new(), limit, 0);
        for (subject, alike) in read.subjects.iter().filter(|(_, alike)| is_wanted(alike)) {
            for rule in read.rules(*subject, alike) {
                if left == 0 {
                    more += 1;
                    continue;
                }
                left -= 1;
                policy.push(rule);
                if policy.len() == PART {
                    let policy = std::mem::take(&mut policy);
                    if !answer.give(InspectResponse { policy, ..InspectResponse::default() }) {
                        return Ok(());
                    }
                }
            }
        }
        let notes = vec![in_force(read.generation, read.slot)];
        answer.give(InspectResponse { policy, more, notes, ..InspectResponse::default() });
        Ok(())
    }

    /// Names of the pods behind the links that were asked for.
    pub(super) fn behind(&self, chosen: &Chosen) -> BTreeSet<String> {
        let pods = chosen.links().into_iter().filter_map(|link| self.behind.endpoint(link.ifindex));
        pods.map(|pod| name(&pod)).collect()
    }

    /// Nothing where the programs don't judge.
    fn read(&self, policies: &Policies) -> Result<Option<Read>, InspectError> {
        for _ in 0..TRIES {
            let failed = |error| failed(&error);
            let Some(in_force) = self.inspector.policy().map_err(failed)? else { return Ok(None) };
            let read = self.tables(&in_force, policies);
            // What was read of a slot that went out of force meanwhile may be of two sets.
            if self.inspector.generation().map_err(failed)? == in_force.generation
                && let Some(read) = read
            {
                return Ok(Some(read));
            }
        }
        Err(InspectError::Kernel("policies change faster than they can be read; try again".to_owned()))
    }

    fn tables(&self, in_force: &PolicyInForce, policies: &Policies) -> Option<Read> {
        let now = Clock::kernel_now();
        let (mut subjects, mut peers) = (BTreeMap::<_, Alike>::new(), HashMap::<_, Alike>::new());
        for (address, endpoint) in in_force.endpoints() {
            let known = self.names.lookup(canonical(address), now);
            for alike in
                [subjects.entry(endpoint.subject).or_default(), peers.entry(endpoint.peer).or_default()]
            {
                alike.names.insert(name(&known));
                if alike.labels.is_empty() {
                    alike.labels = known.labels.iter().map(ToString::to_string).collect();
                }
            }
        }
        for (at, peer) in in_force.nets() {
            peers
                .entry(peer)
                .or_default()
                .names
                .insert(net(at).map_or_else(String::new, |net| net.to_string()));
        }
        let sides =
            subjects.keys().map(|subject| (*subject, in_force.sides(*subject).unwrap_or([NO_TABLE; 2])));
        let sides: BTreeMap<_, _> = sides.collect();
        let mut rows = BTreeMap::<_, Vec<_>>::new();
        let mut pieces = HashMap::new();
        for (PolicyRowKey { table, peer }, row) in in_force.rows() {
            rows.entry(table).or_default().push((peer, row));
            pieces.entry(row).or_insert_with(|| self::pieces(&in_force.cuts(row)));
        }
        // OTHERS has the highest number.
        for rows in rows.values_mut() {
            rows.sort_unstable_by_key(|(peer, _)| *peer);
        }
        let sets = pieces.values().flatten().map(|piece| piece.decision & decision::RULES).collect();
        let (generation, slot) = (in_force.generation, in_force.slot());
        let deciding = policies.deciding(slot, &sets)?;
        Some(Read { generation, slot, subjects, peers, sides, rows, pieces, deciding })
    }
}

impl Read {
    fn rules(&self, subject: u32, alike: &Alike) -> impl Iterator<Item = InspectedRule> {
        let sides = self.sides.get(&subject).copied().unwrap_or([NO_TABLE; 2]);
        let of_subject = InspectedRule {
            subject,
            subject_name: alike.name(),
            subject_labels: alike.labels.clone(),
            slot: self.slot,
            generation: self.generation,
            ..InspectedRule::default()
        };
        DIRECTIONS.into_iter().flat_map(move |(side, direction)| {
            let of_side = InspectedRule { direction: direction.to_owned(), ..of_subject.clone() };
            let rows = self.rows.get(&sides[side]).into_iter().flatten();
            rows.flat_map(move |(peer, row)| {
                let name = self.peers.get(peer).map_or_else(String::new, Alike::name);
                let of_peer = InspectedRule {
                    peer: (*peer != OTHERS).then_some(*peer),
                    peer_name: name,
                    ..of_side.clone()
                };
                let pieces = self.pieces.get(row).into_iter().flatten();
                pieces.map(move |piece| self.rule(of_peer.clone(), piece))
            })
        })
    }

    fn rule(&self, of_peer: InspectedRule, piece: &Piece) -> InspectedRule {
        let is_set = |bit: u32| piece.decision & bit != 0;
        let rules = piece.decision & decision::RULES;
        let last = piece.protocols.filter(|(first, last)| first != last).map(|(_, last)| last.into());
        InspectedRule {
            protocol: piece.protocols.map(|(first, _)| first.into()),
            last_protocol: last,
            first_port: piece.ports.map(|(first, _)| first.into()),
            last_port: piece.ports.map(|(_, last)| last.into()),
            denied: is_set(decision::DENIED),
            by_rule: is_set(decision::BY_RULE),
            audit_denied: is_set(decision::AUDITED),
            requests: is_set(decision::REQUESTS),
            audit_requests: is_set(decision::AUDIT_REQUESTS),
            rules,
            policies: self.deciding.get(&rules).cloned().unwrap_or_default(),
            ..of_peer
        }
    }
}

impl Alike {
    fn name(&self) -> String {
        match self.names.first() {
            None => String::new(),
            Some(first) if self.names.len() == 1 => first.clone(),
            Some(first) => format!("{first} and {} more", self.names.len() - 1),
        }
    }
}

pub(super) fn in_force(generation: u32, slot: u32) -> String {
    format!("policies: generation {generation} is in force, in slot {slot}")
}

fn canonical(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(address).to_canonical()
}

/// As people write it.
fn net((bits, address): PolicyNet) -> Option<IpNet> {
    match canonical(address) {
        IpAddr::V4(address) if bits >= 96 => IpNet::new(address.into(), bits - 96).ok(),
        _ => IpNet::new(Ipv6Addr::from_octets(address).into(), bits).ok(),
    }
}

/// As the maps have it.
pub(super) fn key(net: &IpNet) -> PolicyNet {
    match net {
        IpNet::V4(net) => (96 + net.prefix_len(), net.addr().to_ipv6_mapped().octets()),
        IpNet::V6(net) => (net.prefix_len(), net.addr().octets()),
    }
}

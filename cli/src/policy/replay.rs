//! Recorded flows judged by a changed set of policies: which verdicts change, and why.

use super::{
    Judge, Judgement,
    explained::sides,
    listed::{line, warn, warnings},
    recorded::{Connection, End, REPLY, Recorded, Told},
};
use observer_policy::{
    engine::{Change, Engine, PeerId, SubjectId, Verdict},
    model::Direction,
    wire::{explain_seen, protocol},
    world::Endpoint,
};
use observer_proto::{
    control::{ExplainPolicyRequest, ListPoliciesRequest, PolicyEnd, policy_end},
    flow::Flow,
    json,
    text::status::{counted, grouped},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    io,
    sync::Arc,
};

/// The most ends, addresses of the world among them; pairs of them with their ports; and connections that are known again.
const MAX_ENDS: usize = 65_536;
const MAX_PAIRS: usize = 262_144;
const MAX_SEEN: usize = 1 << 20;

/// A connection of many flows, but for the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    source: u32,
    destination: u32,
    protocol: u8,
    port: u16,
    recorded: Recorded,
}

/// Source, destination, protocol, port, and the outcomes before and after.
type GroupKey<'a> = (&'a str, &'a str, u8, u16, Outcome, Outcome);

/// By all policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allowed,
    SomeRequests,
    Denied,
}

/// Takes in flows.
pub(crate) struct Replay {
    after: Judge,
    before: Option<Judge>,
    ends: Vec<End>,
    numbers: HashMap<End, u32>,
    made: HashMap<Arc<str>, Endpoint>,
    pairs: HashMap<Pair, u64>,
    /// By a hash of both addresses and ports: where it is counted.
    seen: HashMap<u64, Pair>,
    hasher: RandomState,
    not_judged: BTreeMap<&'static str, u64>,
    again: u64,
    replies: u64,
    lost: u64,
}

/// What changes.
#[derive(Serialize)]
pub(crate) struct Report {
    /// `recorded` or `policies`: what the verdicts before are those of.
    before: &'static str,
    connections: u64,
    unchanged: u64,
    newly_denied: u64,
    newly_allowed: u64,
    /// Some requests only, before or after.
    otherwise: u64,
    groups: Vec<Group>,
    more_groups: u64,
    more_connections: u64,
    /// Flows, by reason.
    not_judged: BTreeMap<&'static str, u64>,
    /// Flows that told of a connection or its answers once more.
    repeated: u64,
    lost: u64,
    /// Of the changed policies: what they name and nothing has, such as services without an inventory.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Group {
    source: String,
    destination: String,
    port: u16,
    protocol: String,
    connections: u64,
    before: Outcome,
    after: Outcome,
    explanation: Value,
    #[serde(skip)]
    text: String,
}

impl Replay {
    /// With policies before, these are compared; without, with what was recorded.
    pub(crate) fn new(after: Judge, before: Option<Judge>) -> Self {
        Self {
            after,
            before,
            ends: Vec::new(),
            numbers: HashMap::new(),
            made: HashMap::new(),
            pairs: HashMap::new(),
            seen: HashMap::new(),
            hasher: RandomState::new(),
            not_judged: BTreeMap::new(),
            again: 0,
            replies: 0,
            lost: 0,
        }
    }

    pub(crate) fn lost(&mut self, flows: u64) {
        self.lost += flows;
    }

    pub(crate) fn flow(&mut self, flow: &Flow) {
        if let Err(reason) = self.take(flow) {
            *if reason == REPLY { &mut self.replies } else { self.not_judged.entry(reason).or_default() } +=
                1;
        }
    }

    fn take(&mut self, flow: &Flow) -> Result<(), &'static str> {
        let Connection { source, destination, ports, protocol, recorded } =
            Connection::of(flow, &self.after.engine)?;
        if recorded == Recorded::Dropped && self.before.is_none() {
            return Err("dropped for another reason than a policy");
        }
        let tuple = (source.end.address, ports.0, destination.end.address, ports.1, protocol);
        let hash = self.hasher.hash_one(tuple);
        let (source, destination) = (self.number(source)?, self.number(destination)?);
        let mut pair = Pair { source, destination, protocol, port: ports.1, recorded };
        if let Some(earlier) = self.seen.get(&hash).copied() {
            self.again += 1;
            // A connection may be let out at its source and dropped where it goes.
            if recorded <= earlier.recorded {
                return Ok(());
            }
            if let Some(count) = self.pairs.get_mut(&earlier) {
                *count -= 1;
            }
        }
        if self.before.is_some() {
            pair.recorded = Recorded::Passed;
        }
        if !self.pairs.contains_key(&pair) && self.pairs.len() >= MAX_PAIRS {
            return Err("more pairs of ends and ports than are kept (262,144)");
        }
        *self.pairs.entry(pair).or_default() += 1;
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        self.seen.insert(hash, pair);
        Ok(())
    }

    fn number(&mut self, told: Told) -> Result<u32, &'static str> {
        let Told { end, endpoint } = told;
        if let Some(number) = self.numbers.get(&end) {
            return Ok(*number);
        }
        if self.ends.len() >= MAX_ENDS {
            return Err("more ends than are kept (65,536)");
        }
        if let (Some(endpoint), Some(name)) = (endpoint, &end.name) {
            let made = self.made.entry(name.clone()).or_default();
            made.labels = endpoint.labels;
            made.addresses.extend(endpoint.addresses);
        }
        let number = self.ends.len() as u32;
        self.ends.push(end.clone());
        self.numbers.insert(end, number);
        Ok(number)
    }

    /// Judges all that was taken in; tells the `limit` groups of most connections.
    pub(crate) fn report(mut self, limit: usize) -> Result<Report, String> {
        let made: Vec<_> = self.made.drain().map(|(name, endpoint)| (name, Some(endpoint))).collect();
        for judge in std::iter::once(&mut self.after).chain(&mut self.before) {
            judge.engine.apply(Change { endpoints: made.clone(), ..Change::default() });
        }
        let mut report = Report {
            before: if self.before.is_some() { "policies" } else { "recorded" },
            connections: 0,
            unchanged: 0,
            newly_denied: 0,
            newly_allowed: 0,
            otherwise: 0,
            groups: Vec::new(),
            more_groups: 0,
            more_connections: 0,
            not_judged: std::mem::take(&mut self.not_judged),
            repeated: self.again + self.replies,
            lost: self.lost,
            warnings: warnings(&self.after.list(&ListPoliciesRequest::default())),
        };
        let mut groups: HashMap<GroupKey<'_>, (u64, Pair)> = HashMap::new();
        for (pair, &count) in self.pairs.iter().filter(|(_, count)| **count > 0) {
            let after = self.judge(&self.after.engine, pair);
            let before = match (&self.before, pair.recorded) {
                (Some(before), _) => self.judge(&before.engine, pair),
                (None, Recorded::Denied) => Outcome::Denied,
                // What was said in a connection that passed is in other flows.
                (None, _) if after == Outcome::SomeRequests => Outcome::SomeRequests,
                (None, _) => Outcome::Allowed,
            };
            report.connections += count;
            *match (before, after) {
                (before, after) if before == after => &mut report.unchanged,
                (_, Outcome::Denied) => &mut report.newly_denied,
                (Outcome::Denied, _) => &mut report.newly_allowed,
                _ => &mut report.otherwise,
            } += count;
            if before != after {
                let [source, destination] =
                    [pair.source, pair.destination].map(|end| &*self.ends[end as usize].group);
                let key = (source, destination, pair.protocol, pair.port, before, after);
                groups.entry(key).or_insert((0, *pair)).0 += count;
            }
        }
        let mut sorted: Vec<_> = groups.into_iter().collect();
        sorted.sort_by_key(|(key, (count, _))| (std::cmp::Reverse(*count), *key));
        for (_, (count, _)) in sorted.iter().skip(limit) {
            report.more_groups += 1;
            report.more_connections += count;
        }
        sorted.truncate(limit);
        for ((source, destination, number, port, before, after), (connections, pair)) in sorted {
            let judgement = self.explain(&pair)?;
            let mut text = String::new();
            sides(&judgement, &mut text);
            let explanation = json::line(&judgement).map_err(|error| error.to_string())?;
            report.groups.push(Group {
                source: source.to_owned(),
                destination: destination.to_owned(),
                port,
                protocol: protocol(number),
                connections,
                before,
                after,
                explanation: serde_json::from_str(&explanation).map_err(|error| error.to_string())?,
                text,
            });
        }
        Ok(report)
    }

    fn judge(&self, engine: &Engine, pair: &Pair) -> Outcome {
        let (source, destination) = (&self.ends[pair.source as usize], &self.ends[pair.destination as usize]);
        let ((from, from_peer), (to, to_peer)) = (place(engine, source), place(engine, destination));
        let sides = [(from, Direction::Egress, to_peer), (to, Direction::Ingress, from_peer)];
        let outcomes = sides.into_iter().filter_map(|(subject, direction, peer)| {
            Some(match engine.judge(subject?, direction, peer, pair.protocol, pair.port).all {
                Verdict::Open | Verdict::Allowed => Outcome::Allowed,
                Verdict::Requests => Outcome::SomeRequests,
                Verdict::Denied | Verdict::DefaultDenied => Outcome::Denied,
            })
        });
        outcomes.max().unwrap_or(Outcome::Allowed)
    }

    fn explain(&self, pair: &Pair) -> Result<Judgement, String> {
        let end = |number: u32| {
            let End { name, address, .. } = &self.ends[number as usize];
            let end = match name {
                Some(name) if name.contains('/') => policy_end::End::Pod(name.to_string()),
                _ => policy_end::End::Address(address.to_string()),
            };
            Some(PolicyEnd { end: Some(end), at: address.to_string() })
        };
        let asked = ExplainPolicyRequest {
            source: end(pair.source),
            destination: end(pair.destination),
            protocol: pair.protocol.into(),
            port: pair.port.into(),
            request: None,
        };
        // As they were judged.
        explain_seen(&self.after.engine, &asked)
    }
}

/// An end as a subject and as a peer: at its address, unless another has that by now.
fn place(engine: &Engine, end: &End) -> (Option<SubjectId>, PeerId) {
    let at = engine.peer_at(end.address);
    let Some(name) = &end.name else { return (None, at) };
    match engine.endpoint(name) {
        Some((subject, _)) if engine.name_at(end.address) == Some(&**name) => (Some(subject), at),
        Some((subject, own)) => (Some(subject), own),
        None => (None, at),
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::SomeRequests => "allowed for some requests",
            Self::Denied => "DENIED",
        }
    }
}

impl Report {
    pub(crate) fn json(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for group in &self.groups {
            let Group { source, destination, port, protocol, .. } = group;
            let count = counted(group.connections, "connection");
            line(
                &mut out,
                format_args!(
                    "{source} -> {destination} {port}/{protocol}: {} -> {}, {count}",
                    group.before.word(),
                    group.after.word()
                ),
            );
            for text in group.text.lines() {
                line(&mut out, format_args!("  {text}"));
            }
            out.push('\n');
        }
        if self.more_groups > 0 {
            let groups = counted(self.more_groups, "more group");
            let count = counted(self.more_connections, "connection");
            line(&mut out, format_args!("and {groups} with {count} (--limit)"));
        }
        let [all, same, denied, allowed, other] =
            [self.connections, self.unchanged, self.newly_denied, self.newly_allowed, self.otherwise]
                .map(grouped);
        let with = if self.before == "recorded" { "what was recorded" } else { "the policies of --against" };
        line(
            &mut out,
            format_args!(
                "{all} connections, compared with {with}: {same} as before, {denied} newly denied, {allowed} newly allowed"
            ),
        );
        if self.otherwise > 0 {
            line(&mut out, format_args!("{other} are allowed for some requests only, before or after"));
        }
        for (reason, count) in &self.not_judged {
            line(&mut out, format_args!("not judged: {}: {reason}", counted(*count, "flow")));
        }
        if self.lost > 0 {
            line(&mut out, format_args!("lost before they were recorded: {}", counted(self.lost, "flow")));
        }
        warn(&self.warnings, &mut out);
        out
    }
}

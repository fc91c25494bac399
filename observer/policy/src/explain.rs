//! Why a connection is allowed or denied: the rules, and on default deny who isolated the endpoint and what came nearest.

use crate::{
    engine::{Decision, Engine, MatchType, Named, PeerId, SubjectId, Verdict},
    l7::Request,
    model::{Direction, ICMP, ICMPV6, Kind, Peers, Policy, PortClause, PortRule, Ports, Protocols, Rule},
    source::one_line,
    world::NamedPort,
};
use std::fmt;

/// A part of a rule that a connection has to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// Who the other end is.
    Peer,
    /// The protocol.
    Protocol,
    /// The port, or the ICMP type.
    Port,
    /// The request.
    Request,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Protocol => "protocol",
            Self::Port => "port",
            Self::Request => "request",
        })
    }
}

/// A rule that would have allowed, but for some of its clauses.
#[derive(Clone, Debug)]
pub struct Miss<'a> {
    /// Its policy.
    pub policy: &'a Policy,
    /// The rule.
    pub rule: &'a Rule,
    /// Where in the document the clause is that comes nearest, such as `spec.ingress[0].ports[1]`.
    pub path: String,
    /// The entry of ports and the clause of it that come nearest; none in a rule for every port.
    pub entry: Option<&'a PortRule>,
    /// None in an entry without clauses, too.
    pub clause: Option<&'a PortClause>,
    /// What is not met; were all of these, the rule would allow.
    pub failed: Vec<Clause>,
}

/// One side of a connection, explained.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// The verdicts.
    pub decision: Decision,
    /// How exactly the deciding rule names the connection.
    pub match_type: MatchType,
    /// The rules that decided; none on default deny.
    pub rules: Vec<Named<'a>>,
    /// On default deny, and where a request is refused: the policies without which the side would be open.
    pub isolating: Vec<&'a Policy>,
    /// Then also: the rule that came nearest.
    pub nearest: Option<Miss<'a>>,
}

/// Some lines for people, the verdict first; each rule and policy with its place.
impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.decision.all {
            Verdict::Open => "open: no policy isolates this side",
            Verdict::Allowed if self.decision.redirected => "allowed, every request too",
            Verdict::Allowed if self.rules.is_empty() => "allowed: the own node always comes in",
            Verdict::Allowed => "allowed",
            Verdict::Requests if self.nearest.is_some() => "the request is refused",
            Verdict::Requests => "allowed for some requests",
            Verdict::Denied => "denied by rule",
            Verdict::DefaultDenied => "denied: isolated, and no rule allows it",
        })?;
        if self.decision.all.passes() != self.decision.enforced.passes() {
            let enforced = if self.decision.enforced.passes() { "pass" } else { "do not pass" };
            write!(f, "\n  by the enforced policies alone packets {enforced}")?;
        }
        for named in &self.rules {
            write!(f, "\n  by {} {}", named.policy.id, named.rule.path)?;
            place(f, named.policy, named.rule.line)?;
        }
        for policy in &self.isolating {
            write!(f, "\n  isolated by {}", policy.id)?;
            place(f, policy, policy.line)?;
        }
        let Some(miss) = &self.nearest else { return Ok(()) };
        write!(f, "\n  nearest: {} {}", miss.policy.id, miss.path)?;
        place(f, miss.policy, miss.rule.line)?;
        let failed: Vec<String> = miss.failed.iter().map(Clause::to_string).collect();
        write!(f, ", but for {}", failed.join(" and "))
    }
}

fn place(f: &mut fmt::Formatter<'_>, policy: &Policy, line: u64) -> fmt::Result {
    match &policy.file {
        Some(file) => write!(f, " ({}:{line})", one_line(&file.to_string_lossy())),
        None => Ok(()),
    }
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Whose side it is.
    pub subject: SubjectId,
    /// Which side.
    pub direction: Direction,
    /// The other end.
    pub peer: PeerId,
    /// IANA's number.
    pub protocol: u8,
    /// The port, or the ICMP type.
    pub port: u16,
    /// A request in the connection.
    pub request: Option<&'a Request<'a>>,
}

impl Engine {
    /// Says why one side of a connection has its verdict.
    pub fn explain(&self, query: Query<'_>) -> Explanation<'_> {
        let decision = self.judge(query.subject, query.direction, query.peer, query.protocol, query.port);
        let refused = query.request.is_some_and(|request| !self.allows(decision, request));
        let match_type = decision.rules.map_or(MatchType::None, |id| self.match_type(id));
        let rules = decision.rules.map(|id| self.names(id)).unwrap_or_default();
        let mut explanation =
            Explanation { decision, match_type, rules, isolating: Vec::new(), nearest: None };
        if decision.all == Verdict::DefaultDenied || decision.all == Verdict::Requests && refused {
            let policies = self.policies_of(query.subject, query.direction);
            let policies = policies.map(|(policy, _)| policy);
            explanation.isolating = policies.filter(|policy| policy.isolates(query.direction)).collect();
            explanation.nearest = self.nearest(query);
        }
        explanation
    }

    /// The rule of which the fewest clauses fail; among equals one that is about the peer. Last come rules for nobody.
    fn nearest(&self, query: Query<'_>) -> Option<Miss<'_>> {
        let mut best: Option<Miss<'_>> = None;
        let rank = |miss: &Miss<'_>| {
            let nobody = miss.rule.peers == Peers::Of(Vec::new());
            (nobody, miss.failed.len(), miss.failed.contains(&Clause::Peer), miss.failed.clone())
        };
        for (policy, rule, about_peer, ports) in self.allowing(query.subject, query.direction, query.peer) {
            for miss in misses(policy, rule, about_peer, ports, query) {
                if best.as_ref().is_none_or(|best| rank(&miss) < rank(best)) {
                    best = Some(miss);
                }
            }
        }
        best
    }
}

/// What fails of a rule, for each of its clauses of ports.
fn misses<'a>(
    policy: &'a Policy,
    rule: &'a Rule,
    about_peer: bool,
    ports: &[NamedPort],
    query: Query<'_>,
) -> Vec<Miss<'a>> {
    let miss = |path: String, entry, clause, more: &[Clause]| {
        let failed = (!about_peer).then_some(Clause::Peer).into_iter().chain(more.iter().copied()).collect();
        Miss { policy, rule, path, entry, clause, failed }
    };
    let Some(entries) = &rule.ports else { return vec![miss(rule.path.to_string(), None, None, &[])] };
    let mut found = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let refused = match (&entry.l7, query.request) {
            (Some(l7), Some(request)) => !l7.allows(request),
            _ => false,
        };
        if entry.ports.is_empty() {
            found.push(miss(path(policy, rule, n, None), Some(entry), None, &[Clause::Port]));
        }
        for (c, clause) in entry.ports.iter().enumerate() {
            let protocol = clause.protocols.numbers().any(|number| number == query.protocol);
            let port = match &clause.ports {
                Ports::All => true,
                Ports::Range(first, last) => (*first..=*last).contains(&query.port),
                Ports::Named(name) => ports
                    .iter()
                    .any(|own| own.name == *name && (own.protocol, own.port) == (query.protocol, query.port)),
            };
            let failed = [(protocol, Clause::Protocol), (port, Clause::Port), (!refused, Clause::Request)];
            let failed: Vec<Clause> =
                failed.iter().filter(|(met, _)| !met).map(|(_, clause)| *clause).collect();
            let path = path(policy, rule, n, Some((c, clause)));
            found.push(miss(path, Some(entry), Some(clause), &failed));
        }
    }
    found
}

fn path(policy: &Policy, rule: &Rule, entry: usize, clause: Option<(usize, &PortClause)>) -> String {
    let front = &rule.path;
    match (policy.id.kind, clause) {
        (Kind::NetworkPolicy, Some((n, _))) => format!("{front}.ports[{n}]"),
        (_, Some((n, clause))) if matches!(clause.protocols, Protocols::One(ICMP | ICMPV6)) => {
            format!("{front}.icmps[{entry}].fields[{n}]")
        }
        (_, Some((n, _))) => format!("{front}.toPorts[{entry}].ports[{n}]"),
        (_, None) => format!("{front}.toPorts[{entry}]"),
    }
}

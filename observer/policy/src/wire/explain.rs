//! Explanations of both sides of a connection.

use super::{
    ends::{self, Found},
    file, text, wire_mode, words,
};
use crate::{
    engine::{Decision, Engine, MatchType, Verdict},
    explain::{Clause, Explanation, Miss, Query},
    l7::Request,
    model::{Direction, ICMP, ICMPV6, Mode, Policy, Rule},
};
use observer_proto::control::{
    ExplainPolicyRequest, ExplainPolicyResponse, PolicyClause, PolicyEnd, PolicyMiss, PolicySide,
    explain_policy_request::Request as WireRequest,
    explain_policy_response::Outcome,
    policy_miss::{Failed, Kind},
    policy_side::{MatchType as WireMatch, Verdict as WireVerdict},
};

/// Explains both sides; of a service's address what stands behind it. The error names what of the request is wrong.
pub fn explain(engine: &Engine, request: &ExplainPolicyRequest) -> Result<ExplainPolicyResponse, String> {
    both(engine, request, true)
}

/// The same of a packet that was seen to have these addresses.
pub fn explain_seen(
    engine: &Engine,
    request: &ExplainPolicyRequest,
) -> Result<ExplainPolicyResponse, String> {
    both(engine, request, false)
}

fn both(
    engine: &Engine,
    request: &ExplainPolicyRequest,
    looks_behind: bool,
) -> Result<ExplainPolicyResponse, String> {
    let nobody = PolicyEnd::default();
    let (from, to) =
        (request.source.as_ref().unwrap_or(&nobody), request.destination.as_ref().unwrap_or(&nobody));
    let protocol = u8::try_from(request.protocol)
        .map_err(|_| format!("protocol: {} is none; write IANA's number, as 6 for TCP", request.protocol))?;
    let port = u16::try_from(request.port)
        .map_err(|_| format!("port: {} is none; write 0 to 65535", request.port))?;
    let service = looks_behind.then(|| ends::service(engine, to, protocol, port)).flatten();
    let behind = service.as_ref().and_then(|service| service.behind.as_ref());
    let (to, port) = behind.map_or((to, port), |(end, port)| (end, *port));
    let source = ends::find(engine, from, to).map_err(|why| format!("source: {why}"))?;
    let destination = ends::find(engine, to, from).map_err(|why| format!("destination: {why}"))?;
    let asked = request.request.as_ref().map(read_request);
    let side = |direction, own: &Found, other: &Found| match own.subject {
        Some(subject) => {
            let query =
                Query { subject, direction, peer: other.peer, protocol, port, request: asked.as_ref() };
            side(engine, &query)
        }
        None => PolicySide {
            why_not_judged: "outside of the cluster, where no policy is".to_owned(),
            ..PolicySide::default()
        },
    };
    let egress = side(Direction::Egress, &source, &destination);
    let ingress = side(Direction::Ingress, &destination, &source);
    let outcome = |verdict: fn(&PolicySide) -> WireVerdict, passes: fn(&PolicySide) -> Option<bool>| {
        [&egress, &ingress]
            .map(|side| outcome(verdict(side), passes(side)))
            .into_iter()
            .max_by_key(|outcome| *outcome as i32)
            .unwrap_or_default()
            .into()
    };
    Ok(ExplainPolicyResponse {
        outcome: outcome(PolicySide::verdict, |side| side.request_allowed),
        enforced_outcome: outcome(PolicySide::enforced_verdict, |side| side.request_allowed_enforced),
        notes: service
            .iter()
            .map(|service| service.note.clone())
            .chain(notes(&source, &destination, protocol))
            .collect(),
        source: Some(source.party),
        destination: Some(destination.party),
        egress: Some(egress),
        ingress: Some(ingress),
        // A daemon's.
        revision: 0,
        port: port.into(),
    })
}

fn read_request(request: &WireRequest) -> Request<'_> {
    match request {
        WireRequest::Http(http) => Request::Http {
            method: &http.method,
            path: &http.path,
            host: &http.host,
            headers: http.headers.iter().map(|h| (h.name.as_str(), h.value.as_str().into())).collect(),
        },
        WireRequest::Dns(name) => Request::Dns(name),
    }
}

/// The worse of two is the greater.
fn outcome(verdict: WireVerdict, request_allowed: Option<bool>) -> Outcome {
    match (verdict, request_allowed) {
        (WireVerdict::Denied | WireVerdict::DefaultDenied, _) => Outcome::Denied,
        (WireVerdict::SomeRequests, None) => Outcome::SomeRequests,
        (WireVerdict::SomeRequests, Some(false)) => Outcome::RequestRefused,
        _ => Outcome::Allowed,
    }
}

fn notes(source: &Found, destination: &Found, protocol: u8) -> Vec<String> {
    let mut notes = Vec::new();
    if source.any_address || destination.any_address {
        notes.push("rules about addresses don't count for the world as a whole; give an address".to_owned());
    }
    let v6 =
        |found: &Found| Some(found.party.address.contains(':')).filter(|_| !found.party.address.is_empty());
    let (from, to) = (v6(source), v6(destination));
    if from.zip(to).is_some_and(|(from, to)| from != to) {
        notes.push("the two ends have addresses of different families".to_owned());
    }
    if protocol == ICMP && to == Some(true) || protocol == ICMPV6 && to == Some(false) {
        notes.push("IPv4 has ICMP, IPv6 ICMPv6".to_owned());
    }
    notes
}

fn side(engine: &Engine, query: &Query<'_>) -> PolicySide {
    let explanation = engine.explain(*query);
    let decision = explanation.decision;
    let (all, enforced) = match query.request {
        Some(request) => {
            (Some(engine.allows(decision, request)), Some(engine.allows_enforced(decision, request)))
        }
        None => (None, None),
    };
    PolicySide { request_allowed: all, request_allowed_enforced: enforced, ..to_wire(engine, &explanation) }
}

/// An explanation as its message; without what a request makes of it.
fn to_wire(engine: &Engine, explanation: &Explanation<'_>) -> PolicySide {
    let Decision { all, enforced, redirected, .. } = explanation.decision;
    let mode_of = |policy: &Policy| {
        let found = engine.policies().find(|(own, _)| own.id == policy.id && own.part == policy.part);
        found.map(|(_, mode)| mode).unwrap_or_default()
    };
    let rules = explanation
        .rules
        .iter()
        .map(|named| PolicyClause { deny: named.deny, ..rule_clause(named.policy, named.mode, named.rule) });
    let isolating = explanation.isolating.iter().map(|policy| clause(policy, mode_of(policy)));
    PolicySide {
        judged: true,
        verdict: verdict(all).into(),
        enforced_verdict: verdict(enforced).into(),
        redirected,
        match_type: match_type(explanation.match_type).into(),
        rules: rules.collect(),
        isolating: isolating.collect(),
        nearest: explanation.nearest.as_ref().map(|miss| nearest(miss, mode_of(miss.policy))),
        ..PolicySide::default()
    }
}

fn clause(policy: &Policy, mode: Mode) -> PolicyClause {
    PolicyClause {
        kind: policy.id.kind.to_string(),
        namespace: policy.id.namespace.to_string(),
        name: policy.id.name.to_string(),
        file: file(policy),
        line: policy.line,
        mode: wire_mode(mode).into(),
        description: text(policy.description.as_deref()),
        log: text(policy.log.as_deref()),
        ..PolicyClause::default()
    }
}

fn rule_clause(policy: &Policy, mode: Mode, rule: &Rule) -> PolicyClause {
    PolicyClause { path: rule.path.to_string(), line: rule.line, ..clause(policy, mode) }
}

fn nearest(miss: &Miss<'_>, mode: Mode) -> PolicyMiss {
    let failed = miss.failed.iter().map(|clause| {
        let port = || miss.clause.map_or_else(|| "no port".to_owned(), words::port);
        let (kind, wanted) = match clause {
            Clause::Peer => (Kind::Peer, words::peers(miss.rule).join(" or ")),
            Clause::Protocol => (Kind::Protocol, port()),
            Clause::Port => (Kind::Port, port()),
            Clause::Request => (Kind::Request, miss.entry.map(words::entry_requests).unwrap_or_default()),
        };
        Failed { clause: kind.into(), wanted }
    });
    PolicyMiss {
        rule: Some(PolicyClause { path: miss.path.clone(), ..rule_clause(miss.policy, mode, miss.rule) }),
        failed: failed.collect(),
    }
}

fn verdict(verdict: Verdict) -> WireVerdict {
    match verdict {
        Verdict::Open => WireVerdict::Open,
        Verdict::Allowed => WireVerdict::Allowed,
        Verdict::Requests => WireVerdict::SomeRequests,
        Verdict::Denied => WireVerdict::Denied,
        Verdict::DefaultDenied => WireVerdict::DefaultDenied,
    }
}

fn match_type(kind: MatchType) -> WireMatch {
    match kind {
        MatchType::None => WireMatch::None,
        MatchType::L3Only => WireMatch::L3Only,
        MatchType::L3L4 => WireMatch::L3L4,
        MatchType::L4Only => WireMatch::L4Only,
        MatchType::All => WireMatch::All,
        MatchType::L3Proto => WireMatch::L3Proto,
        MatchType::ProtoOnly => WireMatch::ProtoOnly,
    }
}

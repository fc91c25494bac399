//! An explanation as text.

use super::listed::{line, place};
use observer_policy::wire::protocol;
use observer_proto::control::{
    ExplainPolicyRequest, ExplainPolicyResponse, PolicyClause, PolicyMiss, PolicyParty, PolicySide,
    explain_policy_response::Outcome, policy_miss::Kind, policy_side::Verdict,
};

/// The whole page: the question, the outcome, then each side.
pub(crate) fn explained(request: &ExplainPolicyRequest, answer: &ExplainPolicyResponse) -> String {
    let mut out = String::new();
    let party = |party: &Option<PolicyParty>| party.as_ref().map(whole_name).unwrap_or_default();
    let name = u8::try_from(request.protocol).map(protocol).unwrap_or_default();
    // Of a service it is another's; who is older tells none.
    let port = if answer.port == 0 { request.port } else { answer.port };
    line(&mut out, format_args!("{} -> {} {port}/{name}", party(&answer.source), party(&answer.destination)));
    line(&mut out, outcome(answer.outcome()));
    if answer.outcome != answer.enforced_outcome {
        let enforced = outcome(answer.enforced_outcome()).to_lowercase();
        line(&mut out, format_args!("by the enforced policies alone: {enforced}"));
    }
    sides(answer, &mut out);
    for note in &answer.notes {
        line(&mut out, format_args!("note: {note}"));
    }
    out
}

/// What each side says.
pub(super) fn sides(answer: &ExplainPolicyResponse, out: &mut String) {
    let none = PolicySide::default();
    for (title, side) in [("egress", &answer.egress), ("ingress", &answer.ingress)] {
        one_side(title, side.as_ref().unwrap_or(&none), out);
    }
}

fn one_side(title: &str, side: &PolicySide, out: &mut String) {
    if !side.judged {
        line(out, format_args!("{title}: not judged, {}", side.why_not_judged));
        return;
    }
    let text = match (side.verdict(), side.request_allowed) {
        (Verdict::SomeRequests, Some(true)) => "allowed, and so is the request",
        (Verdict::SomeRequests, Some(false)) => "allowed, but the request is refused",
        (Verdict::SomeRequests, None) => "allowed for some requests",
        (Verdict::Open, _) => "open: no policy isolates this side",
        (Verdict::Allowed, _) if side.redirected => "allowed, every request too",
        (Verdict::Allowed, _) if side.rules.is_empty() => "allowed: the own node always comes in",
        (Verdict::Allowed, _) => "allowed",
        (Verdict::Denied, _) => "denied by rule",
        (Verdict::DefaultDenied, _) => "denied: isolated, and no rule allows it",
        (Verdict::Unknown, _) => "unknown",
    };
    line(out, format_args!("{title}: {text}"));
    for rule in &side.rules {
        line(out, format_args!("  by {}", clause(rule)));
    }
    for policy in &side.isolating {
        line(out, format_args!("  isolated by {}", clause(policy)));
    }
    if let Some(miss) = &side.nearest {
        nearest(miss, out);
    }
}

fn nearest(miss: &PolicyMiss, out: &mut String) {
    let rule = miss.rule.as_ref().map(clause).unwrap_or_default();
    line(out, format_args!("  nearest rule {rule}, but for"));
    for failed in &miss.failed {
        let name = match failed.clause() {
            Kind::Peer => "peer",
            Kind::Protocol => "protocol",
            Kind::Port => "port",
            Kind::Request => "request",
            Kind::Unknown => "clause",
        };
        line(out, format_args!("    {name}: it wants {}", failed.wanted));
    }
}

/// Kind, name, path and place of a policy or a rule.
pub(super) fn clause(clause: &PolicyClause) -> String {
    let slash = if clause.namespace.is_empty() { "" } else { "/" };
    let path = if clause.path.is_empty() { String::new() } else { format!(" {}", clause.path) };
    let place = place(&clause.file, clause.line);
    let place = if place.is_empty() { place } else { format!(" ({place})") };
    let log = if clause.log.is_empty() { String::new() } else { format!(" [{}]", clause.log) };
    format!("{} {}{slash}{}{path}{place}{log}", clause.kind, clause.namespace, clause.name)
}

fn whole_name(party: &PolicyParty) -> String {
    let name = match (party.name.as_str(), party.address.as_str()) {
        ("", address) => format!("{address} (world)"),
        (name, "") => name.to_owned(),
        (name, address) => format!("{name} ({address})"),
    };
    match party.others {
        0 => name,
        1 => format!("{name} and 1 other pod alike"),
        more => format!("{name} and {more} other pods alike"),
    }
}

/// The outcome in words.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "ALLOWED",
        Outcome::SomeRequests => "ALLOWED for some requests",
        Outcome::RequestRefused => "REFUSED: the connection is allowed, the request is not",
        Outcome::Denied => "DENIED",
        Outcome::Unknown => "UNKNOWN",
    }
}

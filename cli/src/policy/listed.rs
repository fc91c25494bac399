//! Lists of policies, and one policy, as text.

use crate::table::table;
use observer_proto::{
    control::{
        ListPoliciesResponse, Policy, PolicyHits, PolicyWarning, SetPolicyModeResponse, policy::Mode,
        policy::SetBy,
    },
    flow::TrafficDirection,
    text::{
        sanitize::clean,
        status::{counted, grouped},
    },
};
use std::fmt::{Display, Write as _};

/// The most warnings below a list.
const MAX_WARNINGS: usize = 20;
/// The most pods that are named there.
const MAX_OPEN: usize = 10;

/// What is counted of policies.
struct Count {
    title: &'static str,
    /// Behind its number.
    words: &'static str,
    /// Whether enforced policies do it, and others don't; nothing where both do.
    is_enforced: Option<bool>,
    is_of_requests: bool,
    of: fn(&PolicyHits) -> u64,
}

impl Count {
    /// Whether it says anything of a policy: it may have been in another mode before.
    fn says(&self, policy: &Policy) -> bool {
        let is_enforced = policy.mode() == Mode::Enforce;
        self.is_enforced.is_none_or(|wanted| wanted == is_enforced)
            || policy.hits.as_ref().is_some_and(|hits| (self.of)(hits) > 0)
    }
}

const COUNTS: [Count; 5] = {
    const fn count(
        title: &'static str,
        words: &'static str,
        is_enforced: Option<bool>,
        is_of_requests: bool,
        of: fn(&PolicyHits) -> u64,
    ) -> Count {
        Count { title, words, is_enforced, is_of_requests, of }
    }
    [
        count("ALLOWED", "allowed", None, false, |hits| hits.allowed),
        count("WOULD DENY", "would be denied", Some(false), false, |hits| hits.would_deny),
        count("DENIED", "denied", Some(true), false, |hits| hits.denied),
        count("WOULD REFUSE", "would be refused", Some(false), true, |hits| hits.would_refuse),
        count("REFUSED", "refused", Some(true), true, |hits| hits.refused),
    ]
};

/// Every policy in a line, then warnings.
pub(crate) fn listed(answer: &ListPoliciesResponse) -> String {
    let mut out = String::new();
    let counts: Vec<&Count> =
        COUNTS.iter().filter(|count| answer.policies.iter().any(|one| count.says(one))).collect();
    let rows = answer.policies.iter().map(|policy| {
        let isolates = match (policy.isolates_ingress, policy.isolates_egress) {
            (true, true) => "in, out",
            (true, false) => "in",
            (false, true) => "out",
            (false, false) => "-",
        };
        let hits = counts.iter().map(|Count { of, .. }| {
            policy.hits.as_ref().map_or_else(|| "-".to_owned(), |hits| grouped(of(hits)))
        });
        let mut cells = vec![
            short(&policy.kind).to_owned(),
            name(policy),
            mode(policy),
            set_by_short(policy).to_owned(),
            isolates.to_owned(),
            grouped(policy.rule_count),
            grouped(policy.selected),
        ];
        cells.extend(hits);
        cells.extend([grouped(policy.warnings.len() as u64), place(&policy.file, policy.line)]);
        cells
    });
    let mut titles = vec!["KIND", "NAME", "MODE", "SET BY", "ISOLATES", "RULES", "SELECTS"];
    titles.extend(counts.iter().map(|count| count.title));
    titles.extend(["WARNINGS", "ORIGIN"]);
    table(&mut out, &titles, 5..titles.len() - 1, rows);
    warn(&warnings(answer), &mut out);
    open(answer, &mut out);
    end(answer, &mut out);
    out
}

/// What all warnings say.
pub(super) fn warnings(answer: &ListPoliciesResponse) -> Vec<String> {
    let all = answer.policies.iter().flat_map(|policy| policy.warnings.iter().map(move |w| (policy, w)));
    let text = |(policy, warning): (&Policy, &PolicyWarning)| {
        format!("{}: {}", full_name(policy), of(&warning.path, &warning.problem))
    };
    all.map(text).collect()
}

/// A line for each of the first, and one that says how many more there are.
pub(super) fn warn(all: &[String], out: &mut String) {
    for warning in all.iter().take(MAX_WARNINGS) {
        line(out, format_args!("warning: {warning}"));
    }
    if let Some(more) = all.len().checked_sub(MAX_WARNINGS).filter(|more| *more > 0) {
        let more = counted(more as u64, "more warning");
        line(out, format_args!("and {more}; observe policy show has them"));
    }
}

/// Pods that policies leave open.
fn open(answer: &ListPoliciesResponse, out: &mut String) {
    if answer.open_count == 0 {
        return;
    }
    let named = answer.open_pods.iter().take(MAX_OPEN).map(|pod| {
        let sides = match (pod.ingress, pod.egress) {
            (true, false) => " (in)",
            (false, true) => " (out)",
            _ => "",
        };
        format!("{}{sides}", pod.name)
    });
    let named: Vec<_> = named.collect();
    let more = answer.open_count - named.len() as u64;
    let more = if more == 0 { String::new() } else { format!(" and {} more", grouped(more)) };
    line(out, format_args!("not isolated by any policy: {}{more}", named.join(", ")));
}

/// All about each policy.
pub(crate) fn shown(answer: &ListPoliciesResponse) -> String {
    let mut out = String::new();
    for policy in &answer.policies {
        line(&mut out, format_args!("{}", full_name(policy)));
        let mut field = |name: &str, value: &str| {
            if !value.is_empty() {
                line(&mut out, format_args!("  {name:<12} {value}"));
            }
        };
        field("description", &policy.description);
        field("mode", &format!("{}, set by {}", mode(policy), set_by(policy)));
        field("origin", &place(&policy.file, policy.line));
        field("log", &policy.log);
        field("selects", &format!("{}: {}", policy.selects, counted(policy.selected, "endpoint")));
        if let Some(hits) = &policy.hits {
            let told = |is_of_requests: bool| {
                let counts = COUNTS.iter().filter(|count| count.is_of_requests == is_of_requests);
                let counts =
                    counts.filter(|count| count.says(policy) && (!is_of_requests || (count.of)(hits) > 0));
                let words = counts.map(|count| format!("{} {}", grouped((count.of)(hits)), count.words));
                words.collect::<Vec<_>>().join(", ")
            };
            field("connections", &told(false));
            field("requests", &told(true));
        }
        for (direction, isolates) in [
            (TrafficDirection::Ingress, policy.isolates_ingress),
            (TrafficDirection::Egress, policy.isolates_egress),
        ] {
            let rules: Vec<_> = policy.rules.iter().filter(|rule| rule.direction() == direction).collect();
            if rules.is_empty() && !isolates {
                continue;
            }
            let title = if direction == TrafficDirection::Ingress { "ingress" } else { "egress" };
            let rest = if isolates { ": what no rule allows is denied" } else { ": not isolated by it" };
            line(&mut out, format_args!("  {title}{rest}"));
            for rule in rules {
                let verb = if rule.deny { "deny " } else { "allow" };
                let way = if direction == TrafficDirection::Ingress { "from" } else { "to" };
                let peers = rule.peers.join(" | ");
                let ports = rule.ports.join(" | ");
                line(
                    &mut out,
                    format_args!("    {verb} {ports} {way} {peers}  ({}, line {})", rule.path, rule.line),
                );
            }
        }
        for name in &policy.endpoints {
            line(&mut out, format_args!("  endpoint     {name}"));
        }
        let more = policy.selected.saturating_sub(policy.endpoints.len() as u64);
        if more > 0 {
            line(&mut out, format_args!("  and {}", counted(more, "more endpoint")));
        }
        for warning in &policy.warnings {
            line(&mut out, format_args!("  warning      {}", of(&warning.path, &warning.problem)));
        }
        out.push('\n');
    }
    end(answer, &mut out);
    out
}

/// The mode that a policy has now, with what is to be known of it.
pub(crate) fn in_mode(answer: &SetPolicyModeResponse) -> String {
    let mut out = String::new();
    for policy in &answer.policies {
        let (name, mode, by) = (full_name(policy), mode(policy), set_by(policy));
        line(&mut out, format_args!("{name}: {mode}, set by {by}"));
        for warning in &policy.warnings {
            line(&mut out, format_args!("warning: {}", of(&warning.path, &warning.problem)));
        }
    }
    if answer.policies.is_empty() {
        line(&mut out, "taken back; the policy is not loaded");
    }
    out
}

fn end(answer: &ListPoliciesResponse, out: &mut String) {
    let loaded = answer.loaded.and_then(|time| jiff::Timestamp::new(time.seconds, 0).ok());
    let loaded = loaded.map_or_else(String::new, |time| format!(", read {time}"));
    let node = if answer.node_name.is_empty() { String::new() } else { format!(" on {}", answer.node_name) };
    let count = answer.policies.len() as u64;
    let word = if count == 1 { "policy" } else { "policies" };
    let revision =
        if answer.revision == 0 { String::new() } else { format!(", revision {}", answer.revision) };
    line(out, format_args!("{} {word}{node}{revision}{loaded}", grouped(count)));
    if !answer.problem.is_empty() {
        line(out, format_args!("NOT IN FORCE, since newer files have a fault: {}", answer.problem));
    }
}

/// One line that a terminal may show.
pub(super) fn line(out: &mut String, text: impl Display) {
    // Writing to a String cannot fail, here and below.
    let _ = clean(&text.to_string(), out);
    out.push('\n');
}

/// The same by itself, without its end.
pub(super) fn one_line(text: &str) -> String {
    let mut out = String::new();
    let _ = clean(text, &mut out);
    out
}

fn of(path: &str, problem: &str) -> String {
    if path.is_empty() { problem.to_owned() } else { format!("{path}: {problem}") }
}

/// As kubectl's short names.
fn short(kind: &str) -> &str {
    match kind {
        "NetworkPolicy" => "netpol",
        "CiliumNetworkPolicy" => "cnp",
        "CiliumClusterwideNetworkPolicy" => "ccnp",
        other => other,
    }
}

fn name(policy: &Policy) -> String {
    let slash = if policy.namespace.is_empty() { "" } else { "/" };
    let mut name = format!("{}{slash}{}", policy.namespace, policy.name);
    if policy.part > 0 {
        let _ = write!(name, " specs[{}]", policy.part);
    }
    name
}

fn full_name(policy: &Policy) -> String {
    format!("{} {}", policy.kind, name(policy))
}

/// `file:line`, or nothing.
pub(super) fn place(file: &str, line: u64) -> String {
    if file.is_empty() { String::new() } else { format!("{file}:{line}") }
}

fn mode(policy: &Policy) -> String {
    match policy.mode() {
        Mode::Unknown => "unknown",
        Mode::Observe => "observe",
        Mode::Audit => "audit",
        Mode::Enforce => "enforce",
    }
    .to_owned()
}

fn set_by(policy: &Policy) -> &'static str {
    match policy.mode_set_by() {
        SetBy::Unknown => "nobody knows what",
        SetBy::Default => "default",
        SetBy::NamespaceAnnotation => "the namespace's annotation",
        SetBy::PolicyAnnotation => "its annotation",
        SetBy::Command => "command",
        SetBy::Cap => "what no policy exceeds here",
    }
}

fn set_by_short(policy: &Policy) -> &'static str {
    match policy.mode_set_by() {
        SetBy::Unknown => "-",
        SetBy::Default => "default",
        SetBy::NamespaceAnnotation => "namespace",
        SetBy::PolicyAnnotation => "annotation",
        SetBy::Command => "command",
        SetBy::Cap => "cap",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_called_what_they_are_in_the_mode() {
        let policy = |mode: Mode, hits| Policy {
            kind: "NetworkPolicy".into(),
            name: "p".into(),
            mode: mode.into(),
            hits: Some(hits),
            ..Policy::default()
        };
        let audited = policy(
            Mode::Audit,
            PolicyHits { allowed: 1, would_deny: 2, would_refuse: 3, ..PolicyHits::default() },
        );
        let enforced = policy(Mode::Enforce, PolicyHits { allowed: 4, denied: 5, ..PolicyHits::default() });
        // In mode audit by now.
        let changed = policy(Mode::Audit, PolicyHits { would_deny: 6, denied: 7, ..PolicyHits::default() });
        for (policies, titles, told) in [
            (
                vec![&audited],
                "ALLOWED  WOULD DENY  WOULD REFUSE  WARNINGS",
                "1 allowed, 2 would be denied\n  requests     3 would be refused\n",
            ),
            (vec![&enforced], "ALLOWED  DENIED  REFUSED  WARNINGS", "4 allowed, 5 denied\n"),
            (
                vec![&changed],
                "ALLOWED  WOULD DENY  DENIED  WOULD REFUSE  WARNINGS",
                "0 allowed, 6 would be denied, 7 denied\n",
            ),
            (
                vec![&audited, &enforced],
                "ALLOWED  WOULD DENY  DENIED  WOULD REFUSE  REFUSED  WARNINGS",
                "4 allowed, 5 denied\n",
            ),
        ] {
            let policies = policies.into_iter().cloned().collect();
            let answer = ListPoliciesResponse { policies, ..ListPoliciesResponse::default() };
            let (listed, shown) = (listed(&answer), shown(&answer));
            assert!(listed.contains(titles), "{listed}");
            assert!(shown.contains(&format!("connections  {told}")), "{shown}");
        }
    }
}

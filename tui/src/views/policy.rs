//! Policies: what they allowed, denied, or would have denied, and which are in force.

use super::{Page, drops, drops::count, fact, heading};
use crate::{
    filter::WORD,
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::State,
};
use observer_proto::{
    control::{ListPoliciesResponse, OpenPod, Policy, policy::Mode},
    stats::PolicyCount,
    text::status::grouped,
};
use std::collections::BTreeMap;

/// Whom a policy selects, and how often it was among those that decided.
#[derive(Clone, Debug, Default)]
struct Told<'a> {
    policy: Option<&'a Policy>,
    allowed: u64,
    audited: u64,
    denied: u64,
}

/// No policy isolates that side.
const OPEN: &str = "(no policy)";

pub(super) fn page(state: &State) -> Page {
    let counts = &state.counts;
    let verdicts = counts.verdicts.as_ref();
    let listed = counts.policies.as_ref().and_then(|told| told.as_deref().ok());
    if state.modes.open_pods {
        return open_pods(state, listed);
    }
    let mut told: BTreeMap<String, Told<'_>> = BTreeMap::new();
    for policy in listed.into_iter().flat_map(|listed| &listed.policies) {
        told.entry(name(policy)).or_default().policy = Some(policy);
    }
    for row in verdicts.into_iter().flat_map(|answer| &answer.policies) {
        let names = if row.policies.is_empty() { &vec![OPEN.to_owned()] } else { &row.policies };
        for name in names {
            let told = told.entry(name.clone()).or_default();
            told.allowed += row.allowed;
            told.audited += row.audited;
            told.denied += row.denied;
        }
    }
    let summary = summary(state, listed);
    let mut rows: Vec<(String, Told<'_>)> = told.into_iter().collect();
    rows.sort_by_key(|(_, told)| std::cmp::Reverse((told.denied + told.audited, told.allowed)));
    rows.retain(|(_, told)| !state.modes.audit_only || told.audited + told.denied > 0);
    let grid = grid(&rows);
    let selected = grid.selected(state.cursor()).map(|row| row.key.clone());
    let below = selected.map(|key| {
        let told = rows.iter().find(|(name, _)| *name == key).map(|(_, told)| told);
        below(&key, told.and_then(|told| told.policy), verdicts.map_or(&[], |answer| &answer.policies))
    });
    Page { summary, reason: reason(state), grid, below: below.unwrap_or_default(), ..Page::default() }
}

fn name(policy: &Policy) -> String {
    match policy.namespace.as_str() {
        "" => format!("{} {}", policy.kind, policy.name),
        namespace => format!("{} {namespace}/{}", policy.kind, policy.name),
    }
}

fn summary(state: &State, listed: Option<&ListPoliciesResponse>) -> Line {
    let only = if state.modes.audit_only { "denied and would-be denied only" } else { "all" };
    let window = state.counts.verdicts.as_ref().and_then(|answer| answer.window);
    let judged = window.map_or(0, |window| window.policy_verdicts);
    let mut line = Line::plain(format!(
        " {}  {} verdicts on new connections  {only} (a)",
        drops::of_time(state),
        grouped(judged)
    ));
    match (listed, &state.counts.policies) {
        (Some(listed), _) if !listed.problem.is_empty() => {
            line.push(Role::Error, format!("  not in force: {}", listed.problem));
        }
        (Some(listed), _) => {
            line.push(Role::Muted, format!("  {} in force", listed.policies.len()));
            let role = if listed.open_count > 0 { Role::Audit } else { Role::Muted };
            line.push(role, format!("  {} pods uncovered (u)", grouped(listed.open_count)));
        }
        (None, Some(Err(why))) => {
            let why = why.lines().next().unwrap_or_default();
            line.push(Role::Muted, format!("  which are in force is not known: {why}"));
        }
        (None, _) => {}
    }
    line
}

fn grid(rows: &[(String, Told<'_>)]) -> Grid {
    let columns = vec![
        Column::name("POLICY"),
        Column::word("MODE").rank(1),
        Column::number("SELECTS").rank(3),
        Column::number("ALLOWED").rank(2),
        Column::number("WOULD DENY"),
        Column::number("DENIED"),
    ];
    let row = |(name, told): &(String, Told<'_>)| {
        let mode = told.policy.map_or("-", |policy| mode(policy));
        let selects = told.policy.map_or(Cell::text("-"), |policy| count(policy.selected));
        let marked = |number: u64, role| count(number).role(if number > 0 { role } else { Role::Muted });
        Row {
            key: name.clone(),
            cells: vec![
                Cell::text(name.clone()),
                Cell::text(mode),
                selects,
                count(told.allowed),
                marked(told.audited, Role::Audit),
                marked(told.denied, Role::Drop),
            ],
            flags: flags(name),
            ..Row::default()
        }
    };
    Grid { columns, rows: rows.iter().map(row).collect() }
}

/// What asks for the verdicts of a policy: no filter names one, but the text of rows does, without its kind.
fn flags(name: &str) -> Vec<(&'static str, String)> {
    let mut flags = vec![("type", "policy-verdict".to_owned())];
    if name != OPEN {
        flags.push((WORD, name.rsplit_once(' ').map_or(name, |(_, name)| name).to_owned()));
    }
    flags
}

/// Pods of which no policy isolates a side.
fn open_pods(state: &State, listed: Option<&ListPoliciesResponse>) -> Page {
    let pods = listed.map_or(&[][..], |listed| &listed.open_pods);
    let count = listed.map_or(0, |listed| listed.open_count);
    let mut summary =
        Line::plain(format!(" {} pods with a side that no policy isolates (u)", grouped(count)));
    if count > pods.len() as u64 {
        summary.push(Role::Muted, format!("  the first {} of them", pods.len()));
    }
    let row = |pod: &OpenPod| {
        let side = |is_open: bool, open: &str| {
            let (text, role) = if is_open { (open, Role::Audit) } else { ("isolated", Role::Muted) };
            Cell::text(text).role(role)
        };
        Row {
            key: pod.name.clone(),
            cells: vec![
                Cell::text(pod.name.clone()),
                side(pod.ingress, "all may come in"),
                side(pod.egress, "it may go anywhere"),
            ],
            flags: vec![("pod", pod.name.clone())],
            ..Row::default()
        }
    };
    let columns = vec![Column::name("POD"), Column::word("INGRESS"), Column::word("EGRESS")];
    let reason = match &state.counts.policies {
        Some(Ok(_)) => "each side of each pod is isolated by a policy".to_owned(),
        Some(Err(why)) => format!("not known: {}", why.lines().collect::<Vec<_>>().join(": ")),
        None => String::new(),
    };
    let grid = Grid { columns, rows: pods.iter().map(row).collect() };
    let below = match grid.selected(state.cursor()) {
        Some(row) => vec![
            heading(format!(" {}", row.key)),
            fact("", "Enter shows its flows; what no policy isolates is allowed, and has no verdict"),
        ],
        None => Vec::new(),
    };
    Page { summary, grid, reason, below, ..Page::default() }
}

fn mode(policy: &Policy) -> &'static str {
    match policy.mode() {
        Mode::Unknown => "-",
        Mode::Observe => "observe",
        Mode::Audit => "audit",
        Mode::Enforce => "enforce",
    }
}

fn reason(state: &State) -> String {
    let counts = &state.counts;
    if let Some(answer) = counts.verdicts.as_ref().filter(|answer| !answer.not_built_in.is_empty()) {
        return format!("the server cannot count verdicts: {}", answer.not_built_in);
    }
    if state.modes.audit_only {
        return "nothing was denied, or would have been; a shows all".to_owned();
    }
    match (&counts.policies, &counts.verdicts) {
        (_, None) => String::new(),
        (Some(Ok(listed)), _) if listed.policies.is_empty() => {
            "no policies are in force; `observer --policy FOLDER` reads some".to_owned()
        }
        (Some(Err(why)), _) => {
            let why = why.lines().collect::<Vec<_>>().join(": ");
            format!("no verdict of a policy in this time; which policies are in force is not known: {why}")
        }
        _ => "no verdict of a policy in this time".to_owned(),
    }
}

fn below(key: &str, policy: Option<&Policy>, verdicts: &[PolicyCount]) -> Vec<Line> {
    let mut lines = vec![heading(format!(" {key}"))];
    if let Some(policy) = policy {
        let isolates = match (policy.isolates_ingress, policy.isolates_egress) {
            (true, true) => "; denies in and out what no rule allows",
            (true, false) => "; denies in what no rule allows",
            (false, true) => "; denies out what no rule allows",
            (false, false) => "",
        };
        lines.push(fact(
            "selects",
            format!("{} ({} endpoints){isolates}", policy.selects, grouped(policy.selected)),
        ));
        for rule in policy.rules.iter().take(8) {
            let verb = if rule.deny { "denies" } else { "allows" };
            let list = |all: &[String]| if all.is_empty() { "any".to_owned() } else { all.join(", ") };
            lines.push(fact(&rule.path, format!("{verb} {} on {}", list(&rule.peers), list(&rule.ports))));
        }
        for warning in &policy.warnings {
            lines.push(Line::of(Role::Audit, format!("  warning      {} {}", warning.path, warning.problem)));
        }
        if !policy.file.is_empty() {
            lines.push(fact("from", format!("{}:{}", policy.file, policy.line)));
        }
    }
    let is_of = |row: &&PolicyCount| {
        row.policies.iter().any(|own| own == key) || (row.policies.is_empty() && key == OPEN)
    };
    for row in verdicts.iter().filter(is_of).take(8) {
        let with: Vec<&str> = row.policies.iter().filter(|own| *own != key).map(String::as_str).collect();
        let with =
            if with.is_empty() { String::new() } else { format!(", together with {}", with.join(", ")) };
        let text = format!(
            "{} allowed, {} would be denied, {} denied{with}",
            grouped(row.allowed),
            grouped(row.audited),
            grouped(row.denied)
        );
        lines.push(fact(&row.direction, text));
    }
    if key == OPEN {
        lines.push(fact("", "sides that no policy selects, and what comes from a pod's own node"));
    }
    lines
}

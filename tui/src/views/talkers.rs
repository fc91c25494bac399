//! Who talks most.

use super::{
    Page, drops,
    drops::{count, rate, told},
    fact, heading,
    map::namespace,
};
use crate::{
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::State,
};
use observer_proto::{answers::scaled, stats::Talker, text::status::grouped};
use std::collections::BTreeMap;

/// Cells of a whole bar.
const BAR: usize = 20;
const MEASURES: [&str; 3] = ["bytes", "flows", "drops"];

pub(super) fn page(state: &State) -> Page {
    let Some(answer) = &state.counts.talkers else { return Page::default() };
    let seconds = drops::span(state, answer.window.as_ref());
    // Where bytes are not known, flows are what there is.
    let measure = if state.modes.measure == 0 && !state.counts.tells_bytes { 1 } else { state.modes.measure };
    let of = |talker: &Talker| match measure {
        0 => talker.sent_bytes + talker.received_bytes,
        1 => talker.sent_flows + talker.received_flows,
        _ => talker.drops,
    };
    let mut talkers = talkers(state, &answer.talkers);
    talkers.sort_by_key(|talker| std::cmp::Reverse(of(talker)));
    let all: u64 = talkers.iter().chain(&answer.other).map(of).sum();
    let by = if state.modes.by_namespace { "namespace" } else { "workload" };
    let summary = Line::plain(format!(
        " {}  {} {by}s (b)  by {} (m)",
        drops::of_time(state),
        talkers.len(),
        MEASURES[measure]
    ));
    let columns = vec![
        Column::name(if state.modes.by_namespace { "NAMESPACE" } else { "WORKLOAD" }),
        Column::number("SENT/s"),
        Column::number("RECV/s"),
        Column::number("FLOWS/s").rank(2),
        Column::number("DROPS").rank(1),
        Column::word("TREND").rank(4),
        Column::word("SHARE").rank(3),
    ];
    let rows = talkers.iter().map(|talker| Row {
        key: talker.name.clone(),
        cells: vec![
            Cell::text(talker.name.clone()),
            told(state, rate(talker.sent_bytes, seconds)),
            told(state, rate(talker.received_bytes, seconds)),
            rate(talker.sent_flows + talker.received_flows, seconds),
            count(talker.drops).role(if talker.drops > 0 { Role::Drop } else { Role::Muted }),
            drops::trend(state, &talker.trend),
            share(of(talker), all, state.look.is_ascii),
        ],
        flags: flags(state, &talker.name),
        ..Row::default()
    });
    let grid = Grid { columns, rows: rows.collect() };
    let selected =
        grid.at(state.cursor()).and_then(|at| talkers.iter().find(|own| own.name == grid.rows[at].key));
    let below = selected.map(|talker| below(state, talker)).unwrap_or_default();
    let flows = answer.window.as_ref().map_or(0, |window| window.flows);
    let reason = format!("nobody among {} flows", grouped(flows));
    Page { summary, grid, reason, below, ..Page::default() }
}

fn talkers(state: &State, told: &[Talker]) -> Vec<Talker> {
    if !state.modes.by_namespace {
        return told.to_vec();
    }
    let mut sums: BTreeMap<&str, Talker> = BTreeMap::new();
    for talker in told {
        let name = namespace(&talker.name);
        let sum = sums.entry(name).or_default();
        name.clone_into(&mut sum.name);
        sum.sent_flows += talker.sent_flows;
        sum.received_flows += talker.received_flows;
        sum.sent_bytes += talker.sent_bytes;
        sum.received_bytes += talker.received_bytes;
        sum.drops += talker.drops;
        sum.trend = drops::added(&sum.trend, &talker.trend);
    }
    sums.into_values().collect()
}

fn share(part: u64, all: u64, is_ascii: bool) -> Cell {
    let share = part as f64 / all.max(1) as f64;
    let bar = if is_ascii { "#" } else { "█" }.repeat((share * BAR as f64).round() as usize);
    let text = if share > 0.0 && share < 0.01 { "<1%".to_owned() } else { format!("{:.0}%", share * 100.0) };
    Cell { number: Some(share), ..Cell::text(format!("{text:>4} {bar}")) }
}

fn flags(state: &State, name: &str) -> Vec<(&'static str, String)> {
    let is_reserved = observer_proto::names::reserved_identity(name).is_some();
    match drops::net(name) {
        Some(net) => vec![("ip", net)],
        None if is_reserved => vec![("identity", name.to_owned())],
        None if state.modes.by_namespace => vec![("namespace", name.to_owned())],
        None if name.contains('/') => vec![("pod", name.to_owned())],
        None => Vec::new(),
    }
}

fn below(state: &State, talker: &Talker) -> Vec<Line> {
    let bytes = |count: u64| {
        if state.counts.tells_bytes { format!(", {} bytes", grouped(count)) } else { String::new() }
    };
    let mut lines = vec![
        heading(format!(" {}", talker.name)),
        fact("sent", format!("{} flows{}", grouped(talker.sent_flows), bytes(talker.sent_bytes))),
        fact("received", format!("{} flows{}", grouped(talker.received_flows), bytes(talker.received_bytes))),
        fact("dropped", format!("{} flows, sent or to be received", grouped(talker.drops))),
    ];
    if let Some(most) = talker.trend.iter().max() {
        // Of full parts alone.
        let part = state.window.seconds() as f64 / talker.trend.len() as f64;
        let text = format!("bytes a second: {} at most over {part:.0} s", scaled(*most as f64 / part));
        let mut line = fact("trend", drops::trend(state, &talker.trend).text);
        line.push(Role::Muted, format!("  {text}"));
        lines.push(line);
    }
    if !state.counts.tells_bytes {
        lines.push(Line::of(Role::Muted, "  - is not known: bytes are told by Observer's daemon only"));
    }
    lines
}

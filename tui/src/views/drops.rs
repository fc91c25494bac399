//! Drops: by reason with the pairs of the selected one, or by pair.

use super::{Page, fact, heading};
use crate::{
    filter::WORD,
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::State,
};
use observer_proto::{
    answers::{refused, scaled},
    filter::drop_reason_number,
    flow::DropReason,
    stats::{DropCount, GetDropsResponse},
    text::status::grouped,
};
use std::collections::BTreeMap;

/// Pairs shown below the table.
const PAIRS: usize = 12;

pub(super) fn page(state: &State) -> Page {
    let Some(answer) = &state.counts.drops else { return Page::default() };
    let seconds = span(state, answer.window.as_ref());
    let all: u64 = answer.drops.iter().chain(&answer.other).map(|row| row.flows).sum();
    let flows = answer.window.as_ref().map_or(0, |window| window.flows);
    let by = if state.modes.by_pair { "by pair" } else { "by reason" };
    let share = 100.0 * all as f64 / flows.max(1) as f64;
    let summary = Line::plain(format!(
        " {}  dropped {} of {} flows ({share:.1}%)  {by} (m)",
        of_time(state),
        grouped(all),
        grouped(flows)
    ));
    let grid =
        if state.modes.by_pair { by_pair(state, answer, seconds) } else { by_reason(state, answer, seconds) };
    let selected = grid.selected(state.cursor()).map(|row| row.key.clone());
    let below = selected.map(|key| below(state, answer, &key)).unwrap_or_default();
    let reason = format!("nothing was dropped among {} flows", grouped(flows));
    Page { summary, grid, reason, below, ..Page::default() }
}

/// `last 5m (w)`, or what a file holds.
pub(super) fn of_time(state: &State) -> String {
    if state.link.is_file { "all rows".to_owned() } else { format!("last {} (w)", state.window.name()) }
}

/// Seconds that counts are of, for rates.
pub(super) fn span(state: &State, window: Option<&observer_proto::stats::Window>) -> f64 {
    let times = window.and_then(|window| Some((window.from?, window.until?)));
    let told = times.map(|(from, until)| until.seconds - from.seconds).filter(|seconds| *seconds > 0);
    if state.link.is_file {
        let time = |row: Option<&crate::rows::Row>| Some(row?.time?.seconds);
        let rows = state.rows.shown();
        let span = time(rows.back()).zip(time(rows.front())).map(|(last, first)| last - first);
        return span.unwrap_or(1).max(1) as f64;
    }
    told.unwrap_or(state.window.seconds()) as f64
}

/// A count with its rate.
pub(super) fn rate(count: u64, seconds: f64) -> Cell {
    let rate = count as f64 / seconds;
    Cell::number(rate, scaled(rate))
}

/// A count, with blanks by thousands.
pub(super) fn count(count: u64) -> Cell {
    Cell::number(count as f64, grouped(count))
}

/// A count that only Observer's daemon tells.
pub(super) fn told(state: &State, cell: Cell) -> Cell {
    if state.counts.tells_bytes { cell } else { Cell::text("-").role(Role::Muted) }
}

/// Of requests that were refused no packet was dropped.
fn packets(state: &State, packets: u64) -> Cell {
    if packets == 0 { Cell::text("-").role(Role::Muted) } else { told(state, count(packets)) }
}

/// What makes a row heavier than another, the first number first.
fn weight(row: &DropCount) -> (u64, u64) {
    (row.packets.max(row.flows), row.flows)
}

/// The flag of a filter that asks for a reason.
const REASON: &str = "drop-reason-desc";

/// What asks for drops of a reason, and not for the verdicts beside them: a flag, where the reason has a name, else the text
/// of rows.
fn flags(reason: &str) -> Vec<(&'static str, String)> {
    if let Some((flag, value)) = refused::flag(reason) {
        return vec![("verdict", "DROPPED".to_owned()), (flag, value.to_owned())];
    }
    let is_named = drop_reason_number(reason).is_some();
    vec![("type", "drop".to_owned()), (if is_named { REASON } else { WORD }, reason.to_owned())]
}

/// What does not count as this reason: of Hubble's, the drops for which it is only the nearest to the kernel's own.
fn left_out(state: &State, reason: &str) -> Option<(&'static str, String)> {
    let is_of_hubble = DropReason::from_str_name(reason).is_some();
    (is_of_hubble && state.counts.tells_bytes).then(|| (REASON, "KERNEL".to_owned()))
}

fn by_reason(state: &State, answer: &GetDropsResponse, seconds: f64) -> Grid {
    let mut reasons: BTreeMap<&str, (DropCount, Option<&DropCount>)> = BTreeMap::new();
    for row in &answer.drops {
        let (sum, top) = reasons.entry(&row.reason).or_default();
        sum.flows += row.flows;
        sum.packets += row.packets;
        sum.trend = added(&sum.trend, &row.trend);
        if top.is_none_or(|top| top.flows < row.flows) {
            *top = Some(row);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, (sum, _))| std::cmp::Reverse(weight(sum)));
    let rows = reasons.into_iter().map(|(reason, (sum, top))| Row {
        key: reason.to_owned(),
        cells: vec![
            Cell::text(reason).role(Role::Drop),
            count(sum.flows),
            packets(state, sum.packets),
            rate(sum.flows, seconds),
            trend(state, &sum.trend),
            Cell::text(top.map_or("", |top| &top.source)),
            Cell::text(top.map_or("", |top| &top.destination)),
        ],
        flags: flags(reason),
        left_out: left_out(state, reason),
    });
    let columns = vec![
        Column::name("REASON"),
        Column::number("FLOWS"),
        Column::number("PACKETS").rank(2),
        Column::number("FLOWS/s").rank(1),
        Column::word("TREND").rank(3),
        Column::name("TOP SOURCE"),
        Column::name("TOP DESTINATION"),
    ];
    Grid { columns, rows: rows.collect() }
}

fn by_pair(state: &State, answer: &GetDropsResponse, seconds: f64) -> Grid {
    let rows = answer.drops.iter().map(|row| Row {
        key: format!("{} {} {}", row.source, row.destination, row.reason),
        cells: vec![
            Cell::text(row.source.clone()),
            Cell::text(row.destination.clone()),
            Cell::text(row.reason.clone()).role(Role::Drop),
            count(row.flows),
            packets(state, row.packets),
            rate(row.flows, seconds),
            trend(state, &row.trend),
        ],
        flags: {
            let mut all = flags(&row.reason);
            all.extend(of_name("from", &row.source));
            all.extend(of_name("to", &row.destination));
            all
        },
        left_out: left_out(state, &row.reason),
    });
    let columns = vec![
        Column::name("SOURCE"),
        Column::name("DESTINATION"),
        Column::name("REASON"),
        Column::number("FLOWS"),
        Column::number("PACKETS").rank(2),
        Column::number("FLOWS/s").rank(1),
        Column::word("TREND").rank(3),
    ];
    Grid { columns, rows: rows.collect() }
}

/// Two trends as one.
pub(super) fn added(a: &[u64], b: &[u64]) -> Vec<u64> {
    let at = |list: &[u64], place| list.get(place).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(|place| at(a, place) + at(b, place)).collect()
}

/// Counts one after the other as heights, the highest of them as high as can be. Empty where nobody tells.
pub(super) fn trend(state: &State, counts: &[u64]) -> Cell {
    const BLOCKS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    const ASCII: [&str; 9] = [" ", ".", ":", "-", "=", "+", "*", "#", "@"];
    let heights = if state.look.is_ascii { ASCII } else { BLOCKS };
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    // Of what is more than nothing something is seen.
    let height = |count: u64| (u128::from(count) * 8).div_ceil(u128::from(most)) as usize;
    Cell { text: counts.iter().map(|count| heights[height(*count)]).collect(), ..Cell::default() }
}

/// The net of a name such as `cidr:10.0.0.0/8`; a label has `-` in place of the colons of IPv6.
pub(super) fn net(name: &str) -> Option<String> {
    name.strip_prefix("cidr:").map(|net| net.replace('-', ":"))
}

/// The flags that ask for an end by the name that counts have for it.
pub(super) fn of_name(side: &str, name: &str) -> Vec<(&'static str, String)> {
    let is_from = side == "from";
    if let Some(net) = net(name) {
        return vec![(if is_from { "from-ip" } else { "to-ip" }, net)];
    }
    match name.split_once('/') {
        // A workload's pods begin with its name.
        Some(_) => vec![(if is_from { "from-pod" } else { "to-pod" }, name.to_owned())],
        None if name.is_empty() || name == "unknown" => Vec::new(),
        None => vec![(if is_from { "from-identity" } else { "to-identity" }, name.to_owned())],
    }
}

fn below(state: &State, answer: &GetDropsResponse, key: &str) -> Vec<Line> {
    if state.modes.by_pair {
        return vec![
            heading(format!(" {key}")),
            fact("", "Enter shows these flows, each with its place in the kernel"),
        ];
    }
    let mut pairs: Vec<&DropCount> = answer.drops.iter().filter(|row| row.reason == key).collect();
    pairs.sort_by_key(|row| std::cmp::Reverse(weight(row)));
    let more = pairs.len().saturating_sub(PAIRS);
    let mut lines = vec![heading(format!(" {key}: between whom"))];
    for row in pairs.into_iter().take(PAIRS) {
        let packets = if state.counts.tells_bytes && row.packets > 0 {
            format!(", {} packets", grouped(row.packets))
        } else {
            String::new()
        };
        let text = format!("  {} > {}  {} flows{packets}", row.source, row.destination, grouped(row.flows));
        lines.push(Line::plain(text));
    }
    if more > 0 {
        lines.push(Line::of(Role::Muted, format!("  and {more} pairs more; m shows all pairs")));
    }
    lines
}

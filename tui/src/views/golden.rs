//! Golden signals: requests, failures and times of HTTP and DNS.

use super::{Page, drops, drops::of_name, fact, heading};
use crate::{
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::{State, counts::Basis},
};
use observer_proto::{
    answers::signals::{BOUNDS, Protocol, Signal},
    text::status::grouped,
};

/// Cells of the longest bar.
const BAR: u64 = 30;

pub(super) fn page(state: &State) -> Page {
    let (protocol, name, filter) =
        if state.modes.dns { (Protocol::Dns, "DNS", "dns") } else { (Protocol::Http, "HTTP", "http") };
    let summary = Line::plain(format!(
        " {}  protocol: {name} (m)  times: from the request to its answer, below the bound shown",
        drops::of_time(state)
    ));
    let Some(signals) = &state.counts.own_signals else { return Page { summary, ..Page::default() } };
    let (rows, other) = signals.rows(protocol);
    let rows: Vec<((String, String), Signal)> =
        rows.into_iter().chain(other.map(|sum| (("(other)".to_owned(), String::new()), sum))).collect();
    let columns = vec![
        Column::name("SERVER"),
        Column::name(if state.modes.dns { "NAME" } else { "ROUTE" }),
        Column::number("ANSWERS"),
        Column::number(if state.modes.dns { "NXDOMAIN%" } else { "4xx%" }).rank(1),
        Column::number(if state.modes.dns { "FAILED%" } else { "5xx%" }),
        Column::number("P50").rank(2),
        Column::number("P90").rank(3),
        Column::number("P99").rank(1),
    ];
    let grid_row = |((server, route), signal): &((String, String), Signal)| {
        let percent = |part: u64, role| {
            let share = 100.0 * part as f64 / signal.answers.max(1) as f64;
            Cell::number(share, format!("{share:.1}")).role(if part > 0 { role } else { Role::Muted })
        };
        let time = |share: f64| time(signal, share);
        let mut flags = vec![("protocol", filter.to_owned())];
        flags.extend(of_name("from", server));
        Row {
            key: format!("{server} {route}"),
            cells: vec![
                Cell::text(server.clone()),
                Cell::text(route.clone()),
                drops::count(signal.answers),
                percent(signal.client_errors, Role::Audit),
                percent(signal.server_errors, Role::Drop),
                time(0.5),
                time(0.9),
                time(0.99),
            ],
            flags,
        }
    };
    let grid = Grid { columns, rows: rows.iter().map(grid_row).collect() };
    let selected = grid.selected(state.cursor()).map(|row| row.key.clone());
    let found =
        selected.and_then(|key| rows.iter().find(|((server, route), _)| key == format!("{server} {route}")));
    let below =
        found.map(|((server, route), signal)| below(state, server, route, signal)).unwrap_or_default();
    Page { summary, reason: reason(state, name, signals.seen()), grid, below, ..Page::default() }
}

fn time(signal: &Signal, share: f64) -> Cell {
    if signal.times.iter().sum::<u64>() < observer_proto::answers::signals::LEAST_ANSWERS {
        return Cell::text("-").role(Role::Muted);
    }
    match signal.percentile(share) {
        Some(bound) => Cell::number(bound as f64, format!("{bound}ms")),
        None => Cell::number(f64::MAX, format!(">{}ms", BOUNDS[BOUNDS.len() - 1])).role(Role::Drop),
    }
}

fn reason(state: &State, name: &str, (requests, answers): (u64, u64)) -> String {
    let rows = match state.counts.basis {
        Basis::Rows(rows) => rows,
        Basis::Server | Basis::None => 0,
    };
    if requests + answers > 0 {
        return format!("no answer of {name} among {} rows; m shows the other protocol", grouped(rows));
    }
    let told = state.counts.signals.as_ref().map(|signals| signals.not_built_in.as_str());
    let server = match told.filter(|why| !why.is_empty()) {
        Some(why) => format!("; the server counts none itself: {why}"),
        None => String::new(),
    };
    format!(
        "none of {} rows is a request or an answer of {name}: the server tells no L7 flows here{server}",
        grouped(rows)
    )
}

fn below(state: &State, server: &str, route: &str, signal: &Signal) -> Vec<Line> {
    let list = |names: &std::collections::BTreeMap<String, u64>| {
        let mut names: Vec<_> = names.iter().collect();
        names.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        names
            .iter()
            .map(|(name, count)| format!("{name} {}", grouped(**count)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut lines = vec![
        heading(format!(" {server} {route}")),
        fact("answered", list(&signal.codes)),
        fact("asked by", list(&signal.clients)),
    ];
    let timed: u64 = signal.times.iter().sum();
    let most = signal.times.iter().max().copied().unwrap_or(0).max(1);
    let glyph = if state.look.is_ascii { "#" } else { "█" };
    for (at, count) in signal.times.iter().enumerate().filter(|(_, count)| **count > 0) {
        let name = BOUNDS
            .get(at)
            .map_or_else(|| format!("{} ms and more", BOUNDS[at - 1]), |bound| format!("below {bound} ms"));
        let bar = glyph.repeat(((count * BAR).div_ceil(most)) as usize);
        lines.push(fact(&name, format!("{bar} {}", grouped(*count))));
    }
    if timed < signal.answers {
        lines.push(fact("no time", format!("is told of {} answers", grouped(signal.answers - timed))));
    }
    lines
}

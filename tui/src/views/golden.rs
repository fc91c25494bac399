//! Golden signals: requests, failures and times of HTTP and DNS, by route or by server.

use super::{Page, drops, drops::of_name, fact, heading};
use crate::{
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::{State, counts::Basis},
};
use observer_proto::{
    answers::signals::{BOUNDS_US, Percentile, percentile},
    stats::{GetSignalsResponse, Signal},
    text::status::grouped,
};

/// Cells of the longest bar.
const BAR: u64 = 30;

pub(super) fn page(state: &State) -> Page {
    let (is_dns, by_server) = (state.modes.dns, state.modes.by_server);
    let (name, filter) = if is_dns { ("DNS", "dns") } else { ("HTTP", "http") };
    let by = if by_server { "server" } else { "route" };
    let summary = Line::plain(format!(
        " {}  {name} (m)  by {by} (b)  times: from the request to its answer, below the bound shown",
        drops::of_time(state)
    ));
    let Some(answer) = &state.counts.signals else { return Page { summary, ..Page::default() } };
    let seconds = drops::span(state, answer.window.as_ref());
    let told = if is_dns { &answer.dns } else { &answer.http };
    let (rows, other) = told.as_ref().map_or((&[][..], None), |told| {
        if by_server {
            (&told.servers[..], told.other_servers.as_ref())
        } else {
            (&told.routes[..], told.other_routes.as_ref())
        }
    });
    let other = other.filter(|sum| sum.requests + sum.responses > 0);
    let other = other.map(|sum| Signal { server: "(other)".to_owned(), ..sum.clone() });
    let rows: Vec<&Signal> = rows.iter().chain(&other).collect();
    let mut columns = vec![Column::name("SERVER")];
    if !by_server {
        columns.push(Column::name(if is_dns { "NAME" } else { "ROUTE" }));
    }
    columns.extend([
        Column::number("REQ/s"),
        Column::number(if is_dns { "NXDOMAIN%" } else { "4xx%" }).rank(1),
        Column::number(if is_dns { "FAILED%" } else { "5xx%" }),
        Column::number("P50").rank(2),
        Column::number("P90").rank(3),
        Column::number("P99").rank(1),
        Column::number("ANSWERS").rank(4),
    ]);
    let grid_row = |signal: &&Signal| {
        let percent = |part: u64, role| {
            let share = 100.0 * part as f64 / signal.responses.max(1) as f64;
            Cell::number(share, format!("{share:.1}")).role(if part > 0 { role } else { Role::Muted })
        };
        let mut flags = vec![("protocol", filter.to_owned())];
        flags.extend(of_name("from", &signal.server));
        let mut cells = vec![Cell::text(signal.server.clone())];
        if !by_server {
            cells.push(Cell::text(signal.route.clone()));
        }
        cells.extend([
            drops::rate(signal.requests.max(signal.responses), seconds),
            percent(signal.client_errors, Role::Audit),
            percent(signal.server_errors, Role::Drop),
            time(signal, 0.5),
            time(signal, 0.9),
            time(signal, 0.99),
            drops::count(signal.responses),
        ]);
        Row { key: key(signal), cells, flags, ..Row::default() }
    };
    let grid = Grid { columns, rows: rows.iter().map(grid_row).collect() };
    let selected = grid.selected(state.cursor()).map(|row| row.key.clone());
    let found = selected.and_then(|selected| rows.iter().find(|signal| key(signal) == selected));
    let below = found.map(|signal| below(state, signal)).unwrap_or_default();
    Page { summary, reason: reason(state, name, answer), grid, below, ..Page::default() }
}

fn key(signal: &Signal) -> String {
    format!("{} {}", signal.server, signal.route).trim_end().to_owned()
}

fn time(signal: &Signal, share: f64) -> Cell {
    match percentile(&signal.times, share) {
        Percentile::Below(bound) => Cell::number(bound as f64, length(bound)),
        Percentile::Above => Cell::number(f64::MAX, format!(">{}", length(BOUNDS_US[BOUNDS_US.len() - 1]))),
        Percentile::Unknown => Cell::text("-").role(Role::Muted),
    }
}

/// A bound; all are round.
fn length(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}s", us / 1_000_000),
    }
}

fn reason(state: &State, name: &str, answer: &GetSignalsResponse) -> String {
    if !answer.not_built_in.is_empty() {
        return format!("the server counts none: {}", answer.not_built_in);
    }
    let is_any = answer.window.as_ref().is_some_and(|window| window.l7 > 0);
    match (state.counts.basis, is_any) {
        (Basis::Rows(rows), true) => {
            format!("none of {} rows is of {name}; m shows the other protocol", grouped(rows))
        }
        (Basis::Rows(rows), false) => {
            format!("none of {} rows is of HTTP or DNS: the server tells no L7 flows here", grouped(rows))
        }
        (_, true) => format!("nothing of {name} was seen; m shows the other protocol"),
        (_, false) => "nothing of HTTP or DNS was seen".to_owned(),
    }
}

fn below(state: &State, signal: &Signal) -> Vec<Line> {
    let mut codes = signal.codes.clone();
    codes.sort_by_key(|code| std::cmp::Reverse(code.responses));
    let codes: Vec<String> =
        codes.iter().map(|code| format!("{} {}", code.code, grouped(code.responses))).collect();
    let mut lines = vec![
        heading(format!(" {}", key(signal))),
        fact("requests", grouped(signal.requests)),
        fact("answered", if codes.is_empty() { "0".to_owned() } else { codes.join(", ") }),
    ];
    let most = signal.times.iter().max().copied().unwrap_or(0).max(1);
    let glyph = if state.look.is_ascii { "#" } else { "█" };
    for (at, count) in signal.times.iter().enumerate().filter(|(_, count)| **count > 0) {
        let name = BOUNDS_US.get(at).map_or_else(
            || format!("{} and more", length(BOUNDS_US[BOUNDS_US.len() - 1])),
            |bound| format!("below {}", length(*bound)),
        );
        let bar = glyph.repeat(((count * BAR).div_ceil(most)) as usize);
        lines.push(fact(&name, format!("{bar} {}", grouped(*count))));
    }
    let timed: u64 = signal.times.iter().sum();
    if timed < signal.responses {
        lines.push(fact("no time", format!("is told of {} answers", grouped(signal.responses - timed))));
    }
    lines
}

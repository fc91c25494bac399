//! The map: who calls whom, as a list or as a matrix.

use super::{
    Page, drops,
    drops::{count, of_name, rate, told},
    fact, heading, matrix,
};
use crate::{
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::State,
};
use observer_proto::{stats::Edge, text::status::grouped};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn page(state: &State) -> Page {
    let Some(answer) = &state.counts.edges else { return Page::default() };
    let seconds = drops::span(state, answer.window.as_ref());
    let edges = edges(state);
    let names: BTreeSet<&str> = edges.iter().flat_map(|edge| [&*edge.client, &*edge.server]).collect();
    let (form, by) = (if state.modes.matrix { "matrix" } else { "list" }, by(state));
    let summary = Line::plain(format!(
        " {}  {} {by}s, {} edges  {form} (m)  by {by} (b)  = ok  ! errors",
        drops::of_time(state),
        names.len(),
        edges.len()
    ));
    let columns = vec![
        Column::word(" "),
        Column::name("CLIENT"),
        Column::name("SERVER"),
        Column::word("PORT"),
        Column::number("FLOWS").rank(3),
        Column::number("FLOWS/s").rank(1),
        Column::number("BYTES/s").rank(2),
        Column::number("ERRORS"),
    ];
    let rows = edges.iter().map(|edge| Row {
        key: format!("{} {} {} {}", edge.client, edge.server, edge.port, edge.protocol),
        cells: vec![
            sign(edge),
            Cell::text(edge.client.clone()),
            Cell::text(edge.server.clone()),
            Cell { number: Some(edge.port.into()), ..Cell::text(port(edge)) },
            count(edge.flows),
            rate(edge.flows, seconds),
            told(state, rate(edge.bytes, seconds)),
            count(edge.errors).role(if edge.errors > 0 { Role::Drop } else { Role::Muted }),
        ],
        flags: flags(state, edge),
        ..Row::default()
    });
    let grid = Grid { columns, rows: rows.collect() };
    let lines = (state.modes.matrix && !edges.is_empty()).then(|| matrix::lines(state, &edges, seconds));
    let selected = grid.selected(state.cursor()).map(|row| row.key.clone());
    let below = selected.map(|key| below(&key, &edges)).unwrap_or_default();
    let flows = answer.window.as_ref().map_or(0, |window| window.flows);
    let reason = format!("no connection among {} flows", grouped(flows));
    Page { summary, grid, reason, lines, below }
}

fn by(state: &State) -> &'static str {
    if state.modes.by_namespace { "namespace" } else { "workload" }
}

/// The namespace of a name that counts have for an end; what is in none is itself.
pub(super) fn namespace(name: &str) -> &str {
    match name.split_once('/') {
        Some((namespace, _)) if !name.starts_with("cidr:") => namespace,
        _ if name.starts_with("cidr:") => "world",
        _ => name,
    }
}

/// The edges, summed by namespaces where that is wanted.
fn edges(state: &State) -> Vec<Edge> {
    let Some(answer) = &state.counts.edges else { return Vec::new() };
    if !state.modes.by_namespace {
        return answer.edges.clone();
    }
    let mut sums: BTreeMap<(&str, &str), Edge> = BTreeMap::new();
    for edge in &answer.edges {
        let (client, server) = (namespace(&edge.client), namespace(&edge.server));
        let sum = sums.entry((client, server)).or_default();
        (sum.client, sum.server) = (client.to_owned(), server.to_owned());
        sum.flows += edge.flows;
        sum.bytes += edge.bytes;
        sum.errors += edge.errors;
    }
    let mut edges: Vec<Edge> = sums.into_values().collect();
    edges.sort_by_key(|edge| std::cmp::Reverse((edge.bytes, edge.flows)));
    edges
}

fn sign(edge: &Edge) -> Cell {
    if edge.errors > 0 { Cell::text("!").role(Role::Drop) } else { Cell::text("=").role(Role::Good) }
}

fn port(edge: &Edge) -> String {
    match (edge.protocol.as_str(), edge.port) {
        ("", 0) => "-".to_owned(),
        (protocol, 0) => protocol.to_owned(),
        (protocol, port) => format!("{port}/{protocol}"),
    }
}

fn flags(state: &State, edge: &Edge) -> Vec<(&'static str, String)> {
    let ends = [("from", "from-namespace", &edge.client), ("to", "to-namespace", &edge.server)];
    let of = |(side, flag, name): (&str, &'static str, &String)| {
        let is_namespace =
            state.modes.by_namespace && observer_proto::names::reserved_identity(name).is_none();
        if is_namespace { vec![(flag, name.clone())] } else { of_name(side, name) }
    };
    let mut flags: Vec<(&'static str, String)> = ends.into_iter().flat_map(of).collect();
    if edge.port > 0 {
        flags.push(("to-port", edge.port.to_string()));
    }
    flags
}

/// Where else the selected client and server go.
fn below(key: &str, edges: &[Edge]) -> Vec<Line> {
    let Some(edge) = edges
        .iter()
        .find(|edge| key == format!("{} {} {} {}", edge.client, edge.server, edge.port, edge.protocol))
    else {
        return Vec::new();
    };
    let list = |edges: Vec<String>| if edges.is_empty() { "nobody".to_owned() } else { edges.join(", ") };
    let clients = edges.iter().filter(|other| other.server == edge.server);
    let servers = edges.iter().filter(|other| other.client == edge.client);
    vec![
        heading(format!(" {} > {} {}", edge.client, edge.server, port(edge))),
        fact(
            "so far",
            format!(
                "{} flows, {} errors: drops, and connects that nobody answered",
                grouped(edge.flows),
                grouped(edge.errors)
            ),
        ),
        fact(
            "it is called",
            format!(
                "by {}",
                list(clients.map(|edge| edge.client.clone()).collect::<BTreeSet<_>>().into_iter().collect())
            ),
        ),
        fact("it calls", list(servers.map(|edge| format!("{} {}", edge.server, port(edge))).collect())),
    ]
}

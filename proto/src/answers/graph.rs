//! The service map: which workload calls which, on which port, and how that goes.

use super::{
    about::{About, CountedBy, Time, UNTOLD, or_dash},
    ends,
    groups::{Counts, Groups, Other},
    table::{self, Column, cleaned},
    volume::{Connections, Volume},
};
use crate::{
    Facts,
    flow::Flow,
    stats::{Edge as Told, GetEdgesResponse},
    text::status::grouped,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write, ops::AddAssign};

/// Edges kept.
pub const MOST_EDGES: usize = 4096;

/// Of an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    flows: u64,
    volume: Volume,
    errors: u64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.volume += other.volume;
        self.errors += other.errors;
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        (self.volume.bytes, self.flows)
    }
}

/// Client, server, protocol, port.
type Key = (String, String, String, u32);

/// Takes in flows.
#[derive(Debug)]
pub struct Edges {
    about: About,
    groups: Groups<Key, Sums>,
    connections: Connections,
}

impl Edges {
    /// `about` says who counts. Bytes count from `since` on, else from each connection's beginning.
    pub fn new(about: About, since: Option<prost_types::Timestamp>) -> Self {
        Self { about, groups: Groups::new(MOST_EDGES), connections: Connections::new(since) }
    }

    /// Takes in a flow.
    pub fn flow(&mut self, flow: &Flow) {
        // The packet that it is about has a flow of its own.
        if ends::is_verdict(flow) {
            return;
        }
        self.about.flow(flow);
        let facts = Facts::of(flow);
        let (client, server) = ends::callers(flow);
        let key = (
            ends::workload(flow, client),
            ends::workload(flow, server),
            ends::protocol(flow).to_owned(),
            server.port(flow),
        );
        let dropped = ends::is_drop(flow);
        let volume = self.connections.new_of(flow, &facts);
        // Only what was delivered.
        let volume = if dropped { Volume { packets: 0, bytes: 0, ..volume } } else { volume };
        self.groups.add(key, Sums { flows: 1, volume, errors: u64::from(dropped || facts.connect_failed) });
    }

    /// Flows that did not come.
    pub fn lost(&mut self, flows: u64) {
        self.about.lost += flows;
    }

    /// The heaviest edges: those of most bytes, then of most flows.
    pub fn graph(&self, limit: usize) -> Graph {
        let (rows, Other { rows: more, counts }) = self.groups.heaviest(limit);
        let edge = |(client, server, protocol, port): Key, sums: Sums| Edge {
            client,
            server,
            protocol,
            port,
            flows: sums.flows,
            bytes: (sums.volume.silent() < sums.flows).then_some(sums.volume.bytes),
            errors: sums.errors,
        };
        let edges: Vec<Edge> = rows.into_iter().map(|(key, sums)| edge(key, sums)).collect();
        let other = (more > 0).then(|| Rest { edges: Some(more), edge: edge(Key::default(), counts) });
        Graph { about: self.about.clone(), edges, other }
    }
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// What it is of.
    pub about: About,
    /// The heaviest first.
    pub edges: Vec<Edge>,
    /// All others.
    pub other: Option<Rest>,
}

/// Who calls whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// `namespace/workload`, a pod, a CIDR or a reserved name.
    pub client: String,
    /// Likewise.
    pub server: String,
    /// TCP and the like, or empty.
    pub protocol: String,
    /// The server's, 0 where the protocol has none.
    pub port: u32,
    /// Of both directions.
    pub flows: u64,
    /// Delivered, both ways; none where the server doesn't tell.
    pub bytes: Option<u64>,
    /// Drops, and connects that nobody answered (which only Observer's daemon tells).
    pub errors: u64,
}

/// What is in no edge shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// How many there are, where that is known.
    pub edges: Option<u64>,
    /// Their sum, without names.
    #[serde(flatten)]
    pub edge: Edge,
}

const COLUMNS: [Column; 6] = [
    Column::name("CLIENT"),
    Column::name("SERVER"),
    Column::word("PORT"),
    Column::number("FLOWS").rank(1),
    Column::number("BYTES").rank(2),
    Column::number("ERRORS"),
];

impl Graph {
    /// As the server counted it.
    pub fn told(answer: GetEdgesResponse) -> Self {
        let edge = |told: Told| Edge {
            client: told.client,
            server: told.server,
            protocol: told.protocol,
            port: told.port,
            flows: told.flows,
            bytes: Some(told.bytes),
            errors: told.errors,
        };
        let window = answer.window.unwrap_or_default();
        let about = About {
            counted_by: CountedBy::Server,
            flows: window.flows,
            lost: window.lost,
            from: Time(window.from),
            until: Time(window.until),
        };
        let other = answer.other.filter(|other| other.flows > 0);
        Self {
            about,
            edges: answer.edges.into_iter().map(edge).collect(),
            other: other.map(|told| Rest { edges: None, edge: edge(told) }),
        }
    }

    /// As a table.
    pub fn text(&self, width: Option<usize>) -> String {
        let row = |edge: &Edge, client: &str| {
            vec![
                client.to_owned(),
                edge.server.clone(),
                ends::port(&edge.protocol, edge.port),
                grouped(edge.flows),
                or_dash(edge.bytes, grouped),
                grouped(edge.errors),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.edges.iter().map(|edge| row(edge, &edge.client)).collect();
        if let Some(rest) = &self.other {
            let name = rest.edges.map_or("(other)".to_owned(), |edges| format!("({} other)", grouped(edges)));
            rows.push(row(&rest.edge, &name));
        }
        let mut out = String::new();
        // Writing to a string can't fail, here and below.
        let _ = table::write(&COLUMNS, &rows, 0, width, &mut out);
        let _ = self.about.write(&mut out);
        if self.edges.iter().any(|edge| edge.bytes.is_none()) {
            out.push_str(UNTOLD);
        }
        out
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For Graphviz. What has errors is red.
    pub fn dot(&self) -> String {
        let quoted = |text: &str| cleaned(text).replace('\\', "\\\\").replace('"', "\\\"");
        let mut out = "digraph observer {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
        for edge in &self.edges {
            let color = if edge.errors > 0 { ", color=red" } else { "" };
            // Writing to a string can't fail.
            let _ = writeln!(
                out,
                "  \"{}\" -> \"{}\" [label=\"{}\"{color}];",
                quoted(&edge.client),
                quoted(&edge.server),
                quoted(&label(edge)),
            );
        }
        out.push_str("}\n");
        out
    }

    /// For Mermaid. What has errors is red.
    pub fn mermaid(&self) -> String {
        let quoted = |text: &str| {
            // Its own form of entities; the first so that none is made twice.
            [("#", "#35;"), ("\"", "#quot;"), ("&", "#amp;"), ("<", "#lt;"), (">", "#gt;")]
                .iter()
                .fold(cleaned(text), |text, (from, to)| text.replace(from, to))
        };
        let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.edges.iter().flat_map(|edge| [&edge.client, &edge.server]) {
            nodes.entry(name).or_default();
        }
        let mut out = "flowchart LR\n".to_owned();
        // Writing to a string can't fail, here and below.
        for (number, (name, place)) in nodes.iter_mut().enumerate() {
            *place = number;
            let _ = writeln!(out, "  n{number}[\"{}\"]", quoted(name));
        }
        for edge in &self.edges {
            let [client, server] = [&edge.client, &edge.server].map(|name| nodes[name.as_str()]);
            let _ = writeln!(out, "  n{client} -->|\"{}\"| n{server}", quoted(&label(edge)));
        }
        let failing = self.edges.iter().enumerate().filter(|(_, edge)| edge.errors > 0);
        let failing: Vec<String> = failing.map(|(number, _)| number.to_string()).collect();
        if !failing.is_empty() {
            let _ = writeln!(out, "  linkStyle {} stroke:red", failing.join(","));
        }
        out
    }
}

fn label(edge: &Edge) -> String {
    let port = ends::port(&edge.protocol, edge.port);
    let errors = if edge.errors > 0 { format!(", {} errors", grouped(edge.errors)) } else { String::new() };
    format!("{port}: {} flows{errors}", grouped(edge.flows))
}

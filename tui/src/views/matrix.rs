//! The map as a matrix: rows call columns.

use super::map::namespace;
use crate::{
    line::{Line, Role, padded},
    state::State,
};
use observer_proto::{
    answers::scaled,
    stats::Edge,
    text::cells::{shorten, width},
};
use std::collections::BTreeMap;

/// A cell: the sign and at most four digits.
const CELL: usize = 9;
const NAME: usize = 20;

/// Flows a second of each pair, with `!` where there are errors; those of most flows first, as many as fit.
pub(super) fn lines(state: &State, edges: &[Edge], seconds: f64) -> Vec<Line> {
    let of = |name: &String| {
        if state.modes.by_namespace { namespace(name).to_owned() } else { name.clone() }
    };
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    let mut pairs: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for edge in edges {
        let (client, server) = (of(&edge.client), of(&edge.server));
        *weights.entry(client.clone()).or_default() += edge.flows;
        *weights.entry(server.clone()).or_default() += edge.flows;
        let pair = pairs.entry((client, server)).or_default();
        *pair = (pair.0 + edge.flows, pair.1 + edge.errors);
    }
    let mut names: Vec<(String, u64)> = weights.into_iter().collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let fit = state.size.0.saturating_sub(NAME + 2) / (CELL + 1);
    let more = names.len().saturating_sub(fit);
    let shown: Vec<&String> = names.iter().take(fit).map(|(name, _)| name).collect();
    let mut heading = Line::plain(padded("", NAME + 2, false));
    for name in &shown {
        heading.push(Role::Title, format!(" {}", padded(&shorten(name, CELL), CELL, true)));
    }
    let mut lines = vec![
        Line::of(Role::Muted, "  rows call columns; flows a second, ! where there are errors, . for none"),
        heading,
    ];
    for client in &shown {
        let mut line = Line::plain("  ").with(Role::Title, padded(&shorten(client, NAME), NAME, false));
        for server in &shown {
            let (text, role) = match pairs.get(&((*client).clone(), (*server).clone())) {
                None => (".".to_owned(), Role::Muted),
                Some((flows, 0)) => (format!("={}", scaled(*flows as f64 / seconds)), Role::Good),
                Some((flows, _)) => (format!("!{}", scaled(*flows as f64 / seconds)), Role::Drop),
            };
            debug_assert!(width(&text) <= CELL, "a sign and a number of few digits");
            line.push(role, format!(" {}", padded(&text, CELL, true)));
        }
        lines.push(line);
    }
    if more > 0 {
        lines.push(Line::of(Role::Muted, format!("  {more} more do not fit; b sums by namespace")));
    }
    lines
}

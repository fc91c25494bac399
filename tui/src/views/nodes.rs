//! The nodes, what runs on them, and what was lost.

use super::{Page, drops::count, fact, flows::ago, heading};
use crate::{
    grid::{Cell, Column, Grid, Row},
    line::{Line, Role},
    state::State,
};
use observer_proto::{
    answers::scaled,
    control::{CaptureStatusResponse, counter::Kind, hook},
    observer::{Node, ServerStatusResponse},
    relay::NodeState,
    stats::GetHealthResponse,
    text::status::grouped,
};

/// Programs and losses shown.
const MOST: usize = 12;

pub(super) fn page(state: &State) -> Page {
    if state.link.is_file {
        let reason = "a file tells nothing of nodes: this view needs a server".to_owned();
        return Page { reason, ..Page::default() };
    }
    let own;
    let (nodes, told) = match (&state.counts.nodes, &state.link.status) {
        (Some(Ok(nodes)), _) => (nodes.as_slice(), String::new()),
        // A server that knows no other than itself.
        (Some(Err(why)), Some(status)) => {
            own = [this_node(state, status)];
            (&own[..], format!("  the server lists no nodes: {}", why.lines().next().unwrap_or_default()))
        }
        (Some(Err(why)), None) => {
            return Page { reason: format!("the server lists no nodes: {why}"), ..Page::default() };
        }
        (None, _) => return Page::default(),
    };
    let well = nodes.iter().filter(|node| node.state() == NodeState::NodeConnected).count();
    let plural = if nodes.len() == 1 { "" } else { "s" };
    let summary = Line::plain(format!(" {} node{plural}, {well} connected", nodes.len()))
        .with(Role::Plain, state.counts.health.as_ref().map_or_else(String::new, |health| losses(health)))
        .with(Role::Muted, told);
    let grid = Grid { columns: columns(), rows: nodes.iter().map(row).collect() };
    Page { summary, grid, below: below(state), ..Page::default() }
}

fn this_node(state: &State, status: &ServerStatusResponse) -> Node {
    let capture = state.counts.capture.as_ref().and_then(|told| told.as_ref().ok());
    Node {
        name: capture.map_or_else(|| state.link.name.clone(), |capture| capture.node_name.clone()),
        version: status.version.clone(),
        state: NodeState::NodeConnected as i32,
        uptime_ns: status.uptime_ns,
        num_flows: status.num_flows,
        max_flows: status.max_flows,
        seen_flows: status.seen_flows,
        ..Node::default()
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name("NODE"),
        Column::word("STATE"),
        Column::name("VERSION").rank(3),
        Column::number("UP").rank(2),
        Column::number("FLOWS/s"),
        Column::number("SEEN").rank(1),
        Column::number("RING"),
        Column::name("ADDRESS").rank(4),
    ]
}

fn row(node: &Node) -> Row {
    let (state, role) = match node.state() {
        NodeState::NodeConnected => ("ok", Role::Good),
        NodeState::NodeUnavailable => ("unavailable", Role::Error),
        NodeState::NodeGone => ("gone", Role::Muted),
        NodeState::NodeError => ("error", Role::Error),
        NodeState::UnknownNodeState => ("unknown", Role::Muted),
    };
    let seconds = node.uptime_ns / 1_000_000_000;
    let known = |is: bool, cell: Cell| if is { cell } else { Cell::text("-") };
    let rate = node.seen_flows as f64 / seconds.max(1) as f64;
    let ring = node.num_flows.saturating_mul(100).checked_div(node.max_flows);
    Row {
        key: node.name.clone(),
        cells: vec![
            Cell::text(node.name.clone()),
            Cell::text(state).role(role),
            Cell::text(node.version.clone()),
            known(seconds > 0, Cell::number(seconds as f64, ago(i64::try_from(seconds).unwrap_or(0)))),
            known(seconds > 0, Cell::number(rate, scaled(rate))),
            known(seconds > 0, count(node.seen_flows)),
            ring.map_or(Cell::text("-"), |ring| Cell::number(ring as f64, format!("{ring}%"))),
            Cell::text(node.address.clone()),
        ],
        flags: vec![("node-name", node.name.clone())],
        ..Row::default()
    }
}

/// Losses of five minutes by place.
fn losses(health: &GetHealthResponse) -> String {
    let Some(five) = health.windows.get(1).or(health.windows.first()) else { return String::new() };
    let ring = five.window.as_ref().map_or(0, |window| window.lost);
    format!(
        "; lost in 5m: {} in the kernel, {} between stages, {} before they were counted",
        grouped(five.lost_in_kernel),
        grouped(five.lost_in_queue),
        grouped(ring)
    )
}

fn below(state: &State) -> Vec<Line> {
    match &state.counts.capture {
        None => Vec::new(),
        Some(Err(why)) => {
            let why = why.lines().collect::<Vec<_>>().join(": ");
            vec![heading(" Capture"), Line::of(Role::Muted, format!("  not known: {why}"))]
        }
        Some(Ok(capture)) => of_capture(capture),
    }
}

fn of_capture(capture: &CaptureStatusResponse) -> Vec<Line> {
    let bad = capture.links.iter().filter(|link| !link.problem.is_empty()).count();
    let mut lines = vec![heading(format!(" Capture on {}, Linux {}", capture.node_name, capture.kernel))];
    let names = capture.hooks.iter().take(MOST).map(|hook| hook.name.chars().count());
    let widest = names.max().unwrap_or(0).max(28);
    for hook in capture.hooks.iter().take(MOST) {
        let (word, role) = match hook.state() {
            hook::State::Attached => ("attached", Role::Good),
            hook::State::Unavailable => ("UNAVAILABLE", Role::Error),
            hook::State::Disabled => ("off", Role::Muted),
            hook::State::Unknown => ("unknown", Role::Muted),
        };
        let reason = if hook.reason.is_empty() { String::new() } else { format!("  {}", hook.reason) };
        lines.push(
            Line::of(Role::Plain, format!("  {:<widest$} ", hook.name))
                .with(role, word)
                .with(Role::Muted, reason),
        );
    }
    lines.push(fact("interfaces", format!("{} watched, {bad} could not be", capture.links.len() - bad)));
    for link in capture.links.iter().filter(|link| !link.problem.is_empty()).take(3) {
        lines.push(Line::of(Role::Error, format!("  {}: {}", link.name, link.problem)));
    }
    let lost = capture.counters.iter().filter(|own| own.kind() == Kind::Lost && own.value > 0);
    let lost: Vec<String> =
        lost.take(MOST).map(|own| format!("{} {} {}", own.stage, own.cause, grouped(own.value))).collect();
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
    lines.push(fact("lost so far", lost));
    lines
}

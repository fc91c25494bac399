//! What leaves the dashboard: a command that shows the same, a row as JSON, and files.

use crate::{
    grid::Grid,
    prompt::words::quoted,
    rows::Body,
    state::{State, counts::Basis},
    views::{self, View},
};
use observer_proto::{
    answers::graph::Graph,
    json::{MessageType, Writer},
};

/// The command that shows the same as the view.
pub(crate) fn command(state: &State) -> String {
    let flags = state.filter.flags();
    let file = if state.link.is_file {
        format!(" --input-file {}", quoted(&state.link.name))
    } else {
        String::new()
    };
    let follow = if state.link.is_file { "" } else { " -f" };
    let window = if state.link.is_file { String::new() } else { format!(" --for {}", state.window.name()) };
    let command = match state.view {
        View::Flows => format!("observe{follow} -o wide{file}"),
        View::Drops => format!("observe top --by reason{window}{file}"),
        View::Map => format!("observe graph{}{file}", window.replace("--for", "--since")),
        View::Talkers if state.modes.by_namespace => format!("observe top --by namespace{window}{file}"),
        View::Talkers => format!("observe top{window}{file}"),
        View::Policy => format!("observe{follow} -t policy-verdict --print-policy-names{file}"),
        View::Golden => format!("observe{follow} -t l7{file}"),
        View::Nodes => "observe list nodes".to_owned(),
    };
    if flags.is_empty() || state.view == View::Nodes { command } else { format!("{command} {flags}") }
}

/// The selected row as JSON.
pub(crate) fn row(state: &State) -> Option<String> {
    if state.view == View::Flows {
        let (_, selected) = state.flows.places(&state.rows, 1);
        let row = state.flows.list(&state.rows).get(selected)?;
        let (Body::Flow(bytes) | Body::Lost(bytes)) = &row.body else { return None };
        return line(bytes);
    }
    let page = views::page(state);
    let row = page.grid.selected(state.cursor())?;
    let fields = page.grid.columns.iter().zip(&row.cells);
    let fields: Vec<String> =
        fields.map(|(column, cell)| format!("{:?}:{:?}", column.title.to_lowercase(), cell.text)).collect();
    Some(format!("{{{}}}", fields.join(",")))
}

/// An encoded response as a line of JSON, without its end.
pub(crate) fn line(response: &[u8]) -> Option<String> {
    let kind = MessageType::named("observer.GetFlowsResponse")?;
    let mut out = Vec::new();
    Writer::new().write(kind, response, &mut out).ok()?;
    String::from_utf8(out).ok()
}

/// What is shown, for a file: its name and text. Of the map in the wanted form.
pub(crate) fn export(state: &State, form: Option<&str>) -> (String, String) {
    let name = |ending: &str| file_name(&state.view.title().to_lowercase(), ending, state.now);
    if state.view == View::Flows {
        let list = state.flows.list(&state.rows);
        let rows = (0..list.len()).filter_map(|at| list.get(at));
        let lines = rows.filter_map(|row| match &row.body {
            Body::Flow(bytes) | Body::Lost(bytes) => line(bytes),
            Body::Note(_) => None,
        });
        return (name("jsonl"), lines.map(|line| line + "\n").collect());
    }
    if let (Some(form), Some(edges)) = (form, &state.counts.edges) {
        let mut graph = Graph::told(edges.clone());
        if state.counts.basis != Basis::Server {
            graph.about.counted_by = observer_proto::answers::about::CountedBy::Client;
        }
        match form {
            "dot" => return (name("dot"), graph.dot()),
            "mermaid" => return (name("mmd"), graph.mermaid()),
            "json" => return (name("json"), graph.json() + "\n"),
            _ => {}
        }
    }
    let grid: Grid = views::page(state).grid;
    (name("csv"), grid.csv())
}

/// `observe-flows-20260105-101530.jsonl`.
pub(crate) fn file_name(what: &str, ending: &str, now: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    format!("observe-{what}-{}.{ending}", time.strftime("%Y%m%d-%H%M%S"))
}

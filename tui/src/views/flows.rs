//! Flows, a row each, the newest at the foot.

use crate::{
    line::{Line, Role, clean, padded},
    rows::{Body, Row},
    state::{Look, State, TimeForm},
};
use observer_proto::{
    Facts,
    filter::drop_reason_number,
    flow::{DropReason, Endpoint, Flow, Verdict},
    names,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    text::{
        Options,
        cells::{Cells, shorten, shorten_end, width},
        status::grouped,
    },
    time::TimeFormat,
};
use prost_types::Timestamp;
use serde::Deserialize;

/// From so many cells on, the port shows that tells one client's connections apart.
const WITH_CLIENT_PORTS: usize = 110;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Field {
    Time,
    Node,
    Verdict,
    Source,
    Destination,
    Type,
    Info,
}

impl Field {
    /// All, as they stand if nobody chooses.
    pub(crate) const ALL: [Self; 7] =
        [Self::Time, Self::Node, Self::Verdict, Self::Source, Self::Destination, Self::Type, Self::Info];

    /// Its heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::Node => "NODE",
            Self::Verdict => "VERD",
            Self::Source => "SOURCE",
            Self::Destination => "DESTINATION",
            Self::Type => "TYPE",
            Self::Info => "INFO",
        }
    }
}

/// A word of four letters for each verdict, so that colours are not needed.
const VERDICTS: [(&str, &str, Role); 9] = [
    ("FORWARDED", "FWD", Role::Good),
    ("DROPPED", "DROP", Role::Drop),
    ("AUDIT", "AUDT", Role::Audit),
    ("REDIRECTED", "RDIR", Role::Redirect),
    ("ERROR", "ERR", Role::Error),
    ("TRACED", "TRCD", Role::Muted),
    ("TRANSLATED", "TRNS", Role::Muted),
    ("ALLOWED", "ALLW", Role::Good),
    ("DENIED", "DENY", Role::Drop),
];

/// The short word of a verdict, and its part.
pub(crate) fn verdict(word: &str) -> (&str, Role) {
    match VERDICTS.iter().find(|(long, ..)| *long == word) {
        Some((_, short, role)) => (short, *role),
        None if word == "AUDITED" => ("AUDT", Role::Audit),
        None => ("?", Role::Muted),
    }
}

/// The columns that fit, with their widths.
fn widths(look: &Look, cells: usize) -> Vec<(Field, usize)> {
    let time = match look.time {
        TimeForm::Clock if cells >= 100 => 12,
        TimeForm::Clock => 8,
        TimeForm::Full => 24,
        TimeForm::Ago => 5,
    };
    let is_shown = |field: &&Field| match field {
        Field::Node => cells >= 100,
        Field::Type => cells >= 110,
        // With its date it leaves no room for names on a narrow screen.
        Field::Time => time < 24 || cells >= 80,
        _ => true,
    };
    let fields: Vec<Field> = look.columns.iter().filter(is_shown).copied().collect();
    let fixed = |field: &Field| match field {
        Field::Time => Some(time),
        Field::Node => Some(10),
        Field::Verdict => Some(4),
        Field::Type => Some(9),
        _ => None,
    };
    // The mark of the selected row, and what stands before each.
    let taken: usize = fields.iter().map(|field| before(*field).len() + fixed(field).unwrap_or(0)).sum();
    let left = cells.saturating_sub(taken + 1);
    let open = |field: Field| fields.contains(&field);
    let ends = [Field::Source, Field::Destination].into_iter().filter(|field| open(*field)).count();
    let of_info = if !open(Field::Info) {
        0
    } else if ends == 0 {
        left
    } else {
        (left / 4).max(left.saturating_sub(ends * 40))
    };
    let of_end = (left - of_info).checked_div(ends).unwrap_or(0);
    let width = |field: &Field| match field {
        Field::Source | Field::Destination => of_end,
        Field::Info => of_info,
        field => fixed(field).unwrap_or(0),
    };
    fields.iter().map(|field| (*field, width(field))).collect()
}

/// What stands before a field; the sender's arrow points to the receiver.
fn before(field: Field) -> &'static str {
    if field == Field::Destination { " > " } else { " " }
}

/// The headings.
pub(crate) fn header(state: &State) -> Line {
    let mut line = Line::plain(" ");
    let at = state.flows.field;
    for (field, width) in widths(&state.look, state.size.0) {
        let is_at = state.look.columns.get(at) == Some(&field);
        let role = if is_at { Role::Accent } else { Role::Title };
        line.push(Role::Plain, " ".repeat(before(field).len()));
        line.push(role, padded(&shorten(field.title(), width), width, false));
    }
    line
}

/// The rows on the screen.
pub(crate) fn lines(state: &State, room: usize) -> Vec<Line> {
    let list = state.flows.list(&state.rows);
    let (top, selected) = state.flows.places(&state.rows, room);
    let widths = widths(&state.look, state.size.0);
    let rows = (top..list.len().min(top + room)).filter_map(|at| Some((at, list.get(at)?)));
    rows.map(|(at, row)| line(state, row, &widths, at == selected)).collect()
}

fn options(look: &Look) -> Options {
    Options { translate: !look.is_numeric, ..Options::default() }
}

fn line(state: &State, row: &Row, widths: &[(Field, usize)], is_selected: bool) -> Line {
    let mut line = Line::plain(if is_selected { ">" } else { " " });
    line.is_selected = is_selected;
    let response = row.response();
    let Some(ResponseTypes::Flow(flow)) = response.as_ref().and_then(|own| own.response_types.as_ref())
    else {
        let text = format!("--- {} ---", note(row, response.as_ref()));
        return line
            .with(Role::Error, " ")
            .with(Role::Error, shorten_end(&text, state.size.0.saturating_sub(2)));
    };
    let mut cells = Cells::of(options(&state.look), flow);
    if state.size.0 < WITH_CLIENT_PORTS {
        for end in [&mut cells.source, &mut cells.destination] {
            end.port = if end.is_client { 0 } else { end.port };
        }
    }
    let (word, role) = verdict(&cells.verdict);
    for (field, width) in widths {
        let text = match field {
            Field::Time => time(state, row.time.as_ref(), *width),
            Field::Node => shorten(&cells.node, *width),
            Field::Verdict => word.to_owned(),
            Field::Source => cells.source.fitted(*width),
            Field::Destination => cells.destination.fitted(*width),
            Field::Type => shorten(&cells.kind, *width),
            Field::Info => shorten_end(&cells.reason, *width),
        };
        let role = match field {
            Field::Verdict => role,
            Field::Info if role != Role::Good => role,
            Field::Time | Field::Node => Role::Muted,
            _ => Role::Plain,
        };
        line.push(Role::Plain, before(*field));
        line.push(role, padded(&text, *width, false));
        if let (true, Some(span)) = (is_selected, line.spans.last_mut()) {
            span.is_marked = state.look.columns.get(state.flows.field) == Some(field);
        }
    }
    line
}

/// What stands in a row that is no flow.
fn note(row: &Row, response: Option<&GetFlowsResponse>) -> String {
    let lost = response.and_then(|response| match &response.response_types {
        Some(ResponseTypes::LostEvents(lost)) => Some((response, lost)),
        _ => None,
    });
    match (&row.body, lost) {
        (Body::Note(text), _) => clean(text),
        (_, Some((response, lost))) => {
            let node = if response.node_name.is_empty() { "" } else { " on " };
            let source = lost.source().as_str_name();
            format!(
                "{} events lost here{node}{}: {source}",
                grouped(lost.num_events_lost),
                clean(&response.node_name)
            )
        }
        _ => "a row that cannot be read".to_owned(),
    }
}

/// The text of a row, for who searches it.
pub(crate) fn text(row: &Row, look: &Look) -> String {
    let response = row.response();
    match response.as_ref().and_then(|own| own.response_types.as_ref()) {
        Some(ResponseTypes::Flow(flow)) => {
            let cells = Cells::of(options(look), flow);
            let [source, destination] = [&cells.source, &cells.destination].map(|end| end.fitted(usize::MAX));
            format!("{} {} {source} {destination} {} {}", cells.node, cells.verdict, cells.kind, cells.reason)
        }
        _ => note(row, response.as_ref()),
    }
}

fn time(state: &State, time: Option<&Timestamp>, width: usize) -> String {
    let written = |format: TimeFormat| {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = format.write(time, &mut text);
        text
    };
    match (state.look.time, time) {
        (TimeForm::Full, _) => written(TimeFormat::Rfc3339Milli),
        (TimeForm::Ago, Some(time)) => ago(state.now / 1000 - time.seconds),
        (TimeForm::Ago, None) => String::new(),
        (TimeForm::Clock, _) => {
            written(TimeFormat::StampMilli).get(7..7 + width).unwrap_or_default().to_owned()
        }
    }
}

/// `12s`, `4m12s`, `3d4h`.
pub(crate) fn ago(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, ..) => format!("{days}d{hours}h"),
    }
}

/// The flow under the cursor.
pub(crate) fn selected(state: &State) -> Option<(&Row, Flow)> {
    let (_, at) = state.flows.places(&state.rows, 1);
    let row = state.flows.list(&state.rows).get(at)?;
    match row.response()?.response_types? {
        ResponseTypes::Flow(flow) => Some((row, flow)),
        _ => None,
    }
}

/// The flag that asks for what is under the cursor.
pub(crate) fn field_flag(state: &State) -> Option<(&'static str, String)> {
    let (_, flow) = selected(state)?;
    let event = flow.event_type.unwrap_or_default();
    let ip = flow.ip.clone().unwrap_or_default();
    match state.look.columns.get(state.flows.field)? {
        Field::Time => None,
        Field::Node if flow.node_name.is_empty() => None,
        Field::Node => Some(("node-name", flow.node_name)),
        Field::Verdict => {
            let verdict = Verdict::try_from(flow.verdict).ok().filter(|verdict| *verdict != Verdict::Unknown);
            verdict.map(|verdict| ("verdict", verdict.as_str_name().to_owned()))
        }
        Field::Source => end(flow.source.as_ref(), &ip.source, ["from-pod", "from-ip"]),
        Field::Destination => end(flow.destination.as_ref(), &ip.destination, ["to-pod", "to-ip"]),
        Field::Type => {
            let event = names::EVENT_TYPES.iter().find(|(_, number)| *number == event.r#type);
            event.map(|(name, _)| ("type", (*name).to_owned()))
        }
        Field::Info => {
            // The kernel's own reason says more, where it has a name.
            let of_kernel =
                Some(Facts::of(&flow).kernel_reason).filter(|name| drop_reason_number(name).is_some());
            let of_hubble = || {
                let reason = DropReason::try_from(flow.drop_reason_desc).ok();
                Some(reason.filter(|reason| *reason != DropReason::Unknown)?.as_str_name().to_owned())
            };
            of_kernel.or_else(of_hubble).map(|reason| ("drop-reason-desc", reason))
        }
    }
}

fn end(end: Option<&Endpoint>, ip: &str, flags: [&'static str; 2]) -> Option<(&'static str, String)> {
    match end.filter(|end| !end.pod_name.is_empty()) {
        Some(end) => Some((flags[0], format!("{}/{}", end.namespace, end.pod_name))),
        None if ip.is_empty() => None,
        None => Some((flags[1], ip.to_owned())),
    }
}

/// Cells that the rows need at least, for tests.
#[cfg(test)]
pub(crate) fn total(look: &Look, cells: usize) -> usize {
    widths(look, cells).iter().map(|(field, width)| width + before(*field).len()).sum::<usize>() + 1
}

/// Said where there is no row.
pub(crate) fn reason(state: &State) -> String {
    let name = &state.link.name;
    if let Some(trouble) = state.link.trouble() {
        return trouble.lines().collect::<Vec<_>>().join(": ");
    }
    if !state.filter.local.is_empty() && !state.rows.shown().is_empty() {
        return format!("none of {} rows holds these words", grouped(state.rows.shown().len() as u64));
    }
    if state.filter.has_flags() {
        return "no flow passes the filter yet; \\ takes it away".to_owned();
    }
    let quoted = shorten_end(&clean(name), width(name).min(60));
    format!("no flow yet from {quoted}; `observe status --capture` says what is captured")
}

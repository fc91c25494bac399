//! The whole screen: what stands around a view, and how much room is left for it.

use super::{View, flow_detail, flows, help, menu, page};
use crate::{
    keys::BINDINGS,
    line::{Line, Role, clean},
    link::Topic,
    prompt::Prompt,
    state::{State, counts::Basis, link::Phase},
};
use observer_proto::{
    answers::scaled,
    text::{
        cells::{shorten, shorten_end, width},
        status::grouped,
    },
};

/// Below this nothing could be told.
pub(crate) const LEAST: (usize, usize) = (60, 12);
/// From so many lines on there are rules between the parts.
const ROOMY: usize = 20;
/// Lines of the pane with a flow's details, its rule among them.
const DETAIL: usize = 9;
/// From so many lines on Flows has that pane.
const HIGH: usize = 30;

/// The whole screen, a line each.
pub(crate) fn screen(state: &State) -> Vec<Line> {
    let (across, down) = state.size;
    if across < LEAST.0 || down < LEAST.1 {
        let text = format!("observe needs {}x{} cells, here are {across}x{down}", LEAST.0, LEAST.1);
        return vec![Line::of(Role::Audit, shorten_end(&text, across))];
    }
    let mut lines = vec![header(state), tabs(state), filter(state)];
    lines.extend(prompt_help(state));
    if lines.len() == 3 && down >= ROOMY {
        lines.push(rule(state));
    }
    let left = down - 1 - lines.len();
    let body = if state.help.is_some() {
        help::shown(state, left)
    } else if let Some(menu) = &state.menu {
        menu::lines(menu, state, left)
    } else if state.view == View::Flows {
        flows_body(state, left)
    } else {
        page_body(state, left)
    };
    lines.extend(body.into_iter().take(left));
    lines.resize(down - 1, Line::default());
    lines.push(hints(state));
    lines
}

/// Rows of the table that fit, its heading left out.
pub(crate) fn room(state: &State) -> usize {
    let down = state.size.1;
    let around = if down >= ROOMY { 5 } else { 4 };
    let left = down.saturating_sub(around);
    match state.view {
        View::Flows => left.saturating_sub(1 + detail_room(state)),
        _ => grid_room(state, left, usize::MAX),
    }
}

fn detail_room(state: &State) -> usize {
    if state.has_detail && state.size.1 >= HIGH { DETAIL } else { 0 }
}

/// Below the table at most half of the screen.
fn grid_room(state: &State, left: usize, below: usize) -> usize {
    let below = if state.has_detail { below.min(left / 2) } else { 0 };
    left.saturating_sub(2 + below)
}

fn flows_body(state: &State, left: usize) -> Vec<Line> {
    if state.is_detail_whole {
        let mut lines = flow_detail::lines(state);
        lines.push(Line::default());
        lines.push(super::fact("command", crate::copy::command(state)));
        return wrapped(lines, state.size.0);
    }
    let detail = detail_room(state);
    let mut lines = vec![flows::header(state)];
    let rows = left.saturating_sub(1 + detail);
    lines.extend(flows::lines(state, rows));
    if lines.len() == 1 {
        lines.push(Line::default());
        lines.push(Line::of(
            Role::Muted,
            format!("  {}", shorten_end(&flows::reason(state), state.size.0 - 4)),
        ));
    }
    if detail > 0 {
        lines.resize(1 + rows, Line::default());
        lines.push(rule(state));
        lines.extend(flow_detail::lines(state));
    }
    lines
}

fn page_body(state: &State, left: usize) -> Vec<Line> {
    let page = page(state);
    let mut lines = vec![page.summary];
    if let Some(matrix) = page.lines {
        lines.extend(matrix);
        return lines;
    }
    if page.grid.rows.is_empty() {
        lines.push(Line::default());
        let reason = if page.reason.is_empty() { "counting ...".to_owned() } else { page.reason };
        lines.extend(wrapped(vec![Line::of(Role::Muted, format!("  {reason}"))], state.size.0));
        return lines;
    }
    let below = if state.has_detail { page.below.len() + 1 } else { 0 };
    let room = grid_room(state, left, below);
    lines.extend(page.grid.lines(state.cursor(), state.size.0, room + 1));
    if below > 1 {
        lines.push(rule(state));
        lines.extend(page.below);
    }
    lines
}

/// Long lines go on below, under their values.
fn wrapped(lines: Vec<Line>, cells: usize) -> Vec<Line> {
    const INDENT: usize = 15;
    let mut out = Vec::new();
    for line in lines {
        if line.width() <= cells {
            out.push(line);
            continue;
        }
        let role = line.spans.last().map_or(Role::Plain, |span| span.role);
        let text = line.text();
        let (mut part, mut indent) = (String::new(), 0);
        for word in text.split_inclusive(' ') {
            if width(&part) + width(word.trim_end()) > cells && !part.trim().is_empty() {
                out.push(Line::of(role, std::mem::take(&mut part)));
                indent = INDENT.min(cells / 4);
                part = " ".repeat(indent);
            }
            part += &shorten_end(word, cells - indent);
        }
        out.push(Line::of(role, part));
    }
    out
}

/// Who tells, how that is, and how much.
fn header(state: &State) -> Line {
    let across = state.size.0;
    let mut states = state.link.states(state.now);
    if state.flows.is_paused {
        states.push((Role::Audit, format!("PAUSED +{}", grouped(state.rows.waiting()))));
    } else if state.flows.top.is_some() {
        let new = state.rows.next().saturating_sub(state.flows.seen);
        states.push((Role::Audit, format!("SCROLLED +{}", grouped(new))));
    }
    if states.is_empty() {
        states.push((Role::Good, "LIVE".to_owned()));
    }
    let mut right = Vec::new();
    if let Some(name) = &state.recording {
        right.push(format!("REC {name}"));
    }
    if !state.link.is_file {
        right.push(format!("{}/s", scaled(state.link.rate(state.now))));
    }
    if let Some(status) = state.link.status.as_ref().filter(|status| status.max_flows > 0) {
        right.push(format!("ring {}%", status.num_flows.saturating_mul(100) / status.max_flows));
    }
    right.push(format!("lost {}", grouped(state.link.lost)));
    let time = jiff::Timestamp::from_millisecond(state.now).unwrap_or_default();
    right.push(time.strftime("%H:%M:%SZ").to_string());
    // What is least needed gives way first; the states never do.
    let of_states: usize = states.iter().map(|(_, word)| width(word) + 2).sum();
    let mut name = format!(" {}", clean(&state.link.name));
    while right.len() > 1 && of_states + width(&right.join("  ")) + 16 > across {
        right.remove(0);
    }
    let right = right.join("  ");
    let left = across.saturating_sub(of_states + width(&right) + 3);
    name = shorten(&name, left.max(1));
    let mut line = Line::of(Role::Title, name);
    let dot = if state.look.is_ascii { "*" } else { "●" };
    for (at, (role, word)) in states.into_iter().enumerate() {
        let sign = if at == 0 { dot } else { "" };
        line.push(role, format!(" {sign} {word}"));
    }
    line.right(across, Role::Muted, &right)
}

fn tabs(state: &State) -> Line {
    let across = state.size.0;
    let is_narrow = across < 66;
    let mut line = Line::default();
    for (at, view) in View::ALL.into_iter().enumerate() {
        let title = if is_narrow { view.title().get(..4).unwrap_or(view.title()) } else { view.title() };
        let (role, text) = if view == state.view {
            (Role::Accent, format!("[{} {title}]", at + 1))
        } else {
            (Role::Plain, format!(" {} {title} ", at + 1))
        };
        if line.width() + width(&text) <= across {
            line.push(role, text);
        }
    }
    line
}

/// The filter, or the prompt in its place.
fn filter(state: &State) -> Line {
    let across = state.size.0;
    if let Some(prompt) = &state.prompt {
        let text = clean(prompt.text());
        let start = text.char_indices().nth(prompt_offset(state, prompt)).map_or(text.len(), |(at, _)| at);
        return Line::of(Role::Accent, "/ ").with(Role::Plain, &text[start..]);
    }
    let basis = match (state.view, state.counts.basis) {
        (View::Flows, _) => {
            let count = state.flows.list(&state.rows).len() as u64;
            let local = if state.filter.local.is_empty() { "" } else { " [local]" };
            format!("{} rows{local} ", grouped(count))
        }
        (View::Nodes, _) | (_, Basis::None) => String::new(),
        (_, Basis::Server) => "[server stats] ".to_owned(),
        (_, Basis::Rows(rows)) => format!("[from {} rows] ", grouped(rows)),
    };
    let is_apart = state.view.topic() == Topic::Nodes && !state.filter.text.is_empty();
    let text = if state.filter.text.is_empty() { "(none)".to_owned() } else { clean(&state.filter.text) };
    let room = across.saturating_sub(width(&basis) + 4);
    let role = if state.filter.text.is_empty() || is_apart { Role::Muted } else { Role::Plain };
    Line::of(Role::Muted, " / ").with(role, shorten_end(&text, room)).right(across, Role::Muted, &basis)
}

/// Letters of the prompt that have left the screen on the left, so that the cursor is on it.
fn prompt_offset(state: &State, prompt: &Prompt) -> usize {
    let before = clean(&prompt.text()[..prompt.cursor()]);
    let room = state.size.0.saturating_sub(4);
    let mut cells = width(&before);
    let too_many = |letter: &char| {
        let is_too_many = cells > room;
        cells = cells.saturating_sub(width(letter.encode_utf8(&mut [0; 4])));
        is_too_many
    };
    before.chars().take_while(too_many).count()
}

/// Cells of a part of the prompt that are on the screen.
fn prompt_cells(state: &State, prompt: &Prompt, end: usize) -> usize {
    let before = clean(prompt.text().get(..end).unwrap_or_default());
    let offset = before.char_indices().nth(prompt_offset(state, prompt)).map_or(before.len(), |(at, _)| at);
    width(&before[offset..])
}

/// Below the prompt: what is wrong, or what Tab offers.
fn prompt_help(state: &State) -> Vec<Line> {
    let Some(prompt) = &state.prompt else { return Vec::new() };
    let across = state.size.0;
    if let Some(fault) = &prompt.fault {
        let room = across.saturating_sub(3);
        let [start, end] = [fault.at.start, fault.at.end].map(|at| prompt_cells(state, prompt, at).min(room));
        let caret = format!("  {}{}", " ".repeat(start), "^".repeat((end - start).max(1)));
        let text = format!("  {}", clean(&fault.text));
        return vec![Line::of(Role::Error, caret), Line::of(Role::Error, shorten_end(&text, across))];
    }
    let Some(offer) = &prompt.offer else {
        return vec![Line::of(
            Role::Muted,
            "  Enter applies, Tab completes, Esc gives up, Up is the one before",
        )];
    };
    if offer.words.is_empty() {
        return vec![Line::of(Role::Muted, "  nothing is known that fits here")];
    }
    let mut line = Line::plain(" ");
    let from = offer.at.unwrap_or(0);
    for (at, (word, count)) in offer.words.iter().enumerate().skip(from) {
        let text = if *count > 0 {
            format!(" {} ({})", clean(word), grouped(*count))
        } else {
            format!(" {}", clean(word))
        };
        if line.width() + width(&text) > across {
            break;
        }
        line.push(if offer.at == Some(at) { Role::Accent } else { Role::Plain }, text);
    }
    vec![line]
}

/// The cell of the cursor, where text is written: across and down.
pub(crate) fn cursor(state: &State) -> Option<(usize, usize)> {
    let prompt = state.prompt.as_ref()?;
    let before = prompt_cells(state, prompt, prompt.cursor());
    Some(((2 + before).min(state.size.0.saturating_sub(1)), 2))
}

fn rule(state: &State) -> Line {
    let glyph = if state.look.is_ascii { "-" } else { "─" };
    Line::of(Role::Muted, glyph.repeat(state.size.0))
}

fn hints(state: &State) -> Line {
    let across = state.size.0;
    if let Some((role, text)) = state.note() {
        return Line::of(role, format!(" {}", shorten_end(&clean(text), across.saturating_sub(2))));
    }
    if let (Phase::Waiting { .. } | Phase::Refused(_), Some(why)) = (&state.link.phase, state.link.trouble())
    {
        let why = clean(&why.lines().collect::<Vec<_>>().join(": "));
        return Line::of(Role::Error, format!(" {}", shorten_end(&why, across.saturating_sub(2))));
    }
    let mut line = Line::default();
    for binding in BINDINGS.iter().filter(|binding| binding.applies(state.view) && !binding.hint.is_empty()) {
        let Some(key) = state.look.keys.keys(binding.action).first() else { continue };
        let (key, hint) = (key.to_string(), binding.hint);
        if line.width() + width(&key) + width(hint) + 3 > across {
            break;
        }
        line = line.with(Role::Accent, format!(" {key}")).with(Role::Muted, format!(" {hint} "));
    }
    line
}

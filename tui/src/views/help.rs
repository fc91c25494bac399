//! All keys of the view, from their table.

use super::heading;
use crate::{
    keys::BINDINGS,
    line::{Line, Role, padded},
    state::State,
};

/// The part from the line that it was moved to.
pub(crate) fn shown(state: &State, room: usize) -> Vec<Line> {
    let lines = lines(state);
    let top = state.help.unwrap_or(0).min(lines.len().saturating_sub(room));
    lines.into_iter().skip(top).collect()
}

/// All lines.
pub(crate) fn lines(state: &State) -> Vec<Line> {
    let mut lines =
        vec![heading(format!(" Keys of {}; any other key closes this", state.view.title())), Line::default()];
    for binding in BINDINGS.iter().filter(|binding| binding.applies(state.view)) {
        let keys: Vec<String> =
            state.look.keys.keys(binding.action).iter().map(ToString::to_string).collect();
        if !keys.is_empty() {
            let keys = padded(&keys.join(" "), 12, false);
            lines.push(Line::of(Role::Accent, format!("  {keys} ")).with(Role::Plain, binding.help));
        }
    }
    lines.extend([Line::default(), heading(" Verdicts")]);
    let verdicts = "FWD forwarded, DROP dropped, AUDT would be denied, RDIR sent to a proxy, ERR failed";
    lines.push(Line::plain(format!("  {verdicts}")));
    lines.push(Line::plain("  ALLW and DENY are what policies say of a new connection"));
    lines
}

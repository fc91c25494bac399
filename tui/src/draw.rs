//! Lines into the cells of a terminal.

use crate::{
    line::{Line, Span},
    state::State,
    theme::Theme,
    views,
};
use ratatui::{Frame, buffer::Buffer, layout::Position, style::Style};

/// Draws all.
pub(crate) fn draw(state: &State, theme: Theme, frame: &mut Frame<'_>) {
    let lines = views::screen(state);
    let buffer = frame.buffer_mut();
    for (y, line) in lines.iter().take(buffer.area.height.into()).enumerate() {
        draw_line(line, y as u16, theme, state.look.is_ascii, buffer);
    }
    if let Some((across, down)) = views::frame::cursor(state) {
        frame.set_cursor_position(Position::new(across as u16, down as u16));
    }
}

fn draw_line(line: &Line, y: u16, theme: Theme, is_ascii: bool, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let styled = |span: &Span| {
        let style = theme.style(span.role);
        match (line.is_selected, span.is_marked) {
            (false, _) => style,
            (true, false) => theme.selected(style),
            (true, true) => theme.marked(theme.selected(style)),
        }
    };
    let mut x = 0;
    for span in &line.spans {
        if x >= width {
            return;
        }
        let style = styled(span);
        let room = usize::from(width - x);
        // The one sign that names are shortened with; the others are chosen where they are made.
        let (next, _) = if is_ascii {
            buffer.set_stringn(x, y, span.text.replace('…', "~"), room, style)
        } else {
            buffer.set_stringn(x, y, &span.text, room, style)
        };
        x = next;
    }
    if line.is_selected && x < width {
        let blanks = " ".repeat(usize::from(width - x));
        buffer.set_stringn(x, y, blanks, usize::from(width - x), theme.selected(Style::default()));
    }
}

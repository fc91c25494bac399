//! A live answer: drawn again in its place on a terminal, one below the other elsewhere.

use crate::{Failure, output::LineWidth};
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal as _, Write as _};

/// Where a live answer is drawn.
pub(crate) struct Screen {
    width: LineWidth,
    is_redrawn: bool,
    /// Lines of the last answer.
    lines: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_redrawn = io::stdout().is_terminal() && !is_dumb;
        Self { width: LineWidth::of_stdout(), is_redrawn, lines: 0 }
    }

    /// Whether somebody watches.
    pub(crate) fn is_live(&self) -> bool {
        self.is_redrawn
    }

    /// Cells of a line, as they are now.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width.cells()
    }

    /// Rows of a table that leave room for its header and what stands below it.
    pub(crate) fn rows(&self, most: usize) -> usize {
        const BESIDES: usize = 6;
        let height = if self.is_redrawn { tcgetwinsize(io::stdout()).ok() } else { None };
        height.map_or(most, |size| most.min(usize::from(size.ws_row).saturating_sub(BESIDES).max(1)))
    }

    /// Draws an answer over the last one.
    pub(crate) fn draw(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.is_redrawn && self.lines > 0 {
            write!(out, "\x1b[{}A\r\x1b[J", self.lines)?;
        }
        let width = self.width().unwrap_or(usize::MAX).max(1);
        // A long last line takes several of the terminal's.
        self.lines = text.lines().map(|line| line.chars().count().div_ceil(width).max(1)).sum();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }
}

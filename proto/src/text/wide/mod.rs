//! A table that streams: its columns are fitted to the terminal, not to rows that are still to come. Hubble has none
//! like it.
//!
//! A line reads as sender -> receiver, a reply's too: its type says that it is one, and no column changes its meaning
//! from line to line. Names that are too long are shortened in the middle, the reason at its end, the verdict never.

pub mod cells;
pub(crate) mod columns;
mod joined;
pub(crate) mod words;

pub use joined::Joined;

use super::{
    Options, details,
    foreign::Out,
    parts::{self, End},
    sanitize::clean,
    shown::Shown,
};
use crate::{
    flow::{Flow, LostEvent},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use columns::{ARROW, Columns, GAP, NO_ARROW, shorten, shorten_end, width};
use std::fmt::{Result, Write};

/// Prints rows as they come, with a header before the first and after each change of the terminal's width.
pub struct Wide {
    options: Options,
    width: Option<usize>,
    columns: Columns,
    header_due: bool,
}

impl Wide {
    /// For lines of at most `width` cells (and at least 40, however narrow the terminal is); `None`: nothing is shortened.
    pub fn new(options: Options, width: Option<usize>) -> Self {
        Self { options, width, columns: Columns::fit(options, width), header_due: true }
    }

    /// The lines from here on have this width.
    pub fn resize(&mut self, width: Option<usize>) {
        if self.width != width {
            *self = Self::new(self.options, width);
        }
    }

    /// A response that holds a flow or lost events. A node's status is no row: see [`super::node_status`].
    pub fn flows_response(&mut self, response: &GetFlowsResponse, out: &mut impl Out) -> Result {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.flow(flow, out),
            Some(ResponseTypes::LostEvents(lost)) => self.lost_events(response, lost, out),
            Some(ResponseTypes::NodeStatus(_)) | None => Ok(()),
        }
    }

    /// A flow.
    pub fn flow(&mut self, flow: &Flow, out: &mut impl Out) -> Result {
        let shown = &Shown::of(flow);
        let mut line = self.begin(out)?;
        line.time(flow.time.as_ref())?;
        line.node(&flow.node_name)?;
        line.end(flow, shown, End::Source)?;
        line.column(line.columns.end, ARROW)?;
        line.end(flow, shown, End::Destination)?;
        line.column(line.columns.end, GAP)?;
        if line.columns.types > 0 {
            let kind = text(|out| words::event_type(flow, shown, line.columns.is_short, out));
            let columns = line.columns.types;
            line.text(&if line.is_bounded() { shorten(&kind, columns) } else { kind })?;
            line.column(columns, GAP)?;
        }
        let verdict = parts::verdict_word(shown);
        let verdict = verdict.strip_prefix("VERDICT_").unwrap_or(&verdict);
        line.at += width(verdict);
        parts::verdict_alone(line.options, verdict, shown, line.out)?;
        let reason = text(|out| words::reason(line.options, flow, shown, false, out));
        if line.columns.reason && !reason.is_empty() {
            line.column(columns::VERDICT, GAP)?;
            line.rest(&reason)?;
        }
        line.out.write_char('\n')
    }

    fn lost_events(&mut self, response: &GetFlowsResponse, lost: &LostEvent, out: &mut impl Out) -> Result {
        let mut line = self.begin(out)?;
        line.time(response.time.as_ref())?;
        line.node(&response.node_name)?;
        // The number first: what stands behind it may not fit.
        let told = text(|out| {
            write!(out, "{} EVENTS LOST: ", lost.num_events_lost)?;
            details::lost_source(lost, out)?;
            if let Some(cpu) = lost.cpu {
                write!(out, " CPU({cpu})")?;
            }
            details::lost_times(line.options, lost, out)
        });
        line.rest(&told)?;
        line.out.write_char('\n')
    }

    /// Writes the header if it is due, and begins a line.
    fn begin<'a, W: Out>(&'a mut self, out: &'a mut W) -> std::result::Result<Line<'a, W>, std::fmt::Error> {
        let is_due = std::mem::take(&mut self.header_due);
        let mut line = Line {
            options: self.options,
            columns: &self.columns,
            width: self.width.map(|width| width.max(columns::LEAST)),
            at: 0,
            start: 0,
            out,
        };
        if is_due {
            line.header()?;
        }
        Ok(line)
    }
}

/// A line under way.
struct Line<'a, W> {
    options: Options,
    columns: &'a Columns,
    width: Option<usize>,
    /// Cells written so far; colours are none.
    at: usize,
    /// Where the present column starts.
    start: usize,
    out: &'a mut W,
}

impl<W: Out> Line<'_, W> {
    fn is_bounded(&self) -> bool {
        self.width.is_some()
    }

    /// Whether so many cells fit into an end.
    fn has_room(&self, cells: usize) -> bool {
        !self.is_bounded() || cells <= self.columns.end
    }

    /// Writes clean text.
    fn text(&mut self, text: &str) -> Result {
        self.at += width(text);
        self.out.write_str(text)
    }

    /// Ends a column of this width and begins the next. Where the column was too long, the next follows after the gap,
    /// and the one after that may stand in its place again.
    fn column(&mut self, width: usize, gap: &str) -> Result {
        let blanks = (self.start + width).saturating_sub(self.at);
        self.start += width + gap.len();
        self.at += blanks + gap.len();
        write!(self.out, "{:blanks$}{gap}", "")
    }

    /// Writes what has the rest of the line.
    fn rest(&mut self, text: &str) -> Result {
        match self.width {
            Some(width) => self.out.write_str(&shorten_end(text, width.saturating_sub(self.at))),
            None => self.out.write_str(text),
        }
    }

    fn header(&mut self) -> Result {
        let Columns { time, node, end, types, reason, .. } = *self.columns;
        let is_short = time < "TIMESTAMP".len();
        let columns = [
            (if is_short { "TIME" } else { "TIMESTAMP" }, time, GAP),
            ("NODE", node, GAP),
            ("SOURCE", end, NO_ARROW),
            ("DESTINATION", end, GAP),
            ("TYPE", types, GAP),
        ];
        for (name, width, gap) in columns.into_iter().filter(|(_, width, _)| *width > 0) {
            self.text(name)?;
            self.column(width, gap)?;
        }
        self.text("VERDICT")?;
        if reason {
            self.column(columns::VERDICT, GAP)?;
            let has_room = self.width.is_none_or(|width| width >= self.at + "REASON/SUMMARY".len());
            self.out.write_str(if has_room { "REASON/SUMMARY" } else { "REASON" })?;
        }
        (self.at, self.start) = (0, 0);
        self.out.write_char('\n')
    }

    fn time(&mut self, time: Option<&prost_types::Timestamp>) -> Result {
        if self.columns.time == 0 {
            return Ok(());
        }
        let text = text(|out| self.options.time.write(time, out));
        self.text(text.get(self.columns.part_of_time.clone()).unwrap_or(&text))?;
        self.column(self.columns.time, GAP)
    }

    fn node(&mut self, name: &str) -> Result {
        if self.columns.node == 0 {
            return Ok(());
        }
        let name = text(|out| clean(name, out));
        self.text(&if self.is_bounded() { shorten(&name, self.columns.node) } else { name })?;
        self.column(self.columns.node, GAP)
    }

    /// The name or address with its port, without the blanks behind it; before an address, if there is room, what it is.
    fn end(&mut self, flow: &Flow, shown: &Shown<'_>, end: End) -> Result {
        let Some((name, port)) = parts::name(self.options, shown, end) else { return Ok(()) };
        let port = if self.columns.client_port || !words::is_client(flow, end) { port } else { 0 };
        let mut name = text(|out| clean(&name, out));
        let plain = Options { colors: false, ..self.options };
        let whole = |name: &str| width(&text(|out| parts::named(plain, name, port, out)));
        let kind = parts::kind_of_address(self.options, shown, end);
        if let Some(kind) = kind.filter(|kind| self.has_room(kind.len() + 1 + whole(&name))) {
            parts::kind_alone(self.options, kind, self.out)?;
            self.at += kind.len();
            self.text(" ")?;
        } else if self.is_bounded() {
            let beside = whole(&name) - width(&name);
            name = shorten(&name, self.columns.end.saturating_sub(beside));
        }
        self.at += whole(&name);
        parts::named(self.options, &name, port, self.out)
    }
}

fn text(write: impl FnOnce(&mut String) -> Result) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut text);
    text
}

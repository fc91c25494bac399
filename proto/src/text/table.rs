//! Columns as wide as their widest cell; nothing can be printed before all of it is known.

use super::{
    Options, details,
    foreign::Foreign,
    parts::{self, End},
    sanitize::clean,
    shown::Shown,
};
use crate::{
    flow::LostEvent,
    observer::{
        GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, get_flows_response::ResponseTypes,
    },
};
use std::fmt::{Result, Write};

/// Blanks between columns.
const PADDING: usize = 3;

/// Rows of cells; the first row is the header.
pub struct Table {
    options: Options,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(options: Options, columns: &[&str]) -> Self {
        // Colours would count as width; Hubble prints tables without them.
        let mut table = Self { options: Options { colors: false, ..options }, rows: Vec::new() };
        let (time, rest) = columns.split_at(1);
        let node = options.node_names.then_some("NODE");
        let header = time.iter().copied().chain(node).chain(rest.iter().copied());
        table.rows.push(header.map(str::to_owned).collect());
        table
    }

    /// For responses of GetFlows.
    pub fn flows(options: Options) -> Self {
        Self::new(options, &["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"])
    }

    /// For agent events.
    pub fn agent_events(options: Options) -> Self {
        Self::new(options, &["TIMESTAMP", "TYPE", "DETAILS"])
    }

    /// For debug events. Hubble's table has an empty column after FROM.
    pub fn debug_events(options: Options) -> Self {
        Self::new(options, &["TIMESTAMP", "FROM", "", "TYPE", "CPU/MARK", "MESSAGE"])
    }

    fn head(&self, time: Option<&prost_types::Timestamp>, node: Foreign<'_>) -> Vec<String> {
        let mut row = vec![cell(|out| self.options.time.write(time, out))];
        if self.options.node_names {
            row.push(cell(|out| node.write(out)));
        }
        row
    }

    /// Adds a flow; source and destination are never turned round.
    pub fn flow(&mut self, flow: &Shown<'_>) {
        let options = self.options;
        let mut row = self.head(flow.time.as_ref(), flow.node_name);
        row.push(cell(|out| parts::host(options, flow, End::Source, out)));
        row.push(cell(|out| parts::host(options, flow, End::Destination, out)));
        row.push(cell(|out| parts::event_type(flow, out)));
        row.push(cell(|out| parts::verdict(options, flow, out)));
        row.push(cell(|out| parts::summary(options, flow, out)));
        self.rows.push(row);
    }

    /// Adds a response that holds a flow or lost events. A node's status is no row: see [`super::node_status`].
    pub fn flows_response(&mut self, response: &GetFlowsResponse) {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.flow(&Shown::of(flow)),
            Some(ResponseTypes::LostEvents(lost)) => self.lost_events(response, lost),
            Some(ResponseTypes::NodeStatus(_)) | None => {}
        }
    }

    fn lost_events(&mut self, response: &GetFlowsResponse, lost: &LostEvent) {
        let options = self.options;
        let node = if response.node_name.is_empty() { "-" } else { &response.node_name };
        let mut row = self.head(response.time.as_ref(), node.into());
        row.push(cell(|out| details::lost_source(lost, out)));
        row.extend(["-", "EVENTS LOST", "-"].map(str::to_owned));
        row.push(cell(|out| details::lost_count(options, lost, " - ", out)));
        self.rows.push(row);
    }

    /// Adds an event of the agent.
    pub fn agent_event(&mut self, response: &GetAgentEventsResponse) {
        let event = response.agent_event.clone().unwrap_or_default();
        let options = self.options;
        let mut row = self.head(response.time.as_ref(), response.node_name.as_str().into());
        row.push(cell(|out| details::agent_type(&event, out)));
        row.push(cell(|out| details::agent(options, &event, out)));
        self.rows.push(row);
    }

    /// Adds a debug event of the datapath.
    pub fn debug_event(&mut self, response: &GetDebugEventsResponse) {
        let event = response.debug_event.clone().unwrap_or_default();
        let mut row = self.head(response.time.as_ref(), response.node_name.as_str().into());
        row.push(cell(|out| details::debug_source(event.source.as_ref(), out)));
        row.push(String::new());
        row.push(cell(|out| details::debug_type(&event, out)));
        row.push(cell(|out| {
            details::debug_cpu(&event, out)?;
            out.write_char(' ')?;
            details::debug_mark(&event, out)
        }));
        row.push(cell(|out| clean(&event.message, out)));
        self.rows.push(row);
    }

    /// Writes the header and all rows; of no rows nothing, as Hubble.
    pub fn write(&self, out: &mut impl Write) -> Result {
        if self.rows.len() == 1 {
            return Ok(());
        }
        columns(&self.rows, out)
    }
}

/// Writes rows, every column but the last filled up with blanks. Widths count characters.
pub(super) fn columns(rows: &[Vec<String>], out: &mut impl Write) -> Result {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let Some((last, filled)) = row.split_last() else { continue };
        for (cell, width) in filled.iter().zip(&widths) {
            write!(out, "{cell:<fill$}", fill = width + PADDING)?;
        }
        writeln!(out, "{last}")?;
    }
    Ok(())
}

pub(super) fn cell(write: impl FnOnce(&mut String) -> Result) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut text);
    text
}

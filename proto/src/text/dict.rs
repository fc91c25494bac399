//! One line for each property, with a line of dashes between records.

use super::{
    Options, details,
    foreign::{Foreign, Out},
    parts::{self, End},
    sanitize::clean,
    shown::Shown,
};
use crate::{
    flow::LostEvent,
    observer::{
        GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, get_flows_response::ResponseTypes,
    },
    relay::NodeStatusEvent,
};
use std::fmt::Result;

const SEPARATOR: &str = "------------";

/// Prints records one after the other; it remembers whether there was one before, on whichever stream.
pub struct Dict {
    options: Options,
    first: bool,
}

impl Dict {
    /// A printer before its first record.
    pub fn new(options: Options) -> Self {
        Self { options, first: true }
    }

    /// What goes before a record. Hubble ends the separator with a newline for flows, but not for events.
    fn separate(&mut self, end: &str, out: &mut impl Out) -> Result {
        if !std::mem::replace(&mut self.first, false) {
            write!(out, "{SEPARATOR}{end}")?;
        }
        Ok(())
    }

    fn head(&self, time: Option<&prost_types::Timestamp>, node: Foreign<'_>, out: &mut impl Out) -> Result {
        line("TIMESTAMP", out, |out| self.options.time.write(time, out))?;
        if self.options.node_names { line("NODE", out, |out| node.write(out)) } else { Ok(()) }
    }

    /// Any response of GetFlows. Which of them are shown, and where, says [`super::stream`].
    pub fn flows_response(&mut self, response: &GetFlowsResponse, out: &mut impl Out) -> Result {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.flow(&Shown::of(flow), out),
            Some(ResponseTypes::LostEvents(lost)) => self.lost_events(response, lost, out),
            Some(ResponseTypes::NodeStatus(status)) => self.node_status(response, status, out),
            None => Ok(()),
        }
    }

    /// A flow; source and destination are never turned round.
    pub fn flow(&mut self, flow: &Shown<'_>, out: &mut impl Out) -> Result {
        self.separate("\n", out)?;
        self.head(flow.time.as_ref(), flow.node_name, out)?;
        let options = self.options;
        line("SOURCE", out, |out| parts::host(options, flow, End::Source, out))?;
        line("DESTINATION", out, |out| parts::host(options, flow, End::Destination, out))?;
        line("TYPE", out, |out| parts::event_type(flow, out))?;
        line("VERDICT", out, |out| parts::verdict(options, flow, out))?;
        line("SUMMARY", out, |out| parts::summary(options, flow, out))
    }

    fn lost_events(&mut self, response: &GetFlowsResponse, lost: &LostEvent, out: &mut impl Out) -> Result {
        self.separate("\n", out)?;
        let node = if response.node_name.is_empty() { "-" } else { &response.node_name };
        self.head(response.time.as_ref(), node.into(), out)?;
        let options = self.options;
        line("SOURCE", out, |out| details::lost_source(lost, out))?;
        line("TYPE", out, |out| out.write_str("EVENTS LOST"))?;
        line("VERDICT", out, |out| out.write_char('-'))?;
        line("SUMMARY", out, |out| details::lost_count(options, lost, " - ", out))
    }

    fn node_status(
        &mut self,
        response: &GetFlowsResponse,
        status: &NodeStatusEvent,
        out: &mut impl Out,
    ) -> Result {
        self.separate("\n", out)?;
        let options = self.options;
        line("TIMESTAMP", out, |out| options.time.write(response.time.as_ref(), out))?;
        line("STATE", out, |out| details::node_state(status, out))?;
        line("NODES", out, |out| details::node_names(&status.node_names, out))?;
        line("MESSAGE", out, |out| {
            if status.message.is_empty() {
                out.write_str("N/A")
            } else {
                details::quoted(&status.message, out)
            }
        })
    }

    /// An event of the agent.
    pub fn agent_event(&mut self, response: &GetAgentEventsResponse, out: &mut impl Out) -> Result {
        let event = response.agent_event.clone().unwrap_or_default();
        let options = self.options;
        self.separate("", out)?;
        self.head(response.time.as_ref(), response.node_name.as_str().into(), out)?;
        line("TYPE", out, |out| details::agent_type(&event, out))?;
        line("DETAILS", out, |out| details::agent(options, &event, out))
    }

    /// A debug event of the datapath.
    pub fn debug_event(&mut self, response: &GetDebugEventsResponse, out: &mut impl Out) -> Result {
        let event = response.debug_event.clone().unwrap_or_default();
        self.separate("", out)?;
        self.head(response.time.as_ref(), response.node_name.as_str().into(), out)?;
        line("TYPE", out, |out| details::debug_type(&event, out))?;
        line("FROM", out, |out| details::debug_source(event.source.as_ref(), out))?;
        line("MARK", out, |out| details::debug_mark(&event, out))?;
        line("CPU", out, |out| details::debug_cpu(&event, out))?;
        line("MESSAGE", out, |out| clean(&event.message, out))
    }
}

/// The key, right-aligned, and its value.
fn line<W: Out>(key: &str, out: &mut W, value: impl FnOnce(&mut W) -> Result) -> Result {
    write!(out, "{key:>11}: ")?;
    value(out)?;
    out.write_char('\n')
}

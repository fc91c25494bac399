//! The default layout: one line for each flow or event, with its newline.

use super::{
    Options, details,
    foreign::{Foreign, Line, Out},
    parts::{self, End},
    sanitize::clean,
    shown::Shown,
};
use crate::{
    flow::{Flow, LostEvent},
    observer::{
        GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, get_flows_response::ResponseTypes,
    },
    relay::NodeStatusEvent,
};
use std::fmt::Result;

/// Any response of GetFlows. Which of them are shown, and where, says [`super::stream`].
pub fn flows_response(options: Options, response: &GetFlowsResponse, out: &mut impl Out) -> Result {
    match &response.response_types {
        Some(ResponseTypes::Flow(one)) => flow(options, one, out),
        Some(ResponseTypes::LostEvents(lost)) => lost_events(options, response.time.as_ref(), lost, out),
        Some(ResponseTypes::NodeStatus(status)) => {
            node_status(options, response.time.as_ref(), &response.node_name, status, out)
        }
        None => Ok(()),
    }
}

/// The time, and the node's name in brackets if wanted.
fn head(
    options: Options,
    time: Option<&prost_types::Timestamp>,
    node: Foreign<'_>,
    out: &mut impl Out,
) -> Result {
    options.time.write(time, out)?;
    if options.node_names {
        out.write_str(" [")?;
        node.write(out)?;
        out.write_char(']')?;
    }
    out.write_str(": ")
}

/// `<time>: <source> <identity> -> <destination> <identity> <type> <verdict> (<summary>)`. A reply is turned round, so
/// that the client always stands left; `<>` where it is not known which side that is.
pub fn flow(options: Options, flow: &Flow, out: &mut impl Out) -> Result {
    line(options, &Shown::of(flow), out)
}

/// As [`flow()`].
pub fn shown(options: Options, flow: &Shown<'_>, out: &mut Line) -> Result {
    line(options, flow, out)
}

fn line(options: Options, flow: &Shown<'_>, out: &mut impl Out) -> Result {
    head(options, flow.time.as_ref(), flow.node_name, out)?;
    let (left, arrow, right) = match flow.is_reply {
        None => (End::Source, " <> ", End::Destination),
        Some(false) => (End::Source, " -> ", End::Destination),
        Some(true) => (End::Destination, " <- ", End::Source),
    };
    parts::host(options, flow, left, out)?;
    out.write_char(' ')?;
    parts::identity(options, flow, left, out)?;
    out.write_str(arrow)?;
    parts::host(options, flow, right, out)?;
    out.write_char(' ')?;
    parts::identity(options, flow, right, out)?;
    out.write_char(' ')?;
    parts::event_type(flow, out)?;
    out.write_char(' ')?;
    parts::verdict(options, flow, out)?;
    out.write_str(" (")?;
    parts::summary(options, flow, out)?;
    out.write_str(")\n")
}

/// `<time> EVENTS LOST: <source> CPU(<n>) <count>`, with the first and last time where they are known.
pub fn lost_events(
    options: Options,
    time: Option<&prost_types::Timestamp>,
    lost: &LostEvent,
    out: &mut impl Out,
) -> Result {
    options.time.write(time, out)?;
    out.write_str(" EVENTS LOST: ")?;
    details::lost_source(lost, out)?;
    out.write_char(' ')?;
    details::lost_count(options, lost, " ", out)?;
    out.write_char('\n')
}

/// What became of nodes behind a relay, as told by the node `from`.
pub fn node_status(
    options: Options,
    time: Option<&prost_types::Timestamp>,
    from: &str,
    status: &NodeStatusEvent,
    out: &mut impl Out,
) -> Result {
    options.time.write(time, out)?;
    out.write_str(" [")?;
    clean(from, out)?;
    out.write_str("]: ")?;
    details::node_status(status, out)?;
    out.write_char('\n')
}

/// `<time>: <TYPE> (<details>)`.
pub fn agent_event(options: Options, response: &GetAgentEventsResponse, out: &mut impl Out) -> Result {
    let event = response.agent_event.clone().unwrap_or_default();
    head(options, response.time.as_ref(), response.node_name.as_str().into(), out)?;
    details::agent_type(&event, out)?;
    out.write_str(" (")?;
    details::agent(options, &event, out)?;
    out.write_str(")\n")
}

/// `<time>: <from> <TYPE> MARK: <hash> CPU: <n> (<message>)`.
pub fn debug_event(options: Options, response: &GetDebugEventsResponse, out: &mut impl Out) -> Result {
    let event = response.debug_event.clone().unwrap_or_default();
    head(options, response.time.as_ref(), response.node_name.as_str().into(), out)?;
    details::debug_source(event.source.as_ref(), out)?;
    out.write_char(' ')?;
    details::debug_type(&event, out)?;
    out.write_str(" MARK: ")?;
    details::debug_mark(&event, out)?;
    out.write_str(" CPU: ")?;
    details::debug_cpu(&event, out)?;
    out.write_str(" (")?;
    clean(&event.message, out)?;
    out.write_str(")\n")
}

//! How a response becomes a line. The only place that knows which printer does it, so that the shared printers of
//! `observer_proto` can take over by changing the two functions at the end.

use crate::args::FormatArgs;
use observer_proto::observer::{GetFlowsResponse, get_flows_response::ResponseTypes};
use observer_proto::relay::NodeState;
use std::io::{self, Write};

/// The formats of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Compact,
    Json,
}

impl Format {
    /// Hubble's names, `JSON` among them.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "compact" => Ok(Self::Compact),
            "json" | "jsonpb" | "JSON" => Ok(Self::Json),
            "dict" | "tab" | "table" => {
                Err(format!("output format {name} is not built in yet; use compact or json"))
            }
            _ => Err(format!("invalid output format: {name}")),
        }
    }
}

/// What the printers need to know.
#[expect(dead_code, reason = "read by the shared printers, which are not called yet")]
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) time_format: String,
    pub(crate) node_name: bool,
    /// Names in place of addresses.
    pub(crate) names: bool,
    pub(crate) color: bool,
    /// Also what relays say without being asked.
    pub(crate) debug: bool,
    pub(crate) silent_errors: bool,
}

impl Options {
    pub(crate) fn new(args: &FormatArgs) -> Result<Self, String> {
        Ok(Self {
            format: Format::named(&args.output)?,
            time_format: args.time_format.clone(),
            node_name: args.print_node_name,
            names: args.ip_translation && !args.numeric,
            color: crate::output::color(&args.color),
            debug: args.debug,
            silent_errors: args.silent_errors,
        })
    }
}

/// Writes one response: flows and lost events to `out`, what a relay says of its nodes to `err`.
pub(crate) fn response(
    response: &GetFlowsResponse,
    options: &Options,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<()> {
    match &response.response_types {
        Some(ResponseTypes::NodeStatus(status)) => {
            let problem = [NodeState::NodeUnavailable, NodeState::NodeError].contains(&status.state_change());
            if options.silent_errors || !(problem || options.debug) {
                return Ok(());
            }
            line(response, options, err)
        }
        Some(_) => line(response, options, out),
        None => Ok(()),
    }
}

fn line(response: &GetFlowsResponse, options: &Options, out: &mut impl Write) -> io::Result<()> {
    match options.format {
        Format::Json => json(response, "observer.GetFlowsResponse", out),
        Format::Compact => compact(response, options, out),
    }
}

/// A message as one line of JSON, with the field names of the `.proto` files.
pub(crate) fn json(message: &impl prost::Message, full_name: &str, out: &mut impl Write) -> io::Result<()> {
    use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
    static POOL: std::sync::OnceLock<Option<DescriptorPool>> = std::sync::OnceLock::new();
    let descriptor = POOL
        .get_or_init(|| DescriptorPool::decode(observer_proto::DESCRIPTORS).ok())
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(full_name))
        .ok_or_else(|| io::Error::other(format!("no descriptor of {full_name}")))?;
    let message =
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(io::Error::other)?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut writer = serde_json::Serializer::new(&mut *out);
    message.serialize_with_options(&mut writer, &options).map_err(io::Error::other)?;
    out.write_all(b"\n")
}

/// A bare line: ends, ports, verdict and summary.
fn compact(response: &GetFlowsResponse, options: &Options, out: &mut impl Write) -> io::Result<()> {
    use observer_proto::filter::{FlowView as _, Side};
    let time = response
        .time
        .and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
        .map_or_else(|| "N/A".to_owned(), |t| t.to_string());
    let text = match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => {
            let end = |side| {
                let host = match flow.endpoint(side) {
                    Some(e) if options.names && !e.pod_name.is_empty() => {
                        format!("{}/{}", e.namespace, e.pod_name)
                    }
                    _ => flow.ip(side).map(|ip| ip.to_string()).unwrap_or_default(),
                };
                flow.port(side).map_or(host.clone(), |port| format!("{host}:{port}"))
            };
            let (source, destination) = (end(Side::Source), end(Side::Destination));
            let ends = match flow.is_reply {
                Some(true) => format!("{destination} <- {source}"),
                Some(false) => format!("{source} -> {destination}"),
                None => format!("{source} <> {destination}"),
            };
            #[expect(deprecated, reason = "Hubble's printers read the summary")]
            let summary = &flow.summary;
            format!("{time}: {ends} {} ({summary})", flow.verdict().as_str_name())
        }
        Some(ResponseTypes::LostEvents(lost)) => {
            format!("{time} EVENTS LOST: {} {}", lost.source().as_str_name(), lost.num_events_lost)
        }
        Some(ResponseTypes::NodeStatus(status)) => {
            format!("{time} [{}]: {} {}", response.node_name, status.message, status.node_names.join(", "))
        }
        None => return Ok(()),
    };
    let safe: String = text.chars().filter(|c| !c.is_control()).collect();
    writeln!(out, "{safe}")
}

//! Flows and events as lines for people, in Hubble's layouts and one of our own. Nothing here knows of terminals: whether
//! colours are wanted is an option, how wide lines may be an argument.

mod compact;
mod details;
mod dict;
mod foreign;
pub mod list;
pub(crate) mod parts;
pub mod sanitize;
mod shown;
pub mod status;
mod table;
pub(crate) mod wide;

pub use dict::Dict;
pub use foreign::{Line, Out};
#[cfg(any(test, fuzzing))]
pub(crate) use shown::ALL;
pub use shown::Shown;
pub use table::Table;
pub use wide::{Joined, Wide, cells};

pub use compact::{agent_event, debug_event, flow, flows_response, lost_events, node_status, shown};

use crate::{
    json::{Mask, MessageType},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    relay::NodeState,
    time::TimeFormat,
};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct Options {
    /// ANSI colours.
    pub colors: bool,
    /// Names of pods, services and DNS in place of addresses.
    pub translate: bool,
    /// The node that saw the flow, in brackets after the time.
    pub node_names: bool,
    /// The policies behind a verdict.
    pub policy_names: bool,
    /// Node events that only inform, too.
    pub debug: bool,
    /// How times are printed.
    pub time: TimeFormat,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            colors: false,
            translate: true,
            node_names: false,
            policy_names: false,
            debug: false,
            time: TimeFormat::StampMilli,
        }
    }
}

/// The fields of a flow that any layout shows: a mask by which a server leaves out the rest. Hubble's own masks lack some
/// of them, so that its text shows less with the mask than without.
pub const FIELDS: &[&str] = &[
    "time",
    "verdict",
    "drop_reason",
    "drop_reason_desc",
    "auth_type",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "source.labels",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "destination.labels",
    "Type",
    "node_name",
    "source_names",
    "destination_names",
    "l7",
    "is_reply",
    "event_type",
    "source_service",
    "destination_service",
    "traffic_direction",
    "policy_match_type",
    "trace_observation_point",
    "trace_reason",
    "debug_capture_point",
    "sock_xlate_point",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "ip_trace_id",
    "extensions",
    "Summary",
];

/// Where a line belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: flows and losses.
    Out,
    /// Standard error: the state of the nodes behind a relay.
    Err,
}

/// Where a response is printed, in every output format; `None` for one that is not shown: an empty response, and
/// without `debug` a node event that only informs.
pub fn stream(response: &GetFlowsResponse, debug: bool) -> Option<Stream> {
    match response.response_types.as_ref()? {
        ResponseTypes::Flow(_) | ResponseTypes::LostEvents(_) => Some(Stream::Out),
        ResponseTypes::NodeStatus(status) => {
            let is_trouble =
                matches!(status.state_change(), NodeState::NodeUnavailable | NodeState::NodeError);
            (debug || is_trouble).then_some(Stream::Err)
        }
    }
}

/// The fields of a `GetFlowsResponse` that some layout prints. A server is not asked for these alone: one that is older
/// than one of the fields would refuse them all.
pub fn printed() -> Option<Mask> {
    const PATHS: [&str; 46] = [
        "node_name",
        "time",
        "node_status",
        "lost_events",
        "flow.IP",
        "flow.Summary",
        "flow.auth_type",
        "flow.debug_capture_point",
        "flow.destination.identity",
        "flow.destination.namespace",
        "flow.destination.pod_name",
        "flow.destination_names",
        "flow.destination_service",
        "flow.drop_reason_desc",
        "flow.egress_allowed_by.kind",
        "flow.egress_allowed_by.name",
        "flow.egress_allowed_by.namespace",
        "flow.egress_denied_by.kind",
        "flow.egress_denied_by.name",
        "flow.egress_denied_by.namespace",
        "flow.ethernet",
        "flow.event_type",
        "flow.extensions",
        "flow.ingress_allowed_by.kind",
        "flow.ingress_allowed_by.name",
        "flow.ingress_allowed_by.namespace",
        "flow.ingress_denied_by.kind",
        "flow.ingress_denied_by.name",
        "flow.ingress_denied_by.namespace",
        "flow.ip_trace_id",
        "flow.is_reply",
        "flow.l4",
        "flow.l7",
        "flow.node_name",
        "flow.policy_match_type",
        "flow.sock_xlate_point",
        "flow.source.identity",
        "flow.source.namespace",
        "flow.source.pod_name",
        "flow.source_names",
        "flow.source_service",
        "flow.time",
        "flow.trace_observation_point",
        "flow.trace_reason",
        "flow.traffic_direction",
        "flow.verdict",
    ];
    Mask::of_paths(MessageType::named("observer.GetFlowsResponse")?, &PATHS)
}

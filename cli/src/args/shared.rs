//! Flags that several commands have.

use super::{FORMATTING, OTHER, SELECTORS, usage};
use crate::complete;
use clap::{ArgAction, Args};

const FORMATS: &[&str] = &["compact", "wide", "dict", "table", "json", "jsonpb"];
const TIME_FORMATS: &[&str] = &[
    "StampMilli",
    "RFC3339",
    "RFC3339Milli",
    "RFC3339Micro",
    "RFC3339Nano",
    "RFC1123Z",
    "YearMonthDay",
    "YearMonthDayHour",
    "YearMonthDayHourMinute",
];

/// Which part of the stream.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SELECTORS)]
pub(crate) struct SelectArgs {
    /// The last N flows that match (20 if nothing else is said)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = usage::number)]
    pub(crate) last: u64,
    /// The first N flows that match
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = usage::number)]
    pub(crate) first: u64,
    /// All flows that the server still has
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on with new flows as they happen
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Not older than: 90s, 1h30m, or 2026-01-05T10:00:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Not newer than; ignored with --follow
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
}

/// How flows look.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = FORMATTING)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
pub(crate) struct FormatArgs {
    /// compact; wide: a table that fits the terminal; dict; table (= tab), printed at the end; json (= jsonpb): one
    /// GetFlowsResponse a line
    #[arg(short, long, value_name = "FORMAT", default_value = "compact", add = complete::of(FORMATS))]
    pub(crate) output: String,
    /// auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", add = complete::of(&["auto", "always", "never"]))]
    pub(crate) color: String,
    /// Addresses instead of names; the same as --ip-translation=false
    #[arg(long)]
    pub(crate) numeric: bool,
    // Hidden: its optional value reads badly, and --numeric says the same.
    /// Names instead of addresses
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub(crate) ip_translation: bool,
    /// Show the node of each flow
    #[arg(long)]
    pub(crate) print_node_name: bool,
    /// Show the policies behind each verdict
    #[arg(long)]
    pub(crate) print_policy_names: bool,
    /// StampMilli, RFC3339, RFC3339Milli, RFC3339Micro, RFC3339Nano, RFC1123Z, YearMonthDay, ...; always UTC
    #[arg(long, value_name = "FORMAT", default_value = "StampMilli", add = complete::of(TIME_FORMATS))]
    pub(crate) time_format: String,
}

/// What is said besides the flows.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = OTHER)]
pub(crate) struct MessageArgs {
    /// Leave out what a relay says of its nodes
    #[arg(short, long)]
    pub(crate) silent_errors: bool,
}

/// Which fields of a flow are asked for.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = OTHER)]
pub(crate) struct MaskArgs {
    /// Only these fields of each flow, as -o json calls them (source.pod_name,verdict); for JSON
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    pub(crate) field_mask: Vec<String>,
    /// Only the fields that text shows; spares the server's network where lines are many
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) use_default_field_masks: bool,
}

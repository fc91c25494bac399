//! `observe flows`: from a server, or from files.

use crate::{
    Failure, answers,
    args::{
        FORMATTING, FilterArgs, FormatArgs, Globals, MaskArgs, MessageArgs, OTHER, SELECTORS, SelectArgs,
    },
    connect::Target,
    offline, output,
    print::Printer,
    select, session,
    settings::{ALLOWLIST, DENYLIST, Kind, file::yaml_entry},
};
use clap::Args;
use observer_proto::{json, observer::GetFlowsRequest};
use std::path::PathBuf;

pub(super) const AFTER_HELP: &str = "\
Filters: a flag given twice means either value; different flags must all hold; --not turns the next one round.

Examples:
  observe -f                                    all flows from now on
  observe -f -o wide                            the same as a table that fits the terminal
  observe --verdict DROPPED --since 5m          what was dropped in the last five minutes, and why
  observe --from-pod shop/web --to-port 5432    web's connections to a database
  observe -n shop --not --protocol dns -o json  all of namespace shop but DNS, as JSON lines
  observe --aggregate-by client,server,verdict  how many flows between whom, in place of the flows";

/// `observe flows`, and `observe` without a command.
#[derive(Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Counts in place of flows, with first and last time, packets and bytes: fields by commas, named as the filter flags are
    /// (from-pod, to-workload, verdict, node-name, ...), and client, server, port, reason, location, policy, from, to
    #[arg(long, value_name = "FIELDS", help_heading = FORMATTING)]
    aggregate_by: Option<String>,
    #[command(flatten)]
    pub(crate) filters: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    messages: MessageArgs,
    #[command(flatten)]
    mask: MaskArgs,
    /// Flows from this file in place of a server: JSON lines, plain or packed by gzip; - is standard input, and several
    /// are read one after the other
    #[arg(long, value_name = "FILE", help_heading = SELECTORS)]
    input_file: Vec<PathBuf>,
    /// Print the filters as a configuration file (allowlist, denylist) and end
    #[arg(long, help_heading = OTHER)]
    print_raw_filters: bool,
}

impl FlowsArgs {
    /// Stands below the help.
    pub(crate) const AFTER_HELP: &str = AFTER_HELP;
}

pub(crate) async fn run(globals: &Globals, flows: Box<FlowsArgs>) -> Result<(), Failure> {
    let settings = globals.settings()?;
    if let Some(fields) = &flows.aggregate_by {
        let (files, filters) = (&flows.input_file, flows.filters.lists(&settings)?);
        let format = &flows.format.output;
        return answers::aggregate::run(&settings, fields, files, &flows.select, filters, format).await;
    }
    let printer = Printer::new(&flows.format, flows.messages, settings.debug, flows.select.follow)?;
    if !printer.is_json() && !flows.mask.field_mask.is_empty() {
        return Err(format!(
            "{} output format is not compatible with custom field mask",
            flows.format.output
        )
        .into());
    }
    let reads_files = !flows.input_file.is_empty();
    let request = select::flows(&flows.select, &flows.mask, reads_files, || flows.filters.lists(&settings))?;
    if flows.print_raw_filters {
        return output::whole(&raw_filters(&request)?);
    }
    if reads_files {
        return offline::run(&flows.input_file, &request, printer);
    }
    session::run(Target::choose(&settings)?, request, printer).await
}

/// What `--config` reads back.
fn raw_filters(request: &GetFlowsRequest) -> Result<String, Failure> {
    let mut text = String::new();
    for (name, filters) in [(ALLOWLIST, &request.whitelist), (DENYLIST, &request.blacklist)] {
        let filters: Result<Vec<_>, _> = filters.iter().map(json::line).collect();
        let filters = filters.map_err(|error| error.to_string())?;
        if !filters.is_empty() {
            yaml_entry(name, Kind::Filters, &filters, &mut text);
        }
    }
    if text.is_empty() {
        text.push_str("{}\n");
    }
    Ok(text)
}

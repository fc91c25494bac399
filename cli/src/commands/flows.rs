//! `observe flows`: asks, and prints until the stream or the user ends it.

use crate::{
    Failure,
    args::{FilterArgs, FormatArgs, Globals, MaskArgs, MessageArgs, OTHER, SelectArgs},
    connect::{Target, is_broken},
    hint,
    output::{self, Output},
    print::Printer,
    rpc, select,
    settings::{ALLOWLIST, DENYLIST, Kind, file::yaml_entry},
};
use clap::Args;
use observer_proto::{
    filter::FilterLists,
    json,
    observer::{
        GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
};
use std::{
    future::{pending, ready},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Streaming};

/// How long nothing may match before the hint.
const HINT_AFTER: Duration = Duration::from_secs(5);

/// A flow with long L7 records is far below this; gRPC's own default is the same.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

pub(super) const AFTER_HELP: &str = "\
Filters: a flag given twice means either value; different flags must all hold; --not turns the next one round.

Examples:
  observe -f                                    all flows from now on
  observe -f -o wide                            the same as a table that fits the terminal
  observe --verdict DROPPED --since 5m          what was dropped in the last five minutes, and why
  observe --from-pod shop/web --to-port 5432    web's connections to a database
  observe -n shop --not --protocol dns -o json  all of namespace shop but DNS, as JSON lines";

/// `observe flows`, and `observe` without a command.
#[derive(Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) filters: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    messages: MessageArgs,
    #[command(flatten)]
    mask: MaskArgs,
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
    let mut printer = Printer::new(&flows.format, flows.messages, settings.debug, flows.select.follow)?;
    if !printer.is_json() && !flows.mask.field_mask.is_empty() {
        return Err(format!(
            "{} output format is not compatible with custom field mask",
            flows.format.output
        )
        .into());
    }
    let request = select::flows(&flows.select, &flows.mask, || flows.filters.lists(&settings))?;
    if flows.print_raw_filters {
        return output::whole(&raw_filters(&request)?);
    }
    let filters = FilterLists { whitelist: request.whitelist.clone(), blacklist: request.blacklist.clone() };
    let target = Target::choose(&settings)?;
    let mut out = Output::new(request.follow);
    let shown = async {
        let channel = target.connect().await?;
        let mut client = ObserverClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let wants_hint = io::stderr().is_terminal() && hint::applies(&filters);
        let mut hint = Box::pin(async {
            if wants_hint { hint::gather(channel, &filters).await } else { pending().await }
        });
        let stream = match client.get_flows(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::Cancelled && !is_broken(&status) => return Ok(()),
            Err(status) => return Err(Failure::Text(target.failed(&status).await)),
        };
        let matched = show(stream, &mut printer, &mut out, hint.as_mut()).await?;
        // An answer that is empty at once deserves the hint as much as a silent stream.
        if matched == Matched::Nothing && wants_hint {
            hint::say(hint.await);
        }
        Ok(())
    };
    tokio::select! {
        result = shown => result?,
        // Hubble's rule: an interrupted observe has done its work.
        result = ended_by_signal() => result?,
        () = output::reader_gone() => return Err(Failure::PipeClosed),
    }
    printer.finish(&mut out)?;
    Ok(out.flush()?)
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

/// Ctrl-C, or a request to end.
pub(crate) async fn ended_by_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matched {
    Nothing,
    /// Flows came, or the hint was given already.
    Something,
}

async fn show(
    mut stream: Streaming<GetFlowsResponse>,
    printer: &mut Printer,
    out: &mut Output,
    mut hint: std::pin::Pin<&mut impl Future<Output = Option<String>>>,
) -> Result<Matched, Failure> {
    let mut silence = Box::pin(tokio::time::sleep(HINT_AFTER));
    let mut silent = true;
    let mut matched = Matched::Nothing;
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            // Nothing is waiting: what was written must show. Under load many lines share one system call.
            () = ready(()), if out.live && out.dirty => {
                out.flush()?;
                continue;
            }
            () = &mut silence, if silent && matched == Matched::Nothing => {
                silent = false;
                continue;
            }
            text = &mut hint, if !silent && matched == Matched::Nothing => {
                hint::say(text);
                matched = Matched::Something;
                continue;
            }
        };
        match message {
            Ok(Some(response)) => {
                if matches!(response.response_types, Some(ResponseTypes::Flow(_))) {
                    matched = Matched::Something;
                }
                printer.response(&response, out, &mut io::stderr().lock())?;
            }
            Ok(None) => return Ok(matched),
            Err(status) if status.code() == Code::Cancelled => return Ok(Matched::Something),
            Err(status) => {
                // What came before the error was asked for, too.
                printer.finish(out)?;
                out.flush()?;
                return Err(Failure::Text(rpc::text(&status)));
            }
        }
    }
}

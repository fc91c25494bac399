//! `observe agent-events` and `observe debug-events`: what happens besides flows.

use crate::session::ended_by_signal;
use crate::{
    Failure,
    args::{FormatArgs, Globals, MessageArgs, SelectArgs},
    connect::{Connection, Target},
    output::{self, Output},
    print::Format,
    rpc, select,
    settings::Settings,
};
use clap::Args;
use observer_proto::{
    json,
    observer::{GetAgentEventsResponse, GetDebugEventsResponse, observer_client::ObserverClient},
    text::{self, Dict, Options, Table},
    time::TimeFormat,
};
use std::{
    fmt,
    future::ready,
    io::{self, Write as _},
};
use tonic::{Code, Status, Streaming};

/// The flags of both; there are no filters.
#[derive(Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    messages: MessageArgs,
}

/// `observe agent-events`.
pub(super) async fn agent(globals: &Globals, args: EventsArgs) -> Result<(), Failure> {
    let printer = Printer::new(&args.format, args.select.follow)?;
    let request = select::agent_events(&args.select)?;
    run::<GetAgentEventsResponse>(&globals.settings()?, &args, printer, async |mut client| {
        client.get_agent_events(request).await.map(tonic::Response::into_inner)
    })
    .await
}

/// `observe debug-events`.
pub(super) async fn debug(globals: &Globals, args: EventsArgs) -> Result<(), Failure> {
    let printer = Printer::new(&args.format, args.select.follow)?;
    let request = select::debug_events(&args.select)?;
    run::<GetDebugEventsResponse>(&globals.settings()?, &args, printer, async |mut client| {
        client.get_debug_events(request).await.map(tonic::Response::into_inner)
    })
    .await
}

async fn run<E: Event>(
    settings: &Settings,
    args: &EventsArgs,
    mut printer: Printer<E>,
    ask: impl AsyncFnOnce(ObserverClient<Connection>) -> Result<Streaming<E>, Status>,
) -> Result<(), Failure> {
    // Nothing of these events goes to standard error, so there is nothing to leave out.
    let MessageArgs { silent_errors: _ } = args.messages;
    let target = Target::choose(settings)?;
    let mut out = Output::new(args.select.follow)?;
    let shown = async {
        let client = ObserverClient::new(target.connect().await?);
        let mut stream = match ask(client).await {
            Ok(stream) => stream,
            Err(status) => return Err(Failure::Text(target.failed(&status).await)),
        };
        loop {
            let message = tokio::select! {
                biased;
                message = stream.message() => message,
                () = ready(()), if out.live && out.dirty => {
                    out.flush()?;
                    continue;
                }
            };
            match message {
                Ok(Some(event)) => printer.event(&event, &mut out)?,
                Ok(None) => return Ok(()),
                Err(status) if status.code() == Code::Cancelled => return Ok(()),
                Err(status) => {
                    printer.finish(&mut out)?;
                    out.flush()?;
                    return Err(Failure::Text(rpc::text(&status)));
                }
            }
        }
    };
    tokio::select! {
        result = shown => result?,
        result = ended_by_signal() => result?,
        () = output::reader_gone() => return Err(Failure::PipeClosed),
    }
    printer.finish(&mut out)?;
    Ok(out.flush()?)
}

/// An event that each layout can show.
trait Event: prost::Message + prost::Name + Default {
    fn table(options: Options) -> Table;
    fn compact(&self, options: Options, out: &mut String) -> fmt::Result;
    fn dict(&self, dict: &mut Dict, out: &mut String) -> fmt::Result;
    fn row(&self, table: &mut Table);
}

impl Event for GetAgentEventsResponse {
    fn table(options: Options) -> Table {
        Table::agent_events(options)
    }

    fn compact(&self, options: Options, out: &mut String) -> fmt::Result {
        text::agent_event(options, self, out)
    }

    fn dict(&self, dict: &mut Dict, out: &mut String) -> fmt::Result {
        dict.agent_event(self, out)
    }

    fn row(&self, table: &mut Table) {
        table.agent_event(self);
    }
}

impl Event for GetDebugEventsResponse {
    fn table(options: Options) -> Table {
        Table::debug_events(options)
    }

    fn compact(&self, options: Options, out: &mut String) -> fmt::Result {
        text::debug_event(options, self, out)
    }

    fn dict(&self, dict: &mut Dict, out: &mut String) -> fmt::Result {
        dict.debug_event(self, out)
    }

    fn row(&self, table: &mut Table) {
        table.debug_event(self);
    }
}

enum Layout {
    Compact,
    Dict(Dict),
    Table(Table),
    Json(json::Writer),
}

struct Printer<E> {
    layout: Layout,
    options: Options,
    text: String,
    kind: std::marker::PhantomData<E>,
}

impl<E: Event> Printer<E> {
    /// The error is Hubble's text.
    fn new(args: &FormatArgs, follow: bool) -> Result<Self, String> {
        let options = Options {
            node_names: args.print_node_name,
            time: TimeFormat::named(&args.time_format),
            ..Options::default()
        };
        let layout = match Format::named(&args.output)? {
            Format::Compact => Layout::Compact,
            Format::Dict => Layout::Dict(Dict::new(options)),
            Format::Table if follow => {
                return Err("table output format is not compatible with follow mode".to_owned());
            }
            Format::Table => Layout::Table(E::table(options)),
            Format::Json | Format::JsonPb => Layout::Json(json::Writer::new()),
            Format::Wide => {
                return Err("output format wide is for flows; use compact, dict, json or table".to_owned());
            }
        };
        Ok(Self { layout, options, text: String::new(), kind: std::marker::PhantomData })
    }

    fn event(&mut self, event: &E, out: &mut Output) -> io::Result<()> {
        self.text.clear();
        match &mut self.layout {
            Layout::Compact => event.compact(self.options, &mut self.text),
            Layout::Dict(dict) => event.dict(dict, &mut self.text),
            Layout::Table(table) => {
                event.row(table);
                Ok(())
            }
            Layout::Json(writer) => {
                let mut line = Vec::new();
                writer.message(event, &mut line).map_err(io::Error::other)?;
                line.push(b'\n');
                return out.write_all(&line);
            }
        }
        .map_err(io::Error::other)?;
        out.write_all(self.text.as_bytes())
    }

    /// Writes what waited for the end.
    fn finish(&mut self, out: &mut Output) -> io::Result<()> {
        if let Layout::Table(table) = &self.layout {
            self.text.clear();
            table.write(&mut self.text).map_err(io::Error::other)?;
            out.write_all(self.text.as_bytes())?;
        }
        Ok(())
    }
}

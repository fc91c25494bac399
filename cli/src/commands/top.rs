//! `observe top`: who talks most, and who is dropped.

use crate::{
    Failure,
    answers::{self, Piece, REDRAW, Screen, Server, TextOrJson, from_files, from_server, once},
    args::{FORMATTING, FilterArgs, Globals, SELECTORS, rows},
    output,
    session::ended_by_signal,
};
use clap::Args;
use observer_proto::{
    answers::{
        about::CountedBy,
        top::{By, PRIME, Report, Top},
    },
    filter::FilterLists,
    observer::GetFlowsRequest,
    stats::{WindowRequest, stats_client::StatsClient},
};
use prost_types::Timestamp;
use std::{
    cell::RefCell,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(super) const AFTER_HELP: &str = "\
On a terminal the rates are drawn again each second, until Ctrl-C; elsewhere they are printed once. Without a filter, for 1m,
5m or 15m, and by workload, port or reason, the daemon's own counts over all its flows are shown; else, and with another
server, the flows of that time are counted here. The last line says which.

Examples:
  observe top                              the workloads of most bytes in the last minute
  observe top --by reason                  what is dropped, and between whom
  observe top --by pod -n shop --for 10s   the pods of one namespace
  observe top --by port -o json            as JSON, once
  observe top --input-file flows.json      over all flows of a file";

/// What is asked of a server of ours: enough for ports, which have several edges each.
const MOST: u32 = 1024;

/// `observe top`.
#[derive(Args)]
pub(crate) struct TopArgs {
    /// workload, pod, namespace, port, reason (of drops) or policy
    #[arg(long, value_name = "WHAT", default_value = "workload", value_parser = By::named, help_heading = SELECTORS)]
    by: By,
    /// Rates of the last so long: 10s, 1m, ...
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = span, help_heading = SELECTORS)]
    span: Duration,
    /// Rows; all others are summed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = rows, help_heading = FORMATTING)]
    limit: usize,
    /// How it looks; JSON is printed once
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = FORMATTING)]
    output: TextOrJson,
    /// Flows from this file in place of a server: JSON lines, plain or packed by gzip; - is standard input, and several
    /// are read one after the other
    #[arg(long, value_name = "FILE", help_heading = SELECTORS)]
    input_file: Vec<PathBuf>,
    #[command(flatten)]
    filters: FilterArgs,
}

/// Each second of it is kept.
fn span(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(1);
    let span = answers::duration(text)?;
    let is_taken = (Duration::from_secs(1)..=LONGEST).contains(&span);
    if is_taken { Ok(span) } else { Err("from 1s to 1h".to_owned()) }
}

impl TopArgs {
    fn show(&self, report: &Report, width: Option<usize>) -> String {
        match self.output {
            TextOrJson::Text => report.text(width),
            TextOrJson::Json => report.json(),
        }
    }
}

pub(super) async fn run(globals: &Globals, args: Box<TopArgs>) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let filters = args.filters.lists(&settings)?;
    let mut screen = Screen::new();
    if !args.input_file.is_empty() {
        let mut top = Top::new(args.by, CountedBy::File, None, 0);
        from_files(&args.input_file, &filters, (None, None), |piece| {
            match piece {
                Piece::Flow(flow) => top.flow(flow, 0),
                Piece::Lost(lost) => top.lost(lost, 0),
            }
            Ok(())
        })?;
        return once(&args.show(&top.report(0, args.limit), screen.width()));
    }
    let shown = async {
        let server = Server::connect(&settings).await?;
        let has_filter = !filters.whitelist.is_empty() || !filters.blacklist.is_empty();
        if !has_filter && told(&server, &args, &mut screen).await? {
            Ok(())
        } else {
            counted(&server, &args, filters, &mut screen).await
        }
    };
    tokio::select! {
        result = shown => result,
        result = ended_by_signal() => Ok(result?),
        () = output::reader_gone() => Err(Failure::PipeClosed),
    }
}

fn is_live(args: &TopArgs, screen: &Screen) -> bool {
    screen.is_live() && args.output == TextOrJson::Text
}

/// Shows what the server counts itself; whether it does.
async fn told(server: &Server, args: &TopArgs, screen: &mut Screen) -> Result<bool, Failure> {
    let seconds = args.span.as_secs() as i64;
    if !matches!(seconds, 60 | 300 | 900) || args.span.subsec_nanos() > 0 {
        return Ok(false);
    }
    let follow = is_live(args, screen);
    let limit = screen.rows(args.limit);
    let asked = if args.by == By::Port { MOST } else { u32::try_from(limit).unwrap_or(MOST).clamp(1, MOST) };
    let window = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = WindowRequest { window, limit: asked, follow };
    let mut client = StatsClient::new(server.channel.clone());
    // Each has a type of its own.
    macro_rules! show {
        ($call:ident, $report:expr) => {{
            let answer = client.$call(request).await;
            let Some(answer) = server.unknown_or_failed(answer).await? else { return Ok(false) };
            let mut answers = answer.into_inner();
            loop {
                let answer = answers.message().await;
                let Some(answer) = server.unknown_or_failed(answer).await? else { return Ok(false) };
                let Some(answer) = answer else { return Ok(true) };
                screen.draw(&args.show(&$report(&answer), screen.width()))?;
            }
        }};
    }
    match args.by {
        By::Workload => show!(get_talkers, Report::talkers),
        By::Reason => show!(get_drops, Report::drops),
        By::Port => show!(get_edges, |answer| Report::ports(answer, limit)),
        By::Pod | By::Namespace | By::Policy => Ok(false),
    }
}

/// Counts flows.
async fn counted(
    server: &Server,
    args: &TopArgs,
    filters: FilterLists,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let span = args.span.as_secs() as i64;
    let began = now() - span;
    let top = RefCell::new(Top::new(args.by, CountedBy::Client, Some(span), began));
    let follow = is_live(args, screen);
    let request = GetFlowsRequest {
        follow,
        // What connections had moved before is told by their flows of before.
        since: Some(Timestamp { seconds: began - PRIME, nanos: 0 }),
        whitelist: filters.whitelist,
        blacklist: filters.blacklist,
        ..GetFlowsRequest::default()
    };
    let counting = from_server(server, request, |piece| {
        let mut top = top.borrow_mut();
        match piece {
            Piece::Flow(flow) => top.flow(flow, now()),
            Piece::Lost(lost) => top.lost(lost, now()),
        }
        Ok(())
    });
    tokio::pin!(counting);
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            result = &mut counting => {
                result?;
                let report = top.borrow_mut().report(now(), screen.rows(args.limit));
                return screen.draw(&args.show(&report, screen.width()));
            }
            _ = redraw.tick(), if follow => {
                let report = top.borrow_mut().report(now(), screen.rows(args.limit));
                screen.draw(&args.show(&report, screen.width()))?;
            }
        }
    }
}

/// Unix seconds.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

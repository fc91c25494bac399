//! `observe graph`: the service map.

use crate::{
    Failure,
    answers::{Piece, Range, RangeArgs, Server, from_files, from_server, once},
    args::{FORMATTING, FilterArgs, Globals, rows},
    output::LineWidth,
};
use clap::Args;
use observer_proto::{
    answers::{
        about::{About, CountedBy},
        graph::{Edges, Graph},
    },
    filter::FilterLists,
    observer::GetFlowsRequest,
    stats::{WindowRequest, stats_client::StatsClient},
    time,
};
use prost_types::Duration;

pub(super) const AFTER_HELP: &str = "\
An edge is a client, a server, and the server's port and protocol. Without a filter the daemon's own counts of the last 1, 5
or 15 minutes (--since; 15m without) are shown, over all its flows; else, and with another server, the flows that it still
has are counted here. The last line says which.

Examples:
  observe graph                                who calls whom
  observe graph -n payments --since 10m        the edges of one namespace
  observe graph -o dot | dot -Tsvg > map.svg   a picture; what has errors is red
  observe graph -o mermaid                     for Markdown
  observe graph --input-file flows.json        of flows in a file";

/// The most edges that a server of ours tells.
const MOST: u32 = 1024;

/// `observe graph`.
#[derive(Args)]
pub(crate) struct GraphArgs {
    /// How it looks
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = FORMATTING)]
    output: Layout,
    /// The edges of most bytes; all others are summed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = rows, help_heading = FORMATTING)]
    limit: usize,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filters: FilterArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Layout {
    /// A table that fits the terminal
    Text,
    /// For Graphviz
    Dot,
    /// For Mermaid
    Mermaid,
    /// One object on one line
    Json,
}

pub(super) async fn run(globals: &Globals, args: Box<GraphArgs>) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let filters = args.filters.lists(&settings)?;
    let range = args.range.times(None)?;
    let graph = if args.range.input_file.is_empty() {
        let server = Server::connect(&settings).await?;
        match told(&server, &args, &filters).await? {
            Some(graph) => graph,
            None => counted(&server, &args, filters, range).await?,
        }
    } else {
        let mut edges = edges(CountedBy::File, range.0);
        from_files(&args.range.input_file, &filters, range, |piece| {
            take(&mut edges, &piece);
            Ok(())
        })?;
        edges.graph(args.limit)
    };
    once(&match args.output {
        Layout::Text => graph.text(LineWidth::of_stdout().cells()),
        Layout::Dot => graph.dot(),
        Layout::Mermaid => graph.mermaid(),
        Layout::Json => graph.json(),
    })
}

/// What the server counts itself, where that is what was asked for.
async fn told(server: &Server, args: &GraphArgs, filters: &FilterLists) -> Result<Option<Graph>, Failure> {
    let since = args.range.since.as_deref().unwrap_or("15m");
    let window = time::parse_duration(since).map(|window| window.as_secs());
    let has_filter = !filters.whitelist.is_empty() || !filters.blacklist.is_empty();
    let Some(seconds @ (60 | 300 | 900)) = window.filter(|_| !has_filter && args.range.until.is_none())
    else {
        return Ok(None);
    };
    let limit = u32::try_from(args.limit).unwrap_or(MOST).clamp(1, MOST);
    let request = WindowRequest { window: Some(Duration { seconds, nanos: 0 }), limit, follow: false };
    let answer = StatsClient::new(server.channel.clone()).get_edges(request).await;
    let Some(answer) = server.unknown_or_failed(answer).await? else { return Ok(None) };
    let answer = answer.into_inner().message().await;
    Ok(server.unknown_or_failed(answer).await?.flatten().map(Graph::told))
}

async fn counted(
    server: &Server,
    args: &GraphArgs,
    filters: FilterLists,
    (since, until): Range,
) -> Result<Graph, Failure> {
    let number = if since.is_some() || until.is_some() { 0 } else { u64::MAX };
    let request = GetFlowsRequest {
        number,
        since,
        until,
        whitelist: filters.whitelist,
        blacklist: filters.blacklist,
        ..GetFlowsRequest::default()
    };
    let mut edges = edges(CountedBy::Client, since);
    from_server(server, request, |piece| {
        take(&mut edges, &piece);
        Ok(())
    })
    .await?;
    Ok(edges.graph(args.limit))
}

fn edges(counted_by: CountedBy, since: Option<prost_types::Timestamp>) -> Edges {
    Edges::new(About { counted_by, ..About::default() }, since)
}

fn take(edges: &mut Edges, piece: &Piece<'_>) {
    match piece {
        Piece::Flow(flow) => edges.flow(flow),
        Piece::Lost(lost) => edges.lost(*lost),
    }
}

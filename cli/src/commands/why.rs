//! `observe why`: what keeps one from reaching another.

use crate::{
    Failure,
    answers::{Piece, RangeArgs, Server, TextOrJson, from_files, from_server, once},
    args::{FORMATTING, FilterArgs, Globals},
    output::LineWidth,
};
use clap::Args;
use observer_proto::{
    answers::{
        about::{About, CountedBy},
        why::{Route, Why},
    },
    filter::FilterLists,
    observer::GetFlowsRequest,
    stats::{ServicesRequest, stats_client::StatsClient},
};
use tonic::Response;

pub(super) const AFTER_HELP: &str = "\
One page from the flows of the last 15 minutes (--since): what happens to packets from the one to the other and to their
answers, on each port, what the first was told by DNS, and where to look next. Both ends are named by filter flags: --from-pod, --from-ip, --from-workload
and the like, and --to-pod, --to-service, --to-ip and the like, perhaps with --to-port and --protocol. What a server doesn't
tell is said, and so is what was looked for and not seen. Its outcome:
  BLOCKED         packets are dropped: the cause, the kernel's reason and place
  REFUSED         a reset or ICMP error comes back, and no drop was seen
  UNANSWERED      packets go there, nothing comes back
  PARTLY DROPPED  some are dropped, others answered
  RESET, LOSSY    answered, but connections are reset, or segments sent again
  ANSWERED        it works
  NOT SEEN        no packet between both

Examples:
  observe why --from-pod shop/web --to-pod shop/db --to-port 5432
  observe why --from-pod shop/web --to-service shop/db
  observe why --from-workload web --to-ip 203.0.113.9 --since 1h
  observe why --from-pod shop/web --to-pod shop/db -o json | jq -r .sentence";

/// How far back is looked.
const SINCE: &str = "15m";
/// Flows of what both do with others.
const AROUND: u64 = 4096;

/// `observe why`.
#[derive(Args)]
pub(crate) struct WhyArgs {
    /// How it looks
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = FORMATTING)]
    output: TextOrJson,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filters: FilterArgs,
}

pub(super) async fn run(globals: &Globals, args: Box<WhyArgs>) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let filters = args.filters.lists(&settings)?;
    let [filter] = &filters.whitelist[..] else { return Err(ONE_WAY.to_owned().into()) };
    if !filters.blacklist.is_empty() {
        return Err(ONE_WAY.to_owned().into());
    }
    let route = Route::new(filter.clone())?;
    let (since, until) = args.range.times(Some(SINCE))?;
    let is_file = !args.range.input_file.is_empty();
    let counted_by = if is_file { CountedBy::File } else { CountedBy::Client };
    let some = |request| GetFlowsRequest { number: AROUND, ..request };
    let requests = [route.between(), some(route.dns()), some(route.around())];
    let mut why = Why::new(route, About { counted_by, ..About::default() });
    let mut take = |piece: Piece<'_>| match piece {
        Piece::Flow(flow) => why.flow(flow),
        Piece::Lost(lost) => why.lost(lost),
    };
    if is_file {
        from_files(&args.range.input_file, &FilterLists::default(), (since, until), |piece| {
            take(piece);
            Ok(())
        })?;
    } else {
        let server = Server::connect(&settings).await?;
        for request in requests {
            // A number counts from the beginning where a time is given: then the time is held to here.
            let asked = if request.number == 0 { since } else { None };
            let is_old = |flow: &observer_proto::flow::Flow| {
                let key = |time: &prost_types::Timestamp| (time.seconds, time.nanos);
                flow.time.as_ref().map(key) < since.as_ref().map(key)
            };
            from_server(&server, GetFlowsRequest { since: asked, until, ..request }, |piece| {
                if !matches!(piece, Piece::Flow(flow) if is_old(flow)) {
                    take(piece);
                }
                Ok(())
            })
            .await?;
        }
        let names = why.services();
        if !names.is_empty() {
            let answer =
                StatsClient::new(server.channel.clone()).get_services(ServicesRequest { names }).await;
            // Who is not told is not asked further.
            let told = server.unknown_or_failed(answer.map(Response::into_inner)).await?;
            why.behind(told.unwrap_or_default().services);
        }
    }
    let report = why.report();
    once(&match args.output {
        TextOrJson::Text => report.text(LineWidth::of_stdout().cells()),
        TextOrJson::Json => report.json(),
    })
}

const ONE_WAY: &str = "why needs both ends, each on its side: --from-pod and --to-pod, or the like; no --not, and no flag for either end";

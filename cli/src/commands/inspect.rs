//! `observe inspect`: what is loaded in the kernel, and what stands in its tables.

use crate::{
    Failure,
    answers::{TextOrJson, duration, once},
    args::{FORMATTING, Globals, SELECTORS, SERVER},
    connect::Target,
    output::LineWidth,
    policy::LayoutArgs,
    rpc,
    settings::Settings,
};
use clap::{Args, Subcommand};
use observer_proto::{
    answers::inspect::text,
    control::{InspectRequest, InspectResponse, control_client::ControlClient, inspect_request::What},
    json,
    text::sanitize::clean,
};
use prost::Message as _;
use std::{io, time::Duration};
use tonic::{Code, Status};

pub(super) const AFTER_HELP: &str = "\
The daemon looks when it is asked, beside the way of events, and changes nothing. It needs the rights of root.

Examples:
  observe inspect programs --stats            what each program costs, counted for a second
  observe inspect links --interface 'veth*'   who is on the hooks of these, in which order
  observe inspect flows --limit 20            connections in the flow tables, with names
  observe inspect maps -o json                how full each map is, as JSON";

/// The longest time that the daemon takes.
const LONGEST: Duration = Duration::from_mins(1);

/// `observe inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    what: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Show programs: size, how often they ran, how long that took, and where they are
    Programs(ProgramsArgs),
    /// Show the hooks of interfaces: whose programs are on them, in which order
    Links(OfInterfacesArgs),
    /// Show maps, and how full they are
    Maps(CommonArgs),
    /// Show what the kernel's tables of policies decide
    Policy(EntriesArgs),
    /// Show whose which address is
    Ipcache(EntriesArgs),
    /// Show the connections in the flow tables
    Flows(EntriesArgs),
    /// Show rings: how full they are, and what was lost
    Rings(CommonArgs),
}

#[derive(Args)]
struct CommonArgs {
    #[command(flatten)]
    layout: LayoutArgs,
    /// The daemon's control socket [default: control.sock beside the server's socket, else in /run/observer]
    #[arg(long, value_name = "PATH", env = "OBSERVE_CONTROL", hide_env_values = true, help_heading = SERVER)]
    control_socket: Option<String>,
}

#[derive(Args)]
struct OfInterfacesArgs {
    /// Of interfaces of this name only, * stands for any characters; may be given several times
    #[arg(long, value_name = "NAME", help_heading = SELECTORS)]
    interface: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
struct ProgramsArgs {
    /// Have the kernel count runs and their time for a while, and show these; meanwhile each run of any program takes some
    /// 20 ns more
    #[arg(long, help_heading = SELECTORS)]
    stats: bool,
    /// For how long: 10ms to 1m
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = window, requires = "stats",
          help_heading = SELECTORS)]
    window: Duration,
    #[command(flatten)]
    of: OfInterfacesArgs,
}

#[derive(Args)]
struct EntriesArgs {
    /// The most entries
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000),
          help_heading = FORMATTING)]
    limit: u32,
    #[command(flatten)]
    of: OfInterfacesArgs,
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    let is_taken = (Duration::from_millis(10)..=LONGEST).contains(&window);
    if is_taken { Ok(window) } else { Err("from 10ms to 1m".to_owned()) }
}

pub(super) async fn run(globals: &Globals, args: InspectArgs) -> Result<(), Failure> {
    let (request, common) = request(args.what);
    let settings = globals.settings()?;
    let answer = ask(&settings, &common, request.clone()).await?;
    once(&match common.layout.output {
        TextOrJson::Text => text(request.what(), &answer, LineWidth::of_stdout().cells()),
        TextOrJson::Json => json::line(&answer).map_err(io::Error::other)?,
    })
}

fn request(what: Kind) -> (InspectRequest, CommonArgs) {
    let of_interfaces = |what, of: OfInterfacesArgs| {
        (
            InspectRequest { what: what as i32, interfaces: of.interface, ..InspectRequest::default() },
            of.common,
        )
    };
    let entries = |what, args: EntriesArgs| {
        let (request, common) = of_interfaces(what, args.of);
        (InspectRequest { limit: args.limit, ..request }, common)
    };
    let all = |what| InspectRequest { what: what as i32, ..InspectRequest::default() };
    match what {
        Kind::Programs(args) => {
            let window = if args.stats { args.window.as_millis() } else { 0 };
            let (request, common) = of_interfaces(What::Programs, args.of);
            // At most a minute.
            (InspectRequest { statistics_ms: window as u32, ..request }, common)
        }
        Kind::Links(args) => of_interfaces(What::Links, args),
        Kind::Maps(common) => (all(What::Maps), common),
        Kind::Rings(common) => (all(What::Rings), common),
        Kind::Policy(args) => entries(What::Policy, args),
        Kind::Ipcache(args) => entries(What::Ipcache, args),
        Kind::Flows(args) => entries(What::Flows, args),
    }
}

/// The answer, put together.
async fn ask(
    settings: &Settings,
    common: &CommonArgs,
    request: InspectRequest,
) -> Result<InspectResponse, Failure> {
    let target = Target::control(common.control_socket.as_deref(), settings)?;
    let mut client = ControlClient::new(target.connect().await?);
    let waits = Duration::from_millis(request.statistics_ms.into());
    let mut call = rpc::request(settings, request);
    call.set_timeout(settings.request_timeout + waits);
    let mut parts = client.inspect(call).await.map_err(|status| failed(&status))?.into_inner();
    let mut answer = InspectResponse::default();
    while let Some(part) = parts.message().await.map_err(|status| failed(&status))? {
        // Protobuf's own way of joining messages: lists grow, what is set replaces what was.
        answer.merge(&part.encode_to_vec()[..]).map_err(io::Error::other)?;
    }
    Ok(answer)
}

/// In one line.
fn failed(status: &Status) -> Failure {
    let mut text = String::from("cannot inspect: ");
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::Internal => {
            // Writing to a string can't fail.
            let _ = clean(status.message(), &mut text);
        }
        _ => text.push_str(&rpc::text(status)),
    }
    Failure::Text(text)
}

//! The command line's arguments. All that knows clap is in here.

mod filters;
mod usage;

use crate::Failure;
use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource,
};
use filters::FilterArgs;
use observer_proto::filter::FilterLists;
use std::{ffi::OsString, path::PathBuf};

// The groups of flags, in the order that help shows them in, which is Hubble's.
const SELECTORS: &str = "Selectors";
const FILTERS: &str = "Filters";
const FORMATTING: &str = "Formatting";
const SERVER: &str = "Server";
const OTHER: &str = "Other";

const AFTER_HELP: &str = "\
Filters: a flag given twice means either value; different flags must all hold; --not turns the next one round.

Examples:
  observe -f                                    all flows from now on
  observe -f -o wide                            the same as a table that fits the terminal
  observe --verdict DROPPED --since 5m          what was dropped in the last five minutes, and why
  observe --from-pod shop/web --to-port 5432    web's connections to a database
  observe -n shop --not --protocol dns -o json  all of namespace shop but DNS, as JSON lines";

/// What to do.
pub(crate) struct Arguments {
    pub(crate) server: ServerArgs,
    pub(crate) command: Command,
}

/// One of the commands.
pub(crate) enum Command {
    Flows(Box<Flows>),
    Status(StatusArgs),
    Version,
}

/// `observe flows`, filters included.
pub(crate) struct Flows {
    pub(crate) select: SelectArgs,
    pub(crate) format: FormatArgs,
    pub(crate) messages: MessageArgs,
    pub(crate) filters: FilterLists,
}

#[derive(Parser)]
#[command(
    name = "observe",
    version,
    about = "Shows who talks to whom, what was dropped, and why",
    long_about = None,
    after_help = AFTER_HELP,
    disable_help_flag = true,
    disable_version_flag = true,
    infer_long_args = false
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    flows: FlowsArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    messages: MessageArgs,
    /// Print this help
    #[arg(short, long, action = ArgAction::Help, global = true, help_heading = OTHER)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = OTHER)]
    version: Option<bool>,
}

#[derive(Subcommand)]
enum Sub {
    /// Show flows; the default without a command
    #[command(after_help = AFTER_HELP)]
    Flows {
        #[command(flatten)]
        flows: FlowsArgs,
        #[command(flatten)]
        messages: MessageArgs,
    },
    /// Show the state of the server, or of the capture
    Status(StatusArgs),
    /// Print the version
    Version,
}

#[derive(Args)]
struct FlowsArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

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
    /// Flows from this file in place of a server: JSON lines, plain or packed by gzip; - is standard input, and several
    /// are read one after the other
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Vec<PathBuf>,
}

/// How flows look.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = FORMATTING)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
pub(crate) struct FormatArgs {
    /// compact; wide: a table that fits the terminal; dict; table (= tab), printed at the end; json (= jsonpb): one
    /// GetFlowsResponse a line
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub(crate) output: String,
    /// auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
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
    #[arg(long, value_name = "FORMAT", default_value = "StampMilli")]
    pub(crate) time_format: String,
}

/// What is said besides the flows.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = OTHER)]
pub(crate) struct MessageArgs {
    /// Also show which nodes a relay is connected to
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
    /// Leave out what a relay says of its nodes
    #[arg(short, long)]
    pub(crate) silent_errors: bool,
}

/// Where the server is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = SERVER)]
pub(crate) struct ServerArgs {
    /// unix:///path, host:port or tls://host:port [env: OBSERVE_SERVER, HUBBLE_SERVER] [default: the local socket, else localhost:4245]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub(crate) server: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// How the way to the server is encrypted. Each can be set by the environment too: `OBSERVE_` or `HUBBLE_`, then its name.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SERVER)]
pub(crate) struct TlsArgs {
    /// Use TLS, as tls:// before the address does [these five in the environment: OBSERVE_TLS, HUBBLE_TLS, ...]
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// CAs of the server's certificate, PEM [default: the machine's]
    #[arg(long, value_name = "FILES", value_delimiter = ',', global = true)]
    pub(crate) tls_ca_cert_files: Vec<PathBuf>,
    /// The name in the server's certificate [default: the host of the address]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) tls_server_name: Option<String>,
    /// Own certificate, PEM, for a server that wants one
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) tls_client_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) tls_client_key_file: Option<PathBuf>,
    // Hidden: it gives up what TLS is for.
    /// Take any certificate: whoever stands in between can read along
    #[arg(long, global = true, hide = true)]
    pub(crate) tls_allow_insecure: bool,
}

/// `observe status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// compact, dict, json or table; with --capture, compact or json
    #[arg(short, long, value_name = "FORMAT", default_value = "compact", help_heading = FORMATTING)]
    pub(crate) output: String,
    /// What is attached in the kernel, and where every event went; needs the rights of root
    #[arg(long)]
    pub(crate) capture: bool,
    /// The daemon's control socket [default: control.sock beside the server's socket, else in /run/observer]
    #[arg(long, value_name = "PATH", env = "OBSERVE_CONTROL", hide_env_values = true, help_heading = SERVER)]
    pub(crate) control_socket: Option<String>,
}

fn command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments. Help and version are printed here.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Failure> {
    let arguments = arguments.into_iter().map(filters::without_switch_value);
    let matches = command().try_get_matches_from(arguments).map_err(|e| usage::failure(&e))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| usage::failure(&e))?;
    if let Some(name) = matches.subcommand_name() {
        refuse_misplaced(&matches, name)?;
    }
    let flows = |args: FlowsArgs, messages| {
        let filters = args.filters.lists().map_err(|e| e.to_string())?;
        Ok::<_, Failure>(Command::Flows(Box::new(Flows {
            select: args.select,
            format: args.format,
            messages,
            filters,
        })))
    };
    let command = match cli.command {
        None => flows(cli.flows, cli.messages)?,
        Some(Sub::Flows { flows: args, messages }) => flows(args, messages)?,
        Some(Sub::Status(args)) => Command::Status(args),
        Some(Sub::Version) => Command::Version,
    };
    Ok(Arguments { server: cli.server, command })
}

/// A flag of flows that stands before the command would be ignored in silence.
fn refuse_misplaced(matches: &clap::ArgMatches, command: &str) -> Result<(), Failure> {
    let definition = self::command();
    let bound = definition.get_arguments().filter(|argument| !argument.is_global_set());
    let misplaced = bound.map(|a| a.get_id().as_str()).find(|id| {
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    });
    match misplaced {
        Some(id) => {
            Err(format!("--{} must stand after {command}, not before it", id.replace('_', "-")).into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

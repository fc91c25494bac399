//! The commands. Each is a file with its flags and a `run`, and a line in the table below; help, man pages, completions
//! and docs follow from the table.

mod completion;
mod config;
mod events;
mod flows;
mod graph;
mod inspect;
mod list;
mod policy;
mod reference;
mod reflect;
mod status;
mod top;
mod tui;
mod version;
mod watch;
mod why;

use crate::{Failure, args::Globals};
use clap::{Args as _, Subcommand};

pub(crate) use flows::FlowsArgs;

/// Makes the enum of the commands, whose documentation is their help, and what runs them.
macro_rules! commands {
    ($($(#[$meta:meta])* $name:literal: $variant:ident($args:ty) => $run:path;)*) => {
        /// One of the commands.
        #[derive(Subcommand)]
        pub(crate) enum Command {
            $($(#[$meta])* #[command(name = $name)] $variant($args),)*
        }

        impl Command {
            /// Adds the commands with a wanted name, without what is said of them.
            pub(crate) fn augment_named(
                root: clap::Command,
                is_wanted: impl Fn(&str) -> bool,
            ) -> clap::Command {
                let mut root = root;
                $(
                    if is_wanted($name) {
                        root = root.subcommand(<$args>::augment_args(clap::Command::new($name)));
                    }
                )*
                root
            }

            pub(crate) async fn run(self, globals: &Globals) -> Result<(), Failure> {
                match self {
                    $(Self::$variant(args) => $run(globals, args).await,)*
                }
            }
        }
    };
}

commands! {
    /// Show flows; the default without a command
    #[command(after_help = flows::AFTER_HELP)]
    "flows": Flows(Box<FlowsArgs>) => flows::run;
    /// Show what happened to the daemon and to what it knows: starts, pods, services, addresses
    "agent-events": AgentEvents(events::EventsArgs) => events::agent;
    /// Show the events of the server's own debugging
    "debug-events": DebugEvents(events::EventsArgs) => events::debug;
    /// List nodes or namespaces
    "list": List(list::ListArgs) => list::run;
    /// Show policies, explain their verdicts, and test and replay them before they are in force
    "policy": Policy(policy::PolicyArgs) => policy::run;
    /// Show what the daemon has in the kernel: programs, their places, maps, and what stands in these
    #[command(after_help = inspect::AFTER_HELP)]
    "inspect": Inspect(inspect::InspectArgs) => inspect::run;
    /// Say what keeps one from reaching another: drops with their cause, resets, services, and what was not seen
    #[command(after_help = why::AFTER_HELP)]
    "why": Why(Box<why::WhyArgs>) => why::run;
    /// Show who talks most, or who is dropped, as live rates
    #[command(after_help = top::AFTER_HELP)]
    "top": Top(Box<top::TopArgs>) => top::run;
    /// Show the service map: who calls whom
    #[command(after_help = graph::AFTER_HELP)]
    "graph": Graph(Box<graph::GraphArgs>) => graph::run;
    /// Show the live dashboard: flows, drops, the map, policies, talkers, HTTP and DNS, nodes
    #[command(after_help = tui::AFTER_HELP)]
    "tui": Tui(Box<tui::TuiArgs>) => tui::run;
    /// Show the state of the server, or of the capture
    "status": Status(status::StatusArgs) => status::run;
    /// Watch what changes beside the flows
    #[command(hide = true, alias = "w")]
    "watch": Watch(watch::WatchArgs) => watch::run;
    /// Print the server's API, as it describes itself
    #[command(hide = true)]
    "reflect": Reflect(reflect::ReflectArgs) => reflect::run;
    /// Look at the settings, and change the configuration file
    #[command(after_help = config::AFTER_HELP)]
    "config": Config(config::ConfigArgs) => config::run;
    /// Print the script that makes a shell complete commands, flags and names
    #[command(after_help = completion::AFTER_HELP)]
    "completion": Completion(completion::CompletionArgs) => completion::run;
    /// Write man pages, or the pages of docs/cli
    #[command(hide = true)]
    "reference": Reference(reference::ReferenceArgs) => reference::run;
    /// Print the version
    "version": Version(version::VersionArgs) => version::run;
}

//! The commands. Each is a file with its flags and a `run`, and a line in the table below; help, man pages, completions
//! and docs follow from the table.

mod flows;
mod status;
mod version;

use crate::{Failure, args::Globals};
use clap::Subcommand;

pub(crate) use flows::FlowsArgs;

/// Makes the enum of the commands, whose documentation is their help, and what runs them.
macro_rules! commands {
    ($($(#[$meta:meta])* $name:ident($args:ty) => $run:path;)*) => {
        /// One of the commands.
        #[derive(Subcommand)]
        pub(crate) enum Command {
            $($(#[$meta])* $name($args),)*
        }

        impl Command {
            pub(crate) async fn run(self, globals: &Globals) -> Result<(), Failure> {
                match self {
                    $(Self::$name(args) => $run(globals, args).await,)*
                }
            }
        }
    };
}

commands! {
    /// Show flows; the default without a command
    #[command(after_help = flows::AFTER_HELP)]
    Flows(Box<FlowsArgs>) => flows::run;
    /// Show the state of the server, or of the capture
    Status(status::StatusArgs) => status::run;
    /// Print the version
    Version(version::VersionArgs) => version::run;
}

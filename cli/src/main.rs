//! The command line `observe`: flows, events, status, and what the capture does.
#![forbid(unsafe_code)]

mod answers;
mod args;
mod commands;
mod complete;
mod connect;
mod dashboard;
mod hint;
mod input;
mod messages;
mod offline;
mod output;
mod policy;
#[cfg(feature = "port-forward")]
mod port_forward;
mod print;
mod resume;
mod rpc;
mod select;
mod session;
mod settings;
mod stream;
mod table;
mod tls;

use std::{pin::Pin, process::ExitCode};

fn main() -> ExitCode {
    // A shell that wants to complete a line gets its answer, and the program ends here.
    clap_complete::CompleteEnv::with_factory(args::command).var(complete::VARIABLE).complete();
    match args::parse(std::env::args_os()).and_then(run) {
        // A reader that has seen enough (`| head`) is no error.
        Ok(()) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(Failure::Shown(code)) => code,
        Err(Failure::Text(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: args::Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Text(format!("cannot start the event loop: {e}")))?;
    // Behind a pointer: the runtime's loop is compiled several times, else each time with all commands in it.
    let command: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(arguments.command.run(&arguments.globals));
    let outcome = runtime.block_on(command);
    // A name server that doesn't answer is asked in a thread, which nobody waits for any more.
    runtime.shutdown_background();
    outcome
}

/// Why a command ended early.
#[derive(Debug)]
enum Failure {
    /// One line for stderr; exit code 1.
    Text(String),
    /// Already said (help, a usage error).
    Shown(ExitCode),
    /// Standard output was closed by its reader.
    PipeClosed,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Text(format!("cannot write the output: {error}"))
        }
    }
}

//! The command lines: what is to be done, with which settings.

use super::{
    Config, ConfigError, DEFAULT_FILE, Record, Replay, Task,
    replay::{FROM_THE_RECORDING, Speed, speed},
    settings::Settings,
};
use std::{path::PathBuf, time::Duration};

/// Closes the help.
const AFTER_HELP: &str = "\
Every option but --config, --replay and --speed is also a key of the
configuration file, which is /etc/observer/observer.toml where none is named. A
flag wins over the environment, and the environment over the file.

It needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; for local names also
CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; for policies with rules for DNS also
CAP_NET_BIND_SERVICE and CAP_NET_RAW; a replay needs nothing. Read its flows
with `observe -f`, its own state with `observe status --capture`.";

/// The command line of the daemon. Each option can also be set by the environment variable named in its help, and by
/// the key of the same name in the configuration file.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(
    name = "observer",
    version,
    about = "Shows who talks to whom on this node, what was dropped, and why",
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// Configuration file (TOML).
    #[arg(long, env = "OBSERVER_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Play this recording instead of capturing, and serve its flows. Needs no rights.
    #[arg(long, value_name = "FILE", conflicts_with_all = FROM_THE_RECORDING)]
    replay: Option<PathBuf>,
    /// Play it N times as fast as it was recorded, or as fast as can be.
    #[arg(long, value_name = "N|max", default_value = "1", requires = "replay", value_parser = speed)]
    speed: Speed,
    /// Everything that a file can set too.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do instead of serving.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is done instead of serving.
#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Capture into a file that `observer --replay` plays: all that makes the flows, names included.
    Record(Box<RecordOptions>),
    /// Take out of the kernel what is left of observer in this network namespace, while none runs: programs that stayed
    /// to enforce policies, and filters of one that was killed.
    Detach,
}

/// The command line of `observer record`.
#[derive(Clone, Debug, clap::Args)]
struct RecordOptions {
    /// The file to write.
    file: PathBuf,
    /// End after so long [default: at SIGTERM or Ctrl-C].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Configuration file (TOML).
    #[arg(long, env = "OBSERVER_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's options. With a socket or an address the flows are served too.
    #[command(flatten)]
    settings: Settings,
}

impl Options {
    /// Reads the file, if there is one, and checks everything.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let Self { config, replay, speed, settings, command } = self;
        let (config, settings) = match &command {
            Some(Command::Record(record)) => (record.config.clone(), record.settings.clone()),
            // Of use also where the file isn't.
            Some(Command::Detach) => return Settings::default().check(Task::Detach),
            None => (config, settings),
        };
        let file = match &config {
            Some(path) => Settings::read(path)?,
            None => match Settings::read(&PathBuf::from(DEFAULT_FILE)) {
                Err(ConfigError::Unreadable { cause, .. })
                    if cause.kind() == std::io::ErrorKind::NotFound =>
                {
                    Settings::default()
                }
                result => result?,
            },
        };
        let settings = settings.or(file);
        let task = match (command, replay) {
            (Some(Command::Record(record)), _) => Task::Record(Record {
                file: record.file,
                time: record.seconds.map(|seconds| Duration::from_secs(seconds.into())),
                serves: settings.socket.is_some() || settings.listen.is_some(),
            }),
            (Some(Command::Detach), _) => Task::Detach,
            (None, Some(file)) => Task::Replay(Replay { file, speed: speed.0 }),
            (None, None) => Task::Serve,
        };
        settings.check(task)
    }
}

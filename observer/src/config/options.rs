//! What the user wrote: flags, environment and file in one shape, so that none of the three can lack an option.

use super::{
    Aggregation, Config, ConfigError, DEFAULT_FILE, LogFormat, LogLevel, Record, Replay, Task,
    replay::{FROM_THE_RECORDING, Speed, speed},
};
use crate::capture::Glob;
use ipnet::IpNet;
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Closes the help.
const AFTER_HELP: &str = "\
Every option but --config, --replay and --speed is also a key of the
configuration file, which is /etc/observer/observer.toml where none is named. A
flag wins over the environment, and the environment over the file.

It needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; for local names also
CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; a replay needs nothing. Read its flows
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
    Record(RecordOptions),
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

/// The options that flags, environment and file share.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Name of this node [default: the host name].
    #[arg(long, env = "OBSERVER_NODE_NAME", hide_env_values = true, value_name = "NAME")]
    node_name: Option<String>,
    /// Name of the cluster [default: default].
    #[arg(long, env = "OBSERVER_CLUSTER", hide_env_values = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Unix socket of Hubble's API [default: /run/observer/hubble.sock].
    #[arg(long, env = "OBSERVER_SOCKET", hide_env_values = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Unix socket of the control service, for root only [default: control.sock beside the other].
    #[arg(long, env = "OBSERVER_CONTROL_SOCKET", hide_env_values = true, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Serve Hubble's API on this TCP address too, such as 0.0.0.0:4244. Needs --insecure.
    #[arg(long, env = "OBSERVER_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Serve TCP without encryption: flows tell who talks to whom, so be sure who can connect.
    #[arg(long, env = "OBSERVER_INSECURE", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    insecure: Option<bool>,
    /// Inventory of nodes, pods and services (YAML), read again when it changes.
    #[arg(long, env = "OBSERVER_INVENTORY", hide_env_values = true, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Name local network namespaces, and what listens on the node, by container, unit or command [default: true].
    #[arg(long, env = "OBSERVER_LOCAL_NAMESPACES", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    local_namespaces: Option<bool>,
    /// Watch these interfaces too; `*` stands for any run of characters. Repeatable.
    #[arg(
        long = "interface",
        env = "OBSERVER_INTERFACE",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "GLOB"
    )]
    #[serde(default, rename = "interface")]
    interfaces: Vec<String>,
    /// How many packets of a connection become flows [default: medium].
    #[arg(long, env = "OBSERVER_AGGREGATION", value_enum, hide_env_values = true, value_name = "LEVEL")]
    aggregation: Option<Aggregation>,
    /// New connections told of per second and CPU; further ones are counted as suppressed [default: 20000].
    #[arg(long, env = "OBSERVER_NEW_FLOW_CAP", hide_env_values = true, value_name = "N")]
    new_flow_cap: Option<u32>,
    /// Kibibytes of the kernel's ring for flows: a power of two, 4 at least [default: 8192].
    #[arg(long, env = "OBSERVER_FLOW_RING_KIB", hide_env_values = true, value_name = "KIB")]
    flow_ring_kib: Option<usize>,
    /// Kibibytes of the kernel's ring for drops: a power of two, 4 at least [default: 2048].
    #[arg(long, env = "OBSERVER_PRIORITY_RING_KIB", hide_env_values = true, value_name = "KIB")]
    priority_ring_kib: Option<usize>,
    /// Kernel drop reasons to leave out, by the kernel's names, instead of the default list of noise.
    #[arg(
        long,
        env = "OBSERVER_IGNORE_DROP_REASONS",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "NAMES"
    )]
    ignore_drop_reasons: Option<Vec<String>>,
    /// Tell of drops anywhere on the host, not only in the node's network namespace and its pods'.
    #[arg(long, env = "OBSERVER_DROPS_HOST_WIDE", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    drops_host_wide: Option<bool>,
    /// Flows kept for readers [default: 65536].
    #[arg(long, env = "OBSERVER_MAX_FLOWS", hide_env_values = true, value_name = "N")]
    max_flows: Option<usize>,
    /// Mebibytes that the kept flows may take [default: 64].
    #[arg(long, env = "OBSERVER_MAX_MIB", hide_env_values = true, value_name = "MIB")]
    max_mib: Option<usize>,
    /// Nets to be told apart from the rest of the world, each with an identity of its own. Repeatable.
    #[arg(
        long = "cidr",
        env = "OBSERVER_CIDR",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "CIDR"
    )]
    #[serde(default, rename = "cidr")]
    cidrs: Vec<IpNet>,
    /// The least severe message that is logged [default: info].
    #[arg(long, env = "OBSERVER_LOG_LEVEL", value_enum, hide_env_values = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// The form of a log line [default: text].
    #[arg(long, env = "OBSERVER_LOG_FORMAT", value_enum, hide_env_values = true, value_name = "FORM")]
    log_format: Option<LogFormat>,
}

impl Options {
    /// Reads the file, if there is one, and checks everything.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let Self { config, replay, speed, settings, command } = self;
        let (config, settings) = match &command {
            Some(Command::Record(record)) => (record.config.clone(), record.settings.clone()),
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
            (Some(Command::Record(RecordOptions { file, seconds, .. })), _) => Task::Record(Record {
                file,
                time: seconds.map(|seconds| Duration::from_secs(seconds.into())),
                serves: settings.socket.is_some() || settings.listen.is_some(),
            }),
            (None, Some(file)) => Task::Replay(Replay { file, speed: speed.0 }),
            (None, None) => Task::Serve,
        };
        settings.check(task)
    }
}

impl Settings {
    fn read(path: &PathBuf) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { file: path.clone(), cause })?;
        toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            // An unknown key is in the message; of a bad value only the line tells the key.
            let key = before.rsplit('\n').next().and_then(|start| start.split_once('='));
            let key = key.map(|(key, _)| format!("{}: ", key.trim())).unwrap_or_default();
            ConfigError::Invalid { file: path.clone(), line, problem: format!("{key}{}", error.message()) }
        })
    }

    fn or(self, file: Self) -> Self {
        Self {
            node_name: self.node_name.or(file.node_name),
            cluster: self.cluster.or(file.cluster),
            socket: self.socket.or(file.socket),
            control_socket: self.control_socket.or(file.control_socket),
            listen: self.listen.or(file.listen),
            insecure: self.insecure.or(file.insecure),
            inventory: self.inventory.or(file.inventory),
            local_namespaces: self.local_namespaces.or(file.local_namespaces),
            interfaces: if self.interfaces.is_empty() { file.interfaces } else { self.interfaces },
            aggregation: self.aggregation.or(file.aggregation),
            new_flow_cap: self.new_flow_cap.or(file.new_flow_cap),
            flow_ring_kib: self.flow_ring_kib.or(file.flow_ring_kib),
            priority_ring_kib: self.priority_ring_kib.or(file.priority_ring_kib),
            ignore_drop_reasons: self.ignore_drop_reasons.or(file.ignore_drop_reasons),
            drops_host_wide: self.drops_host_wide.or(file.drops_host_wide),
            max_flows: self.max_flows.or(file.max_flows),
            max_mib: self.max_mib.or(file.max_mib),
            cidrs: if self.cidrs.is_empty() { file.cidrs } else { self.cidrs },
            log_level: self.log_level.or(file.log_level),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn check(self, task: Task) -> Result<Config, ConfigError> {
        let value = |field, problem: String| ConfigError::Value { field, problem };
        if self.listen.is_some() && !self.insecure.unwrap_or(false) {
            return Err(value(
                "--listen",
                "TCP is served without encryption so far: add --insecure if that is meant".to_owned(),
            ));
        }
        let node_name = match self.node_name {
            Some(name) => name,
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        if node_name.is_empty() || node_name.contains('/') {
            return Err(value(
                "--node-name",
                format!("`{node_name}` is no node name: it is empty or has a `/`"),
            ));
        }
        let cluster = self.cluster.unwrap_or_else(|| "default".to_owned());
        if cluster.is_empty() || cluster.contains('/') {
            return Err(value(
                "--cluster",
                format!("`{cluster}` is no cluster name: it is empty or has a `/`"),
            ));
        }
        let socket = self.socket.unwrap_or_else(|| "/run/observer/hubble.sock".into());
        let control_socket = self.control_socket.unwrap_or_else(|| socket.with_file_name("control.sock"));
        if socket == control_socket {
            return Err(value(
                "--control-socket",
                "is the same path as --socket: they must differ".to_owned(),
            ));
        }
        let interfaces = self
            .interfaces
            .iter()
            .map(|glob| glob.parse::<Glob>().map_err(|problem| value("--interface", problem)))
            .collect::<Result<_, _>>()?;
        let max_flows = bounded("--max-flows", self.max_flows.unwrap_or(65_536), 1_024, 1 << 26)?;
        let max_mib = bounded("--max-mib", self.max_mib.unwrap_or(64), 1, 1 << 20)?;
        let new_flow_cap =
            bounded("--new-flow-cap", self.new_flow_cap.unwrap_or(20_000) as usize, 1, 10_000_000)?;
        Ok(Config {
            task,
            node_name,
            cluster,
            socket,
            control_socket,
            listen: self.listen,
            inventory: self.inventory,
            local_namespaces: self.local_namespaces.unwrap_or(true),
            interfaces,
            aggregation: self.aggregation.unwrap_or_default(),
            new_flow_cap: new_flow_cap as u32,
            flow_ring_bytes: ring_bytes("--flow-ring-kib", self.flow_ring_kib.unwrap_or(8192))?,
            priority_ring_bytes: ring_bytes("--priority-ring-kib", self.priority_ring_kib.unwrap_or(2048))?,
            ignored_drop_reasons: self.ignore_drop_reasons,
            drops_host_wide: self.drops_host_wide.unwrap_or(false),
            max_flows,
            max_bytes: max_mib << 20,
            cidrs: self.cidrs,
            log_level: self.log_level.unwrap_or_default(),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

fn bounded(field: &'static str, value: usize, least: usize, most: usize) -> Result<usize, ConfigError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::Value { field, problem: format!("{value} is out of range: {least} to {most}") })
    }
}

/// The kernel takes rings of whole pages whose number is a power of two.
fn ring_bytes(field: &'static str, kib: usize) -> Result<u32, ConfigError> {
    let page = (rustix::param::page_size() >> 10).max(1);
    let kib = bounded(field, kib, page, 1 << 20)?;
    if !kib.is_power_of_two() {
        let (below, above) = (kib.next_power_of_two() / 2, kib.next_power_of_two());
        let problem = format!("{kib} is no power of two: the nearest are {below} and {above}");
        return Err(ConfigError::Value { field, problem });
    }
    Ok((kib << 10) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureConfig;
    use clap::{CommandFactory as _, Parser as _};
    use std::io::Write as _;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn resolve(args: &[&str]) -> Result<Config, ConfigError> {
        Options::try_parse_from(std::iter::once(&"observer").chain(args)).unwrap().resolve()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file =
            file("cluster = \"blue\"\nmax-flows = 4096\naggregation = \"low\"\ninterface = [\"eth*\"]\n");
        let path = file.path().to_str().unwrap();
        let config = resolve(&["--config", path, "--aggregation", "none"]).unwrap();
        assert_eq!(config.cluster, "blue");
        assert_eq!(config.max_flows, 4096);
        assert_eq!(config.aggregation, Aggregation::None);
        assert!(config.interfaces[0].matches("eth7"));
        assert_eq!(config.max_bytes, 64 << 20);
        let rings = CaptureConfig::default();
        assert_eq!(
            (config.flow_ring_bytes, config.priority_ring_bytes),
            (rings.flow_ring_bytes, rings.priority_ring_bytes)
        );
        assert_eq!(config.control_socket, PathBuf::from("/run/observer/control.sock"));
    }

    #[test]
    fn every_setting_is_a_key_of_the_file() {
        let switches = ["config", "help", "version", "replay", "speed"];
        for arg in Options::command().get_arguments().filter_map(clap::Arg::get_long) {
            if switches.contains(&arg) {
                continue;
            }
            // A value of no setting's type: the error must be about the value, never about the key.
            let error = toml::from_str::<Settings>(&format!("{arg} = {{}}")).unwrap_err();
            assert!(!error.message().contains("unknown field"), "{arg}: {}", error.message());
        }
    }

    #[test]
    fn a_recording_is_made_or_played() {
        assert_eq!(resolve(&[]).unwrap().task, Task::Serve);
        let file = PathBuf::from("f");
        let config = resolve(&["record", "f", "--seconds", "5", "--aggregation", "low"]).unwrap();
        assert_eq!(config.aggregation, Aggregation::Low);
        let time = Some(Duration::from_secs(5));
        assert_eq!(config.task, Task::Record(Record { file: file.clone(), time, serves: false }));
        let config = resolve(&["record", "f", "--socket", "/s"]).unwrap();
        assert_eq!(config.task, Task::Record(Record { file: file.clone(), time: None, serves: true }));
        for (args, speed) in [
            (vec!["--replay", "f"], Some(1.0)),
            (vec!["--replay", "f", "--speed", "0.5"], Some(0.5)),
            (vec!["--replay", "f", "--speed", "max"], None),
        ] {
            assert_eq!(resolve(&args).unwrap().task, Task::Replay(Replay { file: file.clone(), speed }));
        }
        for args in [
            &["--replay", "f", "--speed", "0"][..],
            &["--replay", "f", "--speed", "inf"],
            &["--speed", "2"],
            &["--replay", "f", "--node-name", "n"],
            &["--aggregation", "low", "record", "f"],
            &["record", "f", "--seconds", "0"],
            &["record"],
        ] {
            assert!(Options::try_parse_from(std::iter::once(&"observer").chain(args)).is_err(), "{args:?}");
        }
    }

    #[test]
    fn wrong_values_are_named_with_what_would_be_right() {
        let unknown = file("cluster = \"a\"\n\nagregation = \"low\"\n");
        let path = unknown.path().to_str().unwrap().to_owned();
        for (args, wanted) in [
            (vec!["--config", path.as_str()], ":3: unknown field `agregation`, expected one of"),
            (vec!["--config", "/nonexistent.toml"], "cannot read the configuration /nonexistent.toml"),
            (
                vec!["--listen", "0.0.0.0:4244"],
                "--listen: TCP is served without encryption so far: add --insecure",
            ),
            (vec!["--max-flows", "3"], "--max-flows: 3 is out of range: 1024 to 67108864"),
            (vec!["--flow-ring-kib", "2"], "--flow-ring-kib: 2 is out of range: 4 to 1048576"),
            (
                vec!["--priority-ring-kib", "100"],
                "--priority-ring-kib: 100 is no power of two: the nearest are 64 and 128",
            ),
            (vec!["--node-name", "a/b"], "--node-name: `a/b` is no node name"),
            (
                vec!["--interface", "a-name-that-is-too-long"],
                "--interface: `a-name-that-is-too-long` matches no",
            ),
            (vec!["--socket", "/a", "--control-socket", "/a"], "--control-socket: is the same path"),
        ] {
            let error = resolve(&args).unwrap_err().to_string();
            assert!(error.contains(wanted), "{args:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

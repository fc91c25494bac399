//! The daemon's configuration: flags, then environment (`OBSERVER_*`), then the TOML file, then the defaults.
//!
//! [`Options`] is what was written, every field optional; [`Config`] is checked and ready to run. No other
//! module sees a clap type.

mod l7_ports;
mod options;
mod replay;
mod settings;
#[cfg(test)]
mod tests;
mod transport;

pub use options::Options;

use ipnet::IpNet;
use observer_ebpf::PayloadPorts;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    capture::Glob, enrich::kubernetes::KubernetesConfig, export::ExportConfig, history::HistoryConfig,
    l7::Redaction, metrics::MetricsConfig, policy::PolicyConfig, serve::TlsConfig,
};

/// Where the configuration file is looked for when `--config` is not given; a missing file there is no error.
pub const DEFAULT_FILE: &str = "/etc/observer/observer.toml";

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is to be done.
    pub task: Task,
    /// Name of this node, as it stands in flows behind the cluster's name.
    pub node_name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Unix socket of Hubble's API.
    pub socket: PathBuf,
    /// Unix socket of the control service, for root only.
    pub control_socket: PathBuf,
    /// TCP address of Hubble's API, if it is served there at all.
    pub listen: Option<SocketAddr>,
    /// Its certificate; without, TCP is plain.
    pub tls: Option<TlsConfig>,
    /// The inventory file, if there is one.
    pub inventory: Option<PathBuf>,
    /// What is learnt from the Kubernetes API, if anything is.
    pub kubernetes: Option<KubernetesConfig>,
    /// The policies that connections are judged by, if any.
    pub policy: PolicyConfig,
    /// Whether local network namespaces are a source of names.
    pub local_namespaces: bool,
    /// Globs of further interfaces to watch.
    pub interfaces: Vec<Glob>,
    /// How many packets of a connection become flows.
    pub aggregation: Aggregation,
    /// New connections told of per second and CPU; more are counted as suppressed.
    pub new_flow_cap: u32,
    /// What is read inside connections.
    pub l7: L7,
    /// Where it is looked for.
    pub l7_ports: PayloadPorts,
    /// What of it is not told.
    pub redaction: Redaction,
    /// Bytes of the kernel's ring for flows.
    pub flow_ring_bytes: u32,
    /// Bytes of the kernel's ring for drops.
    pub priority_ring_bytes: u32,
    /// Kernel drop reasons that are not told of, instead of the default list.
    pub ignored_drop_reasons: Option<Vec<String>>,
    /// Tell of drops anywhere on the host, not only in the node's namespace and its pods'.
    pub drops_host_wide: bool,
    /// Flows kept for readers.
    pub max_flows: usize,
    /// Bytes that the kept flows may take.
    pub max_bytes: usize,
    /// Nets whose addresses are named by their CIDR identity.
    pub cidrs: Vec<IpNet>,
    /// What is written to files.
    pub export: ExportConfig,
    /// What is kept on the disk, if anything is.
    pub history: Option<HistoryConfig>,
    /// Metrics, if they are served.
    pub metrics: Option<MetricsConfig>,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// What the daemon does.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Captures and serves.
    Serve,
    /// Captures and records.
    Record(Record),
    /// Plays a recording and serves it.
    Replay(Replay),
    /// Takes out of the kernel what daemons left there.
    Detach,
}

/// What to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where to.
    pub file: PathBuf,
    /// For how long; nothing: until a signal.
    pub time: Option<Duration>,
    /// Whether the flows are served too.
    pub serves: bool,
}

/// What to play.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The recording.
    pub file: PathBuf,
    /// How many times as fast as it was recorded; nothing: as fast as can be.
    pub speed: Option<f64>,
}

/// How many packets of a connection become flows; Cilium's names and meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Every packet, at every link it crosses.
    None,
    /// Every packet, once.
    Low,
    /// New connections, each new TCP flag, and every 5 seconds while active.
    #[default]
    Medium,
    /// New connections, their first reply and their end.
    Maximum,
}

/// What is read inside connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum L7 {
    /// Nothing.
    #[default]
    Off,
    /// DNS.
    Dns,
    /// HTTP/1.
    Http,
    /// How TLS begins: the server's name, the version.
    Tls,
    /// All of these.
    All,
}

impl L7 {
    /// Bits of that of which there are golden signals.
    pub const SIGNALS: u32 = observer_ebpf::l7::DNS | observer_ebpf::l7::HTTP;

    /// Bits of [`observer_ebpf::l7`].
    pub fn bits(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Dns => observer_ebpf::l7::DNS,
            Self::Http => observer_ebpf::l7::HTTP,
            Self::Tls => observer_ebpf::l7::TLS,
            Self::All => Self::SIGNALS | observer_ebpf::l7::TLS,
        }
    }
}

/// What becomes of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyMode {
    /// It is evaluated: its hits are counted, no verdict is told.
    Observe,
    /// Verdicts are told, AUDIT where it would deny; nothing is dropped.
    #[default]
    Audit,
    /// What it denies is dropped.
    Enforce,
}

impl From<PolicyMode> for observer_policy::model::Mode {
    fn from(mode: PolicyMode) -> Self {
        match mode {
            PolicyMode::Observe => Self::Observe,
            PolicyMode::Audit => Self::Audit,
            PolicyMode::Enforce => Self::Enforce,
        }
    }
}

/// Whether policies count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyEnforcement {
    /// Each in its mode.
    #[default]
    Default,
    /// Nothing is judged.
    Never,
}

/// What becomes of a pod's connections before it is known who the pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownIdentity {
    /// They pass, told as AUDIT.
    #[default]
    Allow,
    /// They are dropped.
    Deny,
}

/// What becomes of new connections whose requests are to be judged while no daemon is there to do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum L7OnFailure {
    /// They pass, and their requests are not judged.
    Allow,
    /// They are dropped.
    #[default]
    Deny,
}

/// Whose reading of a NetworkPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDialect {
    /// What Kubernetes' documentation and tests say.
    #[default]
    Kubernetes,
    /// Where Cilium differs, what it makes of it.
    Cilium,
}

impl From<PolicyDialect> for observer_policy::Dialect {
    fn from(dialect: PolicyDialect) -> Self {
        match dialect {
            PolicyDialect::Kubernetes => Self::Kubernetes,
            PolicyDialect::Cilium => Self::Cilium,
        }
    }
}

/// The least severe message that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Only what stops the daemon or a part of it.
    Error,
    /// Also what is worse than it should be.
    Warn,
    /// Also what a reader of the log wants to know of a healthy daemon.
    #[default]
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named can't be read.
    #[error("cannot read the configuration {file}: {cause}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is no TOML, or has a key or value that does not exist.
    #[error("{file}:{line}: {problem}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A value of the exporter that flags describe.
    #[error("--export-{flag}: {problem}")]
    Export {
        /// The option, as its flag is written behind `--export-`.
        flag: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A value that can't be.
    #[error("{field}: {problem}")]
    Value {
        /// The option, as its flag is written.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

//! What the user set: flags, environment and file in one shape, so that none of the three can lack an option.

mod check;

use super::{
    Aggregation, ConfigError, L7, L7OnFailure, LogFormat, LogLevel, PolicyDialect, PolicyEnforcement,
    PolicyMode, UnknownIdentity,
};
use ipnet::IpNet;
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

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
    pub(super) socket: Option<PathBuf>,
    /// Unix socket of the control service, for root only [default: control.sock beside the other].
    #[arg(long, env = "OBSERVER_CONTROL_SOCKET", hide_env_values = true, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Serve Hubble's API on this TCP address too, such as 0.0.0.0:4244. Needs a certificate, or --insecure.
    #[arg(long, env = "OBSERVER_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// The server's certificate for TCP, then those that lead from it to its CA (PEM). Read again when it changes, as
    /// are the key and the CAs.
    #[arg(long, env = "OBSERVER_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// The certificate's private key (PEM, unencrypted).
    #[arg(long, env = "OBSERVER_TLS_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// Serve TCP only to clients with a certificate of these CAs (PEM). Repeatable.
    #[arg(
        long,
        env = "OBSERVER_TLS_CLIENT_CA_FILES",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "FILES"
    )]
    #[serde(default)]
    tls_client_ca_files: Vec<PathBuf>,
    /// Serve TCP without encryption: flows tell who talks to whom, so be sure who can connect.
    #[arg(long, env = "OBSERVER_INSECURE", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    insecure: Option<bool>,
    /// Inventory of nodes, pods and services (YAML), read again when it changes.
    #[arg(long, env = "OBSERVER_INVENTORY", hide_env_values = true, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Learn pods, nodes and services from the Kubernetes API, as they come and go (docs/kubernetes.md) [default: false].
    #[arg(long, env = "OBSERVER_KUBERNETES", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    kubernetes: Option<bool>,
    /// How the API server is reached [default: as kubectl finds it, else by the pod's service account].
    #[arg(long, env = "OBSERVER_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Judge new connections by the NetworkPolicies and Cilium policies of the Kubernetes API [default: false].
    #[arg(long, env = "OBSERVER_KUBERNETES_POLICIES", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    kubernetes_policies: Option<bool>,
    /// Which pods are this daemon on other nodes, for relays, such as observer/app=observer:4244.
    #[arg(
        long,
        env = "OBSERVER_KUBERNETES_PEERS",
        hide_env_values = true,
        value_name = "NAMESPACE/LABELS[:PORT]"
    )]
    kubernetes_peers: Option<String>,
    /// Write Kubernetes Events about packets that enforced policies drop, some a minute [default: false].
    #[arg(long, env = "OBSERVER_KUBERNETES_EVENTS", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    kubernetes_events: Option<bool>,
    /// Judge new connections by the policies in these files and folders (YAML, JSON), read again when they change.
    /// Repeatable.
    #[arg(
        long = "policy",
        env = "OBSERVER_POLICY",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "PATHS"
    )]
    #[serde(default, rename = "policy")]
    policies: Vec<PathBuf>,
    /// What becomes of policies that don't say it themselves, by the annotation observer/policy-mode [default: audit].
    #[arg(long, env = "OBSERVER_POLICY_MODE", value_enum, hide_env_values = true, value_name = "MODE")]
    policy_mode: Option<PolicyMode>,
    /// Whether policies count: each in its mode, or nothing is judged [default: default].
    #[arg(
        long,
        env = "OBSERVER_POLICY_ENFORCEMENT",
        value_enum,
        hide_env_values = true,
        value_name = "WHETHER"
    )]
    policy_enforcement: Option<PolicyEnforcement>,
    /// Drop nothing: what asks for mode enforce is in mode audit.
    #[arg(long, env = "OBSERVER_POLICY_AUDIT_MODE", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    policy_audit_mode: Option<bool>,
    /// What becomes of a pod's connections before it is known who the pod is [default: allow].
    #[arg(long, env = "OBSERVER_UNKNOWN_IDENTITY", value_enum, hide_env_values = true, value_name = "WHAT")]
    unknown_identity: Option<UnknownIdentity>,
    /// What becomes of new connections whose requests are to be judged while no daemon is there to do it [default: deny].
    #[arg(long, env = "OBSERVER_L7_ON_FAILURE", value_enum, hide_env_values = true, value_name = "WHAT")]
    l7_on_failure: Option<L7OnFailure>,
    /// Enforce also policies that cut this node off from the Kubernetes API, DNS, those logged in by SSH or this
    /// daemon's clients.
    #[arg(long, env = "OBSERVER_ALLOW_LOCKOUT", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    allow_lockout: Option<bool>,
    /// What is kept over a restart: the modes that `observe policy mode` said [default: /var/lib/observer].
    #[arg(long, env = "OBSERVER_STATE_DIR", hide_env_values = true, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Whose reading of a NetworkPolicy: what Kubernetes says, or what Cilium makes of it [default: kubernetes].
    #[arg(long, env = "OBSERVER_POLICY_DIALECT", value_enum, hide_env_values = true, value_name = "DIALECT")]
    policy_dialect: Option<PolicyDialect>,
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
    /// What is read inside connections, wherever it is spoken [default: off].
    #[arg(long, env = "OBSERVER_L7", value_enum, hide_env_values = true, value_name = "WHAT")]
    l7: Option<L7>,
    /// Look for what is named here at these ports only, such as `dns=53,5353 http=80,8080 tls=443`; at those of DNS anything is DNS.
    #[arg(long, env = "OBSERVER_L7_PORTS", hide_env_values = true, value_name = "PORTS")]
    l7_ports: Option<String>,
    /// Leave the query out of URLs.
    #[arg(long, env = "OBSERVER_REDACT_HTTP_URLQUERY", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    redact_http_urlquery: Option<bool>,
    /// Leave the password out of URLs [default: true].
    #[arg(long, env = "OBSERVER_REDACT_HTTP_USERINFO", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    redact_http_userinfo: Option<bool>,
    /// Tell of HTTP's header fields the values of these only.
    #[arg(
        long,
        env = "OBSERVER_REDACT_HTTP_HEADERS_ALLOW",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "NAMES"
    )]
    redact_http_headers_allow: Option<Vec<String>>,
    /// Leave out the values of these header fields [default: authorization, cookie, proxy-authorization, set-cookie].
    #[arg(
        long,
        env = "OBSERVER_REDACT_HTTP_HEADERS_DENY",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "NAMES"
    )]
    redact_http_headers_deny: Option<Vec<String>>,
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
    /// Write flows as lines of JSON to this file, or to `stdout` (docs/export.md).
    #[arg(
        long,
        alias = "hubble-export-file-path",
        env = "OBSERVER_EXPORT_FILE_PATH",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[serde(alias = "hubble-export-file-path")]
    export_file_path: Option<PathBuf>,
    /// MB of that file after which it is renamed and a new one begun [default: 10].
    #[arg(
        long,
        alias = "hubble-export-file-max-size-mb",
        env = "OBSERVER_EXPORT_FILE_MAX_SIZE_MB",
        hide_env_values = true,
        value_name = "MB"
    )]
    #[serde(alias = "hubble-export-file-max-size-mb")]
    export_file_max_size_mb: Option<u64>,
    /// How many renamed files are kept [default: 5].
    #[arg(
        long,
        alias = "hubble-export-file-max-backups",
        env = "OBSERVER_EXPORT_FILE_MAX_BACKUPS",
        hide_env_values = true,
        value_name = "N"
    )]
    #[serde(alias = "hubble-export-file-max-backups")]
    export_file_max_backups: Option<usize>,
    /// Pack renamed files by gzip [default: false].
    #[arg(long, alias = "hubble-export-file-compress", env = "OBSERVER_EXPORT_FILE_COMPRESS", num_args = 0..=1, default_missing_value = "true", hide_env_values = true, value_name = "BOOL")]
    #[serde(alias = "hubble-export-file-compress")]
    export_file_compress: Option<bool>,
    /// Export only flows that one of these filters takes: FlowFilter messages as JSON objects.
    #[arg(
        long,
        alias = "hubble-export-allowlist",
        env = "OBSERVER_EXPORT_ALLOWLIST",
        hide_env_values = true,
        value_name = "FILTERS"
    )]
    #[serde(alias = "hubble-export-allowlist")]
    export_allowlist: Option<String>,
    /// Export no flow that one of these filters takes.
    #[arg(
        long,
        alias = "hubble-export-denylist",
        env = "OBSERVER_EXPORT_DENYLIST",
        hide_env_values = true,
        value_name = "FILTERS"
    )]
    #[serde(alias = "hubble-export-denylist")]
    export_denylist: Option<String>,
    /// Export only these fields of a flow, such as time,source.pod_name,verdict. Repeatable.
    #[arg(
        long,
        alias = "hubble-export-fieldmask",
        env = "OBSERVER_EXPORT_FIELDMASK",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "FIELDS"
    )]
    #[serde(default, alias = "hubble-export-fieldmask")]
    export_fieldmask: Vec<String>,
    /// Export one line for flows of which these fields are equal, with how many they were. Repeatable.
    #[arg(
        long,
        alias = "hubble-export-fieldaggregate",
        env = "OBSERVER_EXPORT_FIELDAGGREGATE",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "FIELDS"
    )]
    #[serde(default, alias = "hubble-export-fieldaggregate")]
    export_fieldaggregate: Vec<String>,
    /// How often such lines are written, such as 30s [default: 0s, no such lines].
    #[arg(
        long,
        alias = "hubble-export-aggregation-interval",
        env = "OBSERVER_EXPORT_AGGREGATION_INTERVAL",
        hide_env_values = true,
        value_name = "DURATION"
    )]
    #[serde(alias = "hubble-export-aggregation-interval")]
    export_aggregation_interval: Option<String>,
    /// Send flows as OpenTelemetry's logs to this Collector, such as http://collector:4317 (docs/export.md).
    #[arg(long, env = "OBSERVER_EXPORT_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    export_otlp_endpoint: Option<String>,
    /// Headers that it gets, such as authorization=Bearer x; the environment keeps them from other users' eyes. Repeatable.
    #[arg(
        long,
        env = "OBSERVER_EXPORT_OTLP_HEADERS",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "NAME=VALUE"
    )]
    #[serde(default)]
    export_otlp_headers: Vec<String>,
    /// Certificates (PEM) of the authorities that the Collector's is of [default: the machine's own].
    #[arg(long, env = "OBSERVER_EXPORT_OTLP_CA_FILE", hide_env_values = true, value_name = "FILE")]
    export_otlp_ca_file: Option<PathBuf>,
    /// Attributes of the resource beside the node's, such as deployment.environment=test. Repeatable.
    #[arg(
        long,
        env = "OBSERVER_EXPORT_OTLP_RESOURCE_ATTRIBUTES",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "NAME=VALUE"
    )]
    #[serde(default)]
    export_otlp_resource_attributes: Vec<String>,
    /// More exports, each with a name and filters, in Cilium's form (YAML), read again when it changes.
    #[arg(
        long,
        alias = "hubble-flowlogs-config-path",
        env = "OBSERVER_FLOWLOGS_CONFIG_PATH",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[serde(alias = "hubble-flowlogs-config-path")]
    flowlogs_config_path: Option<PathBuf>,
    /// Serve metrics for Prometheus, /healthz and /readyz by plain HTTP on this address, such as 127.0.0.1:9965.
    #[arg(
        long,
        alias = "hubble-metrics-server",
        env = "OBSERVER_METRICS_SERVER",
        hide_env_values = true,
        value_name = "ADDRESS:PORT"
    )]
    #[serde(alias = "hubble-metrics-server")]
    metrics_server: Option<String>,
    /// Hubble's metrics of flows to serve there, with their options, such as `drop flow:sourceContext=workload` (docs/metrics.md).
    #[arg(
        long,
        alias = "hubble-metrics",
        env = "OBSERVER_METRICS",
        hide_env_values = true,
        value_name = "METRICS"
    )]
    #[serde(alias = "hubble-metrics")]
    metrics: Option<String>,
    /// The same by a file in Cilium's form (YAML), read again when it changes.
    #[arg(
        long,
        alias = "hubble-dynamic-metrics-config-path",
        env = "OBSERVER_DYNAMIC_METRICS_CONFIG_PATH",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[serde(alias = "hubble-dynamic-metrics-config-path")]
    dynamic_metrics_config_path: Option<PathBuf>,
    /// Series of flows that there may be; what has no room is summed as `other` [default: 10000].
    #[arg(long, env = "OBSERVER_METRICS_MAX_SERIES", hide_env_values = true, value_name = "N")]
    metrics_max_series: Option<usize>,
    /// Keep flows in this folder, so that questions reach past what is in memory and past a restart (docs/history.md).
    #[arg(long, env = "OBSERVER_HISTORY", hide_env_values = true, value_name = "FOLDER")]
    history: Option<PathBuf>,
    /// MiB that they may take; the oldest go [default: 1024].
    #[arg(long, env = "OBSERVER_HISTORY_MAX_MIB", hide_env_values = true, value_name = "N")]
    history_max_mib: Option<u64>,
    /// How old they may get, such as 72h [default: 168h].
    #[arg(long, env = "OBSERVER_HISTORY_MAX_AGE", hide_env_values = true, value_name = "DURATION")]
    history_max_age: Option<String>,
    /// Flows of how long a time may be lost when the daemon or the machine falls [default: 1s].
    #[arg(long, env = "OBSERVER_HISTORY_MAX_LOSS", hide_env_values = true, value_name = "DURATION")]
    history_max_loss: Option<String>,
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

impl Settings {
    pub(super) fn read(path: &PathBuf) -> Result<Self, ConfigError> {
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

    pub(super) fn or(self, file: Self) -> Self {
        Self {
            node_name: self.node_name.or(file.node_name),
            cluster: self.cluster.or(file.cluster),
            socket: self.socket.or(file.socket),
            control_socket: self.control_socket.or(file.control_socket),
            listen: self.listen.or(file.listen),
            tls_cert_file: self.tls_cert_file.or(file.tls_cert_file),
            tls_key_file: self.tls_key_file.or(file.tls_key_file),
            tls_client_ca_files: if self.tls_client_ca_files.is_empty() {
                file.tls_client_ca_files
            } else {
                self.tls_client_ca_files
            },
            insecure: self.insecure.or(file.insecure),
            inventory: self.inventory.or(file.inventory),
            kubernetes: self.kubernetes.or(file.kubernetes),
            kubeconfig: self.kubeconfig.or(file.kubeconfig),
            kubernetes_policies: self.kubernetes_policies.or(file.kubernetes_policies),
            kubernetes_peers: self.kubernetes_peers.or(file.kubernetes_peers),
            kubernetes_events: self.kubernetes_events.or(file.kubernetes_events),
            policies: if self.policies.is_empty() { file.policies } else { self.policies },
            policy_mode: self.policy_mode.or(file.policy_mode),
            policy_enforcement: self.policy_enforcement.or(file.policy_enforcement),
            policy_audit_mode: self.policy_audit_mode.or(file.policy_audit_mode),
            unknown_identity: self.unknown_identity.or(file.unknown_identity),
            l7_on_failure: self.l7_on_failure.or(file.l7_on_failure),
            allow_lockout: self.allow_lockout.or(file.allow_lockout),
            state_dir: self.state_dir.or(file.state_dir),
            policy_dialect: self.policy_dialect.or(file.policy_dialect),
            local_namespaces: self.local_namespaces.or(file.local_namespaces),
            interfaces: if self.interfaces.is_empty() { file.interfaces } else { self.interfaces },
            aggregation: self.aggregation.or(file.aggregation),
            new_flow_cap: self.new_flow_cap.or(file.new_flow_cap),
            l7: self.l7.or(file.l7),
            l7_ports: self.l7_ports.or(file.l7_ports),
            redact_http_urlquery: self.redact_http_urlquery.or(file.redact_http_urlquery),
            redact_http_userinfo: self.redact_http_userinfo.or(file.redact_http_userinfo),
            redact_http_headers_allow: self.redact_http_headers_allow.or(file.redact_http_headers_allow),
            redact_http_headers_deny: self.redact_http_headers_deny.or(file.redact_http_headers_deny),
            flow_ring_kib: self.flow_ring_kib.or(file.flow_ring_kib),
            priority_ring_kib: self.priority_ring_kib.or(file.priority_ring_kib),
            ignore_drop_reasons: self.ignore_drop_reasons.or(file.ignore_drop_reasons),
            drops_host_wide: self.drops_host_wide.or(file.drops_host_wide),
            max_flows: self.max_flows.or(file.max_flows),
            max_mib: self.max_mib.or(file.max_mib),
            export_file_path: self.export_file_path.or(file.export_file_path),
            export_file_max_size_mb: self.export_file_max_size_mb.or(file.export_file_max_size_mb),
            export_file_max_backups: self.export_file_max_backups.or(file.export_file_max_backups),
            export_file_compress: self.export_file_compress.or(file.export_file_compress),
            export_allowlist: self.export_allowlist.or(file.export_allowlist),
            export_denylist: self.export_denylist.or(file.export_denylist),
            export_fieldmask: if self.export_fieldmask.is_empty() {
                file.export_fieldmask
            } else {
                self.export_fieldmask
            },
            export_fieldaggregate: if self.export_fieldaggregate.is_empty() {
                file.export_fieldaggregate
            } else {
                self.export_fieldaggregate
            },
            export_aggregation_interval: self
                .export_aggregation_interval
                .or(file.export_aggregation_interval),
            export_otlp_endpoint: self.export_otlp_endpoint.or(file.export_otlp_endpoint),
            export_otlp_headers: if self.export_otlp_headers.is_empty() {
                file.export_otlp_headers
            } else {
                self.export_otlp_headers
            },
            export_otlp_ca_file: self.export_otlp_ca_file.or(file.export_otlp_ca_file),
            export_otlp_resource_attributes: if self.export_otlp_resource_attributes.is_empty() {
                file.export_otlp_resource_attributes
            } else {
                self.export_otlp_resource_attributes
            },
            flowlogs_config_path: self.flowlogs_config_path.or(file.flowlogs_config_path),
            metrics_server: self.metrics_server.or(file.metrics_server),
            metrics: self.metrics.or(file.metrics),
            dynamic_metrics_config_path: self
                .dynamic_metrics_config_path
                .or(file.dynamic_metrics_config_path),
            metrics_max_series: self.metrics_max_series.or(file.metrics_max_series),
            history: self.history.or(file.history),
            history_max_mib: self.history_max_mib.or(file.history_max_mib),
            history_max_age: self.history_max_age.or(file.history_max_age),
            history_max_loss: self.history_max_loss.or(file.history_max_loss),
            cidrs: if self.cidrs.is_empty() { file.cidrs } else { self.cidrs },
            log_level: self.log_level.or(file.log_level),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

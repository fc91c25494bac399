//! Settings -> a [`Config`] that is ready to run.

use super::Settings;
use crate::{
    capture::Glob,
    config::{
        Config, ConfigError, L7OnFailure, PolicyEnforcement, Task, UnknownIdentity, l7_ports,
        transport::Transport,
    },
    enrich::kubernetes::KubernetesConfig,
    export::{self, ExportConfig},
    history::HistoryConfig,
    l7::Redaction,
    metrics::{self, MetricsConfig},
    policy::{Cap, PolicyConfig},
};
use observer_kubernetes::{Access, PeerError};
use observer_policy::model::Mode;
use observer_proto::time::parse_duration;
use std::time::Duration;

impl Settings {
    /// What no policy exceeds.
    fn cap(&self) -> Option<Cap> {
        if self.policy_enforcement == Some(PolicyEnforcement::Never) {
            Some(Cap { most: Mode::Observe, why: "nothing is judged by --policy-enforcement never".into() })
        } else if self.policy_audit_mode == Some(true) {
            Some(Cap { most: Mode::Audit, why: "nothing is dropped by --policy-audit-mode".into() })
        } else {
            None
        }
    }

    pub(in crate::config) fn check(mut self, task: Task) -> Result<Config, ConfigError> {
        let cap = self.cap();
        let (export, metrics) = self.out_of_flows()?;
        let history = self.history()?;
        let kubernetes = self.kubernetes()?;
        let value = |field, problem: String| ConfigError::Value { field, problem };
        let tls = Transport {
            listens: self.listen.is_some(),
            insecure: self.insecure.unwrap_or(false),
            certificate: self.tls_cert_file,
            key: self.tls_key_file,
            client_cas: self.tls_client_ca_files,
        }
        .check()?;
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
        let l7 = self.l7.unwrap_or_default();
        let l7_ports = l7_ports::read(self.l7_ports.as_deref().unwrap_or_default(), l7)
            .map_err(|problem| value("--l7-ports", problem))?;
        let usual = Redaction::default();
        Ok(Config {
            task,
            export,
            metrics,
            history,
            node_name,
            cluster,
            socket,
            control_socket,
            listen: self.listen,
            tls,
            inventory: self.inventory,
            policy: PolicyConfig {
                files: self.policies,
                of_kubernetes: kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.policies),
                mode: self.policy_mode.unwrap_or_default().into(),
                dialect: self.policy_dialect.unwrap_or_default().into(),
                cap,
                unknown_denied: self.unknown_identity == Some(UnknownIdentity::Deny),
                l7_on_failure_allows: self.l7_on_failure == Some(L7OnFailure::Allow),
                allow_lockout: self.allow_lockout.unwrap_or(false),
                own_port: self.listen.map(|address| address.port()),
                state_dir: Some(self.state_dir.unwrap_or_else(|| "/var/lib/observer".into())),
            },
            kubernetes,
            local_namespaces: self.local_namespaces.unwrap_or(true),
            interfaces,
            aggregation: self.aggregation.unwrap_or_default(),
            new_flow_cap: new_flow_cap as u32,
            l7,
            l7_ports,
            redaction: Redaction {
                userinfo: self.redact_http_userinfo.unwrap_or(usual.userinfo),
                query: self.redact_http_urlquery.unwrap_or(usual.query),
                allowed: self.redact_http_headers_allow.unwrap_or(usual.allowed),
                denied: self.redact_http_headers_deny.unwrap_or(usual.denied),
            },
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

    /// What is learnt from the Kubernetes API.
    fn kubernetes(&mut self) -> Result<Option<KubernetesConfig>, ConfigError> {
        let (kubeconfig, peers) = (self.kubeconfig.take(), self.kubernetes_peers.take());
        let policies = self.kubernetes_policies.unwrap_or(false);
        let events = self.kubernetes_events.unwrap_or(false);
        if self.kubernetes != Some(true) {
            let given = [
                ("--kubeconfig", kubeconfig.is_some()),
                ("--kubernetes-policies", policies),
                ("--kubernetes-peers", peers.is_some()),
                ("--kubernetes-events", events),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((field, _)) => {
                    Err(ConfigError::Value { field, problem: "needs --kubernetes".to_owned() })
                }
                None => Ok(None),
            };
        }
        let peers = peers.map(|text| text.parse()).transpose();
        let peers = peers.map_err(|error: PeerError| ConfigError::Value {
            field: "--kubernetes-peers",
            problem: error.to_string(),
        })?;
        let access = kubeconfig.map_or(Access::Usual, Access::Kubeconfig);
        Ok(Some(KubernetesConfig { access, peers, policies, events }))
    }

    /// What is exported and measured.
    fn out_of_flows(&mut self) -> Result<(ExportConfig, Option<MetricsConfig>), ConfigError> {
        let export = export::Flags {
            file_path: self.export_file_path.take(),
            size_mb: self.export_file_max_size_mb,
            backups: self.export_file_max_backups,
            compress: self.export_file_compress,
            allowlist: self.export_allowlist.take(),
            denylist: self.export_denylist.take(),
            field_mask: std::mem::take(&mut self.export_fieldmask),
            field_aggregate: std::mem::take(&mut self.export_fieldaggregate),
            interval: self.export_aggregation_interval.take(),
            otlp_endpoint: self.export_otlp_endpoint.take(),
            otlp_headers: std::mem::take(&mut self.export_otlp_headers),
            otlp_ca_file: self.export_otlp_ca_file.take(),
            otlp_attributes: std::mem::take(&mut self.export_otlp_resource_attributes),
        };
        let fixed = export.check().map_err(|(flag, problem)| ConfigError::Export { flag, problem })?;
        let metrics = metrics::Flags {
            server: self.metrics_server.take(),
            metrics: self.metrics.take(),
            file: self.dynamic_metrics_config_path.take(),
            most_series: self.metrics_max_series,
        };
        let metrics = metrics.check().map_err(|(field, problem)| ConfigError::Value { field, problem })?;
        Ok((ExportConfig { fixed, file: self.flowlogs_config_path.take() }, metrics))
    }

    /// What is kept on the disk.
    fn history(&mut self) -> Result<Option<HistoryConfig>, ConfigError> {
        let duration = |field, text: Option<String>, usual, least, most| {
            let Some(text) = text else { return Ok(usual) };
            let parsed = parse_duration(&text).and_then(|parsed| Duration::try_from(parsed).ok());
            parsed.filter(|parsed| (least..=most).contains(parsed)).ok_or_else(|| ConfigError::Value {
                field,
                problem: format!("`{text}` is no duration from {least:?} to {most:?}, such as 1s or 72h"),
            })
        };
        let (age, loss) = (self.history_max_age.take(), self.history_max_loss.take());
        let (minute, year) = (Duration::from_mins(1), Duration::from_hours(24 * 366));
        let most_age = duration("--history-max-age", age, Duration::from_hours(168), minute, year)?;
        let most_loss =
            duration("--history-max-loss", loss, Duration::from_secs(1), Duration::from_millis(10), minute)?;
        let mib = self.history_max_mib.map_or(1024, |mib| usize::try_from(mib).unwrap_or(usize::MAX));
        let most_bytes = (bounded("--history-max-mib", mib, 16, 1 << 24)? as u64) << 20;
        Ok(self.history.take().map(|folder| HistoryConfig { folder, most_bytes, most_age, most_loss }))
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

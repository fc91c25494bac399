//! What is to be measured, as the flag and Cilium's file say it, checked.

use super::plugin::Wanted;
use crate::dynamic::{Checked, Selection, Text};
use observer_inventory::yaml::Fault;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::{net::SocketAddr, path::PathBuf};

/// What metrics there are, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsConfig {
    /// Where they are served.
    pub(super) address: SocketAddr,
    pub(super) wanted: Vec<Wanted>,
    /// The file that says what is wanted, and may change.
    pub(super) file: Option<PathBuf>,
    /// The most series of flows.
    pub(super) most_series: usize,
}

/// What flags say.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) server: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) most_series: Option<usize>,
}

/// The default of [`MetricsConfig::most_series`], and its own limit.
const SERIES: usize = 10_000;
const MOST_SERIES: usize = 1_000_000;

impl Flags {
    /// What they describe, if anything; an error names the flag.
    pub(crate) fn check(self) -> Result<Option<MetricsConfig>, (&'static str, String)> {
        let Some(server) = self.server else {
            let given = [
                ("--metrics", self.metrics.is_some()),
                ("--dynamic-metrics-config-path", self.file.is_some()),
                ("--metrics-max-series", self.most_series.is_some()),
            ];
            let alone = given.into_iter().find(|(_, given)| *given);
            return match alone {
                Some((flag, _)) => {
                    Err((flag, "metrics are served nowhere: add --metrics-server 127.0.0.1:9965".to_owned()))
                }
                None => Ok(None),
            };
        };
        if self.metrics.is_some() && self.file.is_some() {
            let problem = "there is --metrics, too: leave out the one or the other".to_owned();
            return Err(("--dynamic-metrics-config-path", problem));
        }
        // As Go has it, a port alone is on all addresses.
        let whole = if server.starts_with(':') { format!("[::]{server}") } else { server.clone() };
        let address = whole.parse().map_err(|_| {
            (
                "--metrics-server",
                format!("`{server}` is no address with a port: write one such as 127.0.0.1:9965"),
            )
        })?;
        let most_series = self.most_series.unwrap_or(SERIES);
        if !(1..=MOST_SERIES).contains(&most_series) {
            let problem = format!("{most_series} is out of range: 1 to {MOST_SERIES}");
            return Err(("--metrics-max-series", problem));
        }
        let wanted =
            parse(self.metrics.as_deref().unwrap_or_default()).map_err(|error| ("--metrics", error))?;
        Ok(Some(MetricsConfig { address, wanted, file: self.file, most_series }))
    }
}

/// `drop flow:sourceContext=pod|ip;labelsContext=source_pod,source_ip`.
fn parse(text: &str) -> Result<Vec<Wanted>, String> {
    let mut all: Vec<Wanted> = Vec::new();
    for word in text.split_whitespace() {
        let (name, options) = word.split_once(':').unwrap_or((word, ""));
        let options = options.split(';').filter(|option| !option.is_empty()).map(|option| {
            let (name, values) = option.split_once('=').unwrap_or((option, ""));
            let between = if name.eq_ignore_ascii_case("labelsContext") { ',' } else { '|' };
            (name, values.split(between).filter(|value| !value.is_empty()).collect())
        });
        let wanted = Wanted::new(name, options, Selection::default())?;
        wanted.fits(&all)?;
        all.push(wanted);
    }
    Ok(all)
}

/// Cilium's file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    metrics: Option<Vec<Metric>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Metric {
    name: Text,
    #[serde(default)]
    context_options: Option<Vec<ContextOption>>,
    #[serde(default)]
    include_filters: Option<Vec<Spanned<Value>>>,
    #[serde(default)]
    exclude_filters: Option<Vec<Spanned<Value>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextOption {
    name: Text,
    #[serde(default)]
    values: Option<Vec<Text>>,
}

impl File {
    pub(super) fn check(self) -> Checked<Vec<Wanted>> {
        let mut all: Vec<Wanted> = Vec::new();
        for (number, metric) in self.metrics.unwrap_or_default().into_iter().enumerate() {
            let at = format!("metrics[{number}]");
            let selection = Selection::of_file(metric.include_filters, metric.exclude_filters, &at)?;
            let options = metric.context_options.unwrap_or_default();
            let options = options.iter().map(|option| {
                let values = option.values.iter().flatten().map(|value| value.value.as_str());
                (option.name.value.as_str(), values.collect())
            });
            let wanted = Wanted::new(&metric.name.value, options, selection)
                .map_err(|problem| Fault::of(&metric.name, at.as_str(), problem))?;
            wanted.fits(&all).map_err(|problem| Fault::of(&metric.name, format!("{at}.name"), problem))?;
            all.push(wanted);
        }
        Ok(all)
    }
}

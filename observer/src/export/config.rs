//! What is to be exported, as flags and Cilium's file say it, checked.

use super::otlp::{OtlpTarget, target as otlp};
use crate::{
    dynamic::{Checked, Selection, Text},
    serve::mask::Mask,
};
use jiff::Timestamp;
use observer_inventory::yaml::Fault;
use observer_proto::time::parse_duration;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

/// Exporters of a file; each has a thread.
const MOST_EXPORTERS: usize = 64;
/// Cilium's defaults; 0 means them too.
const SIZE_MB: u64 = 10;
const BACKUPS: usize = 5;
/// A mebibyte; a file's size is a number of these.
const MB: u64 = 1 << 20;
/// The largest file, in MB.
const MOST_MB: u64 = 1 << 20;
const MOST_BACKUPS: usize = 10_000;
/// The names of the exporters that flags describe: to a file, and to a Collector.
pub(super) const FIXED: [&str; 2] = ["static", "otlp"];

/// All that is to be exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportConfig {
    /// What flags say.
    pub(crate) fixed: Vec<Exporter>,
    /// The file that says more, and may change.
    pub(crate) file: Option<PathBuf>,
}

impl ExportConfig {
    /// Whether anything is, or may be.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.file.is_none()
    }
}

/// One exporter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exporter {
    pub(super) name: String,
    pub(super) to: Target,
    pub(super) selection: Selection,
    pub(super) mask: Option<Mask>,
    pub(super) sum: Option<Sum>,
    /// Unix time in nanoseconds after which nothing is exported.
    pub(super) end: Option<i64>,
}

/// Where to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Stdout,
    File(LogFile),
    Otlp(OtlpTarget),
}

impl Target {
    /// What no two exporters may share.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => Some(Path::new("stdout")),
            Self::File(file) => Some(&file.path),
            Self::Otlp(_) => None,
        }
    }
}

/// Flows of which these fields are equal are counted for so long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    pub(super) fields: Mask,
    pub(super) interval: Duration,
}

/// A file, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) most_bytes: u64,
    pub(super) backups: usize,
    pub(super) compress: bool,
}

/// What flags say.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) file_path: Option<PathBuf>,
    pub(crate) size_mb: Option<u64>,
    pub(crate) backups: Option<usize>,
    pub(crate) compress: Option<bool>,
    pub(crate) allowlist: Option<String>,
    pub(crate) denylist: Option<String>,
    pub(crate) field_mask: Vec<String>,
    pub(crate) field_aggregate: Vec<String>,
    pub(crate) interval: Option<String>,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) otlp_headers: Vec<String>,
    pub(crate) otlp_ca_file: Option<PathBuf>,
    pub(crate) otlp_attributes: Vec<String>,
}

impl Flags {
    /// The exporters that they describe; an error names the flag without its beginning.
    pub(crate) fn check(self) -> Result<Vec<Exporter>, (&'static str, String)> {
        self.are_of_something()?;
        let interval = interval(self.interval.as_deref()).map_err(|error| ("aggregation-interval", error))?;
        let pairs = |field: otlp::Field, given: &[String]| {
            otlp::pairs(given).map_err(|problem| (field.flag(), problem))
        };
        let mut targets = Vec::new();
        if let Some(path) = &self.file_path {
            let (size, backups) = (self.size_mb.unwrap_or(0), self.backups.unwrap_or(0));
            let to = target(path, size, backups, self.compress.unwrap_or(false));
            targets.push((FIXED[0], to.map_err(|(field, problem)| (field.flag(), problem))?));
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            let headers = pairs(otlp::Field::Headers, &self.otlp_headers)?;
            let attributes = pairs(otlp::Field::Attributes, &self.otlp_attributes)?;
            let to = OtlpTarget::new(endpoint, headers, self.otlp_ca_file.clone(), attributes);
            let to = to.map_err(|(field, problem)| (field.flag(), problem))?;
            targets.push((FIXED[1], Target::Otlp(to)));
        }
        let exporter = |(name, to): (&str, Target)| -> Result<Exporter, (&'static str, String)> {
            let sum =
                sum(name, &self.field_aggregate, interval).map_err(|error| ("fieldaggregate", error))?;
            Ok(Exporter {
                name: name.to_owned(),
                to,
                selection: Selection::of_flags(self.allowlist.as_deref(), self.denylist.as_deref())?,
                mask: Mask::parse(&self.field_mask).map_err(|problem| ("fieldmask", problem))?,
                sum,
                end: None,
            })
        };
        targets.into_iter().map(exporter).collect()
    }

    /// Whether no flag is there without that which it is about.
    fn are_of_something(&self) -> Result<(), (&'static str, String)> {
        let of_file = [
            ("file-max-size-mb", self.size_mb.is_some()),
            ("file-max-backups", self.backups.is_some()),
            ("file-compress", self.compress.is_some()),
        ];
        let of_otlp = [
            ("otlp-headers", !self.otlp_headers.is_empty()),
            ("otlp-ca-file", self.otlp_ca_file.is_some()),
            ("otlp-resource-attributes", !self.otlp_attributes.is_empty()),
        ];
        let of_any = [
            ("allowlist", self.allowlist.is_some()),
            ("denylist", self.denylist.is_some()),
            ("fieldmask", !self.field_mask.is_empty()),
            ("fieldaggregate", !self.field_aggregate.is_empty()),
            ("aggregation-interval", self.interval.is_some()),
        ];
        let (file, otlp) = (self.file_path.is_some(), self.otlp_endpoint.is_some());
        for (flags, is_there, remedy) in [
            (&of_file[..], file, "there is no file: add --export-file-path"),
            (&of_otlp[..], otlp, "there is no Collector: add --export-otlp-endpoint"),
            (
                &of_any[..],
                file || otlp,
                "there is no export: add --export-file-path or --export-otlp-endpoint",
            ),
        ] {
            if let Some(&(flag, _)) = flags.iter().find(|(_, given)| *given && !is_there) {
                return Err((flag, remedy.to_owned()));
            }
        }
        Ok(())
    }
}

/// Cilium's file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct File {
    flow_logs: Option<Vec<FlowLog>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FlowLog {
    name: Text,
    file_path: Option<Text>,
    otlp: Option<Spanned<Otlp>>,
    #[serde(default)]
    field_mask: Option<Vec<Text>>,
    #[serde(default)]
    field_aggregate: Option<Vec<Text>>,
    aggregation_interval: Option<Text>,
    #[serde(default)]
    include_filters: Option<Vec<Spanned<Value>>>,
    #[serde(default)]
    exclude_filters: Option<Vec<Spanned<Value>>>,
    file_max_size_mb: Option<Spanned<u64>>,
    file_max_backups: Option<Spanned<usize>>,
    #[serde(default)]
    file_compress: bool,
    end: Option<Text>,
}

/// A Collector; Cilium's file has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Otlp {
    endpoint: Text,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    ca_file: Option<Text>,
    #[serde(default)]
    resource_attributes: Option<BTreeMap<String, String>>,
}

impl File {
    /// The exporters that it describes; `fixed` are those of the flags.
    pub(super) fn check(self, fixed: &[Exporter]) -> Checked<Vec<Exporter>> {
        let mut names: HashSet<String> = FIXED.map(str::to_owned).into();
        let path = |to: &Target| to.path().map(Path::to_owned);
        let mut paths: HashSet<PathBuf> = fixed.iter().filter_map(|fixed| path(&fixed.to)).collect();
        let mut exporters = Vec::new();
        for (number, log) in self.flow_logs.unwrap_or_default().into_iter().enumerate() {
            let at = format!("flowLogs[{number}]");
            let (name, written) = (log.name.clone(), log.file_path.clone());
            if number == MOST_EXPORTERS {
                return Err(Fault::of(&name, at, format!("there are more than {MOST_EXPORTERS}")));
            }
            let exporter = log.check(&at)?;
            let is_name = !exporter.name.is_empty() && !exporter.name.contains(char::is_control);
            if !is_name || !names.insert(exporter.name.clone()) {
                let problem =
                    "names tell exporters apart: choose one that no other has, without control characters";
                return Err(Fault::of(&name, format!("{at}.name"), problem));
            }
            if path(&exporter.to).is_some_and(|path| !paths.insert(path)) {
                let problem = "another exporter writes there: choose another file";
                return Err(Fault::of(written.as_ref().unwrap_or(&name), format!("{at}.filePath"), problem));
            }
            exporters.push(exporter);
        }
        Ok(exporters)
    }
}

impl FlowLog {
    fn check(self, at: &str) -> Checked<Exporter> {
        let to = self.target(at)?;
        let interval = match &self.aggregation_interval {
            Some(text) => interval(Some(&text.value))
                .map_err(|problem| Fault::of(text, format!("{at}.aggregationInterval"), problem))?,
            None => Duration::ZERO,
        };
        let end = match &self.end {
            Some(text) => Some(text.value.parse::<Timestamp>().map_err(|error| {
                let problem = format!("{error}; write a time such as 2026-05-01T12:00:00Z");
                Fault::of(text, format!("{at}.end"), problem)
            })?),
            None => None,
        };
        let fields = |list: Option<Vec<Text>>, name: &str| -> Checked<(Option<Mask>, Vec<String>)> {
            let mut paths: Vec<String> = Vec::new();
            for (number, path) in list.unwrap_or_default().iter().enumerate() {
                let wrong = |problem: String| Fault::of(path, format!("{at}.{name}[{number}]"), problem);
                paths.push(path.value.clone());
                // Each by itself, so that the error is told where it is.
                Mask::parse(std::slice::from_ref(&path.value)).map_err(wrong)?;
                Mask::parse(&paths).map_err(wrong)?;
            }
            Ok((Mask::parse(&paths).unwrap_or_default(), paths))
        };
        let (mask, _) = fields(self.field_mask, "fieldMask")?;
        let (_, summed) = fields(self.field_aggregate, "fieldAggregate")?;
        let sum = sum(&self.name.value, &summed, interval);
        Ok(Exporter {
            sum: sum.map_err(|problem| Fault::of(&self.name, format!("{at}.fieldAggregate"), problem))?,
            name: self.name.value,
            to,
            selection: Selection::of_file(self.include_filters, self.exclude_filters, at)?,
            mask,
            end: end.map(|end| i64::try_from(end.as_nanosecond()).unwrap_or(i64::MAX)),
        })
    }
}

impl FlowLog {
    fn target(&self, at: &str) -> Checked<Target> {
        let path = match (&self.file_path, &self.otlp) {
            (Some(path), None) => path,
            (None, Some(otlp)) => return otlp.value.target(&format!("{at}.otlp")),
            (None, None) => {
                let problem = "it goes nowhere: write filePath or otlp";
                return Err(Fault::of(&self.name, format!("{at}.filePath"), problem));
            }
            (Some(_), Some(otlp)) => {
                let problem = "there is filePath, too: leave out the one or the other";
                return Err(Fault::of(otlp, format!("{at}.otlp"), problem));
            }
        };
        let size = self.file_max_size_mb.as_ref().map_or(0, |size| size.value);
        let backups = self.file_max_backups.as_ref().map_or(0, |backups| backups.value);
        let to = target(Path::new(&path.value), size, backups, self.file_compress);
        to.map_err(|(field, problem)| {
            let at = format!("{at}.{}", field.key());
            match (field, &self.file_max_size_mb, &self.file_max_backups) {
                (TargetField::Size, Some(size), _) => Fault::of(size, at, problem),
                (TargetField::Backups, _, Some(backups)) => Fault::of(backups, at, problem),
                _ => Fault::of(path, at, problem),
            }
        })
    }
}

impl Otlp {
    fn target(&self, at: &str) -> Checked<Target> {
        let pairs = |map: &Option<BTreeMap<String, String>>| {
            map.iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let ca_file = self.ca_file.as_ref().map(|file| PathBuf::from(&file.value));
        let (headers, attributes) = (pairs(&self.headers), pairs(&self.resource_attributes));
        let to = OtlpTarget::new(&self.endpoint.value, headers, ca_file, attributes);
        to.map(Target::Otlp).map_err(|(field, problem)| {
            let place = match (field, &self.ca_file) {
                (otlp::Field::CaFile, Some(file)) => file,
                _ => &self.endpoint,
            };
            Fault::of(place, format!("{at}.{}", field.key()), problem)
        })
    }
}

/// What of a target is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetField {
    Path,
    Size,
    Backups,
}

impl TargetField {
    fn flag(self) -> &'static str {
        match self {
            Self::Path => "file-path",
            Self::Size => "file-max-size-mb",
            Self::Backups => "file-max-backups",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Path => "filePath",
            Self::Size => "fileMaxSizeMb",
            Self::Backups => "fileMaxBackups",
        }
    }
}

fn target(
    path: &Path,
    size_mb: u64,
    backups: usize,
    compress: bool,
) -> Result<Target, (TargetField, String)> {
    if ["stdout", "/dev/stdout"].map(Path::new).contains(&path) {
        return Ok(Target::Stdout);
    }
    if !path.is_absolute() || path.file_name().is_none() {
        let problem = format!("{}: write `stdout`, or a file's path from / on", path.display());
        return Err((TargetField::Path, problem));
    }
    if size_mb > MOST_MB {
        return Err((TargetField::Size, format!("{size_mb} is out of range: 0 to {MOST_MB}")));
    }
    if backups > MOST_BACKUPS {
        return Err((TargetField::Backups, format!("{backups} is out of range: 0 to {MOST_BACKUPS}")));
    }
    Ok(Target::File(LogFile {
        path: path.to_owned(),
        most_bytes: MB * if size_mb == 0 { SIZE_MB } else { size_mb },
        backups: if backups == 0 { BACKUPS } else { backups },
        compress,
    }))
}

fn interval(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let parsed = parse_duration(text).and_then(|interval| Duration::try_from(interval).ok());
    parsed.ok_or_else(|| format!("`{text}` is no duration: write one such as 30s or 5m, or 0s for none"))
}

/// As Hubble has it, fields without an interval sum nothing.
fn sum(name: &str, fields: &[String], interval: Duration) -> Result<Option<Sum>, String> {
    let Some(fields) = Mask::parse(fields)? else { return Ok(None) };
    if interval.is_zero() {
        tracing::warn!(exporter = name, "flows are not aggregated: the aggregation interval is 0s");
        return Ok(None);
    }
    Ok(Some(Sum { fields, interval }))
}

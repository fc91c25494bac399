//! What is to be exported, as flags and Cilium's file say it, checked.

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
    collections::HashSet,
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
/// The name of the exporter that flags describe.
pub(super) const FIXED: &str = "static";

/// All that is to be exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportConfig {
    /// What flags say.
    pub(crate) fixed: Option<Exporter>,
    /// The file that says more, and may change.
    pub(crate) file: Option<PathBuf>,
}

impl ExportConfig {
    /// Whether anything is, or may be.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed.is_none() && self.file.is_none()
    }
}

/// One exporter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exporter {
    pub(super) name: String,
    /// Nothing for standard output.
    pub(super) file: Option<LogFile>,
    pub(super) selection: Selection,
    pub(super) mask: Option<Mask>,
    pub(super) sum: Option<Sum>,
    /// Unix time in nanoseconds after which nothing is exported.
    pub(super) end: Option<i64>,
}

/// Flows of which these fields are equal are counted for so long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    pub(super) fields: Mask,
    pub(super) interval: Duration,
}

/// Where to, and how much of it.
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
}

impl Flags {
    /// The exporter that they describe, if they do; an error names the flag without its beginning.
    pub(crate) fn check(self) -> Result<Option<Exporter>, (&'static str, String)> {
        let Some(path) = self.file_path else {
            let given = [
                ("file-max-size-mb", self.size_mb.is_some()),
                ("file-max-backups", self.backups.is_some()),
                ("file-compress", self.compress.is_some()),
                ("allowlist", self.allowlist.is_some()),
                ("denylist", self.denylist.is_some()),
                ("fieldmask", !self.field_mask.is_empty()),
                ("fieldaggregate", !self.field_aggregate.is_empty()),
                ("aggregation-interval", self.interval.is_some()),
            ];
            let alone = given.into_iter().find(|(_, given)| *given);
            return match alone {
                Some((flag, _)) => Err((flag, "there is no export: add --export-file-path".to_owned())),
                None => Ok(None),
            };
        };
        let interval = interval(self.interval.as_deref()).map_err(|error| ("aggregation-interval", error))?;
        let (size, backups) = (self.size_mb.unwrap_or(0), self.backups.unwrap_or(0));
        let file = target(&path, size, backups, self.compress.unwrap_or(false));
        Ok(Some(Exporter {
            name: FIXED.to_owned(),
            file: file.map_err(|(field, problem)| (field.flag(), problem))?,
            selection: Selection::of_flags(self.allowlist.as_deref(), self.denylist.as_deref())?,
            mask: Mask::parse(&self.field_mask).map_err(|problem| ("fieldmask", problem))?,
            sum: sum(FIXED, &self.field_aggregate, interval).map_err(|error| ("fieldaggregate", error))?,
            end: None,
        }))
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
    file_path: Text,
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

impl File {
    /// The exporters that it describes; `fixed` is the one of the flags.
    pub(super) fn check(self, fixed: Option<&Exporter>) -> Checked<Vec<Exporter>> {
        let mut names = HashSet::from([FIXED.to_owned()]);
        let mut paths: HashSet<Option<PathBuf>> =
            fixed.iter().map(|fixed| fixed.file.as_ref().map(|file| file.path.clone())).collect();
        let mut exporters = Vec::new();
        for (number, log) in self.flow_logs.unwrap_or_default().into_iter().enumerate() {
            let at = format!("flowLogs[{number}]");
            let (name, path) = (log.name.clone(), log.file_path.clone());
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
            if !paths.insert(exporter.file.as_ref().map(|file| file.path.clone())) {
                let problem = "another exporter writes there: choose another file";
                return Err(Fault::of(&path, format!("{at}.filePath"), problem));
            }
            exporters.push(exporter);
        }
        Ok(exporters)
    }
}

impl FlowLog {
    fn check(self, at: &str) -> Checked<Exporter> {
        let size = self.file_max_size_mb.as_ref().map_or(0, |size| size.value);
        let backups = self.file_max_backups.as_ref().map_or(0, |backups| backups.value);
        let path = Path::new(&self.file_path.value);
        let file = target(path, size, backups, self.file_compress).map_err(|(field, problem)| {
            let path = format!("{at}.{}", field.key());
            match (field, &self.file_max_size_mb, &self.file_max_backups) {
                (TargetField::Size, Some(size), _) => Fault::of(size, path, problem),
                (TargetField::Backups, _, Some(backups)) => Fault::of(backups, path, problem),
                _ => Fault::of(&self.file_path, path, problem),
            }
        })?;
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
            file,
            selection: Selection::of_file(self.include_filters, self.exclude_filters, at)?,
            mask,
            end: end.map(|end| i64::try_from(end.as_nanosecond()).unwrap_or(i64::MAX)),
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
) -> Result<Option<LogFile>, (TargetField, String)> {
    if ["stdout", "/dev/stdout"].map(Path::new).contains(&path) {
        return Ok(None);
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
    Ok(Some(LogFile {
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

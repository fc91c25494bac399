//! Answers that are made of many flows: where the flows come from, and how an answer is shown. What is counted, and what
//! it looks like, is `observer_proto::answers`.

pub(crate) mod aggregate;
mod screen;
mod source;

pub(crate) use screen::Screen;
pub(crate) use source::{Piece, Server, from_files, from_server};

use crate::Failure;
use clap::Args;
use observer_proto::time;
use prost_types::Timestamp;
use std::{path::PathBuf, time::Duration};

/// How often a live answer is drawn.
pub(crate) const REDRAW: Duration = Duration::from_secs(1);

/// Which flows an answer is made of.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = crate::args::SELECTORS)]
pub(crate) struct RangeArgs {
    /// Not older than: 90s, 1h30m, or 2026-01-05T10:00:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Not newer than
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Flows from this file in place of a server: JSON lines, plain or packed by gzip; - is standard input, and several
    /// are read one after the other
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Vec<PathBuf>,
}

/// From when and until when.
pub(crate) type Range = (Option<Timestamp>, Option<Timestamp>);

impl RangeArgs {
    /// Since the given time, else since `usual`; of a file all.
    pub(crate) fn times(&self, usual: Option<&str>) -> Result<Range, String> {
        let now = jiff::Timestamp::now();
        let moment = |name: &str, text: Option<&str>| {
            text.map(|text| time::parse(text, now).map(time::to_proto))
                .transpose()
                .map_err(|why| format!("failed to parse the {name} time: {why}"))
        };
        let usual = usual.filter(|_| self.input_file.is_empty());
        Ok((moment("since", self.since.as_deref().or(usual))?, moment("until", self.until.as_deref())?))
    }
}

/// `-o` of an answer: text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TextOrJson {
    /// A table or a page that fits the terminal
    Text,
    /// One object on one line
    Json,
}

/// A length of time as `30s` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    time::parse_duration(text)
        .and_then(|length| Duration::try_from(length).ok())
        .filter(|length| !length.is_zero())
        .ok_or_else(|| "a length of time is needed, as 30s or 5m".to_owned())
}

/// Writes an answer that is given once.
pub(crate) fn once(text: &str) -> Result<(), Failure> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    crate::output::whole(&format!("{text}{end}"))
}

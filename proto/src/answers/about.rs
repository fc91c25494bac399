//! What an answer is about: who counted, how much, and over which time.

use crate::{flow::Flow, text::status::grouped, time::TimeFormat};
use prost_types::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt::{Result, Write};

/// Who counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// The server, over all its flows (`stats.Stats`).
    Server,
    /// This program, over the flows that it was sent (GetFlows).
    #[default]
    Client,
    /// This program, over the flows of a file.
    File,
}

/// What an answer is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// Who counted.
    pub counted_by: CountedBy,
    /// Flows counted.
    pub flows: u64,
    /// Flows of that time that were not.
    pub lost: u64,
    /// The beginning.
    pub from: Time,
    /// The end.
    pub until: Time,
}

impl About {
    /// Takes in a flow and its time.
    pub fn flow(&mut self, flow: &Flow) {
        self.flows += 1;
        self.from.earlier(flow.time);
        self.until.later(flow.time);
    }

    /// Seconds between beginning and end; at least a thousandth.
    pub fn seconds(&self) -> f64 {
        let (Some(from), Some(until)) = (self.from.0, self.until.0) else { return 0.001 };
        let nanos = f64::from(until.nanos) - f64::from(from.nanos);
        ((until.seconds.saturating_sub(from.seconds)) as f64 + nanos / 1e9).max(0.001)
    }

    /// One line.
    pub fn write(&self, out: &mut impl Write) -> Result {
        let flows = grouped(self.flows);
        match self.counted_by {
            CountedBy::Server => write!(out, "counted by the server from all its flows: {flows}")?,
            CountedBy::Client => write!(out, "counted here from the flows of GetFlows: {flows}")?,
            CountedBy::File => write!(out, "counted here from the flows of the file: {flows}")?,
        }
        if self.from.0.is_some() {
            write!(out, ", {} to {}", self.from.text(), self.until.text())?;
        }
        if self.lost > 0 {
            write!(out, "; {} more were lost", grouped(self.lost))?;
        }
        out.write_char('\n')
    }
}

/// A point in time, in JSON as RFC 3339 or null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Option<Timestamp>);

impl Time {
    /// Becomes the earlier of both.
    pub fn earlier(&mut self, other: Option<Timestamp>) {
        if let Some(time) = other
            && self.0.is_none_or(|own| key(time) < key(own))
        {
            self.0 = Some(time);
        }
    }

    /// Becomes the later of both.
    pub fn later(&mut self, other: Option<Timestamp>) {
        if let Some(time) = other
            && self.0.is_none_or(|own| key(time) > key(own))
        {
            self.0 = Some(time);
        }
    }

    /// Whether it is later; nothing is earlier than everything.
    pub fn is_after(self, other: Self) -> bool {
        self.0.map(key) > other.0.map(key)
    }

    /// `Jan  5 10:15:30.123`.
    pub fn text(self) -> String {
        written(self, TimeFormat::StampMilli)
    }

    /// `10:15:30`.
    pub fn clock(self) -> String {
        let text = self.text();
        text.get(7..15).unwrap_or("-").to_owned()
    }
}

fn key(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

fn written(time: Time, format: TimeFormat) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = format.write(time.0.as_ref(), &mut text);
    text
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Some(_) => serializer.serialize_str(&written(*self, TimeFormat::Rfc3339Nano)),
            None => serializer.serialize_none(),
        }
    }
}

/// What a server does not tell is not 0: `-`.
pub(super) fn or_dash(number: Option<u64>, write: impl FnOnce(u64) -> String) -> String {
    number.map_or_else(|| "-".to_owned(), write)
}

/// Said below a table where a column could not be known.
pub(super) const UNTOLD: &str = "- is not known: packets and bytes are told by Observer's daemon only\n";

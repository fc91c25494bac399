//! What is loaded in the kernel, as tables: one for each thing that can be asked for.

mod entries;
mod loaded;

use super::table::{Column, cleaned, write};
use crate::{
    control::{InspectResponse, inspect_request::What},
    text::status::grouped,
};
use prost_types::Timestamp;
use std::fmt::Write as _;

/// A table, and what it is about.
struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(columns: &[Column], rows: impl Iterator<Item = Vec<String>>) -> Self {
        Self { columns: columns.to_vec(), rows: rows.collect() }
    }
}

/// All parts of an answer to a request for `what`, put together. Without a width nothing is shortened.
pub fn text(what: What, answer: &InspectResponse, width: Option<usize>) -> String {
    let (nothing, table, notes) = match what {
        What::Unknown => return String::new(),
        What::Programs => ("no programs", loaded::programs(answer), loaded::about_statistics(answer)),
        What::Links => ("no programs on links", loaded::links(answer), loaded::problems(answer)),
        What::Maps => ("no maps", loaded::maps(answer), Vec::new()),
        What::Rings => ("no rings", loaded::rings(answer), Vec::new()),
        What::Ipcache => ("no addresses", entries::addresses(answer), Vec::new()),
        What::Flows => ("no connections", entries::flows(answer), Vec::new()),
        What::Policy => (
            "no policy selects what was asked about: all of its connections are allowed",
            entries::rules(answer),
            Vec::new(),
        ),
    };
    let mut out = String::new();
    if table.rows.is_empty() {
        let _ = writeln!(out, "{nothing}");
    } else {
        // Writing to a string can't fail, here and below.
        let _ = write(&table.columns, &table.rows, 0, width, &mut out);
    }
    for note in notes.iter().chain(&answer.notes) {
        let _ = writeln!(out, "{}", cleaned(note));
    }
    if answer.more > 0 {
        let _ = writeln!(out, "and {} more; --limit shows more", grouped(answer.more));
    }
    out
}

/// `7: veth1`, as other tools of Linux write it.
fn interface(index: u32, name: &str) -> String {
    format!("{index}: {name}")
}

/// With its unit where that is short: `8M`, `12.5k`.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut scaled, mut unit) = (number as f64, 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if scaled.fract() == 0.0 || scaled >= 99.95 {
        return format!("{scaled:.0}{}", UNITS[unit]);
    }
    format!("{scaled:.1}{}", UNITS[unit])
}

/// Of the whole, in percent.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!("{:.0}%", part as f64 * 100.0 / whole as f64) }
}

/// To the second.
fn moment(time: Option<&Timestamp>) -> String {
    let time = time.and_then(|time| jiff::Timestamp::new(time.seconds, 0).ok());
    time.map_or_else(String::new, |time| time.to_string())
}

/// How long ago one was at the other: `350ms`, `12s`, `3m`, `5h`, `9d`.
fn ago(then: Option<&Timestamp>, now: Option<&Timestamp>) -> String {
    let (Some(then), Some(now)) = (then, now) else { return String::new() };
    let ms = |time: &Timestamp| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
    let ms = (ms(now) - ms(then)).max(0);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}s", ms / 1_000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

fn number_or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), grouped)
}

fn text_or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (number, text) in [
            (0, "0"),
            (1023, "1023"),
            (1536, "1.5k"),
            (8 << 20, "8M"),
            (1_000_000, "977k"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(bytes(number), text);
        }
        let at = |ms: i64| Timestamp { seconds: ms / 1000, nanos: (ms % 1000) as i32 * 1_000_000 };
        for (ms, text) in [(0, "0ms"), (999, "999ms"), (119_999, "119s"), (120_000, "2m"), (7_200_000, "2h")]
        {
            assert_eq!(ago(Some(&at(5)), Some(&at(5 + ms))), text);
        }
        // The clocks of what was read one after the other.
        assert_eq!(ago(Some(&at(9)), Some(&at(5))), "0ms");
        assert_eq!(share(1, 0), "");
    }
}

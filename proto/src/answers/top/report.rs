//! What `top` answers, from flows or from the daemon's own counts.

use super::{By, MOST_ROWS, Sums};
use crate::{
    answers::{
        about::{About, CountedBy, Time, UNTOLD, or_dash},
        ends,
        groups::{Groups, Other},
        table::{self, Column, scaled},
        volume::Volume,
    },
    stats::{GetDropsResponse, GetEdgesResponse, GetTalkersResponse, Window},
    text::status::grouped,
};
use serde_json::json;
use std::fmt::Write;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub(super) by: By,
    pub(super) about: About,
    pub(super) rows: Vec<(Vec<String>, Sums)>,
    /// Rows that are not shown, 0 where their number is not known, and their sum.
    pub(super) other: Option<(u64, Sums)>,
    /// Why nothing can be said.
    pub(super) unknown: Option<String>,
}

fn of_bytes(bytes: u64) -> Volume {
    Volume { bytes, ..Volume::default() }
}

impl Report {
    fn told(by: By, window: Option<Window>, rows: Vec<(Vec<String>, Sums)>, other: Option<Sums>) -> Self {
        let window = window.unwrap_or_default();
        let about = About {
            counted_by: CountedBy::Server,
            flows: window.flows,
            lost: window.lost,
            from: Time(window.from),
            until: Time(window.until),
        };
        let other = other.filter(|sums| sums.flows > 0).map(|sums| (0, sums));
        Self { by, about, rows, other, unknown: None }
    }

    /// Workloads, as the server counted them.
    pub fn talkers(answer: &GetTalkersResponse) -> Self {
        let sums = |told: &crate::stats::Talker| Sums {
            flows: told.sent_flows + told.received_flows,
            sent: of_bytes(told.sent_bytes),
            received: of_bytes(told.received_bytes),
            drops: told.drops,
            ..Sums::default()
        };
        let rows = answer.talkers.iter().map(|told| (vec![told.name.clone()], sums(told))).collect();
        Self::told(By::Workload, answer.window, rows, answer.other.as_ref().map(sums))
    }

    /// Drops, as the server counted them.
    pub fn drops(answer: &GetDropsResponse) -> Self {
        let sums = |told: &crate::stats::DropCount| Sums {
            flows: told.flows,
            drops: told.flows,
            apart: if told.packets == 0 { told.flows } else { 0 },
            dropped: Volume { packets: told.packets, bytes: told.bytes, ..Volume::default() },
            ..Sums::default()
        };
        let key = |told: &crate::stats::DropCount| {
            vec![told.reason.clone(), told.source.clone(), told.destination.clone()]
        };
        let rows = answer.drops.iter().map(|told| (key(told), sums(told))).collect();
        Self::told(By::Reason, answer.window, rows, answer.other.as_ref().map(sums))
    }

    /// Ports, from the edges that the server counted.
    pub fn ports(answer: &GetEdgesResponse, limit: usize) -> Self {
        let sums = |told: &crate::stats::Edge| Sums {
            flows: told.flows,
            sent: of_bytes(told.bytes),
            drops: told.errors,
            ..Sums::default()
        };
        let mut groups = Groups::new(MOST_ROWS);
        for edge in &answer.edges {
            groups.add(vec![ends::port(&edge.protocol, edge.port)], sums(edge));
        }
        let (rows, Other { rows: more, mut counts }) = groups.heaviest(limit);
        counts += answer.other.as_ref().map(sums).unwrap_or_default();
        let mut report = Self::told(By::Port, answer.window, rows, Some(counts));
        if more > 0 {
            report.other = report.other.map(|(_, sums)| (more, sums));
        }
        report
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = self.by.titles().iter().map(|title| Column::name(title)).collect();
        match self.by {
            by if by.is_of_ends() => columns.extend([
                Column::number("SENT/s"),
                Column::number("RECV/s"),
                Column::number("FLOWS/s").rank(2),
                Column::number("DROPS/s").rank(1),
            ]),
            By::Port => columns.extend([
                Column::number("BYTES/s"),
                Column::number("FLOWS/s").rank(2),
                Column::number("ERRORS/s").rank(1),
            ]),
            By::Reason => columns.extend([
                Column::number("FLOWS"),
                Column::number("PACKETS/s"),
                Column::number("PACKETS").rank(1),
            ]),
            _ => columns.push(Column::number("FLOWS/s")),
        }
        if self.by.is_of_ends() || self.by == By::Port {
            columns.push(Column::number("SHARE").rank(3));
        }
        columns
    }

    fn cells(&self, sums: &Sums, all: (u64, u64)) -> Vec<String> {
        let seconds = self.about.seconds();
        let rate = |count: u64| scaled(count as f64 / seconds);
        let bytes = |volume: Volume| or_dash(sums.told(volume.bytes), rate);
        // Of bytes, or of flows where nobody tells bytes.
        let share = match all {
            (0, 0) => 0,
            (0, flows) => sums.flows * 100 / flows,
            (all, _) => (sums.sent.bytes + sums.received.bytes) * 100 / all,
        };
        let mut cells = match self.by {
            by if by.is_of_ends() => {
                vec![bytes(sums.sent), bytes(sums.received), rate(sums.flows), rate(sums.drops)]
            }
            By::Port => vec![bytes(sums.sent), rate(sums.flows), rate(sums.drops)],
            By::Reason => {
                let packets = sums.told(sums.dropped.packets);
                vec![grouped(sums.flows), or_dash(packets, rate), or_dash(packets, grouped)]
            }
            _ => vec![rate(sums.flows)],
        };
        if self.by.is_of_ends() || self.by == By::Port {
            cells.push(format!("{share}%"));
        }
        cells
    }

    fn all(&self) -> (u64, u64) {
        let other = self.other.as_ref().map(|(_, sums)| sums);
        let sums = || self.rows.iter().map(|(_, sums)| sums).chain(other);
        (sums().map(|s| s.sent.bytes + s.received.bytes).sum(), sums().map(|s| s.flows).sum())
    }

    /// As a table.
    pub fn text(&self, width: Option<usize>) -> String {
        let (columns, all) = (self.columns(), self.all());
        let mut rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|(key, sums)| key.iter().cloned().chain(self.cells(sums, all)).collect())
            .collect();
        if let Some((more, sums)) = &self.other {
            let name = if *more > 0 { format!("({} other)", grouped(*more)) } else { "(other)".to_owned() };
            let blanks = std::iter::repeat_n(String::new(), self.by.titles().len() - 1);
            rows.push(std::iter::once(name).chain(blanks).chain(self.cells(sums, all)).collect());
        }
        let mut out = String::new();
        // Writing to a string can't fail, here and below.
        let _ = table::write(&columns, &rows, 0, width, &mut out);
        if let Some(why) = &self.unknown {
            let _ = writeln!(out, "{why}");
        }
        let _ = self.about.write(&mut out);
        if self.by != By::Policy && self.rows.iter().any(|(_, sums)| sums.untold > 0) {
            out.push_str(UNTOLD);
        }
        out
    }

    /// One object on one line: counts of the whole time, and that time in seconds.
    pub fn json(&self) -> String {
        let row = |key: Option<&[String]>, sums: &Sums| {
            let mut row = json!({ "flows": sums.flows });
            for (title, value) in self.by.titles().iter().zip(key.unwrap_or_default()) {
                row[title.to_lowercase()] = value.as_str().into();
            }
            if self.by.is_of_ends() {
                row["sent_bytes"] = sums.told(sums.sent.bytes).into();
                row["received_bytes"] = sums.told(sums.received.bytes).into();
                row["drops"] = sums.drops.into();
            } else if self.by == By::Port {
                row["bytes"] = sums.told(sums.sent.bytes).into();
                row["errors"] = sums.drops.into();
            } else if self.by == By::Reason {
                row["packets"] = sums.told(sums.dropped.packets).into();
                row["bytes"] = sums.told(sums.dropped.bytes).into();
            }
            row
        };
        let rows: Vec<serde_json::Value> = self.rows.iter().map(|(key, sums)| row(Some(key), sums)).collect();
        json!({
            "about": self.about,
            "seconds": self.about.seconds(),
            "by": self.by,
            "rows": rows,
            "other": self.other.as_ref().map(|(_, sums)| row(None, sums)),
            "unknown": self.unknown,
        })
        .to_string()
    }
}

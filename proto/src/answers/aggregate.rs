//! `--aggregate-by`: how many flows there are of each kind, when, and how much they moved.

use super::{
    about::{About, Time, UNTOLD, or_dash},
    fields::Field,
    groups::{Counts, Groups, Other},
    table::{self, Column},
    volume::{Connections, Volume},
};
use crate::{Facts, flow::Flow, text::status::grouped};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{fmt::Write, ops::AddAssign};

/// Groups kept.
pub const MOST_GROUPS: usize = 4096;

/// Of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    flows: u64,
    volume: Volume,
    first: Time,
    last: Time,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.volume += other.volume;
        self.first.earlier(other.first.0);
        self.last.later(other.last.0);
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        (self.flows, self.volume.bytes)
    }
}

/// Takes in flows.
#[derive(Debug)]
pub struct Aggregate {
    fields: Vec<Field>,
    about: About,
    groups: Groups<Vec<String>, Sums>,
    connections: Connections,
}

impl Aggregate {
    /// By these fields; `about` says who counts. Bytes count from `since` on, else from each connection's beginning.
    pub fn new(fields: Vec<Field>, about: About, since: Option<prost_types::Timestamp>) -> Self {
        Self { fields, about, groups: Groups::new(MOST_GROUPS), connections: Connections::new(since) }
    }

    /// Takes in a flow.
    pub fn flow(&mut self, flow: &Flow) {
        let facts = Facts::of(flow);
        self.about.flow(flow);
        let key = self.fields.iter().map(|field| field.of(flow, &facts)).collect();
        let time = Time(flow.time);
        let volume = self.connections.new_of(flow, &facts);
        self.groups.add(key, Sums { flows: 1, volume, first: time, last: time });
    }

    /// Flows that did not come.
    pub fn lost(&mut self, flows: u64) {
        self.about.lost += flows;
    }

    /// The heaviest groups: those of most flows, then of most bytes.
    pub fn report(&self, limit: usize) -> Report {
        let (rows, Other { rows: more, counts }) = self.groups.heaviest(limit);
        Report {
            about: self.about.clone(),
            fields: self.fields.iter().map(|field| field.name).collect(),
            groups: rows.into_iter().map(|(key, sums)| Group { key, sums }).collect(),
            other: (more > 0).then_some(Rest { groups: more, sums: counts }),
            folded: self.groups.folded(),
            forgotten: self.connections.forgotten(),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    about: About,
    fields: Vec<&'static str>,
    groups: Vec<Group>,
    other: Option<Rest>,
    folded: u64,
    forgotten: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    key: Vec<String>,
    sums: Sums,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    groups: u64,
    sums: Sums,
}

/// As in JSON.
#[derive(Serialize)]
struct Shown {
    flows: u64,
    packets: Option<u64>,
    bytes: Option<u64>,
    first: Time,
    last: Time,
}

impl Sums {
    fn packets(&self) -> Option<u64> {
        (self.volume.silent() < self.flows).then_some(self.volume.packets)
    }

    fn bytes(&self) -> Option<u64> {
        (self.volume.silent() < self.flows).then_some(self.volume.bytes)
    }

    fn cells(&self) -> [String; 5] {
        [
            grouped(self.flows),
            or_dash(self.packets(), grouped),
            or_dash(self.bytes(), grouped),
            self.first.text(),
            self.last.text(),
        ]
    }

    fn json(&self, object: &mut Map<String, Value>) {
        let (packets, bytes) = (self.packets(), self.bytes());
        let shown = Shown { flows: self.flows, packets, bytes, first: self.first, last: self.last };
        if let Ok(Value::Object(own)) = serde_json::to_value(shown) {
            object.extend(own);
        }
    }
}

impl Report {
    /// As a table.
    pub fn text(&self, width: Option<usize>) -> String {
        // Titles are static, names of fields lower-case.
        let mut columns: Vec<Column> = self.fields.iter().map(|name| Column::name(name)).collect();
        columns.extend([
            Column::number("flows"),
            Column::number("packets").rank(2),
            Column::number("bytes"),
            Column::word("first").rank(4),
            Column::word("last").rank(3),
        ]);
        let dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        let mut rows: Vec<Vec<String>> = self
            .groups
            .iter()
            .map(|group| group.key.iter().map(dash).chain(group.sums.cells()).collect())
            .collect();
        if let Some(rest) = &self.other {
            let name = format!("({} other)", grouped(rest.groups));
            let blank = std::iter::repeat_n(String::new(), self.fields.len() - 1);
            rows.push(std::iter::once(name).chain(blank).chain(rest.sums.cells()).collect());
        }
        let mut out = String::new();
        // Writing to a string can't fail, here and below.
        let _ = table::write(&columns, &rows, 0, width, &mut out);
        let _ = self.about.write(&mut out);
        let untold = |sums: &Sums| sums.volume.untold > 0;
        if self.groups.iter().any(|group| untold(&group.sums)) {
            out.push_str(UNTOLD);
        }
        for (count, what) in [
            (
                self.folded,
                "groups were summed in other, because there were too many: a row may lack flows from before",
            ),
            (
                self.forgotten,
                "connections were forgotten, because there were too many: bytes may count twice",
            ),
        ] {
            if count > 0 {
                let _ = writeln!(out, "{} {what}", grouped(count));
            }
        }
        out
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| {
                let mut object = Map::new();
                for (name, value) in self.fields.iter().zip(&group.key) {
                    object.insert((*name).to_owned(), value.as_str().into());
                }
                group.sums.json(&mut object);
                Value::Object(object)
            })
            .collect();
        let other = self.other.as_ref().map(|rest| {
            let mut object = Map::from_iter([("groups".to_owned(), rest.groups.into())]);
            rest.sums.json(&mut object);
            object
        });
        json!({
            "about": self.about,
            "groups": groups,
            "other": other,
            "groups_folded": self.folded,
            "connections_forgotten": self.forgotten,
        })
        .to_string()
    }
}

//! `top`: who talks most, and who is dropped, as rates.

mod report;

pub use report::Report;

use super::{
    about::{About, CountedBy, Time},
    ends, fields,
    groups::{Counts, Groups, Other},
    volume::{Connections, Volume},
};
use crate::{
    Facts,
    flow::{Flow, Verdict},
    text::parts::End,
};
use serde::Serialize;
use std::{collections::VecDeque, ops::AddAssign};

/// Rows kept of all, and of each second.
const MOST_ROWS: usize = 4096;
const MOST_IN_A_SECOND: usize = 1024;

/// Flows of so many seconds before the beginning tell what connections had moved by then: each is told of every 5 s.
pub const PRIME: i64 = 10;

/// What rows are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Ends, by workload.
    Workload,
    /// Ends, by pod; other ends by address.
    Pod,
    /// Ends, by namespace.
    Namespace,
    /// Servers' ports.
    Port,
    /// Drops, by reason and ends.
    Reason,
    /// Verdicts, by policy.
    Policy,
}

impl By {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("workload", Self::Workload),
        ("pod", Self::Pod),
        ("namespace", Self::Namespace),
        ("port", Self::Port),
        ("reason", Self::Reason),
        ("policy", Self::Policy),
    ];

    /// By its name; the error says which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(own, _)| *own == name);
        found
            .map(|(_, by)| *by)
            .ok_or_else(|| format!("{name:?} is none of {}", Self::ALL.map(|(name, _)| name).join(", ")))
    }

    fn titles(self) -> &'static [&'static str] {
        match self {
            Self::Workload => &["WORKLOAD"],
            Self::Pod => &["POD"],
            Self::Namespace => &["NAMESPACE"],
            Self::Port => &["PORT"],
            Self::Reason => &["REASON", "SOURCE", "DESTINATION"],
            Self::Policy => &["POLICY", "VERDICT"],
        }
    }

    fn is_of_ends(self) -> bool {
        matches!(self, Self::Workload | Self::Pod | Self::Namespace)
    }
}

/// Of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    flows: u64,
    /// Those that tell no packets and bytes, though they are of some, and those that are of none.
    untold: u64,
    apart: u64,
    sent: Volume,
    received: Volume,
    /// Flows that were dropped, and the packets of them.
    drops: u64,
    dropped: Volume,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.untold += other.untold;
        self.apart += other.apart;
        self.sent += other.sent;
        self.received += other.received;
        self.drops += other.drops;
        self.dropped += other.dropped;
    }
}

impl Sums {
    /// A count that no flow may have told.
    fn told(&self, count: u64) -> Option<u64> {
        (self.flows == 0 || self.untold + self.apart < self.flows).then_some(count)
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        (self.sent.bytes + self.received.bytes + self.dropped.packets + self.apart, self.flows)
    }
}

/// What came in a second.
#[derive(Debug)]
struct Second {
    unix: i64,
    flows: u64,
    lost: u64,
    groups: Groups<Vec<String>, Sums>,
}

/// Takes in flows.
#[derive(Debug)]
pub struct Top {
    by: By,
    counted_by: CountedBy,
    /// How far back rates reach, in seconds; none: over all flows, by their own time.
    span: Option<i64>,
    seconds: VecDeque<Second>,
    connections: Connections,
    /// Of all flows.
    times: About,
    began: i64,
}

impl Top {
    /// Rates over the last `span` seconds, counting from `began` (unix seconds) on: flows of up to [`PRIME`] seconds
    /// before it only tell what had been moved by then. Without a span, over the time of all flows taken in.
    pub fn new(by: By, counted_by: CountedBy, span: Option<i64>, began: i64) -> Self {
        let since = span.map(|_| prost_types::Timestamp { seconds: began, nanos: 0 });
        Self {
            by,
            counted_by,
            span,
            seconds: VecDeque::new(),
            connections: Connections::new(since),
            times: About::default(),
            began,
        }
    }

    /// Takes in a flow that came at `now` (unix seconds).
    pub fn flow(&mut self, flow: &Flow, now: i64) {
        // The packets that it is about have flows of their own, but for a request that was refused.
        let is_apart = match self.by {
            By::Policy => ends::is_l7(flow),
            By::Reason => ends::is_apart(flow) && !(ends::is_l7(flow) && ends::is_drop(flow)),
            _ => ends::is_apart(flow),
        };
        if is_apart {
            return;
        }
        let facts = Facts::of(flow);
        let volume = self.connections.new_of(flow, &facts);
        let time = flow.time.map_or(now, |time| time.seconds);
        if self.span.is_some() && (self.began - PRIME..self.began).contains(&time) {
            return;
        }
        self.times.flow(flow);
        let (by, most) = (self.by, if self.span.is_some() { MOST_IN_A_SECOND } else { MOST_ROWS });
        // Nodes' clocks may differ: what is not of the time looked at has just come.
        let oldest = self.span.map_or(i64::MIN, |span| now - span);
        let second = self.second(if (oldest..=now).contains(&time) { time } else { now }, most);
        second.flows += 1;
        rows(by, flow, &facts, volume, &mut second.groups);
        self.forget(now);
    }

    /// Flows that did not come.
    pub fn lost(&mut self, flows: u64, now: i64) {
        self.second(now, MOST_IN_A_SECOND).lost += flows;
    }

    fn second(&mut self, second: i64, most: usize) -> &mut Second {
        let second = if self.span.is_some() { second } else { 0 };
        let place = self.seconds.partition_point(|own| own.unix < second);
        if self.seconds.get(place).is_none_or(|own| own.unix != second) {
            let groups = Groups::new(most);
            self.seconds.insert(place, Second { unix: second, flows: 0, lost: 0, groups });
        }
        &mut self.seconds[place]
    }

    fn forget(&mut self, now: i64) {
        if let Some(span) = self.span {
            while self.seconds.front().is_some_and(|second| second.unix <= now - span) {
                self.seconds.pop_front();
            }
        }
    }

    /// The rates as of `now`.
    pub fn report(&mut self, now: i64, limit: usize) -> Report {
        self.forget(now);
        let mut all = Groups::new(MOST_ROWS);
        let mut about = About { counted_by: self.counted_by, ..About::default() };
        for second in &self.seconds {
            all.merge(&second.groups);
            about.flows += second.flows;
            about.lost += second.lost;
        }
        if let Some(span) = self.span {
            let at = |seconds| Time(Some(prost_types::Timestamp { seconds, nanos: 0 }));
            (about.from, about.until) = (at((now - span).max(self.began)), at(now));
        } else {
            (about.from, about.until) = (self.times.from, self.times.until);
        }
        let (rows, Other { rows: more, counts }) = all.heaviest(limit);
        let mut report = Report { by: self.by, about, rows, other: None, unknown: None };
        report.other = (more > 0).then_some((more, counts));
        if self.by == By::Policy && report.rows.is_empty() {
            report.unknown = Some("not observed: no flow names a policy".to_owned());
        }
        report
    }
}

fn rows(by: By, flow: &Flow, facts: &Facts, volume: Volume, to: &mut Groups<Vec<String>, Sums>) {
    let is_drop = ends::is_drop(flow);
    let Volume { untold, apart, .. } = volume;
    let mut sums = Sums { flows: 1, untold, apart, drops: u64::from(is_drop), ..Sums::default() };
    if is_drop {
        sums.dropped = volume;
    }
    let moved = if is_drop { Volume::default() } else { volume };
    match by {
        By::Workload | By::Pod | By::Namespace => {
            let name = |end| match by {
                By::Workload => ends::workload(flow, end),
                By::Pod => ends::shown(flow, end),
                _ => match ends::namespace(flow, end) {
                    // The world, the host: named in brackets, as no namespace can be.
                    namespace if namespace.is_empty() => format!("({})", ends::workload(flow, end)),
                    namespace => namespace,
                },
            };
            to.add(vec![name(End::Source)], Sums { sent: moved, ..sums });
            to.add(vec![name(End::Destination)], Sums { received: moved, ..sums });
        }
        By::Port => {
            let (_, server) = ends::callers(flow);
            to.add(vec![ends::port(ends::protocol(flow), server.port(flow))], Sums { sent: moved, ..sums });
        }
        By::Reason if is_drop => {
            let reason = ends::reason(flow, &facts.kernel_reason).into_owned();
            let ends = [End::Source, End::Destination].map(|end| ends::workload(flow, end));
            to.add(std::iter::once(reason).chain(ends).collect(), sums);
        }
        By::Reason => {}
        By::Policy => {
            let verdict = Verdict::try_from(flow.verdict).unwrap_or_default().as_str_name();
            let policies = fields::policies(flow);
            for policy in policies.split(' ').filter(|policy| !policy.is_empty()) {
                to.add(vec![policy.to_owned(), verdict.to_owned()], sums);
            }
        }
    }
}

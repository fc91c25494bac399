//! The series of a metric: a number, or times, for each set of values of its labels. A flow whose series is there
//! allocates nothing.

use super::{
    context::Value,
    histogram::{self, Exemplar, Histogram},
    page::{Page, escaped},
};
use crate::endpoint::Endpoint;
use hashbrown::{DefaultHashBuilder, HashMap};
use std::{
    collections::{self, HashSet},
    fmt::Write as _,
    hash::BuildHasher as _,
    time::Duration,
};

/// The value of each label of the series that stands for those without room.
const OTHER: &str = "other";

/// How many series there may be, of all metrics of flows together.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) most: usize,
    pub(super) taken: usize,
    /// Flows that were counted as `other`.
    pub(super) folded: u64,
    hasher: DefaultHashBuilder,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: 0, folded: 0, hasher: DefaultHashBuilder::default() }
    }
}

/// Pods by namespace.
pub(super) type Pods = collections::HashMap<String, HashSet<String>>;

/// A metric as Prometheus knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    /// Of the metric's own labels.
    labels: &'static [&'static str],
    is_histogram: bool,
}

impl Family {
    /// Of numbers.
    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, help, labels, is_histogram: false }
    }

    /// The same with these labels.
    pub(super) const fn with(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// Of times.
    pub(super) const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { is_histogram: true, ..Self::counter(name, help, labels) }
    }
}

/// What a flow adds to a series.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// To a number.
    Count(u64),
    /// To a histogram.
    Time(Duration),
}

/// Of one metric.
#[derive(Debug)]
pub(super) struct Table {
    family: Family,
    names: Vec<&'static str>,
    /// By the hash of the values: of 64 bits, that two sets share one is less likely than a fault of the machine.
    series: HashMap<u64, Series>,
    /// What found no room.
    other: Option<Sum>,
}

/// What was counted.
#[derive(Debug)]
enum Sum {
    Count(u64, Option<Exemplar>),
    Times(Box<Histogram>),
}

impl Sum {
    fn new(family: &Family) -> Self {
        if family.is_histogram { Self::Times(Box::default()) } else { Self::Count(0, None) }
    }

    fn add(&mut self, amount: Amount, example: Option<(&str, i64)>) {
        let exemplar = |value| example.and_then(|(trace, time_ns)| Exemplar::new(trace, value, time_ns));
        match (self, amount) {
            (Self::Count(count, last), Amount::Count(more)) => {
                *count += more;
                *last = exemplar(more as f64).or(*last);
            }
            (Self::Times(times), Amount::Time(time)) => times.add(time, exemplar(time.as_secs_f64())),
            // A table is of one kind, and gets what is of it.
            (Self::Count(..), Amount::Time(_)) | (Self::Times(_), Amount::Count(_)) => {}
        }
    }

    fn write(&self, page: &mut Page, labels: &str) {
        match self {
            Self::Count(count, exemplar) => page.written("", labels, *count, exemplar.as_ref()),
            Self::Times(times) => times.write(page, labels),
        }
    }
}

#[derive(Debug)]
struct Series {
    /// As it stands on the page: `a="x",b="y"`.
    labels: Box<str>,
    sum: Sum,
    /// Namespaces and names of pods that the labels tell of.
    pods: [Option<(Box<str>, Box<str>)>; 2],
}

impl Table {
    /// With further labels behind the metric's own.
    pub(super) fn new(family: Family, more: impl Iterator<Item = &'static str>) -> Self {
        let names = family.labels.iter().copied().chain(more).collect();
        Self { family, names, series: HashMap::new(), other: None }
    }

    /// Series on a page that one of these is.
    fn weight(&self) -> usize {
        if self.family.is_histogram { histogram::SAMPLES } else { 1 }
    }

    /// Counts; `pods` are the ends that the labels name, where they name any. An example has the trace and the Unix time
    /// in nanoseconds.
    pub(super) fn add(
        &mut self,
        values: &[Value<'_>],
        amount: Amount,
        example: Option<(&str, i64)>,
        pods: [Option<&Endpoint>; 2],
        room: &mut Room,
    ) {
        let key = room.hasher.hash_one(values);
        let weight = self.weight();
        let sum = if let Some(series) = self.series.get_mut(&key) {
            &mut series.sum
        } else if room.taken + weight <= room.most {
            room.taken += weight;
            let name = |end: &Endpoint| (end.namespace[..].into(), end.pod_name[..].into());
            let pods = pods.map(|end| end.filter(|end| !end.pod_name.is_empty()).map(name));
            let (labels, sum) = (labels(&self.names, values), Sum::new(&self.family));
            &mut self.series.entry(key).insert(Series { labels, sum, pods }).into_mut().sum
        } else {
            room.folded += 1;
            self.other.get_or_insert_with(|| Sum::new(&self.family))
        };
        sum.add(amount, example);
    }

    /// The family with its series, and that of those without room, where there are any.
    pub(super) fn write(&self, page: &mut Page) {
        let Family { name, help, is_histogram, .. } = self.family;
        if is_histogram {
            page.histogram(name, help);
        } else {
            page.counter(name, help);
        }
        self.series.values().for_each(|series| series.sum.write(page, &series.labels));
        if let Some(other) = &self.other {
            let values = vec![Value::Text(OTHER); self.names.len()];
            other.write(page, &labels(&self.names, &values));
        }
    }

    /// Adds the pods that it tells of.
    pub(super) fn add_pods(&self, pods: &mut Pods) {
        for (namespace, name) in self.series.values().flat_map(|series| series.pods.iter().flatten()) {
            // Many series are of one pod.
            if !pods.get(&**namespace).is_some_and(|names| names.contains(&**name)) {
                pods.entry(namespace.to_string()).or_default().insert(name.to_string());
            }
        }
    }

    /// Takes out the series that tell of one of these pods; how many they are.
    pub(super) fn forget(&mut self, gone: &Pods, room: &mut Room) {
        let is_gone = |(namespace, name): &(Box<str>, Box<str>)| {
            gone.get(&**namespace).is_some_and(|names| names.contains(&**name))
        };
        let before = self.series.len();
        self.series.retain(|_, series| !series.pods.iter().flatten().any(is_gone));
        room.taken -= (before - self.series.len()) * self.weight();
    }

    /// Takes out all.
    pub(super) fn clear(&mut self, room: &mut Room) {
        room.taken -= self.series.len() * self.weight();
        self.series.clear();
    }
}

fn labels(names: &[&str], values: &[Value<'_>]) -> Box<str> {
    let mut labels = String::new();
    for (place, (name, value)) in names.iter().zip(values).enumerate() {
        let comma = if place == 0 { "" } else { "," };
        // Writing to a String can't fail.
        let _ = write!(labels, "{comma}{name}=\"{}\"", escaped(&value.to_string()));
    }
    labels.into()
}

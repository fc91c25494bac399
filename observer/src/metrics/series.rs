//! The series of a metric: a number for each set of values of its labels. A flow whose series is there allocates nothing.

use super::{context::Value, page::escaped};
use crate::endpoint::Endpoint;
use hashbrown::{DefaultHashBuilder, HashMap};
use std::{
    collections::{self, HashSet},
    fmt::Write as _,
    hash::BuildHasher as _,
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

/// Of one metric.
#[derive(Debug)]
pub(super) struct Table {
    names: Vec<&'static str>,
    /// By the hash of the values: of 64 bits, that two sets share one is less likely than a fault of the machine.
    series: HashMap<u64, Series>,
    /// What found no room.
    other: u64,
}

#[derive(Debug)]
struct Series {
    /// As it stands on the page: `a="x",b="y"`.
    labels: Box<str>,
    count: u64,
    /// Namespaces and names of pods that the labels tell of.
    pods: [Option<(Box<str>, Box<str>)>; 2],
}

impl Table {
    pub(super) fn new(names: Vec<&'static str>) -> Self {
        Self { names, series: HashMap::new(), other: 0 }
    }

    /// Counts; `pods` are the ends that the labels name, where they name any.
    pub(super) fn add(
        &mut self,
        values: &[Value<'_>],
        count: u64,
        pods: [Option<&Endpoint>; 2],
        room: &mut Room,
    ) {
        let key = room.hasher.hash_one(values);
        if let Some(series) = self.series.get_mut(&key) {
            series.count += count;
        } else if room.taken < room.most {
            room.taken += 1;
            let name = |end: &Endpoint| (end.namespace.as_str().into(), end.pod_name.as_str().into());
            let pods = pods.map(|end| end.filter(|end| !end.pod_name.is_empty()).map(name));
            self.series.insert(key, Series { labels: labels(&self.names, values), count, pods });
        } else {
            room.folded += 1;
            self.other += count;
        }
    }

    /// Gives the series by their labels, and that of those without room, where there are any.
    pub(super) fn each(&self, mut give: impl FnMut(&str, u64)) {
        self.series.values().for_each(|series| give(&series.labels, series.count));
        if self.other > 0 {
            let values = vec![Value::Text(OTHER); self.names.len()];
            give(&labels(&self.names, &values), self.other);
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
        room.taken -= before - self.series.len();
    }

    /// Takes out all.
    pub(super) fn clear(&mut self, room: &mut Room) {
        room.taken -= self.series.len();
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

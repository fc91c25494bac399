//! Who sent a flow and whom it was for, as labels: Hubble's context options.

use crate::{
    endpoint::{Endpoint, Text},
    flow::{Flow, Record},
};
use observer_proto::{
    flow::TrafficDirection,
    summary::{self, Packet},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
};

/// The most labels of a series: thirteen by `labelsContext`, two ends, and four of the metric's own.
const MOST_LABELS: usize = 19;

/// The value of a label, borrowed from a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// Written in small letters.
    Small(&'a str),
    /// `namespace/name`.
    Named(&'a str, &'a str),
    Ip(IpAddr),
    Number(u16),
    /// With commas between them.
    List(&'a [String]),
    Labels(&'a [Text]),
    Names(&'a [Box<str>]),
    /// The type and code of an ICMP message, of IPv6 where that is true.
    Icmp(bool, u8, u8),
}

impl Value<'_> {
    fn is_empty(self) -> bool {
        match self {
            Self::Text(text) | Self::Small(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Labels(labels) => labels.is_empty(),
            Self::Names(names) => names.is_empty(),
            Self::Named(..) | Self::Ip(_) | Self::Number(_) | Self::Icmp(..) => false,
        }
    }
}

impl Hash for Value<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Of one label all values are of one or two kinds, which are never written alike.
        match self {
            Self::Text(text) | Self::Small(text) => text.hash(state),
            Self::Named(namespace, name) => (namespace, name).hash(state),
            Self::Ip(ip) => ip.hash(state),
            Self::Number(number) => number.hash(state),
            Self::List(list) => list.hash(state),
            Self::Labels(labels) => labels.hash(state),
            Self::Names(names) => names.hash(state),
            Self::Icmp(is_v6, kind, code) => (is_v6, kind, code).hash(state),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Small(text) => f.write_str(&text.to_ascii_lowercase()),
            Self::Named(namespace, name) => write!(f, "{namespace}/{name}"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Labels(labels) => f.write_str(&labels.join(",")),
            Self::Names(names) => f.write_str(&names.join(",")),
            Self::Icmp(is_v6, kind, code) => {
                let packet = if *is_v6 { Packet::IcmpV6(*kind, *code) } else { Packet::IcmpV4(*kind, *code) };
                let mut text = String::new();
                summary::write(packet, &mut text)?;
                // Behind the protocol's name.
                f.write_str(text.split_once(' ').map_or("", |(_, text)| text))
            }
        }
    }
}

/// The values of a series' labels, in their order.
pub(super) struct Values<'a> {
    values: [Value<'a>; MOST_LABELS],
    count: usize,
}

impl<'a> Values<'a> {
    pub(super) fn new() -> Self {
        Self { values: [Value::Text(""); MOST_LABELS], count: 0 }
    }

    pub(super) fn push(&mut self, value: Value<'a>) {
        self.values[self.count] = value;
        self.count += 1;
    }

    pub(super) fn as_slice(&self) -> &[Value<'a>] {
        &self.values[..self.count]
    }
}

impl<'a> FromIterator<Value<'a>> for Values<'a> {
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(all: I) -> Self {
        let mut values = Self::new();
        all.into_iter().for_each(|value| values.push(value));
        values
    }
}

/// One end of a flow.
#[derive(Clone, Copy)]
struct Side<'a> {
    end: &'a Endpoint,
    ip: Option<IpAddr>,
    names: &'a [Box<str>],
}

impl<'a> Side<'a> {
    /// Source and destination.
    fn both(flow: &Flow<'a>) -> [Self; 2] {
        [
            Self { end: flow.source, ip: flow.source_ip, names: flow.source_names() },
            Self { end: flow.destination, ip: flow.destination_ip, names: flow.destination_names() },
        ]
    }
}

/// How an end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identifier {
    Identity,
    Namespace,
    Pod,
    PodName,
    Dns,
    Ip,
    ReservedIdentity,
    Workload,
    WorkloadName,
    App,
}

const IDENTIFIERS: [(&str, Identifier); 10] = [
    ("identity", Identifier::Identity),
    ("namespace", Identifier::Namespace),
    ("pod", Identifier::Pod),
    ("pod-name", Identifier::PodName),
    ("dns", Identifier::Dns),
    ("ip", Identifier::Ip),
    ("reserved-identity", Identifier::ReservedIdentity),
    ("workload", Identifier::Workload),
    ("workload-name", Identifier::WorkloadName),
    ("app", Identifier::App),
];

/// The labels of `labelsContext`, in the order in which Hubble has them: first the source's.
const LABELS: [&str; 13] = [
    "source_ip",
    "source_pod",
    "source_namespace",
    "source_workload",
    "source_workload_kind",
    "source_app",
    "destination_ip",
    "destination_pod",
    "destination_namespace",
    "destination_workload",
    "destination_workload_kind",
    "destination_app",
    "traffic_direction",
];
/// How many of them each end has.
const OF_AN_END: usize = 6;

/// One end's options: in general, of ingress and of egress.
#[derive(Clone, Debug, Default, PartialEq)]
struct End {
    usual: Vec<Identifier>,
    ingress: Option<Vec<Identifier>>,
    egress: Option<Vec<Identifier>>,
}

impl End {
    fn lists(&self) -> impl Iterator<Item = &Vec<Identifier>> {
        [Some(&self.usual), self.ingress.as_ref(), self.egress.as_ref()].into_iter().flatten()
    }

    fn is_told(&self) -> bool {
        self.lists().any(|list| !list.is_empty())
    }

    fn of(&self, flow: &Record) -> &[Identifier] {
        const INGRESS: u8 = TrafficDirection::Ingress as u8;
        const EGRESS: u8 = TrafficDirection::Egress as u8;
        match (flow.direction, &self.ingress, &self.egress) {
            (INGRESS, Some(list), _) | (EGRESS, _, Some(list)) => list,
            _ => &self.usual,
        }
    }

    fn names_pods(&self) -> bool {
        let names = |identifier: &Identifier| {
            matches!(identifier, Identifier::Pod | Identifier::PodName | Identifier::Ip)
        };
        self.lists().flatten().any(names)
    }
}

/// The context options of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Context {
    /// Places in [`LABELS`].
    labels: Vec<usize>,
    source: End,
    destination: End,
}

impl Context {
    /// Takes an option; whether it is one of the context's. The error says what would be right.
    pub(super) fn take(&mut self, name: &str, values: &[&str]) -> Result<bool, String> {
        let list = || -> Result<Vec<Identifier>, String> {
            let each = values.iter().map(|value| {
                let found = IDENTIFIERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
                let known = || IDENTIFIERS.map(|(name, _)| name).join(", ");
                found
                    .map(|(_, identifier)| *identifier)
                    .ok_or_else(|| format!("unknown context `{value}`; there are {}", known()))
            });
            each.collect()
        };
        match name.to_ascii_lowercase().as_str() {
            "sourcecontext" => self.source.usual = list()?,
            "sourceingresscontext" => self.source.ingress = Some(list()?),
            "sourceegresscontext" => self.source.egress = Some(list()?),
            "destinationcontext" => self.destination.usual = list()?,
            "destinationingresscontext" => self.destination.ingress = Some(list()?),
            "destinationegresscontext" => self.destination.egress = Some(list()?),
            "labelscontext" => {
                if let Some(unknown) = values.iter().find(|value| !LABELS.contains(value)) {
                    return Err(format!("unknown label `{unknown}`; there are {}", LABELS.join(", ")));
                }
                self.labels = (0..LABELS.len()).filter(|label| values.contains(&LABELS[*label])).collect();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The names of the labels.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let ends = [(&self.source, "source"), (&self.destination, "destination")];
        let ends = ends.into_iter().filter(|(end, _)| end.is_told()).map(|(_, name)| name);
        self.labels.iter().map(|label| LABELS[*label]).chain(ends)
    }

    /// Their values of a flow, or, turned, of the flow that it answers.
    pub(super) fn values<'a>(&self, flow: &Flow<'a>, is_turned: bool, values: &mut Values<'a>) {
        let [mut source, mut destination] = Side::both(flow);
        if is_turned {
            (source, destination) = (destination, source);
        }
        for label in &self.labels {
            values.push(match label / OF_AN_END {
                0 => label_of(source, label % OF_AN_END),
                1 => label_of(destination, label % OF_AN_END),
                _ => direction(flow),
            });
        }
        for (told, side) in [(&self.source, source), (&self.destination, destination)] {
            if told.is_told() {
                let mut all = told.of(flow).iter().map(|identifier| identifier.of(side));
                values.push(all.find(|value| !value.is_empty()).unwrap_or(Value::Text("")));
            }
        }
    }

    /// Whether a label has the source's pod, and the destination's: such series go with the pod.
    pub(super) fn names_pods(&self) -> [bool; 2] {
        let labels =
            |end: usize| self.labels.iter().any(|label| label / OF_AN_END == end && label % OF_AN_END < 2);
        [self.source.names_pods() || labels(0), self.destination.names_pods() || labels(1)]
    }
}

impl Identifier {
    fn of(self, Side { end, ip, names }: Side<'_>) -> Value<'_> {
        let workload = end.workloads.first().map_or("", |workload| workload.name.as_str());
        match self {
            Self::Identity => Value::Labels(&end.labels),
            Self::Namespace => Value::Text(&end.namespace),
            Self::Pod if end.namespace.is_empty() => Value::Text(&end.pod_name),
            Self::Pod => Value::Named(&end.namespace, &end.pod_name),
            Self::PodName => Value::Text(&end.pod_name),
            Self::Dns => Value::Names(names),
            Self::Ip => address(ip),
            Self::ReservedIdentity => Value::Text(reserved(&end.labels)),
            Self::Workload if workload.is_empty() || end.namespace.is_empty() => Value::Text(workload),
            Self::Workload => Value::Named(&end.namespace, workload),
            Self::WorkloadName => Value::Text(workload),
            Self::App => Value::Text(app(&end.labels)),
        }
    }
}

fn label_of(Side { end, ip, .. }: Side<'_>, label: usize) -> Value<'_> {
    let workload = end.workloads.first();
    match label {
        0 => address(ip),
        1 => Value::Text(&end.pod_name),
        2 => Value::Text(&end.namespace),
        3 => Value::Text(workload.map_or("", |workload| workload.name.as_str())),
        4 => Value::Text(workload.map_or("", |workload| workload.kind.as_str())),
        _ => Value::Text(app(&end.labels)),
    }
}

fn address(ip: Option<IpAddr>) -> Value<'static> {
    ip.map_or(Value::Text(""), Value::Ip)
}

fn direction(flow: &Record) -> Value<'static> {
    Value::Text(match TrafficDirection::try_from(i32::from(flow.direction)) {
        Ok(TrafficDirection::Ingress) => "ingress",
        Ok(TrafficDirection::Egress) => "egress",
        _ => "unknown",
    })
}

/// The API server's label where it is there, else the first reserved one.
fn reserved(labels: &[Text]) -> &str {
    const API_SERVER: &str = "reserved:kube-apiserver";
    let found = labels.iter().find(|label| *label == API_SERVER);
    found.or_else(|| labels.iter().find(|label| label.starts_with("reserved:"))).map_or("", |label| label)
}

/// By the label that Kubernetes recommends, or the older ones: whichever comes first in order.
fn app(labels: &[Text]) -> &str {
    const KEYS: [&str; 3] = ["k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app="];
    let value = labels.iter().find_map(|label| {
        let value = KEYS.iter().find_map(|key| label.strip_prefix(key))?;
        Some(value).filter(|value| !value.is_empty())
    });
    value.unwrap_or("")
}

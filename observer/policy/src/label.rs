//! Labels with their sources, as Cilium has them (`k8s:app=web`), and selectors over them.

use std::{fmt, sync::Arc};

/// The namespace of a pod, on each of its identities.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// What stands before a namespace's own labels.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// The cluster of a pod.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Labels from Kubernetes.
pub const K8S: &str = "k8s";
/// Labels of the identities that are no pods.
pub const RESERVED: &str = "reserved";

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Its key, without the source.
    pub key: Box<str>,
    /// Where it comes from: `k8s`, `reserved`, ...
    pub source: Box<str>,
    /// Its value, often empty.
    pub value: Box<str>,
}

impl Label {
    /// Reads `source:key=value`; what has no source is of `unspec`.
    pub fn parse(text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = key.split_once(':').unwrap_or(("unspec", key));
        Self { key: key.into(), source: source.into(), value: value.into() }
    }
}

/// As it is read, without a `=` where there is no value.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { "=" };
        write!(f, "{}:{}{equals}{}", self.source, self.key, self.value)
    }
}

/// The labels of an endpoint, sorted; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// Reads labels such as `k8s:app=web`.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        texts.into_iter().map(|text| Label::parse(text.as_ref())).collect()
    }

    fn of_key<'a, 'k>(
        &'a self,
        key: &'k str,
        source: Option<&'k str>,
    ) -> impl Iterator<Item = &'a Label> + use<'a, 'k> {
        let start = self.0.partition_point(|label| &*label.key < key);
        let same = self.0[start..].iter().take_while(move |label| &*label.key == key);
        same.filter(move |label| source.is_none_or(|source| &*label.source == source))
    }

    /// The value of a label.
    pub fn get<'a>(&'a self, source: &str, key: &str) -> Option<&'a str> {
        let found: Option<&'a Label> = self.of_key(key, Some(source)).next();
        found.map(|label| &*label.value)
    }

    /// Whether this is the label set of a reserved identity of that name.
    pub fn is_reserved(&self, name: &str) -> bool {
        self.get(RESERVED, name).is_some()
    }

    /// Whether this is a node, own or other.
    pub fn is_node(&self) -> bool {
        self.is_reserved("host") || self.is_reserved("remote-node")
    }

    /// Whether this is outside of the cluster.
    pub fn is_world(&self) -> bool {
        ["world", "world-ipv4", "world-ipv6"].iter().any(|name| self.is_reserved(name))
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        labels.dedup();
        Self(labels.into())
    }
}

/// What one key must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// There, with one of these values.
    In(Vec<Box<str>>),
    /// Not there with one of these values; one without the key passes.
    NotIn(Vec<Box<str>>),
    /// There.
    Exists,
    /// Not there.
    DoesNotExist,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// `None`: labels of any source.
    pub source: Option<Box<str>>,
    /// The key, without a source.
    pub key: Box<str>,
    /// What it must be.
    pub operator: Operator,
}

impl Requirement {
    /// The key is there with that value.
    pub fn equals(source: &str, key: &str, value: &str) -> Self {
        let operator = Operator::In(vec![value.into()]);
        Self { source: Some(source.into()), key: key.into(), operator }
    }

    /// The key is there.
    pub fn exists(source: &str, key: &str) -> Self {
        Self { source: Some(source.into()), key: key.into(), operator: Operator::Exists }
    }

    /// Whether labels are as this wants them.
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut found = labels.of_key(&self.key, self.source.as_deref());
        match &self.operator {
            Operator::In(values) => found.any(|label| values.contains(&label.value)),
            Operator::NotIn(values) => !found.any(|label| values.contains(&label.value)),
            Operator::Exists => found.next().is_some(),
            Operator::DoesNotExist => found.next().is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_deref().unwrap_or("any");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{source}:{}={}", self.key, values[0]),
            Operator::In(values) => write!(f, "{source}:{} in ({})", self.key, values.join(", ")),
            Operator::NotIn(values) => write!(f, "{source}:{} not in ({})", self.key, values.join(", ")),
            Operator::Exists => write!(f, "{source}:{}", self.key),
            Operator::DoesNotExist => write!(f, "!{source}:{}", self.key),
        }
    }
}

/// Conditions that must all hold; none means everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Whether labels are as this wants them.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everything");
        }
        for (n, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

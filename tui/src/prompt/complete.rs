//! What Tab offers in the prompt: names of flags, then values from the flags' table, and names that were seen.

use super::words::quoted;
use observer_proto::{
    Facts,
    filter::{
        drop_reasons,
        flags::{self, Complete, FLAGS},
    },
    flow::{DropReason, Endpoint, Flow, Verdict},
};
use std::collections::BTreeMap;

/// Offered at once.
const MOST: usize = 200;
/// Names kept of a kind.
const MOST_NAMES: usize = 4096;

/// Names, and in how many flows they were seen.
type Names = BTreeMap<String, u64>;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pods: Names,
    services: Names,
    workloads: Names,
    labels: Names,
    namespaces: Names,
    nodes: Names,
    verdicts: Names,
    reasons: Names,
}

impl Known {
    /// Takes in a flow.
    pub(crate) fn flow(&mut self, flow: &Flow) {
        for end in [&flow.source, &flow.destination].into_iter().flatten() {
            self.end(end);
        }
        for service in [&flow.source_service, &flow.destination_service].into_iter().flatten() {
            count(&mut self.services, format!("{}/{}", service.namespace, service.name));
        }
        count(&mut self.nodes, flow.node_name.clone());
        if let Ok(verdict) = Verdict::try_from(flow.verdict) {
            count(&mut self.verdicts, verdict.as_str_name().to_owned());
        }
        if let Ok(reason @ 1..) = i32::try_from(flow.drop_reason_desc as u32)
            && let Ok(reason) = DropReason::try_from(reason)
        {
            count(&mut self.reasons, reason.as_str_name().to_owned());
            count(&mut self.reasons, Facts::of(flow).kernel_reason);
        }
    }

    fn end(&mut self, end: &Endpoint) {
        if !end.pod_name.is_empty() {
            count(&mut self.pods, format!("{}/{}", end.namespace, end.pod_name));
        }
        count(&mut self.namespaces, end.namespace.clone());
        end.labels.iter().for_each(|label| count(&mut self.labels, label.clone()));
        end.workloads
            .iter()
            .for_each(|workload| count(&mut self.workloads, format!("{}/{}", workload.kind, workload.name)));
    }

    /// Namespaces that the server knows.
    pub(crate) fn namespaces(&mut self, names: &[String]) {
        for name in names.iter().filter(|name| !name.is_empty()) {
            self.namespaces.entry(name.clone()).or_default();
        }
    }

    fn of(&self, flag: &str, complete: Complete) -> Names {
        let words = |words: &mut dyn Iterator<Item = &str>, seen: &Names| {
            words.map(|word| (word.to_owned(), seen.get(word).copied().unwrap_or(0))).collect()
        };
        match complete {
            Complete::Nothing => Names::new(),
            Complete::Words(list) => {
                let none = Names::new();
                let seen = if flag == "verdict" { &self.verdicts } else { &none };
                words(&mut list.iter().copied(), seen)
            }
            Complete::DropReasons => words(&mut drop_reasons(), &self.reasons),
            Complete::Pods => self.pods.clone(),
            Complete::Services => self.services.clone(),
            Complete::Workloads => self.workloads.clone(),
            Complete::Labels => self.labels.clone(),
            Complete::Namespaces => self.namespaces.clone(),
            Complete::Nodes => self.nodes.clone(),
        }
    }
}

fn count(names: &mut Names, name: String) {
    if name.is_empty() || name.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return;
    }
    if names.len() < MOST_NAMES || names.contains_key(&name) {
        *names.entry(name).or_default() += 1;
    }
}

/// What is offered for a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The byte at which the word begins.
    pub start: usize,
    /// Those seen most first, with the number of flows; 0 where that is not known.
    pub words: Vec<(String, u64)>,
    /// Which one is in the line; none: what all have in common.
    pub at: Option<usize>,
    common: String,
}

impl Offer {
    /// What stands in the line.
    pub(crate) fn text(&self) -> String {
        match self.at.and_then(|at| self.words.get(at)) {
            Some((word, _)) => word.clone() + " ",
            None if self.words.len() == 1 => self.common.clone() + " ",
            None => self.common.clone(),
        }
    }

    /// Goes on to the next.
    pub(crate) fn next(&mut self) {
        if !self.words.is_empty() {
            self.at = Some(self.at.map_or(0, |at| (at + 1) % self.words.len()));
        }
    }
}

/// What fits the word that ends at the cursor.
pub(crate) fn offer(line: &str, cursor: usize, known: &Known) -> Offer {
    let head = &line[..cursor];
    let start = head.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = &head[start..];
    let before = head[..start].split_whitespace().next_back();
    let flag = before.and_then(|before| {
        let name = before.strip_prefix("--").or_else(|| before.strip_prefix('-'))?;
        FLAGS.iter().find(|flag| {
            flag.value.is_some()
                && (flag.name == name || flag.short.is_some_and(|letter| name == letter.to_string()))
        })
    });
    let mut words: Vec<(String, u64)> = match flag {
        Some(flag) => {
            let names = known.of(flag.name, flag.complete).into_iter();
            names
                .map(|(name, count)| (quoted(&name), count))
                .filter(|(name, _)| name.starts_with(word))
                .collect()
        }
        None if word.is_empty() || word.starts_with('-') => {
            let names = flags::FLAGS.iter().map(|flag| (format!("--{}", flag.name), 0));
            names.chain([("--last".to_owned(), 0)]).filter(|(name, _)| name.starts_with(word)).collect()
        }
        None => Vec::new(),
    };
    words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    words.truncate(MOST);
    let common = words.iter().map(|(word, _)| word.as_str()).reduce(common_head).unwrap_or(word).to_owned();
    Offer { start, words, at: None, common }
}

fn common_head<'a>(a: &'a str, b: &str) -> &'a str {
    let end = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    &a[..end.unwrap_or(a.len().min(b.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str, known: &Known) -> (String, Vec<String>) {
        let offer = offer(line, line.len(), known);
        (offer.text(), offer.words.into_iter().map(|(word, _)| word).collect())
    }

    #[test]
    fn flags_and_values_are_offered() {
        let mut known = Known::default();
        let end = |name: &str| {
            Some(Endpoint { namespace: "shop".into(), pod_name: name.into(), ..Endpoint::default() })
        };
        for name in ["web-1", "web-2", "web-2"] {
            known.flow(&Flow { source: end(name), ..Flow::default() });
        }
        known.namespaces(&["ops".to_owned()]);
        assert_eq!(texts("--verd", &known).0, "--verdict ");
        assert_eq!(
            texts("--from-pod s", &known),
            ("shop/web-".to_owned(), vec!["shop/web-2".into(), "shop/web-1".into()])
        );
        assert_eq!(texts("-n o", &known).0, "ops ");
        assert_eq!(texts("--verdict DR", &known).0, "DROPPED ");
        assert_eq!(texts("--port ", &known).1, [""; 0]);
        assert!(texts("", &known).1.len() > 50);
        assert_eq!(texts("wo", &known), ("wo".to_owned(), Vec::new()));
        assert_eq!(common_head("äb", "äbc"), "äb");
    }
}

//! What A asked DNS, and was told: about B's names, and in vain about others.

use super::{MOST_NAMES, MOST_ROWS};
use crate::{
    answers::signals::rcode,
    flow::{Dns, Flow, L7FlowType, layer7::Record},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Names that are remembered; those of further ones are counted.
const MOST_ASKED: usize = 1024;

/// What was asked of a name.
#[derive(Clone, Debug, Default)]
struct Asked {
    queries: u64,
    answers: u64,
    codes: BTreeMap<String, u64>,
    addresses: BTreeSet<String>,
    slowest_ns: u64,
}

/// All that A asked.
#[derive(Debug, Default)]
pub(super) struct Asker {
    names: BTreeMap<String, Asked>,
    forgotten: u64,
    is_any: bool,
}

impl Asker {
    /// Takes in a flow between A and whoever it asked; all but DNS is passed over.
    pub(super) fn flow(&mut self, flow: &Flow) {
        let Some(l7) = &flow.l7 else { return };
        let Some(Record::Dns(dns)) = &l7.record else { return };
        self.is_any = true;
        let name = name(dns);
        if self.names.len() >= MOST_ASKED && !self.names.contains_key(name) {
            self.forgotten += 1;
            return;
        }
        let asked = self.names.entry(name.to_owned()).or_default();
        if l7.r#type() != L7FlowType::Response {
            asked.queries += 1;
            return;
        }
        asked.answers += 1;
        *asked.codes.entry(rcode(dns.rcode)).or_default() += 1;
        asked.slowest_ns = asked.slowest_ns.max(l7.latency_ns);
        let room = MOST_NAMES.saturating_sub(asked.addresses.len());
        asked.addresses.extend(dns.ips.iter().take(room).cloned());
    }

    /// What is told of it, none if nothing was seen; `is_b` says of a name and its addresses whether B is meant.
    pub(super) fn told(&self, is_b: impl Fn(&str, &BTreeSet<String>) -> bool) -> Option<DnsTold> {
        if !self.is_any {
            return None;
        }
        let mut told = DnsTold { unlisted: self.forgotten, ..DnsTold::default() };
        for (name, asked) in &self.names {
            let has_failed = asked.codes.keys().any(|code| code != NO_ERROR);
            let list = match (is_b(name, &asked.addresses), has_failed) {
                (true, _) => &mut told.names,
                (false, true) => &mut told.failed,
                (false, false) => {
                    told.others += 1;
                    continue;
                }
            };
            if list.len() >= MOST_ROWS {
                told.unlisted += asked.queries.max(asked.answers);
                continue;
            }
            list.push(Name {
                name: name.clone(),
                queries: asked.queries,
                answers: asked.answers,
                codes: asked.codes.clone(),
                addresses: asked.addresses.iter().cloned().collect(),
                slowest_ms: (asked.slowest_ns > 0).then_some(asked.slowest_ns as f64 / 1e6),
            });
        }
        Some(told)
    }
}

const NO_ERROR: &str = "NOERROR";

fn name(dns: &Dns) -> &str {
    if dns.query == "." { "." } else { dns.query.trim_end_matches('.') }
}

/// A name that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Name {
    /// Without the dot at its end.
    pub name: String,
    /// Questions.
    pub queries: u64,
    /// Answers.
    pub answers: u64,
    /// Answers by their code.
    pub codes: BTreeMap<String, u64>,
    /// Addresses of answers, the first few.
    pub addresses: Vec<String>,
    /// The longest that an answer took; none where no time was told.
    pub slowest_ms: Option<f64>,
}

impl Name {
    /// Whether no answer told an address, though there were some.
    pub(super) fn is_unknown(&self) -> bool {
        self.answers > 0 && self.addresses.is_empty()
    }

    /// `NXDOMAIN 2, NOERROR 1`.
    pub(super) fn codes(&self) -> String {
        let mut codes: Vec<_> = self.codes.iter().collect();
        codes.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        codes.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// What A asked DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DnsTold {
    /// Names of B: by which the question names it, or whose addresses are B's.
    pub names: Vec<Name>,
    /// Others that some answer failed for.
    pub failed: Vec<Name>,
    /// Names beside these, which were all answered or not answered yet.
    pub others: u64,
    /// Questions or answers about names that there was no room for.
    pub unlisted: u64,
}

impl DnsTold {
    /// Why A can't even try, where DNS is the reason.
    pub(super) fn blame(&self) -> Option<String> {
        let found = self.names.iter().any(|name| !name.addresses.is_empty());
        let name = self.names.iter().find(|_| !found)?;
        if name.is_unknown() {
            return Some(format!("DNS told the first no address of {}: {}", name.name, name.codes()));
        }
        (name.answers == 0).then(|| format!("DNS did not answer the first, which asked for {}", name.name))
    }
}

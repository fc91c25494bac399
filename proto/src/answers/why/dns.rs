//! What A asked DNS, and was told: about B's names, and in vain about others.

use super::{MOST_NAMES, MOST_ROWS, causes};
use crate::{
    answers::{about::Time, ends, fields, signals::rcode},
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
    /// Questions that policies let nobody hear, and those policies.
    denied: u64,
    denied_by: BTreeSet<String>,
    last_denied: Time,
    last_answer: Time,
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
            if ends::is_drop(flow) {
                asked.denied += 1;
                asked.last_denied.later(flow.time);
                let room = MOST_NAMES.saturating_sub(asked.denied_by.len());
                asked.denied_by.extend(fields::denying(flow).map(fields::policy).take(room));
            }
            return;
        }
        asked.answers += 1;
        asked.last_answer.later(flow.time);
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
            let has_failed = asked.denied > 0 || asked.codes.keys().any(|code| code != NO_ERROR);
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
                denied: asked.denied,
                denied_by: asked.denied_by.iter().cloned().collect(),
                is_denied: asked.last_denied.is_after(asked.last_answer),
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
    /// Questions that policies denied.
    pub denied: u64,
    /// Those policies, the first few.
    pub denied_by: Vec<String>,
    /// Whether no question was answered since.
    #[serde(skip)]
    is_denied: bool,
}

impl Name {
    /// Whether no answer told an address, though there were some.
    pub(super) fn is_unknown(&self) -> bool {
        self.answers > 0 && self.addresses.is_empty()
    }

    /// `NXDOMAIN 2, NOERROR 1`, and what became of questions that nobody was to hear.
    pub(super) fn codes(&self) -> String {
        let denied = ("denied by policy".to_owned(), self.denied);
        let denied = (self.denied > 0).then_some((&denied.0, &denied.1));
        let mut codes: Vec<_> = self.codes.iter().chain(denied).collect();
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
    /// Why A can't even try, where DNS is the reason, and where to look next.
    pub(super) fn blame(&self) -> Option<(String, String)> {
        if let Some(Name { name, denied_by, .. }) = self.names.iter().find(|name| name.is_denied) {
            let by = denied_by.join(" ");
            let (policies, advice) = match by.as_str() {
                "" => ("the flow names none", NAME_ADVICE.to_owned()),
                by => (by, causes::show(by)),
            };
            let sentence = format!("a network policy denies the first's DNS queries for {name}: {policies}");
            return Some((sentence, advice));
        }
        let found = self.names.iter().any(|name| !name.addresses.is_empty());
        let name = self.names.iter().find(|_| !found)?;
        let sentence = if name.is_unknown() {
            format!("DNS told the first no address of {}: {}", name.name, name.codes())
        } else if name.answers == 0 {
            format!("DNS did not answer the first, which asked for {}", name.name)
        } else {
            return None;
        };
        Some((sentence, NAME_ADVICE.to_owned()))
    }
}

const NAME_ADVICE: &str = "is the name right, and /etc/resolv.conf? observe --protocol dns, with the first by --pod, shows each answer";

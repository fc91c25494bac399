//! Requests, failures and times of HTTP and DNS, from the L7 flows that were read.

use super::{
    ends,
    groups::{Counts, Groups},
};
use crate::flow::{Flow, Http, L7FlowType, layer7::Record};
use std::{collections::BTreeMap, ops::AddAssign};

/// Rows kept of each protocol.
const MOST: usize = 1024;
/// Clients and codes kept of a row.
const MOST_NAMES: usize = 16;
/// Upper bounds of the buckets of time, in milliseconds; the last bucket has none.
pub const BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// Of fewer answers a percentile says nothing.
pub const LEAST_ANSWERS: u64 = 20;

/// Answers of a server on a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// Answered requests.
    pub answers: u64,
    /// The client's faults: 4xx, or a name that there is not.
    pub client_errors: u64,
    /// The server's faults: 5xx, or another code of DNS.
    pub server_errors: u64,
    /// How long answers took, by [`BOUNDS`]; those that tell no time are in none.
    pub times: [u64; BOUNDS.len() + 1],
    /// Who asked.
    pub clients: BTreeMap<String, u64>,
    /// What was answered.
    pub codes: BTreeMap<String, u64>,
}

impl AddAssign for Signal {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.client_errors += other.client_errors;
        self.server_errors += other.server_errors;
        self.times.iter_mut().zip(other.times).for_each(|(own, other)| *own += other);
        for (own, other) in [(&mut self.clients, other.clients), (&mut self.codes, other.codes)] {
            for (name, count) in other {
                let name =
                    if own.len() < MOST_NAMES || own.contains_key(&name) { name } else { "(other)".into() };
                *own.entry(name).or_default() += count;
            }
        }
    }
}

impl Counts for Signal {
    fn weight(&self) -> (u64, u64) {
        (self.answers, self.server_errors)
    }
}

impl Signal {
    /// The bound (milliseconds) below which this share of the answers was; none where too few are known, or where it was
    /// above all bounds.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.times.iter().sum();
        if all < LEAST_ANSWERS {
            return None;
        }
        let wanted = (all as f64 * share).ceil() as u64;
        let mut sum = 0;
        let at = self.times.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        at.and_then(|at| BOUNDS.get(at).copied())
    }
}

/// A protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Routes are method and path.
    #[default]
    Http,
    /// Routes are types and names.
    Dns,
}

/// Server and route.
type Key = (String, String);

/// Takes in flows.
#[derive(Debug)]
pub struct Signals {
    http: Groups<Key, Signal>,
    dns: Groups<Key, Signal>,
    requests: u64,
    answers: u64,
}

impl Default for Signals {
    fn default() -> Self {
        Self { http: Groups::new(MOST), dns: Groups::new(MOST), requests: 0, answers: 0 }
    }
}

impl Signals {
    /// Takes in a flow; all but L7 is passed over.
    pub fn flow(&mut self, flow: &Flow) {
        let Some(l7) = &flow.l7 else { return };
        match l7.r#type() {
            L7FlowType::Request => self.requests += 1,
            L7FlowType::Response => self.answers += 1,
            L7FlowType::UnknownL7Type | L7FlowType::Sample => {}
        }
        if l7.r#type() != L7FlowType::Response {
            return;
        }
        let (client, server) = ends::callers(flow);
        let (client, server) = (ends::workload(flow, client), ends::workload(flow, server));
        let mut signal = Signal { answers: 1, clients: BTreeMap::from([(client, 1)]), ..Signal::default() };
        if l7.latency_ns > 0 {
            let bucket = BOUNDS.iter().position(|bound| l7.latency_ns < bound * 1_000_000);
            signal.times[bucket.unwrap_or(BOUNDS.len())] = 1;
        }
        match &l7.record {
            Some(Record::Http(http)) => {
                signal.client_errors = u64::from((400..500).contains(&http.code));
                signal.server_errors = u64::from(http.code >= 500);
                signal.codes.insert(http.code.to_string(), 1);
                self.http.add((server, route(http)), signal);
            }
            Some(Record::Dns(dns)) => {
                signal.client_errors = u64::from(dns.rcode == 3);
                signal.server_errors = u64::from(!matches!(dns.rcode, 0 | 3));
                signal.codes.insert(code(dns.rcode), 1);
                let route = format!("{} {}", dns.qtypes.join(","), dns.query.trim_end_matches('.'));
                self.dns.add((server, route), signal);
            }
            _ => {}
        }
    }

    /// Servers and routes of a protocol, those of most answers first; and the sum of those that there was no room for.
    pub fn rows(&self, protocol: Protocol) -> (Vec<(Key, Signal)>, Option<Signal>) {
        let groups = match protocol {
            Protocol::Http => &self.http,
            Protocol::Dns => &self.dns,
        };
        let (rows, other) = groups.heaviest(MOST);
        (rows, (other.rows > 0).then_some(other.counts))
    }

    /// Requests and answers that were seen of all protocols.
    pub fn seen(&self) -> (u64, u64) {
        (self.requests, self.answers)
    }
}

/// Method and path without what stands behind `?`.
fn route(http: &Http) -> String {
    let url = &http.url;
    let path = url.find("://").map_or(url.as_str(), |at| {
        let rest = &url[at + 3..];
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{} {path}", http.method)
}

/// IANA's name.
fn code(rcode: u32) -> String {
    match rcode {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("RCODE{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Dns, Layer7};

    fn answer(record: Record, ms: u64) -> Flow {
        let l7 =
            Layer7 { r#type: L7FlowType::Response as i32, latency_ns: ms * 1_000_000, record: Some(record) };
        Flow { l7: Some(l7), is_reply: Some(true), ..Flow::default() }
    }

    #[test]
    fn answers_are_counted_by_route() {
        let mut signals = Signals::default();
        for (code, ms) in [(200, 3), (404, 3), (500, 3000)] {
            let http = Http {
                code,
                method: "GET".into(),
                url: "http://cart:80/cart/7?user=1".into(),
                ..Http::default()
            };
            signals.flow(&answer(Record::Http(http), ms));
        }
        signals.flow(&answer(Record::Dns(Dns { query: "a.b.".into(), rcode: 3, ..Dns::default() }), 0));
        let (rows, other) = signals.rows(Protocol::Http);
        let [((_, route), signal)] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((route.as_str(), signal.answers), ("GET /cart/7", 3));
        assert_eq!(
            (signal.client_errors, signal.server_errors, signal.times[2], signal.times[11]),
            (1, 1, 2, 1)
        );
        assert_eq!((other, signals.seen()), (None, (0, 4)));
        assert_eq!(signals.rows(Protocol::Dns).0[0].1.codes.keys().collect::<Vec<_>>(), ["NXDOMAIN"]);
    }

    #[test]
    fn few_answers_have_no_percentiles() {
        let mut signal = Signal::default();
        signal.times[0] = LEAST_ANSWERS - 1;
        assert_eq!(signal.percentile(0.5), None);
        signal.times[4] = 1;
        assert_eq!((signal.percentile(0.5), signal.percentile(0.99)), (Some(1), Some(16)));
    }
}

//! The DNS part of the proxy: each query is judged, and an answer waits until its addresses are in the policies' tables, so
//! that the first connection to a name finds them there.

mod tcp;
mod udp;

pub(super) use tcp::serve as serve_stream;
pub(super) use udp::serve as serve_datagrams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use observer_l7::dns::{Message, kind};
use observer_policy::l7::Request;
use observer_proto::flow::{Dns, L7FlowType, Layer7 as Wire, Verdict, layer7::Record as Kind};

use super::session::Common;
use super::told::Told;
use crate::decode::Clock;
use crate::l7;
use crate::layer7::Layer7;
use crate::policy::Ruled;
use crate::policy_verdict::PolicyVerdict;

/// How long a server may take, as Cilium has it.
const SERVER: Duration = Duration::from_secs(10);
/// How long an answer waits for the policies' tables; longer and it goes, counted. Resolvers ask again after seconds.
const HELD: Duration = Duration::from_secs(1);
/// What flows say of who saw it, as Hubble has it.
const SOURCE: &str = "proxy";
/// What no rule for DNS allows: this can't be a name, and even `*` matches none with a line's end.
const NO_NAME: &str = "\n";
const HEADER: usize = 12;
/// RFC 1035, 4.1.1.
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// Who asks whom, by UDP or TCP.
#[derive(Clone, Debug)]
pub(super) struct Dialogue {
    pub(super) common: Arc<Common>,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// IANA's number.
    pub(super) protocol: u8,
}

/// A query that was judged.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether it passes.
    pub(super) passes: bool,
    dns: Dns,
    verdict: Verdict,
    is_egress: Option<bool>,
    began: Instant,
}

impl Dialogue {
    /// Judges a query, and tells it. What is no query with one question is allowed by no rule.
    pub(super) fn ask(&self, query: &[u8]) -> Asked {
        let dns = match Message::read(query) {
            Ok(message) => l7::dns(&message, SOURCE),
            Err(_) => Dns { observation_source: SOURCE.to_owned(), ..Dns::default() },
        };
        let name = if is_plain(query) { &dns.query } else { NO_NAME };
        let policies = &self.common.policies;
        let request = Request::Dns(name);
        let judged = policies.judge_request(self.client, self.server, self.protocol, &request, None);
        let Ruled { passes, verdict, told } = judged.ruled();
        let is_egress = told.as_ref().map(|told| told.told().is_egress);
        let asked = Asked { passes, dns, verdict, is_egress, began: Instant::now() };
        self.tell(&asked, asked.dns.clone(), L7FlowType::Request, 0, told);
        asked
    }

    /// Tells an answer, once what it says may be used.
    pub(super) async fn answered(&self, asked: &Asked, answer: &[u8]) {
        let Ok(message) = Message::read(answer) else { return };
        let dns = l7::dns(&message, SOURCE);
        // What a server says of another name proves nothing.
        let is_of_it = message.is_response() && message.rcode() == 0 && dns.query == asked.dns.query;
        if is_of_it && !dns.ips.is_empty() {
            self.hold(&dns).await;
        }
        let latency = u64::try_from(asked.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tell(asked, dns, L7FlowType::Response, latency, None);
    }

    /// Waits until policies that allow the name allow its addresses.
    async fn hold(&self, dns: &Dns) {
        let ips = dns.ips.iter().filter_map(|ip| ip.parse().ok());
        let (names, now) = (&self.common.names, Clock::kernel_now());
        let Some(generation) = names.tell(&dns.query, ips, self.client.ip(), dns.ttl, now) else { return };
        if !names.are_taken(generation, HELD).await {
            self.common.policies.counters.answers_late.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(
        &self,
        asked: &Asked,
        dns: Dns,
        kind: L7FlowType,
        latency_ns: u64,
        policies: Option<Arc<PolicyVerdict>>,
    ) {
        let message = Wire { r#type: kind.into(), latency_ns, record: Some(Kind::Dns(dns)) };
        self.common.teller.tell(Told {
            client: self.client,
            server: self.server,
            protocol: self.protocol,
            is_answer: kind == L7FlowType::Response,
            is_egress: asked.is_egress,
            verdict: asked.verdict,
            policies,
            ..Told::now(Arc::new(Layer7::new(message, "")))
        });
    }
}

/// Whether it is a usual query with one question, whose name stands there whole, and that one message answers.
fn is_plain(query: &[u8]) -> bool {
    let Ok(message) = Message::read(query) else { return false };
    let mut questions = message.questions();
    let (Some(Ok(question)), None) = (questions.next(), questions.next()) else { return false };
    // Names that point elsewhere may be read in more than one way.
    let length: usize = question.name.labels().map(|label| label.len() + 1).sum();
    let is_whole = query.get(HEADER + length) == Some(&0)
        && question.name.labels().try_fold(HEADER, |at, label| {
            let end = at + 1 + label.len();
            (usize::from(*query.get(at)?) == label.len() && query.get(at + 1..end)? == label).then_some(end)
        }) == Some(HEADER + length);
    !message.is_response()
        && message.opcode() == 0
        && is_whole
        && !matches!(question.kind, kind::IXFR | kind::AXFR)
}

/// The answer that says that the query is refused, or that it failed; nothing to what has no header.
fn says_no(query: &[u8], rcode: u8) -> Option<Vec<u8>> {
    let mut answer = query.get(..HEADER)?.to_vec();
    // A response; of the query's flags its kind, and whether recursion is wanted, which is to be had.
    answer[2] = 0x80 | query[2] & 0x79;
    answer[3] = 0x80 | rcode;
    answer[4..].fill(0);
    if is_plain(query) {
        answer[5] = 1;
        answer.extend_from_slice(query.get(HEADER..HEADER + question_length(query)?)?);
    }
    Some(answer)
}

/// Of the one that it has.
fn question_length(query: &[u8]) -> Option<usize> {
    let message = Message::read(query).ok()?;
    let question = message.questions().next()?.ok()?;
    Some(question.name.labels().map(|label| label.len() + 1).sum::<usize>() + 1 + 4)
}

/// What the client is answered where it is not the server's answer.
pub(super) fn refused(query: &[u8]) -> Option<Vec<u8>> {
    says_no(query, REFUSED)
}

/// Likewise where the server can't be reached.
pub(super) fn failed(query: &[u8]) -> Option<Vec<u8>> {
    says_no(query, SERVER_FAILURE)
}

/// Whether it may be the answer to a query.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    answer.len() >= 2 && answer.get(..2) == query.get(..2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for A, with more behind the question.
    fn query(name: &[u8], more: &[u8]) -> Vec<u8> {
        let header = [0x1234_u16, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
        [&header, name, &[0, 1, 0, 1], more].concat()
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_query() {
        let usual = query(b"\x01a\x07example\0", b"\0\0\x29");
        assert!(is_plain(&usual));
        let changed = |at: usize, byte: u8| {
            let mut bytes = usual.clone();
            bytes[at] = byte;
            bytes
        };
        for (what, bytes) in [
            ("an answer", changed(2, 0x81)),
            ("an update", changed(2, 0x28)),
            ("two questions", changed(5, 2)),
            ("none", changed(5, 0)),
            ("a zone", changed(usual.len() - 6, 252)),
            ("a name elsewhere", query(b"\xc0\x04", b"")),
            ("a name without an end", query(b"\x3fa", b"")),
            ("nothing", Vec::new()),
        ] {
            assert!(!is_plain(&bytes), "{what}");
        }
    }

    #[test]
    fn refusals_have_the_question_and_nothing_else() {
        let usual = query(b"\x01a\x07example\0", b"\0\0\x29");
        let answer = refused(&usual).unwrap();
        let message = Message::read(&answer).unwrap();
        assert!(message.is_response());
        assert_eq!((message.id(), message.rcode()), (0x1234, REFUSED));
        assert_eq!(message.questions().next().unwrap().unwrap().name.to_string(), "a.example.");
        assert_eq!(answer.len(), usual.len() - 3);
        assert!(answers(&answer, &usual));
        let odd = refused(&query(b"\xc0\x04", b"")).unwrap();
        assert_eq!(odd.len(), HEADER);
        assert_eq!(refused(b"short"), None);
        assert!(!answers(b"", b""));
    }
}

//! The counts that the views show: the server's own over all flows, or made here of the rows that are kept.

use crate::{
    link::{Topic, Window},
    rows::{Body, Rows},
};
use observer_proto::{
    answers::rows::{self, Answer, Counter},
    control::{CaptureStatusResponse, ListPoliciesResponse},
    observer::{Node, get_flows_response::ResponseTypes},
    stats::{
        GetDropsResponse, GetEdgesResponse, GetHealthResponse, GetPoliciesResponse, GetSignalsResponse,
        GetTalkersResponse,
    },
};
use prost_types::Timestamp;

/// Who counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Nobody yet.
    #[default]
    None,
    /// The server, over all its flows.
    Server,
    /// The dashboard, over so many rows.
    Rows(u64),
}

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Who counted what is shown.
    pub basis: Basis,
    /// Whether packets and bytes are known.
    pub tells_bytes: bool,
    /// Drops by reason and pair.
    pub drops: Option<GetDropsResponse>,
    /// Who calls whom.
    pub edges: Option<GetEdgesResponse>,
    /// Who talks most.
    pub talkers: Option<GetTalkersResponse>,
    /// Verdicts by policies.
    pub verdicts: Option<GetPoliciesResponse>,
    /// The policies in force, or why they can't be told.
    pub policies: Option<Result<Box<ListPoliciesResponse>, String>>,
    /// HTTP and DNS.
    pub signals: Option<Box<GetSignalsResponse>>,
    /// The nodes.
    pub nodes: Option<Result<Vec<Node>, String>>,
    /// Losses.
    pub health: Option<Box<GetHealthResponse>>,
    /// What is attached on this node.
    pub capture: Option<Result<Box<CaptureStatusResponse>, String>>,
    /// The server doesn't count.
    pub is_unserved: bool,
    recount: Option<Recount>,
    /// When the rows were last counted (ms).
    counted: i64,
}

/// A count that is under way: it is made in slices, so that a key never waits for it.
#[derive(Debug)]
struct Recount {
    topic: rows::Topic,
    counter: Box<Counter>,
    next: u64,
    end: u64,
    since: Option<i64>,
    until: Option<Timestamp>,
    rows: u64,
}

/// Rows of a slice.
const SLICE: usize = 64;
/// How often rows are counted (ms).
const EVERY: i64 = 1000;

/// Of what rows tell of.
fn counted(topic: Topic) -> Option<rows::Topic> {
    match topic {
        Topic::Drops => Some(rows::Topic::Drops),
        Topic::Edges => Some(rows::Topic::Edges),
        Topic::Talkers => Some(rows::Topic::Talkers),
        Topic::Policies => Some(rows::Topic::Policies),
        Topic::Signals => Some(rows::Topic::Signals),
        Topic::Nothing | Topic::Nodes => None,
    }
}

impl Counts {
    /// Takes in an answer.
    pub(crate) fn answer(&mut self, answer: Answer, basis: Basis, tells_bytes: bool) {
        (self.basis, self.tells_bytes) = (basis, tells_bytes);
        match answer {
            Answer::Drops(answer) => self.drops = Some(answer),
            Answer::Edges(answer) => self.edges = Some(answer),
            Answer::Talkers(answer) => self.talkers = Some(answer),
            Answer::Policies(answer) => self.verdicts = Some(answer),
            Answer::Signals(answer) => self.signals = Some(answer),
        }
    }

    /// Forgets counts of another question.
    pub(crate) fn forget(&mut self) {
        let Self { drops, edges, talkers, verdicts, signals, basis, recount, counted, .. } = self;
        (*drops, *edges, *talkers, *verdicts, *signals, *recount) = (None, None, None, None, None, None);
        (*basis, *counted) = (Basis::None, 0);
    }

    /// Begins to count the rows, if it is time.
    pub(crate) fn begin(&mut self, topic: Topic, window: Option<Window>, rows: &Rows, now: i64) {
        if self.recount.is_some() || now - self.counted < EVERY {
            return;
        }
        let since = window.map(|window| now / 1000 - window.seconds());
        let timestamp = |seconds| Timestamp { seconds, nanos: 0 };
        let Some(topic) = counted(topic) else { return };
        self.counted = now;
        self.recount = Some(Recount {
            topic,
            counter: Box::new(Counter::new(topic, since.map(timestamp))),
            next: 0,
            end: rows.next(),
            since,
            until: window.map(|_| timestamp(now / 1000)),
            rows: 0,
        });
    }

    /// Whether a count is under way.
    pub(crate) fn is_counting(&self) -> bool {
        self.recount.is_some()
    }

    /// Counts a slice; whether an answer changed.
    pub(crate) fn slice(&mut self, rows: &Rows) -> bool {
        let Some(recount) = &mut self.recount else { return false };
        let mut done = true;
        for row in rows.since(recount.next).take(SLICE) {
            if row.seq >= recount.end {
                break;
            }
            done = false;
            recount.next = row.seq + 1;
            let Body::Flow(_) = &row.body else { continue };
            if recount.since.is_some_and(|since| row.time.is_none_or(|time| time.seconds < since)) {
                continue;
            }
            let response = row.response();
            if let Some(ResponseTypes::Flow(flow)) = response.and_then(|response| response.response_types) {
                recount.rows += 1;
                recount.counter.flow(&flow);
            }
        }
        if !done {
            return false;
        }
        if let Some(Recount { topic, counter, rows, until, .. }) = self.recount.take() {
            let tells_bytes = counter.tells_bytes() || topic == rows::Topic::Policies;
            self.answer(counter.answer(until), Basis::Rows(rows), tells_bytes);
        }
        true
    }
}

//! The counts that the views show: the server's own over all flows, or made here of the rows that are kept.

use crate::{
    link::{Topic, Window},
    rows::{Body, Rows},
};
use observer_proto::{
    answers::{
        rows::{self, Answer, Counter},
        signals::Signals,
    },
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
    /// HTTP and DNS, as the server counts them.
    pub signals: Option<Box<GetSignalsResponse>>,
    /// HTTP and DNS of the rows.
    pub own_signals: Option<Signals>,
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
    counter: Counting,
    next: u64,
    end: u64,
    since: Option<i64>,
    until: Option<Timestamp>,
    rows: u64,
}

#[derive(Debug)]
enum Counting {
    Of(rows::Topic, Box<Counter>),
    Signals(Box<Signals>),
}

/// Rows of a slice.
const SLICE: usize = 64;
/// How often rows are counted (ms).
const EVERY: i64 = 1000;

impl Counting {
    /// Of what rows tell of.
    fn new(topic: Topic, since: Option<Timestamp>) -> Option<Self> {
        let topic = match topic {
            Topic::Drops => rows::Topic::Drops,
            Topic::Edges => rows::Topic::Edges,
            Topic::Talkers => rows::Topic::Talkers,
            Topic::Policies => rows::Topic::Policies,
            Topic::Signals => return Some(Self::Signals(Box::default())),
            Topic::Nothing | Topic::Nodes => return None,
        };
        Some(Self::Of(topic, Box::new(Counter::new(topic, since))))
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
        }
    }

    /// Forgets counts of another question.
    pub(crate) fn forget(&mut self) {
        let Self { drops, edges, talkers, verdicts, basis, recount, counted, own_signals, .. } = self;
        *own_signals = None;
        (*drops, *edges, *talkers, *verdicts, *recount) = (None, None, None, None, None);
        (*basis, *counted) = (Basis::None, 0);
    }

    /// Begins to count the rows, if it is time.
    pub(crate) fn begin(&mut self, topic: Topic, window: Option<Window>, rows: &Rows, now: i64) {
        if self.recount.is_some() || now - self.counted < EVERY {
            return;
        }
        let since = window.map(|window| now / 1000 - window.seconds());
        let timestamp = |seconds| Timestamp { seconds, nanos: 0 };
        let Some(counter) = Counting::new(topic, since.map(timestamp)) else { return };
        self.counted = now;
        self.recount = Some(Recount {
            counter,
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
                match &mut recount.counter {
                    Counting::Of(_, counter) => counter.flow(&flow),
                    Counting::Signals(signals) => signals.flow(&flow),
                }
            }
        }
        if !done {
            return false;
        }
        match self.recount.take() {
            Some(Recount { counter: Counting::Of(topic, counter), rows, until, .. }) => {
                let tells_bytes = counter.tells_bytes() || topic == rows::Topic::Policies;
                self.answer(counter.answer(until), Basis::Rows(rows), tells_bytes);
            }
            Some(Recount { counter: Counting::Signals(signals), rows, .. }) => {
                (self.basis, self.own_signals) = (Basis::Rows(rows), Some(*signals));
            }
            None => {}
        }
        true
    }
}

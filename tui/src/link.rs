//! What the dashboard and whoever reads flows for it say to each other. Connecting, certificates and files are the
//! reader's; here are only messages.

use bytes::Bytes;
use observer_proto::{
    answers::rows::Answer,
    control::{CaptureStatusResponse, ExplainPolicyRequest, ListPoliciesResponse},
    filter::FilterLists,
    observer::{Node, ServerStatusResponse},
    stats::GetHealthResponse,
};
use prost_types::Timestamp;
use std::time::Duration;

/// What the dashboard wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Flows that pass, from the last so many on, in place of those that came so far. The answer begins with
    /// [`Message::Began`] of this number.
    Flows {
        /// Counts these questions.
        run: u64,
        /// Which flows.
        filters: FilterLists,
        /// Of those that were already.
        last: u64,
    },
    /// These counts again each second in place of others, until [`Topic::Nothing`].
    Counts {
        /// Of what.
        topic: Topic,
        /// Over which time.
        window: Window,
    },
    /// What policies say of a connection.
    Explain {
        /// The flow that it is of.
        uuid: String,
        /// The connection.
        request: Box<ExplainPolicyRequest>,
    },
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topic {
    /// Nobody looks.
    #[default]
    Nothing,
    /// Drops by reason and pair.
    Drops,
    /// Who calls whom.
    Edges,
    /// Who talks most.
    Talkers,
    /// Verdicts by policies, and the policies.
    Policies,
    /// HTTP and DNS.
    Signals,
    /// The nodes, their capture and its losses.
    Nodes,
}

/// How far back is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// `1m`
    #[default]
    Minute,
    /// `5m`
    Five,
    /// `15m`
    Fifteen,
}

impl Window {
    /// Its length.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Five => 300,
            Self::Fifteen => 900,
        }
    }

    /// As flags say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Five => "5m",
            Self::Fifteen => "15m",
        }
    }

    pub(crate) fn next(self) -> Self {
        match self {
            Self::Minute => Self::Five,
            Self::Five => Self::Fifteen,
            Self::Fifteen => Self::Minute,
        }
    }
}

/// What the reader tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// From here on, responses are those of this question.
    Began {
        /// Its number.
        run: u64,
    },
    /// There is no connection; the next try is after a while.
    Waiting {
        /// Tries so far.
        tries: u32,
        /// Until the next.
        wait: Duration,
        /// Why the last failed, for people.
        why: String,
    },
    /// A response of GetFlows, encoded.
    Response(Bytes),
    /// Flows may be missing here: the server had them no more when the connection was there again.
    Gap {
        /// Since when; nobody knows if none.
        from: Option<Timestamp>,
        /// Until when.
        until: Timestamp,
    },
    /// What the server says of itself; it comes every few seconds while the connection is good.
    Status(Box<ServerStatusResponse>),
    /// The server refuses the question; a sentence.
    Refused(String),
    /// A file was read to its end; what is to be said of it.
    End(String),
    /// Counts of the server.
    Counts(Window, Box<Answer>),
    /// The server has no such counts, as every Hubble but ours.
    NoCounts(Topic),
    /// The policies in force, or why they can't be told.
    Policies(Result<Box<ListPoliciesResponse>, String>),
    /// What they say of a flow's connection, as lines for people; or why that can't be told.
    Explained {
        /// The flow.
        uuid: String,
        /// The lines.
        answer: Result<String, String>,
    },
    /// The nodes that the server knows, or why they can't be told.
    Nodes(Result<Vec<Node>, String>),
    /// Losses, as the server counts them.
    Health(Box<GetHealthResponse>),
    /// What is attached on this node, or why it can't be told.
    Capture(Result<Box<CaptureStatusResponse>, String>),
    /// Namespaces that the server knows.
    Namespaces(Vec<String>),
}

//! Answers about what is loaded in the kernel: looked up in a thread of its own, given part by part as the client reads.

use super::encode::{NodeInfo, proto_time};
use observer_proto::control::{InspectRequest, InspectResponse};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{
        Semaphore,
        mpsc::{Sender, channel},
    },
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Looks at a time; each has a thread, which waits where its client doesn't read.
const MOST_LOOKS: usize = 4;
/// Parts that wait for the client.
const PARTS: usize = 2;
/// The most entries that may be asked for.
const MOST_ENTRIES: u32 = 1_000_000;
/// The longest time that may be asked for, milliseconds.
const MOST_STATISTICS: u32 = 60_000;
/// Entries where no number is asked for.
const ENTRIES: u32 = 1_000;

/// Knows what is loaded in the kernel.
pub trait Inspect: Debug + Send + Sync {
    /// Gives the answer to a request whose numbers are in their bounds. It may take long.
    fn inspect(&self, request: &InspectRequest, answer: &Answer) -> Result<(), InspectError>;
}

/// Why there is no answer, in one line.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The request asks for what is not there.
    #[error("{0}")]
    Request(String),
    /// The kernel doesn't answer.
    #[error("{0}")]
    Kernel(String),
}

/// Takes an answer part by part.
#[derive(Debug)]
pub struct Answer(Sender<Result<InspectResponse, Status>>);

impl Answer {
    /// Waits until the client has read most of what was given before; says whether it wants more.
    pub fn give(&self, part: InspectResponse) -> bool {
        self.0.blocking_send(Ok(part)).is_ok()
    }

    /// Waits so long, but not longer than somebody wants an answer.
    pub fn wait(&self, time: Duration) {
        // Where it is answered is a thread of the runtime for what blocks.
        let _ = Handle::current().block_on(async { timeout(time, self.0.closed()).await });
    }
}

/// Answers requests, so many at a time.
#[derive(Debug)]
pub(super) struct Looks {
    inspect: Option<Arc<dyn Inspect>>,
    free: Arc<Semaphore>,
}

impl Looks {
    pub(super) fn new(inspect: Option<Arc<dyn Inspect>>) -> Self {
        Self { inspect, free: Arc::new(Semaphore::new(MOST_LOOKS)) }
    }

    pub(super) fn answer(
        &self,
        mut request: InspectRequest,
        node: &NodeInfo,
    ) -> Result<ReceiverStream<Result<InspectResponse, Status>>, Status> {
        let inspect = self.inspect.clone().ok_or_else(|| {
            Status::failed_precondition("this daemon plays a recording: nothing of it is in the kernel")
        })?;
        let above = |field, most: u32| Status::invalid_argument(format!("{field}: at most {most}"));
        if request.limit > MOST_ENTRIES {
            return Err(above("limit", MOST_ENTRIES));
        }
        if request.statistics_ms > MOST_STATISTICS {
            return Err(above("statistics_ms", MOST_STATISTICS));
        }
        if request.limit == 0 {
            request.limit = ENTRIES;
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("inspect: {MOST_LOOKS} clients look already; try again"))
        })?;
        let (sender, parts) = channel(PARTS);
        let first = InspectResponse {
            node_name: node.full_name(),
            time: Some(proto_time(super::stream::now_ns())),
            ..InspectResponse::default()
        };
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let answer = Answer(sender);
            if !answer.give(first) {
                return;
            }
            let failed = match inspect.inspect(&request, &answer) {
                Ok(()) => return,
                Err(InspectError::Request(why)) => Status::invalid_argument(why),
                Err(InspectError::Kernel(why)) => Status::internal(why),
            };
            // Nobody listens any more only where nobody wants to know.
            let _ = answer.0.blocking_send(Err(failed));
        });
        Ok(ReceiverStream::new(parts))
    }
}

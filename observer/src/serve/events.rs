//! GetAgentEvents and GetDebugEvents: the newest events of a kind, and those to come.

use super::api::Streaming;
use crate::events::Ring;
use observer_proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tonic::Status;

/// Events taken from the ring at a time; a client that doesn't read keeps no more.
const BATCH: usize = 64;

/// What a request selects; times are Unix times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selection {
    number: u64,
    first: bool,
    follow: bool,
    since: Option<i64>,
    until: Option<i64>,
}

impl Selection {
    fn new(
        (number, first, follow): (u64, bool, bool),
        since: Option<prost_types::Timestamp>,
        until: Option<prost_types::Timestamp>,
    ) -> Result<Self, Status> {
        if first && follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        let nanoseconds = super::flows::nanoseconds;
        Ok(Self {
            number,
            first,
            follow,
            since: since.map(|time| nanoseconds("since", time)).transpose()?,
            until: until.map(|time| nanoseconds("until", time)).transpose()?,
        })
    }

    pub(super) fn of_agent_events(request: GetAgentEventsRequest) -> Result<Self, Status> {
        let GetAgentEventsRequest { number, first, follow, since, until } = request;
        Self::new((number, first, follow), since, until)
    }

    pub(super) fn of_debug_events(request: GetDebugEventsRequest) -> Result<Self, Status> {
        let GetDebugEventsRequest { number, first, follow, since, until } = request;
        Self::new((number, first, follow), since, until)
    }

    /// As for flows: `since` decides over `number`, which counts what is left of a request that follows.
    fn start(&self, range: std::ops::Range<u64>) -> u64 {
        match self {
            Self { follow: true, number: 0, since: None, .. } => range.end,
            Self { number: 0, .. } | Self { since: Some(_), .. } | Self { first: true, .. } => range.start,
            Self { number, .. } => range.end.saturating_sub(*number).max(range.start),
        }
    }
}

/// Answers with what is selected. `response` makes one of an event and its time, `lost` an event of so many that were
/// overwritten before they were read.
pub(super) fn stream<T, R>(
    events: Arc<impl AsRef<Ring<T>> + Send + Sync + 'static>,
    selection: Selection,
    response: impl Fn(i64, T) -> R + Send + 'static,
    lost: impl Fn(u64) -> T + Send + 'static,
    ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) -> Streaming<R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    let range = (*events).as_ref().range();
    let (sender, receiver) = mpsc::channel(BATCH);
    let mut ending = ending;
    tokio::spawn(async move {
        let _permit = permit;
        let (mut next, end) = (selection.start(range.clone()), range.end);
        let mut left = if selection.follow || selection.number == 0 { u64::MAX } else { selection.number };
        loop {
            let ring = (*events).as_ref();
            let batch = ring.read(next, BATCH);
            next = batch.next;
            let now = batch.entries.first().map_or(0, |(time, _)| *time);
            let gap = (batch.lost > 0).then(|| (now, lost(batch.lost)));
            let is_gap = gap.is_some();
            for (index, (time, event)) in gap.into_iter().chain(batch.entries).enumerate() {
                if !(is_gap && index == 0) {
                    if selection.until.is_some_and(|until| time > until) {
                        return;
                    }
                    if selection.since.is_some_and(|since| time < since) {
                        continue;
                    }
                    left -= 1;
                }
                if sender.send(Ok(response(time, event))).await.is_err() || left == 0 {
                    return;
                }
            }
            if next < end {
                continue;
            }
            if !selection.follow {
                return;
            }
            let ends = tokio::select! {
                () = (*events).as_ref().changed(next) => false,
                () = sender.closed() => return,
                _ = ending.wait_for(|down| *down) => true,
            };
            if ends {
                // The client may be gone by now, which is as good.
                let _ = sender.send(Err(Status::unavailable("the server is shutting down"))).await;
                return;
            }
        }
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

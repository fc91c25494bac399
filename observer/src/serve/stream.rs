//! The body of a GetFlows answer: many gRPC messages in one HTTP/2 write.
//!
//! An idle stream is flushed at once; a busy one after a pause that grows with the number of streams, from [`PAUSE`]
//! to [`LONGEST_PAUSE`], or when [`CHUNK`] bytes are there. One write for each flow costs several times the encoding: what a
//! few clients may have for it, many may not. Streams of all flows share what one of them has encoded; those with long pauses
//! flush at the same moments, so that it is the same piece for all.

use super::{
    api::Places,
    encode::Encoder,
    fanout::Fanout,
    flows::Shared,
    lost::LostEvents,
    mask::Mask,
    query::{Item, Reader},
};
use crate::store::{LossCursor, Store};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

/// What the socket is given at once.
const CHUNK: usize = 64 << 10;
/// So many flows take about as many bytes.
const CHUNK_FLOWS: u64 = 56;
/// More than most flows take.
const MESSAGE: usize = 2 << 10;
const PAUSE: Duration = Duration::from_micros(200);
const PAUSE_A_FURTHER_STREAM: Duration = Duration::from_micros(400);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// What the runtime's timer can tell apart.
const TIMER: Duration = Duration::from_millis(1);
/// Steps before other tasks get their turn.
const BUDGET: usize = 4096;

/// A stream of flows, from its start to its trailers.
pub(super) struct FlowStream {
    store: Arc<Store>,
    reader: Reader,
    encoder: Encoder,
    mask: Option<Mask>,
    /// Stands before `out` in the next write.
    shared: Bytes,
    out: Vec<u8>,
    fanout: Arc<Fanout>,
    flushed: Option<Instant>,
    reported: LossCursor,
    lost: LostEvents,
    shutdown: watch::Receiver<bool>,
    places: Places,
    /// Gives the stream's place back when it ends.
    _permit: OwnedSemaphorePermit,
}

/// Why filling the buffer stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Full,
    Budget,
    Pause,
    /// There are some, which can wait.
    Early,
    Done,
}

impl FlowStream {
    pub(super) fn new(
        context: &Shared,
        reader: Reader,
        mask: Option<Mask>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            reported: context.store.losses(),
            store: Arc::clone(&context.store),
            reader,
            encoder: context.encoder.clone(),
            mask,
            shared: Bytes::new(),
            out: Vec::new(),
            fanout: Arc::clone(&context.fanout),
            flushed: None,
            lost: LostEvents::default(),
            shutdown: context.shutdown.clone(),
            places: context.places.clone(),
            _permit: permit,
        }
    }

    pub(super) fn into_body(self) -> FlowBody {
        FlowBody(Some(Box::pin(self.next())))
    }

    /// The next write, or the end's status.
    async fn next(mut self) -> Result<(Bytes, Self), Status> {
        loop {
            // Before the look into the store: what was stored before the end is given still.
            let ends = *self.shutdown.borrow();
            if self.reader.wants_past() {
                if ends {
                    return Err(Status::unavailable("the server is shutting down"));
                }
                self.reader.load().await?;
            }
            let stop = if self.shares() { self.share(ends) } else { self.fill() };
            self.take_reported();
            self.tell_lost(ends || stop == Stop::Done);
            match stop {
                Stop::Budget => tokio::task::yield_now().await,
                Stop::Done if self.out.is_empty() => return Err(Status::ok("")),
                Stop::Pause if ends && self.out.is_empty() => {
                    return Err(Status::unavailable("the server is shutting down"));
                }
                Stop::Early => self.gather().await,
                Stop::Pause if ends => return Ok(self.flush()),
                Stop::Pause if self.out.is_empty() => self.wait().await,
                Stop::Pause if self.is_early() => self.gather().await,
                Stop::Done | Stop::Full | Stop::Pause => return Ok(self.flush()),
            }
        }
    }

    fn pause(&self) -> Duration {
        let further = u32::try_from(self.places.taken()).unwrap_or(u32::MAX).saturating_sub(1);
        PAUSE_A_FURTHER_STREAM.saturating_mul(further).saturating_add(PAUSE).min(LONGEST_PAUSE)
    }

    /// Until when the next flush waits for more.
    fn due(&self) -> Option<Instant> {
        let (flushed, pause) = (self.flushed?, self.pause());
        Some(if pause < TIMER { flushed + pause } else { self.fanout.beat(flushed, pause) })
    }

    /// Whether the last flush was so short a time ago that the next one waits for more.
    fn is_early(&self) -> bool {
        self.due().is_some_and(|due| Instant::now() < due)
    }

    /// Until it is time to flush; where the timer is too coarse for that, also until there are more flows.
    async fn gather(&mut self) {
        self.reader.park();
        let is_short = self.pause() < TIMER;
        tokio::select! {
            () = sleep_until(self.due().unwrap_or_else(Instant::now)) => {}
            () = self.store.changed(self.store.head(), &self.reported), if is_short => {}
        }
    }

    /// Whether what is next is the same for other streams.
    fn shares(&self) -> bool {
        self.mask.is_none() && self.out.is_empty() && self.reader.gives_all()
    }

    /// As `fill`, with messages that others need as well.
    fn share(&mut self, ends: bool) -> Stop {
        let waiting = self.store.head().saturating_sub(self.reader.position());
        if waiting == 0 {
            return Stop::Pause;
        }
        if waiting < CHUNK_FLOWS && !ends && self.is_early() {
            return Stop::Early;
        }
        let Self { reader, encoder, fanout, shared, .. } = self;
        let mut lost = 0;
        let taken = fanout.take(reader.position(), |draft| {
            draft.bytes.reserve(waiting.min(CHUNK_FLOWS) as usize * (CHUNK / CHUNK_FLOWS as usize) + MESSAGE);
            while draft.bytes.len() < CHUNK {
                let bytes = &mut draft.bytes;
                match reader.next(|sequence, flow| encoder.response(bytes, sequence, flow, None)) {
                    Item::Flow => draft.end_message(),
                    Item::Lost(count) => return lost = count,
                    Item::Skipped | Item::Pause | Item::Past | Item::Done => return,
                }
            }
        });
        if lost > 0 {
            self.lost.add_overwritten(lost, now_ns());
        }
        match taken {
            Some((bytes, after)) => {
                reader.skip_to(after);
                *shared = bytes;
                Stop::Full
            }
            None => Stop::Budget,
        }
    }

    fn fill(&mut self) -> Stop {
        let Self { reader, encoder, mask, out, .. } = self;
        for _ in 0..BUDGET {
            if out.len() >= CHUNK {
                return Stop::Full;
            }
            match reader.next(|sequence, flow| encoder.response(out, sequence, flow, mask.as_ref())) {
                Item::Flow | Item::Skipped => {}
                Item::Lost(count) => {
                    self.lost.add_overwritten(count, now_ns());
                    // Before the flows that follow the gap, if it may be told now.
                    tell(&mut self.lost, encoder, out, false);
                }
                Item::Pause => return Stop::Pause,
                Item::Past => return Stop::Budget,
                Item::Done => return Stop::Done,
            }
        }
        Stop::Budget
    }

    fn take_reported(&mut self) {
        self.lost.add_reported(&self.store.take_losses(&mut self.reported));
    }

    /// Of the losses those that are due; at the end of the stream all of them, so that the sum is right.
    fn tell_lost(&mut self, at_the_end: bool) {
        tell(&mut self.lost, &self.encoder, &mut self.out, at_the_end);
    }

    /// Until there is something to do: a flow, a loss that becomes due, the server's end.
    async fn wait(&mut self) {
        self.reader.park();
        let due = self.lost.due();
        let position = self.reader.position();
        tokio::select! {
            () = self.store.changed(position, &self.reported) => {}
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
            _ = self.shutdown.wait_for(|down| *down) => {}
        }
    }

    fn flush(mut self) -> (Bytes, Self) {
        self.reader.park();
        self.flushed = Some(Instant::now());
        let shared = std::mem::take(&mut self.shared);
        if self.out.is_empty() {
            return (shared, self);
        }
        let next = Vec::with_capacity(self.out.len() + MESSAGE);
        let out = std::mem::replace(&mut self.out, next);
        let bytes = if shared.is_empty() { out } else { [&shared[..], &out].concat() };
        (Bytes::from(bytes), self)
    }
}

fn tell(lost: &mut LostEvents, encoder: &Encoder, out: &mut Vec<u8>, all: bool) {
    lost.tell(all, |source, count, first, last| encoder.lost(out, source, count, first, last));
}

pub(crate) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

type NextWrite = Pin<Box<dyn Future<Output = Result<(Bytes, FlowStream), Status>> + Send>>;

/// A [`FlowStream`] as an HTTP body.
pub(super) struct FlowBody(Option<NextWrite>);

impl Body for FlowBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let frame = match std::task::ready!(next.as_mut().poll(cx)) {
            Ok((bytes, stream)) => {
                self.0 = Some(Box::pin(stream.next()));
                Frame::data(bytes)
            }
            Err(status) => {
                self.0 = None;
                Frame::trailers(trailers(&status))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", http::HeaderValue::from(Code::Internal as i32));
    }
    trailers
}

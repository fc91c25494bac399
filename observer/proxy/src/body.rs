//! The bodies of answers.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A server's, as it comes, or a text of ours.
pub(crate) type Content = Either<Incoming, Full<Bytes>>;

/// How many requests were answered to the end, and who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    count: AtomicU32,
    waiting: Mutex<Option<Waker>>,
}

impl Answered {
    /// The lower half of the number.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// The next one wakes this task.
    pub(crate) fn await_next(&self, context: &mut Context<'_>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
    }
}

/// A request that is not answered to the end.
#[derive(Debug)]
pub(crate) struct Busy(pub(crate) Arc<Answered>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::Release);
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// An answer's body, with which the request is over.
#[derive(Debug)]
pub(crate) struct Answer {
    content: Content,
    _busy: Busy,
}

impl Answer {
    pub(crate) fn new(content: Content, busy: Busy) -> Self {
        Self { content, _busy: busy }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// Envoy's words, which Cilium answers with.
const DENIED: &str = "Access denied\r\n";

/// The answer to what is denied.
pub(crate) fn denied() -> Response<Content> {
    text(StatusCode::FORBIDDEN, DENIED)
}

/// An answer of the proxy's own that tells nothing but its status.
pub(crate) fn status(status: StatusCode) -> Response<Content> {
    text(status, status.canonical_reason().unwrap_or_default())
}

fn text(status: StatusCode, text: &'static str) -> Response<Content> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    response
}

//! A bound on connections: each takes memory and a descriptor before it has asked for anything.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

/// Places for connections, and how many connections found none.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    refused: Arc<AtomicU64>,
}

impl Places {
    /// `refused` may be shared with others.
    pub(super) fn new(most: usize, refused: Arc<AtomicU64>) -> Self {
        Self { free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), most, refused }
    }

    /// The connections that found a place. The others are closed: a client that gets no answer at all would wait.
    pub(super) fn limit<S>(
        self,
        incoming: impl Stream<Item = io::Result<S>>,
        listener: impl fmt::Display,
    ) -> impl Stream<Item = io::Result<Placed<S>>> {
        incoming.filter_map(move |accepted| {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(Ok(Placed { stream, _place: place }));
            }
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // Not a line for each: whoever floods the socket must not flood the log.
            if refused.is_power_of_two() {
                let most = self.most;
                tracing::warn!("{listener}: connection refused: at most {most} at a time ({refused} so far)");
            }
            None
        })
    }
}

/// A connection with a place, which is free again when it ends.
#[derive(Debug)]
pub(super) struct Placed<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S: Connected> Connected for Placed<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! A client's connection, of which hyper is given what is in order, and only in time.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Limits;
use crate::body::Answered;
use crate::framing::{Framing, MOST_HEAD};

/// How much is read at once; more only where a head is longer.
const ROOM: usize = 16 << 10;
/// What hyper is given in the place of what is not in order: nothing it knows begins so, neither a request, which it answers
/// with `400`, nor the size of a chunk.
const POISON: &[u8] = b"\0\r\n\r\n";

/// What a connection and those who answer its requests tell each other.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) answered: Arc<Answered>,
    /// Both sides go over to another protocol.
    pub(crate) switched: AtomicBool,
    /// The client broke the rules.
    pub(crate) broken: AtomicBool,
    /// The client took too long.
    pub(crate) late: AtomicBool,
    /// The client says no more; it may still listen.
    pub(crate) ended: Notify,
    /// How often something was written to it.
    pub(crate) written: AtomicU64,
    /// The stream, where it was left with something unread.
    pub(crate) left: Mutex<Option<T>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        let no = || AtomicBool::new(false);
        Self {
            answered: Arc::default(),
            switched: no(),
            broken: no(),
            late: no(),
            ended: Notify::new(),
            written: AtomicU64::new(0),
            left: Mutex::new(None),
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    stream: Option<T>,
    framing: Framing,
    shared: Arc<Shared<T>>,
    limits: Limits,
    /// What was read: from `start` to `end`, of which `good` bytes may be passed on.
    inbox: Vec<u8>,
    start: usize,
    end: usize,
    good: usize,
    ended: bool,
    /// How much of [`POISON`] was passed on.
    poisoned: Option<usize>,
    reading: Timer,
    writing: Timer,
}

impl<T> Guarded<T> {
    /// `first` was read already.
    pub(crate) fn new(stream: T, first: &[u8], shared: Arc<Shared<T>>, limits: Limits) -> Self {
        let mut inbox = vec![0; ROOM];
        inbox[..first.len()].copy_from_slice(first);
        Self {
            stream: Some(stream),
            framing: Framing::new(),
            shared,
            limits,
            inbox,
            start: 0,
            end: first.len(),
            good: 0,
            ended: false,
            poisoned: None,
            reading: Timer::default(),
            writing: Timer::default(),
        }
    }

    /// HTTP/2 has frames of its own, which h2 reads strictly.
    pub(crate) fn frames(mut self) -> Self {
        self.framing.switch();
        self
    }

    fn is_idle(&self) -> bool {
        self.framing.is_between() && self.start == self.end
    }

    /// Whether all requests that were passed on are answered.
    fn is_answered(&self) -> bool {
        self.framing.requests() == self.shared.answered.count()
    }

    /// By when more must have come; what waits for an answer may wait.
    fn deadline(&mut self) -> Option<Instant> {
        let limit = if self.framing.awaits_whole() && !self.is_idle() {
            self.limits.head
        } else {
            if self.framing.is_between() && !self.is_answered() {
                self.reading.since = None;
                return None;
            }
            self.limits.idle
        };
        Some(*self.reading.since.get_or_insert_with(Instant::now) + limit)
    }

    /// Finds out how much of what was read is in order. `false` where more is needed.
    fn look(&mut self) -> bool {
        if self.shared.switched.load(Ordering::Acquire) {
            self.framing.switch();
        }
        match self.framing.pass(&self.inbox[self.start..self.end]) {
            Ok(0) => false,
            Ok(good) => {
                self.good = good;
                self.reading.since = None;
                true
            }
            Err(_) => {
                self.shared.broken.store(true, Ordering::Relaxed);
                self.poisoned = Some(0);
                true
            }
        }
    }

    /// Makes room behind what was read.
    fn room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.inbox.len() {
            if self.start > 0 {
                self.inbox.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // A head that is longer is refused before.
                self.inbox.resize((self.inbox.len() * 2).min(2 * MOST_HEAD), 0);
            }
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.good > 0 {
                let step = this.good.min(buffer.remaining());
                buffer.put_slice(&this.inbox[this.start..this.start + step]);
                this.start += step;
                this.good -= step;
                return Poll::Ready(Ok(()));
            }
            if let Some(done) = &mut this.poisoned {
                let step = (POISON.len() - *done).min(buffer.remaining());
                buffer.put_slice(&POISON[*done..*done + step]);
                *done += step;
                return Poll::Ready(Ok(()));
            }
            if this.start < this.end && this.look() {
                continue;
            }
            if this.ended {
                // The client may still listen to its answer, of which hyper would send it no more.
                this.shared.answered.await_next(context);
                let may_end = !this.framing.is_between() || this.is_answered();
                return if may_end { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            this.room();
            let mut into = ReadBuf::new(&mut this.inbox[this.end..]);
            let stream = Pin::new(this.stream.as_mut().ok_or_else(gone)?);
            match stream.poll_read(context, &mut into) {
                Poll::Ready(read) => {
                    read?;
                    let read = into.filled().len();
                    // Of what is awaited whole, a part now and then is no progress.
                    if this.is_idle() || !this.framing.awaits_whole() {
                        this.reading.since = None;
                    }
                    this.end += read;
                    if read == 0 {
                        this.ended = true;
                        this.shared.ended.notify_one();
                    }
                }
                Poll::Pending => {
                    let Some(deadline) = this.deadline() else { return Poll::Pending };
                    ready!(this.reading.poll(context, deadline));
                    this.shared.late.store(true, Ordering::Relaxed);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut().ok_or_else(gone)?).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut().ok_or_else(gone)?).poll_shutdown(context)
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    fn write<R>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let written = write(Pin::new(self.stream.as_mut().ok_or_else(gone)?), context);
        if written.is_ready() {
            self.writing.since = None;
            self.shared.written.fetch_add(1, Ordering::Relaxed);
            return written;
        }
        let since = *self.writing.since.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(context, since + self.limits.idle));
        self.shared.late.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if !self.is_idle() && !self.ended {
            let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left = self.stream.take();
        }
    }
}

/// Wakes when a deadline is over; it is set anew only where it was set too late, or has rung too early.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Since when something is waited for.
    since: Option<Instant>,
}

impl Timer {
    fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

//! One write to the socket for all that a connection writes in one turn. h2 writes each frame by itself, of 16 KiB at most
//! with most clients, and a write of four of them costs the kernel little more than one does.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Beyond so many bytes the socket has to take some first.
const MOST: usize = 64 << 10;

thread_local! {
    /// Between two turns no connection needs a buffer but one whose client doesn't read.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A stream whose writes wait for the end of a turn.
#[derive(Debug)]
pub(super) struct Gathered<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// Of `waiting`, what the socket took.
    taken: usize,
    /// Why the socket takes nothing any more.
    failed: Option<io::ErrorKind>,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, waiting: Vec::new(), taken: 0, failed: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// A turn of the connection over this stream, with a write of what it wrote.
    pub(super) fn turn<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<C::Output> {
        loop {
            let turn = connection.as_mut().poll(cx);
            // The connection meets an error where it reads next.
            let failed = matches!(self.inner().push(cx), Poll::Ready(Err(_)));
            if turn.is_ready() || !failed {
                return turn;
            }
        }
    }
}

impl<S> Inner<S> {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Told once.
        if self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        while self.taken < self.waiting.len() {
            let result = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.taken..]));
            let error = match result {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(bytes) => {
                    self.taken += bytes;
                    continue;
                }
                Err(error) => error,
            };
            self.failed = Some(error.kind());
            return Poll::Ready(Err(error));
        }
        self.taken = 0;
        let mut buffer = std::mem::take(&mut self.waiting);
        if buffer.capacity() > 0 {
            buffer.clear();
            SPARE.set(buffer);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Whether there is room for more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() >= MOST {
            ready!(self.push(cx))?;
        }
        self.check()?;
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        inner.check()?;
        Pin::new(&mut inner.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    /// The turn is not over yet.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        ready!(inner.push(cx))?;
        inner.check()?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        ready!(inner.poll_room(cx))?;
        let before = inner.waiting.len();
        for slice in slices {
            inner.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(inner.waiting.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, pin::pin, task::Waker};

    const FRAME: usize = 16 << 10;

    /// What was written to it, write by write.
    #[derive(Debug, Default)]
    struct Socket {
        writes: Vec<usize>,
        /// It takes so many more bytes.
        room: usize,
        is_broken: bool,
    }

    impl AsyncRead for Socket {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(taken);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A turn in which as many frames are written as find room; how many did.
    fn write(gathered: &Gathered<Socket>, frames: usize) -> usize {
        let mut stream = gathered.clone();
        let mut written = 0;
        let turn = pin!(poll_fn(|cx| {
            while written < frames {
                let slices = [io::IoSlice::new(&[0; 9]), io::IoSlice::new(&[1; FRAME])];
                let bytes = ready!(Pin::new(&mut stream).poll_write_vectored(cx, &slices)).unwrap();
                assert_eq!(bytes, 9 + FRAME);
                written += 1;
            }
            Poll::<()>::Pending
        }));
        assert!(gathered.turn(turn, &mut Context::from_waker(Waker::noop())).is_pending());
        written
    }

    fn writes(gathered: &Gathered<Socket>) -> Vec<usize> {
        gathered.inner().stream.writes.clone()
    }

    #[test]
    fn a_turn_is_one_write() {
        let gathered = Gathered::new(Socket { room: usize::MAX, ..Socket::default() });
        assert_eq!((write(&gathered, 3), write(&gathered, 1), write(&gathered, 0)), (3, 1, 0));
        assert_eq!(writes(&gathered), [3 * (9 + FRAME), 9 + FRAME]);
    }

    #[test]
    fn what_a_socket_does_not_take_is_bounded_and_kept() {
        let gathered = Gathered::new(Socket { room: FRAME, ..Socket::default() });
        assert_eq!((write(&gathered, 100), write(&gathered, 100)), (4, 0));
        gathered.inner().stream.room = usize::MAX;
        assert_eq!(write(&gathered, 0), 0);
        assert_eq!(writes(&gathered), [FRAME, 4 * 9 + 3 * FRAME]);
    }

    #[test]
    fn an_error_of_the_end_of_a_turn_is_met_in_the_next() {
        let gathered = Gathered::new(Socket { is_broken: true, ..Socket::default() });
        let mut stream = gathered.clone();
        let (mut turns, mut found) = (0, None);
        let turn = pin!(poll_fn(|cx| {
            turns += 1;
            match Pin::new(&mut stream).poll_write(cx, &[0]) {
                Poll::Ready(Err(error)) => found = Some(error.kind()),
                written => assert!(written.is_ready()),
            }
            Poll::<()>::Pending
        }));
        assert!(gathered.turn(turn, &mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!((turns, found), (2, Some(io::ErrorKind::BrokenPipe)));
    }
}

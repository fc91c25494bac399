//! Counts the HTTP/2 frames of a client that carry nothing: pings, settings, resets, priorities, window updates, pieces
//! of headers, empty data. h2 answers each and sets no limit to them.
//!
//! A frame costs [`FRAME`] of a credit, which what is written to the client restores byte by byte (its window updates
//! and measuring pings answer data), and time likewise.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// With what a client begins, before its first frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head: length, type, flags, stream (RFC 9113, 4.1).
const HEAD: usize = 9;
/// What a frame costs; more than the answer to a ping has bytes.
const FRAME: u64 = 64;
/// The most credit: 1,000 frames at once.
const MOST: u64 = 1000 * FRAME;
/// What a second restores: 100 frames.
const SECOND: u64 = 100 * FRAME;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// What is known of a client from its frames.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// It sent at least a byte.
    pub(super) anything: AtomicBool,
    /// It speaks HTTP/2.
    pub(super) http2: AtomicBool,
    /// It was cut off.
    pub(super) flood: AtomicBool,
    /// Tells of `http2`.
    pub(super) opened: Notify,
}

/// A connection whose frames are counted; reading fails where there are too many.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    seen: Arc<Seen>,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, seen: Arc<Seen>) -> Self {
        Self { stream, seen, meter: Meter::new(Instant::now()) }
    }
}

#[derive(Debug)]
struct Meter {
    /// What is left of the preface.
    preface: &'static [u8],
    /// Bytes of a payload that are passed over.
    skip: usize,
    head: [u8; HEAD],
    head_bytes: usize,
    credit: u64,
    restored: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { preface: PREFACE, skip: 0, head: [0; HEAD], head_bytes: 0, credit: MOST, restored: now }
    }

    /// Takes in what was read; false once there are too many frames.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let ([expected, rest @ ..], [byte, more @ ..]) = (self.preface, bytes) {
            if byte != expected {
                // Something else than HTTP/2, which is told to it elsewhere.
                return true;
            }
            (self.preface, bytes) = (rest, more);
        }
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            if self.skip > 0 {
                return true;
            }
            let taken = (HEAD - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes < HEAD {
                return true;
            }
            self.head_bytes = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            let carries = match kind {
                DATA => self.skip > 0 || flags & END_STREAM != 0,
                HEADERS => true,
                _ => false,
            };
            if !carries && !self.pay() {
                return false;
            }
        }
    }

    fn pay(&mut self) -> bool {
        if self.credit < FRAME {
            let now = Instant::now();
            let millis = now.saturating_duration_since(self.restored).as_millis();
            self.restore(u64::try_from(millis).unwrap_or(MOST).min(MOST) * SECOND / 1000);
            self.restored = now;
        }
        let left = self.credit.checked_sub(FRAME);
        self.credit = left.unwrap_or(0);
        left.is_some()
    }

    fn restore(&mut self, credit: u64) {
        self.credit = self.credit.saturating_add(credit).min(MOST);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let bytes = &buffer.filled()[before..];
        let Self { seen, meter, .. } = &mut *self;
        let in_preface = !meter.preface.is_empty();
        let is_fine = meter.read(bytes);
        if in_preface {
            seen.anything.fetch_or(!bytes.is_empty(), Ordering::Relaxed);
            if meter.preface.is_empty() {
                seen.http2.store(true, Ordering::Relaxed);
                seen.opened.notify_one();
            }
        }
        if !is_fine {
            seen.flood.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::other("too many control frames")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Metered<S> {
    fn written(&mut self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.meter.restore(*bytes as u64);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(&result);
        result
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
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        head.into_iter().chain(std::iter::repeat_n(0xff, payload)).collect()
    }

    /// After the preface.
    fn meter() -> Meter {
        let mut meter = Meter::new(Instant::now());
        let (most, last) = PREFACE.split_at(PREFACE.len() - 1);
        assert!(meter.read(most) && !meter.preface.is_empty());
        assert!(meter.read(last) && meter.preface.is_empty());
        meter
    }

    #[test]
    fn frames_without_content_cost_however_they_are_cut() {
        const PING: u8 = 6;
        let stream: Vec<u8> =
            [frame(DATA, 0, 300), frame(PING, 0, 8), frame(HEADERS, 4, 20), frame(DATA, END_STREAM, 0)]
                .concat();
        for size in 1..stream.len() {
            let mut meter = meter();
            assert!(stream.chunks(size).all(|piece| meter.read(piece)));
            assert_eq!(meter.credit, MOST - FRAME, "pieces of {size}");
        }
        let mut empty = meter();
        assert!(empty.read(&frame(DATA, 0, 0)));
        assert_eq!(empty.credit, MOST - FRAME);
    }

    #[test]
    fn a_flood_ends_and_an_answer_to_data_does_not() {
        const WINDOW_UPDATE: u8 = 8;
        let update = frame(WINDOW_UPDATE, 0, 4);
        let mut flood = meter();
        assert!((0..1000).all(|_| flood.read(&update)));
        assert!(
            (0..1000).any(|_| !flood.read(&update)),
            "no time passes in which a thousand would be allowed"
        );
        let mut answers = meter();
        assert!((0..100_000).all(|_| {
            answers.restore(100);
            answers.read(&update)
        }));
        let mut slow = meter();
        slow.credit = 0;
        slow.restored = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!((0..100).all(|_| slow.read(&update)), "a second restores a hundred");
    }
}

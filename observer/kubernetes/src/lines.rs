//! A body as lines, each bounded, however it comes in pieces.

use crate::api::Trouble;
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use std::time::Duration;

/// The longest line: etcd takes 1.5 MiB of an object, and the API server requests of 3 MiB.
pub(crate) const LONGEST: usize = 8 << 20;

/// The lines of a body.
pub(crate) struct Lines<B> {
    body: B,
    /// What was read and not given yet begins here.
    begin: usize,
    buffer: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Lines<B>
where
    B::Error: std::fmt::Display,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, begin: 0, buffer: Vec::new(), searched: 0 }
    }

    /// The next line without its end; `None` where the body ends behind a whole one. Whoever sends nothing for that long is
    /// taken to be gone.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Option<&[u8]>, Trouble> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let (begin, end) = (self.begin, self.searched + at);
                (self.begin, self.searched) = (end + 1, end + 1);
                return Ok(Some(&self.buffer[begin..end]));
            }
            self.buffer.drain(..self.begin);
            (self.begin, self.searched) = (0, self.buffer.len());
            if self.buffer.len() > LONGEST {
                return Err(Trouble::Malformed(format!("a line of more than {} MiB", LONGEST >> 20)));
            }
            if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
                // A large list came through here; what follows are single changes.
                self.buffer = Vec::new();
            }
            let Some(frame) = tokio::time::timeout(silence, self.body.frame())
                .await
                .map_err(|_| Trouble::Unreachable(format!("silent for {} s", silence.as_secs_f32())))?
            else {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(Trouble::Unreachable("the connection ended within a line".to_owned()));
            };
            let frame = frame.map_err(|error| Trouble::Unreachable(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{convert::Infallible, pin::Pin, task::Context, task::Poll};

    /// A body out of these pieces.
    struct Pieces(std::vec::IntoIter<Vec<u8>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(http_body::Frame::data(piece.into()))))
        }
    }

    fn read(pieces: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(Pieces(pieces.into_iter()));
            let mut all = Vec::new();
            loop {
                match lines.next(Duration::from_mins(1)).await {
                    Ok(Some(line)) => all.push(line.to_vec()),
                    Ok(None) => return (all, true),
                    Err(_) => return (all, false),
                }
            }
        })
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_come(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| text[cut[0]..cut[1]].to_vec()).collect();
            let mut expected: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let last = expected.pop().unwrap();
            prop_assert_eq!(read(pieces), (expected, last.is_empty()));
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let piece = vec![b'x'; 1 << 20];
        assert_eq!(read(vec![piece; 20]), (vec![], false));
    }
}

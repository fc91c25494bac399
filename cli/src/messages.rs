//! The messages of a gRPC answer as they came, without the copy that tonic's reader makes of each. What is more than plain
//! messages, an end or a fault, tonic judges.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use std::future::ready;
use tonic::{
    Code, Status, Streaming,
    codec::{DecodeBuf, Decoder},
};

/// A flow with long L7 records is far below this; gRPC's own default is the same.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Whether it is compressed, and the length of what follows.
const HEADER: usize = 5;

/// Reads the body of an answer.
pub(crate) struct Messages<B> {
    body: B,
    status: StatusCode,
    /// Headers of an answer that has no body stand for its trailers.
    trailers: Option<HeaderMap>,
    /// The beginning of a message, whose rest did not come yet.
    begun: BytesMut,
    /// What came last and was not taken.
    frame: Bytes,
}

/// No plain message of a size that is taken.
#[derive(Debug, PartialEq)]
struct Odd;

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Messages<B> {
    /// An error is the server's, or what else became of the call.
    pub(crate) fn new(response: Response<B>) -> Result<Self, Status> {
        let known = Status::from_header_map(response.headers());
        let trailers = match known {
            Some(status) if status.code() != Code::Ok => return Err(status),
            Some(_) => Some(response.headers().clone()),
            None => None,
        };
        let status = response.status();
        let (begun, frame) = (BytesMut::new(), Bytes::new());
        Ok(Self { body: response.into_body(), status, trailers, begun, frame })
    }

    /// The next message; nothing after the last.
    pub(crate) async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(Odd) => return self.judged().await,
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return self.judged().await };
            match frame.into_data() {
                Ok(data) => self.frame = data,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok().or(self.trailers.take());
                    return self.judged().await;
                }
            }
        }
    }

    /// The next message, if it is here whole.
    fn take(&mut self) -> Result<Option<Bytes>, Odd> {
        if self.begun.is_empty() {
            let needed = needed(&self.frame)?;
            // Nearly all, of which no copy is made.
            if self.frame.len() >= needed {
                return Ok(Some(without_header(self.frame.split_to(needed))));
            }
        }
        loop {
            let missing = needed(&self.begun)? - self.begun.len();
            if missing == 0 {
                return Ok(Some(without_header(self.begun.split().freeze())));
            }
            if self.frame.is_empty() {
                return Ok(None);
            }
            self.begun.extend_from_slice(&self.frame.split_to(missing.min(self.frame.len())));
        }
    }

    /// What is to be said of the end, or of an odd message.
    async fn judged(&mut self) -> Result<Option<Bytes>, Status> {
        let left = [&self.begun.split()[..], &std::mem::take(&mut self.frame)].concat();
        let body = Full::<Bytes>::from(left).with_trailers(ready(self.trailers.take().map(Ok)));
        Streaming::new_response(Whole, body, self.status, None, Some(MESSAGE_BYTES)).message().await
    }
}

/// How many bytes it takes to have the message that begins so, or to know.
fn needed(begin: &[u8]) -> Result<usize, Odd> {
    match begin.first_chunk::<HEADER>() {
        None => Ok(HEADER),
        Some([0, length @ ..]) => match u32::from_be_bytes(*length) as usize {
            length @ ..=MESSAGE_BYTES => Ok(HEADER + length),
            _ => Err(Odd),
        },
        Some(_) => Err(Odd),
    }
}

fn without_header(mut message: Bytes) -> Bytes {
    message.advance(HEADER);
    message
}

/// Takes a message as it is.
struct Whole;

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;

    /// What comes of frames and trailers, up to the end or a fault.
    fn read(frames: Vec<Vec<u8>>, trailers: &[(&'static str, &str)]) -> (Vec<usize>, Option<(Code, String)>) {
        let mut all: Vec<_> = frames.into_iter().map(|frame| Ok(Frame::data(Bytes::from(frame)))).collect();
        if !trailers.is_empty() {
            let named =
                trailers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
            all.push(Ok(Frame::trailers(named.collect())));
        }
        let body = StreamBody::new(tokio_stream::iter(all));
        let mut messages = Messages::new(Response::new(body)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut found = Vec::new();
            loop {
                match messages.message().await {
                    Ok(Some(message)) => {
                        assert!(message.iter().all(|byte| *byte == 7));
                        found.push(message.len());
                    }
                    Ok(None) => return (found, None),
                    Err(status) => return (found, Some((status.code(), status.message().to_owned()))),
                }
            }
        })
    }

    fn message(length: usize) -> Vec<u8> {
        let header = (length as u32).to_be_bytes();
        [&[0][..], &header, &vec![7; length]].concat()
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let lengths = [0, 1, 300, 0, 5, 20];
        let bytes: Vec<u8> = lengths.into_iter().flat_map(message).collect();
        for cut in 1..=bytes.len() {
            let frames = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            assert_eq!(read(frames, &[("grpc-status", "0")]), (lengths.to_vec(), None), "{cut}");
        }
    }

    #[test]
    fn ends_and_faults_are_told() {
        let status = |code: &'static str| vec![("grpc-status", code), ("grpc-message", "why")];
        let long = [&[0][..], &(MESSAGE_BYTES as u32 + 1).to_be_bytes()].concat();
        for (frames, trailers, found, code) in [
            (vec![], status("0"), vec![], None),
            (vec![message(3)], status("5"), vec![3], Some(Code::NotFound)),
            // The server's word counts more than what is missing.
            (vec![message(3), message(9)[..8].to_vec()], status("14"), vec![3], Some(Code::Unavailable)),
            (vec![message(3)[..4].to_vec()], vec![], vec![], Some(Code::Internal)),
            (vec![message(3), vec![1, 0, 0, 0, 1, 7]], status("0"), vec![3], Some(Code::Internal)),
            (vec![vec![0], long[1..].to_vec()], status("0"), vec![], Some(Code::OutOfRange)),
        ] {
            let (lengths, fault) = read(frames, &trailers);
            assert_eq!((lengths, fault.map(|fault| fault.0)), (found, code));
        }
        let refused = Response::builder()
            .header("grpc-status", "7")
            .body(Full::new(Bytes::new()).map_err(|never| match never {}));
        assert_eq!(
            Messages::new(refused.unwrap()).err().map(|status| status.code()),
            Some(Code::PermissionDenied)
        );
    }
}

//! Connections that have not spoken HTTP/2 yet: so many at a time, each so long. The oldest gives way to a new one, so
//! that whoever opens connections and says nothing keeps nobody out.

use super::{Limits, Refusal};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

/// By number of arrival; what is dropped from here is told to give way.
type Waiting = Mutex<BTreeMap<u64, oneshot::Sender<()>>>;

/// The unfinished handshakes of one socket.
#[derive(Debug)]
pub(super) struct Handshakes {
    waiting: Arc<Waiting>,
    limits: Limits,
    next: u64,
}

impl Handshakes {
    pub(super) fn new(limits: Limits) -> Self {
        Self { waiting: Arc::default(), limits, next: 0 }
    }

    /// A new one, in the place of the oldest if need be.
    pub(super) fn begin(&mut self) -> Handshake {
        let (sender, evicted) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.limits.handshakes {
            waiting.pop_first();
        }
        waiting.insert(number, sender);
        Handshake {
            number,
            waiting: Arc::clone(&self.waiting),
            evicted,
            time: Box::pin(sleep(self.limits.handshake_time)),
        }
    }
}

/// One of them; over when it is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    number: u64,
    waiting: Arc<Waiting>,
    evicted: oneshot::Receiver<()>,
    time: Pin<Box<Sleep>>,
}

impl Handshake {
    /// Waits until it must end, and says why.
    pub(super) async fn must_end(&mut self) -> Refusal {
        tokio::select! {
            biased;
            _ = &mut self.evicted => Refusal::Handshakes,
            () = &mut self.time => Refusal::HandshakeTime,
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_oldest_gives_way_and_the_rest_have_their_time() {
        let limits = Limits { handshakes: 2, handshake_time: Duration::from_millis(1), ..Limits::default() };
        let mut handshakes = Handshakes::new(limits);
        let (mut first, second) = (handshakes.begin(), handshakes.begin());
        drop(second);
        let mut third = handshakes.begin();
        let mut fourth = handshakes.begin();
        assert_eq!(first.must_end().await, Refusal::Handshakes);
        assert_eq!(third.must_end().await, Refusal::HandshakeTime);
        assert_eq!(fourth.must_end().await, Refusal::HandshakeTime);
        drop((first, third, fourth));
        assert!(handshakes.waiting.lock().unwrap().is_empty());
    }
}

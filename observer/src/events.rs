//! What happens besides flows: to the daemon and the names it knows (Hubble's agent events), and to its capture (Hubble's
//! debug events). Any stage may tell of it; it is rare, and nothing on the way of a flow does.

use observer_proto::flow::{
    AgentEvent, AgentEventType, AgentEventUnknown, DebugEvent, DebugEventType, TimeNotification,
    agent_event::Notification,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;

/// Agent events kept: those of some thousand pods that come or go.
const MOST_AGENT_EVENTS: usize = 4096;
/// Debug events kept.
const MOST_DEBUG_EVENTS: usize = 1024;

/// The events of both kinds.
#[derive(Debug)]
pub struct Events {
    /// The daemon's own, and those of names.
    pub agent: Ring<AgentEvent>,
    /// The capture's.
    pub debug: Ring<DebugEvent>,
}

impl Default for Events {
    fn default() -> Self {
        Self { agent: Ring::new(MOST_AGENT_EVENTS), debug: Ring::new(MOST_DEBUG_EVENTS) }
    }
}

impl AsRef<Ring<AgentEvent>> for Events {
    fn as_ref(&self) -> &Ring<AgentEvent> {
        &self.agent
    }
}

impl AsRef<Ring<DebugEvent>> for Events {
    fn as_ref(&self) -> &Ring<DebugEvent> {
        &self.debug
    }
}

impl Events {
    /// The daemon has started.
    pub fn started(&self) {
        let now = now_ns();
        let time = prost_types::Timestamp {
            seconds: now.div_euclid(1_000_000_000),
            nanos: now.rem_euclid(1_000_000_000) as i32,
        };
        self.tell(
            AgentEventType::AgentStarted,
            Notification::AgentStart(TimeNotification { time: Some(time) }),
        );
    }

    /// What Hubble has no message for: of this kind, in words.
    pub fn note(&self, kind: &str, words: impl Into<String>) {
        self.agent.push(note(kind, words));
    }

    pub(crate) fn tell(&self, kind: AgentEventType, notification: Notification) {
        self.agent.push(AgentEvent { r#type: kind.into(), notification: Some(notification) });
    }

    /// Something about the capture, in words.
    pub fn debug(&self, words: impl Into<String>) {
        self.debug.push(debug(words));
    }
}

/// An agent event in words.
pub(crate) fn note(kind: &str, words: impl Into<String>) -> AgentEvent {
    let unknown = AgentEventUnknown { r#type: kind.to_owned(), notification: words.into() };
    AgentEvent {
        r#type: AgentEventType::AgentEventUnknown.into(),
        notification: Some(Notification::Unknown(unknown)),
    }
}

/// A debug event in words.
pub(crate) fn debug(words: impl Into<String>) -> DebugEvent {
    DebugEvent { r#type: DebugEventType::DbgGeneric.into(), message: words.into(), ..DebugEvent::default() }
}

/// The newest events of a kind, numbered from 0.
#[derive(Debug)]
pub struct Ring<T> {
    kept: Mutex<Kept<T>>,
    most: usize,
    wake: Notify,
}

#[derive(Debug)]
struct Kept<T> {
    /// The number of the oldest entry: so many were overwritten.
    oldest: u64,
    entries: VecDeque<(i64, T)>,
}

/// What was read of a ring.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<T> {
    /// So many were overwritten before they were read.
    pub lost: u64,
    /// Each with its time, Unix nanoseconds.
    pub entries: Vec<(i64, T)>,
    /// The number of the event to read next.
    pub next: u64,
}

impl<T: Clone> Ring<T> {
    fn new(most: usize) -> Self {
        let kept = Kept { oldest: 0, entries: VecDeque::new() };
        Self { kept: Mutex::new(kept), most, wake: Notify::new() }
    }

    /// Adds one that happens now.
    pub fn push(&self, event: T) {
        let mut kept = self.lock();
        if kept.entries.len() == self.most {
            kept.entries.pop_front();
            kept.oldest += 1;
        }
        kept.entries.push_back((now_ns(), event));
        drop(kept);
        self.wake.notify_waiters();
    }

    /// The numbers of the oldest event that is kept, and of the next one to come.
    pub fn range(&self) -> std::ops::Range<u64> {
        let kept = self.lock();
        kept.oldest..kept.oldest + kept.entries.len() as u64
    }

    /// The events from a number on, not more than `most`.
    pub fn read(&self, from: u64, most: usize) -> Batch<T> {
        let kept = self.lock();
        let lost = kept.oldest.saturating_sub(from);
        let skipped = usize::try_from(from.saturating_sub(kept.oldest)).unwrap_or(usize::MAX);
        let entries: Vec<_> = kept.entries.iter().skip(skipped).take(most).cloned().collect();
        Batch { lost, next: from + lost + entries.len() as u64, entries }
    }

    /// Waits until there is an event of this number or a later one.
    pub async fn changed(&self, next: u64) {
        loop {
            // Registered before the look: an event between the look and the wait is not missed.
            let woken = self.wake.notified();
            if self.range().end > next {
                return;
            }
            woken.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_told_what_was_overwritten() {
        let ring = Ring::new(3);
        (0..5).for_each(|number| ring.push(number));
        assert_eq!(ring.range(), 2..5);
        let numbers =
            |batch: &Batch<i32>| batch.entries.iter().map(|(_, number)| *number).collect::<Vec<_>>();
        let batch = ring.read(1, 2);
        assert_eq!((batch.lost, numbers(&batch), batch.next), (1, vec![2, 3], 4));
        let batch = ring.read(batch.next, 2);
        assert_eq!((batch.lost, numbers(&batch), batch.next), (0, vec![4], 5));
        assert_eq!(ring.read(5, 2), Batch { lost: 0, entries: vec![], next: 5 });
        assert_eq!(ring.read(9, 2).next, 9);
    }
}

//! Inputs of the running capture: the kernel's rings first and conntrack after them, so that conntrack has its word on
//! every connection of a batch.

use super::{Stages, TICK_NS};
use crate::{
    capture::{Capture, CaptureError, LinkTable},
    decode::Clock,
    policy::Policies,
    proxy::Listener,
    recording::{Input, Recorder},
    track::{ConntrackSource, Update},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    borrow::Cow,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    time::Duration,
};

/// How soon an event is looked at again that waits; see [`crate::track::Tracker::waiting`].
const NEXT_BATCH: Duration = Duration::from_millis(1);

/// The capture and what belongs to it.
pub(crate) struct Live {
    capture: Capture,
    conntrack: Option<ConntrackSource>,
    /// What conntrack told before the first batch.
    dumped: Vec<Update>,
    recorder: Option<Arc<Recorder>>,
    /// Who must know how far the thread has come.
    policies: Option<Arc<Policies>>,
    /// What the proxy tells, where it runs.
    requests: Option<Listener>,
    links: Option<Arc<LinkTable>>,
    losses: Losses,
    last_tick_ns: u64,
}

/// What is known of the records that the rings had no room for.
#[derive(Debug)]
struct Losses {
    /// Told so far.
    told: u64,
    /// When they were last looked at: of those that are new then, the first came after it. It may be long ago, where
    /// somebody stopped the daemon.
    looked_ns: u64,
}

impl Live {
    /// Ready to run a capture that began not before `began_ns`; `conntrack` comes with what it told so far.
    pub(crate) fn new(
        capture: Capture,
        began_ns: u64,
        conntrack: Option<(ConntrackSource, Vec<Update>)>,
        recorder: Option<Arc<Recorder>>,
        policies: Option<Arc<Policies>>,
        requests: Option<Listener>,
    ) -> Self {
        let (conntrack, dumped) = conntrack.map_or((None, Vec::new()), |(source, told)| (Some(source), told));
        let losses = Losses { told: 0, looked_ns: began_ns };
        Self {
            capture,
            conntrack,
            dumped,
            recorder,
            policies,
            requests,
            links: None,
            losses,
            last_tick_ns: 0,
        }
    }

    /// Runs until `stop` is readable; then detaches, and stores what is left.
    pub(crate) fn run(mut self, stages: &mut Stages, stop: BorrowedFd<'_>) -> Result<(), CaptureError> {
        for update in std::mem::take(&mut self.dumped) {
            stages.take(&Input::Conntrack(update));
        }
        let recorder = self.recorder.take();
        let policies = self.policies.take();
        let requests = self.requests.take();
        let drained = policies.as_ref().map(|policies| policies.drained());
        let wakes: Vec<BorrowedFd<'_>> = [stop]
            .into_iter()
            .chain(drained.map(|drained| drained.as_fd()))
            .chain(requests.as_ref().map(|requests| requests.as_fd()))
            .collect();
        while !is_readable(stop) && !recorder.as_ref().is_some_and(|recorder| recorder.is_broken()) {
            let until_tick = TICK_NS.saturating_sub(Clock::kernel_now().saturating_sub(self.last_tick_ns));
            // What only came too late for its batch goes with the next one, which is near or worth waiting for.
            let is_next_awaited = stages.tracker.waits_for_conntrack()
                || stages.tracker.waiting() > 0 && !self.capture.is_busy();
            let longest = if is_next_awaited { NEXT_BATCH } else { Duration::from_nanos(until_tick) };
            let longest =
                requests.as_ref().and_then(Listener::next).map_or(longest, |next| next.min(longest));
            self.capture.wait(&wakes, longest)?;
            let _turn = recorder.as_ref().map(|recorder| recorder.turn());
            let got = self.capture.drain(&mut |record| stages.take(&Input::Record(record)))?;
            let now = got.ordered_until_ns;
            let is_tick = now.saturating_sub(self.last_tick_ns) >= TICK_NS;
            if is_tick {
                self.last_tick_ns = now;
                self.capture.sweep(&mut |record| stages.take(&Input::Swept(record)));
                self.tick(stages, Clock::kernel_now());
            }
            self.look_at_links(stages);
            // What ends has ended by now, not before the flows were read: they are still of it.
            let told = self.drain_conntrack(stages, Clock::kernel_now());
            // Nothing that is told comes of a batch of nothing, and a recording need not hold it.
            if got.records > 0
                || told
                || is_tick
                || stages.tracker.waiting() > 0
                || stages.local.is_outdated(&stages.cache)
            {
                stages.take(&Input::Batch(now));
            }
            // After the flows of their connections.
            if let Some(requests) = &requests {
                stages.say(requests);
            }
            if let Some(drained) = drained
                && got.all
            {
                drained.tell(stages.tracker.oldest_waiting_ns().map_or(now, |waiting| now.min(waiting)));
            }
            stages.local.tell(&self.capture, &stages.cache)?;
            if is_tick && let Some(recorder) = &recorder {
                recorder.flush();
            }
        }
        let _turn = recorder.as_ref().map(|recorder| recorder.turn());
        let Self { mut conntrack, capture, mut losses, .. } = self;
        let status = capture.status();
        capture.stop(&mut |record| stages.take(&Input::Record(record)))?;
        let now = Clock::kernel_now();
        losses.tell(stages, status.status().total(|counters| counters.ring_full), now);
        if let Some(conntrack) = &mut conntrack {
            conntrack.drain(&mut |update| stages.take(&Input::Conntrack(update)), now);
        }
        stages.take(&Input::End);
        if let Some(drained) = drained {
            drained.tell(u64::MAX);
        }
        Ok(())
    }

    /// Once a second: the clock, and what the kernel had to throw away.
    fn tick(&mut self, stages: &mut Stages, now_ns: u64) {
        if let Some((kernel_ns, offset_ns)) = stages.decoder.clock.drift() {
            stages.take(&Input::Clock(kernel_ns, offset_ns));
        }
        let ring_full = self.capture.status().status().total(|counters| counters.ring_full);
        self.losses.tell(stages, ring_full, now_ns);
    }

    fn look_at_links(&mut self, stages: &mut Stages) {
        let now = self.capture.links();
        if self.links.as_ref().is_some_and(|known| Arc::ptr_eq(known, &now)) {
            return;
        }
        // The watcher publishes what it found, changed or not.
        if self.links.as_ref().is_none_or(|known| **known != *now) {
            stages.take(&Input::Links(Cow::Borrowed(&now)));
        }
        self.links = Some(now);
    }

    /// Whether conntrack told anything.
    fn drain_conntrack(&mut self, stages: &mut Stages, now_ns: u64) -> bool {
        let mut told = false;
        if let Some(source) = &mut self.conntrack {
            let mut each = |update| {
                told = true;
                stages.take(&Input::Conntrack(update));
            };
            source.drain(&mut each, now_ns);
        }
        told
    }
}

impl Losses {
    /// More than 32 bits have is told with the next second's.
    fn tell(&mut self, stages: &mut Stages, ring_full: u64, now_ns: u64) {
        let lost = u32::try_from(ring_full.saturating_sub(self.told)).unwrap_or(u32::MAX);
        if lost > 0 {
            self.told += u64::from(lost);
            stages.take(&Input::Lost(lost, self.looked_ns, now_ns));
        }
        self.looked_ns = now_ns;
    }
}

pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&at_once))
        .is_ok_and(|ready| ready > 0)
}

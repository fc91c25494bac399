//! The stages joined: the one place that says their order.
//!
//! One thread carries events from the kernel's rings to the store. It reads the rings first and conntrack after them,
//! so that conntrack has its word on every connection of the batch; then each event goes through the stages by value.

mod local;

use crate::{
    capture::{Capture, CaptureError, StatusHandle},
    decode::{Clock, Decoder, DropReasons, DropSites, Event, Symbols},
    enrich::{Enricher, Filler, ipcache::IpCache},
    store::{LossSource, Writer},
    track::{ConntrackSource, ConntrackTable, Tracked, Tracker},
};
pub(crate) use local::BehindLinks;
use local::{Links, Local};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How often the kernel's tables are swept and the slow things are looked after.
const TICK_NS: u64 = 1_000_000_000;
/// How soon an event is looked at again that waits for conntrack's word; see [`Tracker::waiting`].
const CONNTRACK_PAUSE: Duration = Duration::from_millis(1);

/// What the thread counts for others to read. Records = undecodable + facts + told elsewhere + stored + waiting.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records taken from the rings and the sweeps.
    pub(crate) records: AtomicU64,
    /// Of these, those that the sweeps of the tables found; all others came through a ring.
    pub(crate) swept: AtomicU64,
    /// Of these, those that could not be read: lost.
    pub(crate) undecodable: AtomicU64,
    /// Records of a packet that is told at another point: suppressed.
    pub(crate) told_elsewhere: AtomicU64,
    /// Facts of a connection, shown with its flows.
    pub(crate) facts: AtomicU64,
    /// Facts that there was no room for: lost.
    pub(crate) facts_lost: AtomicU64,
    /// Flows given to the store.
    pub(crate) stored: AtomicU64,
    /// Records that wait for conntrack's word now.
    pub(crate) waiting: AtomicU64,
    /// Times that conntrack's events were lost and its table was read again.
    pub(crate) conntrack_overruns: AtomicU64,
}

/// What conntrack tells, where there is conntrack.
pub(crate) type Conntrack = (ConntrackSource, ConntrackTable);

/// The first stage and all others.
pub(crate) struct Pipeline<S> {
    capture: Capture,
    stages: Stages<S>,
    last_tick_ns: u64,
}

impl<S: Symbols> Pipeline<S> {
    /// Ready to run.
    pub(crate) fn new(
        capture: Capture,
        symbols: S,
        conntrack: Option<Conntrack>,
        cache: Arc<IpCache>,
        writer: Writer,
        counters: Arc<Counters>,
        behind: Arc<BehindLinks>,
    ) -> Self {
        let kernel = capture.kernel();
        let reasons =
            DropReasons::new(kernel.drop_reasons.iter().map(|(number, name)| (*number, name.clone())));
        let stages = Stages {
            status: capture.status(),
            decoder: Decoder { clock: Clock::new(), sites: DropSites::new(reasons, symbols) },
            conntrack,
            tracker: Tracker::default(),
            local: Local::default(),
            links: Links::new(behind),
            filler: Filler::new(Enricher::new(Arc::clone(&cache))),
            cache,
            writer,
            counters,
            ring_full: 0,
            events: Vec::new(),
            tracked: Vec::new(),
        };
        Self { capture, stages, last_tick_ns: 0 }
    }

    /// Runs until `stop` is readable; then detaches, and stores what is left.
    pub(crate) fn run(mut self, stop: BorrowedFd<'_>) -> Result<(), CaptureError> {
        while !is_readable(stop) {
            let until_tick = TICK_NS.saturating_sub(Clock::kernel_now().saturating_sub(self.last_tick_ns));
            let longest = match self.stages.tracker.waiting() {
                0 => Duration::from_nanos(until_tick),
                _ => CONNTRACK_PAUSE,
            };
            self.capture.wait(&[stop], longest)?;
            self.capture.drain(&mut |record| self.stages.read(record));
            let now = Clock::kernel_now();
            if now.saturating_sub(self.last_tick_ns) >= TICK_NS {
                self.last_tick_ns = now;
                let swept = self.capture.sweep(&mut |record| self.stages.read(record));
                add(&self.stages.counters.swept, swept as u64);
                self.stages.tick();
            }
            let links = self.capture.links();
            if self.stages.local.refresh(&self.stages.cache, &links) {
                self.stages.local.tell(&self.capture, &self.stages.cache)?;
                self.stages.links.refresh(&links);
            }
            self.stages.pass_on(now);
        }
        self.capture.stop(&mut |record| self.stages.read(record));
        self.stages.tick();
        self.stages.pass_on(u64::MAX);
        Ok(())
    }
}

/// Everything after capture.
struct Stages<S> {
    status: StatusHandle,
    decoder: Decoder<S>,
    conntrack: Option<Conntrack>,
    tracker: Tracker,
    local: Local,
    links: Links,
    cache: Arc<IpCache>,
    filler: Filler,
    writer: Writer,
    counters: Arc<Counters>,
    ring_full: u64,
    events: Vec<Event>,
    tracked: Vec<Tracked>,
}

impl<S: Symbols> Stages<S> {
    fn read(&mut self, record: &[u8]) {
        add(&self.counters.records, 1);
        match self.decoder.decode(record) {
            Ok(event) => self.events.push(event),
            Err(error) => {
                // One line for a fault that can only be everywhere or nowhere.
                if add(&self.counters.undecodable, 1) == 0 {
                    tracing::error!(%error, "a kernel record could not be read; further ones are only counted");
                }
            }
        }
    }

    /// Once a second: clocks, and what the kernel had to throw away.
    fn tick(&mut self) {
        self.decoder.clock.remeasure();
        let status = self.status.status();
        let ring_full = status.total(|counters| counters.ring_full);
        let lost = ring_full - self.ring_full;
        if lost > 0 {
            self.ring_full = ring_full;
            let now = self.decoder.clock.unix(Clock::kernel_now());
            let tick = TICK_NS.cast_signed();
            self.writer.store().report_lost(LossSource::KernelRing, lost, now.saturating_sub(tick), now);
        }
    }

    /// Takes the batch through the stages. With `u64::MAX` nothing waits any longer.
    fn pass_on(&mut self, now_ns: u64) {
        let table = self.conntrack.as_mut().map(|(source, table)| {
            source.drain(table, now_ns.min(Clock::kernel_now()));
            self.counters.conntrack_overruns.store(source.counters().overruns, Ordering::Relaxed);
            &*table
        });
        self.tracker.batch(&mut self.events, table, now_ns, &self.local, &mut self.tracked);
        let counters = self.tracker.counters();
        for (shown, counted) in [
            (&self.counters.told_elsewhere, counters.suppressed()),
            (&self.counters.facts, counters.facts),
            (&self.counters.facts_lost, counters.facts_turned_away + counters.facts_without_ends),
            (&self.counters.waiting, self.tracker.waiting() as u64),
        ] {
            shown.store(counted, Ordering::Relaxed);
        }
        if self.tracked.is_empty() {
            return;
        }
        let count = self.tracked.len() as u64;
        for tracked in &self.tracked {
            let link = self.links.of(tracked);
            let flow = self.writer.push_made(|| self.filler.fill(tracked, link));
            self.links.learn(flow);
        }
        self.tracked.clear();
        // Not before they can be read: who sums up must not find them missing in the store.
        add(&self.counters.stored, count);
        self.writer.publish();
    }
}

fn add(counter: &AtomicU64, count: u64) -> u64 {
    counter.fetch_add(count, Ordering::Relaxed)
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&at_once))
        .is_ok_and(|ready| ready > 0)
}

//! The stages joined: the one place that says their order.
//!
//! What enters them is an [`Input`], from the running capture (`live`) or from a recording (`replay`); the same inputs
//! make the same flows. One thread carries them: records become events, and a batch of events goes through the stages by
//! value, to the store.

#[cfg(feature = "bench")]
mod feed;
mod live;
mod local;
mod replay;
mod requests;
pub(crate) mod said;

use crate::{
    decode::{Clock, Decoder, DropReasons, DropSites, Event},
    enrich::{Enricher, Filler, ipcache::IpCache},
    flow::Flow,
    l7::{Reader, Redaction},
    policy::{Judge, Policies},
    recording::{Head, Input, Recorder},
    store::{LossSource, Writer},
    track::{ConntrackTable, TableLimits, Tracked, Tracker, Update},
};
#[cfg(feature = "bench")]
pub use feed::Feed;
pub(crate) use live::Live;
pub(crate) use local::BehindLinks;
use local::{Links, Local};
pub use replay::{Played, replay_bytes};
pub(crate) use replay::{Replay, ReplayedLinks};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How often the kernel's tables are swept and the slow things are looked after.
const TICK_NS: u64 = 1_000_000_000;

/// What the thread counts for others to read. Records = undecodable + facts + told elsewhere + payloads + stored + waiting.
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
    /// Payload of packets, which was read.
    pub(crate) payloads: AtomicU64,
    /// Requests and responses found in it, which are flows of no record.
    pub(crate) said: AtomicU64,
    /// What was found and can't be told, by [`said::UNTOLD`].
    pub(crate) unsaid: said::Untold,
    /// Flows given to the store.
    pub(crate) stored: AtomicU64,
    /// Parts that many flows have in common and that the store has forgotten: some of its bytes count twice.
    pub(crate) parts_forgotten: AtomicU64,
    /// Records that wait for conntrack's word now.
    pub(crate) waiting: AtomicU64,
    /// Records that the kernel's rings had no room for, as the pipeline was told.
    pub(crate) lost: AtomicU64,
    /// Times that conntrack's events were lost and its table was read again.
    pub(crate) conntrack_overruns: AtomicU64,
}

/// What the stages share with others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    pub(crate) behind: Arc<BehindLinks>,
    /// By which new connections are judged, where any are given.
    pub(crate) policies: Option<Arc<Policies>>,
    /// What of requests is not told.
    pub(crate) redaction: Redaction,
}

/// Names an address in the kernel, see [`crate::decode::Symbols`].
pub(crate) type Resolve = Box<dyn Fn(u64) -> Result<String, &'static str>>;

/// Everything after capture.
pub(crate) struct Stages {
    decoder: Decoder<Resolve>,
    conntrack: Option<ConntrackTable>,
    tracker: Tracker,
    local: Local,
    links: Links,
    cache: Arc<IpCache>,
    filler: Filler,
    reader: Reader,
    judge: Option<Judge>,
    writer: Writer,
    counters: Arc<Counters>,
    recorder: Option<Arc<Recorder>>,
    events: Vec<Event>,
}

impl Stages {
    /// Ready for the first input. Where there is a `recorder`, it keeps each.
    pub(crate) fn new(
        head: &Head,
        symbols: Resolve,
        cache: Arc<IpCache>,
        writer: Writer,
        shared: Shared,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let reasons = DropReasons::new(head.drop_reasons.iter().cloned());
        let judge = shared.policies.map(|policies| Judge::new(policies, Arc::clone(&cache)));
        Self {
            decoder: Decoder {
                clock: Clock::with_offset(head.offset_ns),
                sites: DropSites::new(reasons, symbols),
            },
            conntrack: head.no_conntrack.is_none().then(|| ConntrackTable::new(TableLimits::default())),
            tracker: Tracker::default(),
            local: Local::default(),
            links: Links::new(shared.behind),
            filler: Filler::new(Enricher::new(Arc::clone(&cache))),
            reader: Reader::new(shared.redaction),
            cache,
            judge,
            writer,
            counters: shared.counters,
            recorder,
            events: Vec::new(),
        }
    }

    /// Takes in one input.
    pub(crate) fn take(&mut self, input: &Input<'_>) {
        match input {
            Input::Record(record) => self.read(record),
            Input::Swept(record) => {
                add(&self.counters.swept, 1);
                self.read(record);
            }
            Input::Conntrack(update) => {
                add(&self.counters.conntrack_overruns, u64::from(*update == Update::Overrun));
                if let Some(table) = &mut self.conntrack {
                    table.apply(update);
                }
            }
            Input::Batch(now_ns) => {
                if let Some(table) = &mut self.conntrack {
                    table.expire(*now_ns);
                }
                self.pass_on(*now_ns);
            }
            Input::End => self.pass_on(u64::MAX),
            Input::Lost(count, since_ns, now_ns) => {
                let count = u64::from(*count);
                add(&self.counters.lost, count);
                let [first, last] = [since_ns, now_ns].map(|time| self.decoder.clock.unix(*time));
                // A wall clock that was set back in between turns the two around.
                self.writer.store().report_lost(LossSource::KernelRing, count, first.min(last), last);
            }
            Input::Clock(kernel_ns, offset_ns) => self.decoder.clock.change(*kernel_ns, *offset_ns),
            Input::Links(table) => {
                self.local.set_links(table);
                self.links.refresh(table);
            }
            // The stages ask for these themselves.
            Input::Names(_) | Input::Symbol(..) => {}
        }
        // After it was taken, so that the symbols that it asked for stand before it.
        if let Some(recorder) = &self.recorder {
            recorder.keep(input);
        }
    }

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

    /// Takes the batch through the stages. With `u64::MAX` nothing waits any longer.
    fn pass_on(&mut self, now_ns: u64) {
        let Self { tracker, events, conntrack, local, links, filler, reader, judge, writer, .. } = self;
        local.refresh(&self.cache);
        if now_ns != u64::MAX {
            filler.forget_names(now_ns);
        }
        let mut judging = judge.as_mut().map(Judge::begin);
        let (mut count, mut verdicts, mut payloads, mut told) = (0, 0, 0, 0);
        tracker.batch(events, conntrack.as_ref(), now_ns, local, &mut |tracked| {
            if let Tracked::Flow(flow) = tracked
                && let Some(payload) = &flow.event.payload
            {
                payloads += 1;
                reader.take(flow, payload, &mut |said| {
                    told += 1;
                    said.learn(flow, filler);
                    filler.fill(tracked, None, |flow| said.flow(flow, |flow| writer.add(flow)));
                });
                return;
            }
            filler.fill(tracked, links.known.of(tracked), |flow| {
                links.learnt.learn(flow);
                if let Some(judging) = &mut judging {
                    let told = judging.judge(flow, tracked.decided(), &mut |verdict| writer.add(verdict));
                    verdicts += told.verdicts;
                    if told.denied_by.is_some() {
                        return writer.add(&Flow { policy: told.denied_by.as_ref(), ..*flow });
                    }
                }
                writer.add(flow);
            });
            count += 1;
        });
        // Whoever changes the policies waits for it.
        drop(judging);
        let counters = tracker.counters();
        for (shown, counted) in [
            (&self.counters.told_elsewhere, counters.suppressed()),
            (&self.counters.facts, counters.facts),
            (&self.counters.facts_lost, counters.facts_turned_away + counters.facts_without_ends),
            (&self.counters.waiting, tracker.waiting() as u64),
            (&self.counters.parts_forgotten, writer.parts_forgotten()),
        ] {
            shown.store(counted, Ordering::Relaxed);
        }
        if payloads > 0 {
            add(&self.counters.payloads, payloads);
            add(&self.counters.said, told);
            self.counters.unsaid.set(reader, filler);
        }
        if count + verdicts + told > 0 {
            // Not before they can be read: who sums up must not find them missing in the store.
            add(&self.counters.stored, count);
            self.writer.publish();
        }
    }
}

fn add(counter: &AtomicU64, count: u64) -> u64 {
    counter.fetch_add(count, Ordering::Relaxed)
}

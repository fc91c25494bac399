//! Statistics over all flows: who talks to whom, what was dropped and why, who talks most, how HTTP and DNS go, over the last minutes.
//!
//! A task of its own follows the store; the event path does nothing for it. What it could not follow is counted as lost.

mod connections;
mod counts;
mod names;
mod signals;
mod table;

pub use counts::{DropCounts, DropKey, EdgeCounts, EdgeKey, PolicyCounts, PolicyKey, TalkerCounts, Totals};
pub use names::{Name, protocol};
pub use signals::SignalKey;

use crate::store::{Cursor, Loss, LossSource, Steps, Store};
use counts::All;
use observer_proto::answers::signals::{Protocol, Sums};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;

/// Counts are kept for so long each.
const BUCKET: Duration = Duration::from_secs(5);
/// Full buckets kept: those of the longest window.
const BUCKETS: usize = 180;
/// Flows examined before others get the lock and the thread.
const CHUNK: usize = 2048;
/// How long flows may lie in the store before they are counted.
const LATEST: Duration = Duration::from_millis(500);
/// How often the store is looked at while flows come, where they came fast and where they came slowly: often enough that
/// a store of the usual size holds what comes meanwhile.
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(50);

/// How far back counts reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A minute.
    Minute,
    /// Five.
    FiveMinutes,
    /// Fifteen.
    QuarterHour,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Minute, Self::FiveMinutes, Self::QuarterHour];

    /// Its seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Minute => 60,
            Self::FiveMinutes => 300,
            Self::QuarterHour => 900,
        }
    }

    /// Parts of a trend: each of some full buckets.
    fn parts(self) -> usize {
        match self {
            Self::Minute => 12,
            Self::FiveMinutes | Self::QuarterHour => 20,
        }
    }

    fn buckets(self) -> usize {
        self.seconds() as usize / BUCKET.as_secs() as usize
    }
}

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when on flows were counted.
    pub from: SystemTime,
    /// Until now.
    pub until: SystemTime,
    /// All that was counted.
    pub totals: Totals,
}

/// The heaviest rows and the sum of all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<K, C> {
    /// What they are about.
    pub window: Window,
    /// The heaviest first.
    pub rows: Vec<(K, C)>,
    /// Of each of them, where that is told: how much of it was in equal parts of the window, the newest last.
    pub trends: Vec<Vec<u64>>,
    /// Of those that are not among them.
    pub other: C,
}

/// What was turned away since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnedAway {
    /// Rows that were summed in `other`.
    pub rows_folded: u64,
    /// Connections that were forgotten; the bytes up to their next record are left out, as they may count twice.
    pub connections_forgotten: u64,
}

/// The statistics.
#[derive(Debug)]
pub struct Stats(Mutex<State>);

#[derive(Debug)]
struct State {
    all: All,
    started: Instant,
    /// When the bucket began that is filled.
    bucket: Instant,
}

impl Default for Stats {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { all: All::default(), started: now, bucket: now }))
    }
}

impl Stats {
    /// Follows the store from its oldest flow on, until `ending` is true or the task is ended.
    pub async fn follow(self: Arc<Self>, store: Arc<Store>, mut ending: watch::Receiver<bool>) {
        let mut losses = store.losses();
        let mut cursor = Cursor::new(Arc::clone(&store), store.oldest());
        let mut pause = SLOW;
        loop {
            let examined = self.drain(&mut cursor).await;
            cursor.park();
            self.count_losses(&store.take_losses(&mut losses));
            let capacity = store.capacity();
            if examined == 0 {
                tokio::select! {
                    () = store.changed(cursor.position(), &losses) => {}
                    _ = ending.wait_for(|down| *down) => return,
                }
            } else {
                pause = if examined > capacity / 64 { FAST } else { SLOW };
            }
            // Rather many flows at once than a look at each: looking costs more than counting.
            let began = Instant::now();
            while began.elapsed() < LATEST && store.head() - cursor.position() < capacity / 8 {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = ending.wait_for(|down| *down) => return,
                }
            }
        }
    }

    /// Counts what is there; how much it was.
    async fn drain(&self, cursor: &mut Cursor) -> u64 {
        let mut examined = 0;
        loop {
            let (count, is_end) = self.count(cursor);
            examined += count;
            if is_end {
                return examined;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Counts what the cursor comes upon, some thousand flows at most: how many, and whether there is nothing newer yet.
    pub fn count(&self, cursor: &mut Cursor) -> (u64, bool) {
        let mut state = self.state();
        let all = &mut state.all;
        let mut count = 0;
        while count < CHUNK as u64 {
            match cursor.steps() {
                Steps::Flows(lot) => {
                    count += lot.count() as u64;
                    all.examine(&lot);
                }
                Steps::Lost(lost) => all.count(Totals { lost, ..Totals::default() }),
                Steps::End => return (count, true),
            }
        }
        (count, false)
    }

    fn count_losses(&self, losses: &[Loss]) {
        if losses.is_empty() {
            return;
        }
        let all = &mut self.state().all;
        for Loss { source, count, .. } in losses {
            let mut totals = Totals::default();
            match source {
                LossSource::KernelRing => totals.lost_in_kernel = *count,
                LossSource::Queue => totals.lost_in_queue = *count,
            }
            all.count(totals);
        }
    }

    /// Who talks to whom.
    pub fn edges(&self, span: Span, limit: usize) -> Rows<EdgeKey, EdgeCounts> {
        let state = self.state();
        let (rows, other) = state.all.edges.window(span.buckets(), limit);
        Rows { window: state.window(span), rows, trends: Vec::new(), other }
    }

    /// What was dropped; trends are of flows.
    pub fn drops(&self, span: Span, limit: usize) -> Rows<DropKey, DropCounts> {
        let state = self.state();
        let (rows, trends, other) =
            state.all.drops.trends(span.buckets(), limit, span.parts(), |sum| sum.flows);
        Rows { window: state.window(span), rows, trends, other }
    }

    /// Who talks most; trends are of bytes, both ways.
    pub fn talkers(&self, span: Span, limit: usize) -> Rows<Name, TalkerCounts> {
        let state = self.state();
        let bytes = |sum: &TalkerCounts| sum.sent_bytes + sum.received_bytes;
        let (rows, trends, other) = state.all.talkers.trends(span.buckets(), limit, span.parts(), bytes);
        Rows { window: state.window(span), rows, trends, other }
    }

    /// What policies decided.
    pub fn policies(&self, span: Span, limit: usize) -> Rows<PolicyKey, PolicyCounts> {
        let state = self.state();
        let (rows, other) = state.all.policies.window(span.buckets(), limit);
        Rows { window: state.window(span), rows, trends: Vec::new(), other }
    }

    /// Requests and responses of a protocol, by server and by route.
    pub fn signals(&self, protocol: Protocol, span: Span, limit: usize) -> [Rows<SignalKey, Sums>; 2] {
        let state = self.state();
        let signals = state.all.signals.of(protocol);
        [&signals.servers, &signals.routes].map(|table| {
            let (rows, other) = table.window(span.buckets(), limit);
            Rows { window: state.window(span), rows, trends: Vec::new(), other }
        })
    }

    /// All that was counted.
    pub fn window(&self, span: Span) -> Window {
        self.state().window(span)
    }

    /// What there was no room for.
    pub fn turned_away(&self) -> TurnedAway {
        let all = &self.state().all;
        TurnedAway {
            rows_folded: all.edges.folded()
                + all.drops.folded()
                + all.talkers.folded()
                + all.policies.folded()
                + all.signals.folded(),
            connections_forgotten: all.connections.forgotten(),
        }
    }

    /// With the bucket of this time.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn_until(Instant::now());
        state
    }
}

impl State {
    fn turn_until(&mut self, now: Instant) {
        let mut turns = 0;
        while now.duration_since(self.bucket) >= BUCKET {
            self.bucket += BUCKET;
            // After as many all is forgotten.
            if turns <= BUCKETS {
                self.all.turn();
                turns += 1;
            }
        }
    }

    fn window(&self, span: Span) -> Window {
        let (now, until) = (Instant::now(), SystemTime::now());
        let longest = now.duration_since(self.bucket) + BUCKET * span.buckets() as u32;
        let since = longest.min(now.duration_since(self.started));
        Window { from: until - since, until, totals: self.all.totals(span.buckets()) }
    }
}

#[cfg(test)]
mod tests;

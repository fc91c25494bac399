//! How long things take, and how often the API server is asked again where it does not answer.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex as Turns, watch},
    time::{Instant, sleep_until},
};

/// How long things take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a watch lasts before it is made anew, by chance between these: a server that is frozen tells nothing, so this
    /// is how long it takes until somebody sees that.
    pub watch: Range<Duration>,
    /// How long a server may take to begin its answer, and within it.
    pub answer: Duration,
    /// The first wait after a failure; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
    /// How often is asked for what the API server does not know.
    pub absent: Duration,
    /// The time between two repeated requests, of all resources together.
    pub pace: Duration,
    /// What was not heard of for that long is stale.
    pub stale: Duration,
    /// How long changes of nodes, services and policies are collected.
    pub batch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(30)..Duration::from_secs(40),
            answer: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(5),
            absent: Duration::from_secs(30),
            pace: Duration::from_secs(1),
            stale: Duration::from_mins(1),
            batch: Duration::from_millis(50),
        }
    }
}

impl Timing {
    /// All of it so many times as fast, for tests.
    #[must_use]
    pub fn faster(&self, times: u32) -> Self {
        Self {
            watch: self.watch.start / times..self.watch.end / times,
            answer: self.answer / times,
            first_wait: self.first_wait / times,
            longest_wait: self.longest_wait / times,
            absent: self.absent / times,
            pace: self.pace / times,
            stale: self.stale / times,
            batch: self.batch / times,
        }
    }

    /// The wait after so many failures in a row.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doubled = self.first_wait * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        doubled.min(self.longest_wait)
    }
}

/// Lets repeated requests through one by one, those of all resources together. When the server answers again, all go at once.
#[derive(Debug)]
pub(crate) struct Pace {
    timing: Timing,
    next: Turns<Instant>,
    health: Mutex<Health>,
    back: watch::Sender<u64>,
}

#[derive(Debug)]
struct Health {
    failing: bool,
    woken: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(timing: Timing) -> Self {
        // Until the first answer nobody knows whether anybody is there: one asks, and the others go when it is answered.
        let health = Mutex::new(Health { failing: true, woken: None });
        Self { timing, next: Turns::new(Instant::now()), health, back: watch::Sender::new(0) }
    }

    /// Waits until a request may be repeated, `wait` from now at the earliest; sooner where the server `comes back` meanwhile.
    pub(crate) async fn turn(&self, wait: Duration, comes_back: bool) {
        let mut back = self.back.subscribe();
        let turn = async {
            tokio::time::sleep(wait).await;
            let mut next = self.next.lock().await;
            sleep_until(*next).await;
            *next = Instant::now() + self.timing.pace;
        };
        tokio::select! {
            () = turn => {}
            _ = back.changed(), if comes_back => {}
        }
    }

    /// The server did not answer, or not what was asked for.
    pub(crate) fn failed(&self) {
        self.health().failing = true;
    }

    /// The server answered.
    pub(crate) fn answered(&self) {
        let mut health = self.health();
        let was_failing = std::mem::take(&mut health.failing);
        // One that answers now and then is not to be stormed each time.
        if was_failing && health.woken.is_none_or(|woken| woken.elapsed() >= self.timing.longest_wait) {
            health.woken = Some(Instant::now());
            self.back.send_modify(|times| *times += 1);
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

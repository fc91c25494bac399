//! A disk that takes nothing for a while: when it is tried again, and how often that is logged.

use std::time::{Duration, Instant};

/// How often a disk that takes nothing is tried.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
// Users are promised 5 s.
const _: () = assert!(2 * RETRY.as_secs() <= 5);
/// How often the log says that something takes nothing.
pub(crate) const LOG: Duration = Duration::from_secs(30);

/// Since when there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    since: Instant,
    logged: Instant,
    failures: u32,
}

impl Trouble {
    /// Notes one more failure; whether it is to be logged.
    pub(crate) fn again(trouble: &mut Option<Self>) -> bool {
        let now = Instant::now();
        let is_new = trouble.is_none();
        let this = trouble.get_or_insert(Self { since: now, logged: now, failures: 0 });
        this.failures = this.failures.saturating_add(1);
        let is_due = is_new || now - this.logged >= LOG;
        if is_due {
            this.logged = now;
        }
        is_due
    }

    /// How often it failed, one time after the other.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long it lasts, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }
}

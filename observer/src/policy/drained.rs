//! How far the pipeline's thread has come with the kernel's records: what they were judged by may go only then.

use rustix::{
    event::{EventfdFlags, eventfd},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
};
use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The longest that is waited for: records that come later are told without the names of policies.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// Told by the pipeline's thread, waited for by the one that changes policies.
#[derive(Debug)]
pub(crate) struct Drained {
    wake: OwnedFd,
    /// Whether somebody waits.
    awaited: AtomicBool,
    /// Kernel time, nanoseconds: all records from before have been told.
    until: Mutex<u64>,
    changed: Condvar,
}

impl Drained {
    /// Nothing was told so far.
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            awaited: AtomicBool::new(false),
            until: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// All records that were made before this kernel time have been told. At the end that is `u64::MAX`.
    pub(crate) fn tell(&self, until_ns: u64) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until_ns.max(*until);
        if self.awaited.swap(false, Ordering::Relaxed) {
            // Nothing to be read is as good.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            self.changed.notify_all();
        }
    }

    /// As if nothing had been told.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Waits until all records from before this kernel time have been told, but not longer than [`LONGEST`]; whether it is
    /// so.
    pub(super) fn wait(&self, time_ns: u64) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let mut awaits = |until: &mut u64| {
            let is_awaited = *until < time_ns;
            if is_awaited {
                self.awaited.store(true, Ordering::Relaxed);
                // Fails only where it is set already.
                let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
            }
            is_awaited
        };
        let waited = self.changed.wait_timeout_while(until, LONGEST, &mut awaits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Readable while somebody waits.
impl AsFd for Drained {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn who_waits_wakes_the_pipeline_until_it_has_come_so_far() {
        let drained = Drained::new().unwrap();
        drained.tell(10);
        assert!(drained.wait(10), "nothing to wait for");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drained.wait(30));
            for until in [20, 30] {
                poll(&mut [PollFd::new(&drained, PollFlags::IN)], None).unwrap();
                drained.tell(until);
            }
            assert!(waiting.join().unwrap());
        });
        drained.tell(u64::MAX);
        assert!(drained.wait(u64::MAX));
    }
}

//! The two rings: what the programs wrote, in their order, drops first.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::error::CaptureError;
use super::ring::Ring;

/// With this many records in a batch, the flow ring fills faster than waking for it would be worth.
const BUSY: usize = 64;
/// How long flow records may then lie there.
const BUSY_WAIT: Duration = Duration::from_millis(10);
/// How soon after a look at the rings the next one comes. The packet whose record wakes the reader waits for an interrupt
/// and a wake-up, some microseconds, and a reader that looks at once has each packet of a new connection wake it.
const PACE: Duration = Duration::from_millis(1);
/// Records that one call reads of a ring: under a flood, drops and the caller's other work get their turn within a
/// millisecond or two. Drops then overtake the flows that are left.
const MOST: usize = 2048;

/// What a call of [`super::Capture::drain`] did.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Records given.
    pub records: usize,
    /// Kernel time of the last look for drops, nanoseconds: up to then all were given but one that was being written;
    /// before a later flow there may be others that were not.
    pub ordered_until_ns: u64,
    /// Whether nothing was left of what was there then.
    pub all: bool,
}

pub(super) struct Rings {
    flows: Ring,
    priority: Ring,
    busy: bool,
    /// When something was last taken.
    taken: Option<Instant>,
    /// The last call left some.
    more: bool,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl Rings {
    pub(super) fn new(flows: Ring, priority: Ring) -> Self {
        Self { flows, priority, busy: false, taken: None, more: false }
    }

    /// Whether flows lie in the ring for a while before they are looked at.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(super) fn wait(&mut self, others: &[BorrowedFd<'_>], timeout: Duration) -> Result<(), CaptureError> {
        if self.more {
            return Ok(());
        }
        let timeout = if self.busy { timeout.min(BUSY_WAIT) } else { timeout };
        let mut fds: Vec<_> = others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        fds.push(PollFd::from_borrowed_fd(self.priority.as_fd(), PollFlags::IN));
        if !self.busy {
            fds.push(PollFd::from_borrowed_fd(self.flows.as_fd(), PollFlags::IN));
        }
        poll_for(&mut fds, timeout)?;
        let (others, rings) = fds.split_at_mut(others.len());
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let rest = self.taken.map_or(Duration::ZERO, |taken| PACE.saturating_sub(taken.elapsed()));
        if !rest.is_zero() && rings.iter().any(is_ready) && !others.iter().any(is_ready) {
            poll_for(others, rest)?;
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<Drained, CaptureError> {
        let failed = CaptureError::system("reading the rings");
        let mut drops = 0;
        // Until a look finds none: what came before that look began has been given then.
        let ordered_until_ns = loop {
            let looked_ns = monotonic();
            let more = self.priority.drain(MOST - drops, each).map_err(&failed)?;
            drops += more;
            if more == 0 || drops == MOST {
                break looked_ns;
            }
        };
        let flows = self.flows.drain(MOST, each).map_err(&failed)?;
        // What a full batch left over tells nothing of the rate.
        self.busy = flows >= BUSY || self.more;
        self.more = drops.max(flows) >= MOST;
        if drops + flows > 0 {
            self.taken = Some(Instant::now());
        }
        Ok(Drained { records: drops + flows, ordered_until_ns, all: !self.more })
    }

    /// Gives all to `each` that is there, where nothing more comes.
    pub(super) fn drain_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<usize, CaptureError> {
        let mut count = self.drain(each)?.records;
        while self.more {
            count += self.drain(each)?.records;
        }
        Ok(count)
    }
}

fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> Result<(), CaptureError> {
    match poll(fds, Timespec::try_from(timeout).ok().as_ref()) {
        // A signal: the caller looks at what it was.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(CaptureError::system("waiting for the rings")(error.into())),
    }
}

/// Kernel time now, nanoseconds.
pub(super) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

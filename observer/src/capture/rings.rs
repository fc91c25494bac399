//! The two rings: what the programs wrote, in their order, drops first.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::error::CaptureError;

/// With this many records in a batch, the flow ring fills faster than waking for it would be worth.
const BUSY: usize = 64;
/// How long flow records may then lie there.
const BUSY_WAIT: Duration = Duration::from_millis(10);

pub(super) struct Rings {
    flows: RingBuf<MapData>,
    priority: RingBuf<MapData>,
    busy: bool,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl Rings {
    pub(super) fn new(flows: RingBuf<MapData>, priority: RingBuf<MapData>) -> Self {
        Self { flows, priority, busy: false }
    }

    pub(super) fn wait(&mut self, others: &[BorrowedFd<'_>], timeout: Duration) -> Result<(), CaptureError> {
        let timeout = if self.busy { timeout.min(BUSY_WAIT) } else { timeout };
        let mut fds = vec![PollFd::from_borrowed_fd(self.priority.as_fd(), PollFlags::IN)];
        if !self.busy {
            fds.push(PollFd::from_borrowed_fd(self.flows.as_fd(), PollFlags::IN));
        }
        fds.extend(others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            // A signal: the caller looks at what it was.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(CaptureError::system("waiting for the rings")(error.into())),
        }
    }

    pub(super) fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> usize {
        let mut drops = 0;
        while let Some(record) = self.priority.next() {
            each(&record);
            drops += 1;
        }
        let mut flows = 0;
        while let Some(record) = self.flows.next() {
            each(&record);
            flows += 1;
            // Under a flood the ring may never be empty: drops and the caller's other work get their turn.
            if flows >= 65_536 {
                break;
            }
        }
        self.busy = flows >= BUSY;
        drops + flows
    }
}

//! What the proxy tells of requests, for the pipeline's thread, which makes flows of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use observer_policy::model::TCP;
use observer_proto::flow::Verdict;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::decode::Clock;
use crate::layer7::Layer7;
use crate::policy::Policies;
use crate::policy_verdict::PolicyVerdict;

/// Requests and answers that wait to be told; more are counted as lost.
const MOST_WAITING: usize = 16_384;
/// While requests come, they are looked at so often, and wake nobody.
const NEXT: Duration = Duration::from_millis(5);

/// A request, or its answer.
#[derive(Debug)]
pub struct Told {
    /// Unix time, nanoseconds.
    pub time_ns: i64,
    /// Kernel time.
    pub kernel_ns: u64,
    /// Who asked.
    pub client: SocketAddr,
    /// Who was asked.
    pub server: SocketAddr,
    /// By which protocol, IANA's number.
    pub protocol: u8,
    /// What was said.
    pub said: Arc<Layer7>,
    /// Whether it is the answer.
    pub is_answer: bool,
    /// Whether policies speak of the client's side; nothing where none speak of any.
    pub is_egress: Option<bool>,
    /// What became of the request.
    pub verdict: Verdict,
    /// By which policies.
    pub policies: Option<Arc<PolicyVerdict>>,
}

impl Told {
    /// Said at this time, by nobody yet.
    pub(super) fn now(said: Arc<Layer7>) -> Self {
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time_ns: i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX),
            kernel_ns: Clock::kernel_now(),
            client: nobody,
            server: nobody,
            protocol: TCP,
            said,
            is_answer: false,
            is_egress: None,
            verdict: Verdict::Forwarded,
            policies: None,
        }
    }
}

/// Wakes the pipeline, where it is not to look soon anyway: to be woken for each of many would cost it more than to read them.
#[derive(Debug)]
struct Wake {
    fd: OwnedFd,
    awaited: AtomicBool,
}

/// The proxy's end.
#[derive(Clone, Debug)]
pub struct Teller {
    sender: SyncSender<Told>,
    wake: Arc<Wake>,
    policies: Arc<Policies>,
}

/// The pipeline's end.
#[derive(Debug)]
pub struct Listener {
    told: Receiver<Told>,
    wake: Arc<Wake>,
    policies: Arc<Policies>,
}

/// Both ends; what is told, and what is not, is counted with the policies.
pub fn channel(policies: &Arc<Policies>) -> Result<(Teller, Listener), Errno> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let wake = Arc::new(Wake { fd, awaited: AtomicBool::new(true) });
    let (sender, told) = sync_channel(MOST_WAITING);
    let teller = Teller { sender, wake: Arc::clone(&wake), policies: Arc::clone(policies) };
    Ok((teller, Listener { told, wake, policies: Arc::clone(policies) }))
}

impl Teller {
    /// Tells; never waits.
    pub fn tell(&self, told: Told) {
        if let Some(verdict) = told.policies.as_ref().filter(|verdict| verdict.told().denies) {
            self.policies.count_refused(&verdict.told().policies, told.verdict == Verdict::Dropped);
        }
        if self.sender.try_send(told).is_err() {
            self.policies.counters.requests_lost.fetch_add(1, Ordering::Relaxed);
        }
        // After what was sent, as the listener says that it waits before it looks for the last time.
        if self.wake.awaited.swap(false, Ordering::SeqCst) {
            // Fails only where it is set already.
            let _ = rustix::io::write(&self.wake.fd, &1_u64.to_ne_bytes());
        }
    }
}

impl Listener {
    /// How soon this must be drained again though it is not readable: more is likely to be told. Nothing where it will be
    /// readable once there is something.
    pub fn next(&self) -> Option<Duration> {
        (!self.wake.awaited.load(Ordering::Relaxed)).then_some(NEXT)
    }

    /// What was told since the last time, no more at once than can wait: others wait too.
    pub fn drain(&self, mut each: impl FnMut(Told)) {
        if self.wake.awaited.load(Ordering::SeqCst) {
            self.take(&mut each);
            return;
        }
        // Nothing to be read is as good.
        let _ = rustix::io::read(&self.wake.fd, &mut [0; 8]);
        if self.take(&mut each) == 0 {
            self.wake.awaited.store(true, Ordering::SeqCst);
            // Of what was told in between nobody was woken.
            self.take(&mut each);
        }
    }

    fn take(&self, mut each: impl FnMut(Told)) -> u64 {
        let mut count = 0;
        for told in self.told.try_iter().take(MOST_WAITING) {
            each(told);
            count += 1;
        }
        self.policies.counters.requests_told.fetch_add(count, Ordering::Relaxed);
        count
    }
}

impl AsFd for Listener {
    /// Readable where there is something to drain.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;

//! The proxy's threads, each with a runtime of its own: a connection's tasks, its client's and its server's, are all in one
//! and wake each other without the kernel.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads are for processors; more than these a proxy of one node's pods hardly fills.
const MOST: usize = 4;

/// All of them. Dropping this ends them, and their connections.
#[derive(Debug)]
pub(super) struct Workers {
    runtimes: Arc<[Handle]>,
    _ends: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// Begins them, in the calling thread's network namespace.
    pub(super) fn begin() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let (mut runtimes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            thread::Builder::new().name("proxy".to_owned()).spawn(move || runtime.block_on(ended))?;
        }
        Ok(Self { runtimes: runtimes.into(), _ends: ends })
    }

    /// Their runtimes, at least one.
    pub(super) fn runtimes(&self) -> Arc<[Handle]> {
        Arc::clone(&self.runtimes)
    }
}

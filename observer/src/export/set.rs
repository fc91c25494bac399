//! The exporters that run: those of the flags, and those of a file that may change.

use super::{
    config::{ExportConfig, Exporter, File},
    counters::{Board, Operation},
    exporter::{Around, Orders, Task},
};
use crate::{
    dynamic,
    followed::{Followed, INTERVAL, Look},
    serve::NodeInfo,
    store::Store,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// How long exporters get to write what there is when the daemon ends.
const END: Duration = Duration::from_secs(1);

/// Why exporters can't start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The dynamic configuration is wrong; it says where.
    #[error("{0}")]
    Config(String),
    /// The system gives no thread, or no signal.
    #[error("cannot start exporters: {0}")]
    System(#[from] io::Error),
}

/// Exporters at work; they end with `Exports::shutdown`.
#[derive(Debug)]
pub struct Exports {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exports {
    /// Starts what is configured; nothing where nothing is. Must be called within a tokio runtime.
    pub(crate) fn start(
        config: ExportConfig,
        store: Arc<Store>,
        node: NodeInfo,
        board: Arc<Board>,
    ) -> Result<Option<Self>, ExportError> {
        if config.is_empty() {
            return Ok(None);
        }
        let around = Around { store, node, runtime: Handle::current() };
        let mut set = Set { running: Vec::new(), around, board, reopened: 0 };
        let from = set.around.store.oldest();
        for fixed in &config.fixed {
            set.begin(fixed.clone(), from)?;
        }
        let fixed = config.fixed;
        let mut follower =
            config.file.map(|file| Follower { followed: Followed::new([file.clone()]), file, fixed });
        if let Some(follower) = &follower {
            for exporter in follower.read().map_err(ExportError::Config)? {
                set.begin(exporter, from)?;
                set.board.count(Operation::Add);
            }
            set.board.note_applied(&follower.file);
        }
        let (stop, mut stopped) = watch::channel(false);
        let mut hangup = signal(SignalKind::hangup())?;
        let task = tokio::spawn(async move {
            let mut look = tokio::time::interval(INTERVAL);
            loop {
                // What was waited for is let go of before others are.
                let looks = tokio::select! {
                    () = async { _ = stopped.wait_for(|stop| *stop).await } => break,
                    _ = hangup.recv() => false,
                    _ = look.tick(), if follower.is_some() => true,
                };
                match &mut follower {
                    Some(follower) if looks => follower.look(&mut set).await,
                    _ => set.reopen(),
                }
            }
            let all = std::mem::take(&mut set.running);
            all.iter().for_each(Running::tell_end);
            let ended = async {
                for running in all {
                    running.ended().await;
                }
            };
            if tokio::time::timeout(END, ended).await.is_err() {
                tracing::warn!("some exporters did not end within {} s and were cut off", END.as_secs());
            }
        });
        Ok(Some(Self { stop, task }))
    }

    /// Ends them when they have written what there is, within a second; nothing comes to the store any more.
    pub(crate) async fn shutdown(self) {
        self.stop.send_replace(true);
        // It only waits for others.
        let _ = self.task.await;
    }
}

/// All that runs.
struct Set {
    running: Vec<Running>,
    around: Around,
    board: Arc<Board>,
    reopened: u64,
}

/// One exporter in its thread.
struct Running {
    exporter: Exporter,
    orders: watch::Sender<Orders>,
    /// The number of the flow that is next, when it has ended.
    ended: oneshot::Receiver<u64>,
}

impl Running {
    fn tell_end(&self) {
        self.orders.send_modify(|orders| orders.end = true);
    }

    async fn ended(self) -> Option<u64> {
        self.ended.await.ok()
    }
}

impl Set {
    fn begin(&mut self, exporter: Exporter, from: u64) -> io::Result<()> {
        let counters = self.board.enter(&exporter.name);
        let orders = watch::Sender::new(Orders { reopened: self.reopened, end: false });
        let task = Task::new(&exporter, from, counters, orders.subscribe(), self.around.clone());
        let task = task.ok_or_else(|| io::Error::other("the API has no ExportEvent"))?;
        let (tell, ended) = oneshot::channel();
        // Nobody listens any more only where the daemon ends already.
        let work = move || _ = tell.send(task.run());
        std::thread::Builder::new().name("export".to_owned()).spawn(work)?;
        tracing::info!(exporter = exporter.name, "exports flows");
        self.running.push(Running { exporter, orders, ended });
        Ok(())
    }

    fn reopen(&mut self) {
        self.reopened += 1;
        for running in &self.running {
            running.orders.send_modify(|orders| orders.reopened = self.reopened);
        }
    }

    /// Has these run, beside the fixed ones: what is as it was goes on, what is changed goes on where it was.
    async fn become_these(&mut self, wanted: Vec<Exporter>, fixed: &[Exporter]) -> io::Result<()> {
        let (keep, end): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| [fixed, &wanted].iter().any(|all| all.contains(&running.exporter)));
        self.running = keep;
        let head = self.around.store.head();
        let mut places = Vec::new();
        end.iter().for_each(Running::tell_end);
        for running in end {
            let name = running.exporter.name.clone();
            // One that hangs on its disk is left to itself; what it would have written is its loss.
            let place = tokio::time::timeout(END, running.ended()).await.ok().flatten();
            places.push((name, place.unwrap_or(head)));
        }
        for exporter in wanted {
            if self.running.iter().any(|running| running.exporter == exporter) {
                continue;
            }
            let place = places.iter().position(|(name, _)| *name == exporter.name);
            let (operation, from) = match place {
                Some(place) => (Operation::Update, places.swap_remove(place).1),
                None => (Operation::Add, head),
            };
            self.begin(exporter, from)?;
            self.board.count(operation);
        }
        for (name, _) in places {
            self.board.leave(&name);
            self.board.count(Operation::Remove);
            tracing::info!(exporter = name, "exports no more");
        }
        Ok(())
    }
}

/// The file that may change.
struct Follower {
    followed: Followed,
    file: PathBuf,
    fixed: Vec<Exporter>,
}

impl Follower {
    fn read(&self) -> Result<Vec<Exporter>, String> {
        dynamic::read(&self.file, |file: File| file.check(&self.fixed))
    }

    async fn look(&mut self, set: &mut Set) {
        if self.followed.look() != Look::Changed {
            return;
        }
        let applied = match self.read() {
            // The next look sees what came in between.
            Ok(_) if !self.followed.are_whole() => return,
            Ok(wanted) => set.become_these(wanted, &self.fixed).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => {
                set.board.note_applied(&self.file);
                tracing::info!(file = %self.file.display(), "exporters reconfigured");
            }
            Err(error) => {
                set.board.count(Operation::Failure);
                tracing::warn!("{error}; the old exporters stay");
            }
        }
    }
}

impl Board {
    fn note_applied(&self, file: &Path) {
        let hash = fs::read(file).map_or(0, |bytes| crc32fast::hash(&bytes).into());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((hash, now));
    }
}

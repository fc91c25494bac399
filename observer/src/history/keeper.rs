//! The keeper: a thread that follows the store and writes.

use super::{
    History, HistoryConfig,
    counters::add,
    draft::Draft,
    files::Files,
    frame::{self, MOST_FLOWS},
};
use crate::{
    store::{Cursor, LossCursor, Lot, Steps, Store},
    trouble::{RETRY, Trouble},
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{runtime::Handle, sync::watch, time::sleep_until};

/// A draft that takes more in memory becomes a piece early.
const MOST_BYTES: usize = 8 << 20;
/// How often the store is looked at while flows come, where they come fast and where they come slowly.
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(50);
/// How often files are looked at for their age.
const LOOK: Duration = Duration::from_secs(10);
/// For so long no file is too old after the wall clock jumped, or was not known to be right.
const DOUBT: Duration = Duration::from_mins(10);
/// What the wall clock may be off by between two looks, without having jumped.
const DRIFT: Duration = Duration::from_secs(5);

/// Writes the history; nothing is written before [`Keeper::start`].
#[derive(Debug)]
pub struct Keeper {
    history: Arc<History>,
    files: Files,
    most_loss: Duration,
    /// Of earlier lives, before anything of this one.
    left: Vec<Draft>,
    draft: Draft,
    /// So many of the draft's flows are on the disk already.
    flushed: usize,
    /// What follows the draft was overwritten: nothing can be added to it.
    is_closed: bool,
    /// Since when there may be something that the disk has not.
    dirty: Option<Instant>,
    age: Age,
    trouble: Option<Trouble>,
}

/// A keeper at work; it ends with [`Running::shutdown`].
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Running {
    /// Has it write what there is; nothing comes to the store any more.
    pub async fn shutdown(self, within: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(within, self.ended).await.is_err() {
            tracing::warn!("the history did not end within {} s and was cut off", within.as_secs());
        }
    }
}

impl Keeper {
    pub(super) fn new(history: Arc<History>, files: Files, config: &HistoryConfig, left: Vec<Draft>) -> Self {
        let mut keeper = Self {
            draft: Draft::new(history.first()),
            history,
            files,
            most_loss: config.most_loss,
            left,
            flushed: 0,
            is_closed: false,
            dirty: None,
            age: Age::new(config.most_age),
            trouble: None,
        };
        // At once, since readers may want it; what fails now is tried again.
        if let Err(error) = keeper.seal_left() {
            keeper.suspend(&error, 0);
        }
        keeper
    }

    /// Follows this store, whose first flow must be [`History::first`], in a thread of its own.
    pub fn start(self, store: Arc<Store>, runtime: Handle) -> io::Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let (tell, ended) = tokio::sync::oneshot::channel();
        let task = self.task(store, stopped, runtime);
        // Nobody listens any more only where the daemon ends already.
        let work = move || {
            task.run();
            let _ = tell.send(());
        };
        std::thread::Builder::new().name("history".to_owned()).spawn(work)?;
        Ok(Running { stop, ended })
    }

    fn task(self, store: Arc<Store>, stopped: watch::Receiver<bool>, runtime: Handle) -> Task {
        Task {
            wanted: self.history.wanted.subscribe(),
            reported: store.losses(),
            cursor: Cursor::new(Arc::clone(&store), self.history.first()),
            keeper: self,
            stopped,
            store,
            runtime,
        }
    }

    /// As [`Keeper::start`], in this thread.
    #[cfg(feature = "bench")]
    pub fn here(self, store: Arc<Store>, runtime: Handle) -> Here {
        Here(self.task(store, watch::channel(true).1, runtime))
    }

    fn is_full(&self) -> bool {
        self.is_closed || self.draft.len() > MOST_FLOWS - Lot::MOST || self.draft.bytes() >= MOST_BYTES
    }

    fn take(&mut self, lot: &Lot<'_>) {
        if self.draft.len() == 0 && self.draft.base() != lot.first() {
            self.draft = Draft::new(lot.first());
        }
        lot.flows().for_each(|stored| self.draft.push(&stored.flow()));
        add(&self.history.counters.taken, lot.count() as u64);
        self.dirty.get_or_insert_with(Instant::now);
    }

    /// Writes what is due: a draft that is full or `wanted` becomes a piece, and the disk gets what it is to have by now.
    fn keep(&mut self, wanted: bool, all: bool) -> io::Result<()> {
        self.seal_left()?;
        if self.draft.len() > 0 && (wanted || all || self.is_full()) {
            self.seal()?;
        }
        if all || self.due().is_some_and(|due| due <= Instant::now()) {
            if self.flushed < self.draft.len() {
                let piece = frame::pack(&self.draft, self.flushed..self.draft.len())?;
                self.files.flush(&piece)?;
                self.flushed = self.draft.len();
                self.count_flushed();
            }
            self.files.sync()?;
            self.dirty = None;
        }
        self.age.remove(&mut self.files);
        Ok(())
    }

    /// Half of what may be lost, since to write takes its time.
    fn due(&self) -> Option<Instant> {
        self.dirty.map(|dirty| dirty + self.most_loss / 2)
    }

    fn seal(&mut self) -> io::Result<()> {
        let piece = frame::pack(&self.draft, 0..self.draft.len())?;
        self.files.append(&piece, now_ns())?;
        self.files.have_pieces();
        let counters = &self.history.counters;
        add(&counters.written, self.draft.len() as u64);
        let end = self.draft.end();
        self.draft = Draft::new(end);
        (self.flushed, self.is_closed) = (0, false);
        self.count_flushed();
        self.history.sealed.send_replace(end);
        Ok(())
    }

    fn seal_left(&mut self) -> io::Result<()> {
        while let Some(first) = self.left.first() {
            let piece = frame::pack(first, 0..first.len())?;
            self.files.append(&piece, now_ns())?;
            self.left.remove(0);
            if self.left.is_empty() {
                self.files.sync()?;
            }
        }
        Ok(())
    }

    fn count_flushed(&self) {
        self.history.counters.flushed.store(self.flushed as u64, Ordering::Relaxed);
    }

    fn suspend(&mut self, error: &io::Error, behind: u64) {
        add(&self.history.counters.failures, 1);
        self.history.counters.suspended.store(true, Ordering::Relaxed);
        if Trouble::again(&mut self.trouble) {
            tracing::warn!(
                "the history cannot be written: {error}; it is tried again and again, and {behind} flows wait in the store"
            );
        }
    }

    fn goes_on(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            self.history.counters.suspended.store(false, Ordering::Relaxed);
            tracing::info!("the history is written again after {:.1} s", trouble.seconds());
        }
    }
}

/// A keeper that works when it is told to.
#[cfg(feature = "bench")]
pub struct Here(Task);

#[cfg(feature = "bench")]
impl Here {
    /// Takes what is in the store, and writes what is due of it.
    pub fn take(&mut self) -> io::Result<()> {
        while !self.0.fill(None) {
            self.0.keeper.keep(false, false)?;
        }
        Ok(())
    }

    /// Writes the rest.
    pub fn end(self) {
        self.0.run();
    }
}

/// A keeper and what it follows.
struct Task {
    keeper: Keeper,
    store: Arc<Store>,
    cursor: Cursor,
    reported: LossCursor,
    wanted: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    runtime: Handle,
}

impl Task {
    fn run(mut self) {
        let mut until = None;
        loop {
            // Without the other end it is to end. Before the look into the store: what was stored before is kept.
            let ends = *self.stopped.borrow_and_update() || self.stopped.has_changed().is_err();
            if ends && until.is_none() {
                until = Some(self.store.head());
            }
            let position = self.cursor.position();
            let is_drained = self.fill(until);
            let wanted = self.is_wanted();
            match self.keeper.keep(wanted, ends && is_drained) {
                Ok(()) => {
                    self.keeper.goes_on();
                    if is_drained && ends {
                        break;
                    }
                    if is_drained {
                        self.wait(self.cursor.position() - position);
                    }
                }
                Err(error) => {
                    let behind = self.store.head() - self.cursor.position();
                    self.keeper.suspend(&error, behind);
                    // Told to end, it does not wait for a disk.
                    if ends {
                        break;
                    }
                    self.pause(Some(RETRY));
                }
            }
        }
        self.close(until);
    }

    /// Takes flows until the draft is full; whether there are no newer ones.
    fn fill(&mut self, until: Option<u64>) -> bool {
        let Self { keeper, cursor, .. } = self;
        loop {
            if keeper.is_full() {
                return false;
            }
            if until.is_some_and(|until| cursor.position() >= until) {
                return true;
            }
            match cursor.steps() {
                Steps::Flows(lot) => keeper.take(&lot),
                Steps::Lost(count) => {
                    add(&keeper.history.counters.overwritten, count);
                    keeper.is_closed = keeper.draft.len() > 0;
                }
                Steps::End => return true,
            }
        }
    }

    /// Whether readers need a piece of the draft: they say so, or the store is about to forget its flows.
    fn is_wanted(&mut self) -> bool {
        let base = self.keeper.draft.base();
        let oldest = self.store.oldest();
        let forgets = oldest > self.keeper.history.first() && oldest + self.store.len() / 8 > base;
        *self.wanted.borrow_and_update() > base || forgets
    }

    fn wait(&mut self, passed: u64) {
        if passed > 0 {
            // Rather many flows at once than a look at each.
            let is_fast = passed > self.store.capacity() / 64;
            return self.pause(Some(if is_fast { FAST } else { SLOW }));
        }
        self.pause(None);
    }

    /// For so long, or else until there is something to do; not longer than until it is to end.
    fn pause(&mut self, time: Option<Duration>) {
        self.cursor.park();
        let now = Instant::now();
        let due = match time {
            Some(time) => now + time,
            None => self.keeper.due().into_iter().fold(now + LOOK, Instant::min),
        };
        let (store, position) = (&self.store, self.cursor.position());
        let (stopped, reported, wanted) = (&mut self.stopped, &mut self.reported, &mut self.wanted);
        self.runtime.block_on(async {
            tokio::select! {
                () = store.changed(position, reported), if time.is_none() => {}
                () = sleep_until(due.into()) => {}
                _ = wanted.changed(), if time.is_none() => {}
                _ = stopped.changed() => {}
            }
        });
        // They are no concern of the history's; unread they would wake it again.
        store.take_losses(reported);
    }

    /// Counts what could not be written.
    fn close(self, until: Option<u64>) {
        let Self { keeper, cursor, .. } = self;
        let counters = &keeper.history.counters;
        let unread = until.map_or(0, |until| until.saturating_sub(cursor.position()));
        let unwritten = (keeper.draft.len() - keeper.flushed) as u64;
        add(&counters.taken, unread);
        add(&counters.unwritten, unread + unwritten);
        if unread + unwritten > 0 {
            tracing::warn!("the history ends with {} flows that were not written", unread + unwritten);
        }
    }
}

/// When files are too old. A wall clock that jumps forward must not have all files vanish.
#[derive(Debug)]
struct Age {
    most: Duration,
    /// The wall clock was right since then, as far as can be told.
    trusted: Instant,
    looked: (Instant, i64),
}

impl Age {
    fn new(most: Duration) -> Self {
        let now = Instant::now();
        Self { most, trusted: now, looked: (now, now_ns()) }
    }

    fn remove(&mut self, files: &mut Files) {
        if self.looked.0.elapsed() >= LOOK
            && let Some(than_ns) = self.look(Instant::now(), now_ns())
        {
            files.remove_older(than_ns);
        }
    }

    /// What is older than this may go.
    fn look(&mut self, now: Instant, wall_ns: i64) -> Option<i64> {
        let (then, wall_then) = std::mem::replace(&mut self.looked, (now, wall_ns));
        let passed = i64::try_from((now - then).as_nanos()).unwrap_or(i64::MAX);
        let off = wall_ns.saturating_sub(wall_then).saturating_sub(passed).unsigned_abs();
        if u128::from(off) > DRIFT.as_nanos() {
            self.trusted = now;
        }
        let most = i64::try_from(self.most.as_nanos()).unwrap_or(i64::MAX);
        (now - self.trusted >= DOUBT).then(|| wall_ns.saturating_sub(most))
    }
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_makes_no_file_too_old() {
        const HOUR: i64 = 3_600_000_000_000;
        let mut age = Age::new(Duration::from_hours(1));
        let (began, wall) = age.looked;
        let mut look = |minutes: u64, off: i64| {
            let passed = Duration::from_mins(minutes);
            age.look(began + passed, wall + passed.as_nanos() as i64 + off).map(|than| than - wall - off)
        };
        let minute = HOUR / 60;
        assert_eq!(look(1, 0), None);
        assert_eq!(look(10, 0), Some(-50 * minute));
        // A year ahead, and back again.
        assert_eq!(look(11, 8760 * HOUR), None);
        assert_eq!(look(20, 8760 * HOUR), None);
        assert_eq!(look(20, 0), None);
        assert_eq!(look(29, 0), None);
        assert_eq!(look(31, 0), Some(-29 * minute));
    }
}

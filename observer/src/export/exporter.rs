//! One exporter: a thread that follows the store and writes lines.
//!
//! What waits for the disk or the Collector are the lines of some hundred flows, [`CHUNK`], and behind them the store's own flows, until they
//! are overwritten: those are counted as lost, and a line says so.

use super::{
    config::Exporter,
    counters::{Counters, add},
    lines::{Lines, Pending},
    sink::Sink,
};
use crate::{
    serve::{LostEvents, NodeInfo, now_ns, query::Selector, view::NodeView},
    store::{Cursor, LossCursor, Lot, Steps, Store},
    trouble::Trouble,
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::watch, time::sleep_until};

/// What is written at once.
const CHUNK: usize = 128 << 10;
/// How often the store is looked at while flows come, where they come fast and where they come slowly.
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(50);

/// What an exporter is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orders {
    /// Write what there is, and end.
    pub(super) end: bool,
    /// So many times the file was to be opened again.
    pub(super) reopened: u64,
}

/// What exporters have in common.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) store: Arc<Store>,
    pub(super) node: NodeInfo,
    pub(super) runtime: Handle,
}

/// An exporter at work.
pub(super) struct Task {
    name: String,
    end: Option<i64>,
    cursor: Cursor,
    selector: Selector,
    reported: LossCursor,
    lost: LostEvents,
    lines: Lines,
    out: Pending,
    sink: Sink,
    /// The disk, or the Collector, takes nothing.
    trouble: Option<Trouble>,
    counters: Arc<Counters>,
    orders: watch::Receiver<Orders>,
    reopened: u64,
    around: Around,
}

/// Why there is nothing more to write for now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// A chunk is full.
    Full,
    /// There is no newer flow.
    Drained,
}

impl Task {
    /// From this flow of the store on. Nothing where lines can't be made, see [`Lines::new`].
    pub(super) fn new(
        exporter: &Exporter,
        from: u64,
        counters: Arc<Counters>,
        orders: watch::Receiver<Orders>,
        around: Around,
    ) -> Option<Self> {
        let node = NodeView::from(&around.node);
        let reopened = orders.borrow().reopened;
        Some(Self {
            name: exporter.name.clone(),
            end: exporter.end,
            cursor: Cursor::new(Arc::clone(&around.store), from),
            selector: Selector::new(exporter.selection.filters().matcher(), node),
            reported: around.store.losses(),
            lost: LostEvents::default(),
            lines: Lines::new(exporter, &around.node, Arc::clone(&counters))?,
            out: Pending::default(),
            sink: Sink::new(exporter, Arc::clone(&counters), orders.clone(), &around),
            trouble: None,
            reopened,
            counters,
            orders,
            around,
        })
    }

    /// Exports until it is told to end, or until the exporter's own end; the number of the next flow.
    pub(super) fn run(mut self) -> u64 {
        let mut until = None;
        loop {
            // Before the look into the store: what was stored before the end is exported.
            let orders = self.orders();
            if orders.reopened != self.reopened {
                self.reopened = orders.reopened;
                self.sink.reopen(&mut self.out);
            }
            let is_over = orders.end || self.end.is_some_and(|end| now_ns() > end);
            if is_over && until.is_none() {
                until = Some(self.around.store.head());
            }
            let position = self.cursor.position();
            let filled = self.fill(until);
            let ends = is_over && filled == Filled::Drained;
            self.tell(ends);
            let is_written = self.write();
            // Told to end, it does not wait for a disk.
            if (ends && is_written) || (orders.end && !is_written) {
                break;
            }
            if !is_written {
                let failures = self.trouble.as_ref().map_or(1, Trouble::failures);
                self.pause(Some(self.sink.retry(failures)));
            } else if filled == Filled::Drained {
                self.wait(self.cursor.position() - position);
            }
        }
        self.close(until);
        self.cursor.position()
    }

    /// Without the other end it is to end.
    fn orders(&mut self) -> Orders {
        let is_alone = self.orders.has_changed().is_err();
        let orders = *self.orders.borrow_and_update();
        Orders { end: orders.end || is_alone, ..orders }
    }

    fn fill(&mut self, until: Option<u64>) -> Filled {
        let Self { cursor, selector, lines, out, lost, counters, end, .. } = self;
        while out.bytes.len() < CHUNK {
            if until.is_some_and(|until| cursor.position() >= until) {
                return Filled::Drained;
            }
            match cursor.steps() {
                Steps::Flows(lot) => take(&lot, selector.select(&lot), *end, lines, out, counters),
                Steps::Lost(count) => {
                    add(&counters.overwritten, count);
                    lost.add_overwritten(count, now_ns());
                    // Before the flows that follow the gap, if it may be told now.
                    lines.lost(out, lost, false);
                }
                Steps::End => return Filled::Drained,
            }
        }
        Filled::Full
    }

    /// Losses and sums that are due, or all.
    fn tell(&mut self, all: bool) {
        self.lost.add_reported(&self.around.store.take_losses(&mut self.reported));
        self.lines.lost(&mut self.out, &mut self.lost, all);
        if all || self.lines.due().is_some_and(|due| due <= Instant::now()) {
            self.lines.end_groups(&mut self.out);
        }
    }

    /// Whether all that is pending is written.
    fn write(&mut self) -> bool {
        if self.out.bytes.is_empty() {
            return true;
        }
        self.sink.look(&mut self.out);
        match self.sink.write(&mut self.out) {
            Ok(()) => {
                add(&self.counters.written, std::mem::take(&mut self.out.flows));
                add(&self.counters.sums, std::mem::take(&mut self.out.sums));
                if let Some(trouble) = self.trouble.take() {
                    self.counters.suspended.store(false, Ordering::Relaxed);
                    tracing::info!(exporter = self.name, "writes again after {:.1} s", trouble.seconds());
                }
                true
            }
            Err(error) => {
                self.suspend(&error);
                false
            }
        }
    }

    fn suspend(&mut self, error: &io::Error) {
        add(&self.counters.failures, 1);
        self.counters.suspended.store(true, Ordering::Relaxed);
        // A file that can't be written may have been replaced.
        self.sink.close(&mut self.out);
        if Trouble::again(&mut self.trouble) {
            let behind = self.around.store.head() - self.cursor.position();
            tracing::warn!(
                exporter = self.name,
                "cannot write: {error}; it is tried again and again, and {behind} flows wait in the store"
            );
        }
    }

    /// Until flows come, losses or sums are due, or there are orders; `passed` flows came since the last wait.
    fn wait(&mut self, passed: u64) {
        if passed > 0 {
            // Rather many flows at once than a look at each.
            let is_fast = passed > self.around.store.capacity() / 64;
            return self.pause(Some(if is_fast { FAST } else { SLOW }));
        }
        self.pause(None);
    }

    /// For so long, or else until there is something to do; not longer than until there are orders.
    fn pause(&mut self, time: Option<Duration>) {
        self.cursor.park();
        let (position, store) = (self.cursor.position(), &self.around.store);
        let now = tokio::time::Instant::now();
        let clock = self.end.map(|end| {
            let left = u64::try_from(end.saturating_sub(now_ns())).unwrap_or(0);
            // A wall clock that is set forward is seen within a minute.
            now + Duration::from_nanos(left).min(Duration::from_mins(1)) + Duration::from_millis(1)
        });
        let due = match time {
            Some(time) => Some(now + time),
            None => [self.lost.due(), self.lines.due().map(Into::into), clock].into_iter().flatten().min(),
        };
        let (orders, reported) = (&mut self.orders, &self.reported);
        self.around.runtime.block_on(async {
            tokio::select! {
                () = store.changed(position, reported), if time.is_none() => {}
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
                _ = orders.changed() => {}
            }
        });
    }

    /// Counts what could not be written, and brings the rest to the disk.
    fn close(&mut self, until: Option<u64>) {
        let left = until.map_or(0, |until| until.saturating_sub(self.cursor.position()));
        let unwritten = std::mem::take(&mut self.out.flows);
        if left + unwritten > 0 {
            // What was not looked at is lost as what is overwritten is.
            add(&self.counters.overwritten, left);
            add(&self.counters.unwritten, unwritten);
            self.cursor.skip_to(until.unwrap_or(0));
            tracing::warn!(
                exporter = self.name,
                "ends with {} flows that were not written",
                left + unwritten
            );
        }
        if let Err(error) = self.sink.sync() {
            tracing::warn!(exporter = self.name, "cannot bring the file to the disk: {error}");
        }
        self.counters.active.store(false, Ordering::Relaxed);
    }
}

fn take(
    lot: &Lot<'_>,
    selected: u64,
    end: Option<i64>,
    lines: &mut Lines,
    out: &mut Pending,
    counters: &Counters,
) {
    let mut taken = 0;
    let mut left = selected;
    while left != 0 {
        let place = left.trailing_zeros();
        left &= left - 1;
        let stored = lot.get(place as usize);
        if end.is_none_or(|end| stored.record().time_ns <= end) {
            lines.flow(out, stored.sequence, &stored.flow());
            taken += 1;
        }
    }
    add(&counters.filtered, lot.count() as u64 - taken);
    add(&counters.taken, taken);
}

//! The metrics of flows, counted by a task that follows the store; the event path does nothing for it.

use super::{
    page::Page,
    plugin::{Plugin, Wanted},
    series::{Pods, Room},
};
use crate::{
    enrich::ipcache::IpCache,
    serve::view::NodeView,
    store::{Cursor, LossCursor, LossSource, Steps, Store},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Flows examined before others get the lock and the thread.
const CHUNK: u64 = 2048;
/// How often the store is looked at while flows come, where they come fast and where they come slowly.
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(50);
/// How often to look for pods that are gone. Their series go at the second look that finds them so, within a minute.
const SWEEP: Duration = Duration::from_secs(15);

/// What is counted.
pub(super) struct Flows {
    state: Mutex<State>,
    node: NodeView,
}

struct State {
    plugins: Vec<Plugin>,
    room: Room,
    /// Lost in the kernel's rings, between stages, and overwritten before they were counted.
    lost: [u64; 3],
    /// Pods that were gone at the last look.
    gone: Pods,
}

impl Flows {
    pub(super) fn new(wanted: Vec<Wanted>, most_series: usize, node: NodeView) -> Self {
        let state =
            State { plugins: Vec::new(), room: Room::new(most_series), lost: [0; 3], gone: Pods::default() };
        let flows = Self { state: Mutex::new(state), node };
        flows.become_these(wanted);
        flows
    }

    /// Has these measured; what is wanted as before goes on counting.
    pub(super) fn become_these(&self, wanted: Vec<Wanted>) {
        let mut state = self.state();
        let State { plugins, room, .. } = &mut *state;
        let mut old = std::mem::take(plugins);
        for wanted in wanted {
            let same = old.iter().position(|plugin| *plugin.wanted() == wanted);
            plugins.push(match same {
                Some(place) => old.swap_remove(place),
                None => Plugin::new(wanted, self.node.clone()),
            });
        }
        for table in old.iter_mut().flat_map(Plugin::tables_mut) {
            table.clear(room);
        }
    }

    /// Follows the store from its oldest flow on, until `ending` is true.
    pub(super) async fn follow(
        self: Arc<Self>,
        store: Arc<Store>,
        names: Arc<IpCache>,
        mut losses: LossCursor,
        mut ending: watch::Receiver<bool>,
    ) {
        let mut cursor = Cursor::new(Arc::clone(&store), store.oldest());
        let mut swept = Instant::now();
        loop {
            let mut examined = 0;
            loop {
                let (count, is_end) = self.count(&mut cursor);
                examined += count;
                if is_end {
                    break;
                }
                tokio::task::yield_now().await;
            }
            cursor.park();
            for loss in store.take_losses(&mut losses) {
                let place = usize::from(loss.source == LossSource::Queue);
                self.state().lost[place] += loss.count;
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.forget_pods(&names);
            }
            let pause = if examined > store.capacity() / 64 { FAST } else { SLOW };
            let next = cursor.position();
            tokio::select! {
                () = tokio::time::sleep(pause), if examined > 0 => {}
                () = store.changed(next, &losses), if examined == 0 => {}
                () = tokio::time::sleep(SWEEP) => {}
                _ = ending.wait_for(|down| *down) => return,
            }
        }
    }

    /// Counts some thousand flows at most: how many, and whether there is nothing newer yet.
    pub(super) fn count(&self, cursor: &mut Cursor) -> (u64, bool) {
        let mut state = self.state();
        let State { plugins, room, lost, .. } = &mut *state;
        let mut count = 0;
        while count < CHUNK {
            match cursor.steps() {
                Steps::Flows(lot) => {
                    count += lot.count() as u64;
                    for plugin in &mut *plugins {
                        plugin.examine(&lot, room);
                    }
                }
                Steps::Lost(overwritten) => lost[2] += overwritten,
                Steps::End => return (count, true),
            }
        }
        (count, false)
    }

    /// Takes out the series of pods that were gone at the last look and still are.
    pub(super) fn forget_pods(&self, names: &IpCache) {
        let mut told = Pods::default();
        for table in self.state().plugins.iter().flat_map(Plugin::tables) {
            table.add_pods(&mut told);
        }
        if told.is_empty() {
            return;
        }
        names.take_out_known(&mut told);
        let mut state = self.state();
        let State { plugins, room, gone, .. } = &mut *state;
        for (namespace, names) in gone.iter_mut() {
            names.retain(|name| told.get(namespace).is_some_and(|names| names.contains(name)));
        }
        for table in plugins.iter_mut().flat_map(Plugin::tables_mut) {
            table.forget(gone, room);
        }
        *gone = told;
    }

    /// What was counted.
    pub(super) fn write(&self, page: &mut Page) {
        let state = self.state();
        for table in state.plugins.iter().flat_map(Plugin::tables) {
            table.write(page);
        }
        page.counter("hubble_lost_events_total", "Events lost, by where.");
        let sources = ["perf_event_ring_buffer", "observer_events_queue", "hubble_ring_buffer"];
        for (source, lost) in sources.into_iter().zip(state.lost) {
            page.sample(&[("source", source)], lost);
        }
        page.gauge("observer_metrics_series", "Series of flows.");
        page.sample(&[], state.room.taken);
        page.gauge("observer_metrics_series_limit", "Series of flows that there may be.");
        page.sample(&[], state.room.most);
        page.counter(
            "observer_metrics_flows_folded_total",
            "Times that a flow was counted in the series `other`, as there was no room for one of its own.",
        );
        page.sample(&[], state.room.folded);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

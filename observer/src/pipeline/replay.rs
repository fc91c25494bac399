//! Inputs of a recording: in the order, and if asked in the time, in which they were recorded.

use super::{Resolve, Shared, Stages, live::is_readable};
use crate::{
    capture::{LinkTable, kernel::symbols},
    enrich::{ipcache::IpCache, source::Stop},
    policy::Updater,
    recording::{Cut, Head, Input, Reader, RecordingError},
    store::{Store, StoreConfig, Writer},
};
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use observer_ebpf::Header;
use std::{
    borrow::Cow,
    cell::RefCell,
    io::Read,
    os::fd::AsFd as _,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use zerocopy::FromBytes as _;

/// Names of addresses that are kept; as many places as [`crate::decode::DropSites`] shares.
const MOST_SYMBOLS: usize = 8192;

/// What was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Records of the kernel.
    pub events: u64,
    /// Flows that became of them.
    pub flows: u64,
    /// Where the recording was cut.
    pub cut: Option<Cut>,
}

/// The links as the recording has them now, for status.
pub(crate) type ReplayedLinks = Arc<ArcSwap<LinkTable>>;

/// A recording and where it is played into.
pub(crate) struct Replay<R> {
    reader: Reader<R>,
    cache: Arc<IpCache>,
    links: ReplayedLinks,
    /// How many times as fast as it was recorded; nothing: as fast as can be.
    speed: Option<f64>,
    /// Takes in the names as they are at each input, so that all is judged as it would be again.
    policies: Option<Arc<Mutex<Updater>>>,
}

impl<R: Read> Replay<R> {
    /// Ready to run.
    pub(crate) fn new(
        reader: Reader<R>,
        cache: Arc<IpCache>,
        links: ReplayedLinks,
        speed: Option<f64>,
        policies: Option<Arc<Mutex<Updater>>>,
    ) -> Self {
        Self { reader, cache, links, speed, policies }
    }

    /// Plays it to its end, or until `stop` is set. Names must come from nowhere else.
    pub(crate) fn run(mut self, writer: Writer, shared: Shared, stop: &Stop) -> Played {
        let counters = Arc::clone(&shared.counters);
        let known = Known::default();
        let head = self.reader.head().clone();
        let mut stages = Stages::new(&head, known.resolve(), Arc::clone(&self.cache), writer, shared, None);
        let mut pace = Pace::new(self.speed);
        let mut resolved = self.cache.resolved().generation();
        let cut = loop {
            match self.reader.next() {
                Ok(Some(Input::Names(change))) => {
                    self.cache.apply(change.into_owned());
                    if let Some(policies) = &self.policies {
                        policies.lock().unwrap_or_else(PoisonError::into_inner).follow_names();
                    }
                }
                Ok(Some(Input::Symbol(address, name))) => known.learn(address, name),
                Ok(Some(input)) => {
                    if pace.wait(&input, stop) {
                        break None;
                    }
                    stages.take(&input);
                    // What DNS told counts for what comes after it.
                    let generation = self.cache.resolved().generation();
                    if generation != resolved
                        && let Some(policies) = &self.policies
                    {
                        resolved = generation;
                        policies.lock().unwrap_or_else(PoisonError::into_inner).follow_names();
                    }
                    if let Input::Links(links) = input {
                        self.links.store(Arc::new(links.into_owned()));
                    }
                }
                Ok(None) => break None,
                Err(cut) => break Some(cut),
            }
        };
        // Of a recording that was cut something may wait still.
        stages.take(&Input::End);
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Played { events: read(&counters.records), flows: read(&counters.stored), cut }
    }
}

/// When an input is due.
struct Pace {
    speed: Option<f64>,
    /// When the first input was played that has a time, and its time.
    began: Option<(Instant, u64)>,
}

impl Pace {
    fn new(speed: Option<f64>) -> Self {
        Self { speed, began: None }
    }

    /// Waits until an input is due; whether it is time to stop.
    fn wait(&mut self, input: &Input<'_>, stop: &Stop) -> bool {
        let time_ns = match (input, self.speed) {
            (Input::Batch(now_ns), _) => *now_ns,
            // Not with their batch, of which they would be taken and not told while it is waited for.
            (Input::Record(record) | Input::Swept(record), Some(_)) => match Header::read_from_prefix(record)
            {
                Ok((header, _)) => header.time_ns,
                Err(_) => return false,
            },
            _ => return false,
        };
        while let Some(left) = self.left(time_ns) {
            if stop.wait(None, left.min(Duration::from_hours(1))) {
                return true;
            }
        }
        matches!(input, Input::Batch(_)) && is_readable(stop.as_fd())
    }

    fn left(&mut self, time_ns: u64) -> Option<Duration> {
        let speed = self.speed?;
        let (began, first_ns) = *self.began.get_or_insert_with(|| (Instant::now(), time_ns));
        let seconds = Duration::from_nanos(time_ns.saturating_sub(first_ns)).as_secs_f64() / speed;
        // A time that no clock reaches is waited for until the end.
        let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        due.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
    }
}

/// Names of addresses, as the recording tells them.
#[derive(Clone, Debug, Default)]
struct Known(Rc<RefCell<HashMap<u64, Result<String, &'static str>>>>);

impl Known {
    fn learn(&self, address: u64, name: Result<Cow<'_, str>, Cow<'_, str>>) {
        let mut known = self.0.borrow_mut();
        if known.len() < MOST_SYMBOLS || known.contains_key(&address) {
            let name = name.map(Cow::into_owned).map_err(|why| {
                symbols::REASONS.into_iter().find(|reason| *reason == why).unwrap_or("not recorded")
            });
            known.insert(address, name);
        }
    }

    fn resolve(&self) -> Resolve {
        let known = self.clone();
        Box::new(move |address| known.0.borrow().get(&address).cloned().unwrap_or(Err("not recorded")))
    }
}

/// Plays a recording into a store as fast as can be, for tests, fuzzing and benchmarks. Any bytes may come in.
///
/// # Errors
///
/// What is wrong with the recording, or an event for stopping could not be made.
pub fn replay_bytes(bytes: &[u8], store: StoreConfig) -> Result<(Arc<Store>, Head, Played), RecordingError> {
    let reader = Reader::open(bytes)?;
    let head = reader.head().clone();
    let cache = Arc::new(IpCache::new(head.node.clone()));
    let (store, writer) = Store::new(store);
    let stop = Stop::new().map_err(std::io::Error::from)?;
    let played = Replay::new(reader, cache, ReplayedLinks::default(), None, None).run(
        writer,
        Shared::default(),
        &stop,
    );
    Ok((store, head, played))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        enrich::source::{Change, Pod, Rank, Window},
        recording::Recorder,
        store::{Cursor, Step},
    };
    use observer_ebpf::{ABI_VERSION, FlowRecord, Tuple, flow_reason, hook, kind, link_kind, parse::mapped};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    const SECOND: u64 = 1_000_000_000;
    const POD: [u8; 4] = [10, 0, 0, 1];

    /// A recording of these inputs, on a kernel whose clock began at unix time 1,000 s.
    fn recording(inputs: &[Input<'_>]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recording");
        let recorder = Recorder::create(&file).unwrap();
        recorder.begin(&Head { offset_ns: 1_000_000_000_000, ..Head::default() });
        for input in inputs {
            recorder.keep(input);
        }
        recorder.finish().unwrap();
        std::fs::read(file).unwrap()
    }

    #[test]
    fn losses_and_clocks_are_played_too() {
        let store = StoreConfig { flows: 1024, bytes: 1 << 20 };
        let second = 1_000_000_000;
        let inputs = [
            Input::Lost(5, second / 2, 3 * second),
            Input::Clock(4 * second, 2_000_000_000_000),
            Input::Lost(7, 3 * second, 10 * second),
            Input::Record(b"unreadable"),
            Input::Batch(11 * second),
            Input::End,
        ];
        let before = Store::new(store).0.losses();
        let (store, _, played) = replay_bytes(&recording(&inputs), store).unwrap();
        assert_eq!(played, Played { events: 1, flows: 0, cut: None });
        let losses = store.take_losses(&mut before.clone());
        let [loss] = losses[..] else { panic!("{losses:?}") };
        let unix = |seconds: i64| seconds * 1_000_000_000;
        assert_eq!((loss.count, loss.first, loss.last), (12, unix(1000) + unix(1) / 2, unix(2010)));
    }

    #[test]
    fn the_first_of_what_was_lost_is_never_after_the_last() {
        let store = StoreConfig { flows: 1024, bytes: 1 << 20 };
        let inputs = [Input::Clock(20 * SECOND, 0), Input::Lost(1, 19 * SECOND, 21 * SECOND), Input::End];
        let mut before = Store::new(store).0.losses();
        let (store, ..) = replay_bytes(&recording(&inputs), store).unwrap();
        let [loss] = store.take_losses(&mut before)[..] else { panic!("one loss") };
        assert_eq!((loss.first, loss.last), (21_000_000_000, 21_000_000_000));
    }

    /// A packet from the pod's link, at this second of the kernel's clock.
    fn packet(second: u64) -> FlowRecord {
        let time_ns = second * SECOND;
        let size = size_of::<FlowRecord>() as u16;
        FlowRecord {
            header: Header { kind: kind::FLOW, version: ABI_VERSION, size, cpu: 0, time_ns },
            tuple: Tuple {
                source: mapped(POD),
                destination: mapped([192, 0, 2, 1]),
                source_port: second as u16,
                destination_port: 80,
                protocol: 6,
                ip_version: 4,
                ..Tuple::default()
            },
            hook: hook::INGRESS,
            link_kind: link_kind::POD,
            reason: flow_reason::NEW,
            first_ns: time_ns,
            packets: 1,
            ..FlowRecord::new_zeroed()
        }
    }

    /// A pod that has the address from this second on.
    fn owner(name: &str, second: u64) -> Change {
        let pod = Pod { uid: name.into(), name: name.into(), ips: vec![POD.into()], ..Pod::default() };
        Change::Pod(Rank::Kubernetes, pod, Window::exact(second * SECOND))
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_no_name() {
        for jump in [0, 3600, -5, -3600, -1_000_000] {
            let told: [(Option<Change>, u64); 5] = [
                (Some(owner("first", 1)), 5),
                (Some(owner("second", 10)), 15),
                (None, 25),
                (Some(owner("third", 30)), 35),
                // One that comes late.
                (None, 16),
            ];
            let records = told.each_ref().map(|(_, second)| packet(*second));
            let mut inputs = Vec::new();
            for ((change, second), record) in told.iter().zip(&records) {
                if *second == 25 {
                    inputs.push(Input::Clock(20 * SECOND, (1000 + jump) * SECOND as i64));
                }
                inputs.extend(change.iter().map(|change| Input::Names(Cow::Borrowed(change))));
                inputs.extend([Input::Record(record.as_bytes()), Input::Batch((second + 1) * SECOND)]);
            }
            inputs.push(Input::End);
            let store = StoreConfig { flows: 1024, bytes: 1 << 20 };
            let (store, ..) = replay_bytes(&recording(&inputs), store).unwrap();
            let mut flows = Cursor::new(Arc::clone(&store), 0);
            let mut names = Vec::new();
            while let Step::Flow(stored) = flows.step() {
                names.push((u64::from(stored.record().source_port), stored.source().pod_name.to_string()));
            }
            let wanted = [(5, "first"), (15, "second"), (25, "second"), (35, "third"), (16, "second")];
            assert_eq!(names, wanted.map(|(second, name)| (second, name.to_owned())), "{jump} s");
        }
    }

    #[test]
    fn a_batch_is_due_in_the_time_that_was_asked_for() {
        let mut pace = Pace::new(Some(2.0));
        assert_eq!(pace.left(5), None, "the first is due at once");
        let left = pace.left(5 + 1_000_000_000_000).unwrap();
        assert!(left <= Duration::from_secs(500) && left > Duration::from_secs(400), "{left:?}");
        assert_eq!(pace.left(5), None, "what is late is due at once");
        assert_eq!(Pace::new(None).left(u64::MAX), None);
    }
}

//! What requests select where a part of the flows is on the disk only, against a plain list.

use crate::{
    endpoint::Endpoint,
    flow::{Record, Sample},
    history::{History, HistoryConfig, Running},
    serve::{
        query::{Item, Query, Reader, Selector},
        view::NodeView,
    },
    store::{Store, StoreConfig, Writer},
};
use observer_proto::filter::{Filters, parse};
use proptest::prelude::*;
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Segments of four flows.
const KEPT: usize = 64;

struct Life {
    runtime: Runtime,
    history: Arc<History>,
    store: Arc<Store>,
    writer: Writer,
    running: Running,
}

/// What a request is to give: a flow's number is its second; every third is of the pod `rare-0`.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    first: bool,
    since: Option<i64>,
    until: Option<i64>,
    rare: bool,
}

impl Life {
    fn begin(folder: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = HistoryConfig {
            folder: folder.to_owned(),
            most_bytes: 1 << 30,
            most_age: Duration::from_hours(1),
            most_loss: Duration::from_millis(10),
        };
        let (history, keeper) = History::open(&config).unwrap();
        let kept = StoreConfig { flows: KEPT, ..StoreConfig::default() };
        let (store, writer) = Store::starting_at(history.first(), kept);
        let running = keeper.start(Arc::clone(&store), runtime.handle().clone()).unwrap();
        Self { runtime, history, store, writer, running }
    }

    /// None of which is overwritten before the keeper has it.
    fn push(&mut self, flows: impl IntoIterator<Item = i64>) {
        for second in flows {
            self.writer.push(&flow(second).flow());
            self.writer.publish();
            let taken = || {
                let counts = self.history.counts();
                counts.written + counts.waiting
            };
            while taken() + 16 < self.store.seen() {
                std::thread::yield_now();
            }
        }
    }

    fn end(self) {
        self.runtime.block_on(self.running.shutdown(Duration::from_mins(1)));
    }

    fn reader(&self, asked: Asked, follow: bool) -> Reader {
        let flags: &[_] = if asked.rare { &[("pod", "shop/rare-0")] } else { &[] };
        let lists = parse(flags.iter().copied()).unwrap();
        let matcher = Filters::compile(&lists.whitelist, &lists.blacklist).unwrap().matcher();
        let Asked { number, first, since, until, .. } = asked;
        let filter = Selector::new(matcher, NodeView::default());
        let query = Query { number, first, follow, since, until, filter };
        Reader::new(query, &self.store, Some(&self.history))
    }

    /// Seconds of the flows that come, until there is nothing more for now.
    fn read(&self, reader: &mut Reader) -> Vec<i64> {
        let mut seconds = Vec::new();
        loop {
            match reader.next(|_, flow| seconds.push(flow.time_ns / SECOND)) {
                Item::Flow | Item::Skipped => {}
                Item::Past => self.runtime.block_on(reader.load()).unwrap(),
                Item::Lost(count) => panic!("{count} lost"),
                Item::Pause | Item::Done => return seconds,
            }
        }
    }
}

const SECOND: i64 = 1_000_000_000;

fn is_rare(second: i64) -> bool {
    second % 3 == 0
}

fn flow(second: i64) -> Sample {
    let name = if is_rare(second) { "rare-0".to_owned() } else { format!("web-{}", second % 7) };
    let end = Endpoint { namespace: "shop".into(), pod_name: name.into(), ..Endpoint::default() };
    Sample { source: Arc::new(end), ..Sample::from(Record { time_ns: second * SECOND, ..Record::default() }) }
}

fn wanted(all: i64, asked: Asked) -> Vec<i64> {
    let Asked { number, first, since, until, rare } = asked;
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let passing: Vec<i64> = (0..all).filter(|second| !rare || is_rare(*second)).collect();
    let is_within = |second: &i64| {
        since.is_none_or(|since| *second * SECOND >= since)
            && until.is_none_or(|until| *second * SECOND <= until)
    };
    if since.is_some() || first || number == 0 {
        let most = if number == 0 { usize::MAX } else { number };
        return passing.into_iter().filter(is_within).take(most).collect();
    }
    // Counted from the newest, whatever `until` says.
    let begin = passing.len().saturating_sub(number);
    passing[begin..].iter().copied().filter(is_within).collect()
}

fn any_asked(most: i64) -> impl Strategy<Value = Asked> {
    let number = prop_oneof![Just(0), 1..100_u64, Just(u64::MAX)];
    let time = || prop::option::of((-5..most + 5).prop_map(|second| second * SECOND));
    (number, any::<bool>(), time(), time(), any::<bool>())
        .prop_map(|(number, first, since, until, rare)| Asked { number, first, since, until, rare })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_request_finds_what_a_list_of_all_flows_has(
        lives in prop::collection::vec(0..250_i64, 1..4),
        all_asked in prop::collection::vec(any_asked(500), 1..12),
    ) {
        let folder = TempDir::new().unwrap();
        let mut pushed = 0;
        for (place, count) in lives.iter().enumerate() {
            let mut life = Life::begin(folder.path());
            life.push(pushed..pushed + count);
            pushed += count;
            if place + 1 == lives.len() {
                for asked in &all_asked {
                    let found = life.read(&mut life.reader(*asked, false));
                    prop_assert_eq!(&found, &wanted(pushed, *asked), "{:?} of {}", asked, pushed);
                }
            }
            life.end();
        }
    }
}

const ALL: Asked = Asked { number: 0, first: false, since: None, until: None, rare: false };

#[test]
fn a_follower_goes_from_the_disk_to_the_store_and_back_where_it_is_slow() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(folder.path());
    life.push(0..300);
    let mut reader = life.reader(Asked { since: Some(10 * SECOND), ..ALL }, true);
    assert_eq!(life.read(&mut reader), (10..300).collect::<Vec<_>>());
    // What it did not read in time it finds on the disk.
    life.push(300..900);
    assert_eq!(life.read(&mut reader), (300..900).collect::<Vec<_>>());
    // From now on, likewise.
    let mut reader = life.reader(ALL, true);
    life.push(900..1300);
    assert_eq!(life.read(&mut reader), (900..1300).collect::<Vec<_>>());
    life.end();
}

#[test]
fn what_is_on_no_disk_is_told_as_lost() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(folder.path());
    life.push(0..200);
    life.runtime.block_on(life.history.seal(200));
    // At once: more than the store has room for, so that the keeper can't have all of them.
    for second in 200..2000 {
        life.writer.add(&flow(second).flow());
    }
    life.writer.publish();
    let mut reader = life.reader(ALL, false);
    let (mut given, mut lost) = (Vec::new(), 0);
    loop {
        match reader.next(|_, flow| given.push(flow.time_ns / SECOND)) {
            Item::Flow | Item::Skipped => {}
            Item::Past => life.runtime.block_on(reader.load()).unwrap(),
            Item::Lost(count) => lost += count,
            Item::Pause => panic!("it does not follow"),
            Item::Done => break,
        }
    }
    assert!(given.is_sorted() && given.starts_with(&(0..200).collect::<Vec<_>>()), "{given:?}");
    assert_eq!(given.last(), Some(&1999));
    assert!(lost > 0);
    assert_eq!(given.len() as u64 + lost, 2000);
    life.end();
}

#[test]
fn pieces_in_memory_are_as_many_as_there_are_places() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(folder.path());
    life.push(0..300);
    let mut readers: Vec<_> = (0..33).map(|_| life.reader(ALL, false)).collect();
    let loaded: Vec<_> =
        readers.iter_mut().map(|reader| life.runtime.block_on(reader.load()).is_ok()).collect();
    assert_eq!(loaded.iter().filter(|is_loaded| **is_loaded).count(), 32);
    assert!(!loaded[32]);
    // Who is done makes room.
    assert_eq!(life.read(&mut readers[0]).len(), 300);
    assert!(life.runtime.block_on(readers[32].load()).is_ok());
    drop(readers);
    life.end();
}

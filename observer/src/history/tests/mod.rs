//! Histories in folders of their own, read as readers do it.

mod codec;
mod killed;
mod torn;

use super::{Counts, History, HistoryConfig, HistoryError, KnownEnds, Running};
use crate::{
    endpoint::Endpoint,
    flow::{Record, Sample},
    store::{Cursor, Step, Store, StoreConfig, Writer},
};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
const SECOND: i64 = 1_000_000_000;

fn config(folder: &Path) -> HistoryConfig {
    HistoryConfig {
        folder: folder.to_owned(),
        most_bytes: 1 << 30,
        most_age: Duration::from_hours(1),
        most_loss: Duration::from_millis(20),
    }
}

/// A flow that is told from others by its packets; a second after the one before.
fn numbered(number: u64) -> Sample {
    let end = |name: String| {
        Arc::new(Endpoint { pod_name: name.into(), namespace: "shop".into(), ..Endpoint::default() })
    };
    Sample {
        source: end(format!("web-{}", number % 3)),
        destination: end("db-0".to_owned()),
        ..Sample::from(Record { time_ns: number as i64 * SECOND, packets: number, ..Record::default() })
    }
}

/// A daemon's life, as far as the history goes.
struct Life {
    runtime: Runtime,
    history: Arc<History>,
    store: Arc<Store>,
    writer: Writer,
    running: Option<Running>,
}

impl Life {
    fn begin(config: &HistoryConfig, flows: usize) -> Self {
        Self::try_begin(config, flows).unwrap()
    }

    fn try_begin(config: &HistoryConfig, flows: usize) -> Result<Self, HistoryError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (history, keeper) = History::open(config)?;
        let kept = StoreConfig { flows, ..StoreConfig::default() };
        let (store, writer) = Store::starting_at(history.first(), kept);
        let running = keeper.start(Arc::clone(&store), runtime.handle().clone()).unwrap();
        Ok(Self { runtime, history, store, writer, running: Some(running) })
    }

    fn push(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.writer.add(&numbered(number).flow());
        }
        self.writer.publish();
    }

    fn until(&self, what: &str, holds: impl Fn(&Counts) -> bool) -> Counts {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = self.history.counts();
            if holds(&counts) {
                return counts;
            }
            assert!(Instant::now() < deadline, "{what}: it did not come: {counts:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(mut self) -> Counts {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.shutdown(PATIENCE));
        self.history.counts()
    }
}

/// Packets of all flows that are in pieces, with their sequence numbers; and how many the numbers say are missing.
fn kept(history: &History) -> (Vec<(u64, u64)>, u64) {
    let (mut all, mut lost, mut known) = (Vec::new(), 0, KnownEnds::default());
    let mut position = history.oldest().unwrap_or(0);
    loop {
        let next = history.next(position, u64::MAX, None, None);
        lost += next.lost;
        let Some(location) = next.piece else { return (all, lost) };
        let piece = history.read(&location, &mut known).unwrap();
        let mut cursor = Cursor::new(history.flows(&piece, &location).unwrap(), location.base());
        while let Step::Flow(stored) = cursor.step() {
            all.push((stored.sequence, stored.record().packets));
        }
        position = location.end();
    }
}

fn packets(history: &History) -> Vec<u64> {
    kept(history).0.into_iter().map(|(_, packets)| packets).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn lives_follow_each_other_without_doubles_or_gaps() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let (mut pushed, mut before) = (0, 0);
    for count in [10, 0, 20_000, 1, 300] {
        let mut life = Life::begin(&config, 65_536);
        assert_eq!(packets(&life.history), (0..pushed).collect::<Vec<_>>());
        assert!(life.history.first() >= before);
        life.push(pushed..pushed + count);
        pushed += count;
        before = life.store.head();
        let counts = life.end();
        assert_eq!((counts.written, counts.waiting, counts.overwritten, counts.unwritten), (count, 0, 0, 0));
    }
    let (history, _keeper) = History::open(&config).unwrap();
    let (all, lost) = kept(&history);
    assert_eq!(lost, 0);
    assert!(all.is_sorted_by(|one, next| one.0 < next.0));
    let counts = history.counts();
    assert_eq!((counts.flows, counts.recovered, counts.torn), (pushed, 0, 0));
    assert_eq!(counts.oldest_ns, Some(0));
}

#[test]
fn what_has_no_piece_yet_is_on_the_disk_within_the_loss_bound_and_gets_one_after_a_fall() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut life = Life::begin(&config(folder.path()), 65_536);
    for round in 0..5 {
        life.push(round * 10..round * 10 + 10);
        life.until("the disk", |counts| counts.flushed == (round + 1) * 10);
    }
    // What a fall would leave.
    for file in files(folder.path()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let next = Life::begin(&config(copy.path()), 65_536);
    assert_eq!(packets(&next.history), (0..50).collect::<Vec<_>>());
    assert_eq!(next.history.counts().recovered, 50);
    assert_eq!(next.history.first(), 1 << 40);
    assert_eq!(next.history.life(), life.history.life());
    next.end();
    // Once, and not again.
    let (again, _keeper) = History::open(&config(copy.path())).unwrap();
    assert_eq!((packets(&again).len(), again.counts().recovered), (50, 0));
    life.end();
}

#[test]
fn a_folder_that_another_one_writes_is_refused() {
    let folder = TempDir::new().unwrap();
    let life = Life::begin(&config(folder.path()), 1024);
    let refused = Life::try_begin(&config(folder.path()), 1024).err().unwrap().to_string();
    assert!(refused.contains("another observer keeps its flows there"), "{refused}");
    life.end();
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(&config(folder.path()), 1024);
    life.push(0..10);
    life.end();
    let own = files(folder.path()).remove(0);
    let mut newer = fs::read(&own).unwrap();
    newer[8] = 2;
    let others = [
        ("0000000000000005-2026-05-01T12-00-00Z.flows", newer),
        (
            "0000090000000000-2026-05-01T12-00-00Z.flows",
            b"something else, and long enough for a head".to_vec(),
        ),
        ("notes.txt", b"mine".to_vec()),
    ];
    for (name, bytes) in &others {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let mut life = Life::begin(&config(folder.path()), 1024);
    assert_eq!((packets(&life.history), life.history.counts().foreign), ((0..10).collect(), 2));
    // No flow gets a number that one of theirs may have.
    assert_eq!(life.history.first(), 10 << 40);
    life.push(10..20);
    life.end();
    for (name, bytes) in &others {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), *bytes, "{name}");
    }
    // One that would be written over.
    let unsealed = folder.path().join(super::segment::UNSEALED);
    fs::write(&unsealed, b"something else, and long enough for a head").unwrap();
    let refused = Life::try_begin(&config(folder.path()), 1024).err().unwrap().to_string();
    assert!(refused.contains("unsealed-1.flows is no file of a history: move it away"), "{refused}");
    assert!(fs::read(&unsealed).unwrap().starts_with(b"something"));
}

#[test]
fn the_oldest_go_when_there_are_too_many_bytes() {
    let folder = TempDir::new().unwrap();
    // Sixteen files of 256 KiB.
    let config = HistoryConfig { most_bytes: 4 << 20, ..config(folder.path()) };
    let mut life = Life::begin(&config, 1 << 20);
    let mut pushed = 0_u64;
    let counts = loop {
        // What can't be packed well takes fewer rounds.
        for number in pushed..pushed + 8192 {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut flow = numbered(number);
            (flow.record.bytes, flow.record.first_ns) = (hash, hash.rotate_left(32) as i64);
            flow.record.source_mac = hash.to_le_bytes()[..6].try_into().unwrap();
            life.writer.add(&flow.flow());
        }
        life.writer.publish();
        pushed += 8192;
        let counts = life.until("the disk", |counts| counts.written + 8192 > pushed);
        assert!(counts.bytes <= config.most_bytes, "{counts:?}");
        if counts.removed > 0 {
            break counts;
        }
    };
    assert_eq!(counts.flows + counts.removed, counts.written);
    assert_eq!(counts.oldest_ns, Some(counts.removed as i64 * SECOND));
    assert!(counts.bytes > config.most_bytes / 10 * 8, "{counts:?}");
    let history = Arc::clone(&life.history);
    life.end();
    assert_eq!(packets(&history), (counts.removed..pushed).collect::<Vec<_>>());
}

#[test]
fn flows_that_the_store_forgets_have_a_piece_and_what_was_overwritten_is_counted() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(&config(folder.path()), 1024);
    let mut pushed = 0;
    for _ in 0..100 {
        life.push(pushed..pushed + 500);
        pushed += 500;
        std::thread::yield_now();
    }
    let history = Arc::clone(&life.history);
    let counts = life.end();
    assert_eq!(counts.written + counts.overwritten, pushed);
    let (all, lost) = kept(&history);
    assert_eq!((all.len() as u64, lost), (counts.written, counts.overwritten));
    assert!(all.iter().all(|(sequence, packets)| sequence == packets));
}

#[test]
fn pieces_are_found_by_time() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(&config(folder.path()), 65_536);
    life.push(0..30_000);
    let history = Arc::clone(&life.history);
    life.end();
    assert_eq!(history.start_of(0), Some(0));
    let start = history.start_of(20_000 * SECOND).unwrap();
    assert!((20_000 - 8192..=20_000).contains(&start), "{start}");
    assert_eq!(history.start_of(30_000 * SECOND), None);
    let next = history.next(0, u64::MAX, Some(20_000 * SECOND), Some(20_010 * SECOND));
    assert_eq!((next.lost, next.piece.unwrap().base()), (0, start));
    assert!(history.next(0, u64::MAX, None, Some(-1)).piece.is_none());
    assert_eq!(history.count(5, 25_000), 24_995);
}

//! The history: how fast it is written, how large it is, and how fast a window of it is found.

use super::{median_ns, row, thread_ns};
use observer::{
    flow::{Flow, Record},
    history::{History, HistoryConfig},
    pipeline::replay_bytes,
    serve::{
        query::{Item, Query, Reader, Selector},
        view::NodeView,
    },
    store::{Cursor, Step, Store, StoreConfig},
};
use observer_proto::filter::{Filters, parse};
use std::{hint::black_box, sync::Arc, time::Duration};

/// In an hour.
const FLOWS: u64 = 10_000_000;
const HOUR_NS: i64 = 3_600_000_000_000;
const BEGIN_NS: i64 = 1_767_608_000_000_000_000;
/// Flows that are stored before the keeper takes them.
const BATCH: usize = 16_384;

/// Flows again and again, each at its own time, into a folder; what was read from.
struct Written {
    history: Arc<History>,
    store: Arc<Store>,
    bytes: f64,
    ns: f64,
}

fn write(like: &Arc<Store>, flows: u64, folder: &std::path::Path) -> Option<Written> {
    let config = HistoryConfig {
        folder: folder.to_owned(),
        most_bytes: 4 << 30,
        most_age: Duration::from_hours(24),
        most_loss: Duration::from_secs(1),
    };
    let (history, keeper) = History::open(&config).ok()?;
    let kept = StoreConfig { flows: 65_536, bytes: usize::MAX };
    let (store, mut writer) = Store::starting_at(history.first(), kept);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let mut keeping = keeper.here(Arc::clone(&store), runtime.handle().clone());
    let step = HOUR_NS / flows as i64;
    let (mut number, mut took) = (0, 0);
    let mut cursor = Cursor::new(Arc::clone(like), like.oldest());
    while number < flows {
        for _ in 0..BATCH {
            let Step::Flow(stored) = cursor.step() else {
                cursor = Cursor::new(Arc::clone(like), like.oldest());
                continue;
            };
            let flow = stored.flow();
            let time_ns = BEGIN_NS + number as i64 * step;
            let first_ns = time_ns - (flow.time_ns - flow.first_ns);
            let record = Record { time_ns, first_ns, ..*flow.record };
            writer.add(&Flow { record: &record, ..flow });
            number += 1;
        }
        writer.publish();
        let begin = thread_ns();
        keeping.take().ok()?;
        took += thread_ns() - begin;
    }
    let begin = thread_ns();
    keeping.end();
    took += thread_ns() - begin;
    let counts = history.counts();
    assert_eq!((counts.flows, counts.overwritten), (number, 0), "{counts:?}");
    let (bytes, ns) = (counts.bytes as f64 / number as f64, took as f64 / number as f64);
    Some(Written { history, store, bytes, ns })
}

/// Flows like those of this store.
pub(crate) fn history(like: &Arc<Store>) {
    let (Ok(folder), Ok(small)) = (tempfile::tempdir(), tempfile::tempdir()) else { return };
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/events/demo.rec");
    let demo = std::fs::read(demo).unwrap_or_default();
    if let Ok((demo, ..)) = replay_bytes(&demo, StoreConfig::default())
        && let Some(written) = write(&demo, 200_000, small.path())
    {
        row("history bytes, demo", written.bytes, "bytes");
    }
    let Some(written) = write(like, FLOWS, folder.path()) else { return };
    row("history bytes", written.bytes, "bytes");
    row("history written", 1e9 / written.ns, "/s");
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
    else {
        return;
    };
    let half = BEGIN_NS + HOUR_NS / 2;
    let mut found = 0;
    let mut ask = |flags: &[(&str, &str)], window: i64| {
        let lists = parse(flags.iter().copied()).unwrap_or_default();
        let matcher = Filters::compile(&lists.whitelist, &lists.blacklist).unwrap_or_default().matcher();
        let query = Query {
            number: 0,
            first: false,
            follow: false,
            since: Some(half),
            until: Some(half + window),
            filter: Selector::new(matcher, NodeView::default()),
        };
        let mut reader = Reader::new(query, &written.store, Some(&written.history));
        found = 0;
        runtime.block_on(async {
            loop {
                match reader.next(|_, flow| _ = black_box(flow)) {
                    Item::Flow => found += 1,
                    Item::Past if reader.load().await.is_ok() => {}
                    Item::Skipped => {}
                    _ => break,
                }
            }
        });
        found
    };
    let minute = 60_000_000_000;
    for (metric, flags) in [
        ("history window by pod", &[("pod", "team-00/svc-000")][..]),
        ("history window by rare pod", &[("pod", "team-07/alone")]),
        ("history window", &[]),
    ] {
        // The threads that read are others than this one.
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let begin = std::time::Instant::now();
                ask(flags, minute);
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        row(metric, times[times.len() / 2], "ms");
        println!("{metric}: {} flows", ask(flags, minute));
    }
    let all = median_ns(1, 1, || _ = ask(&[("pod", "team-07/alone")], HOUR_NS));
    println!("half an hour by rare pod: {:.0} ms on this thread", all / 1e6);
}

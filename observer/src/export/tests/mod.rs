//! Exporters over a store of their own, with files in a folder of their own.

mod changes;
mod files;
mod killed;
mod otlp;

use super::{
    Board, ExportConfig, Exports,
    config::{Exporter, LogFile, Target},
};
use crate::{
    flow::{Record, Sample},
    serve::NodeInfo,
    store::{Store, StoreConfig, Writer},
};
use observer_proto::{
    flow::Flow,
    json,
    observer::{ExportEvent, export_event::ResponseTypes},
};
use std::{
    fs,
    io::Read as _,
    net::Ipv4Addr,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A store, and where its flows are exported to.
struct Bed {
    runtime: Runtime,
    store: Arc<Store>,
    writer: Writer,
    board: Arc<Board>,
    folder: TempDir,
}

fn node() -> NodeInfo {
    NodeInfo { cluster: "default".into(), name: "n1".into(), ..NodeInfo::default() }
}

/// A flow that is told from others by its time.
fn numbered(number: u64) -> Sample {
    let ip = |last| Some(Ipv4Addr::new(10, 0, 0, last).into());
    Sample::from(Record {
        time_ns: number as i64,
        source_ip: ip(1),
        destination_ip: ip(2),
        source_port: 40_000,
        destination_port: if number.is_multiple_of(2) { 80 } else { 443 },
        protocol: 6,
        ip_version: 4,
        event_type: Record::TRACE_EVENT,
        verdict: 1,
        direction: if number.is_multiple_of(2) { 1 } else { 2 },
        ..Record::default()
    })
}

impl Bed {
    fn new(flows: usize) -> Self {
        let (store, writer) = Store::new(StoreConfig { flows, ..StoreConfig::default() });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, store, writer, board: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, config: ExportConfig) -> Exports {
        let (store, board) = (Arc::clone(&self.store), Arc::clone(&self.board));
        self.runtime.block_on(async { Exports::start(config, store, node(), board) }).unwrap().unwrap()
    }

    fn start_one(&self, exporter: Exporter) -> Exports {
        self.start(ExportConfig { fixed: vec![exporter], file: None })
    }

    fn push(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.writer.add(&numbered(number).flow());
        }
        self.writer.publish();
    }

    /// On a slow machine exporters may be cut off; but here they go on.
    fn end(&self, exports: Exports) {
        self.runtime.block_on(exports.shutdown());
        until("their end", || self.board.exporters().iter().all(|(_, counts)| !counts.active));
    }

    fn counts(&self, name: &str) -> super::Counts {
        let exporters = self.board.exporters();
        exporters.into_iter().find(|(exporter, _)| exporter == name).unwrap().1
    }
}

/// All of the store, to a file in the bed.
fn to(path: &Path) -> Exporter {
    Exporter {
        name: "static".to_owned(),
        to: Target::File(LogFile { path: path.to_owned(), most_bytes: 1 << 20, backups: 5, compress: false }),
        selection: crate::dynamic::Selection::default(),
        mask: None,
        sum: None,
        end: None,
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file's text, unpacked where it is packed.
fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        return text;
    }
    String::from_utf8(bytes).unwrap()
}

/// What a whole line holds.
fn event(line: &str) -> ExportEvent {
    json::read(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn flow(line: &str) -> Flow {
    match event(line).response_types {
        Some(ResponseTypes::Flow(flow)) => flow,
        other => panic!("{other:?}"),
    }
}

/// The number of a flow that [`numbered`] made.
fn number(flow: &Flow) -> u64 {
    flow.time.unwrap().nanos as u64
}

/// The numbers of flows and the sum of losses in a text of whole lines.
fn told(text: &str) -> (Vec<u64>, u64) {
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    let (mut numbers, mut lost) = (Vec::new(), 0);
    for line in text.lines() {
        match event(line).response_types.unwrap() {
            ResponseTypes::Flow(flow) => numbers.push(number(&flow)),
            ResponseTypes::LostEvents(events) => lost += events.num_events_lost,
            other => panic!("{other:?}"),
        }
    }
    (numbers, lost)
}

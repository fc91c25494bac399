//! The daemon's own work for one event, on one core: from the kernel's record to a stored flow, and from there to a client.
//!
//! The stages are joined as `pipeline.rs` joins them, over the world of `support/world.rs`.

mod support;

use observer::{
    decode::{Clock, Decoder, DropReasons, DropSites, Event, Symbols},
    endpoint::Endpoint,
    enrich::{Enricher, Filler},
    export,
    flow::{Flow, Link},
    metrics::Counting,
    serve::{encode::Encoder, query::Selector, view::NodeView},
    stats::Stats,
    store::{Cursor, Step, Store, StoreConfig, Writer},
    track::{Tracked, Tracker},
};
use observer_proto::{
    filter::{Filters, Matcher, parse},
    json,
    observer::GetFlowsResponse,
};
use prost::Message as _;
use std::{hint::black_box, ops::ControlFlow, sync::Arc};
use support::{
    median_ns, row, time_row,
    world::{FLOWS, World},
};

/// Records taken from the rings at a time: what comes in 10 ms at 50,000 a second.
const BATCH: usize = 512;
const ROUNDS: usize = 21;
/// Bytes before a message in a gRPC stream.
const GRPC_HEAD: usize = 5;

/// Everything after capture, as the pipeline has it.
struct Stages<S> {
    world: World,
    decoder: Decoder<S>,
    tracker: Tracker,
    filler: Filler,
    writer: Writer,
    events: Vec<Event>,
}

fn stages(world: World) -> (Stages<impl Symbols>, Arc<Store>) {
    let reasons = (2..12).map(|number| (number, format!("SKB_DROP_REASON_NUMBER_{number}")));
    let sites = DropSites::new(DropReasons::new(reasons), |_| Ok("nf_hook_slow+0xab".to_owned()));
    let (store, writer) = Store::new(StoreConfig { flows: FLOWS, bytes: usize::MAX });
    let stages = Stages {
        decoder: Decoder { clock: Clock::with_offset(1_767_608_000_000_000_000), sites },
        tracker: Tracker::default(),
        filler: Filler::new(Enricher::new(Arc::clone(&world.cache))),
        world,
        writer,
        events: Vec::new(),
    };
    (stages, store)
}

impl<S: Symbols> Stages<S> {
    /// All records of the world.
    fn run(&mut self) {
        let Self { world, decoder, tracker, filler, writer, events } = self;
        for batch in world.records.chunks(BATCH) {
            for record in batch {
                if let Ok(event) = decoder.decode(record) {
                    events.push(event);
                }
            }
            tracker.batch(events, Some(&world.conntrack), u64::MAX, &world.local, &mut |tracked| {
                filler.fill(tracked, link_of(world, tracked), |flow| writer.add(flow));
            });
            writer.publish();
        }
    }
}

fn link_of<'a>(world: &'a World, tracked: &Tracked<'_>) -> Option<&'a Arc<Link>> {
    let index = match tracked {
        Tracked::Flow(flow) => flow.event.ifindex,
        Tracked::Drop(drop) => drop.event.ifindex,
    };
    world.links.get(&index)
}

fn ingest<S: Symbols>(stages: &mut Stages<S>) {
    time_row("ingest", ROUNDS, FLOWS, || stages.run());
    let counters = stages.tracker.counters();
    assert_eq!(counters.suppressed() + counters.facts, 0, "each record becomes a flow: {counters:?}");
    let counted = allocation_counter::measure(|| stages.run());
    row("ingest allocations", counted.count_total as f64 / FLOWS as f64, "");
}

/// Walks through the store as a reader does.
fn each(store: &Arc<Store>, mut visit: impl FnMut(u64, &Flow<'_>)) {
    let mut cursor = Cursor::new(Arc::clone(store), store.oldest());
    while let Step::Flow(stored) = cursor.step() {
        visit(stored.sequence, &stored.flow());
    }
}

/// What the task that follows the store does for each flow.
fn statistics(store: &Arc<Store>) {
    let stats = Stats::default();
    time_row("statistics", ROUNDS, FLOWS, || {
        let mut cursor = Cursor::new(Arc::clone(store), store.oldest());
        while !stats.count(&mut cursor).1 {}
    });
}

/// As many sets of labels as a large cluster has pods.
const PODS: usize = 100_000;

/// The same flows of a pod each.
fn of_many_pods(store: &Arc<Store>) -> Arc<Store> {
    let (many, mut writer) = Store::new(StoreConfig { flows: 2 * PODS, bytes: usize::MAX });
    let mut pods = 0;
    while pods < PODS {
        each(store, |_, flow| {
            let name = format!("pod-{pods}");
            let pod = Arc::new(Endpoint { pod_name: name.into(), ..Endpoint::clone(flow.source) });
            writer.add(&Flow { source: &pod, ..*flow });
            pods += 1;
        });
        writer.publish();
    }
    many
}

/// Hubble's metrics with the contexts of its documentation, and a scrape of as many series as there may be.
fn metrics(store: &Arc<Store>) {
    let usual = "drop:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity flow tcp icmp \
                 port-distribution flows-to-world";
    let measured = |metrics: &str| Counting::new(metrics).unwrap_or_else(|error| panic!("{error}"));
    let usual = measured(usual);
    time_row("metrics", ROUNDS, FLOWS, || usual.count(store));
    let many =
        measured("flow:labelsContext=source_ip,source_pod,source_workload,destination_ip,destination_pod");
    many.count(&of_many_pods(store));
    let page = many.scrape();
    println!("a scrape: {} lines, {} bytes", page.lines().count(), page.len());
    assert!(page.contains("observer_metrics_series 10000\n"), "fewer series than there may be");
    let nanoseconds = median_ns(ROUNDS, 1, || _ = black_box(many.scrape()));
    row("scrape", nanoseconds / 1e6, "ms");
}

/// An exporter over a full store, to a file.
fn exported(store: &Arc<Store>, world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let (Ok(runtime), Ok(folder)) = (runtime, tempfile::tempdir()) else { return };
    let (mut files, mut bytes) = (0, 0);
    time_row("export", 5, FLOWS, || {
        // A new one each time: to empty an old one is not an exporter's work.
        files += 1;
        let file = folder.path().join(format!("{files}.log"));
        bytes = export::export_all(store, &world.node, &file, runtime.handle()).unwrap_or(0);
    });
    assert!(bytes > FLOWS as u64, "nothing was exported");
}

/// Bytes of a full store beside the ends that its flows share.
fn memory(store: &Arc<Store>) {
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let (copy, mut writer) = Store::new(StoreConfig { flows: FLOWS, bytes: usize::MAX });
        each(store, |_, flow| writer.add(flow));
        writer.publish();
        kept = Some(copy);
    });
    let (bytes, count) = (counted.bytes_current, store.len());
    row("flow memory", bytes as f64 / count as f64, "bytes");
    drop(kept);
}

/// Bytes that `write` appends; what was written before is thrown away from time to time, as a stream does it.
fn appended(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    if out.len() > 32 << 10 {
        out.clear();
    }
    let before = out.len();
    write(out);
    out.len() - before
}

fn encoding(store: &Arc<Store>, world: &World) {
    let mut encoder = Encoder::new(&world.node);
    let mut out = Vec::with_capacity(64 << 10);
    let count = store.len() as usize;
    let mut bytes = 0;
    time_row("encode protobuf", ROUNDS, count, || {
        bytes = 0;
        each(store, |n, flow| bytes += appended(&mut out, |out| encoder.response(out, n, flow, None)));
    });
    println!("a response in protobuf: {} bytes", bytes / count);
    time_row("encode json", ROUNDS, count, || {
        bytes = 0;
        each(store, |n, flow| bytes += appended(&mut out, |out| encoder.json_line(out, n, flow)));
    });
    println!("a JSON line: {} bytes", bytes / count);

    // The same by the libraries, for comparison: a message tree to protobuf, protobuf to JSON by tables.
    let (mut messages, mut trees) = (Vec::new(), Vec::new());
    each(store, |n, flow| {
        if messages.len() < 4096 {
            let mut message = Vec::new();
            encoder.response(&mut message, n, flow, None);
            message.drain(..GRPC_HEAD);
            trees.extend(GetFlowsResponse::decode(&message[..]).ok());
            messages.push(message);
        }
    });
    let time = median_ns(5, trees.len(), || {
        for tree in &trees {
            let _ = black_box(tree.encode(&mut out));
            out.clear();
        }
    });
    println!("prost, from a message tree: {time:.0} ns");
    let mut writer = json::Writer::new();
    let Some(kind) = json::MessageType::named("observer.GetFlowsResponse") else { return };
    let time = median_ns(5, messages.len(), || {
        for message in &messages {
            let _ = black_box(writer.write(kind, message, &mut out));
            out.clear();
        }
    });
    println!("observer_proto::json, from protobuf: {time:.0} ns");
}

fn matcher(flags: &[(&str, &str)]) -> Matcher {
    let lists = parse(flags.iter().copied()).unwrap_or_default();
    Filters::compile(&lists.whitelist, &lists.blacklist).unwrap_or_default().matcher()
}

/// A scan of the whole store, as a query does it to find its start.
fn filters(store: &Arc<Store>, world: &World) {
    let node = NodeView::from(&world.node);
    let count = store.len() as usize;
    for (name, flags) in [
        ("none", &[][..]),
        ("pod", &[("pod", "team-00/svc-000")]),
        ("label", &[("label", "app.kubernetes.io/name=svc-010")]),
        ("label set", &[("from-label", "tier in (front, data), app.kubernetes.io/part-of=shop")]),
        ("cidr", &[("ip", "203.0.113.0/24")]),
        ("verdict", &[("verdict", "DROPPED")]),
        (
            "port, protocol, verdict, namespace",
            &[
                ("to-port", "443"),
                ("protocol", "tcp"),
                ("verdict", "FORWARDED"),
                ("from-namespace", "team-01"),
            ],
        ),
    ] {
        let matcher = matcher(flags);
        let mut found = 0;
        time_row(&format!("filter {name}"), ROUNDS, count, || {
            found = 0;
            // What a query has to find out about ends is part of it.
            let mut selector = Selector::new(matcher.clone(), node.clone());
            store.rewind(
                |lot| selector.select(lot),
                |_| {
                    found += 1;
                    ControlFlow::Continue(())
                },
            );
        });
        assert!(found > 0, "{name} finds nothing");
        println!("filter {name}: {found} of {count}");
    }
}

/// All parts, or the one that is named: `cargo bench --bench core -- filters`.
fn main() {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let wanted = |part: &str| named.as_deref().is_none_or(|named| named == part);
    let (mut stages, store) = stages(World::new());
    stages.run();
    if wanted("ingest") {
        ingest(&mut stages);
    }
    if wanted("statistics") {
        statistics(&store);
    }
    if wanted("metrics") {
        metrics(&store);
    }
    if wanted("export") {
        exported(&store, &stages.world);
    }
    if wanted("memory") {
        memory(&store);
    }
    if wanted("encoding") {
        encoding(&store, &stages.world);
    }
    if wanted("history") {
        support::history::history(&store);
    }
    if wanted("filters") {
        filters(&store, &stages.world);
    }
}

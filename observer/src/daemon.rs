//! The daemon: starts the stages in order, and ends them in order.

use crate::{
    capture::{self, Capture, CaptureConfig, LinkStatus, kernel::symbols::Symbols as KernelSymbols},
    config::{Aggregation, Config},
    decode::Symbols,
    enrich::{
        inventory::InventoryFile,
        ipcache::IpCache,
        local::LocalNamespaces,
        source::{Source, Sources, Stop},
    },
    instance::Instance,
    logging,
    pipeline::{BehindLinks, Conntrack, Counters, Pipeline},
    serve::{self, NodeInfo, ServeConfig},
    status::Status,
    store::{Store, StoreConfig},
    track::{ConntrackSource, ConntrackTable, SourceOptions, TableLimits},
};
use anyhow::Context as _;
use std::{os::fd::AsFd as _, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};

/// Runs until SIGTERM or Ctrl-C. Everything is opened in the network namespace of the calling thread.
///
/// # Errors
///
/// What can't be started, with its cause, in one line.
pub fn run(config: &Config) -> anyhow::Result<()> {
    logging::start(config.log_level, config.log_format);
    let _instance = Instance::take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // From here on a signal ends the daemon in order, whatever has been started.
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    })?;

    let cache = Arc::new(IpCache::new(config.node_name.clone()));
    let _sources = Sources::start(sources(config)?, &cache)?;
    let capture = Capture::start(&capture_config(config))?;
    let conntrack = conntrack();
    let (store, writer) = Store::new(StoreConfig { flows: config.max_flows, bytes: config.max_bytes });
    let counters = Arc::new(Counters::default());
    let behind = Arc::new(BehindLinks::default());
    let status = Status {
        capture: capture.status(),
        pipeline: Arc::clone(&counters),
        names: Arc::clone(&cache),
        behind: Arc::clone(&behind),
        conntrack: conntrack.as_ref().map(|_| ()).map_err(Clone::clone),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    };
    log_state(&status);

    let stop = Stop::new().map_err(std::io::Error::from).context("cannot make an event for stopping")?;
    let mut pipeline = start_pipeline(stop.clone(), move || {
        let symbols = KernelSymbols::default();
        let symbol = move |address| symbols.name(address);
        Pipeline::new(capture, symbol, conntrack.ok(), cache, writer, counters, behind)
    })?;
    let result = runtime.block_on(async {
        let server = serve::start(serve_config(config), store, Arc::new(status)).await?;
        tracing::info!(
            socket = %config.socket.display(),
            tcp = server.tcp_address().map(tracing::field::display),
            node = config.node_name,
            "ready"
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = &mut pipeline.ended => return ended.context("the capture ended").and_then(|result| Ok(result?)),
        }
        tracing::info!("stopping");
        // What was captured before the signal is stored before the streams end.
        stop.set();
        let ended = (&mut pipeline.ended).await;
        server.shutdown().await;
        Ok(ended.context("the capture ended")??)
    });
    stop.set();
    // Its outcome is in `result`; a panic in it has been printed.
    let _ = pipeline.thread.join();
    result
}

/// The running pipeline.
struct Running {
    thread: std::thread::JoinHandle<()>,
    ended: tokio::sync::oneshot::Receiver<Result<(), capture::CaptureError>>,
}

/// `make` runs in the pipeline's own thread.
fn start_pipeline<S: Symbols>(
    stop: Stop,
    make: impl FnOnce() -> Pipeline<S> + Send + 'static,
) -> anyhow::Result<Running> {
    let (tell, ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("pipeline".to_owned())
        // Nobody listens any more only where the daemon ends already.
        .spawn(move || _ = tell.send(make().run(stop.as_fd())))
        .context("cannot start the pipeline's thread")?;
    Ok(Running { thread, ended })
}

fn sources(config: &Config) -> anyhow::Result<Vec<Box<dyn Source>>> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if let Some(file) = &config.inventory {
        sources.push(Box::new(InventoryFile::new(file)));
    }
    if config.local_namespaces {
        sources.push(Box::new(LocalNamespaces::open().context("cannot look into local network namespaces")?));
    }
    Ok(sources)
}

fn capture_config(config: &Config) -> CaptureConfig {
    let defaults = CaptureConfig::default();
    let aggregation = match config.aggregation {
        Aggregation::None => capture::Aggregation::None,
        Aggregation::Low => capture::Aggregation::Low,
        Aggregation::Medium => capture::Aggregation::Medium,
        Aggregation::Maximum => capture::Aggregation::Maximum,
    };
    CaptureConfig {
        aggregation,
        new_flows_per_second: config.new_flow_cap,
        flow_ring_bytes: config.flow_ring_bytes,
        priority_ring_bytes: config.priority_ring_bytes,
        interfaces: config.interfaces.clone(),
        host_wide_drops: config.drops_host_wide,
        ignored_reasons: config.ignored_drop_reasons.clone().unwrap_or(defaults.ignored_reasons),
        ..CaptureConfig::default()
    }
}

/// Conntrack, or why there is none; services are then known by their address only.
fn conntrack() -> Result<Conntrack, String> {
    let mut table = ConntrackTable::new(TableLimits::default());
    let source =
        ConntrackSource::open(SourceOptions::default(), &mut table).map_err(|why| why.to_string())?;
    Ok((source, table))
}

fn serve_config(config: &Config) -> ServeConfig {
    let node = NodeInfo {
        cluster: config.cluster.clone(),
        name: config.node_name.clone(),
        labels: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    ServeConfig {
        socket: config.socket.clone(),
        control_socket: config.control_socket.clone(),
        listen: config.listen,
        // Checked with the configuration.
        insecure: config.listen.is_some(),
        ..ServeConfig::new(node)
    }
}

/// What is not as it should be, once, at the start.
fn log_state(status: &Status) {
    let capture = status.capture.status();
    for hook in &capture.hooks {
        match &hook.error {
            Some(reason) => tracing::warn!(hook = hook.name, reason, "not available"),
            None if hook.note.is_empty() => tracing::info!(hook = hook.name, "loaded"),
            None => tracing::info!(hook = hook.name, note = hook.note, "loaded"),
        }
    }
    if let Err(reason) = &status.conntrack {
        tracing::warn!(reason, "services are known by their address only");
    }
    for LinkStatus { link, .. } in &capture.links {
        if let Some(reason) = &link.error {
            tracing::warn!(link = link.name, reason, "not attached");
        } else {
            let others = link.chained[0] + link.chained[1];
            tracing::info!(link = link.name, kind = ?link.kind, others_before = others, "attached");
        }
    }
    if let Some(line) = status.capture.links().no_pod_link() {
        tracing::warn!("{line}");
    }
}

//! The daemon: starts the stages in order, and ends them in order.

mod detach;
mod live;
mod replay;

use crate::{
    config::{Config, Task},
    drop_events,
    enrich::{ipcache::IpCache, source::Stop},
    export::{ExportConfig, Exports},
    history::{self, History, Keeper},
    logging,
    metrics::{Metrics, MetricsConfig, Sources},
    policy::{PolicyConfig, PolicyError, Updater},
    serve::{self, CaptureInfo, NodeInfo, ServeConfig},
    status::Status,
    store::{Store, StoreConfig, Writer},
};
use anyhow::Context as _;
use observer_kubernetes::{EventPoster, Shown};
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Runs until SIGTERM or Ctrl-C. Everything is opened in the network namespace of the calling thread.
///
/// # Errors
///
/// What can't be started, with its cause, in one line.
pub fn run(config: &Config) -> anyhow::Result<()> {
    logging::start(config.log_level, config.log_format);
    raise_file_limit();
    match &config.task {
        Task::Serve => live::serve(config),
        Task::Record(record) => live::record(config, record),
        Task::Replay(replay) => replay::run(config, replay),
        Task::Detach => detach::run(),
    }
}

/// The usual soft limit of 1,024 open files is less than the connections that are served; it is that low only for
/// programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("cannot raise the limit of open files from {:?}: {error}", limit.current);
    }
}

/// How long the history gets to write what there is when the daemon ends.
const END: Duration = Duration::from_secs(1);

/// What ends the daemon. From its making on a signal ends it in order, whatever has been started.
struct Life {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    stop: Stop,
}

impl Life {
    fn begin() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(serve::workers())
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let (terminate, interrupt) = runtime.block_on(async {
            anyhow::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
        })?;
        let stop = Stop::new().map_err(std::io::Error::from).context("cannot make an event for stopping")?;
        Ok(Self { runtime, terminate, interrupt, stop })
    }

    /// Waits until that is so; `false` where a signal comes first.
    fn wait(&mut self, until: impl Future<Output = ()>) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                () = until => true,
                _ = self.terminate.recv() => false,
                _ = self.interrupt.recv() => false,
            }
        })
    }

    /// Runs `work` in the pipeline's own thread, serves and exports what comes of it, where a server is wanted, until a signal,
    /// until the time is over, or until `work` ends.
    fn run(
        mut self,
        work: impl FnOnce(&Stop) -> anyhow::Result<()> + Send + 'static,
        server: Option<Serving>,
        time: Option<Duration>,
    ) -> anyhow::Result<()> {
        let (tell, mut ended) = tokio::sync::oneshot::channel();
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new()
            .name("pipeline".to_owned())
            // Nobody listens any more only where the daemon ends already.
            .spawn(move || _ = tell.send(work(&stop)))
            .context("cannot start the pipeline's thread")?;
        let stop = self.stop.clone();
        let result = self.runtime.block_on(async {
            let running = match server {
                Some(serving) => Some(start(serving).await?),
                None => None,
            };
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = after(time) => {}
                ended = &mut ended => return ended.context("the capture ended")?,
            }
            tracing::info!("stopping");
            // What was captured before the signal is stored before the streams end.
            stop.set();
            let ended = ended.await;
            if let Some(running) = running {
                running.shutdown().await;
            }
            ended.context("the capture ended")?
        });
        self.stop.set();
        // Its outcome is in `result`; a panic in it has been printed.
        let _ = thread.join();
        result
    }
}

/// Tells clients of the start, and of what the daemon was told to do.
fn tell_start(config: &Config, names: &IpCache, source: &str) {
    let events = names.events();
    events.started();
    let listen = config.listen.map_or_else(|| "nothing".to_owned(), |address| address.to_string());
    events.note(
        "configuration",
        format!(
            "{source}, aggregation {:?}, {} flows kept, TCP on {listen}",
            config.aggregation, config.max_flows
        )
        .to_lowercase(),
    );
}

/// The policies; nothing where none are given.
fn policies(
    config: PolicyConfig,
    cluster: &str,
    cache: &Arc<IpCache>,
    kubernetes: Option<&Shown>,
) -> Result<Option<Updater>, PolicyError> {
    config.is_given().then(|| Updater::load(config, cluster, Arc::clone(cache), kubernetes)).transpose()
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Serves under the names of this node, what is told of them included.
fn serve_config(config: &Config, cluster: &str, names: &IpCache) -> ServeConfig {
    let node = NodeInfo {
        cluster: cluster.to_owned(),
        name: names.node().to_owned(),
        labels: names.node_labels(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    ServeConfig {
        socket: config.socket.clone(),
        control_socket: config.control_socket.clone(),
        listen: config.listen,
        tls: config.tls.clone(),
        // Checked with the configuration.
        insecure: config.tls.is_none(),
        nodes: names.nodes(),
        events: names.events(),
        ..ServeConfig::new(node)
    }
}

/// The history, where flows are kept, and the store, whose flows go on where those of the history end.
struct Flows {
    history: Option<(Arc<History>, Keeper)>,
    store: Arc<Store>,
    writer: Writer,
}

impl Flows {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let history = config.history.as_ref().map(History::open).transpose()?;
        let first = history.as_ref().map_or(0, |(history, _)| history.first());
        let kept = StoreConfig { flows: config.max_flows, bytes: config.max_bytes };
        let (store, writer) = Store::starting_at(first, kept);
        Ok(Self { history, store, writer })
    }

    fn history(&self) -> Option<Arc<History>> {
        self.history.as_ref().map(|(history, _)| Arc::clone(history))
    }
}

/// What the flows are for.
struct Serving {
    server: ServeConfig,
    export: ExportConfig,
    metrics: Option<MetricsConfig>,
    history: Option<(Arc<History>, Keeper)>,
    store: Arc<Store>,
    status: Status,
    /// Events about drops, where they are written.
    events: Option<(EventPoster, Arc<drop_events::Counts>)>,
}

/// All that serves and exports.
struct Served {
    server: serve::Server,
    exports: Option<Exports>,
    metrics: Option<Metrics>,
    history: Option<history::Running>,
    stop_events: watch::Sender<bool>,
}

async fn start(serving: Serving) -> anyhow::Result<Served> {
    let Serving { mut server, export, metrics, history, store, status, events } = serving;
    server.history = history.as_ref().map(|(history, _)| Arc::clone(history));
    let history = history
        .map(|(_, keeper)| keeper.start(Arc::clone(&store), tokio::runtime::Handle::current()))
        .transpose()
        .context("cannot start the history's thread")?;
    let (stop_events, ending) = watch::channel(false);
    if let Some((poster, counts)) = events {
        let (store, names) = (Arc::clone(&store), Arc::clone(&status.names));
        tokio::spawn(drop_events::follow(store, names, poster, counts, ending));
    }
    let (socket, node) = (server.socket.clone(), server.node.clone());
    let (board, names) = (Arc::clone(&status.exports), Arc::clone(&status.names));
    let capture: Arc<dyn CaptureInfo> = Arc::new(status);
    let server = serve::start(server, Arc::clone(&store), Arc::clone(&capture)).await?;
    let exports = Exports::start(export, Arc::clone(&store), node.clone(), Arc::clone(&board))?;
    let metrics = match metrics {
        Some(config) => {
            let counters = Arc::clone(server.counters());
            let node = node.clone();
            let sources = Sources { store, names, node, capture, server: counters, exports: board };
            Some(Metrics::start(config, sources).await?)
        }
        None => None,
    };
    let tcp = server.tcp_address().map(tracing::field::display);
    let measured = metrics.as_ref().map(|metrics| tracing::field::display(metrics.address()));
    tracing::info!(socket = %socket.display(), tcp, metrics = measured, node = node.name, "ready");
    Ok(Served { server, exports, metrics, history, stop_events })
}

impl Served {
    /// Nothing comes to the store any more.
    async fn shutdown(self) {
        self.stop_events.send_replace(true);
        if let Some(metrics) = self.metrics {
            metrics.shutdown();
        }
        let exported = async {
            if let Some(exports) = self.exports {
                exports.shutdown().await;
            }
        };
        let kept = async {
            if let Some(history) = self.history {
                history.shutdown(END).await;
            }
        };
        tokio::join!(self.server.shutdown(), exported, kept);
    }
}

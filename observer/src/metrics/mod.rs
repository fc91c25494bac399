//! Metrics for Prometheus: Hubble's of flows under Hubble's names, and the daemon's own. docs/metrics.md lists them.

mod config;
mod context;
mod flows;
mod histogram;
mod http;
mod l7;
mod own;
mod page;
mod plugin;
mod series;
#[cfg(test)]
mod tests;

pub(crate) use config::Flags;
pub use config::MetricsConfig;

use self::http::{Render, Service};
use crate::{
    decode::Clock,
    dynamic,
    enrich::ipcache::IpCache,
    export::Board,
    followed::{Followed, INTERVAL, Look},
    serve::{self, CaptureInfo, NodeInfo, view::NodeView},
    store::Store,
};
use config::File;
use flows::Flows;
use page::Page;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Why metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file that says what to measure is wrong; it says where.
    #[error("{0}")]
    Config(String),
    /// The address is not to be had.
    #[error("--metrics-server: can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
}

/// What is told.
pub(crate) struct Sources {
    pub(crate) store: Arc<Store>,
    pub(crate) names: Arc<IpCache>,
    pub(crate) node: NodeInfo,
    pub(crate) capture: Arc<dyn CaptureInfo>,
    pub(crate) server: Arc<serve::Counters>,
    pub(crate) exports: Arc<Board>,
}

/// Metrics that are served; they end with [`Metrics::shutdown`], or at once when dropped.
#[derive(Debug)]
pub(crate) struct Metrics {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    address: SocketAddr,
}

impl Metrics {
    /// Begins to count and to serve. Must be called within a tokio runtime.
    pub(crate) async fn start(config: MetricsConfig, sources: Sources) -> Result<Self, MetricsError> {
        let MetricsConfig { address, mut wanted, file, most_series } = config;
        let followed = file.map(|file| (Followed::new([file.clone()]), file));
        if let Some((_, file)) = &followed {
            wanted = dynamic::read(file, File::check).map_err(MetricsError::Config)?;
        }
        let refused = |error| MetricsError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let Sources { store, names, node, capture, server, exports } = sources;
        let (stop, ending) = watch::channel(false);
        let flows = Arc::new(Flows::new(wanted, most_series, NodeView::from(&node)));
        let mut tasks = JoinSet::new();
        let losses = store.losses();
        let known = Arc::clone(&names);
        tasks.spawn(Arc::clone(&flows).follow(Arc::clone(&store), known, losses, ending.clone()));
        if let Some((followed, file)) = followed {
            tasks.spawn(follow(followed, file, Arc::clone(&flows), ending.clone()));
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let render: Render = Arc::new(move |page| {
            flows.write(page);
            page.gauge("observer_build_info", "The daemon's version.");
            page.sample(&[("version", &node.version)], 1);
            page.gauge("observer_start_time_seconds", "When the daemon started, Unix time.");
            page.sample(&[], started);
            kept(page, &store);
            let status = capture.capture_status();
            own::capture(page, &status);
            if let Some(history) = &status.history {
                own::history(page, history);
            }
            own::kubernetes(page, &status.kubernetes);
            own::kernel(page, &capture.kernel_use());
            own::names(page, names.confirmed(), Clock::kernel_now());
            own::server(page, &server.to_wire());
            own::exports(page, &exports);
        });
        tasks.spawn(Service::new(render, ending).run(listener));
        Ok(Self { stop, tasks, address })
    }

    /// The address, with the port that the system chose for port 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says that the daemon is ending, and ends.
    pub(crate) fn shutdown(mut self) {
        self.stop.send_replace(true);
        self.tasks.abort_all();
    }
}

fn kept(page: &mut Page, store: &Store) {
    for (name, help, value) in [
        ("observer_store_flows", "Flows kept for readers.", store.len()),
        ("observer_store_flows_limit", "Flows that there may be.", store.capacity()),
        ("observer_store_bytes", "Bytes that they take.", store.bytes()),
    ] {
        page.gauge(name, help);
        page.sample(&[], value);
    }
    page.counter("observer_store_flows_seen_total", "Flows given to the store.");
    page.sample(&[], store.seen());
}

/// Has what a changed file wants.
async fn follow(mut followed: Followed, file: PathBuf, flows: Arc<Flows>, mut ending: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = ending.wait_for(|down| *down) => return,
        }
        if followed.look() != Look::Changed {
            continue;
        }
        match dynamic::read(&file, File::check) {
            // The next look sees what came in between.
            Ok(_) if !followed.are_whole() => {}
            Ok(wanted) => {
                flows.become_these(wanted);
                tracing::info!(file = %file.display(), "metrics reconfigured");
            }
            Err(error) => tracing::warn!("{error}; the old metrics stay"),
        }
    }
}

/// Reads the text of a file of metrics.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) -> dynamic::Checked<Vec<plugin::Wanted>> {
    dynamic::parse(text, File::check)
}

/// Counts and renders without a server.
#[cfg(feature = "bench")]
pub struct Counting(Flows);

#[cfg(feature = "bench")]
impl Counting {
    /// These metrics, as the flag has them.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn new(metrics: &str) -> Result<Self, String> {
        let flags = Flags {
            server: Some("127.0.0.1:0".to_owned()),
            metrics: Some(metrics.to_owned()),
            ..Flags::default()
        };
        let config = flags.check().map_err(|(_, error)| error)?.ok_or("no server")?;
        Ok(Self(Flows::new(config.wanted, config.most_series, NodeView::default())))
    }

    /// Counts all flows of a store.
    pub fn count(&self, store: &Arc<Store>) {
        let mut cursor = crate::store::Cursor::new(Arc::clone(store), store.oldest());
        while !self.0.count(&mut cursor).1 {}
    }

    /// What a scraper gets of them.
    pub fn scrape(&self) -> String {
        let mut page = Page::new(page::Form::Text);
        self.0.write(&mut page);
        page.end()
    }
}

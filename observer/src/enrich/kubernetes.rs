//! The Kubernetes API as a source of names: what its watches tell, put into the IP cache change by change.

use crate::{
    decode::Clock,
    enrich::{
        ipcache::IpCache,
        source::{Change, Rank, Source, SourceError, Stop, Surroundings, Window},
    },
};
use observer_kubernetes::{Access, ApiPolicies, Batch, Board, Config, PeerPods, Since, Sink, Timing};
use observer_policy::source::Options;
use std::{sync::Arc, time::Duration};

/// What the user says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// How the API server is reached.
    pub access: Access,
    /// Which pods are daemons, for relays.
    pub peers: Option<PeerPods>,
    /// Whether connections are judged by its policies.
    pub policies: bool,
}

/// What others see of it.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// How its watches do.
    pub board: Arc<Board>,
    /// Its policies, where connections are judged by them.
    pub policies: Option<Arc<ApiPolicies>>,
}

/// The API, followed.
#[derive(Debug)]
pub struct KubernetesApi {
    config: Config,
    cache: Arc<IpCache>,
    shown: Kubernetes,
}

impl KubernetesApi {
    /// Follows it for this cache once it is started; policies are read by these options.
    pub fn new(config: &KubernetesConfig, cluster: &str, options: Options, cache: Arc<IpCache>) -> Self {
        let timing = Timing::default();
        let shown = Kubernetes {
            board: Arc::new(Board::new(config.policies, &timing)),
            policies: config.policies.then(|| Arc::new(ApiPolicies::new(options.clone()))),
        };
        let config = Config {
            access: config.access.clone(),
            node: cache.node().to_owned(),
            cluster: cluster.to_owned(),
            peers: config.peers.clone(),
            policies: config.policies.then_some(options),
            timing,
        };
        Self { config, cache, shown }
    }

    /// What others see of it.
    pub fn shown(&self) -> &Kubernetes {
        &self.shown
    }
}

impl Source for KubernetesApi {
    fn rank(&self) -> Rank {
        Rank::Kubernetes
    }

    /// Does not wait: while the API server is away, flows are seen all the same.
    fn load(&mut self, cache: &IpCache) -> Result<(), SourceError> {
        cache.apply(Change::Awaited(Rank::Kubernetes, true));
        Ok(())
    }

    fn follow(&mut self, _: &IpCache, stop: &Stop) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!("the Kubernetes API is not followed: {error}"),
        };
        let stop = stop.clone();
        let stopped = runtime.spawn_blocking(move || while !stop.wait(None, Duration::from_hours(1)) {});
        let sink = Box::new(ToCache(Arc::clone(&self.cache)));
        let Kubernetes { board, policies } = self.shown.clone();
        let watches = observer_kubernetes::run(self.config.clone(), board, policies, sink);
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                never = watches => match never {},
            }
        });
    }
}

/// Puts what is told into the cache.
struct ToCache(Arc<IpCache>);

impl Sink for ToCache {
    fn pods(&mut self, batch: Batch, since: Since) {
        let at = Clock::kernel_now();
        let since = match since {
            Since::Ever => 0,
            Since::Then(then) => at.saturating_sub(then.elapsed().as_nanos() as u64),
            Since::Now => at,
        };
        self.0.apply(Change::Pods(Rank::Kubernetes, batch.pods, batch.gone, Window { since, at }));
    }

    fn surroundings(&mut self, surroundings: Surroundings) {
        self.0.set_surroundings(Rank::Kubernetes, surroundings);
    }

    fn pods_are_complete(&mut self) {
        self.0.apply(Change::Awaited(Rank::Kubernetes, false));
        self.0.events().note("kubernetes", "all pods are known".to_owned());
    }

    fn confirm(&mut self) {
        self.0.confirm(Rank::Kubernetes, Clock::kernel_now());
    }
}

#[cfg(test)]
mod tests;

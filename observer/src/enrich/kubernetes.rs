//! The Kubernetes API as a source of names: what its watches tell, put into the IP cache change by change.

use crate::{
    decode::Clock,
    enrich::{
        ipcache::IpCache,
        source::{Change, Rank, Source, SourceError, Stop, Surroundings, Window},
    },
};
use observer_kubernetes::{Access, Batch, Config, PeerPods, Shown, Since, Sink, Timing, by_hand::ByHand};
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
    /// Whether Events are written about packets that these drop.
    pub events: bool,
}

/// The API, followed.
#[derive(Debug)]
pub struct KubernetesApi {
    config: Config,
    cache: Arc<IpCache>,
    shown: Shown,
}

impl KubernetesApi {
    /// Follows it for this cache once it is started; policies are read by these options.
    pub fn new(config: &KubernetesConfig, cluster: &str, options: Options, cache: Arc<IpCache>) -> Self {
        let config = Config {
            access: config.access.clone(),
            node: cache.node().to_owned(),
            cluster: cluster.to_owned(),
            peers: config.peers.clone(),
            policies: config.policies.then_some(options),
            timing: Timing::default(),
        };
        let shown = Shown::new(&config);
        Self { config, cache, shown }
    }

    /// What others see of it.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// The same without an API server: what it would say is handed in.
    pub fn by_hand(&self) -> ByHand {
        ByHand::new(&self.config, self.shown.clone(), Box::new(ToCache::new(&self.cache)))
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
        let sink = Box::new(ToCache::new(&self.cache));
        let watches = observer_kubernetes::run(self.config.clone(), self.shown.clone(), sink);
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                never = watches => match never {},
            }
        });
    }
}

/// Puts what is told into the cache.
struct ToCache {
    cache: Arc<IpCache>,
    /// It was said that the own node is not known.
    has_warned: bool,
}

impl ToCache {
    fn new(cache: &Arc<IpCache>) -> Self {
        Self { cache: Arc::clone(cache), has_warned: false }
    }

    /// Whether the node has the name that the API calls it by.
    fn knows_own(&self, surroundings: &Surroundings) -> bool {
        surroundings.nodes.is_empty() || surroundings.nodes.iter().any(|node| node.name == self.cache.node())
    }
}

impl Sink for ToCache {
    fn pods(&mut self, batch: Batch, since: Since) {
        let at = Clock::kernel_now();
        let since = match since {
            Since::Ever => 0,
            Since::Then(then) => at.saturating_sub(then.elapsed().as_nanos() as u64),
            Since::Now => at,
        };
        self.cache.apply(Change::Pods(Rank::Kubernetes, batch.pods, batch.gone, Window { since, at }));
    }

    fn surroundings(&mut self, surroundings: Surroundings) {
        if !self.knows_own(&surroundings) && !self.has_warned {
            self.has_warned = true;
            let node = self.cache.node();
            tracing::warn!(
                node,
                "no node of the Kubernetes API has this name, so no pod is local: see --node-name"
            );
        }
        self.cache.set_surroundings(Rank::Kubernetes, surroundings);
    }

    fn pods_are_complete(&mut self) {
        self.cache.apply(Change::Awaited(Rank::Kubernetes, false));
        self.cache.events().note("kubernetes", "all pods are known".to_owned());
    }

    fn confirm(&mut self) {
        self.cache.confirm(Rank::Kubernetes, Clock::kernel_now());
    }
}

#[cfg(test)]
mod tests;

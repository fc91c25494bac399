//! The running capture, served or recorded or both.

use super::{Flows, Life, Serving, policies, serve_config, tell_start};
use crate::{
    capture::{
        self, Capture, CaptureConfig, CaptureError, LinkStatus, Loaded, Opener, PolicyMaps, RingUse,
        StatusHandle, kernel::symbols::Symbols,
    },
    config::{Aggregation, Config, L7, Record},
    decode::Clock,
    drop_events,
    enrich::{
        inventory::InventoryFile,
        ipcache::IpCache,
        kubernetes::KubernetesApi,
        local::LocalNamespaces,
        resolved::Resolved,
        source::{Journal, Source, Sources, Stop},
    },
    inspect::Inspection,
    instance::{Instance, InstanceError},
    pipeline::{Live, Resolve, Shared, Stages},
    policy::{Follower, Updater},
    proxy::{self, Listener, Proxy},
    recording::{Head, Input, Recorded, Recorder},
    serve::{Inspect, ServeConfig, Services},
    status::Status,
    track::{ConntrackSource, Entry, SourceOptions, Update},
};
use anyhow::Context as _;
use observer_kubernetes::{Board, EventPoster, Shown};
use std::{
    borrow::Cow,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::runtime::Handle;

/// Serves what is captured.
pub(super) fn serve(config: &Config) -> anyhow::Result<()> {
    let _instance = Instance::take()?;
    run(config, None, None, true)
}

/// Records what is captured, and serves it too where that was asked for.
pub(super) fn record(config: &Config, record: &Record) -> anyhow::Result<()> {
    let failed = || format!("cannot record to {}", record.file.display());
    // Before the file is made: a recording that has its name stays as it is.
    let taken = Instance::take().map_err(|error| match error {
        InstanceError::Taken { pid } => anyhow::anyhow!(
            "another observer (pid {pid}) watches this network namespace, and two would count each packet twice: stop \
             it first, and with --socket the recording serves the flows in its place"
        ),
        error @ InstanceError::Failed(_) => error.into(),
    });
    let _instance = taken.with_context(failed)?;
    if let Some(folder) = capture::staying_on().filter(|_| !config.policy.judges()) {
        let why = anyhow::anyhow!(
            "policies are enforced here without a daemon ({}), which a recording without policies would end: give it their \
             --policy, or run observer detach first",
            folder.display()
        );
        return Err(why).with_context(failed);
    }
    let recorder = Arc::new(Recorder::create(&record.file).with_context(failed)?);
    let ended = run(config, Some(Arc::clone(&recorder)), record.time, record.serves);
    // What was captured until then is kept, however it ended.
    let finished = recorder.finish().with_context(failed);
    ended?;
    let Recorded { totals, bytes } = finished?;
    // Nobody is left to tell where stdout is closed.
    let _ = writeln!(
        std::io::stdout(),
        "{}: {} events in {:.1} s, {} bytes; {} lost in the kernel",
        record.file.display(),
        totals.records,
        totals.duration().as_secs_f64(),
        bytes,
        totals.lost
    );
    Ok(())
}

fn run(
    config: &Config,
    recorder: Option<Arc<Recorder>>,
    time: Option<Duration>,
    is_served: bool,
) -> anyhow::Result<()> {
    let symbols = loaded_symbols()?;
    let mut life = Life::begin()?;
    let journal = recorder.clone().map(|recorder| recorder as Arc<dyn Journal>);
    let cache = Arc::new(IpCache::with_journal(config.node_name.clone(), journal));
    tell_start(config, &cache, "capture");
    let (_sources, kubernetes) = start_sources(config, &cache)?;
    if !may_take_over(config, kubernetes.as_ref(), &mut life) {
        return Ok(());
    }
    let began_ns = Clock::kernel_now();
    let mut loaded = Capture::load(&capture_config(config))?;
    let maps = loaded.policy_maps();
    let mut policy = config.policy.clone();
    if let Some(why) = loaded.why_not_enforced() {
        policy.drop_nothing(&why);
    }
    let mut updater = policies(policy, &config.cluster, &cache, kubernetes.as_ref())?;
    let attached = Arc::new(OnceLock::new());
    if let Some(updater) = &mut updater {
        updater.watch_own(own_addresses(Arc::clone(&attached))?);
        judge_from_the_first_packet(updater, maps, &mut loaded)?;
    }
    let (proxy, requests) =
        set_up_proxy(config, &mut loaded, updater.as_ref(), cache.resolved(), life.runtime.handle());
    let mut conntrack = conntrack();
    if let Ok(known) = &mut conntrack {
        tell_openers(&mut loaded, known)?;
    }
    let capture = loaded.attach()?;
    if let Some(updater) = &mut updater {
        updater.kept_by(capture.keeper());
    }
    // Nobody else sets it.
    let _ = attached.set(capture.status());
    let following = updater.map(Follower::start).transpose()?;
    let flows = Flows::open(config)?;
    let head = head(config, &capture, conntrack.as_ref().err());
    if let Some(recorder) = &recorder {
        recorder.begin(&head);
    }
    let policies = following.as_ref().map(|follower| Arc::clone(follower.policies()));
    let updater = following.as_ref().map(|follower| Arc::clone(follower.updater()));
    let judged_by = policies.clone().filter(|_| config.policy.judges());
    let shared =
        Shared { policies: judged_by.clone(), redaction: config.redaction.clone(), ..Shared::default() };
    let handle = capture.status();
    let (board, backends) = kubernetes.map(|shown| (shown.board, shown.backends)).unzip();
    let events = writes_events(config).then(Arc::<drop_events::Counts>::default);
    let status = Status {
        capture: Box::new({
            let handle = handle.clone();
            move || handle.status()
        }),
        is_live: true,
        rings: Box::new({
            let inspector = capture.inspector();
            // A ring that can't be looked at is not told of.
            move || inspector.rings().unwrap_or_default().iter().map(RingUse::fill).collect()
        }),
        pipeline: Arc::clone(&shared.counters),
        names: Arc::clone(&cache),
        behind: Arc::clone(&shared.behind),
        policies: judged_by,
        history: flows.history(),
        exports: Arc::default(),
        no_conntrack: head.no_conntrack.clone(),
        kubernetes: board,
        drop_events: events.clone(),
        links: Some(handle.clone()),
        kernel: head.kernel.clone(),
    };
    log_state(&handle, head.no_conntrack.as_deref());

    let judging = shared.policies.clone();
    let serving = is_served.then(|| {
        let services = backends.map(|backends| Services { backends, names: Arc::clone(&cache) });
        let inspection = Inspection {
            inspector: capture.inspector(),
            status: handle,
            names: Arc::clone(&cache),
            behind: Arc::clone(&shared.behind),
            policies: policies.clone(),
        };
        let inspect = Some(Arc::new(inspection) as Arc<dyn Inspect>);
        let l7_is_watched = config.l7.bits() & L7::SIGNALS != 0;
        let usual = serve_config(config, &config.cluster, &cache);
        ServeConfig { policies, inspect, updater, l7_is_watched, services, ..usual }
    });
    let Flows { history, store, writer } = flows;
    let work = move |stop: &Stop| {
        let symbols = resolve(symbols, recorder.clone());
        let mut stages = Stages::new(&head, symbols, cache, writer, shared, recorder.clone());
        let running = Live::new(capture, began_ns, conntrack.ok(), recorder, judging, requests);
        Ok(running.run(&mut stages, stop.as_fd())?)
    };
    let events = events.map(|counts| (event_poster(config), counts));
    let (export, metrics) = (config.export.clone(), config.metrics.clone());
    let serving = serving.map(|server| Serving { server, export, metrics, history, store, status, events });
    let ended = life.run(work, serving, time);
    leave_to_programs(proxy);
    ended
}

fn judge_from_the_first_packet(
    updater: &mut Updater,
    maps: Option<PolicyMaps>,
    loaded: &mut Loaded,
) -> anyhow::Result<()> {
    if let Some(maps) = maps {
        updater.judge_in_kernel(Box::new(maps))?;
    }
    if updater.enforces()
        && let Err(why) = loaded.stay()
    {
        updater.drop_nothing(&why)?;
    }
    Ok(())
}

/// Programs that stay have their connections' packets go to the node; without the routing they would pass by.
fn leave_to_programs(proxy: Option<Proxy>) {
    if let Some(mut proxy) = proxy
        && capture::staying_on().is_some()
    {
        proxy.leave();
    }
}

/// The proxy that judges requests, and what it tells. Where it can't be set up, the programs do without it as they do while
/// nobody listens: `--l7-on-failure` says what.
fn set_up_proxy(
    config: &Config,
    loaded: &mut Loaded,
    updater: Option<&Updater>,
    names: &Arc<Resolved>,
    runtime: &Handle,
) -> (Option<Proxy>, Option<Listener>) {
    let (Some(updater), Some(mut switch)) = (updater, loaded.proxy_switch()) else { return (None, None) };
    let policies = updater.policies();
    let set_up = || -> anyhow::Result<(Proxy, Listener)> {
        let (teller, listener) = proxy::channel(policies).map_err(std::io::Error::from)?;
        let mut proxy = Proxy::set_up()?;
        proxy.serve(runtime, policies, names, config.redaction.clone(), teller)?;
        Ok((proxy, listener))
    };
    let lets_pass = config.policy.l7_on_failure_allows;
    let (proxy, listener) = set_up()
        .inspect_err(|error| {
            let become_of = if lets_pass { "pass unjudged" } else { "are dropped" };
            tracing::error!(%error, "the proxy can't be set up: connections whose requests policies restrict {become_of}");
        })
        .ok()
        .unzip();
    let port = |is_ipv6| proxy.as_ref().map_or(0, |proxy: &Proxy| proxy.port(is_ipv6));
    if let Err(error) = switch.turn_on(port(false), port(true), lets_pass) {
        tracing::error!(%error, "requests are not judged: the programs can't be told of the proxy");
    }
    (proxy, listener)
}

fn writes_events(config: &Config) -> bool {
    config.kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.events)
}

fn event_poster(config: &Config) -> EventPoster {
    let access = config.kubernetes.as_ref().map(|kubernetes| kubernetes.access.clone());
    EventPoster::new(access.unwrap_or_default(), config.node_name.clone())
}

/// How long the Kubernetes API is waited for before that is said.
const UNTOLD: Duration = Duration::from_secs(5);

/// What is enforced by programs of an earlier daemon stays as it is until all is known that it was made of: with a part of it
/// alone, something else would be enforced. `false` where the daemon is to end before.
fn may_take_over(config: &Config, kubernetes: Option<&Shown>, life: &mut Life) -> bool {
    let told = kubernetes.filter(|_| config.policy.may_enforce()).zip(capture::staying_on());
    told.is_none_or(|(kubernetes, folder)| life.wait(all_told(&kubernetes.board, &folder)))
}

async fn all_told(board: &Board, folder: &Path) {
    if tokio::time::timeout(UNTOLD, board.all_told()).await.is_ok() {
        return;
    }
    let untold = board.untold();
    let error = untold.iter().find_map(|(_, error)| error.as_deref()).unwrap_or("no answer yet");
    tracing::error!(
        error,
        "the Kubernetes API has not told all that is needed to enforce: what an earlier daemon enforces here stays as it is ({}), \
         and nothing is captured or served until it has told {}",
        folder.display(),
        untold.iter().map(|(resource, _)| resource.name()).collect::<Vec<_>>().join(", ")
    );
    board.all_told().await;
    tracing::info!("the Kubernetes API has told all that is needed to enforce");
}

fn start_sources(config: &Config, cache: &Arc<IpCache>) -> anyhow::Result<(Sources, Option<Shown>)> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if let Some(file) = &config.inventory {
        sources.push(Box::new(InventoryFile::new(file)));
    }
    let kubernetes = config.kubernetes.as_ref().map(|kubernetes| {
        let options = config.policy.options(&config.cluster);
        KubernetesApi::new(kubernetes, &config.cluster, options, Arc::clone(cache))
    });
    let shown = kubernetes.as_ref().map(|kubernetes| kubernetes.shown().clone());
    sources.extend(kubernetes.map(|kubernetes| Box::new(kubernetes) as Box<dyn Source>));
    if config.local_namespaces {
        sources.push(Box::new(LocalNamespaces::open().context("cannot look into local network namespaces")?));
    }
    Ok((Sources::start(sources, cache)?, shown))
}

/// The addresses of the node's links, as they are and become.
fn own_addresses(
    attached: Arc<OnceLock<StatusHandle>>,
) -> anyhow::Result<impl Fn() -> Vec<IpAddr> + Send + 'static> {
    let first = capture::node_addresses().context("cannot list the addresses of links by netlink")?;
    Ok(move || match attached.get() {
        Some(capture) => capture.links().node_addresses.clone(),
        None => first.clone(),
    })
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
        judge: config.policy.judges(),
        unknown_denied: config.policy.unknown_denied,
        l7: config.l7.bits(),
        l7_ports: config.l7_ports,
        ignored_reasons: config.ignored_drop_reasons.clone().unwrap_or(defaults.ignored_reasons),
        ..CaptureConfig::default()
    }
}

/// Conntrack and what it told so far, or why there is none; services are then known by their address only.
fn conntrack() -> Result<(ConntrackSource, Vec<Update>), String> {
    let mut told = Vec::new();
    let source = ConntrackSource::open(SourceOptions::default(), &mut |update| told.push(update));
    source.map(|source| (source, told)).map_err(|why| why.to_string())
}

/// Has the programs know who opened the connections that there are, where the kernel knows it.
fn tell_openers(
    loaded: &mut Loaded,
    (source, told): &mut (ConntrackSource, Vec<Update>),
) -> Result<(), CaptureError> {
    let guessed = source.take_guessed();
    let entries = told.iter().filter_map(|update| match update {
        Update::New(entry) if !guessed.contains(&entry.id) => Some(entry),
        _ => None,
    });
    let openers = entries.flat_map(Entry::views).map(|tuple| Opener {
        opener: SocketAddr::new(tuple.source.ip(), tuple.source.port()),
        responder: SocketAddr::new(tuple.destination.ip(), tuple.destination.port()),
        protocol: tuple.protocol,
    });
    let left_out = loaded.tell_openers(openers)?;
    if left_out > 0 {
        tracing::warn!(left_out, "no room for all who opened connections: either end may have opened those");
    }
    Ok(())
}

fn head(config: &Config, capture: &Capture, no_conntrack: Option<&String>) -> Head {
    Head {
        node: config.node_name.clone(),
        cluster: config.cluster.clone(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        aggregation: format!("{:?}", config.aggregation).to_lowercase(),
        offset_ns: Clock::new().offset_ns(),
        drop_reasons: capture
            .kernel()
            .drop_reasons
            .iter()
            .map(|(number, name)| (*number, name.clone()))
            .collect(),
        hooks: capture.status().status().hooks,
        no_conntrack: no_conntrack.cloned(),
    }
}

/// The running kernel's symbols, read beside the start: the pipeline's thread, and all flows with it, would else wait for
/// them at the first drop.
fn loaded_symbols() -> anyhow::Result<Arc<Symbols>> {
    let symbols = Arc::new(Symbols::default());
    let loaded = Arc::clone(&symbols);
    let thread = std::thread::Builder::new().name("symbols".to_owned()).spawn(move || loaded.load());
    thread.context("cannot start a thread for the kernel's symbols")?;
    Ok(symbols)
}

/// Names addresses; those that were asked for are recorded.
fn resolve(symbols: Arc<Symbols>, recorder: Option<Arc<Recorder>>) -> Resolve {
    Box::new(move |address| {
        let name = symbols.name(address);
        if let Some(recorder) = &recorder {
            let shown =
                name.as_ref().map(|name| Cow::Borrowed(name.as_str())).map_err(|why| Cow::Borrowed(*why));
            recorder.keep(&Input::Symbol(address, shown));
        }
        name
    })
}

/// What is not as it should be, once, at the start.
fn log_state(handle: &StatusHandle, no_conntrack: Option<&str>) {
    let capture = handle.status();
    for hook in &capture.hooks {
        match &hook.error {
            Some(reason) => tracing::warn!(hook = hook.name, reason, "not available"),
            None if hook.note.is_empty() => tracing::info!(hook = hook.name, "loaded"),
            None => tracing::info!(hook = hook.name, note = hook.note, "loaded"),
        }
    }
    if let Some(reason) = no_conntrack {
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
    if let Some(line) = handle.links().no_pod_link() {
        tracing::warn!("{line}");
    }
}

//! A recording in the place of the capture. It needs no rights, and nothing of the machine's network.

use super::{Flows, Life, Serving, policies, serve_config, tell_start};
use crate::{
    capture::{CaptureStatus, HookStatus, LinkStatus},
    config::{Config, Replay as Task},
    enrich::ipcache::IpCache,
    pipeline::{Replay, ReplayedLinks, Shared},
    policy::{Follower, PolicyConfig},
    recording::{Head, Reader},
    serve::ServeConfig,
    status::Status,
};
use anyhow::Context as _;
use observer_ebpf::LinkTraffic;
use std::{fs::File, io::BufReader, sync::Arc};

/// Plays the recording, and goes on serving its flows until a signal.
pub(super) fn run(config: &Config, task: &Task) -> anyhow::Result<()> {
    let name = task.file.display().to_string();
    let file = File::open(&task.file).with_context(|| name.clone())?;
    let reader = Reader::open(BufReader::new(file)).with_context(|| name.clone())?;
    let head = reader.head().clone();
    let life = Life::begin()?;
    let cache = Arc::new(IpCache::new(head.node.clone()));
    tell_start(config, &cache, "replay");
    let flows = Flows::open(config)?;
    // What commands said here is of this node, and not of the recorded one.
    let mut policy = PolicyConfig { state_dir: None, of_kubernetes: false, ..config.policy.clone() };
    policy.drop_nothing("a replay drops nothing");
    let following = policies(policy, &head.cluster, &cache, None)?.map(Follower::start).transpose()?;
    let policies = following.as_ref().map(|follower| Arc::clone(follower.policies()));
    let updater = following.as_ref().map(|follower| Arc::clone(follower.updater()));
    let judged_by = policies.clone().filter(|_| config.policy.judges());
    let serving = serve_config(config, &head.cluster, &cache);
    let serving = ServeConfig { policies, updater: updater.clone(), ..serving };
    let redaction = config.redaction.clone();
    let shared = Shared { policies: judged_by.clone(), redaction, ..Shared::default() };
    let links = ReplayedLinks::default();
    let status = Status {
        capture: Box::new({
            let (hooks, links) = (recorded_hooks(&name, &head), Arc::clone(&links));
            move || recorded_status(&hooks, &links)
        }),
        is_live: false,
        rings: Box::new(Vec::new),
        pipeline: Arc::clone(&shared.counters),
        names: Arc::clone(&cache),
        behind: Arc::clone(&shared.behind),
        policies: judged_by,
        history: flows.history(),
        exports: Arc::default(),
        no_conntrack: head.no_conntrack.clone(),
        kubernetes: None,
        drop_events: None,
        links: None,
        kernel: head.kernel.clone(),
    };
    tracing::info!(
        file = name,
        node = head.node,
        kernel = head.kernel,
        aggregation = head.aggregation,
        "replay"
    );

    let replay = Replay::new(reader, cache, links, task.speed, updater);
    let Flows { history, store, writer } = flows;
    let work = move |stop: &_| {
        let played = replay.run(writer, shared, stop);
        if let Some(cut) = &played.cut {
            tracing::warn!("{name}: {cut}");
        }
        tracing::info!("replayed {} events, {} flows", played.events, played.flows);
        // Its flows can be read until the daemon is told to end.
        while !stop.wait(None, std::time::Duration::from_hours(1)) {}
        Ok(())
    };
    let (export, metrics) = (config.export.clone(), config.metrics.clone());
    let serving = Serving { server: serving, export, metrics, history, store, status, events: None };
    life.run(work, Some(serving), None)
}

fn recorded_hooks(name: &str, head: &Head) -> Vec<HookStatus> {
    let replay = HookStatus {
        name: format!("replay of {name}"),
        note: "nothing is attached here; what follows was when it was recorded".to_owned(),
        error: None,
    };
    std::iter::once(replay).chain(head.hooks.iter().cloned()).collect()
}

/// What the capture was when it was recorded. What it counted itself is not recorded.
fn recorded_status(hooks: &[HookStatus], links: &ReplayedLinks) -> CaptureStatus {
    let none = LinkTraffic::default();
    let links = links.load();
    let links = links.links.iter().map(|link| LinkStatus { link: link.clone(), ingress: none, egress: none });
    CaptureStatus { hooks: hooks.to_vec(), links: links.collect(), ..CaptureStatus::default() }
}

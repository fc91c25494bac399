//! Tells of the capture's health as debug events: what is not attached and why, what comes back, what is lost.

use super::control::CaptureInfo;
use crate::events::Events;
use observer_proto::control::{CaptureStatusResponse, counter::Kind, hook::State};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::MissedTickBehavior};

/// A look costs some system calls for each link.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks now and then, until the server ends.
pub(super) async fn watch(
    capture: Arc<dyn CaptureInfo>,
    events: Arc<Events>,
    mut ending: watch::Receiver<bool>,
) {
    let mut known = Known::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = ending.wait_for(|down| *down) => return,
        }
        let capture = Arc::clone(&capture);
        // A capture that panics has told so itself.
        let Ok(status) = tokio::task::spawn_blocking(move || capture.capture_status()).await else { return };
        for words in known.compare(&status) {
            events.debug(words);
        }
    }
}

/// What was told.
#[derive(Debug, Default)]
struct Known {
    /// What is wrong, by what it is wrong with.
    problems: BTreeMap<String, String>,
    lost: BTreeMap<String, u64>,
}

impl Known {
    /// What to tell of this state.
    fn compare(&mut self, status: &CaptureStatusResponse) -> Vec<String> {
        let hooks = status.hooks.iter().filter(|hook| hook.state() != State::Attached);
        let hooks =
            hooks.map(|hook| (format!("hook {}", hook.name), format!("not available: {}", hook.reason)));
        let links = status.links.iter().filter(|link| !link.problem.is_empty());
        let links =
            links.map(|link| (format!("link {}", link.name), format!("not attached: {}", link.problem)));
        let problems: BTreeMap<_, _> = hooks.chain(links).collect();
        let mut words = Vec::new();
        for (what, problem) in &problems {
            if self.problems.get(what) != Some(problem) {
                words.push(format!("{what}: {problem}"));
            }
        }
        for what in self.problems.keys().filter(|what| !problems.contains_key(*what)) {
            words.push(format!("{what}: no problem any more"));
        }
        self.problems = problems;

        let repairs = status
            .links
            .iter()
            .map(|link| (format!("link {}: programs put on again", link.name), link.repairs.into()));
        let losses = status.counters.iter().filter(|counter| counter.kind() == Kind::Lost);
        let losses =
            losses.map(|counter| (format!("{}: lost, {}", counter.stage, counter.cause), counter.value));
        let mut counts = BTreeMap::new();
        for (what, count) in losses.chain(repairs) {
            let before = self.lost.get(&what).copied().unwrap_or(0);
            if count > before {
                words.push(format!("{what}: {} more, {count} in all", count - before));
            }
            counts.insert(what, count);
        }
        self.lost = counts;
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_proto::control::{Counter, Hook, Link};

    #[test]
    fn each_change_is_told_once() {
        let hook = Hook { name: "drops".into(), state: State::Unavailable.into(), reason: "no BTF".into() };
        let link = |problem: &str| Link { name: "eth0".into(), problem: problem.into(), ..Link::default() };
        let lost = |value| Counter {
            stage: "drops".into(),
            kind: Kind::Lost.into(),
            cause: "ring full".into(),
            value,
        };
        let status = |problem, value| CaptureStatusResponse {
            hooks: vec![hook.clone()],
            links: vec![link(problem)],
            counters: vec![lost(value)],
            ..CaptureStatusResponse::default()
        };
        let mut known = Known::default();
        for (status, expected) in [
            (status("", 0), vec!["hook drops: not available: no BTF"]),
            (status("", 0), vec![]),
            (
                status("busy", 5),
                vec!["link eth0: not attached: busy", "drops: lost, ring full: 5 more, 5 in all"],
            ),
            (
                status("", 7),
                vec!["link eth0: no problem any more", "drops: lost, ring full: 2 more, 7 in all"],
            ),
        ] {
            assert_eq!(known.compare(&status), expected);
        }
    }
}

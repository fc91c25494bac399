//! What is known of the connection.

use crate::line::Role;
use observer_proto::{observer::ServerStatusResponse, text::status::grouped};
use std::collections::VecDeque;

/// A server that says nothing for so long is not there any more, whatever the connection says.
const STALE_AFTER: i64 = 10_000;
/// A loss is spoken of for so long.
const LOSS_SHOWN: i64 = 30_000;
/// Rates are of so many seconds.
const RATE_SECONDS: i64 = 5;

/// Where the flows come from, and how that is. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The server or the files, as their user calls them.
    pub name: String,
    /// Files in place of a server.
    pub is_file: bool,
    /// How the connection is.
    pub phase: Phase,
    /// When something last came.
    pub heard: i64,
    /// What the server last said of itself.
    pub status: Option<Box<ServerStatusResponse>>,
    /// Flows that were lost.
    pub lost: u64,
    lost_at: i64,
    seconds: VecDeque<(i64, u64)>,
}

/// How the connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first answer is awaited.
    #[default]
    Connecting,
    /// There is none.
    Waiting {
        /// Of the next try.
        at: i64,
        /// So far.
        tries: u32,
        /// Why not.
        why: String,
    },
    /// Flows come.
    Open,
    /// The server refuses the question.
    Refused(String),
    /// The files were read; what is to be said of them.
    Ended(String),
}

impl Link {
    /// Nothing has come yet.
    pub(crate) fn new(name: String, is_file: bool, now: i64) -> Self {
        Self { name, is_file, heard: now, ..Self::default() }
    }

    /// A flow came that happened at `time` (seconds).
    pub(crate) fn flow(&mut self, time: i64, now: i64) {
        let second = now / 1000;
        // Those of before the start would look like a rate.
        if time < second - RATE_SECONDS * 2 {
            return;
        }
        match self.seconds.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        while self.seconds.front().is_some_and(|(at, _)| *at < second - RATE_SECONDS) {
            self.seconds.pop_front();
        }
    }

    /// Flows in a second, of the last whole ones.
    pub(crate) fn rate(&self, now: i64) -> f64 {
        let second = now / 1000;
        let whole = self.seconds.iter().filter(|(at, _)| (second - RATE_SECONDS..second).contains(at));
        whole.map(|(_, count)| *count).sum::<u64>() as f64 / RATE_SECONDS as f64
    }

    /// So many did not come.
    pub(crate) fn lose(&mut self, flows: u64, now: i64) {
        self.lost += flows;
        self.lost_at = now;
    }

    /// How it is, in words; nothing: well.
    pub(crate) fn states(&self, now: i64) -> Vec<(Role, String)> {
        let mut states = Vec::new();
        let silent = now - self.heard;
        match &self.phase {
            _ if self.is_file => states.push((Role::Accent, "OFFLINE".to_owned())),
            Phase::Connecting => states.push((Role::Muted, "CONNECTING".to_owned())),
            Phase::Waiting { at, tries, .. } => {
                let seconds = (at - now).max(0).div_euclid(1000) + 1;
                states.push((Role::Error, format!("RECONNECTING {seconds}s (try {tries})")));
            }
            Phase::Refused(_) => states.push((Role::Error, "REFUSED".to_owned())),
            Phase::Open if silent > STALE_AFTER => {
                states.push((Role::Error, format!("STALE {}s", silent / 1000)));
            }
            Phase::Open | Phase::Ended(_) => {}
        }
        if self.lost > 0 && !self.is_file && now - self.lost_at < LOSS_SHOWN {
            let ago = (now - self.lost_at).max(0) / 1000;
            states.push((Role::Error, format!("LAGGED {} lost {ago}s ago", grouped(self.lost))));
        }
        if let Some((there, all)) = self.nodes().filter(|(there, all)| there < all) {
            states.push((Role::Audit, format!("PARTIAL {there}/{all} nodes")));
        }
        states
    }

    /// Nodes that are there, and all.
    pub(crate) fn nodes(&self) -> Option<(u32, u32)> {
        let status = self.status.as_ref()?;
        let there = status.num_connected_nodes?;
        Some((there, there + status.num_unavailable_nodes.unwrap_or(0)))
    }

    /// What there is to be said in a sentence.
    pub(crate) fn trouble(&self) -> Option<&str> {
        match &self.phase {
            Phase::Waiting { why, .. } | Phase::Refused(why) => Some(why),
            Phase::Ended(note) => Some(note).filter(|note| !note.is_empty()).map(String::as_str),
            Phase::Connecting | Phase::Open => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(link: &Link, now: i64) -> Vec<String> {
        link.states(now).into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn every_state_has_its_word() {
        let mut link = Link { heard: 1_000_000, ..Link::default() };
        assert_eq!(words(&link, 1_000_000), ["CONNECTING"]);
        link.phase = Phase::Open;
        assert_eq!(words(&link, 1_000_500), [""; 0]);
        assert_eq!(words(&link, 1_033_000), ["STALE 33s"]);
        link.lose(1204, 1_000_000);
        link.status = Some(Box::new(ServerStatusResponse {
            num_connected_nodes: Some(3),
            num_unavailable_nodes: Some(1),
            ..ServerStatusResponse::default()
        }));
        assert_eq!(words(&link, 1_003_000), ["LAGGED 1,204 lost 3s ago", "PARTIAL 3/4 nodes"]);
        link.phase = Phase::Waiting { at: 1_005_500, tries: 4, why: "refused".to_owned() };
        assert_eq!(words(&link, 1_040_000)[0], "RECONNECTING 1s (try 4)");
        assert_eq!(link.trouble(), Some("refused"));
        link.is_file = true;
        assert_eq!(words(&link, 1_003_000)[0], "OFFLINE");
    }

    #[test]
    fn a_rate_is_of_what_happens_now() {
        let mut link = Link::default();
        for second in 100..110 {
            (0..50).for_each(|_| link.flow(second, second * 1000));
        }
        link.flow(5, 109_500);
        assert!((link.rate(110_000) - 50.0).abs() < f64::EPSILON);
        assert!(link.rate(140_000).abs() < f64::EPSILON);
    }
}

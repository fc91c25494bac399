//! What is known of one port.

use super::{Cause, MOST_ROWS};
use crate::answers::{
    about::Time,
    groups::{Counts, Groups},
};
use std::ops::AddAssign;

/// One kind of drop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DropKey {
    pub(super) cause: Cause,
    /// Whether an answer was dropped.
    pub(super) is_back: bool,
    pub(super) reason: String,
    pub(super) location: String,
    pub(super) node: String,
    pub(super) policies: String,
    /// Whom it was for.
    pub(super) to: String,
    pub(super) address: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DropSums {
    pub(super) flows: u64,
    /// At least as many as flows; what a flow without facts stands for is not known.
    pub(super) packets: u64,
    pub(super) untold: u64,
    pub(super) first: Time,
    pub(super) last: Time,
}

impl AddAssign for DropSums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.packets += other.packets;
        self.untold += other.untold;
        self.first.earlier(other.first.0);
        self.last.later(other.last.0);
    }
}

impl Counts for DropSums {
    fn weight(&self) -> (u64, u64) {
        (self.packets.max(self.flows), self.flows)
    }
}

/// What is known of one port.
#[derive(Clone, Debug)]
pub(super) struct PortState {
    /// Flows towards the server that were not dropped, and how many of them reached its pod.
    pub(super) there: u64,
    pub(super) delivered: u64,
    pub(super) last_there: Time,
    pub(super) answers: u64,
    pub(super) first_answer: Time,
    pub(super) last_answer: Time,
    /// Resets in place of an answer.
    pub(super) refused: u64,
    pub(super) last_refused: Time,
    pub(super) resets_by_client: u64,
    pub(super) resets_by_server: u64,
    /// Connects that nobody answered, as the client's own socket tells.
    pub(super) failed_connects: u64,
    pub(super) drops: Groups<DropKey, DropSums>,
    /// ICMP errors that the server's own address sent.
    pub(super) icmp_errors: u64,
}

impl Default for PortState {
    fn default() -> Self {
        Self {
            there: 0,
            delivered: 0,
            last_there: Time::default(),
            answers: 0,
            first_answer: Time::default(),
            last_answer: Time::default(),
            refused: 0,
            last_refused: Time::default(),
            resets_by_client: 0,
            resets_by_server: 0,
            failed_connects: 0,
            drops: Groups::new(MOST_ROWS),
            icmp_errors: 0,
        }
    }
}

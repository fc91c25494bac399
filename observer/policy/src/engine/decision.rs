//! Verdicts, and the sets of rules that they come from.

use super::table::Place;
use crate::model::{Direction, Mode};
use std::sync::Arc;

/// The number of a set of rules, for the kernel's maps and for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSetId(pub u32);

/// What is to become of a connection, on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No policy isolates this side.
    Open,
    /// A rule allows it.
    Allowed,
    /// A rule allows some requests in it.
    Requests,
    /// A deny rule forbids it.
    Denied,
    /// The side is isolated and no rule allows it.
    DefaultDenied,
}

impl Verdict {
    /// Whether packets pass.
    pub fn passes(self) -> bool {
        matches!(self, Self::Open | Self::Allowed | Self::Requests)
    }
}

/// How exactly the rule that decides names the connection; Cilium's `match_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum MatchType {
    /// No rule did.
    #[default]
    None = 0,
    /// The peer alone.
    L3Only = 1,
    /// Peer and port.
    L3L4 = 2,
    /// The port alone.
    L4Only = 3,
    /// Everything.
    All = 4,
    /// Peer and protocol.
    L3Proto = 5,
    /// The protocol alone.
    ProtoOnly = 6,
}

/// The verdicts on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// By all policies.
    pub all: Verdict,
    /// By those alone that are enforced.
    pub enforced: Verdict,
    /// By those that are audited or enforced.
    pub audited: Verdict,
    /// Whether requests are read in it, by all policies; with `all` [`Verdict::Allowed`] each of them passes.
    pub redirected: bool,
    /// The rules; `None` where no policy selects the endpoint.
    pub rules: Option<RuleSetId>,
}

impl Decision {
    /// No policy selects the endpoint.
    pub const OPEN: Self = Self {
        all: Verdict::Open,
        enforced: Verdict::Open,
        audited: Verdict::Open,
        redirected: false,
        rules: None,
    };
}

/// A rule that holds for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) exact: u8,
    pub(super) l7: Option<u32>,
    pub(super) deny: bool,
    pub(super) any: bool,
}

/// Rules that hold for the same connections, and their verdicts.
#[derive(Debug)]
pub(super) struct RuleSet {
    pub(super) direction: Direction,
    /// Those that say something about this side of the subjects.
    pub(super) policies: Arc<[u32]>,
    pub(super) members: Box<[Member]>,
    pub(super) decision: Decision,
    pub(super) match_type: MatchType,
    /// The peer is the own node, which comes in unless a rule denies it.
    host: bool,
}

impl RuleSet {
    /// `isolates` is the strongest mode of the policies that deny what no rule allows.
    pub(super) fn new(
        direction: Direction,
        policies: Arc<[u32]>,
        members: Box<[Member]>,
        isolates: Option<Mode>,
        host: bool,
        mode: impl Fn(&Member) -> Mode,
    ) -> Self {
        let by = |least| {
            verdict(members.iter().filter(|member| mode(member) >= least), isolates >= Some(least), host)
        };
        let [all, audited, enforced] = [Mode::Observe, Mode::Audit, Mode::Enforce].map(by);
        let redirected = all.passes() && members.iter().any(|member| member.l7.is_some());
        let match_type = match_type(&members, all);
        let decision = Decision { all, enforced, audited, redirected, rules: None };
        Self { direction, policies, members, decision, match_type, host }
    }

    /// The verdict by some of the rules, how exactly they name the connection, and those of them that made it.
    pub(super) fn among(
        &self,
        counts: impl Fn(&Member) -> bool,
        isolates: bool,
    ) -> (Verdict, MatchType, Vec<Member>) {
        let mut members: Vec<Member> = self.members.iter().filter(|member| counts(member)).copied().collect();
        let verdict = verdict(members.iter(), isolates, self.host);
        let match_type = match_type(&members, verdict);
        members.retain(|member| member.deny == (verdict == Verdict::Denied));
        (verdict, match_type, members)
    }

    /// Those of the rules that made the verdict by all policies.
    pub(super) fn deciding(&self) -> impl Iterator<Item = &Member> {
        let denied = self.decision.all == Verdict::Denied;
        self.members.iter().filter(move |member| member.deny == denied)
    }
}

fn verdict<'a>(members: impl Iterator<Item = &'a Member>, isolates: bool, host: bool) -> Verdict {
    let (mut plain, mut requests) = (false, false);
    for member in members {
        if member.deny {
            return Verdict::Denied;
        }
        plain |= member.l7.is_none();
        requests |= member.l7.is_some();
    }
    match (plain, requests) {
        (false, true) if isolates && !host => Verdict::Requests,
        (true, _) | (false, true) => Verdict::Allowed,
        (false, false) if !isolates => Verdict::Open,
        (false, false) if host => Verdict::Allowed,
        (false, false) => Verdict::DefaultDenied,
    }
}

/// The datapath takes proxied entries before plain ones, then the longest port, then the exact peer.
fn match_type(members: &[Member], verdict: Verdict) -> MatchType {
    let deciding = members.iter().filter(|member| member.deny == (verdict == Verdict::Denied));
    let best = deciding.max_by_key(|member| (member.l7.is_some(), member.exact, !member.any));
    match best.map(|member| (member.any, member.exact)) {
        None => MatchType::None,
        Some((false, super::rules::ALL)) => MatchType::L3Only,
        Some((false, super::rules::PROTOCOL)) => MatchType::L3Proto,
        Some((false, _)) => MatchType::L3L4,
        Some((true, super::rules::ALL)) => MatchType::All,
        Some((true, super::rules::PROTOCOL)) => MatchType::ProtoOnly,
        Some((true, _)) => MatchType::L4Only,
    }
}

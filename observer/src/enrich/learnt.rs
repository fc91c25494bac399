//! What DNS told: by which names the ends of this node find addresses.

use super::resolved::Resolved;
use crate::flow::DnsNames;
use hashbrown::HashMap;
use std::{net::IpAddr, sync::Arc};

/// Pairs of who asked and an address that is the answer.
const MOST: usize = 65_536;
/// Names of an address that are kept, the newest ones.
const MOST_NAMES: usize = 4;
/// How long an answer counts at least, nanoseconds: a connection lives on when the answer that it was made by has run out.
const LEAST_NS: u64 = 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug)]
struct Learnt {
    names: DnsNames,
    until_ns: u64,
}

/// Names by who asked and the address.
#[derive(Debug, Default)]
pub(super) struct LearntNames {
    pairs: HashMap<(IpAddr, IpAddr), Learnt>,
    /// Where policies look.
    resolved: Arc<Resolved>,
    searched_ns: u64,
    turned_away: u64,
}

impl LearntNames {
    /// None yet; policies look into `resolved`.
    pub(super) fn new(resolved: Arc<Resolved>) -> Self {
        Self { resolved, ..Self::default() }
    }

    /// Answers that there was no room for.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away + self.resolved.turned_away()
    }

    /// A server of DNS says to `client` that `name` has the address `ip`: policies may allow by it.
    pub(super) fn resolve(&self, client: IpAddr, ip: IpAddr, name: &str, ttl: u32, now_ns: u64) {
        self.resolved.tell(name, std::iter::once(ip), client, ttl, now_ns);
    }

    /// `client` was told at this kernel time that `name` has the address `ip`, for so many seconds.
    pub(super) fn learn(&mut self, client: IpAddr, ip: IpAddr, name: &str, ttl: u32, now_ns: u64) {
        let until_ns = until(ttl, now_ns);
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(learnt) = self.pairs.get_mut(&(client, ip)) {
            if learnt.names.first().is_none_or(|first| **first != *name) {
                let others = learnt.names.iter().filter(|other| ***other != *name).take(MOST_NAMES - 1);
                learnt.names = std::iter::once(Box::from(name)).chain(others.cloned()).collect();
            }
            learnt.until_ns = until_ns;
            return;
        }
        if self.pairs.len() >= MOST && now_ns.saturating_sub(self.searched_ns) >= SECOND {
            self.searched_ns = now_ns;
            self.pairs.retain(|_, learnt| learnt.until_ns > now_ns);
        }
        if self.pairs.len() >= MOST {
            self.turned_away += 1;
            return;
        }
        self.pairs.insert((client, ip), Learnt { names: [Box::from(name)].into(), until_ns });
    }

    /// By which names `client` found `ip`, at this kernel time.
    /// What is seen in use stays known: no connection loses its name, nor what policies allow it by that.
    #[inline]
    pub(super) fn of(
        &mut self,
        client: Option<IpAddr>,
        ip: Option<IpAddr>,
        now_ns: u64,
    ) -> Option<&DnsNames> {
        if self.pairs.is_empty() {
            return None;
        }
        let (client, ip) = (client?, ip?);
        let learnt = self.pairs.get_mut(&(client, ip))?;
        if learnt.until_ns <= now_ns {
            return None;
        }
        if learnt.until_ns - now_ns < LEAST_NS / 2 {
            learnt.until_ns = now_ns.saturating_add(LEAST_NS);
            learnt.names.iter().for_each(|name| self.resolved.keep(name, ip, learnt.until_ns));
        }
        Some(&learnt.names)
    }

    /// Has policies forget what has run out.
    pub(super) fn forget(&self, now_ns: u64) {
        self.resolved.forget(now_ns);
    }
}

/// Until when an answer counts.
pub(super) fn until(ttl: u32, now_ns: u64) -> u64 {
    now_ns.saturating_add(LEAST_NS.max(u64::from(ttl) * SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_policy::{l7::Pattern, model::NamePattern};

    fn names(learnt: &mut LearntNames, client: [u8; 4], ip: [u8; 4], now_ns: u64) -> Vec<&str> {
        let names = learnt.of(Some(client.into()), Some(ip.into()), now_ns);
        names.map_or(Vec::new(), |names| names.iter().map(|name| &**name).collect())
    }

    #[test]
    fn names_are_those_that_this_end_was_told_the_newest_first() {
        let (mut learnt, a, b, ip) = (LearntNames::default(), [10, 0, 0, 1], [10, 0, 0, 2], [1, 1, 1, 1]);
        for name in ["one.", "two.", "one.", "three.", "four.", "five."] {
            learnt.learn(a.into(), ip.into(), name, 5, SECOND);
        }
        assert_eq!(names(&mut learnt, a, ip, 2 * SECOND), ["five", "four", "three", "one"]);
        assert_eq!(names(&mut learnt, b, ip, 2 * SECOND), [""; 0]);
        assert_eq!(names(&mut learnt, a, ip, SECOND + LEAST_NS), [""; 0], "it has run out");
        learnt.learn(a.into(), ip.into(), "long.", 7200, SECOND);
        assert_eq!(names(&mut learnt, a, ip, SECOND + LEAST_NS)[0], "long");
        // A recording says what it likes.
        learnt.learn(b.into(), ip.into(), "last.", 5, u64::MAX - 2);
        assert_eq!(names(&mut learnt, b, ip, u64::MAX - 1), ["last"]);
    }

    #[test]
    fn what_is_in_use_stays_known_to_policies_too() {
        let resolved = Arc::<Resolved>::default();
        resolved.want(vec![NamePattern(Pattern::name("a.example").unwrap())]);
        let mut learnt = LearntNames::new(Arc::clone(&resolved));
        let (client, ip) = ([10, 0, 0, 1], [1, 1, 1, 1]);
        learnt.learn(client.into(), ip.into(), "a.example.", 5, 0);
        assert_eq!(resolved.names().len(), 0, "not told by a server");
        learnt.resolve(client.into(), ip.into(), "a.example.", 5, 0);
        let late = LEAST_NS - SECOND;
        assert_eq!(names(&mut learnt, client, ip, late), ["a.example"]);
        learnt.forget(LEAST_NS);
        assert_eq!(resolved.names().len(), 1);
        assert_eq!(names(&mut learnt, client, ip, LEAST_NS), ["a.example"]);
        learnt.forget(late + LEAST_NS);
        assert_eq!((names(&mut learnt, client, ip, late + LEAST_NS), resolved.names().len()), (vec![], 0));
    }

    #[test]
    fn there_is_a_bound_and_what_has_run_out_makes_room() {
        let mut learnt = LearntNames::default();
        let ip = |number: usize| IpAddr::from([10, (number >> 16) as u8, (number >> 8) as u8, number as u8]);
        for number in 0..=MOST {
            learnt.learn(ip(0), ip(number), "a.", 1, SECOND);
        }
        assert_eq!((learnt.pairs.len(), learnt.turned_away()), (MOST, 1));
        learnt.learn(ip(0), ip(MOST), "a.", 1, SECOND + LEAST_NS);
        assert_eq!((learnt.pairs.len(), learnt.turned_away()), (1, 1));
    }
}

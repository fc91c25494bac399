//! What DNS told: by which names the ends of this node find addresses.

use crate::flow::DnsNames;
use hashbrown::HashMap;
use std::net::IpAddr;

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
    searched_ns: u64,
    turned_away: u64,
}

impl LearntNames {
    /// Answers that there was no room for.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// `client` was told at this kernel time that `name` has the address `ip`, for so many seconds.
    pub(super) fn learn(&mut self, client: IpAddr, ip: IpAddr, name: &str, ttl: u32, now_ns: u64) {
        let until_ns = now_ns.saturating_add(LEAST_NS.max(u64::from(ttl) * SECOND));
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
    #[inline]
    pub(super) fn of(&self, client: Option<IpAddr>, ip: Option<IpAddr>, now_ns: u64) -> Option<&DnsNames> {
        if self.pairs.is_empty() {
            return None;
        }
        let learnt = self.pairs.get(&(client?, ip?))?;
        (learnt.until_ns > now_ns).then_some(&learnt.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(learnt: &LearntNames, client: [u8; 4], ip: [u8; 4], now_ns: u64) -> Vec<&str> {
        let names = learnt.of(Some(client.into()), Some(ip.into()), now_ns);
        names.map_or(Vec::new(), |names| names.iter().map(|name| &**name).collect())
    }

    #[test]
    fn names_are_those_that_this_end_was_told_the_newest_first() {
        let (mut learnt, a, b, ip) = (LearntNames::default(), [10, 0, 0, 1], [10, 0, 0, 2], [1, 1, 1, 1]);
        for name in ["one.", "two.", "one.", "three.", "four.", "five."] {
            learnt.learn(a.into(), ip.into(), name, 5, SECOND);
        }
        assert_eq!(names(&learnt, a, ip, 2 * SECOND), ["five", "four", "three", "one"]);
        assert_eq!(names(&learnt, b, ip, 2 * SECOND), [""; 0]);
        assert_eq!(names(&learnt, a, ip, SECOND + LEAST_NS), [""; 0], "it has run out");
        learnt.learn(a.into(), ip.into(), "long.", 7200, SECOND);
        assert_eq!(names(&learnt, a, ip, SECOND + LEAST_NS)[0], "long");
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

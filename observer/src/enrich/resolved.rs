//! What DNS told this node of the names that policies allow (`toFQDNs`): which addresses they have.
//!
//! Whoever asked, an address counts for all of the node's pods, as Cilium has it. Only answers of port 53 count: whom a pod
//! may ask there is for policies to say.

use observer_policy::model::NamePattern;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Names with an address, counted by addresses.
const MOST: usize = 65_536;
/// Addresses of one name, as Cilium has it (`tofqdns-endpoint-max-ip-per-hostname`).
const MOST_ADDRESSES: usize = 1000;

/// Names by addresses, each until a kernel time.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Whether anybody wants to know any.
    is_wanted: AtomicBool,
    /// Raised by each change.
    generation: AtomicU64,
    turned_away: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wanted: Vec<NamePattern>,
    names: BTreeMap<Box<str>, BTreeMap<IpAddr, u64>>,
    /// All addresses of all names.
    count: usize,
    /// Nothing runs out before.
    next_end_ns: u64,
}

impl Resolved {
    /// From now on names count that one of these matches.
    pub(crate) fn want(&self, patterns: Vec<NamePattern>) {
        let mut state = self.state();
        if state.wanted == patterns {
            return;
        }
        self.is_wanted.store(!patterns.is_empty(), Ordering::Relaxed);
        state.names.retain(|name, _| patterns.iter().any(|pattern| pattern.0.is_match(name)));
        state.count = state.names.values().map(BTreeMap::len).sum();
        state.wanted = patterns;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The name has this address until then, or longer if that is known already.
    pub(super) fn learn(&self, name: &str, ip: IpAddr, until_ns: u64) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let name = name.to_ascii_lowercase();
        let mut state = self.state();
        if !state.wanted.iter().any(|pattern| pattern.0.is_match(&name)) {
            return;
        }
        let known = state.names.get_mut(name.as_str());
        let count = known.as_ref().map_or(0, |addresses| addresses.len());
        if let Some(until) = known.and_then(|addresses| addresses.get_mut(&ip)) {
            *until = until_ns.max(*until);
            return;
        }
        if state.count >= MOST || count >= MOST_ADDRESSES {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.names.entry(name.into()).or_default().insert(ip, until_ns);
        state.count += 1;
        state.next_end_ns = if state.count == 1 { until_ns } else { until_ns.min(state.next_end_ns) };
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// What is known of the name stays so until then at least.
    pub(super) fn keep(&self, name: &str, ip: IpAddr, until_ns: u64) {
        if self.is_wanted.load(Ordering::Relaxed)
            && let Some(until) = self
                .state()
                .names
                .get_mut(name.to_ascii_lowercase().as_str())
                .and_then(|own| own.get_mut(&ip))
        {
            *until = until_ns.max(*until);
        }
    }

    /// Forgets what has run out at this kernel time.
    pub(super) fn forget(&self, now_ns: u64) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if state.count == 0 || now_ns < state.next_end_ns {
            return;
        }
        let before = state.count;
        for addresses in state.names.values_mut() {
            addresses.retain(|_, until| *until > now_ns);
        }
        state.names.retain(|_, addresses| !addresses.is_empty());
        state.count = state.names.values().map(BTreeMap::len).sum();
        let ends = state.names.values().flat_map(BTreeMap::values);
        state.next_end_ns = ends.copied().min().unwrap_or(0);
        if state.count != before {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Raised by each change of [`Self::names`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The names with their addresses.
    pub(crate) fn names(&self) -> BTreeMap<Box<str>, Vec<IpAddr>> {
        let state = self.state();
        let names = state.names.iter();
        names.map(|(name, addresses)| (name.clone(), addresses.keys().copied().collect())).collect()
    }

    /// Addresses that there was no room for.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_policy::l7::Pattern;

    fn told(resolved: &Resolved) -> Vec<(String, usize)> {
        resolved.names().iter().map(|(name, ips)| (name.to_string(), ips.len())).collect()
    }

    fn ip(number: usize) -> IpAddr {
        IpAddr::from([10, (number >> 16) as u8, (number >> 8) as u8, number as u8])
    }

    fn wanting(pattern: &str) -> Resolved {
        let resolved = Resolved::default();
        resolved.want(vec![NamePattern(Pattern::names(pattern).unwrap())]);
        resolved
    }

    #[test]
    fn names_that_policies_want_have_their_addresses_until_they_run_out() {
        let resolved = Resolved::default();
        resolved.learn("a.shop.example", ip(1), 100);
        assert_eq!((told(&resolved), resolved.generation()), (vec![], 0), "nobody wants it");
        let resolved = wanting("*.shop.example");
        resolved.learn("A.shop.example", ip(1), 100);
        resolved.learn("other.example", ip(1), 100);
        resolved.learn("a.shop.example", ip(2), 50);
        let generation = resolved.generation();
        resolved.learn("a.shop.example", ip(1), 90);
        assert_eq!(resolved.generation(), generation, "nothing new");
        assert_eq!(told(&resolved), [("a.shop.example".to_owned(), 2)]);
        resolved.forget(60);
        assert_eq!(told(&resolved), [("a.shop.example".to_owned(), 1)]);
        assert!(resolved.generation() > generation);
        resolved.forget(99);
        assert_eq!(told(&resolved).len(), 1);
        resolved.forget(100);
        assert_eq!(told(&resolved), []);
    }

    #[test]
    fn names_that_no_policy_wants_any_more_are_forgotten() {
        let resolved = wanting("*");
        resolved.learn("a.example", ip(1), 100);
        resolved.learn("b.example", ip(2), 100);
        resolved.want(vec![NamePattern(Pattern::name("b.example").unwrap())]);
        assert_eq!(told(&resolved), [("b.example".to_owned(), 1)]);
    }

    #[test]
    fn there_are_bounds() {
        let resolved = wanting("*");
        for number in 0..=MOST_ADDRESSES {
            resolved.learn("a.example", ip(number), 100);
        }
        assert_eq!((told(&resolved)[0].1, resolved.turned_away()), (MOST_ADDRESSES, 1));
        for number in MOST_ADDRESSES..=MOST {
            resolved.learn(&format!("{number}.example"), ip(number), 100);
        }
        assert_eq!(resolved.state().count, MOST);
        assert_eq!(resolved.turned_away(), 2);
    }
}

//! What DNS told this node of the names that policies allow (`toFQDNs`): which addresses they have.
//!
//! Whoever asked, an address counts for all of the node's pods, as Cilium has it. Only answers of port 53 count, and those that
//! went through the proxy: whom a pod may ask is for policies to say.
//!
//! An answer that the proxy holds waits here until policies have taken in what it says: who follows names is woken, and tells
//! how far it has come.

use super::learnt::until;
use observer_policy::model::NamePattern;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Names with an address, counted by addresses.
const MOST: usize = 65_536;
/// Addresses of one name, as Cilium has it (`tofqdns-endpoint-max-ip-per-hostname`).
const MOST_ADDRESSES: usize = 1000;
/// Addresses of all names that one client was the first to be told: who may ask for any name leaves room for the others.
const MOST_OF_ONE: usize = 16_384;

/// Names by addresses, each until a kernel time.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Whether anybody wants to know any.
    is_wanted: AtomicBool,
    /// Raised by each change.
    generation: AtomicU64,
    turned_away: AtomicU64,
    state: Mutex<State>,
    /// As of which change policies have taken the names in.
    taken: watch::Sender<u64>,
    /// Wakes who follows names, once somebody does.
    wake: OnceLock<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    wanted: Vec<NamePattern>,
    names: BTreeMap<Box<str>, BTreeMap<IpAddr, Known>>,
    /// How many addresses each client was the first to be told.
    by_client: HashMap<IpAddr, usize>,
    /// All addresses of all names.
    count: usize,
    /// Nothing runs out before.
    next_end_ns: u64,
}

/// An address of a name.
#[derive(Clone, Copy, Debug)]
struct Known {
    until_ns: u64,
    /// Who was told first.
    client: IpAddr,
}

impl State {
    /// Counts anew.
    fn count(&mut self) {
        self.by_client.clear();
        self.count = 0;
        for known in self.names.values().flat_map(BTreeMap::values) {
            self.count += 1;
            *self.by_client.entry(known.client).or_default() += 1;
        }
    }
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
        state.count();
        state.wanted = patterns;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A server told `client` that a name has these addresses, for so many seconds. As of which change that is known; nothing
    /// where no policy wants the name.
    pub(crate) fn tell(
        &self,
        name: &str,
        ips: impl Iterator<Item = IpAddr>,
        client: IpAddr,
        ttl: u32,
        now_ns: u64,
    ) -> Option<u64> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut state = self.state();
        if !state.wanted.iter().any(|pattern| pattern.0.is_match(&name)) {
            return None;
        }
        for ip in ips {
            self.learn(&mut state, &name, ip, Known { until_ns: until(ttl, now_ns), client });
        }
        Some(self.generation())
    }

    fn learn(&self, state: &mut State, name: &str, ip: IpAddr, new: Known) {
        let known = state.names.get_mut(name);
        let count = known.as_ref().map_or(0, |addresses| addresses.len());
        if let Some(known) = known.and_then(|addresses| addresses.get_mut(&ip)) {
            known.until_ns = new.until_ns.max(known.until_ns);
            return;
        }
        let own = state.by_client.get(&new.client).copied().unwrap_or(0);
        if state.count >= MOST || count >= MOST_ADDRESSES || own >= MOST_OF_ONE {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.names.entry(name.into()).or_default().insert(ip, new);
        state.by_client.insert(new.client, own + 1);
        state.count += 1;
        let next = if state.count == 1 { new.until_ns } else { new.until_ns.min(state.next_end_ns) };
        state.next_end_ns = next;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Waits until policies have taken in what was known as of a change, but not longer; whether they have.
    pub(crate) async fn are_taken(&self, generation: u64, longest: Duration) -> bool {
        let mut taken = self.taken.subscribe();
        if *taken.borrow() >= generation {
            return true;
        }
        if let Some(wake) = self.wake.get() {
            // Fails only where it is set already.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
        let wait = taken.wait_for(|taken| *taken >= generation);
        matches!(tokio::time::timeout(longest, wait).await, Ok(Ok(_)))
    }

    /// Policies have taken in all that was known as of a change.
    pub(crate) fn take(&self, generation: u64) {
        self.taken.send_if_modified(|taken| {
            let is_later = generation > *taken;
            *taken = generation.max(*taken);
            is_later
        });
    }

    /// Readable where somebody waits for policies to take in what is known.
    pub(crate) fn wakes(&self) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(wake) = self.wake.get() {
            return Ok(wake.as_fd());
        }
        let new = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(self.wake.get_or_init(|| new).as_fd())
    }

    /// From now on only who waits anew wakes.
    pub(crate) fn woke(&self) {
        if let Some(wake) = self.wake.get() {
            // Nothing to be read is as good.
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
    }

    /// What is known of the name stays so until then at least.
    pub(super) fn keep(&self, name: &str, ip: IpAddr, until_ns: u64) {
        if self.is_wanted.load(Ordering::Relaxed)
            && let Some(known) = self
                .state()
                .names
                .get_mut(name.to_ascii_lowercase().as_str())
                .and_then(|own| own.get_mut(&ip))
        {
            known.until_ns = until_ns.max(known.until_ns);
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
            addresses.retain(|_, known| known.until_ns > now_ns);
        }
        state.names.retain(|_, addresses| !addresses.is_empty());
        state.count();
        let ends = state.names.values().flat_map(BTreeMap::values);
        state.next_end_ns = ends.map(|known| known.until_ns).min().unwrap_or(0);
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

    /// Answers begin to run out after an hour.
    const HOUR: u64 = 3_600_000_000_000;

    fn learn(resolved: &Resolved, name: &str, address: usize, now_ns: u64) -> Option<u64> {
        resolved.tell(name, std::iter::once(ip(address)), ip(0), 5, now_ns)
    }

    #[test]
    fn names_that_policies_want_have_their_addresses_until_they_run_out() {
        let resolved = Resolved::default();
        learn(&resolved, "a.shop.example", 1, 100);
        assert_eq!((told(&resolved), resolved.generation()), (vec![], 0), "nobody wants it");
        let resolved = wanting("*.shop.example");
        learn(&resolved, "A.shop.example.", 1, 100);
        assert_eq!(learn(&resolved, "other.example", 1, 100), None);
        learn(&resolved, "a.shop.example", 2, 50);
        let generation = resolved.generation();
        assert_eq!(learn(&resolved, "a.shop.example", 1, 90), Some(generation), "nothing new");
        assert_eq!(told(&resolved), [("a.shop.example".to_owned(), 2)]);
        resolved.forget(HOUR + 60);
        assert_eq!(told(&resolved), [("a.shop.example".to_owned(), 1)]);
        assert!(resolved.generation() > generation);
        resolved.forget(HOUR + 99);
        assert_eq!(told(&resolved).len(), 1);
        resolved.forget(HOUR + 100);
        assert_eq!(told(&resolved), []);
    }

    #[test]
    fn names_that_no_policy_wants_any_more_are_forgotten() {
        let resolved = wanting("*");
        learn(&resolved, "a.example", 1, 100);
        learn(&resolved, "b.example", 2, 100);
        resolved.want(vec![NamePattern(Pattern::name("b.example").unwrap())]);
        assert_eq!(told(&resolved), [("b.example".to_owned(), 1)]);
    }

    #[test]
    fn there_are_bounds() {
        let resolved = wanting("*");
        let mut number = 0;
        let mut learn = |name: &str, client: usize, count: usize| {
            for _ in 0..count {
                number += 1;
                resolved.tell(name, std::iter::once(ip(number)), ip(client), 5, 100);
            }
        };
        learn("a.example", 0, MOST_ADDRESSES + 1);
        assert_eq!((told(&resolved)[0].1, resolved.turned_away()), (MOST_ADDRESSES, 1));
        for name in 1..MOST_OF_ONE / MOST_ADDRESSES {
            learn(&format!("{name}.example"), 0, MOST_ADDRESSES);
        }
        let left = MOST_OF_ONE % MOST_ADDRESSES;
        learn("last.example", 0, left + 1);
        assert_eq!((resolved.state().count, resolved.turned_away()), (MOST_OF_ONE, 2));
        for name in 0..=(MOST - MOST_OF_ONE) / MOST_ADDRESSES {
            learn(&format!("other{name}.example"), 1 + name / 10, MOST_ADDRESSES);
        }
        assert_eq!(resolved.state().count, MOST);
        resolved.forget(2 * HOUR);
        let state = resolved.state();
        assert_eq!((state.count, state.by_client.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_is_let_go_once_policies_have_it() {
        let resolved = std::sync::Arc::new(wanting("*"));
        let wake = resolved.wakes().unwrap().try_clone_to_owned().unwrap();
        let generation = learn(&resolved, "a.example", 1, 100).unwrap();
        assert!(!resolved.are_taken(generation, Duration::ZERO).await, "nobody follows");
        let waiting = {
            let resolved = std::sync::Arc::clone(&resolved);
            tokio::spawn(async move { resolved.are_taken(generation, Duration::from_mins(1)).await })
        };
        while rustix::io::read(&wake, &mut [0; 8]).is_err() {
            tokio::task::yield_now().await;
        }
        resolved.take(generation - 1);
        resolved.take(generation);
        assert!(waiting.await.unwrap());
        assert!(resolved.are_taken(generation, Duration::ZERO).await);
    }
}

//! Addresses that were looked up lately: the answer without the cache's locks and tables.

use super::ipcache::{Found, IpCache};
use crate::decode::End;
use std::{net::Ipv4Addr, sync::Arc};

/// As a power of two. An address beyond takes the place of another; it only is looked up in the cache again.
const PLACES_LOG2: u32 = 12;
/// For the second of two addresses that belong in one place.
const SPARE: usize = 1 << PLACES_LOG2;

/// Answers of one [`IpCache`], for one thread.
#[derive(Debug)]
pub(super) struct Recent {
    cache: Arc<IpCache>,
    places: Box<[Place]>,
}

/// In one line of the cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Place {
    /// Port 0.
    address: End,
    /// Of the cache when it was asked; the answer holds as long as it stays.
    generation: u64,
    found: Found,
}

impl Recent {
    pub(super) fn new(cache: Arc<IpCache>) -> Self {
        // No time is in its range, so nothing is found here.
        let nothing =
            Found { endpoint: Arc::clone(&cache.reserved().unknown), when: 0..0, is_service: false };
        let address = End::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let place = Place { address, generation: 0, found: nothing };
        Self { cache, places: vec![place; SPARE + 1].into() }
    }

    /// Where it looks.
    pub(super) fn cache(&self) -> &IpCache {
        &self.cache
    }

    /// As [`IpCache::find`] of the addresses of two ends, and the cache.
    #[inline]
    pub(super) fn find(&mut self, ends: [Option<End>; 2], at: u64) -> ([Option<&Found>; 2], &IpCache) {
        // Before the look-up: a change between the two makes the answer newer than it is taken for, never older.
        let generation = self.cache.generation();
        let [source, destination] = ends.map(|end| end.map(|end| end.with_port(0)));
        let mut places = [source, destination].map(|address| address.map(place));
        if places[0] == places[1] && source != destination {
            // Both are wanted at once.
            places[1] = Some(SPARE);
        }
        for (address, place) in [source, destination].into_iter().zip(places) {
            if let (Some(address), Some(place)) = (address, place) {
                self.fill(place, address, at, generation);
            }
        }
        (places.map(|place| place.map(|place| &self.places[place].found)), &self.cache)
    }

    #[inline]
    fn fill(&mut self, place: usize, address: End, at: u64, generation: u64) {
        let place = &mut self.places[place];
        if place.address != address || place.generation != generation || !place.found.when.contains(&at) {
            *place = Place { address, generation, found: self.cache.find(address.ip(), at) };
        }
    }
}

/// Fibonacci hashing: a thousand addresses in a row share no place.
fn place(address: End) -> usize {
    let [high, low, _] = address.words();
    let bits = high.rotate_left(32) ^ low;
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_LOG2)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::source::{Pod, Rank, Window};
    use std::net::IpAddr;

    #[test]
    fn two_addresses_that_share_a_place_are_both_found() {
        let cache = IpCache::new("n1");
        let (pod, ip) = (
            |name: &str, ips| Pod { uid: name.into(), name: name.into(), ips, ..Pod::default() },
            [10, 0, 0, 1],
        );
        cache.upsert_pod(Rank::Inventory, pod("web", vec![ip.into()]), Window::exact(0));
        let mut recent = Recent::new(Arc::new(cache));
        // Four times as many others as there are places.
        let others = (0..64_u8).flat_map(|high| (0..=u8::MAX).map(move |low| [10, 1, high, low]));
        let end = |ip: [u8; 4]| Some(End::new(IpAddr::from(ip), 80));
        let mut shared = 0;
        for other in others {
            shared += u32::from(
                end(ip).map(|end| place(end.with_port(0))) == end(other).map(|end| place(end.with_port(0))),
            );
            for (ends, names) in [([ip, other], ["web", ""]), ([other, ip], ["", "web"])] {
                let (found, _) = recent.find(ends.map(end), 1);
                assert_eq!(found.map(|found| &*found.unwrap().endpoint.pod_name), names, "{other:?}");
            }
        }
        assert!(shared > 0);
    }
}

//! Addresses that were looked up lately: the answer without the cache's locks and tables.

use super::ipcache::{Found, IpCache};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// As a power of two. An address beyond takes the place of another; it only is looked up in the cache again.
const PLACES_LOG2: u32 = 12;

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
    ip: IpAddr,
    /// Of the cache when it was asked; the answer holds as long as it stays.
    generation: u64,
    found: Found,
}

impl Recent {
    pub(super) fn new(cache: Arc<IpCache>) -> Self {
        // No time is in its range, so nothing is found here.
        let nothing =
            Found { endpoint: Arc::clone(&cache.reserved().unknown), when: 0..0, is_service: false };
        let place = Place { ip: Ipv4Addr::UNSPECIFIED.into(), generation: 0, found: nothing };
        Self { cache, places: vec![place; 1 << PLACES_LOG2].into() }
    }

    pub(super) fn cache(&self) -> &IpCache {
        &self.cache
    }

    /// As [`IpCache::find`].
    #[inline]
    pub(super) fn find(&mut self, ip: IpAddr, at: u64) -> &Found {
        // Before the look-up: a change between the two makes the answer newer than it is taken for, never older.
        let generation = self.cache.generation();
        let place = &mut self.places[place(ip)];
        if place.ip != ip || place.generation != generation || !place.found.when.contains(&at) {
            *place = Place { ip, generation, found: self.cache.find(ip, at) };
        }
        &place.found
    }
}

/// Fibonacci hashing: a thousand addresses in a row share no place.
fn place(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let [high, low] = [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64];
            high.rotate_left(32) ^ low
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_LOG2)) as usize
}

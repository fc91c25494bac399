//! Addresses that were looked up lately: the answer without the cache's locks and tables.

use super::ipcache::{Found, IpCache};
use crate::decode::End;
use std::{net::Ipv4Addr, sync::Arc};

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
        Self { cache, places: vec![place; 1 << PLACES_LOG2].into() }
    }

    pub(super) fn cache(&self) -> &IpCache {
        &self.cache
    }

    /// As [`IpCache::find`] of the end's address.
    #[inline]
    pub(super) fn find(&mut self, end: End, at: u64) -> &Found {
        let address = end.with_port(0);
        // Before the look-up: a change between the two makes the answer newer than it is taken for, never older.
        let generation = self.cache.generation();
        let place = &mut self.places[place(address)];
        if place.address != address || place.generation != generation || !place.found.when.contains(&at) {
            *place = Place { address, generation, found: self.cache.find(address.ip(), at) };
        }
        &place.found
    }
}

/// Fibonacci hashing: a thousand addresses in a row share no place.
fn place(address: End) -> usize {
    let [high, low, _] = address.words();
    let bits = high.rotate_left(32) ^ low;
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_LOG2)) as usize
}

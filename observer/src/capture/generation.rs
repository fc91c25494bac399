//! The number by which programs notice that local addresses or policies changed.

use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, MapData};

use super::error::CaptureError;
use super::rings::monotonic;

/// Its lowest bit is the slot of policies that is in force.
pub(super) struct Generation(Mutex<(Array<MapData, u32>, u32)>);

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Generation").field(&self.get()).finish()
    }
}

impl Generation {
    pub(super) fn new(map: Array<MapData, u32>) -> Self {
        Self(Mutex::new((map, 0)))
    }

    /// Goes on behind all numbers that an earlier daemon can have had: it counts changes, and this is the time in
    /// milliseconds, which comes again after 50 days.
    pub(super) fn begin(&self) -> Result<(), CaptureError> {
        self.add((monotonic() >> 20) as u32 & !1).map(|_| ())
    }

    pub(super) fn get(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// What was decided by other tables no longer holds; the slot stays.
    pub(super) fn renew(&self) -> Result<(), CaptureError> {
        self.add(2).map(|_| ())
    }

    /// Puts the other slot in force.
    pub(super) fn flip(&self) -> Result<u32, CaptureError> {
        self.add(1)
    }

    fn add(&self, step: u32) -> Result<u32, CaptureError> {
        // The number stays as it is where it could not be written.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, number) = &mut *inner;
        let next = number.wrapping_add(step);
        map.set(0, next, 0).map_err(CaptureError::map("GENERATION"))?;
        *number = next;
        Ok(next)
    }
}

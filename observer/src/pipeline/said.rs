//! What the stage that reads payload could not tell, for others to read.

use crate::{enrich::Filler, l7::Reader};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why.
pub(crate) const UNTOLD: [&str; 11] = [
    "not parsed: no HTTP, DNS or TLS after all",
    "not parsed: longer than is read",
    "not parsed: bytes are missing",
    "not parsed: HTTP/2",
    "responses without a request",
    "requests without a response",
    "connections given up: what answers what is not certain",
    "connections without room",
    "connections forgotten: no memory",
    "payload without ends",
    "names of DNS without room",
];

/// Counts by [`UNTOLD`].
#[derive(Debug, Default)]
pub(crate) struct Untold([AtomicU64; UNTOLD.len()]);

impl Untold {
    pub(super) fn set(&self, reader: &Reader, filler: &Filler) {
        let (counters, turned) = reader.counters();
        let counted = [
            counters.malformed,
            counters.too_long,
            counters.gaps,
            counters.http2,
            counters.unasked,
            counters.unanswered,
            counters.given_up,
            turned.away,
            turned.forgotten,
            turned.without_ends,
            filler.names_turned_away(),
        ];
        for (shown, counted) in self.0.iter().zip(counted) {
            shown.store(counted, Ordering::Relaxed);
        }
    }

    /// With their names.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        UNTOLD.into_iter().zip(self.0.iter().map(|counter| counter.load(Ordering::Relaxed)))
    }
}

//! Times in Prometheus' own buckets, and examples of them.

use super::page::Page;
use std::time::Duration;

/// Upper bounds in seconds: the defaults of Prometheus' client for Go, which Hubble has.
pub(super) const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// With that of what is longer than all.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;
/// Samples of one on a page: its buckets, the sum, the count.
pub(super) const SAMPLES: usize = BUCKETS + 2;
/// Of W3C's trace context, in hexadecimal digits.
const TRACE_ID: usize = 32;

/// The bucket of such a time.
pub(super) fn bucket(time: Duration) -> usize {
    BOUNDS.partition_point(|bound| *bound < time.as_secs_f64())
}

/// The trace of a request, as an example of what was counted last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    trace: [u8; TRACE_ID],
    pub(super) value: f64,
    /// Unix time in nanoseconds.
    time_ns: i64,
}

impl Exemplar {
    /// Nothing where that is no identifier of a trace.
    pub(super) fn new(trace: &str, value: f64, time_ns: i64) -> Option<Self> {
        let trace: [u8; TRACE_ID] = trace.as_bytes().try_into().ok()?;
        trace.iter().all(u8::is_ascii_hexdigit).then_some(Self { trace, value, time_ns })
    }

    pub(super) fn trace(&self) -> &str {
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }

    /// Unix time.
    pub(super) fn seconds(&self) -> f64 {
        self.time_ns as f64 / 1e9
    }
}

/// What a histogram has counted.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum: Duration,
    pub(super) exemplars: [Option<Exemplar>; BUCKETS],
}

impl Histogram {
    pub(super) fn add(&mut self, time: Duration, exemplar: Option<Exemplar>) {
        let bucket = bucket(time);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(time);
        if exemplar.is_some() {
            self.exemplars[bucket] = exemplar;
        }
    }

    /// Its samples, with these labels before the bucket's.
    pub(super) fn write(&self, page: &mut Page, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (place, (in_it, exemplar)) in self.buckets.iter().zip(&self.exemplars).enumerate() {
            count += in_it;
            let bound = BOUNDS.get(place).map_or("+Inf".to_owned(), |bound| page.bound(*bound));
            let labels = format!("{labels}{comma}le=\"{bound}\"");
            page.written("_bucket", &labels, count, exemplar.as_ref());
        }
        page.written("_sum", labels, self.sum.as_secs_f64(), None);
        page.written("_count", labels, count, None);
    }
}

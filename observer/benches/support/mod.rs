//! What the benches share: how a row is measured and printed, and a world of pods with the records they cause.
#![allow(dead_code, reason = "each bench uses its own part of this")]

#[cfg(feature = "bench")]
pub(crate) mod history;
pub(crate) mod world;

use rustix::time::{ClockId, clock_gettime};

/// Prints a row for the table of `make bench`: the name there, the value, its unit.
pub(crate) fn row(metric: &str, value: f64, unit: &str) {
    println!("BENCH {metric}\t{value:.1}\t{unit}");
}

/// Processor time of this thread, nanoseconds: what others do on the machine is not in it, but for its caches.
pub(crate) fn thread_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// A row of the nanoseconds that one of `items` takes: the median over `rounds`. A first round warms up.
pub(crate) fn time_row(metric: &str, rounds: usize, items: usize, round: impl FnMut()) {
    let times = rounds_ns(rounds, items, round);
    row(metric, times[times.len() / 2], "ns");
    println!("{metric}: fastest round {:.1} ns, slowest {:.1} ns", times[0], times[times.len() - 1]);
}

/// As [`time_row`], the median alone.
pub(crate) fn median_ns(rounds: usize, items: usize, round: impl FnMut()) -> f64 {
    let times = rounds_ns(rounds, items, round);
    times[times.len() / 2]
}

fn rounds_ns(rounds: usize, items: usize, mut round: impl FnMut()) -> Vec<f64> {
    round();
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = thread_ns();
            round();
            (thread_ns() - start) as f64 / items as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Always the same numbers in the same order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % end
    }

    /// `true` in so many of a hundred cases.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

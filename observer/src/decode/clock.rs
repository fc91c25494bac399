//! Kernel time -> unix time.

use rustix::time::{ClockId, clock_gettime};

/// A step back of the wall clock up to this long is waited out; a longer one is a clock that somebody set, and waiting
/// for it would date events wrongly for as long.
const LONGEST_WAIT_NS: i64 = 10_000_000_000;

/// Differences up to this are those of two clocks that can't be read at once, and of a wall clock that is slewed; they
/// are not followed until they add up, so that what a connection's records say of its start is the same.
const NOISE_NS: i64 = 1_000_000;

/// `CLOCK_MONOTONIC`, in which the kernel stamps records, to unix time in nanoseconds.
///
/// The order of kernel times is the order of unix times, also across a change of the wall clock: a record from before
/// the change is dated by the old offset, and after a step back time stands still until it is caught up. Ages are
/// differences of kernel times ([`Clock::kernel_now`]), so none is negative.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Unix time minus kernel time, nanoseconds, as everything here.
    offset: i64,
    previous_offset: i64,
    /// Kernel time of the last measurement that changed the offset.
    changed: u64,
    /// No time after the change is earlier than this.
    floor: i64,
}

impl Clock {
    /// Measures the offset.
    pub fn new() -> Self {
        Self::with_offset(measure())
    }

    /// A clock that is `offset_ns` behind unix time, for tests and replays.
    pub fn with_offset(offset_ns: i64) -> Self {
        Self { offset: offset_ns, previous_offset: offset_ns, changed: 0, floor: i64::MIN }
    }

    /// Measures again, about once a second: kernel time and offset, where that is another one now.
    pub fn drift(&self) -> Option<(u64, i64)> {
        let offset = measure();
        (offset.abs_diff(self.offset) > NOISE_NS.unsigned_abs()).then(|| (Self::kernel_now(), offset))
    }

    /// Unix time minus kernel time as last measured, nanoseconds.
    pub fn offset_ns(&self) -> i64 {
        self.offset
    }

    /// From this kernel time on the offset is another one.
    pub fn change(&mut self, now_ns: u64, offset_ns: i64) {
        let last = self.unix(now_ns);
        let back = last.saturating_sub(signed(now_ns).saturating_add(offset_ns));
        *self = Self {
            offset: offset_ns,
            previous_offset: self.offset,
            changed: now_ns,
            floor: if back > LONGEST_WAIT_NS { i64::MIN } else { last },
        };
    }

    /// Unix time in nanoseconds of a kernel time.
    pub fn unix(&self, kernel_ns: u64) -> i64 {
        let kernel = signed(kernel_ns);
        if kernel_ns < self.changed {
            let before = kernel.saturating_add(self.previous_offset);
            if self.floor == i64::MIN { before } else { before.min(self.floor) }
        } else {
            kernel.saturating_add(self.offset).max(self.floor)
        }
    }

    /// Kernel time now, nanoseconds.
    pub fn kernel_now() -> u64 {
        nanoseconds(ClockId::Monotonic) as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn signed(kernel_ns: u64) -> i64 {
    i64::try_from(kernel_ns).unwrap_or(i64::MAX)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Of a few readings, the one least disturbed between its two clocks.
fn measure() -> i64 {
    (0..5)
        .map(|_| {
            let before = nanoseconds(ClockId::Monotonic);
            let wall = nanoseconds(ClockId::Realtime);
            let took = nanoseconds(ClockId::Monotonic).saturating_sub(before);
            (took, wall.saturating_sub(before.saturating_add(took / 2)))
        })
        .min()
        .map_or(0, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn now_is_now() {
        let clock = Clock::new();
        let wall = nanoseconds(ClockId::Realtime);
        assert!((clock.unix(Clock::kernel_now()) - wall).abs() < 50_000_000);
    }

    #[test]
    fn a_step_back_stands_still_and_keeps_the_order() {
        let mut clock = Clock::with_offset(1_000_000);
        clock.change(500, 1_000_000 - 300);
        let times: Vec<i64> = (0..1500).map(|kernel| clock.unix(kernel)).collect();
        assert!(times.is_sorted());
        assert_eq!(clock.unix(499), 1_000_499);
        assert_eq!(clock.unix(600), 1_000_500);
        assert_eq!(clock.unix(900), 1_000_600);
    }

    #[test]
    fn several_steps_keep_the_order() {
        let mut clock = Clock::with_offset(0);
        clock.change(100, -50);
        clock.change(120, -80);
        clock.change(130, 20);
        let times: Vec<i64> = (100..400).map(|kernel| clock.unix(kernel)).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(clock.unix(399), 419);
    }

    #[test]
    fn a_clock_set_back_by_far_is_taken_over() {
        let mut clock = Clock::with_offset(3_600_000_000_000);
        clock.change(500, 0);
        assert_eq!(clock.unix(501), 501);
    }

    #[test]
    fn a_step_forward_is_taken_over() {
        let mut clock = Clock::with_offset(10);
        clock.change(500, 1000);
        assert_eq!(clock.unix(499), 509);
        assert_eq!(clock.unix(500), 1500);
    }

    /// The wall clock at each second of an hour that it is set in: to where, and what it is then.
    fn set_to(jumps: &[i64]) {
        const SECOND: i64 = 1_000_000_000;
        const START: i64 = 1_800_000_000 * SECOND;
        let mut clock = Clock::with_offset(START);
        let mut offset = START;
        let mut known = Vec::new();
        for second in 1..=60 * jumps.len() {
            let kernel = second as u64 * SECOND as u64;
            if second % 60 == 30 {
                let jump = jumps[second / 60];
                offset += jump;
                clock.change(kernel, offset);
                let wall = signed(kernel) + offset;
                let ahead = clock.unix(kernel) - wall;
                // What it is ahead by is waited out, in order; a clock that was set is followed at once.
                let waits = (-LONGEST_WAIT_NS..0).contains(&jump);
                assert!(if waits { (0..=LONGEST_WAIT_NS).contains(&ahead) } else { ahead == 0 }, "{jump}");
                // A record from before it that comes late is dated by the clock of its own time.
                let late = clock.unix(kernel - 1);
                assert!(known.last().is_none_or(|last| late >= *last), "{jump}");
                if jump >= -LONGEST_WAIT_NS {
                    assert!(late <= clock.unix(kernel), "{jump}");
                } else {
                    known.clear();
                }
            }
            let unix = clock.unix(kernel);
            assert!(known.last().is_none_or(|last| unix >= *last), "{second}: the order is the kernel's");
            known.push(unix);
        }
    }

    #[test]
    fn a_clock_that_jumps_is_followed_in_order() {
        const SECOND: i64 = 1_000_000_000;
        const HOUR: i64 = 3600 * SECOND;
        set_to(&[HOUR, -HOUR, -87_600 * HOUR, 87_600 * HOUR, SECOND, -SECOND, -9 * SECOND, -11 * SECOND, 0]);
    }

    proptest! {
        #[test]
        fn any_jumps_are_followed_in_order(
            jumps in prop::collection::vec(-20_000_000_000..20_000_000_000i64, 1..20)
        ) {
            set_to(&jumps);
        }
    }

    #[test]
    fn no_kernel_time_overflows() {
        let clock = Clock::with_offset(i64::MAX);
        assert_eq!(clock.unix(u64::MAX), i64::MAX);
    }
}

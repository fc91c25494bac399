//! Losses of the stages before the store, told to every open stream with exact sums.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where events were lost, under Hubble's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossSource {
    /// The kernel's ring.
    KernelRing,
    /// A queue between two stages.
    Queue,
}

impl LossSource {
    const ALL: [Self; 2] = [Self::KernelRing, Self::Queue];
}

/// Events lost, summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub source: LossSource,
    /// How many.
    pub count: u64,
    /// Unix time in nanoseconds of the first.
    pub first: i64,
    /// Of the last.
    pub last: i64,
}

/// What one reader knows of the losses.
#[derive(Clone, Debug)]
pub struct LossCursor {
    version: u64,
    totals: [u64; LossSource::ALL.len()],
}

/// Reports kept for the time of the first event; counts don't depend on it.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Losses {
    version: AtomicU64,
    by_source: Mutex<[Sum; LossSource::ALL.len()]>,
}

#[derive(Debug, Default)]
struct Sum {
    total: u64,
    last: i64,
    /// (total after the report, time of its first event)
    reports: VecDeque<(u64, i64)>,
}

impl Losses {
    pub(super) fn report(&self, source: LossSource, count: u64, first: i64, last: i64) {
        if count == 0 {
            return;
        }
        let mut sums = self.lock();
        let sum = &mut sums[source as usize];
        sum.total += count;
        sum.last = last;
        if sum.reports.len() == KEPT {
            // Two oldest become one with the earlier time: a reader that far behind gets a first time not too late.
            if let (Some((_, early)), Some(oldest)) = (sum.reports.pop_front(), sum.reports.front_mut()) {
                oldest.1 = oldest.1.min(early);
            }
        }
        sum.reports.push_back((sum.total, first));
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn cursor(&self) -> LossCursor {
        let sums = self.lock();
        LossCursor {
            version: self.version.load(Ordering::Acquire),
            totals: sums.each_ref().map(|sum| sum.total),
        }
    }

    pub(super) fn is_ahead_of(&self, cursor: &LossCursor) -> bool {
        self.version.load(Ordering::Acquire) != cursor.version
    }

    pub(super) fn take(&self, cursor: &mut LossCursor) -> Vec<Loss> {
        if !self.is_ahead_of(cursor) {
            return Vec::new();
        }
        let sums = self.lock();
        cursor.version = self.version.load(Ordering::Acquire);
        let mut losses = Vec::new();
        for source in LossSource::ALL {
            let (sum, known) = (&sums[source as usize], &mut cursor.totals[source as usize]);
            if sum.total > *known {
                let first =
                    sum.reports.iter().find(|(total, _)| total > known).map_or(sum.last, |(_, time)| *time);
                losses.push(Loss { source, count: sum.total - *known, first, last: sum.last });
                *known = sum.total;
            }
        }
        losses
    }

    /// Held for a few instructions only, so the pipeline may take it too.
    fn lock(&self) -> MutexGuard<'_, [Sum; LossSource::ALL.len()]> {
        self.by_source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

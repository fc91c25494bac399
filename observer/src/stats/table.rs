//! Counts by key, over the last minutes, of a bounded number of keys; what has no row of its own is in the row `other`.

use hashbrown::{Equivalent, HashMap};
use std::{collections::VecDeque, hash::Hash, ops::AddAssign};

/// Counts that can be summed.
pub(super) trait Counts: AddAssign + Copy + Default + PartialEq {
    /// By which rows are ordered, and kept where there are too many.
    fn weight(&self) -> (u64, u64);
}

/// A row's place; none is the row `other`.
pub(super) type Row = Option<u32>;

#[derive(Debug)]
pub(super) struct Table<K, C> {
    most: usize,
    rows: HashMap<K, u32>,
    free: Vec<u32>,
    /// The bucket that is filled: by place, and `other`.
    current: Vec<C>,
    other: C,
    /// Full buckets, newest first; those of no counts are empty.
    past: VecDeque<Bucket<C>>,
    buckets: usize,
    /// Raised when a place may become another key's.
    generation: u64,
    folded: u64,
}

#[derive(Debug, Default)]
struct Bucket<C> {
    rows: Vec<(u32, C)>,
    other: C,
}

impl<K: Eq + Hash + Clone, C: Counts> Table<K, C> {
    /// For `most` rows over `buckets` full buckets and the one that is filled.
    pub(super) fn new(most: usize, buckets: usize) -> Self {
        Self {
            most,
            rows: HashMap::new(),
            free: Vec::new(),
            current: Vec::new(),
            other: C::default(),
            past: VecDeque::new(),
            buckets,
            generation: 1,
            folded: 0,
        }
    }

    /// While it stays, a row that was found is that key's.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Rows that became part of `other`.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    /// The row of the key that `wanted` means, and `make` makes; `other` where there is no room for a new one.
    pub(super) fn row<Q: Equivalent<K> + Hash>(&mut self, wanted: &Q, make: impl FnOnce() -> K) -> Row {
        if let Some(row) = self.rows.get(wanted) {
            return Some(*row);
        }
        let row = match self.free.pop() {
            Some(row) => row,
            None if self.current.len() < self.most => {
                self.current.push(C::default());
                self.current.len() as u32 - 1
            }
            None => return None,
        };
        self.rows.insert(make(), row);
        Some(row)
    }

    pub(super) fn add(&mut self, row: Row, counts: C) {
        match row.and_then(|row| self.current.get_mut(row as usize)) {
            Some(sum) => *sum += counts,
            None => self.other += counts,
        }
    }

    /// Begins a new bucket, and forgets what is older than all of them. Where there is no row left, the lighter half
    /// becomes part of `other`, so that a new key of weight gets a row.
    pub(super) fn turn(&mut self) {
        let filled = self.current.iter_mut().enumerate().map(|(row, sum)| (row as u32, std::mem::take(sum)));
        let rows = filled.filter(|(_, sum)| *sum != C::default()).collect();
        self.past.push_front(Bucket { rows, other: std::mem::take(&mut self.other) });
        self.past.truncate(self.buckets);

        let totals = self.totals(self.buckets);
        let mut gone: Vec<bool> = totals.iter().map(|sum| *sum == C::default()).collect();
        if self.rows.len() == self.most && !self.rows.values().any(|row| gone[*row as usize]) {
            let mut places: Vec<usize> = (0..totals.len()).collect();
            places.sort_unstable_by_key(|place| totals[*place].weight());
            for place in &places[..places.len().div_ceil(2)] {
                gone[*place] = true;
                self.folded += 1;
            }
            for bucket in &mut self.past {
                let other = &mut bucket.other;
                bucket.rows.retain(|(row, sum)| {
                    if gone[*row as usize] {
                        *other += *sum;
                    }
                    !gone[*row as usize]
                });
            }
        }
        let before = self.rows.len();
        let free = &mut self.free;
        self.rows.retain(|_, row| {
            if gone[*row as usize] {
                free.push(*row);
            }
            !gone[*row as usize]
        });
        self.generation += u64::from(self.rows.len() != before);
    }

    /// Sums by place over the bucket that is filled and so many full ones.
    fn totals(&self, buckets: usize) -> Vec<C> {
        let mut totals = self.current.clone();
        for (row, sum) in self.past.iter().take(buckets).flat_map(|bucket| &bucket.rows) {
            totals[*row as usize] += *sum;
        }
        totals
    }

    /// The heaviest keys of the bucket that is filled and so many full ones, and the sum of all that are not among them.
    pub(super) fn window(&self, buckets: usize, limit: usize) -> (Vec<(K, C)>, C) {
        let (rows, other) = self.heaviest(buckets, limit);
        (rows.into_iter().map(|(key, _, sum)| (key.clone(), sum)).collect(), other)
    }

    /// Likewise, each with what `of` says of it in so many equal parts of the full buckets, the newest last.
    pub(super) fn trends(
        &self,
        buckets: usize,
        limit: usize,
        parts: usize,
        of: impl Fn(&C) -> u64,
    ) -> (Vec<(K, C)>, Vec<Vec<u64>>, C) {
        let (rows, other) = self.heaviest(buckets, limit);
        let mut trends = vec![vec![0; parts]; rows.len()];
        let places: HashMap<u32, usize> = rows.iter().enumerate().map(|(at, row)| (row.1, at)).collect();
        for (age, bucket) in self.past.iter().take(buckets).enumerate() {
            let part = parts - 1 - age * parts / buckets;
            for (place, sum) in &bucket.rows {
                if let Some(row) = places.get(place) {
                    trends[*row][part] += of(sum);
                }
            }
        }
        (rows.into_iter().map(|(key, _, sum)| (key.clone(), sum)).collect(), trends, other)
    }

    fn heaviest(&self, buckets: usize, limit: usize) -> (Vec<(&K, u32, C)>, C) {
        let mut other = self.other;
        for bucket in self.past.iter().take(buckets) {
            other += bucket.other;
        }
        let totals = self.totals(buckets);
        let keys = self.rows.iter().map(|(key, row)| (key, *row, totals[*row as usize]));
        let mut rows: Vec<_> = keys.filter(|(.., sum)| *sum != C::default()).collect();
        rows.sort_unstable_by_key(|(.., sum)| std::cmp::Reverse(sum.weight()));
        for (.., sum) in rows.drain(limit.min(rows.len())..) {
            other += sum;
        }
        (rows, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Counts for u64 {
        fn weight(&self) -> (u64, u64) {
            (*self, 0)
        }
    }

    #[test]
    fn a_heavy_key_that_comes_late_gets_a_row() {
        let mut table = Table::new(4, 3);
        for key in 0..6_u32 {
            let row = table.row(&key, || key);
            table.add(row, 1 + u64::from(key));
        }
        assert_eq!(table.window(0, 10), (vec![(3, 4), (2, 3), (1, 2), (0, 1)], 5 + 6));
        let before = table.generation();
        table.turn();
        assert!(table.generation() > before);
        let row = table.row(&9, || 9);
        table.add(row, 100);
        assert_eq!(table.window(1, 10), (vec![(9, 100), (3, 4), (2, 3)], 5 + 6 + 1 + 2));
        assert_eq!(table.folded(), 2);
        table.turn();
        let (rows, trends, _) = table.trends(3, 2, 3, |sum| *sum);
        assert_eq!((rows, trends), (vec![(9, 100), (3, 4)], vec![vec![0, 0, 100], vec![0, 4, 0]]));
        // And all is forgotten in time.
        (0..4).for_each(|_| table.turn());
        assert_eq!(table.window(3, 10), (vec![], 0));
    }

    proptest! {
        #[test]
        fn rows_and_other_are_all_that_was_added(
            adds in prop::collection::vec(prop::option::weighted(0.9, (0..20_u8, 1..5_u64)), 0..300),
            window in 0..5_usize,
            limit in 0..12_usize,
        ) {
            let mut table = Table::new(8, 4);
            let mut buckets = VecDeque::from([0]);
            let mut by_key = std::collections::HashMap::new();
            for add in adds {
                if let Some((key, count)) = add {
                    let row = table.row(&key, || key);
                    table.add(row, count);
                    buckets[0] += count;
                    *by_key.entry(key).or_insert(0) += count;
                } else {
                    table.turn();
                    buckets.push_front(0);
                }
            }
            let (rows, other) = table.window(window, limit);
            prop_assert!(rows.len() <= limit.min(8));
            prop_assert!(rows.iter().all(|(key, sum)| *sum <= by_key[key]));
            let expected: u64 = buckets.iter().take(window.min(4) + 1).sum();
            prop_assert_eq!(rows.iter().map(|(_, sum)| sum).sum::<u64>() + other, expected);
        }
    }
}

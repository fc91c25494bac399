//! Sums by key, of which there may be too many.

use std::{collections::HashMap, hash::Hash, ops::AddAssign};

/// What is counted of a group.
pub trait Counts: AddAssign + Clone + Default {
    /// What makes a group heavier than another, the first number first.
    fn weight(&self) -> (u64, u64);
}

/// At most so many groups; where there are more, the lighter half becomes `other`.
#[derive(Clone, Debug)]
pub struct Groups<K, C> {
    most: usize,
    rows: HashMap<K, C>,
    other: C,
    folded: u64,
}

impl<K: Clone + Eq + Hash + Ord, C: Counts> Groups<K, C> {
    /// With room for `most` groups.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(2), rows: HashMap::new(), other: C::default(), folded: 0 }
    }

    /// Adds to a group.
    pub fn add(&mut self, key: K, counts: C) {
        if let Some(row) = self.rows.get_mut(&key) {
            *row += counts;
            return;
        }
        if self.rows.len() == self.most {
            self.fold();
        }
        self.rows.insert(key, counts);
    }

    /// Adds all that another one holds.
    pub fn merge(&mut self, from: &Self) {
        for (key, counts) in &from.rows {
            self.add(key.clone(), counts.clone());
        }
        self.other += from.other.clone();
        self.folded += from.folded;
    }

    /// Rows that were summed in `other` since the start. A row may lack what was counted before its key was among them.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// The heaviest, of equal ones by their keys, and the sum of all others with their number.
    pub fn heaviest(&self, limit: usize) -> (Vec<(K, C)>, Other<C>) {
        let rows = self.sorted();
        let mut other = Other { rows: self.folded, counts: self.other.clone() };
        for (_, counts) in rows.iter().skip(limit) {
            other.rows += 1;
            other.counts += (*counts).clone();
        }
        let heaviest = rows.into_iter().take(limit).map(|(key, counts)| (key.clone(), counts.clone()));
        (heaviest.collect(), other)
    }

    fn sorted(&self) -> Vec<(&K, &C)> {
        let mut rows: Vec<(&K, &C)> = self.rows.iter().collect();
        rows.sort_unstable_by(|a, b| b.1.weight().cmp(&a.1.weight()).then_with(|| a.0.cmp(b.0)));
        rows
    }

    #[cold]
    fn fold(&mut self) {
        let light: Vec<K> =
            self.sorted().into_iter().skip(self.most / 2).map(|(key, _)| key.clone()).collect();
        for key in light {
            if let Some(counts) = self.rows.remove(&key) {
                self.other += counts;
                self.folded += 1;
            }
        }
    }
}

/// What has no row of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Other<C> {
    /// How many rows there would be more.
    pub rows: u64,
    /// Their sum.
    pub counts: C,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Count(u64);

    impl AddAssign for Count {
        fn add_assign(&mut self, other: Self) {
            self.0 += other.0;
        }
    }

    impl Counts for Count {
        fn weight(&self) -> (u64, u64) {
            (self.0, 0)
        }
    }

    #[test]
    fn the_lighter_half_is_summed() {
        let mut groups = Groups::new(4);
        for (key, count) in [("a", 5), ("b", 1), ("c", 4), ("a", 1), ("d", 2), ("e", 3)] {
            groups.add(key, Count(count));
        }
        assert_eq!(groups.folded(), 2);
        let (rows, other) = groups.heaviest(2);
        assert_eq!(rows, [("a", Count(6)), ("c", Count(4))]);
        assert_eq!(other, Other { rows: 3, counts: Count(1 + 2 + 3) });
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(adds in proptest::collection::vec((0u8..40, 0u64..100), 0..200), most in 0usize..20) {
            let mut groups = Groups::new(most);
            for (key, count) in &adds {
                groups.add(*key, Count(*count));
            }
            let mut merged = Groups::new(most / 2);
            merged.merge(&groups);
            for groups in [groups, merged] {
                let (rows, other) = groups.heaviest(5);
                let sum: u64 = rows.iter().map(|row| row.1.0).sum();
                proptest::prop_assert_eq!(sum + other.counts.0, adds.iter().map(|add| add.1).sum::<u64>());
                proptest::prop_assert!(groups.rows.len() <= groups.most);
            }
        }
    }
}

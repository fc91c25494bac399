//! The daemon's side of tables of lines, see [`observer_ebpf::lines`]: a copy of each, which knows what to write.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use observer_ebpf::lines::{Line, MOST_BEYOND, Shape};

/// No line near by has room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// What a table holds, and which of its lines have changed since they were written.
#[derive(Debug)]
pub(super) struct Lines<L> {
    shape: Shape,
    all: Vec<L>,
    changed: Vec<u32>,
}

impl<L: Line> Lines<L> {
    /// An empty table of so many lines, a power of two.
    pub(super) fn new(lines: usize) -> Self {
        debug_assert!(lines.is_power_of_two());
        let mask = u32::try_from(lines - 1).unwrap_or(u32::MAX);
        let shape = Shape { seed: RandomState::new().build_hasher().finish(), mask, pad: 0 };
        Self { shape, all: vec![L::default(); lines], changed: Vec::new() }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// How many lines so many entries need: a third of the room is left. Few are far from their own lines then.
    pub(super) const fn needed(entries: usize) -> usize {
        (3 * entries).div_ceil(2 * L::ROOM)
    }

    pub(super) fn get(&self, key: &L::Key) -> Option<L::Value> {
        self.place_of(key).map(|(line, place)| self.all[line as usize].value(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&L::Key, L::Value)> {
        self.all.iter().flat_map(entries)
    }

    /// Puts an entry in, or in the place of the one with its key.
    pub(super) fn put(&mut self, key: L::Key, value: L::Value) -> Result<(), Crowded> {
        if let Some((line, place)) = self.place_of(&key) {
            self.all[line as usize].set(place, key, value);
            self.changed.push(line);
            return Ok(());
        }
        let home = self.shape.home(L::words(&key));
        for beyond in 0..=MOST_BEYOND {
            let number = self.shape.behind(home, beyond);
            let line = &mut self.all[number as usize];
            let taken = line.standing().taken;
            if (taken as usize) < L::ROOM {
                line.set(taken as usize, key, value);
                line.standing_mut().taken += 1;
                self.changed.push(number);
                let standing = self.all[home as usize].standing_mut();
                if u32::from(standing.beyond) < beyond {
                    standing.beyond = beyond as u16;
                    self.changed.push(home);
                }
                return Ok(());
            }
        }
        Err(Crowded)
    }

    /// Takes an entry out, if there is one.
    pub(super) fn remove(&mut self, key: &L::Key) {
        let Some((number, place)) = self.place_of(key) else { return };
        let line = &mut self.all[number as usize];
        let last = usize::from(line.standing().taken) - 1;
        line.set(place, *line.key(last), line.value(last));
        line.standing_mut().taken -= 1;
        self.changed.push(number);
        // It may have been the last one that is looked for so far away.
        let home = self.shape.home(L::words(key));
        let before = self.all[home as usize].standing().beyond;
        let belongs = |(key, _): (&L::Key, L::Value)| self.shape.home(L::words(key)) == home;
        let is_needed = |beyond: &u16| {
            entries(&self.all[self.shape.behind(home, (*beyond).into()) as usize]).any(belongs)
        };
        let beyond = (1..=before).rev().find(is_needed).unwrap_or(0);
        if beyond != before {
            self.all[home as usize].standing_mut().beyond = beyond;
            self.changed.push(home);
        }
    }

    /// Lines to be written, each once.
    pub(super) fn take_changed(&mut self) -> impl Iterator<Item = (u32, &L)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().map(|number| (number, &self.all[number as usize]))
    }

    fn place_of(&self, key: &L::Key) -> Option<(u32, usize)> {
        let words = L::words(key);
        let home = self.shape.home(words);
        let beyond = u32::from(self.all[home as usize].standing().beyond);
        (0..=beyond).map(|by| self.shape.behind(home, by)).find_map(|number| {
            let line = &self.all[number as usize];
            let mut keys = (0..line.standing().taken as usize).map(|place| L::words(line.key(place)));
            keys.position(|found| found == words).map(|place| (number, place))
        })
    }
}

/// The entries of one line.
pub(super) fn entries<L: Line>(line: &L) -> impl Iterator<Item = (&L::Key, L::Value)> {
    let taken = usize::from(line.standing().taken);
    (0..taken.min(L::ROOM)).map(|place| (line.key(place), line.value(place)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use observer_ebpf::lines::{Standing, find};
    use observer_ebpf::policy::{PolicyRow, PolicyRowKey, RowLine};

    use super::*;

    const fn key(number: u32) -> PolicyRowKey {
        PolicyRowKey { table: number % 7, peer: number }
    }

    /// What the kernel's map holds, by what was said to be written.
    #[derive(Default)]
    struct Written(HashMap<u32, RowLine>);

    impl Written {
        fn follow(&mut self, table: &mut Lines<RowLine>) {
            for (number, line) in table.take_changed() {
                self.0.insert(number, *line);
            }
        }

        fn get(&self, shape: Shape, key: PolicyRowKey) -> Option<PolicyRow> {
            find(shape, RowLine::words(&key), |line| Some(self.0.get(&line).copied().unwrap_or_default()))
        }
    }

    #[test]
    fn what_was_written_is_found_and_nothing_else() {
        let mut table = Lines::<RowLine>::new(64);
        let (mut written, mut held) = (Written::default(), HashMap::new());
        // As full as a table becomes, with entries that come, change and go.
        for step in 0..20_000_u32 {
            let number = step.wrapping_mul(2_654_435_761) >> 24;
            let row = PolicyRow { begin: step, len: 1 };
            if held.len() < 96 && held.insert(number, row).is_none()
                || held.contains_key(&number) && step % 3 == 0
            {
                held.insert(number, row);
                table.put(key(number), row).unwrap();
            } else {
                held.remove(&number);
                table.remove(&key(number));
            }
            if step % 10 == 0 {
                written.follow(&mut table);
                for number in 0..256 {
                    let found = written.get(table.shape(), key(number));
                    assert_eq!(found, held.get(&number).copied(), "{number} at {step}");
                    assert_eq!(table.get(&key(number)), found);
                }
            }
        }
        let all: HashMap<u32, PolicyRow> = table.iter().map(|(key, row)| (key.peer, row)).collect();
        assert_eq!(all, held);
        for number in held.into_keys() {
            table.remove(&key(number));
        }
        assert!(table.all.iter().all(|line| *line.standing() == Standing::default()));
    }

    #[test]
    fn a_key_of_zeros_is_in_no_empty_place() {
        let mut table = Lines::<RowLine>::new(1);
        assert_eq!(table.get(&PolicyRowKey::default()), None);
        table.put(PolicyRowKey::default(), PolicyRow { begin: 3, len: 1 }).unwrap();
        assert_eq!(table.get(&PolicyRowKey::default()), Some(PolicyRow { begin: 3, len: 1 }));
        table.remove(&PolicyRowKey::default());
        assert_eq!(table.get(&PolicyRowKey::default()), None);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = Lines::<RowLine>::new(2);
        let row = PolicyRow { begin: 0, len: 1 };
        for number in 0..6 {
            table.put(key(number), row).unwrap();
        }
        assert_eq!(table.put(key(6), row), Err(Crowded));
        assert_eq!(table.put(key(5), PolicyRow { begin: 9, len: 1 }), Ok(()));
        assert_eq!(table.get(&key(5)).unwrap().begin, 9);
    }
}

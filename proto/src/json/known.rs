//! Ends that were written or read before. Most flows are between few ends, and an end is most of a flow, so what became of
//! one is kept by its bytes.

/// Sets, a power of two, and ends in each.
const SETS: usize = 512;
const WAYS: usize = 8;
/// Longer ones are made each time.
const LONGEST: usize = 4096;
/// By so many of its first bytes an end finds its set: its numbers and its namespace stand there. The pods of a workload on
/// other nodes have the same.
const PREFIX: usize = 48;

/// So many of its last bytes hold an end's name, and its workloads behind it.
const END: usize = 128;

/// What was made of the ends of late. Of a set the one that was met longest ago goes.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<[Entry; WAYS]>);

#[derive(Clone, Debug, Default)]
struct Entry {
    from: Box<[u8]>,
    made: Box<[u8]>,
}

/// Where an end is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Known {
    /// Whether nothing was looked for yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was made of the end that these bytes are.
    #[inline]
    pub(super) fn of(&mut self, bytes: &[u8]) -> Result<&[u8], Place> {
        self.find(bytes, |from| from.len() == bytes.len() && is_same(from, bytes)).map(|entry| &*entry.made)
    }

    /// The end that this text begins with, which no other one can begin with, and what was made of it.
    #[inline]
    pub(super) fn at_the_begin_of(&mut self, text: &[u8]) -> Result<(usize, &[u8]), Place> {
        let begins_with = |from: &[u8]| text.get(..from.len()).is_some_and(|begin| is_same(from, begin));
        self.find(text, begins_with).map(|entry| (entry.from.len(), &*entry.made))
    }

    fn find(&mut self, bytes: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Result<&Entry, Place> {
        if self.0.is_empty() {
            self.0.resize(SETS, <[Entry; WAYS]>::default());
        }
        let place = set_of(bytes);
        let set = &mut self.0[place];
        let found = set.iter().position(|entry| !entry.from.is_empty() && is_it(&entry.from));
        let Some(found) = found else { return Err(Place(place)) };
        set[..=found].rotate_right(1);
        Ok(&set[0])
    }

    /// Keeps what was made of an end.
    pub(super) fn keep(&mut self, Place(place): Place, from: &[u8], made: &[u8]) {
        if from.len() > LONGEST || made.len() > LONGEST {
            return;
        }
        let set = &mut self.0[place];
        set.rotate_right(1);
        set[0] = Entry { from: from.into(), made: made.into() };
    }
}

/// Whether two of the same length are the same. Pods of a workload differ in their names only, which stand near the end.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let near_end = one.len().saturating_sub(END);
    one[near_end..] == other[near_end..] && one[..near_end] == other[..near_end]
}

fn set_of(bytes: &[u8]) -> usize {
    let prefix = &bytes[..bytes.len().min(PREFIX)];
    let (words, rest) = prefix.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // Multiplied by the golden ratio, as a hash for tables is; nobody gains by what collides.
    let mix = |hash: u64, word: &[u8; 8]| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hash = words.iter().chain([&last]).fold(0, mix);
    (hash >> 32) as usize & (SETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_by_all_of_its_bytes_and_the_oldest_goes() {
        let mut known = Known::default();
        let prefix = "x".repeat(PREFIX);
        let end = |number: usize| format!("{prefix}{number}}}").into_bytes();
        for number in 0..=WAYS {
            let Err(place) = known.of(&end(number)) else { panic!("{number} was never met") };
            known.keep(place, &end(number), &number.to_le_bytes());
        }
        let (last, made) = (end(WAYS), WAYS.to_le_bytes());
        assert_eq!(known.of(&last).unwrap(), made);
        let followed = [&last[..], b",more"].concat();
        assert_eq!(known.at_the_begin_of(&followed).unwrap(), (last.len(), &made[..]));
        assert!(known.of(&followed).is_err());
        assert!(known.of(&end(0)).is_err(), "the oldest of a full set");
        assert!(known.of(b"").is_err() && known.at_the_begin_of(&last[..PREFIX]).is_err());
        let long = vec![b'y'; LONGEST + 1];
        let Err(place) = known.of(&long) else { panic!("it was never met") };
        known.keep(place, &long, b"");
        assert!(known.of(&long).is_err());
    }
}

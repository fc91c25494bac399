//! Ends that were written or read before. Most flows are between few ends, and an end is most of a flow, so what became of
//! one is kept by its bytes.

/// Sets, a power of two, and the most ends in one: the pods of a workload are in one. Of a full set the end that was met
/// longest ago goes.
const SETS: usize = 512;
const WAYS: usize = 32;
/// So many are kept in all; then all are forgotten, and those that come again are kept again.
const MOST: usize = 4096;
/// Longer ones are made each time.
const LONGEST: usize = 4096;
/// By so many of its first bytes an end finds its set: its numbers and its namespace stand there. The pods of a workload on
/// other nodes have the same.
const PREFIX: usize = 48;

/// So many of its last bytes hold an end's name, and its workloads behind it: by these the ends of a set are told apart
/// without a look at all of their bytes, most of which are in no cache.
const SUFFIX: usize = 128;

/// What was made of the ends of late. Of a set the ones that were met last stand first.
#[derive(Debug, Default)]
pub(super) struct Known {
    sets: Vec<Vec<Entry>>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The hash of `from`'s last bytes.
    suffix: u64,
    from: Box<[u8]>,
    made: Box<[u8]>,
}

/// Where an end is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Known {
    /// Whether nothing was looked for yet.
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// What was made of the end that these bytes are.
    #[inline]
    pub(super) fn of(&mut self, bytes: &[u8]) -> Result<&[u8], Place> {
        self.find(bytes, |from| from.len() == bytes.len()).map(|entry| &*entry.made)
    }

    /// The end that this text begins with, which no other one can begin with, and what was made of it.
    #[inline]
    pub(super) fn at_the_begin_of(&mut self, text: &[u8]) -> Result<(usize, &[u8]), Place> {
        self.find(text, |from| from.len() <= text.len()).map(|entry| (entry.from.len(), &*entry.made))
    }

    /// The entry that `text` begins with, of those that may be it.
    fn find(&mut self, text: &[u8], may_be: impl Fn(&[u8]) -> bool) -> Result<&Entry, Place> {
        if self.sets.is_empty() {
            self.sets.resize(SETS, Vec::new());
        }
        let place = set_of(text);
        let set = &mut self.sets[place];
        // Most ends of a set are of one length.
        let mut begin: &[u8] = &[];
        let mut suffix = suffix_of(begin);
        let found = set.iter().position(|entry| {
            if !may_be(&entry.from) {
                return false;
            }
            if begin.len() != entry.from.len() {
                begin = &text[..entry.from.len()];
                suffix = suffix_of(begin);
            }
            entry.suffix == suffix && *entry.from == *begin
        });
        let Some(found) = found else { return Err(Place(place)) };
        set[..=found].rotate_right(1);
        Ok(&set[0])
    }

    /// Keeps what was made of an end.
    pub(super) fn keep(&mut self, Place(place): Place, from: &[u8], made: &[u8]) {
        if from.len() > LONGEST || made.len() > LONGEST {
            return;
        }
        if self.count == MOST {
            self.sets.iter_mut().for_each(Vec::clear);
            self.count = 0;
        }
        let set = &mut self.sets[place];
        if set.len() == WAYS {
            set.pop();
            self.count -= 1;
        }
        set.insert(0, Entry { suffix: suffix_of(from), from: from.into(), made: made.into() });
        self.count += 1;
    }
}

fn set_of(text: &[u8]) -> usize {
    (hash(&text[..text.len().min(PREFIX)]) >> 32) as usize & (SETS - 1)
}

fn suffix_of(text: &[u8]) -> u64 {
    hash(&text[text.len().saturating_sub(SUFFIX)..])
}

/// Nobody gains by what collides.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // Multiplied by the golden ratio, as a hash for tables is.
    let mix = |hash: u64, word: &[u8; 8]| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    words.iter().chain([&last]).fold(0, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_by_all_of_its_bytes() {
        let mut known = Known::default();
        let (one, made) = (format!("{}-one}}", "x".repeat(PREFIX + SUFFIX)).into_bytes(), [1, 2]);
        let Err(place) = known.of(&one) else { panic!("it was never met") };
        known.keep(place, &one, &made);
        assert_eq!(known.of(&one).unwrap(), made);
        let followed = [&one[..], b",more"].concat();
        assert_eq!(known.at_the_begin_of(&followed).unwrap(), (one.len(), &made[..]));
        assert!(known.of(&followed).is_err() && known.at_the_begin_of(&one[..one.len() - 1]).is_err());
        for at in 0..one.len() {
            let mut other = one.clone();
            other[at] ^= 1;
            assert!(known.of(&other).is_err() && known.at_the_begin_of(&other).is_err(), "byte {at}");
        }
        assert!(known.of(b"").is_err());
        let long = vec![b'y'; LONGEST + 1];
        let Err(place) = known.of(&long) else { panic!("it was never met") };
        known.keep(place, &long, b"");
        assert!(known.of(&long).is_err(), "too long to be kept");
    }

    #[test]
    fn the_oldest_of_a_full_set_goes_and_all_when_there_are_too_many() {
        let mut known = Known::default();
        let keep = |known: &mut Known, text: &str| {
            let Err(place) = known.of(text.as_bytes()) else { panic!("{text} was met before") };
            known.keep(place, text.as_bytes(), b"made");
        };
        let of_a_set = |number: usize| format!("{}{number}", "x".repeat(PREFIX));
        (0..=WAYS).for_each(|number| keep(&mut known, &of_a_set(number)));
        assert!(known.of(of_a_set(0).as_bytes()).is_err() && known.of(of_a_set(1).as_bytes()).is_ok());
        // Of other sets, a few of which may get more than there is room for.
        (0..2 * MOST).for_each(|number| keep(&mut known, &format!("{number:08}")));
        assert!(known.of(of_a_set(1).as_bytes()).is_err() && known.count <= MOST);
        assert_eq!(known.count, known.sets.iter().map(Vec::len).sum::<usize>());
    }
}

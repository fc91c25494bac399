//! Tables by exact key that cost a reader one miss of the cache: an array of lines of 64 bytes, or of pairs of them that are
//! read at once, each with the entries whose keys belong there by their hash. The daemon writes them, the programs only read.
//!
//! What has no room in its own line stands in one of the next; how far to look is said in its own. The kernel's hash maps
//! cost three lines an entry, which lie far apart, and a lock where they are changed.

#![expect(clippy::inline_always, reason = "a subprogram would lose what the verifier knows of its arguments")]

use core::borrow::Borrow;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many lines behind its own an entry may stand: the table is to be made larger before that.
pub const MOST_BEYOND: u32 = 63;
/// Its own and those: an inclusive range would be a flag more in each round.
const LINES: u32 = MOST_BEYOND + 1;

/// How a table's lines are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Shape {
    /// Whoever chooses keys is not to choose their lines.
    pub seed: u64,
    /// The number of lines, a power of two, less one.
    pub mask: u32,
    /// Always 0.
    pub pad: u32,
}

impl Shape {
    /// A key's own line.
    #[inline(always)]
    #[must_use]
    pub const fn home(&self, [a, b]: Words) -> u32 {
        // The multipliers are those of splitmix64, whose last steps these are; each half of a product is mixed down, since
        // addresses differ in their last bytes mostly.
        let mut hash = (a ^ self.seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 32;
        hash = (hash ^ b).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 29;
        hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (hash >> 32) as u32 & self.mask
    }

    /// The line so many behind another; behind the last is the first.
    #[inline(always)]
    #[must_use]
    pub const fn behind(&self, line: u32, by: u32) -> u32 {
        line.wrapping_add(by) & self.mask
    }
}

/// A key as two numbers.
pub type Words = [u64; 2];

/// One line.
pub trait Line: Copy + Default {
    /// By what an entry is found.
    type Key: Copy;
    /// What is said of it.
    type Value: Copy;
    /// How many entries a line has room for.
    const ROOM: usize;

    /// A key as two numbers.
    fn words(key: &Self::Key) -> Words;
    /// The key in a place.
    fn key(&self, place: usize) -> &Self::Key;
    /// The key in a place as two numbers.
    fn words_at(&self, place: usize) -> Words;
    /// The value in a place.
    fn value(&self, place: usize) -> Self::Value;
    /// Puts an entry into a place.
    fn set(&mut self, place: usize, key: Self::Key, value: Self::Value);
    /// How the line stands.
    fn standing(&self) -> &Standing;
    /// Likewise, to be changed.
    fn standing_mut(&mut self) -> &mut Standing;
}

/// What is known of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Standing {
    /// How many of its places are taken, the first ones.
    pub taken: u16,
    /// How many lines behind it entries may stand that belong here; at most [`MOST_BEYOND`].
    pub beyond: u16,
}

/// Looks for a key in lines that `read` reads.
#[inline(always)]
pub fn find<L: Line, R: Borrow<L>>(
    shape: Shape,
    words: Words,
    read: impl Fn(u32) -> Option<R>,
) -> Option<L::Value> {
    let home = shape.home(words);
    let mut beyond = 0;
    for behind in 0..LINES {
        let line = read(shape.behind(home, behind))?;
        let line = line.borrow();
        let Standing { taken, beyond: further } = *line.standing();
        for place in 0..L::ROOM {
            let [a, b] = line.words_at(place);
            if (a ^ words[0]) | (b ^ words[1]) == 0 && place < taken as usize {
                return Some(line.value(place));
            }
        }
        if behind == 0 {
            beyond = u32::from(further);
        }
        if behind >= beyond {
            break;
        }
    }
    None
}

//! Flows on the disk, so that readers reach past the store and past a restart.
//!
//! A keeper, in a thread of its own, follows the store by a cursor. It collects flows in a draft; a full draft becomes a
//! *piece*: columns of numbers, what flows have in common by numbers into lists, packed by zstd, with checksums. Pieces are
//! appended to files, of which whole ones are removed when there are too many or they are too old. What has no piece yet
//! stands in small ones in a file of its own, which the next start makes a piece of; so no more is lost than what came
//! within the loss bound, and pieces are large all the same.
//!
//! Sequence numbers go on from life to life, so a number is a place in the files and in the store alike. A reader takes a
//! flow from the store where it is there, else from its piece.

mod counters;
mod draft;
mod files;
mod forms;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keeper;
mod numbers;
mod open;
mod piece;
mod segment;
#[cfg(test)]
mod tests;

pub use counters::Counts;
#[cfg(feature = "bench")]
pub use keeper::Here;
pub use keeper::{Keeper, Running};
pub use piece::{KnownEnds, Piece};

use counters::Counters;
use files::Index;
use frame::Place;
use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Readers that may have a piece in memory at a time.
const READERS: usize = 32;
/// How long a reader waits for a piece of flows that the store has no more: the keeper may wait for a disk.
const SEAL: Duration = Duration::from_secs(1);
/// The number of a life stands above that of a flow in it: what was shown and not written before a fall has numbers that
/// no later flow gets.
const LIFE_BITS: u32 = 40;

/// Where flows are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// The folder, for one daemon alone.
    pub folder: PathBuf,
    /// The most bytes of its files.
    pub most_bytes: u64,
    /// Files whose flows are all older are removed.
    pub most_age: Duration,
    /// What may be lost when the daemon or the machine falls: flows of this time.
    pub most_loss: Duration,
}

/// Why there can be no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder can't be used.
    #[error("--history {}: {error}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another daemon writes there.
    #[error("--history {}: another observer keeps its flows there: name another folder, or stop it first", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
}

/// The pieces that there are; shared by the keeper and readers.
#[derive(Debug)]
pub struct History {
    life: u64,
    first: u64,
    most_bytes: u64,
    index: Arc<Index>,
    counters: Arc<Counters>,
    /// Every flow of this life below is in a piece, or lost.
    sealed: watch::Sender<u64>,
    /// Readers want this one to be.
    wanted: watch::Sender<u64>,
    readers: Arc<Semaphore>,
    /// Nobody else writes to the folder while it is open.
    _lock: File,
}

/// What is next for a reader.
#[derive(Debug)]
pub struct Next {
    /// So many flows from its position on are in no piece any more.
    pub lost: u64,
    /// The next piece; without, there is none.
    pub piece: Option<Location>,
}

/// Where a piece is.
#[derive(Clone, Debug)]
pub struct Location {
    path: PathBuf,
    place: Place,
}

impl Location {
    /// Sequence number of its first flow.
    pub fn base(&self) -> u64 {
        self.place.base
    }

    /// Sequence number behind its last flow.
    pub fn end(&self) -> u64 {
        self.place.end()
    }
}

impl History {
    /// By which flows' ids are told from those of other histories; the same in every life.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Sequence number of the first flow of this life.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// What it tells of itself.
    pub fn counts(&self) -> Counts {
        let segments = self.index.read();
        let oldest = segments.first().and_then(|segment| segment.pieces.first());
        Counts {
            most_bytes: self.most_bytes,
            flows: segments.iter().map(|segment| segment.flows).sum(),
            oldest_ns: oldest.map(|place| place.first_ns),
            ..self.counters.read()
        }
    }

    /// Sequence number of the oldest flow that is in a piece.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.index.read().first()?.pieces.first()?.base)
    }

    /// How many flows from `from` on and before `end` are in pieces.
    pub fn count(&self, from: u64, end: u64) -> u64 {
        let within = |place: &Place| place.end().min(end).saturating_sub(place.base.max(from));
        self.index.read().iter().flat_map(|segment| &segment.pieces).map(within).sum()
    }

    /// Every flow of this life below this number is in a piece, or lost.
    pub fn sealed(&self) -> u64 {
        *self.sealed.borrow()
    }

    /// A number before which no flow is from `since` or later, where pieces have such flows. Times may go back, where the
    /// wall clock was set back, so there may be older flows behind it.
    pub fn start_of(&self, since: i64) -> Option<u64> {
        let segments = self.index.read();
        let segment = segments.iter().find(|segment| segment.last_ns >= since)?;
        segment.pieces.iter().find(|place| place.last_ns >= since).map(|place| place.base)
    }

    /// The first piece with a flow from `position` on and before `end` that may be within these times, if there is one.
    pub fn next(&self, position: u64, end: u64, since: Option<i64>, until: Option<i64>) -> Next {
        let segments = self.index.read();
        let (mut at, mut lost) = (position, 0);
        let first = segments.partition_point(|segment| segment.end() <= position);
        for segment in &segments[first..] {
            let first = segment.pieces.partition_point(|place| place.end() <= position);
            for place in segment.pieces[first..].iter().take_while(|place| place.base < end) {
                lost += gap(at, place.base);
                at = place.end();
                if place.overlaps(since, until) {
                    return Next {
                        lost,
                        piece: Some(Location { path: segment.path.clone(), place: *place }),
                    };
                }
            }
        }
        Next { lost: lost + gap(at, self.sealed().min(end)), piece: None }
    }

    /// The last piece that begins before `end`.
    pub fn before(&self, end: u64) -> Option<Location> {
        let segments = self.index.read();
        let behind =
            |segment: &&segment::Segment| segment.pieces.first().is_some_and(|place| place.base < end);
        let segment = segments.iter().rev().find(behind)?;
        let place = segment.pieces.iter().rev().find(|place| place.base < end)?;
        Some(Location { path: segment.path.clone(), place: *place })
    }

    /// Reads a piece; nothing where it was removed meanwhile, or is not what was written.
    pub fn read(&self, location: &Location, known: &mut KnownEnds) -> Option<Piece> {
        let Location { path, place } = location;
        let packed = File::open(path).and_then(|file| segment::read(&file, place));
        let packed = match packed {
            Ok(packed) => packed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.damaged(location, &error.to_string()),
        };
        let content = frame::unpack(place, &packed);
        let piece = content.and_then(|content| Piece::open(place.base, place.flows as usize, content, known));
        piece.or_else(|| self.damaged(location, "it is not what was written"))
    }

    /// The flows of a piece; counted where they can't be read.
    pub fn flows(&self, piece: &Piece, location: &Location) -> Option<Arc<crate::store::Store>> {
        piece.store().or_else(|| self.damaged(location, "it is not what was written"))
    }

    fn damaged<T>(&self, Location { path, place }: &Location, why: &str) -> Option<T> {
        // Whoever reads it meets it again.
        if self.counters.damaged.fetch_add(1, Ordering::Relaxed) == 0 {
            let (path, at) = (path.display(), place.at);
            tracing::warn!("{path}: the piece at byte {at} can't be read: {why}; its flows are lost");
        }
        None
    }

    /// Has the flows below this number in pieces, if the disk takes them in time.
    pub async fn seal(&self, below: u64) {
        if self.sealed() >= below {
            return;
        }
        self.wanted.send_if_modified(|wanted| {
            let is_more = *wanted < below;
            *wanted = below.max(*wanted);
            is_more
        });
        let mut sealed = self.sealed.subscribe();
        // Without it, they are lost to this reader.
        let _ = tokio::time::timeout(SEAL, sealed.wait_for(|sealed| *sealed >= below)).await;
    }

    /// A place for a reader with a piece in memory, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).try_acquire_owned().ok()
    }
}

/// Flows that are missing between these two numbers: none where another life began.
fn gap(from: u64, to: u64) -> u64 {
    if from >> LIFE_BITS == to >> LIFE_BITS { to.saturating_sub(from) } else { 0 }
}

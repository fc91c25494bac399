//! The ends that the flows of some segments have: a reader can ask about each end once instead of about those of each flow.

use crate::endpoint::Endpoint;
use observer_proto::filter::mark;
use std::{
    iter,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Places in the first room; each further one has twice as many as the one before.
const FIRST_ROOM: usize = 64;
const ROOMS: usize = 12;

/// With its mark: most ends are passed over by that alone.
type Room = Box<[OnceLock<(u64, Arc<Endpoint>)>]>;

/// A list that one writer appends to while others read it. Segments that share one keep it.
#[derive(Debug)]
pub struct Ends {
    id: u64,
    first: u64,
    rooms: [OnceLock<Room>; ROOMS],
    count: AtomicUsize,
}

impl Ends {
    /// The most flows of the segments that share a list, but for its last segment.
    pub(super) const MOST_FLOWS: usize = 32 * 1024;

    /// For the segments from sequence number `first` on.
    pub(super) fn new(first: u64) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        Self { id, first, rooms: Default::default(), count: AtomicUsize::new(0) }
    }

    /// No other list has it in the life of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sequence number of the first flow; no other list of this store has it.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many there are; those of all flows that can be read are among them.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Those from a place on, each with its [`mark`].
    pub fn from(&self, place: usize) -> impl Iterator<Item = (u64, &Endpoint)> {
        let places = place..self.count();
        places.filter_map(|place| {
            let (room, at) = find(place);
            self.rooms.get(room)?.get()?.get(at)?.get().map(|(mark, end)| (*mark, &**end))
        })
    }

    /// By the writer alone.
    #[cold]
    pub(super) fn push(&self, end: &Arc<Endpoint>) {
        let place = self.count.load(Ordering::Relaxed);
        let (room, at) = find(place);
        let make = || iter::repeat_with(OnceLock::new).take(FIRST_ROOM << room).collect::<Room>();
        let added = self.rooms.get(room).and_then(|room| room.get_or_init(make).get(at));
        let added = added
            .is_some_and(|free| free.set((mark(&end.namespace, &end.pod_name), Arc::clone(end))).is_ok());
        debug_assert!(added, "place {place} of the list of ends");
        self.count.store(place + 1, Ordering::Release);
    }
}

/// Which room, and where in it.
fn find(place: usize) -> (usize, usize) {
    let room = (place / FIRST_ROOM + 1).ilog2() as usize;
    (room, place - FIRST_ROOM * ((1 << room) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::writer::SEGMENT;

    #[test]
    fn the_rooms_are_large_enough() {
        let ends = Ends::new(7);
        let end = Arc::new(Endpoint::default());
        // Two of each flow, and those of the last segment.
        let most = 2 * (Ends::MOST_FLOWS + SEGMENT);
        for _ in 0..most {
            ends.push(&end);
        }
        assert_eq!((ends.count(), ends.from(0).count(), ends.from(most - 3).count()), (most, most, 3));
    }
}

//! The node's connections as nf_conntrack knows them: who opened each, and which addresses were translated.

use super::{
    connection::{Entry, Translation, Update},
    slot::Slot,
};
use crate::decode::Tuple;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::{collections::VecDeque, hash::BuildHasher as _, num::NonZeroU64};

/// The same for a connection's tuple in both directions.
#[inline]
fn hash_of(tuple: &Tuple, hasher: &DefaultHashBuilder) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let ends = hasher.hash_one(tuple.source).wrapping_add(hasher.hash_one(tuple.destination));
    ends.wrapping_add(u64::from(tuple.protocol).wrapping_mul(SPREAD))
}

/// One of the views of a connection, in four bytes: a cache holds those of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View(u32);

impl View {
    fn new(slot: u32, number: u32) -> Self {
        Self(slot << 2 | number)
    }

    fn slot(self) -> u32 {
        self.0 >> 2
    }

    /// Whether a packet that it is a view of shows `tuple`, one way or the other.
    fn shows(self, slots: &[Option<Slot>], tuple: &Tuple) -> bool {
        let slot = slots.get(self.slot() as usize).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.view(self.0 & 3).is_of(tuple))
    }
}

/// Where a packet's connection is likely to be found: the first half of a look-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    hash: u64,
    view: View,
}

/// Bounds of a [`ConntrackTable`].
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Most connections held, ended ones included. One takes about 90 bytes, a translated one 160.
    pub entries: usize,
    /// How long an ended connection is kept for records that come late, nanoseconds.
    pub grace_ns: u64,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { entries: 131_072, grace_ns: 10_000_000_000 }
    }
}

/// What happened to the table so far. `added = entries now + replaced + expired + displaced`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Connections taken in.
    pub added: u64,
    /// Connections turned away because the table was full of live ones.
    pub turned_away: u64,
    /// Connections whose tuple a new connection took.
    pub replaced: u64,
    /// Ended connections dropped after the grace.
    pub expired: u64,
    /// Ended connections dropped earlier to make room.
    pub displaced: u64,
    /// Connections that a dump no longer told of.
    pub missed_ends: u64,
    /// Ends of connections that the table didn't hold.
    pub unknown_ends: u64,
}

/// Connections by each tuple that a packet of theirs can show.
#[derive(Debug)]
pub struct ConntrackTable {
    limits: TableLimits,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// By the hash of the tuple, see [`hash_of`].
    views: HashTable<View>,
    hasher: DefaultHashBuilder,
    /// Ended connections in the order of their ends; slots may have been reused since.
    ended: VecDeque<(NonZeroU64, u32, u32)>,
    generation: u32,
    counters: TableCounters,
}

impl ConntrackTable {
    /// An empty table.
    pub fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            views: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ended: VecDeque::new(),
            generation: 0,
            counters: TableCounters::default(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// Connections held, ended ones included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what the kernel told.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::New(entry) => self.insert(*entry),
            Update::End(id, original, now_ns) => self.end(*id, original, *now_ns),
            Update::DumpBegins => self.begin_dump(),
            Update::DumpEnds(now_ns) => self.finish_dump(*now_ns),
            Update::Overrun => {}
        }
    }

    /// The kernel told of a connection, by an event or in a dump.
    pub fn insert(&mut self, entry: Entry) {
        if let Some(index) = self.opened_by(&entry.original) {
            let generation = self.generation;
            if let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::as_mut)
                && slot.entry() == entry
            {
                // A dump that was under way may still tell of an ended one; a later dump that does so is right.
                if slot.seen < generation {
                    slot.ended_ns = None;
                }
                slot.seen = generation;
                return;
            }
            self.remove(index);
            self.counters.replaced += 1;
        }
        if self.len() >= self.limits.entries && !self.displace() {
            self.counters.turned_away += 1;
            return;
        }
        let slot = Some(Slot::new(&entry, self.generation));
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            index
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        let Self { slots, views, hasher, .. } = self;
        for number in 0..3 {
            let (view, tuple) = (View::new(index, number), entry.view(number));
            let hash = hash_of(&tuple, hasher);
            // One that another connection has, or that this one has already.
            if let Some(known) = views.find_mut(hash, |known| known.shows(slots, &tuple)) {
                *known = view;
            } else {
                views.insert_unique(hash, view, |view| hash_of_view(*view, slots, hasher));
            }
        }
        self.counters.added += 1;
    }

    /// The kernel told of a connection's end. It stays for the grace.
    pub fn end(&mut self, id: u32, original: &Tuple, now_ns: u64) {
        match self.opened_by(original) {
            Some(index) if self.slot(index).is_some_and(|slot| slot.id == id) => {
                self.end_slot(index, now_ns);
            }
            _ => self.counters.unknown_ends += 1,
        }
    }

    fn end_slot(&mut self, index: u32, now_ns: u64) {
        let generation = self.generation;
        if let Some(Some(slot)) = self.slots.get_mut(index as usize)
            && slot.ended_ns.is_none()
        {
            let ended_ns = NonZeroU64::new(now_ns).unwrap_or(NonZeroU64::MIN);
            slot.ended_ns = Some(ended_ns);
            slot.seen = generation;
            self.ended.push_back((ended_ns, index, slot.id));
        }
    }

    /// A dump begins: what it doesn't tell of has ended unnoticed.
    pub fn begin_dump(&mut self) {
        self.generation += 1;
    }

    /// The dump is whole.
    pub fn finish_dump(&mut self, now_ns: u64) {
        let missing: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|index| {
                self.slot(*index).is_some_and(|slot| slot.seen < self.generation && slot.ended_ns.is_none())
            })
            .collect();
        self.counters.missed_ends += missing.len() as u64;
        for index in missing {
            self.end_slot(index, now_ns);
        }
    }

    /// Drops ended connections whose grace is over.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some(&(ended_ns, index, id)) = self.ended.front()
            && now_ns.saturating_sub(ended_ns.get()) >= self.limits.grace_ns
        {
            self.ended.pop_front();
            if self.is_ended(index, id, ended_ns) {
                self.remove(index);
                self.counters.expired += 1;
            }
        }
    }

    /// What is known of a packet with this tuple, seen at any hook.
    ///
    /// With `opened_ns`, the packet opens a connection at this kernel time, so a connection that had ended by then is
    /// another one.
    pub fn translate(&self, tuple: &Tuple, opened_ns: Option<u64>) -> Option<Translation> {
        self.translation(self.find(self.hash(tuple))?, tuple, opened_ns)
    }

    /// By which a tuple's connection is found.
    #[inline]
    pub(super) fn hash(&self, tuple: &Tuple) -> u64 {
        hash_of(tuple, &self.hasher)
    }

    /// The first half of [`ConntrackTable::translate`].
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<Found> {
        // The first that may be it nearly always is; to be sure takes a look into its slot, which is the second half's.
        self.views.find(hash, |_| true).map(|view| Found { hash, view: *view })
    }

    /// The second half of [`ConntrackTable::translate`].
    #[inline]
    pub(super) fn translation(
        &self,
        Found { hash, view }: Found,
        tuple: &Tuple,
        opened_ns: Option<u64>,
    ) -> Option<Translation> {
        let shows = |view: &View| view.shows(&self.slots, tuple);
        let view = if shows(&view) { view } else { *self.views.find(hash, shows)? };
        let slot = self.slot(view.slot())?;
        if let (Some(opened), Some(ended)) = (opened_ns, slot.ended_ns)
            && opened > ended.get()
        {
            return None;
        }
        let Tuple { source: client, destination: frontend, .. } = slot.original();
        let Some(entry) = slot.translated() else {
            // It goes one way or the other, so one end decides.
            let from_client = client == tuple.source;
            return Some(Translation {
                from_client,
                client,
                frontend,
                backend: frontend,
                called_from: client,
            });
        };
        let views = entry.views();
        let [_, between, called_from] = &views;
        Some(Translation {
            from_client: views.contains(tuple),
            client,
            frontend,
            backend: between.destination,
            called_from: called_from.source,
        })
    }

    /// The connection whose opener sends `original`.
    fn opened_by(&self, original: &Tuple) -> Option<u32> {
        let hash = hash_of(original, &self.hasher);
        let index = self.views.find(hash, |view| view.shows(&self.slots, original))?.slot();
        (self.slot(index)?.original() == *original).then_some(index)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn is_ended(&self, index: u32, id: u32, ended_ns: NonZeroU64) -> bool {
        self.slot(index).is_some_and(|slot| slot.id == id && slot.ended_ns == Some(ended_ns))
    }

    /// Makes room by the oldest ended connection.
    fn displace(&mut self) -> bool {
        while let Some((ended_ns, index, id)) = self.ended.pop_front() {
            if self.is_ended(index, id, ended_ns) {
                self.remove(index);
                self.counters.displaced += 1;
                return true;
            }
        }
        false
    }

    fn remove(&mut self, index: u32) {
        let Self { slots, views, hasher, .. } = self;
        let Some(slot) = slots.get(index as usize).and_then(Option::as_ref) else { return };
        for tuple in slot.entry().views() {
            // A view of a later connection may have taken its place.
            let own = |view: &View| view.slot() == index && view.shows(slots, &tuple);
            if let Ok(view) = views.find_entry(hash_of(&tuple, hasher), own) {
                view.remove();
            }
        }
        slots[index as usize] = None;
        self.free.push(index);
    }
}

fn hash_of_view(view: View, slots: &[Option<Slot>], hasher: &DefaultHashBuilder) -> u64 {
    let slot = slots[view.slot() as usize].as_ref();
    slot.map_or(0, |slot| hash_of(&slot.view(view.0 & 3), hasher))
}

#[cfg(test)]
#[path = "conntrack_tests.rs"]
mod tests;

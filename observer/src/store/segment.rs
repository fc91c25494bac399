//! A run of flows with consecutive sequence numbers, in blocks that are written once and never again.

use super::glance::{Glance, Stored};
use crate::flow::Flow;
use std::sync::{
    OnceLock,
    atomic::{AtomicI64, Ordering},
};

/// The most blocks of a segment. On a quiet node each has one flow.
const BLOCKS: usize = 32;

/// Flows that became readable together.
#[derive(Debug)]
pub(super) struct Block {
    base: u64,
    flows: Box<[Flow]>,
    /// Of each flow.
    glances: Box<[Glance]>,
}

impl Block {
    /// Sequence number of the first.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Oldest first.
    pub(super) fn stored(&self) -> impl DoubleEndedIterator<Item = Stored<'_>> {
        let places = self.flows.iter().zip(&self.glances).enumerate();
        places.map(|(index, (flow, glance))| Stored::new(self.base + index as u64, flow, *glance))
    }

    fn get(&self, sequence: u64) -> Option<Stored<'_>> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        Some(Stored::new(sequence, self.flows.get(index)?, *self.glances.get(index)?))
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    base: u64,
    /// Filled in order, by the writer alone.
    blocks: Box<[OnceLock<Block>]>,
    /// The latest time of a flow in it.
    newest: AtomicI64,
}

impl Segment {
    /// Bytes of a segment without flows.
    pub(super) const FIXED_BYTES: usize = BLOCKS * size_of::<OnceLock<Block>>();

    pub(super) fn new(base: u64) -> Self {
        let blocks = (0..BLOCKS).map(|_| OnceLock::new()).collect();
        Self { base, blocks, newest: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Not before that of any flow below a head that was read before.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// What is in it, oldest first.
    pub(super) fn blocks(&self) -> impl DoubleEndedIterator<Item = &Block> {
        self.blocks[..self.filled()].iter().filter_map(OnceLock::get)
    }

    /// The flow of this number; `hint` is where the last one was found.
    pub(super) fn get(&self, sequence: u64, hint: &mut usize) -> Option<Stored<'_>> {
        let block = |index: usize| self.blocks.get(index).and_then(OnceLock::get);
        if let Some(stored) = block(*hint).and_then(|block| block.get(sequence)) {
            return Some(stored);
        }
        let after =
            self.blocks.partition_point(|block| block.get().is_some_and(|block| block.base <= sequence));
        *hint = after.checked_sub(1)?;
        block(*hint)?.get(sequence)
    }

    /// Adds the flows from sequence number `base` on; whether more could be added. There is one writer, and it publishes
    /// the head after this.
    pub(super) fn add(&self, base: u64, flows: Box<[Flow]>, glances: Box<[Glance]>) -> bool {
        let newest = flows.iter().map(|flow| flow.time_ns).fold(self.newest(), i64::max);
        self.newest.store(newest, Ordering::Relaxed);
        let index = self.filled();
        let added = self.blocks[index].set(Block { base, flows, glances });
        debug_assert!(added.is_ok(), "block {index} was filled before");
        index + 1 < BLOCKS
    }

    /// How many flows are not older than `from`, taking them to be in order of time.
    pub(super) fn count_from(&self, from: i64) -> u64 {
        let newer = |block: &Block| {
            let flows = block.flows();
            flows.len() - flows.partition_point(|flow| flow.time_ns < from)
        };
        self.blocks().map(newer).sum::<usize>() as u64
    }

    fn filled(&self) -> usize {
        self.blocks.partition_point(|block| block.get().is_some())
    }
}

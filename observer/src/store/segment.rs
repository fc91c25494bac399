//! A run of flows with consecutive sequence numbers, in blocks that are written once and never again.

use super::{
    ends::Ends,
    glance::{Glance, Glances, Lot, Stored},
};
use crate::flow::Flow;
use observer_proto::filter::LOT;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, Ordering},
};

/// The most blocks of a segment. On a quiet node each has one flow.
const BLOCKS: usize = 32;

/// Flows that became readable together.
#[derive(Debug)]
pub(super) struct Block {
    base: u64,
    flows: Box<[Flow]>,
    glances: Glances,
}

impl Block {
    /// Sequence number of the first.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn flows(&self) -> &[Flow] {
        &self.flows
    }

    pub(super) fn glances(&self) -> &Glances {
        &self.glances
    }

    /// The flow at this place, which must be one.
    #[inline]
    pub(super) fn at(&self, index: usize) -> Stored<'_> {
        Stored::new(self.base + index as u64, &self.flows[index], &self.glances, index)
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        (index < self.flows.len()).then_some(index)
    }

    fn get(&self, sequence: u64) -> Option<Stored<'_>> {
        self.place(sequence).map(|index| self.at(index))
    }

    /// All flows, newest first.
    pub(super) fn lots<'a>(&'a self, ends: &'a Ends) -> impl Iterator<Item = Lot<'a>> {
        let begins = (0..self.flows.len()).step_by(LOT).rev();
        begins.map(move |from| Lot::new(self, ends, from, self.flows.len()))
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    base: u64,
    /// Filled in order, by the writer alone.
    blocks: Box<[OnceLock<Block>]>,
    /// The latest time of a flow in it.
    newest: AtomicI64,
    /// Those of its flows, and others.
    ends: Arc<Ends>,
}

impl Segment {
    /// Bytes of a segment without flows.
    pub(super) const FIXED_BYTES: usize = BLOCKS * size_of::<OnceLock<Block>>();

    pub(super) fn new(base: u64, ends: Arc<Ends>) -> Self {
        let blocks = (0..BLOCKS).map(|_| OnceLock::new()).collect();
        Self { base, blocks, newest: AtomicI64::new(i64::MIN), ends }
    }

    pub(super) fn ends(&self) -> &Arc<Ends> {
        &self.ends
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
        self.block_of(sequence, hint)?.get(sequence)
    }

    /// The flow of this number and those behind it that lie with it; `hint` likewise.
    pub(super) fn lot(&self, sequence: u64, hint: &mut usize) -> Option<Lot<'_>> {
        let block = self.block_of(sequence, hint)?;
        Some(Lot::new(block, &self.ends, block.place(sequence)?, block.flows.len()))
    }

    fn block_of(&self, sequence: u64, hint: &mut usize) -> Option<&Block> {
        let block = |index: usize| self.blocks.get(index).and_then(OnceLock::get);
        if let Some(block) = block(*hint)
            && block.place(sequence).is_some()
        {
            return Some(block);
        }
        let after =
            self.blocks.partition_point(|block| block.get().is_some_and(|block| block.base <= sequence));
        *hint = after.checked_sub(1)?;
        block(*hint)
    }

    /// Adds the flows from sequence number `base` on; whether more could be added. There is one writer, and it publishes
    /// the head after this.
    pub(super) fn add(&self, base: u64, flows: Box<[Flow]>, glances: &[Glance]) -> bool {
        let newest = flows.iter().map(|flow| flow.time_ns).fold(self.newest(), i64::max);
        self.newest.store(newest, Ordering::Relaxed);
        let index = self.filled();
        let added = self.blocks[index].set(Block { base, flows, glances: Glances::new(glances) });
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

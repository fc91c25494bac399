//! A run of flows with consecutive sequence numbers, in blocks that are written once and never again.

use super::{
    ends::Ends,
    glance::{Glance, Glances, Lot, Stored},
    parts::{Kept, Number, Part},
};
use crate::endpoint::Endpoint;
use std::sync::{
    Arc, LazyLock, OnceLock,
    atomic::{AtomicI64, Ordering},
};

/// The most blocks of a segment. On a quiet node each has one flow.
const BLOCKS: usize = Number::BLOCKS;

/// Flows that became readable together.
#[derive(Debug)]
pub(super) struct Block {
    base: u64,
    flows: Box<[Kept]>,
    glances: Glances,
    /// What its flows have, and no earlier block of the segment.
    parts: Box<[Part]>,
}

impl Block {
    /// Sequence number of the first.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Oldest first.
    pub(super) fn flows(&self) -> &[Kept] {
        &self.flows
    }

    pub(super) fn glances(&self) -> &Glances {
        &self.glances
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        (index < self.flows.len()).then_some(index)
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

    /// The flows of one of its blocks, newest lot first.
    pub(super) fn lots<'a>(&'a self, block: &'a Block) -> impl Iterator<Item = Lot<'a>> {
        let begins = (0..block.flows.len()).step_by(Lot::MOST).rev();
        begins.map(move |from| Lot::new(self, block, from))
    }

    /// The flow of this number; `hint` is where the last one was found.
    pub(super) fn get(&self, sequence: u64, hint: &mut usize) -> Option<Stored<'_>> {
        let block = self.block_of(sequence, hint)?;
        Some(Stored::new(self, block, block.place(sequence)?))
    }

    /// The flow of this number and those behind it that lie with it; `hint` likewise.
    pub(super) fn lot(&self, sequence: u64, hint: &mut usize) -> Option<Lot<'_>> {
        let block = self.block_of(sequence, hint)?;
        Some(Lot::new(self, block, block.place(sequence)?))
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

    /// The part of this number.
    #[inline]
    pub(super) fn part(&self, number: Number) -> Option<&Part> {
        if number == Number::NONE {
            return None;
        }
        self.blocks[number.block()].get()?.parts.get(number.index())
    }

    /// The end of this number.
    #[inline]
    pub(super) fn end(&self, number: Number) -> &Arc<Endpoint> {
        static NOBODY: LazyLock<Arc<Endpoint>> = LazyLock::new(Arc::default);
        let end = self.part(number).and_then(Part::end);
        debug_assert!(end.is_some(), "{number:?} is no end");
        end.unwrap_or_else(|| &NOBODY)
    }

    /// Adds the flows from sequence number `base` on; whether more could be added. There is one writer, and it publishes
    /// the head after this.
    pub(super) fn add(&self, base: u64, flows: Box<[Kept]>, glances: &[Glance], parts: Box<[Part]>) -> bool {
        let newest = flows.iter().map(|flow| flow.record.time_ns).fold(self.newest(), i64::max);
        self.newest.store(newest, Ordering::Relaxed);
        let index = self.filled();
        let added = self.blocks[index].set(Block { base, flows, glances: Glances::new(glances), parts });
        debug_assert!(added.is_ok(), "block {index} was filled before");
        index + 1 < BLOCKS
    }

    /// How many flows are not older than `from`, taking them to be in order of time.
    pub(super) fn count_from(&self, from: i64) -> u64 {
        let newer = |block: &Block| {
            let flows = block.flows();
            flows.len() - flows.partition_point(|flow| flow.record.time_ns < from)
        };
        self.blocks().map(newer).sum::<usize>() as u64
    }

    fn filled(&self) -> usize {
        self.blocks.partition_point(|block| block.get().is_some())
    }
}

//! FIFO, LFU and GDFS: each block has a rank while it is free, the lowest goes first.

use super::{Order, Use, entry};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use crate::sim::cache::Slot;
use std::collections::BTreeSet;

/// Free blocks by rank.
pub(super) struct Ranked {
    rank: fn(&Block, &Counters) -> (u64, u64),
    blocks: Vec<Block>,
    free: BTreeSet<((u64, u64), Slot)>,
    counters: Counters,
}

#[derive(Clone, Default)]
struct Block {
    filled: Time,
    uses: u64,
    depth: u64,
    /// Its rank while it is free.
    rank: (u64, u64),
}

struct Counters {
    /// The rank of what was evicted last.
    clock: u64,
    /// Blocks that became free so far.
    freed: u64,
}

/// What a block at the start of a prompt costs; one this many blocks further costs twice that.
const DEPTH_OF_DOUBLE_COST: u64 = 64;

impl Ranked {
    /// Of what was filled at once, the tail goes before the head.
    pub fn fifo() -> Self {
        Ranked::by(|block, _| (block.filled.as_nanos(), u64::MAX - block.depth))
    }

    pub fn lfu() -> Self {
        Ranked::by(|block, counters| (block.uses, counters.freed))
    }

    pub fn gdfs() -> Self {
        Ranked::by(|block, counters| {
            (counters.clock + block.uses * (DEPTH_OF_DOUBLE_COST + block.depth), counters.freed)
        })
    }

    fn by(rank: fn(&Block, &Counters) -> (u64, u64)) -> Self {
        Ranked { rank, blocks: Vec::new(), free: BTreeSet::new(), counters: Counters { clock: 0, freed: 0 } }
    }
}

impl Order for Ranked {
    fn fill(&mut self, slot: Slot, _: BlockHash, first: Use) {
        *entry(&mut self.blocks, slot) =
            Block { filled: first.at, uses: 1, depth: u64::from(first.depth), rank: (0, 0) };
    }

    fn hit(&mut self, slot: Slot, _: BlockHash, _: Use) {
        self.blocks[slot as usize].uses += 1;
    }

    fn free(&mut self, slot: Slot) {
        self.counters.freed += 1;
        let block = &mut self.blocks[slot as usize];
        block.rank = (self.rank)(block, &self.counters);
        self.free.insert((block.rank, slot));
    }

    fn take(&mut self, slot: Slot) {
        self.free.remove(&(self.blocks[slot as usize].rank, slot));
    }

    fn evict(&mut self, _: Time) -> Option<Slot> {
        let ((rank, _), slot) = self.free.pop_first()?;
        self.counters.clock = self.counters.clock.max(rank);
        Some(slot)
    }
}

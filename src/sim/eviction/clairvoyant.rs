//! Belady's rule with perfect foresight: what will be used again last goes first, and of equals the deepest in its prompt.
//!
//! Several instances share one future, so that a use that was foreseen may happen at another one. What was foreseen for a
//! time that has passed is then looked up again.

use super::{Order, Use, entry};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use crate::sim::cache::Slot;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// When each block will be used.
#[derive(Debug, Default)]
pub struct Foresight {
    uses: HashMap<BlockHash, Vec<Time>>,
}

impl Foresight {
    /// Adds a request that will come at `at`, not before those that were added already.
    pub fn add(&mut self, at: Time, chain: impl IntoIterator<Item = BlockHash>) {
        for block in chain {
            self.uses.entry(block).or_default().push(at);
        }
    }

    /// The first use after `now`; [`Time::MAX`] for never.
    fn next(&self, block: BlockHash, now: Time) -> Time {
        let Some(uses) = self.uses.get(&block) else { return Time::MAX };
        uses.get(uses.partition_point(|at| *at <= now)).copied().unwrap_or(Time::MAX)
    }
}

#[derive(Default)]
pub(super) struct Clairvoyant {
    future: Arc<Foresight>,
    blocks: Vec<Block>,
    /// Free blocks by next use; of those never used again, what was freed last is kept longest.
    free: BTreeSet<(Time, u64, Slot)>,
    freed: u64,
}

#[derive(Clone, Default)]
struct Block {
    /// The hash of what it holds.
    content: u64,
    used: Time,
    next: Time,
    /// Among equals, higher goes first.
    order: u64,
}

impl Order for Clairvoyant {
    fn fill(&mut self, slot: Slot, content: BlockHash, first: Use) {
        self.hit(slot, content, first);
    }

    fn hit(&mut self, slot: Slot, content: BlockHash, again: Use) {
        let block = entry(&mut self.blocks, slot);
        (block.content, block.used) = (content.0, again.at);
    }

    fn free(&mut self, slot: Slot) {
        self.freed += 1;
        let block = &mut self.blocks[slot as usize];
        block.next = self.future.next(BlockHash(block.content), block.used);
        block.order = u64::MAX - self.freed;
        self.free.insert((block.next, block.order, slot));
    }

    fn take(&mut self, slot: Slot) {
        let Block { next, order, .. } = self.blocks[slot as usize];
        self.free.remove(&(next, order, slot));
    }

    fn evict(&mut self, now: Time) -> Option<Slot> {
        while let Some(&(next, order, slot)) = self.free.first().filter(|(next, ..)| *next < now) {
            self.free.remove(&(next, order, slot));
            let block = &mut self.blocks[slot as usize];
            block.next = self.future.next(BlockHash(block.content), now);
            self.free.insert((block.next, order, slot));
        }
        let (_, _, slot) = self.free.pop_last()?;
        Some(slot)
    }

    fn foresee(&mut self, future: Arc<Foresight>) {
        self.future = future;
    }
}

//! An engine's pool of KV blocks, with vLLM's rules.
//!
//! A block is used by the requests that reference it, or free. Free blocks keep their content and stand in a queue; a
//! new block is taken from its head, which is what evicts. A finished request's blocks are freed last block first, so
//! that the tail of a prompt goes before its head; a block that holds nothing, as a partial one, goes before all. A hit
//! takes a free block out of the queue again. The same content may sit in several blocks: a prompt whose last block is
//! recomputed leaves a copy.
//!
//! That queue is vLLM's. Other [`Eviction`] policies keep the free blocks in an [order](super::eviction) of their own, and
//! are here to be compared.

use super::eviction::{Eviction, Foresight, Order, Use};
use crate::routing::Time;
use crate::routing::block::{AsItIs, BlockHash};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// A block's place in the pool.
pub(super) type Slot = u32;

/// All the blocks of one engine.
pub(super) struct BlockPool {
    size: u32,
    /// The queue's sentinel, then every block that was ever used: what was not is free, and goes before all others.
    blocks: Vec<Block>,
    /// Blocks in the queue.
    queued: u32,
    cached: HashMap<BlockHash, SmallVec<[Slot; 2]>, AsItIs>,
    /// Another order of the free blocks that hold something; the queue then has only those that hold nothing.
    order: Option<Box<dyn Order>>,
    /// Free blocks in `order`.
    ordered: u32,
    now: Time,
}

/// Links are positions in `blocks`.
#[derive(Default)]
struct Block {
    content: Option<BlockHash>,
    references: u32,
    previous: Slot,
    next: Slot,
}

const SENTINEL: Slot = 0;

impl BlockPool {
    /// A pool of `size` free, empty blocks.
    pub fn new(size: u32, eviction: Eviction) -> Self {
        let order = eviction.order(size);
        let blocks = vec![Block::default()];
        BlockPool { size, blocks, queued: 0, cached: HashMap::default(), order, ordered: 0, now: Time::ZERO }
    }

    /// Lets time pass: what is older goes by it.
    pub fn set_now(&mut self, now: Time) {
        self.now = now;
    }

    /// Tells what is to come, for those who would know.
    pub fn foresee(&mut self, future: Arc<Foresight>) {
        if let Some(order) = &mut self.order {
            order.foresee(future);
        }
    }

    /// Blocks that nobody references.
    pub fn free(&self) -> u32 {
        self.unused() + self.queued + self.ordered
    }

    /// Blocks in all.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Slots of the longest prefix of `chain` that is cached.
    pub fn cached_prefix(&self, chain: &[BlockHash]) -> Vec<Slot> {
        chain.iter().map_while(|hash| self.cached.get(hash).map(|slots| slots[0])).collect()
    }

    /// How many of `slots` are free, and would leave the queue if they were referenced.
    pub fn free_among(&self, slots: &[Slot]) -> u32 {
        slots.iter().filter(|&&slot| self.block(slot).references == 0).count() as u32
    }

    /// Adds a reference to a cached block.
    pub fn reference(&mut self, slot: Slot, again: Use) {
        let Block { references, content, .. } = *self.block(slot);
        if let Some(order) = &mut self.order {
            if references == 0 {
                order.take(slot);
                self.ordered -= 1;
            }
            order.hit(slot, content.expect("what is cached has content"), again);
        } else if references == 0 {
            self.unlink(slot);
        }
        self.block_mut(slot).references += 1;
    }

    /// Takes an unused block or the one at the head of the queue, referenced once; tells what it held. `None` when none is
    /// free.
    pub fn allocate(&mut self) -> Option<(Slot, Option<BlockHash>)> {
        if self.unused() > 0 {
            self.blocks.push(Block { references: 1, ..Block::default() });
            return Some((self.blocks.len() as Slot - 1, None));
        }
        let slot = self.take_free()?;
        let block = self.block_mut(slot);
        block.references = 1;
        let evicted = block.content.take();
        if let Some(hash) = evicted {
            let slots = self.cached.get_mut(&hash).expect("a block with content is in the map");
            slots.retain(|copy| *copy != slot);
            if slots.is_empty() {
                self.cached.remove(&hash);
            }
        }
        Some((slot, evicted))
    }

    /// Makes a full block's content known, so that others can hit it.
    pub fn publish(&mut self, slot: Slot, hash: BlockHash, first: Use) {
        debug_assert!(self.block(slot).content.is_none() && self.block(slot).references > 0);
        self.block_mut(slot).content = Some(hash);
        self.cached.entry(hash).or_default().push(slot);
        if let Some(order) = &mut self.order {
            order.fill(slot, hash, first);
        }
    }

    /// Drops one reference to each block of a request, last block first.
    pub fn release(&mut self, slots: &[Slot]) {
        for &slot in slots.iter().rev() {
            let block = self.block_mut(slot);
            block.references -= 1;
            if block.references == 0 {
                self.set_free(slot);
            }
        }
    }

    /// Takes the free block that is to go.
    fn take_free(&mut self) -> Option<Slot> {
        if self.queued > 0 {
            let first = self.block(SENTINEL).next;
            self.unlink(first);
            return Some(first);
        }
        let slot = self.order.as_mut()?.evict(self.now)?;
        self.ordered -= 1;
        Some(slot)
    }

    fn set_free(&mut self, slot: Slot) {
        match &mut self.order {
            Some(order) if self.blocks[slot as usize].content.is_some() => {
                order.free(slot);
                self.ordered += 1;
            }
            Some(_) | None => self.enqueue(slot),
        }
    }

    fn unused(&self) -> u32 {
        self.size - (self.blocks.len() as u32 - 1)
    }

    fn block(&self, slot: Slot) -> &Block {
        &self.blocks[slot as usize]
    }

    fn block_mut(&mut self, slot: Slot) -> &mut Block {
        &mut self.blocks[slot as usize]
    }

    fn unlink(&mut self, slot: Slot) {
        let Block { previous, next, .. } = *self.block(slot);
        self.block_mut(previous).next = next;
        self.block_mut(next).previous = previous;
        self.queued -= 1;
    }

    /// At the end; what holds nothing, at the head.
    fn enqueue(&mut self, slot: Slot) {
        let holds = self.block(slot).content.is_some();
        let previous = if holds { self.block(SENTINEL).previous } else { SENTINEL };
        let next = self.block(previous).next;
        self.block_mut(previous).next = slot;
        self.block_mut(next).previous = slot;
        let block = self.block_mut(slot);
        (block.previous, block.next) = (previous, next);
        self.queued += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::eviction::Category;
    use super::*;

    const USE: Use = Use { at: Time::ZERO, category: Category(0), depth: 0, reach: 1 };

    fn hashes(ids: impl IntoIterator<Item = u64>) -> Vec<BlockHash> {
        ids.into_iter().map(BlockHash).collect()
    }

    fn fill(pool: &mut BlockPool, chain: &[BlockHash]) -> Vec<Slot> {
        let take = |&hash: &BlockHash| {
            let (slot, _) = pool.allocate().expect("the pool is large enough");
            pool.publish(slot, hash, USE);
            slot
        };
        chain.iter().map(take).collect()
    }

    #[test]
    fn the_tail_of_a_finished_request_is_evicted_before_its_head() {
        let mut pool = BlockPool::new(3, Eviction::Lru);
        let chain = hashes([1, 2, 3]);
        let slots = fill(&mut pool, &chain);
        pool.release(&slots);
        let evicted: Vec<_> = (0..3).map(|_| pool.allocate().unwrap().1).collect();
        assert_eq!(evicted, [3, 2, 1].map(|id| Some(BlockHash(id))));
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn a_hit_protects_a_free_block() {
        let mut pool = BlockPool::new(2, Eviction::Lru);
        let slots = fill(&mut pool, &hashes([1, 2]));
        pool.release(&slots);
        let hit = pool.cached_prefix(&hashes([1, 9]));
        assert_eq!((hit.as_slice(), pool.free_among(&hit)), (&slots[..1], 1));
        pool.reference(hit[0], USE);
        assert_eq!(pool.allocate().unwrap().1, Some(BlockHash(2)));
        assert_eq!(pool.allocate(), None);
        assert_eq!(pool.cached_prefix(&hashes([1, 2])), slots[..1]);
    }

    #[test]
    fn a_copy_survives_the_eviction_of_the_other() {
        let mut pool = BlockPool::new(3, Eviction::Lru);
        let first = fill(&mut pool, &hashes([7]));
        let second = fill(&mut pool, &hashes([7]));
        pool.release(&first);
        pool.release(&second);
        let evicted: Vec<_> = (0..2).map(|_| pool.allocate().unwrap().1).collect();
        assert_eq!(evicted, [None, Some(BlockHash(7))]);
        assert_eq!(pool.cached_prefix(&hashes([7])), second);
    }
}

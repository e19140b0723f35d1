//! S3-FIFO: "FIFO queues are all you need for cache eviction" (Yang et al., SOSP 2023), with its published numbers.
//!
//! What is new stands in the small queue, a tenth of the cache. When the small queue is over its share its head goes, but
//! what was used more than once since it came moves to the main queue instead; what goes leaves its name in the ghost
//! queue, and what comes back while its name is there goes to the main queue at once. The main queue's head goes when it
//! was not used since it last stood there; else it goes to its end, once for each use up to three.
//!
//! Here a block in use keeps its place but is passed over.

use super::{Order, Use, entry};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use crate::sim::cache::Slot;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The three queues.
pub(super) struct S3Fifo {
    capacity: usize,
    blocks: Vec<Block>,
    /// Free blocks of each queue, in order of arrival.
    small: BTreeSet<(u64, Slot)>,
    main: BTreeSet<(u64, Slot)>,
    /// Blocks of the small queue, in use or not.
    small_len: usize,
    arrived: u64,
    ghosts: HashMap<BlockHash, u64>,
    /// Names in the order in which they came; one that came back since has another number.
    ghost_queue: VecDeque<(BlockHash, u64)>,
}

#[derive(Clone, Default)]
struct Block {
    content: u64,
    in_main: bool,
    /// Its place in its queue.
    place: u64,
    uses: u8,
}

/// Uses that count, at most.
const USES_MAX: u8 = 3;
/// The small queue has one block in this many.
const SMALL_SHARE: usize = 10;

impl S3Fifo {
    pub fn new(blocks: u32) -> Self {
        S3Fifo {
            capacity: blocks as usize,
            blocks: Vec::new(),
            small: BTreeSet::new(),
            main: BTreeSet::new(),
            small_len: 0,
            arrived: 0,
            ghosts: HashMap::new(),
            ghost_queue: VecDeque::new(),
        }
    }

    fn next_place(&mut self) -> u64 {
        self.arrived += 1;
        self.arrived
    }

    /// Of the small queue, passing on what was used; `None` when no free block is left in it.
    fn evict_small(&mut self) -> Option<Slot> {
        while let Some((_, slot)) = self.small.pop_first() {
            self.small_len -= 1;
            if self.blocks[slot as usize].uses <= 1 {
                self.remember(BlockHash(self.blocks[slot as usize].content));
                return Some(slot);
            }
            let place = self.next_place();
            let block = &mut self.blocks[slot as usize];
            (block.in_main, block.place, block.uses) = (true, place, 0);
            self.main.insert((place, slot));
        }
        None
    }

    fn evict_main(&mut self) -> Option<Slot> {
        loop {
            let (_, slot) = self.main.pop_first()?;
            if self.blocks[slot as usize].uses == 0 {
                return Some(slot);
            }
            let place = self.next_place();
            let block = &mut self.blocks[slot as usize];
            (block.place, block.uses) = (place, block.uses - 1);
            self.main.insert((place, slot));
        }
    }

    /// As many names as the main queue has blocks, at most.
    fn remember(&mut self, content: BlockHash) {
        let number = self.next_place();
        self.ghosts.insert(content, number);
        self.ghost_queue.push_back((content, number));
        while self.ghost_queue.len() > self.capacity - self.capacity / SMALL_SHARE {
            let Some((content, number)) = self.ghost_queue.pop_front() else { return };
            if self.ghosts.get(&content) == Some(&number) {
                self.ghosts.remove(&content);
            }
        }
    }

    fn queue(&mut self, slot: Slot) -> (&mut BTreeSet<(u64, Slot)>, u64) {
        let Block { in_main, place, .. } = self.blocks[slot as usize];
        (if in_main { &mut self.main } else { &mut self.small }, place)
    }
}

impl Order for S3Fifo {
    fn fill(&mut self, slot: Slot, content: BlockHash, _: Use) {
        let in_main = self.ghosts.remove(&content).is_some();
        self.small_len += usize::from(!in_main);
        let place = self.next_place();
        *entry(&mut self.blocks, slot) = Block { content: content.0, in_main, place, uses: 0 };
    }

    fn hit(&mut self, slot: Slot, _: BlockHash, _: Use) {
        let uses = &mut self.blocks[slot as usize].uses;
        *uses = (*uses + 1).min(USES_MAX);
    }

    fn free(&mut self, slot: Slot) {
        let (queue, place) = self.queue(slot);
        queue.insert((place, slot));
    }

    fn take(&mut self, slot: Slot) {
        let (queue, place) = self.queue(slot);
        queue.remove(&(place, slot));
    }

    fn evict(&mut self, _: Time) -> Option<Slot> {
        let small_is_full = self.small_len * SMALL_SHARE >= self.capacity;
        let first = if small_is_full { self.evict_small() } else { None };
        first.or_else(|| self.evict_main()).or_else(|| self.evict_small()).or_else(|| self.evict_main())
    }
}

//! Which block each request touched, numbered; and how many a cache of limited size would have had.
//!
//! A request looks its blocks up from the start of the prompt until one is missing, then puts all of them into the cache.
//! It keeps them from the end to the start, so that the start stays longest: without that, a cache would lose the
//! beginning of a prompt first and all behind it would be worthless.

use crate::routing::block::{AsItIs, BlockHash, BlockSize, Namespace};
use crate::trace::record::Record;
use serde::Serialize;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// The blocks of all requests, in order. Blocks are numbered from zero by first appearance.
pub(crate) struct Accesses {
    root: BlockHash,
    numbers: HashMap<BlockHash, u32, AsItIs>,
    blocks: Vec<u32>,
    /// Where the blocks of each request end.
    ends: Vec<usize>,
}

/// What a cache throws out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// What came in first.
    Fifo,
    /// What was used longest ago.
    Lru,
    /// What will be used again last: the best that can be done, and only in hindsight.
    Clairvoyant,
}

impl Eviction {
    /// All, the best last.
    pub const ALL: [Eviction; 3] = [Eviction::Fifo, Eviction::Lru, Eviction::Clairvoyant];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Eviction::Fifo => "FIFO",
            Eviction::Lru => "LRU",
            Eviction::Clairvoyant => "clairvoyant",
        }
    }
}

impl Accesses {
    pub(crate) fn new(block_size: BlockSize) -> Self {
        let root = BlockHash::root(&Namespace::default(), block_size, 0);
        Accesses { root, numbers: HashMap::default(), blocks: Vec::new(), ends: Vec::new() }
    }

    /// Adds a request. Its blocks' numbers, in order.
    pub(crate) fn push(&mut self, record: &Record) -> &[u32] {
        let begin = self.blocks.len();
        let mut hash = self.root;
        for &content in &record.blocks {
            hash = hash.child(content);
            let next = self.numbers.len() as u32;
            self.blocks.push(*self.numbers.entry(hash).or_insert(next));
        }
        self.ends.push(self.blocks.len());
        &self.blocks[begin..]
    }

    pub(crate) fn distinct(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn total(&self) -> usize {
        self.blocks.len()
    }

    fn requests(&self) -> impl DoubleEndedIterator<Item = &[u32]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges: Vec<(usize, usize)> = begins.zip(self.ends.iter().copied()).collect();
        ranges.into_iter().map(|(begin, end)| &self.blocks[begin..end])
    }

    /// Blocks that a cache of `capacity` blocks would have had.
    pub(crate) fn hits(&self, eviction: Eviction, capacity: usize) -> u64 {
        let mut all = 0;
        self.each_hits(eviction, capacity, &mut |_, hits| all += hits);
        all
    }

    /// The same of each request, told with its number.
    pub(crate) fn each_hits(&self, eviction: Eviction, capacity: usize, told: &mut dyn FnMut(usize, u64)) {
        match eviction {
            Eviction::Fifo => self.fifo(capacity, told),
            Eviction::Lru => self.lru(capacity, told),
            Eviction::Clairvoyant => self.clairvoyant(capacity, told),
        }
    }

    fn fifo(&self, capacity: usize, told: &mut dyn FnMut(usize, u64)) {
        let mut cached = vec![false; self.distinct()];
        let mut queue = VecDeque::new();
        for (number, request) in self.requests().enumerate() {
            told(number, request.iter().take_while(|&&block| cached[block as usize]).count() as u64);
            for &block in request.iter().rev() {
                if !cached[block as usize] {
                    cached[block as usize] = true;
                    queue.push_back(block);
                    if queue.len() > capacity
                        && let Some(oldest) = queue.pop_front()
                    {
                        cached[oldest as usize] = false;
                    }
                }
            }
        }
    }

    fn lru(&self, capacity: usize, told: &mut dyn FnMut(usize, u64)) {
        let mut recency = Recency::new(self.distinct());
        for (number, request) in self.requests().enumerate() {
            told(number, request.iter().take_while(|&&block| recency.cached[block as usize]).count() as u64);
            for &block in request.iter().rev() {
                recency.touch(block);
                if recency.len > capacity {
                    recency.remove_oldest();
                }
            }
        }
    }

    /// Belady's algorithm with bypass: after each request keep those blocks, of the cached and the new ones, whose next
    /// use is soonest; of equally soon ones the foremost. As a block's predecessor is used whenever the block is, what is
    /// kept is always whole prefixes, so that every kept block is a hit.
    fn clairvoyant(&self, capacity: usize, told: &mut dyn FnMut(usize, u64)) {
        let next_uses = self.next_uses();
        let mut kept_until = vec![NEVER; self.distinct()];
        let mut latest_first: BinaryHeap<(u32, u32, u32)> = BinaryHeap::new();
        let (mut kept, mut at) = (0_usize, 0);
        for (number, request) in self.requests().enumerate() {
            told(number, request.iter().take_while(|&&block| kept_until[block as usize] != NEVER).count() as u64);
            for (&block, place) in request.iter().zip(0..) {
                let next = next_uses[at];
                at += 1;
                let until = &mut kept_until[block as usize];
                kept = kept + usize::from(next != NEVER) - usize::from(*until != NEVER);
                *until = next;
                if next != NEVER {
                    latest_first.push((next, place, block));
                }
            }
            while kept > capacity {
                let Some((next, _, block)) = latest_first.pop() else { unreachable!("what is kept is in the heap") };
                // An entry from before the block's last use says an earlier next use.
                if kept_until[block as usize] == next {
                    kept_until[block as usize] = NEVER;
                    kept -= 1;
                }
            }
        }
    }

    /// For each access, the request that uses the block next.
    fn next_uses(&self) -> Vec<u32> {
        let mut next_uses = vec![NEVER; self.blocks.len()];
        let mut next = vec![NEVER; self.distinct()];
        let mut at = self.blocks.len();
        let requests: Vec<&[u32]> = self.requests().collect();
        for (number, request) in requests.iter().enumerate().rev() {
            at -= request.len();
            for (&block, next_use) in request.iter().zip(&mut next_uses[at..]) {
                *next_use = std::mem::replace(&mut next[block as usize], number as u32);
            }
        }
        next_uses
    }

    /// For each reuse, how many other distinct blocks were touched since the block's last use.
    pub(crate) fn stack_distances(&self) -> Vec<u32> {
        let mut latest = Latest { counts: vec![0; self.blocks.len() + 1] };
        let mut last = vec![NEVER; self.distinct()];
        let mut seen = 0;
        let mut distances = Vec::new();
        for (at, &block) in (0_u32..).zip(&self.blocks) {
            let last = &mut last[block as usize];
            if *last == NEVER {
                seen += 1;
            } else {
                // Those whose latest use is after this block's.
                distances.push(seen - latest.before(*last) - 1);
                latest.add(*last, -1);
            }
            latest.add(at, 1);
            *last = at;
        }
        distances
    }
}

const NEVER: u32 = u32::MAX;

/// How many blocks had their latest use before a place: a Fenwick tree.
struct Latest {
    counts: Vec<i32>,
}

impl Latest {
    fn add(&mut self, place: u32, by: i32) {
        let mut index = place as usize + 1;
        while index < self.counts.len() {
            self.counts[index] += by;
            index += index & index.wrapping_neg();
        }
    }

    fn before(&self, place: u32) -> u32 {
        let mut index = place as usize;
        let mut sum = 0;
        while index > 0 {
            sum += self.counts[index];
            index -= index & index.wrapping_neg();
        }
        sum as u32
    }
}

/// Cached blocks in order of use: a list through two arrays, with one more place for its ends.
struct Recency {
    newer: Vec<u32>,
    older: Vec<u32>,
    cached: Vec<bool>,
    len: usize,
}

impl Recency {
    fn new(blocks: usize) -> Self {
        let ends = vec![blocks as u32; blocks + 1];
        Recency { newer: ends.clone(), older: ends, cached: vec![false; blocks], len: 0 }
    }

    fn touch(&mut self, block: u32) {
        self.remove(block);
        let end = self.cached.len();
        let newest = self.older[end];
        self.older[block as usize] = newest;
        self.newer[block as usize] = end as u32;
        self.newer[newest as usize] = block;
        self.older[end] = block;
        self.cached[block as usize] = true;
        self.len += 1;
    }

    fn remove(&mut self, block: u32) {
        if self.cached[block as usize] {
            let (newer, older) = (self.newer[block as usize], self.older[block as usize]);
            self.newer[older as usize] = newer;
            self.older[newer as usize] = older;
            self.cached[block as usize] = false;
            self.len -= 1;
        }
    }

    fn remove_oldest(&mut self) {
        self.remove(self.newer[self.cached.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::ContentHash;
    use proptest::prelude::*;

    fn accesses(prompts: &[Vec<u64>]) -> Accesses {
        let mut accesses = Accesses::new(BlockSize::DEFAULT);
        for prompt in prompts {
            let blocks = prompt.iter().copied().map(ContentHash).collect();
            accesses.push(&Record { blocks, ..Record::default() });
        }
        accesses
    }

    proptest! {
        /// The least recently used, by the book: a list in order of use.
        #[test]
        fn lru_is_what_the_book_says(prompts in prop::collection::vec(prop::collection::vec(0..3_u64, 0..6), 0..40), capacity in 1..12_usize) {
            let accesses = accesses(&prompts);
            let mut list: Vec<u32> = Vec::new();
            let mut hits = 0;
            for request in accesses.requests() {
                hits += request.iter().take_while(|block| list.contains(block)).count() as u64;
                for block in request.iter().rev() {
                    list.retain(|other| other != block);
                    list.push(*block);
                    if list.len() > capacity {
                        list.remove(0);
                    }
                }
            }
            prop_assert_eq!(accesses.hits(Eviction::Lru, capacity), hits);
        }

        #[test]
        fn nobody_beats_clairvoyance(prompts in prop::collection::vec(prop::collection::vec(0..3_u64, 0..6), 0..60), capacity in 0..20_usize) {
            let accesses = accesses(&prompts);
            let best = accesses.hits(Eviction::Clairvoyant, capacity);
            let all = accesses.hits(Eviction::Clairvoyant, accesses.distinct());
            for eviction in Eviction::ALL {
                let hits = accesses.hits(eviction, capacity);
                prop_assert!(hits <= best, "{} has {hits}, clairvoyant {best}", eviction.name());
                prop_assert_eq!(accesses.hits(eviction, accesses.distinct()), all, "a cache for all is a cache for all");
            }
            prop_assert!(best <= all);
        }

        #[test]
        fn stack_distance_counts_distinct_blocks(prompts in prop::collection::vec(prop::collection::vec(0..3_u64, 0..6), 0..30)) {
            let accesses = accesses(&prompts);
            let mut expected = Vec::new();
            for (at, block) in accesses.blocks.iter().enumerate() {
                if let Some(last) = accesses.blocks[..at].iter().rposition(|other| other == block) {
                    let between: std::collections::HashSet<_> = accesses.blocks[last + 1..at].iter().collect();
                    expected.push(between.len() as u32);
                }
            }
            prop_assert_eq!(accesses.stack_distances(), expected);
        }
    }
}

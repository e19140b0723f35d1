//! Which block each request touched, numbered.

use crate::routing::block::{AsItIs, BlockHash, BlockSize, Namespace};
use crate::trace::record::Record;
use std::collections::HashMap;

/// The blocks of all requests, in order. Blocks are numbered from zero by first appearance.
pub(crate) struct Accesses {
    root: BlockHash,
    numbers: HashMap<BlockHash, u32, AsItIs>,
    blocks: Vec<u32>,
    /// Where the blocks of each request end.
    ends: Vec<usize>,
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

    /// The blocks of each request.
    pub(super) fn requests(&self) -> impl Iterator<Item = &[u32]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges: Vec<(usize, usize)> = begins.zip(self.ends.iter().copied()).collect();
        ranges.into_iter().map(|(begin, end)| &self.blocks[begin..end])
    }

    /// For each reuse, how many other distinct blocks were touched since the block's last use.
    pub(crate) fn stack_distances(&self) -> Vec<u32> {
        let mut latest = Latest::new(self.blocks.len());
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

pub(super) const NEVER: u32 = u32::MAX;

/// How many blocks had their latest use before a place: a Fenwick tree.
pub(super) struct Latest {
    counts: Vec<i32>,
}

impl Latest {
    pub(super) fn new(places: usize) -> Self {
        Latest { counts: vec![0; places + 1] }
    }

    pub(super) fn add(&mut self, place: u32, by: i32) {
        let mut index = place as usize + 1;
        while index < self.counts.len() {
            self.counts[index] += by;
            index += index & index.wrapping_neg();
        }
    }

    pub(super) fn before(&self, place: u32) -> u32 {
        let mut index = place as usize;
        let mut sum = 0;
        while index > 0 {
            sum += self.counts[index];
            index -= index & index.wrapping_neg();
        }
        sum as u32
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::routing::block::ContentHash;
    use proptest::prelude::*;

    pub(in super::super) fn accesses(prompts: &[Vec<u64>]) -> Accesses {
        let mut accesses = Accesses::new(BlockSize::DEFAULT);
        for prompt in prompts {
            let blocks = prompt.iter().copied().map(ContentHash).collect();
            accesses.push(&Record { blocks, ..Record::default() });
        }
        accesses
    }

    proptest! {
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

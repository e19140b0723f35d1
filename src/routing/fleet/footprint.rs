//! Prefixes of the requests in flight.
//!
//! What a request has been placed for is not in the index before it is computed, and then it is, unless the event is late
//! or lost; while the request runs it cannot be evicted. So an instance has, of a prompt, at least what its requests in flight
//! share with it. A burst of requests with one cold prefix goes together for that reason, instead of everywhere.
//!
//! A prompt is remembered by some of its blocks: the first 16, then every eighth part further, and the last. That is 60
//! for a prompt of 1,000 blocks, and a match is at most an eighth too short. Both a prompt's length and the table are bounded.

use crate::routing::block::{AsItIs, BlockHash, BlockSize};
use crate::routing::fact::InstanceId;
use crate::routing::index::Chain;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A prompt, by some of its blocks.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// Blocks from the start up to and with the one of this hash, ascending.
    marks: SmallVec<[(u32, BlockHash); 24]>,
    head: Option<u64>,
}

/// Every block up to here is marked.
const DENSE_BLOCKS: u32 = 16;
/// Beyond that, one in this share of the distance from the start.
const STRIDE_SHARE: u32 = 8;
/// A longer prompt is remembered up to here.
const BLOCKS_MAX: u32 = 8192;
/// (Block, instance) pairs remembered at most; beyond that requests leave no footprint.
const PAIRS_MAX: usize = 1 << 21;
/// The head of a prompt, for policies that hash it.
const HEAD_TOKENS: u32 = 256;

impl Footprint {
    /// Of a prompt, by its hashes: those that its lookup in the index computed, and the rest.
    pub(in crate::routing) fn of(chain: &mut Chain<'_>, block_size: BlockSize) -> Self {
        let blocks = chain.blocks().min(BLOCKS_MAX as usize) as u32;
        let mut after = |blocks: u32| BlockHash(chain.after(blocks as usize));
        let mut footprint = Footprint::default();
        let mut next = 1;
        while next <= blocks {
            footprint.marks.push((next, after(next)));
            next += if next < DENSE_BLOCKS { 1 } else { next / STRIDE_SHARE };
        }
        if footprint.marks.last().is_some_and(|mark| mark.0 < blocks) {
            footprint.marks.push((blocks, after(blocks)));
        }
        let head_blocks = (HEAD_TOKENS / block_size.tokens()).max(1);
        footprint.head = (blocks > 0).then(|| after(blocks.min(head_blocks)).0);
        footprint
    }

    /// The hash of the first 256 tokens, at least one block; `None` without a full block.
    pub fn head(&self) -> Option<u64> {
        self.head
    }
}

/// Which instances have requests in flight for which prefixes.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    holders: HashMap<BlockHash, SmallVec<[(InstanceId, u32); 2]>, AsItIs>,
    pairs: usize,
}

impl InFlight {
    /// `false`, and nothing remembered, when there is no room.
    pub fn add(&mut self, instance: InstanceId, footprint: &Footprint) -> bool {
        if self.pairs + footprint.marks.len() > PAIRS_MAX {
            return false;
        }
        for (_, hash) in &footprint.marks {
            let holders = self.holders.entry(*hash).or_default();
            match holders.iter_mut().find(|(holder, _)| *holder == instance) {
                Some((_, count)) => *count += 1,
                None => {
                    holders.push((instance, 1));
                    self.pairs += 1;
                }
            }
        }
        true
    }

    /// What was added before.
    pub fn remove(&mut self, instance: InstanceId, footprint: &Footprint) {
        for (_, hash) in &footprint.marks {
            let Entry::Occupied(mut entry) = self.holders.entry(*hash) else { continue };
            let holders = entry.get_mut();
            let Some(at) = holders.iter().position(|(holder, _)| *holder == instance) else { continue };
            holders[at].1 -= 1;
            if holders[at].1 == 0 {
                holders.remove(at);
                self.pairs -= 1;
            }
            if holders.is_empty() {
                entry.remove();
            }
        }
    }

    /// Blocks of the prompt that requests in flight share, by instance index; 0 beyond the end.
    pub fn reach(&self, footprint: &Footprint, reach: &mut Vec<u32>) {
        reach.clear();
        for (blocks, hash) in &footprint.marks {
            let Some(holders) = self.holders.get(hash) else { return };
            for (instance, _) in holders {
                if reach.len() <= instance.index() {
                    reach.resize(instance.index() + 1, 0);
                }
                reach[instance.index()] = *blocks;
            }
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.pairs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::{ContentHash, Namespace};
    use crate::routing::index::{ExactIndex, Overlaps};
    use crate::routing::request::Prompt;

    fn footprint(ids: impl IntoIterator<Item = u64>) -> Footprint {
        let contents: Vec<ContentHash> = ids.into_iter().map(ContentHash).collect();
        let prompt = Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 * 16 + 1 };
        let root = BlockHash::root(&Namespace::default(), BlockSize::DEFAULT, 0);
        let mut overlaps = Overlaps::default();
        ExactIndex::new(BlockSize::DEFAULT, usize::MAX).find(&prompt, root, &mut overlaps);
        Footprint::of(&mut overlaps.chain(&prompt, BlockSize::DEFAULT), BlockSize::DEFAULT)
    }

    #[test]
    fn a_match_is_at_most_an_eighth_short_and_what_was_added_is_removed() {
        let mut table = InFlight::default();
        let (long, short) = (footprint(0..1000), footprint(0..10));
        assert!(long.marks.len() < 70, "{}", long.marks.len());
        assert!(
            table.add(InstanceId(1), &long) && table.add(InstanceId(3), &short) && table.add(InstanceId(3), &short)
        );
        let mut reach = Vec::new();
        table.reach(&footprint(0..1000), &mut reach);
        assert_eq!(reach, [0, 1000, 0, 10]);
        for shared in [1, 5, 17, 100, 777_u64] {
            table.reach(&footprint((0..shared).chain(5000..5500)), &mut reach);
            let found = u64::from(reach[1]);
            assert!(found <= shared && found >= shared - shared / 8, "{found} of {shared}");
        }
        table.reach(&footprint(7..10), &mut reach);
        assert_eq!(reach.len(), 0);
        for (instance, footprint) in [(1, &long), (3, &short), (3, &short)] {
            table.remove(InstanceId(instance), footprint);
        }
        assert!(table.is_empty());
    }
}

//! Stored blocks whose parent is not known, kept aside until it comes.
//!
//! After a loss an instance goes on storing blocks after others that we were not told of. When such a parent is stored once
//! more, what follows it falls into place.

use crate::routing::Tier;
use crate::routing::block::{ContentHash, EngineHash};
use std::collections::HashMap;

/// Consecutive blocks that follow one that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    pub parent: EngineHash,
    pub tier: Tier,
    pub blocks: Vec<EngineHash>,
    pub contents: Vec<ContentHash>,
}

/// The orphans of one instance.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_parent: HashMap<EngineHash, Vec<Orphan>>,
    /// The parent of the run that each block is in.
    parents: HashMap<EngineHash, EngineHash>,
    blocks: usize,
}

/// Blocks kept, at most: some 4 MB an instance. Further ones are dropped; what the engine evicts makes room.
const BLOCKS_MAX: usize = 1 << 16;

impl Orphans {
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Blocks kept.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// `false` when there is no room.
    pub fn add(&mut self, orphan: Orphan) -> bool {
        if self.blocks + orphan.blocks.len() > BLOCKS_MAX {
            return false;
        }
        self.blocks += orphan.blocks.len();
        self.parents.extend(orphan.blocks.iter().map(|&block| (block, orphan.parent)));
        self.by_parent.entry(orphan.parent).or_default().push(orphan);
        true
    }

    /// Takes out what follows one of `parents` directly.
    pub fn take(&mut self, parents: &[EngineHash]) -> Vec<Orphan> {
        let mut taken = Vec::new();
        for parent in parents {
            for orphan in self.by_parent.remove(parent).into_iter().flatten() {
                self.left(&orphan.blocks);
                taken.push(orphan);
            }
        }
        taken
    }

    /// Takes those of `blocks` that are kept out of both; the rest stays in `blocks`. What follows them in their run goes too.
    /// Tells how many were dropped.
    pub fn remove(&mut self, tier: Tier, blocks: &mut Vec<EngineHash>) -> usize {
        let before = self.blocks;
        blocks.retain(|&block| !self.remove_one(tier, block));
        before - self.blocks
    }

    /// Drops all of them; tells how many.
    pub fn clear(&mut self) -> usize {
        self.by_parent.clear();
        self.parents.clear();
        std::mem::take(&mut self.blocks)
    }

    fn remove_one(&mut self, tier: Tier, block: EngineHash) -> bool {
        let Some(parent) = self.parents.get(&block) else {
            return false;
        };
        let Some(siblings) = self.by_parent.get_mut(parent) else {
            return false;
        };
        let found = siblings.iter().enumerate().find_map(|(sibling, orphan)| {
            let at = orphan.blocks.iter().position(|&kept| kept == block)?;
            (orphan.tier == tier).then_some((sibling, at))
        });
        let Some((sibling, at)) = found else {
            return false;
        };
        let orphan = &mut siblings[sibling];
        orphan.contents.truncate(at);
        let gone = orphan.blocks.split_off(at);
        if at == 0 {
            siblings.swap_remove(sibling);
        }
        if siblings.is_empty() {
            let parent = *parent;
            self.by_parent.remove(&parent);
        }
        self.left(&gone);
        true
    }

    fn left(&mut self, blocks: &[EngineHash]) {
        self.blocks -= blocks.len();
        for block in blocks {
            self.parents.remove(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphan(parent: u64, blocks: std::ops::Range<u64>) -> Orphan {
        let contents = blocks.clone().map(ContentHash).collect();
        Orphan { parent: EngineHash(parent), tier: Tier::Gpu, blocks: blocks.map(EngineHash).collect(), contents }
    }

    #[test]
    fn orphans_are_taken_by_their_parent() {
        let mut orphans = Orphans::default();
        assert!(orphans.add(orphan(1, 10..12)) && orphans.add(orphan(1, 20..21)) && orphans.add(orphan(11, 30..33)));
        assert_eq!(orphans.blocks(), 6);
        assert_eq!(orphans.take(&[EngineHash(5), EngineHash(1)]), [orphan(1, 10..12), orphan(1, 20..21)]);
        assert_eq!(orphans.take(&[EngineHash(10), EngineHash(11)]), [orphan(11, 30..33)]);
        assert!(orphans.is_empty());
    }

    #[test]
    fn what_is_evicted_goes_and_so_does_what_follows_it() {
        let mut orphans = Orphans::default();
        assert!(orphans.add(orphan(1, 10..15)));
        let mut evicted = vec![EngineHash(14), EngineHash(99), EngineHash(12)];
        assert_eq!(orphans.remove(Tier::Cpu, &mut evicted), 0);
        assert_eq!(orphans.remove(Tier::Gpu, &mut evicted), 3);
        assert_eq!(evicted, [EngineHash(99)]);
        assert_eq!(orphans.take(&[EngineHash(1)]), [orphan(1, 10..12)]);
        assert!(orphans.add(orphan(1, 10..11)));
        assert_eq!((orphans.remove(Tier::Gpu, &mut vec![EngineHash(10)]), orphans.blocks()), (1, 0));
        assert_eq!(orphans.take(&[EngineHash(1)]), []);
    }

    #[test]
    fn there_is_a_bound() {
        let mut orphans = Orphans::default();
        let max = BLOCKS_MAX as u64;
        assert!(orphans.add(orphan(u64::MAX, 0..max - 1)));
        assert!(!orphans.add(orphan(u64::MAX - 1, max..max + 2)));
        assert!(orphans.add(orphan(u64::MAX - 1, max..max + 1)));
        assert_eq!(orphans.clear(), BLOCKS_MAX);
        assert!(orphans.is_empty());
    }
}

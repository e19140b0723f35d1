//! The index that serves: a concurrent map from block to the instances that hold it.
//!
//! Every block stands alone under its chained hash, so a hole in the middle of a chain needs no special case: the walk
//! simply ends there, and resumes if the block comes back. Engine names are kept on the writers' side only, per
//! instance. Lookups take one shard's read lock a block; facts about one instance are applied in the order they come.
//!
//! Absent: tiers and a bound in bytes (the bound here is in entries).

use super::{Attach, IndexError, Overlaps};
use crate::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash};
use crate::routing::fact::{Content, InstanceId};
use crate::routing::request::Prompt;
use dashmap::{DashMap, Entry};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A map from block to holders, and from each instance's own block names to blocks.
pub struct ExactIndex {
    block_size: BlockSize,
    entries_max: usize,
    /// (block, instance) pairs held, copies not counted.
    entries: AtomicUsize,
    holders: DashMap<BlockHash, Holders>,
    named: DashMap<InstanceId, Named>,
}

/// The instances that hold a block, ascending, each with how many copies it has.
type Holders = SmallVec<[(InstanceId, u32); 2]>;

/// One instance's names for the blocks that it holds.
type Named = HashMap<EngineHash, Copies>;

struct Copies {
    block: BlockHash,
    count: u32,
}

/// How much the index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStats {
    /// Distinct blocks.
    pub blocks: usize,
    /// (block, instance) pairs.
    pub entries: usize,
}

impl ExactIndex {
    /// An empty index of `block_size` blocks that holds at most about `entries_max` (block, instance) pairs.
    pub fn new(block_size: BlockSize, entries_max: usize) -> Self {
        ExactIndex {
            block_size,
            entries_max,
            entries: AtomicUsize::new(0),
            holders: DashMap::new(),
            named: DashMap::new(),
        }
    }

    /// Adds an instance that holds nothing. Joining twice changes nothing.
    pub fn join(&self, instance: InstanceId) {
        self.named.entry(instance).or_default();
    }

    /// Forgets an instance and all that it holds, in time proportional to that.
    pub fn leave(&self, instance: InstanceId) -> Result<(), IndexError> {
        let (_, named) = self.named.remove(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        self.release_all(instance, named);
        Ok(())
    }

    /// Forgets all that an instance holds.
    pub fn clear(&self, instance: InstanceId) -> Result<(), IndexError> {
        let mut named = self.named.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let forgotten = std::mem::take(&mut *named);
        // The instance stays locked meanwhile, so that what it stores next cannot be swept away with the old.
        self.release_all(instance, forgotten);
        Ok(())
    }

    /// Stores consecutive blocks, one more copy of each.
    pub fn store(
        &self,
        instance: InstanceId,
        attach: Attach,
        blocks: &[EngineHash],
        content: Content<'_>,
    ) -> Result<(), IndexError> {
        let mut named = self.named.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let tokens = self.block_size.tokens() as usize;
        let (given, wanted) = match content {
            Content::Tokens(ids) => (ids.len(), blocks.len() * tokens),
            Content::Hashes(hashes) => (hashes.len(), blocks.len()),
        };
        if given != wanted {
            let block_size = self.block_size.tokens();
            return Err(IndexError::Mismatch { instance, blocks: blocks.len(), block_size, content: given });
        }
        let mut hash = match attach {
            Attach::Root(root) => root,
            Attach::Block(parent) => match named.get(&parent) {
                Some(copies) => copies.block,
                None => return Err(IndexError::UnknownParent { instance, blocks: blocks.len() }),
            },
        };
        for (position, &name) in blocks.iter().enumerate() {
            hash = hash.child(match content {
                Content::Tokens(ids) => ContentHash::of_tokens(&ids[position * tokens..][..tokens]),
                Content::Hashes(hashes) => hashes[position],
            });
            if !self.store_one(instance, &mut named, name, hash) {
                let limit = self.entries_max;
                return Err(IndexError::Full { instance, stored: position, blocks: blocks.len(), limit });
            }
        }
        Ok(())
    }

    /// Removes one copy of each block.
    pub fn remove(&self, instance: InstanceId, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let mut named = self.named.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let mut unknown = 0;
        for name in blocks {
            let Some(copies) = named.get_mut(name) else {
                unknown += 1;
                continue;
            };
            let block = copies.block;
            copies.count -= 1;
            if copies.count == 0 {
                named.remove(name);
            }
            self.release(instance, block, 1);
        }
        match unknown {
            0 => Ok(()),
            _ => Err(IndexError::UnknownBlocks { instance, unknown, blocks: blocks.len() }),
        }
    }

    /// Fills `overlaps` with the longest contiguous prefix of `prompt` that each instance holds.
    pub fn find(&self, prompt: &Prompt<'_>, root: BlockHash, overlaps: &mut Overlaps) {
        overlaps.clear();
        let mut depth = 0;
        // Those that hold every block so far, ascending.
        let mut unbroken: SmallVec<[InstanceId; 64]> = SmallVec::new();
        prompt.chain(root, self.block_size, |block| {
            let Some(holders) = self.holders.get(&block) else {
                return false;
            };
            if depth == 0 {
                unbroken.extend(holders.iter().map(|&(instance, _)| instance));
            } else {
                unbroken.retain(|instance| {
                    let holds = holders.binary_search_by_key(instance, |&(holder, _)| holder).is_ok();
                    if !holds {
                        overlaps.set(*instance, depth);
                    }
                    holds
                });
            }
            depth += 1;
            !unbroken.is_empty()
        });
        for instance in unbroken {
            overlaps.set(instance, depth);
        }
    }

    /// How much the index holds.
    pub fn stats(&self) -> IndexStats {
        IndexStats { blocks: self.holders.len(), entries: self.entries.load(Ordering::Relaxed) }
    }

    /// Distinct blocks that an instance holds, as it names them; zero for one that is not in the index.
    pub fn blocks_of(&self, instance: InstanceId) -> usize {
        self.named.get(&instance).map_or(0, |named| named.len())
    }

    /// `false` when the index is full and the block is new to the instance.
    fn store_one(&self, instance: InstanceId, named: &mut Named, name: EngineHash, block: BlockHash) -> bool {
        if let Some(copies) = named.get_mut(&name) {
            if copies.block == block {
                copies.count += 1;
                self.hold(instance, block);
                return true;
            }
            // The name moved to another block: what it meant before is gone, and its removal was not heard.
            let (stale, count) = (copies.block, copies.count);
            named.remove(&name);
            self.release(instance, stale, count);
        }
        if self.entries.load(Ordering::Relaxed) >= self.entries_max {
            return false;
        }
        named.insert(name, Copies { block, count: 1 });
        self.hold(instance, block);
        true
    }

    fn hold(&self, instance: InstanceId, block: BlockHash) {
        let mut holders = self.holders.entry(block).or_default();
        match holders.binary_search_by_key(&instance, |&(holder, _)| holder) {
            Ok(at) => holders[at].1 += 1,
            Err(at) => {
                holders.insert(at, (instance, 1));
                self.entries.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn release(&self, instance: InstanceId, block: BlockHash, count: u32) {
        let Entry::Occupied(mut entry) = self.holders.entry(block) else {
            unreachable!("a named block has a holder: both change under the instance's lock");
        };
        let holders = entry.get_mut();
        let at = holders
            .binary_search_by_key(&instance, |&(holder, _)| holder)
            .expect("a named block is held by the instance that names it");
        holders[at].1 -= count;
        if holders[at].1 == 0 {
            holders.remove(at);
            self.entries.fetch_sub(1, Ordering::Relaxed);
            if holders.is_empty() {
                entry.remove();
            }
        }
    }

    fn release_all(&self, instance: InstanceId, named: Named) {
        for copies in named.into_values() {
            self.release(instance, copies.block, copies.count);
        }
    }
}

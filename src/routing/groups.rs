//! Models with several cache groups: a hit counts only as far as every group that matters has it.
//!
//! The index holds the blocks of one group, of attention over the whole prompt. What the other groups of an instance hold is
//! kept here, by the same block hashes. A hit that ends after some block needs, of each group, a number of blocks before that
//! end: a sliding window those that the window reaches, a recurrent state the last one, attention over the whole prompt all of
//! them. Source: `find_longest_cache_hit` of `vllm/v1/core/single_type_kv_cache_manager.py`, 0.32.

use super::block::{BlockHash, BlockSize, EngineHash};
use super::fact::InstanceId;
use super::index::{ExactIndex, IndexError, Overlaps};
use super::request::Prompt;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the groups that are not in the index hold, of the instances that have any.
#[derive(Default)]
pub(super) struct Groups {
    instances: RwLock<BTreeMap<InstanceId, BTreeMap<u32, Group>>>,
    /// Whether there are any, so that the others' decisions take no lock for them.
    any: AtomicBool,
}

#[derive(Default)]
struct Group {
    needs_blocks: u32,
    /// The hash of each block that is held.
    hashes: HashMap<EngineHash, BlockHash>,
    /// Copies of each.
    copies: HashMap<BlockHash, u32>,
}

/// Blocks of one group that are remembered: beyond it they read as not cached.
const BLOCKS_MAX: usize = 1 << 22;
/// Groups of one instance that are told apart; vLLM's models have a few.
const GROUPS_MAX: usize = 64;

impl Groups {
    /// `instance` stored one more copy of each block in `group`, of which a hit needs `needs_blocks` blocks before its end.
    /// The blocks are those that `index` knows by these names; the others are counted in the error.
    pub fn stored(
        &self,
        index: &ExactIndex,
        instance: InstanceId,
        group: u32,
        needs_blocks: u32,
        blocks: &[EngineHash],
    ) -> Result<(), IndexError> {
        let mut instances = self.instances.write();
        self.any.store(true, Ordering::Relaxed);
        let groups = instances.entry(instance).or_default();
        if groups.len() == GROUPS_MAX && !groups.contains_key(&group) {
            return Err(IndexError::UnknownBlocks { instance, unknown: blocks.len(), blocks: blocks.len() });
        }
        let group = groups.entry(group).or_default();
        group.needs_blocks = needs_blocks;
        let mut unknown = 0;
        for &name in blocks {
            match index.hash_of(instance, name).or_else(|| group.hashes.get(&name).copied()) {
                Some(hash) if group.hashes.len() < BLOCKS_MAX => {
                    group.hashes.insert(name, hash);
                    *group.copies.entry(hash).or_default() += 1;
                }
                Some(_) | None => unknown += 1,
            }
        }
        all_known(instance, unknown, blocks.len())
    }

    /// `instance` evicted one copy of each block from `group`.
    pub fn removed(&self, instance: InstanceId, group: u32, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let mut instances = self.instances.write();
        let group = instances.get_mut(&instance).and_then(|groups| groups.get_mut(&group));
        let unknown = match group {
            Some(group) => blocks.iter().filter(|name| !group.remove(**name)).count(),
            None => blocks.len(),
        };
        all_known(instance, unknown, blocks.len())
    }

    /// `instance` emptied its cache. Its groups stay known.
    pub fn clear(&self, instance: InstanceId) {
        for group in self.instances.write().get_mut(&instance).into_iter().flat_map(BTreeMap::values_mut) {
            group.hashes.clear();
            group.copies.clear();
        }
    }

    /// `instance` left.
    pub fn leave(&self, instance: InstanceId) {
        let mut instances = self.instances.write();
        instances.remove(&instance);
        self.any.store(!instances.is_empty(), Ordering::Relaxed);
    }

    /// Shortens what was found in the index for `prompt`, which was looked up last, to what every group has.
    pub fn shorten(&self, overlaps: &mut Overlaps, prompt: &Prompt<'_>, block_size: BlockSize) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let instances = self.instances.read();
        let found = instances.keys().map(|&instance| overlaps.blocks(instance)).max().unwrap_or(0) as usize;
        // The lookup computed all that is needed of the chain: nothing that was found lies deeper.
        let mut chain = overlaps.chain(prompt, block_size);
        let hashes: Vec<BlockHash> = (1..=found).map(|blocks| BlockHash(chain.after(blocks))).collect();
        for (&instance, groups) in instances.iter() {
            let found = overlaps.blocks(instance);
            if found > 0 {
                overlaps.shorten(instance, longest(groups, &hashes[..found as usize]));
            }
        }
    }
}

impl Group {
    fn remove(&mut self, name: EngineHash) -> bool {
        let Some(&hash) = self.hashes.get(&name) else {
            return false;
        };
        let copies = self.copies.get_mut(&hash).expect("a block with a name has a copy");
        *copies -= 1;
        if *copies == 0 {
            self.copies.remove(&hash);
            self.hashes.remove(&name);
        }
        true
    }
}

fn all_known(instance: InstanceId, unknown: usize, blocks: usize) -> Result<(), IndexError> {
    if unknown == 0 { Ok(()) } else { Err(IndexError::UnknownBlocks { instance, unknown, blocks }) }
}

/// The longest hit, in blocks, of a prompt with these hashes that all groups can serve.
fn longest(groups: &BTreeMap<u32, Group>, hashes: &[BlockHash]) -> u32 {
    let mut longest = 0;
    // Blocks held in a row up to here, by group.
    let mut held: Vec<u32> = vec![0; groups.len()];
    for (at, hash) in hashes.iter().enumerate() {
        let blocks = at as u32 + 1;
        let mut all = true;
        for (held, group) in held.iter_mut().zip(groups.values()) {
            *held = if group.copies.contains_key(hash) { *held + 1 } else { 0 };
            all &= *held >= group.needs_blocks.min(blocks);
        }
        if all {
            longest = blocks;
        }
    }
    longest
}

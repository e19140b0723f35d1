//! What a lookup finds: how much of a prompt each instance has, and where it keeps it.

use super::exact::{Chain, Walk};
use crate::routing::block::BlockSize;
use crate::routing::fact::{InstanceId, Tier};
use crate::routing::request::Prompt;

/// Cached blocks from the start of a prompt, for every instance that has any. Reused between requests: once it has grown
/// to the fleet and the prompts at hand, a lookup allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Overlaps {
    /// By instance.
    blocks: Vec<u32>,
    /// The instances with any, as a bitmap.
    holders: Vec<u64>,
    /// Blocks whose best copy is in the host's memory, and in storage, by instance. Empty until there are any.
    lower: [Vec<u32>; 2],
    /// Whether any block is not in a GPU's memory.
    tiered: bool,
    pub(super) walk: Walk,
}

const WORD: usize = u64::BITS as usize;

impl Overlaps {
    /// Contiguous blocks from the start of the prompt that `instance` holds, in whichever tiers.
    #[inline]
    pub fn blocks(&self, instance: InstanceId) -> u32 {
        self.blocks.get(instance.index()).copied().unwrap_or(0)
    }

    /// The same blocks by the best tier that each is in, in the order of [`Tier::ALL`].
    pub fn by_tier(&self, instance: InstanceId) -> [u32; Tier::ALL.len()] {
        let all = self.blocks(instance);
        if !self.tiered {
            return [all, 0, 0];
        }
        let [cpu, storage] = [0, 1].map(|tier: usize| self.lower[tier].get(instance.index()).copied().unwrap_or(0));
        [all - cpu - storage, cpu, storage]
    }

    /// Whether every block found is in a GPU's memory.
    pub fn gpu_only(&self) -> bool {
        !self.tiered
    }

    /// The instances that hold at least the first block, ascending.
    pub fn holders(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.holders
            .iter()
            .enumerate()
            .flat_map(|(at, &word)| bits(word).map(move |bit| InstanceId((at * WORD + bit) as u16)))
    }

    /// The hashes of the prompt that was looked up last, which is `prompt`, as far as the lookup needed them; those further
    /// on are computed when they are asked for.
    pub(in crate::routing) fn chain<'a>(&'a mut self, prompt: &Prompt<'a>, block_size: BlockSize) -> Chain<'a> {
        Chain::resumed(prompt, block_size, &mut self.walk.chain)
    }

    /// No more than the first `blocks` blocks count at `instance`. Where some are in lower tiers, as many of these as can be are
    /// taken to be among them.
    pub(in crate::routing) fn shorten(&mut self, instance: InstanceId, blocks: u32) {
        let Some(found) = self.blocks.get_mut(instance.index()).filter(|found| **found > blocks) else {
            return;
        };
        *found = blocks;
        let mut left = blocks;
        for lower in self.lower.iter_mut().filter_map(|lower| lower.get_mut(instance.index())) {
            *lower = (*lower).min(left);
            left -= *lower;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for (at, word) in self.holders.iter_mut().enumerate().filter(|(_, word)| **word != 0) {
            *word = 0;
            self.blocks[at * WORD..][..WORD].fill(0);
            if self.tiered {
                self.lower
                    .iter_mut()
                    .filter_map(|lower| lower.get_mut(at * WORD..(at + 1) * WORD))
                    .for_each(|l| l.fill(0));
            }
        }
        self.tiered = false;
    }

    /// The holders of the first block, as a bitmap from word `first` on.
    pub(super) fn begin(&mut self, first: usize, words: &[u64]) {
        let end = first + words.len();
        if self.holders.len() < end {
            self.holders.resize(end, 0);
            self.blocks.resize(end * WORD, 0);
        }
        self.holders[first..end].copy_from_slice(words);
    }

    /// The instances `word × 64 + bit` hold `blocks` blocks and no more.
    #[inline]
    pub(super) fn settle(&mut self, word: usize, instances: u64, blocks: usize) {
        if instances == 0 {
            return;
        }
        let values = &mut self.blocks[word * WORD..][..WORD];
        if instances == u64::MAX {
            values.fill(blocks as u32);
        } else if instances.count_ones() <= 16 {
            bits(instances).for_each(|bit| values[bit] = blocks as u32);
        } else {
            for (bit, value) in values.iter_mut().enumerate() {
                *value = if instances >> bit & 1 == 1 { blocks as u32 } else { *value };
            }
        }
    }

    /// For the instances `word × 64 + bit`, `blocks` more blocks are best in `tier`, which is not the GPU's memory.
    pub(super) fn add(&mut self, tier: Tier, word: usize, instances: u64, blocks: usize) {
        if instances == 0 {
            return;
        }
        self.tiered = true;
        let lower = &mut self.lower[tier as usize - 1];
        if lower.len() < self.blocks.len() {
            lower.resize(self.blocks.len(), 0);
        }
        bits(instances).for_each(|bit| lower[word * WORD + bit] += blocks as u32);
    }
}

/// The positions of the set bits of `word`, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word = word.checked_sub(1).map(|below| word & below)?;
        Some(bit)
    })
}

//! Marconi's eviction for hybrid models (Pan et al., MLSys 2025, arXiv 2411.19379): the least of recency plus `α` times the
//! compute that is saved a byte, each from 0 to 1 over what is cached.
//!
//! What a prefix saves a byte grows with its length: attention is quadratic in it, and the state-space layers' state has
//! one size however long it is. The model is the paper's: 7 B, 4 attention, 24 state-space and 28 MLP layers, 4,096 wide,
//! a state of 128.
//!
//! Here a request's blocks stand for the paper's radix node: they count as their whole prompt does and go from its end.
//! Absent: admission (the paper keeps states at branches and ends only) and the tuning of `α` on the run, which is 0.1. On the
//! traces of attention-only models here it is level with LRU in blocks hit, and with `α` = 1 far behind: it is for models
//! whose cache is mostly states.

use super::{Order, Use, entry};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use crate::sim::cache::Slot;
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct FlopAware {
    blocks: Vec<Block>,
    /// By length of prompt, in steps of half a doubling: the free blocks, least recent first.
    lengths: Vec<BTreeSet<(u64, Slot)>>,
    freed: u64,
}

#[derive(Clone, Default)]
struct Block {
    used: Time,
    length: usize,
    freed: u64,
}

/// How much compute saved counts against recency.
const ALPHA: f64 = 0.1;
/// The size of a block is not known here; this is vLLM's.
const BLOCK_TOKENS: f64 = 16.0;

/// FLOPs of computing a prefix, over bytes of keeping it.
fn saved_per_byte(tokens: f64) -> f64 {
    const WIDTH: f64 = 4096.0;
    const STATE: f64 = 128.0;
    const ATTENTION: f64 = 4.0;
    const STATE_SPACE: f64 = 24.0;
    const MLP: f64 = 28.0;
    let attention = 8.0 * tokens * WIDTH * WIDTH + 4.0 * tokens * tokens * WIDTH;
    let state_space = 12.0 * tokens * WIDTH * WIDTH + 16.0 * tokens * WIDTH * STATE;
    let mlp = 16.0 * tokens * WIDTH * WIDTH;
    let flops = ATTENTION * attention + STATE_SPACE * state_space + MLP * mlp;
    let bytes = ATTENTION * 4.0 * tokens * WIDTH + STATE_SPACE * 2.0 * WIDTH * STATE;
    flops / bytes
}

impl FlopAware {
    /// The one that goes first of each length, with the time of its last use.
    fn heads(&self) -> impl Iterator<Item = (usize, u64, Slot, f64)> {
        self.lengths.iter().enumerate().filter_map(|(length, free)| {
            let &(freed, slot) = free.first()?;
            Some((length, freed, slot, self.blocks[slot as usize].used.as_secs_f64()))
        })
    }
}

impl Order for FlopAware {
    fn fill(&mut self, slot: Slot, content: BlockHash, first: Use) {
        self.hit(slot, content, first);
    }

    fn hit(&mut self, slot: Slot, _: BlockHash, again: Use) {
        let length = (2.0 * f64::from(again.reach.max(1)).log2()).floor() as usize;
        let block = entry(&mut self.blocks, slot);
        (block.used, block.length) = (again.at, length);
    }

    fn free(&mut self, slot: Slot) {
        self.freed += 1;
        let block = &mut self.blocks[slot as usize];
        block.freed = self.freed;
        entry(&mut self.lengths, block.length as Slot).insert((block.freed, slot));
    }

    fn take(&mut self, slot: Slot) {
        let Block { length, freed, .. } = self.blocks[slot as usize];
        self.lengths[length].remove(&(freed, slot));
    }

    fn evict(&mut self, now: Time) -> Option<Slot> {
        let saved = |length: usize| saved_per_byte(BLOCK_TOKENS * (length as f64 / 2.0).exp2());
        let oldest = self.heads().map(|(.., used)| used).fold(f64::INFINITY, f64::min);
        let (least, most) = self.heads().fold((f64::INFINITY, 0.0_f64), |(least, most), (length, ..)| {
            (least.min(saved(length)), most.max(saved(length)))
        });
        let share = |value: f64, from: f64, to: f64| if to > from { (value - from) / (to - from) } else { 0.0 };
        let score = |length: usize, used: f64| {
            share(used, oldest, now.as_secs_f64()) + ALPHA * share(saved(length), least, most)
        };
        let scored = self.heads().map(|(length, freed, slot, used)| (score(length, used), freed, length, slot));
        let (_, freed, length, slot) = scored.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        self.lengths[length].remove(&(freed, slot));
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_prefixes_save_more_a_byte() {
        let saved = [100.0, 1000.0, 10_000.0, 100_000.0].map(saved_per_byte);
        assert!(saved.is_sorted(), "{saved:?}");
        // All but the state: a token of such a model costs about 14 GFLOP, and 64 KiB of KV.
        assert!((saved_per_byte(1e4) / (14e9 / 65536.0) - 1.0).abs() < 0.25, "{}", saved_per_byte(1e4));
    }
}

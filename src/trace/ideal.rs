//! The best any cache could do: every block ever seen is kept.

use super::record::Record;
use crate::routing::block::{AsItIs, BlockHash, BlockSize, Namespace};
use serde::Serialize;
use std::collections::HashSet;

/// One cache for all requests, without end.
pub struct InfiniteCache {
    block_size: BlockSize,
    seen: HashSet<BlockHash, AsItIs>,
    total: Reuse,
}

/// How much of some prompts was there already. A hit is contiguous from the start of the prompt; the partial last block
/// counts as a block, as in the papers that publish these ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reuse {
    /// Blocks looked up.
    pub blocks: u64,
    /// Blocks found.
    pub hit_blocks: u64,
    /// Prompt tokens looked up.
    pub tokens: u64,
    /// Prompt tokens found.
    pub hit_tokens: u64,
}

impl InfiniteCache {
    /// An empty cache of `block_size` blocks.
    pub fn new(block_size: BlockSize) -> Self {
        InfiniteCache { block_size, seen: HashSet::default(), total: Reuse::default() }
    }

    /// Looks a prompt up, then keeps all of it.
    pub fn visit(&mut self, record: &Record) {
        let mut hash = BlockHash::root(&Namespace::default(), self.block_size, 0);
        let mut hit_blocks = 0;
        let mut unbroken = true;
        for &content in &record.blocks {
            hash = hash.child(content);
            unbroken &= !self.seen.insert(hash);
            hit_blocks += u64::from(unbroken);
        }
        let tokens = u64::from(record.prompt_tokens);
        self.total.blocks += record.blocks.len() as u64;
        self.total.hit_blocks += hit_blocks;
        self.total.tokens += tokens;
        self.total.hit_tokens += (hit_blocks * u64::from(self.block_size.tokens())).min(tokens);
    }

    /// All prompts so far, together.
    pub fn reuse(&self) -> Reuse {
        self.total
    }

    /// Distinct blocks seen.
    pub fn distinct_blocks(&self) -> usize {
        self.seen.len()
    }
}

impl Reuse {
    /// Blocks found, of those looked up; zero when there were none.
    pub fn block_hit_ratio(&self) -> f64 {
        self.hit_blocks as f64 / self.blocks.max(1) as f64
    }

    /// Prompt tokens found, of those looked up; zero when there were none.
    pub fn token_hit_ratio(&self) -> f64 {
        self.hit_tokens as f64 / self.tokens.max(1) as f64
    }
}

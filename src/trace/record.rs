//! One recorded request.

use crate::routing::block::{BlockSize, ContentHash};
use std::time::Duration;

/// A request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it came, since the start of the trace.
    pub at: Duration,
    /// Prompt length, at least one token.
    pub prompt_tokens: u32,
    /// Output length, at least one token.
    pub output_tokens: u32,
    /// The content of each block of the prompt, in order. The last one may be partial.
    pub blocks: Vec<ContentHash>,
}

impl Record {
    /// The blocks that the prompt fills completely: those that an engine can cache.
    pub fn full_blocks(&self, block_size: BlockSize) -> &[ContentHash] {
        &self.blocks[..self.blocks.len().min(block_size.full_blocks(self.prompt_tokens) as usize)]
    }
}

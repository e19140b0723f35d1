//! A prompt's block hashes, computed no deeper than somebody asks.
//!
//! The chain is a polynomial, so a hash far down needs no hash in between: sixteen blocks at a time are folded into the
//! hash before them by sixteen independent multiplications, and only every sixteenth hash is kept.

use crate::routing::block::{BlockHash, BlockSize, ContentHash};
use crate::routing::request::Prompt;

const STRIDE: usize = BlockHash::STRIDE;

/// Room for one prompt's hashes, reused between prompts.
#[derive(Clone, Debug, Default)]
pub(in crate::routing::index) struct ChainRoom {
    contents: Vec<ContentHash>,
    marks: Vec<BlockHash>,
}

/// The hashes of a prompt that a cache may spare.
pub(in crate::routing) struct Chain<'a> {
    prompt: Prompt<'a>,
    block_tokens: usize,
    blocks: usize,
    room: &'a mut ChainRoom,
}

impl<'a> Chain<'a> {
    pub(in crate::routing::index) fn new(
        prompt: &Prompt<'a>,
        root: BlockHash,
        block_size: BlockSize,
        room: &'a mut ChainRoom,
    ) -> Self {
        room.contents.clear();
        room.marks.clear();
        room.marks.push(root);
        Self::resumed(prompt, block_size, room)
    }

    /// The chain of a prompt for which `room` was used last: what was computed then is not computed again.
    pub(in crate::routing::index) fn resumed(
        prompt: &Prompt<'a>,
        block_size: BlockSize,
        room: &'a mut ChainRoom,
    ) -> Self {
        let block_size = prompt.block_size(block_size);
        let reusable = block_size.reusable_blocks(prompt.tokens().unwrap_or(u32::MAX)) as usize;
        let blocks = match prompt {
            Prompt::Tokens(_) => reusable,
            Prompt::Blocks { contents, .. } | Prompt::Guessed { contents, .. } => reusable.min(contents.len()),
        };
        Chain { prompt: *prompt, block_tokens: block_size.tokens() as usize, blocks, room }
    }

    /// How many there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Whether asking for a hash means reading the tokens that lead to it, which costs ten times what the chain costs.
    pub fn hashes_tokens(&self) -> bool {
        matches!(self.prompt, Prompt::Tokens(_))
    }

    /// The hash after the first `blocks` blocks.
    #[inline]
    pub fn after(&mut self, blocks: usize) -> u64 {
        debug_assert!(blocks <= self.blocks);
        if let Prompt::Tokens(tokens) = self.prompt {
            let known = self.room.contents.len();
            if blocks > known {
                let fresh = &tokens[known * self.block_tokens..blocks * self.block_tokens];
                ContentHash::append_of_blocks(fresh, self.block_tokens, &mut self.room.contents);
            }
        }
        let ChainRoom { contents, marks } = &mut *self.room;
        let contents: &[ContentHash] = match &self.prompt {
            Prompt::Tokens(_) => contents,
            Prompt::Blocks { contents, .. } | Prompt::Guessed { contents, .. } => contents,
        };
        while marks.len() <= blocks / STRIDE {
            let from = (marks.len() - 1) * STRIDE;
            let stride = contents[from..from + STRIDE].try_into().expect("a stride has its length");
            marks.push(marks[marks.len() - 1].after_full_stride(stride));
        }
        let from = blocks / STRIDE * STRIDE;
        marks[blocks / STRIDE].after_stride(&contents[from..blocks]).0
    }
}

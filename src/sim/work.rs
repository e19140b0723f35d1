//! What an engine is given to do, and what it tells of it.

use super::eviction::Category;
use crate::routing::Time;
use crate::routing::block::BlockHash;
use std::time::Duration;

/// A request, to an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// The caller's name for it, not in use by another request here.
    pub id: u64,
    /// When it came.
    pub at: Time,
    /// What sort of request it is; only some ways of [`Eviction`](super::Eviction) care.
    pub category: Category,
    /// Prompt length; at least one.
    pub prompt_tokens: u32,
    /// Tokens to produce; at least one.
    pub output_tokens: u32,
    /// Chained hashes of its full blocks from the start. They may go on past the prompt where the output is known ahead;
    /// blocks past the end of the chain are never hit by anyone.
    pub chain: Vec<BlockHash>,
    /// It looks nothing up and computes its whole prompt, as vLLM does when the prompt's log-probabilities are asked for.
    pub skips_cache: bool,
}

/// A request that could never run: it needs more blocks than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request needs {needed} blocks of KV cache and the instance has {blocks}")]
pub struct TooLarge {
    /// Blocks that it needs to finish.
    pub needed: u32,
    /// Blocks in the pool.
    pub blocks: u32,
}

/// A change of the cache, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheEvent {
    /// Blocks `first .. first + count` of a request's chain were stored.
    Stored {
        /// The request.
        id: u64,
        /// Position of the first block.
        first: u32,
        /// How many.
        count: u32,
    },
    /// One copy of a block was evicted.
    Removed(BlockHash),
}

/// A request produced a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub id: u64,
    /// Tokens produced so far; 1 at the first.
    pub generated: u32,
    /// Prompt tokens that came from the cache when it was first scheduled.
    pub cached_tokens: u32,
    /// This was the last one.
    pub finished: bool,
}

/// What an engine did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceStats {
    /// Time spent in steps.
    pub busy: Duration,
    /// Steps begun.
    pub steps: u64,
    /// Requests that had to give up their blocks and start again.
    pub preemptions: u64,
    /// Prompt tokens looked up in the cache.
    pub queried_tokens: u64,
    /// Prompt tokens found there.
    pub hit_tokens: u64,
}

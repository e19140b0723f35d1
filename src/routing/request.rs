//! What the router is asked: a prompt, and what else decides where it may go.

use super::block::{BlockHash, BlockSize, ContentHash, Namespace};
use twox_hash::XxHash3_64;

/// A request to be placed. Borrowed from whoever parsed it: nothing is copied on the way to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Model, adapter and salt: the instances that may serve it, and the cache it may share.
    pub namespace: Namespace<'a>,
    /// The prompt after the chat template.
    pub prompt: Prompt<'a>,
    /// The conversation that it belongs to, where the caller says so.
    pub session: Option<SessionKey>,
}

/// A session, by the hash of whatever names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

impl SessionKey {
    /// The session of this name.
    pub fn of(name: &str) -> Self {
        SessionKey(XxHash3_64::oneshot(name.as_bytes()))
    }
}

/// Before the first block of every guessed prompt: a chain that begins with it meets none of tokens.
const GUESSED: ContentHash = ContentHash(0x6775_6573_7365_6421);

/// A prompt, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// Token ids, as the engine will see them.
    Tokens(&'a [u32]),
    /// A recorded prompt: the content of its full blocks in order, without the tokens themselves.
    Blocks {
        /// Content of each full block; ids beyond `tokens / block size` are ignored.
        contents: &'a [ContentHash],
        /// Prompt length, the partial last block included.
        tokens: u32,
    },
    /// A prompt whose tokens are not known, as far as its bytes tell which prompts begin alike. What follows from it is never
    /// more than approximate, and is kept apart from what is known of tokens.
    Guessed {
        /// Stand-ins for the content of its blocks, in order: of so many bytes as [`guessed_block`] tokens usually have.
        contents: &'a [ContentHash],
        /// Prompt length, estimated.
        tokens: u32,
    },
}

/// The blocks that a guessed prompt is remembered by, where those of tokens have this size: 64 tokens, or more. Finer ones cost
/// several times as much to remember, for guesses that are a few tokens nearer.
pub fn guessed_block(of_tokens: BlockSize) -> BlockSize {
    const LEAST: BlockSize = match BlockSize::new(64) {
        Ok(size) => size,
        Err(_) => unreachable!(),
    };
    if of_tokens.tokens() < LEAST.tokens() { LEAST } else { of_tokens }
}

impl Prompt<'_> {
    /// Prompt length in tokens; `None` above `u32::MAX`.
    pub fn tokens(&self) -> Option<u32> {
        match self {
            Prompt::Tokens(tokens) => u32::try_from(tokens.len()).ok(),
            Prompt::Blocks { tokens, .. } | Prompt::Guessed { tokens, .. } => Some(*tokens),
        }
    }

    /// Where its chain of blocks starts, in a namespace that starts at `root`.
    pub(super) fn root(&self, root: BlockHash) -> BlockHash {
        match self {
            Prompt::Tokens(_) | Prompt::Blocks { .. } => root,
            Prompt::Guessed { .. } => root.child(GUESSED),
        }
    }

    /// The blocks that it is remembered by, where those of tokens have this size.
    pub(super) fn block_size(&self, of_tokens: BlockSize) -> BlockSize {
        match self {
            Prompt::Tokens(_) | Prompt::Blocks { .. } => of_tokens,
            Prompt::Guessed { .. } => guessed_block(of_tokens),
        }
    }

    pub(super) fn is_guessed(&self) -> bool {
        matches!(self, Prompt::Guessed { .. })
    }
}

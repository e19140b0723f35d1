//! What the router is asked: a prompt, and what else decides where it may go.

use super::block::{BlockHash, ContentHash, Namespace};
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
        /// Stand-ins for the content of its blocks, in order: of so many bytes as a block of tokens usually has.
        contents: &'a [ContentHash],
        /// Prompt length, estimated.
        tokens: u32,
    },
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

    pub(super) fn is_guessed(&self) -> bool {
        matches!(self, Prompt::Guessed { .. })
    }
}

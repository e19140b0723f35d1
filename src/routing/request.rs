//! What the router is asked: a prompt, and what else decides where it may go.

use super::block::{ContentHash, Namespace};
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
}

impl Prompt<'_> {
    /// Prompt length in tokens; `None` above `u32::MAX`.
    pub fn tokens(&self) -> Option<u32> {
        match self {
            Prompt::Tokens(tokens) => u32::try_from(tokens.len()).ok(),
            Prompt::Blocks { tokens, .. } => Some(*tokens),
        }
    }
}

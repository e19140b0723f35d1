//! Which request continues which, found from prompts alone.

use super::held::{BLOCK_TOKENS, End, Request};
use std::collections::HashMap;
use std::time::Duration;

/// Requests that may be continued, by the full blocks of their prompts. One entry a request.
///
/// A request continues the one whose full blocks are the longest beginning of its own, if that one ended before and was
/// shorter. Its partial last block does not count: the first token of the answer changes it. Each is continued once: what
/// comes after a fork is a conversation of its own, and so is what only shares a system prompt with one that was continued.
#[derive(Default)]
pub(super) struct Conversations {
    open: HashMap<u64, Open>,
}

struct Open {
    chat: u64,
    prompt_tokens: u32,
    ended: Duration,
}

impl Conversations {
    /// The chat that `request` continues, which from now on is known as `chat` itself.
    pub(super) fn place(&mut self, chat: u64, request: &Request) -> Option<u64> {
        let full_blocks = request.prompt_tokens as usize / BLOCK_TOKENS;
        let mut chain = 0;
        let mut found = None;
        for block in request.blocks().iter().take(full_blocks) {
            chain = chained(chain, block.0);
            let fits = |open: &&Open| open.prompt_tokens < request.prompt_tokens && open.ended <= request.at;
            if self.open.get(&chain).filter(fits).is_some() {
                found = Some(chain);
            }
        }
        let parent = found.and_then(|found| self.open.remove(&found)).map(|open| open.chat);
        if let (Some(End::Well { at, .. }), 1..) = (request.end, full_blocks) {
            self.open.insert(chain, Open { chat, prompt_tokens: request.prompt_tokens, ended: at });
        }
        parent
    }
}

/// The blocks are salted hashes, so plain mixing does.
fn chained(chain: u64, block: u64) -> u64 {
    (chain ^ block).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

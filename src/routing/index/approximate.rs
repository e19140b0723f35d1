//! What instances without events may hold: the prompts that our own decisions sent them, least recently used out first.
//!
//! On the storage of the exact index, so that one lookup answers for all instances. Blocks are named by their own hashes.
//! A prompt's blocks are used when it is routed; what has not been used for longest goes first, from the end of its prompt, so
//! that what is left is always whole prefixes, as it is in an engine that evicts least recently used first.
//!
//! It cannot know what an engine evicts, when it restarts, or what it generated: it says more than is true, or less. An answer
//! that reports fewer cached tokens than were believed says that a block was evicted, and so everything that was used before
//! that block was: that is forgotten.

use super::exact::ExactIndex;
use super::{Attach, IndexError};
use crate::routing::block::{AsItIs, BlockHash, BlockSize, ContentHash, EngineHash};
use crate::routing::fact::{Content, InstanceId, Tier};
use crate::routing::request::Prompt;
use crate::routing::time::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The prompts that instances without events were sent.
pub struct ApproximateIndex {
    block_size: BlockSize,
    blocks_max: usize,
    /// Of those that said how many blocks they have.
    sizes: Mutex<HashMap<InstanceId, usize>>,
    recent: Mutex<HashMap<InstanceId, Recent>>,
}

/// When something was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    number: u64,
    at: Time,
}

/// What one instance used, and when.
#[derive(Default)]
struct Recent {
    /// Oldest first.
    uses: VecDeque<Prefix>,
    /// The number of the oldest use.
    oldest: u64,
    /// Each block held, and the number of its last use.
    last_use: HashMap<BlockHash, u64, AsItIs>,
    /// What the blocks held take of the instance's cache, in its own blocks.
    held: usize,
    /// What those in `uses` would, with repetition.
    used: usize,
}

/// What one prompt used.
struct Prefix {
    at: Time,
    blocks: Vec<BlockHash>,
    /// How many of the instance's blocks each of these stands for.
    weight: usize,
}

/// A block may be in this many remembered uses, on average, before the oldest are forgotten.
const USES_PER_BLOCK: usize = 4;

/// No cache is believed to have more blocks than this, whatever its instance says: it takes some 80 bytes a block to remember
/// them, so 80 MB an instance.
const SIZE_MAX: usize = 1 << 20;

/// A use so long ago was answered, and its blocks had been there. Sooner, what is missing may be still to come.
const SETTLED: Duration = Duration::from_secs(10);

impl ApproximateIndex {
    /// Holds at most `blocks_max` blocks for each instance that does not say how many it has.
    pub fn new(block_size: BlockSize, blocks_max: usize) -> Self {
        ApproximateIndex { block_size, blocks_max, sizes: Mutex::default(), recent: Mutex::default() }
    }

    /// `instance` was sent `prompt`: it holds its full blocks from now on, and perhaps no longer what it used long ago.
    /// Tells when the deepest of the blocks that can be reused was used before, if it was held. Fails when `index` is full;
    /// what could be stored is.
    pub fn sent(
        &self,
        index: &ExactIndex,
        instance: InstanceId,
        root: BlockHash,
        prompt: &Prompt<'_>,
        now: Time,
    ) -> Result<Option<Use>, IndexError> {
        let blocks_max = self.blocks_max(instance);
        let block_size = prompt.block_size(self.block_size);
        let weight = (block_size.tokens() / self.block_size.tokens()) as usize;
        let contents: Vec<ContentHash> = match prompt {
            Prompt::Tokens(tokens) => {
                tokens.chunks_exact(block_size.tokens() as usize).map(ContentHash::of_tokens).collect()
            }
            Prompt::Blocks { contents, tokens } | Prompt::Guessed { contents, tokens } => {
                contents.iter().copied().take(block_size.full_blocks(*tokens) as usize).collect()
            }
        };
        let contents = &contents[..contents.len().min(blocks_max / weight)];
        let mut hash = root;
        let blocks: Vec<BlockHash> = contents
            .iter()
            .map(|&content| {
                hash = hash.child(content);
                hash
            })
            .collect();
        let mut instances = self.recent.lock();
        let recent = instances.entry(instance).or_default();
        let reusable = block_size.reusable_blocks(prompt.tokens().unwrap_or(u32::MAX)) as usize;
        let before = recent.last_use(&blocks[..reusable.min(blocks.len())]);
        let prefix = Prefix { at: now, blocks, weight };
        let result = recent.used_again(index, instance, root, prefix, contents);
        let result = result.and_then(|()| recent.forget_beyond(index, instance, blocks_max));
        if result.as_ref().is_err_and(|error| !matches!(error, IndexError::Full { .. })) {
            // The index forgot the instance, or all that it held, behind our back.
            instances.remove(&instance);
        }
        result.map(|()| before)
    }

    /// A block that had last been used at `before` was not there for a prompt that was sent at `sent`: neither is what was
    /// used longer ago.
    pub fn evicted(&self, index: &ExactIndex, instance: InstanceId, before: Use, sent: Time) -> Result<(), IndexError> {
        match self.recent.lock().get_mut(&instance) {
            Some(recent) if sent.since(before.at) >= SETTLED => {
                recent.forget_while(index, instance, |recent| recent.oldest < before.number)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// `instance` says how many blocks its cache has.
    pub fn set_size(&self, index: &ExactIndex, instance: InstanceId, blocks: usize) -> Result<(), IndexError> {
        let blocks = blocks.clamp(1, SIZE_MAX);
        if self.sizes.lock().insert(instance, blocks) == Some(blocks) {
            return Ok(());
        }
        match self.recent.lock().get_mut(&instance) {
            Some(recent) => recent.forget_beyond(index, instance, blocks),
            None => Ok(()),
        }
    }

    /// Blocks that `instance` is believed to hold, at most.
    pub fn blocks_max(&self, instance: InstanceId) -> usize {
        self.sizes.lock().get(&instance).copied().unwrap_or(self.blocks_max)
    }

    /// `instance` emptied its cache, or is known by its events from now on.
    pub fn forget(&self, instance: InstanceId) {
        self.recent.lock().remove(&instance);
    }

    /// `instance` left: what it said of itself is forgotten too.
    pub fn leave(&self, instance: InstanceId) {
        self.forget(instance);
        self.sizes.lock().remove(&instance);
    }
}

impl Recent {
    /// Stores what of `blocks` is not held yet. What could not be stored is not remembered either.
    fn used_again(
        &mut self,
        index: &ExactIndex,
        instance: InstanceId,
        root: BlockHash,
        mut prefix: Prefix,
        contents: &[ContentHash],
    ) -> Result<(), IndexError> {
        let blocks = &mut prefix.blocks;
        let held = blocks.iter().take_while(|block| self.last_use.contains_key(block)).count();
        let attach = held.checked_sub(1).map_or(Attach::Root(root), |last| Attach::Block(name(blocks[last])));
        let names: Vec<EngineHash> = blocks[held..].iter().copied().map(name).collect();
        let result = index.store(instance, Tier::Gpu, attach, &names, Content::Hashes(&contents[held..]));
        if let Err(IndexError::Full { stored, .. }) = result {
            blocks.truncate(held + stored);
        }
        let number = self.oldest + self.uses.len() as u64;
        let known = self.last_use.len();
        self.last_use.extend(blocks.iter().map(|&block| (block, number)));
        self.held += (self.last_use.len() - known) * prefix.weight;
        self.used += blocks.len() * prefix.weight;
        self.uses.push_back(prefix);
        result
    }

    /// When the deepest of `blocks` that is held was used last.
    fn last_use(&self, blocks: &[BlockHash]) -> Option<Use> {
        let number = blocks.iter().map_while(|block| self.last_use.get(block)).last().copied()?;
        let prefix = self.uses.get(usize::try_from(number.checked_sub(self.oldest)?).ok()?)?;
        Some(Use { number, at: prefix.at })
    }

    /// Forgets the oldest uses, and the blocks that were not used since, down to `blocks_max` blocks.
    fn forget_beyond(&mut self, index: &ExactIndex, instance: InstanceId, blocks_max: usize) -> Result<(), IndexError> {
        let too_many = |recent: &Recent| recent.held > blocks_max || recent.used > blocks_max * USES_PER_BLOCK;
        self.forget_while(index, instance, too_many)
    }

    /// Forgets the oldest use block by block, and the blocks that were not used since.
    fn forget_while(
        &mut self,
        index: &ExactIndex,
        instance: InstanceId,
        more: impl Fn(&Recent) -> bool,
    ) -> Result<(), IndexError> {
        let mut unused: Vec<EngineHash> = Vec::new();
        while more(self) {
            let Some(Prefix { blocks, weight, .. }) = self.uses.front_mut() else { break };
            let (weight, Some(block)) = (*weight, blocks.pop()) else {
                self.uses.pop_front();
                self.oldest += 1;
                continue;
            };
            self.used -= weight;
            if self.last_use.get(&block) == Some(&self.oldest) {
                self.last_use.remove(&block);
                self.held -= weight;
                unused.push(name(block));
            }
        }
        index.remove(instance, Tier::Gpu, &unused)
    }
}

/// A block goes by its own hash.
fn name(block: BlockHash) -> EngineHash {
    EngineHash(block.0)
}

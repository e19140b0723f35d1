//! The oracle: every instance's blocks as whole paths, compared element by element. No chained hash, no sharing, no
//! early stop, so it can be wrong only where its few lines are wrong.

use super::{Attach, IndexError};
use crate::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash};
use crate::routing::fact::{Content, InstanceId, Tier};
use crate::routing::request::Prompt;
use std::collections::{BTreeMap, BTreeSet};

/// A block as everything that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    root: BlockHash,
    contents: Vec<ContentHash>,
}

/// What an engine's name stands for, and how many copies of it are in each tier.
type Named = BTreeMap<EngineHash, (Path, [u32; Tier::ALL.len()])>;

/// Same door as [`ExactIndex`](super::ExactIndex), unbounded and slow.
pub struct ReferenceIndex {
    block_size: BlockSize,
    instances: BTreeMap<InstanceId, Named>,
}

impl ReferenceIndex {
    /// An empty index of `block_size` blocks.
    pub fn new(block_size: BlockSize) -> Self {
        ReferenceIndex { block_size, instances: BTreeMap::new() }
    }

    /// Adds an instance that holds nothing.
    pub fn join(&mut self, instance: InstanceId) {
        self.instances.entry(instance).or_default();
    }

    /// Forgets an instance.
    pub fn leave(&mut self, instance: InstanceId) -> Result<(), IndexError> {
        self.instances.remove(&instance).map(|_| ()).ok_or(IndexError::UnknownInstance { instance })
    }

    /// Forgets all that an instance holds.
    pub fn clear(&mut self, instance: InstanceId) -> Result<(), IndexError> {
        self.instances.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?.clear();
        Ok(())
    }

    /// Stores consecutive blocks, one more copy of each in `tier`.
    pub fn store(
        &mut self,
        instance: InstanceId,
        tier: Tier,
        attach: Attach,
        blocks: &[EngineHash],
        content: Content<'_>,
    ) -> Result<(), IndexError> {
        let held = self.instances.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let contents: Vec<ContentHash> = match content {
            Content::Tokens(ids) => {
                ids.chunks_exact(self.block_size.tokens() as usize).map(ContentHash::of_tokens).collect()
            }
            Content::Hashes(hashes) => hashes.to_vec(),
        };
        let given = match content {
            Content::Tokens(ids) => ids.len(),
            Content::Hashes(hashes) => hashes.len(),
        };
        let exact_tokens =
            !matches!(content, Content::Tokens(ids) if ids.len() % self.block_size.tokens() as usize != 0);
        if contents.len() != blocks.len() || !exact_tokens {
            let block_size = self.block_size.tokens();
            return Err(IndexError::Mismatch { instance, blocks: blocks.len(), block_size, content: given });
        }
        let mut path = match attach {
            Attach::Root(root) => Path { root, contents: Vec::new() },
            Attach::Block(parent) => match held.get(&parent) {
                Some((path, _)) => path.clone(),
                None => return Err(IndexError::UnknownParent { instance, blocks: blocks.len() }),
            },
        };
        for (name, content) in blocks.iter().zip(contents) {
            path.contents.push(content);
            match held.get_mut(name) {
                Some((known, copies)) if *known == path => copies[tier as usize] += 1,
                Some(_) | None => {
                    held.insert(*name, (path.clone(), Tier::ALL.map(|other| u32::from(other == tier))));
                }
            }
        }
        Ok(())
    }

    /// Stores one more copy of each block in `tier`; the instance must hold them already, in whichever tier.
    pub fn copy(&mut self, instance: InstanceId, tier: Tier, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let held = self.instances.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let mut unknown = 0;
        for name in blocks {
            match held.get_mut(name) {
                Some((_, copies)) => copies[tier as usize] += 1,
                None => unknown += 1,
            }
        }
        match unknown {
            0 => Ok(()),
            _ => Err(IndexError::UnknownBlocks { instance, unknown, blocks: blocks.len() }),
        }
    }

    /// Removes one copy of each block from `tier`.
    pub fn remove(&mut self, instance: InstanceId, tier: Tier, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let held = self.instances.get_mut(&instance).ok_or(IndexError::UnknownInstance { instance })?;
        let mut unknown = 0;
        for name in blocks {
            match held.get_mut(name).filter(|(_, copies)| copies[tier as usize] > 0) {
                Some((_, copies)) => {
                    copies[tier as usize] -= 1;
                    if *copies == [0; Tier::ALL.len()] {
                        held.remove(name);
                    }
                }
                None => unknown += 1,
            }
        }
        match unknown {
            0 => Ok(()),
            _ => Err(IndexError::UnknownBlocks { instance, unknown, blocks: blocks.len() }),
        }
    }

    /// The longest contiguous prefix of `prompt` that each instance holds, for those that hold any: blocks by the best tier
    /// that each is in.
    pub fn find(&self, prompt: &Prompt<'_>, root: BlockHash) -> BTreeMap<InstanceId, [u32; Tier::ALL.len()]> {
        let tokens = prompt.tokens().expect("a prompt in a test is short");
        let mut wanted: Vec<ContentHash> = match prompt {
            Prompt::Tokens(ids) => {
                ids.chunks_exact(self.block_size.tokens() as usize).map(ContentHash::of_tokens).collect()
            }
            Prompt::Blocks { contents, .. } | Prompt::Guessed { contents, .. } => contents.to_vec(),
        };
        wanted.truncate(prompt.block_size(self.block_size).reusable_blocks(tokens) as usize);
        let best_tier = |held: &Named, depth: usize| {
            let here = held.values().filter(|(path, _)| path.root == root && path.contents == wanted[..depth]);
            let tiers = here.filter_map(|(_, copies)| copies.iter().position(|&copies| copies > 0));
            tiers.min()
        };
        let prefix = |held: &Named| {
            let mut blocks = [0; Tier::ALL.len()];
            (1..=wanted.len()).map_while(|depth| best_tier(held, depth)).for_each(|tier| blocks[tier] += 1);
            blocks
        };
        let all = self.instances.iter().map(|(&instance, held)| (instance, prefix(held)));
        all.filter(|(_, blocks)| *blocks != [0; Tier::ALL.len()]).collect()
    }

    /// (block, instance) pairs held, copies not counted.
    pub fn entries(&self) -> usize {
        self.instances.values().map(|held| paths(held).len()).sum()
    }

    /// Distinct blocks held by anyone.
    pub fn blocks(&self) -> usize {
        self.instances.values().flat_map(paths).collect::<BTreeSet<_>>().len()
    }
}

/// The distinct blocks that an instance names.
fn paths(held: &Named) -> BTreeSet<&Path> {
    held.values().map(|(path, _)| path).collect()
}

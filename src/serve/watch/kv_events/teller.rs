//! Tells the router what an instance's batches say, and keeps account of what could not be told.

use super::codec::{Batch, Event, Removed, Stored};
use super::facts::{self, Group, Groups};
use super::orphans::{Orphan, Orphans};
use crate::routing::index::IndexError;
use crate::routing::{Content, Fact, InstanceId, LearnError, Parent, Tier};
use crate::serve::core::Core;
use crate::serve::telemetry::instance::InstanceMetrics;
use crate::serve::telemetry::labels::{EventKind, OrphanFate, SkipReason};
use std::sync::Arc;

/// What one instance's cache holds, on its way to the router.
pub(super) struct Teller {
    core: Arc<Core>,
    instance: InstanceId,
    /// Whether everything that the cache holds was told, orphans apart.
    complete: bool,
    groups: Groups,
    orphans: Orphans,
    warned_of_block_size: bool,
}

/// What happened in a cache group that is not in the index, to be told once its batch's blocks are.
enum InGroup<'a> {
    Stored { group: u32, needs_blocks: u32, blocks: &'a Stored<'a> },
    Removed { group: u32, blocks: &'a Removed<'a> },
}

impl Teller {
    pub fn new(core: Arc<Core>, instance: InstanceId) -> Self {
        Teller {
            core,
            instance,
            complete: false,
            groups: Groups::default(),
            orphans: Orphans::default(),
            warned_of_block_size: false,
        }
    }

    /// The cache is empty, and whatever happens from here on will be told.
    pub fn begins(&mut self) {
        self.complete = true;
    }

    /// Whether everything that matters to a hit was told.
    pub fn is_complete(&self) -> bool {
        self.complete && self.orphans.is_empty() && !self.groups.some_cannot_be_told()
    }

    /// What the cache holds is not known any more.
    pub fn forget(&mut self) {
        self.complete = false;
        let dropped = self.orphans.clear();
        self.orphaned(OrphanFate::Dropped, dropped);
        self.learn(Fact::Cleared { instance: self.instance });
    }

    /// Tells a batch's events in their order, those of groups that are not in the index last: they are about blocks that the
    /// same batch may bring into it.
    pub fn batch(&mut self, batch: &Batch<'_>) {
        self.groups.look(batch, self.core.router().block_size());
        let mut in_groups = Vec::new();
        for event in &batch.events {
            let told = match event {
                Event::Stored(stored) => self.stored(stored, &mut in_groups).map(|()| EventKind::Stored),
                Event::Removed(removed) => self.removed(removed, &mut in_groups).map(|()| EventKind::Removed),
                Event::Cleared => {
                    in_groups.clear();
                    Ok(self.cleared())
                }
                Event::Unknown => Err(SkipReason::Unknown),
            };
            match told {
                Ok(kind) => self.metrics().events.of(kind).increment(1),
                Err(reason) => self.metrics().skipped.of(reason).increment(1),
            }
        }
        for change in in_groups {
            let instance = self.instance;
            self.learn_what_fits(match change {
                InGroup::Stored { group, needs_blocks, blocks } => {
                    Fact::GroupStored { instance, group, needs_blocks, blocks: &blocks.blocks }
                }
                InGroup::Removed { group, blocks } => Fact::GroupRemoved { instance, group, blocks: &blocks.blocks },
            });
        }
    }

    fn stored<'a>(&mut self, stored: &'a Stored<'a>, in_groups: &mut Vec<InGroup<'a>>) -> Result<(), SkipReason> {
        let tier = facts::tier(&stored.place)?;
        match self.groups.of(stored.place.group) {
            Group::InIndex => {}
            // What is not on the GPU comes back to all groups at once.
            Group::Beside { needs_blocks } if tier == Tier::Gpu => {
                let group = stored.place.group.unwrap_or(0);
                in_groups.push(InGroup::Stored { group, needs_blocks, blocks: stored });
                return Ok(());
            }
            Group::Beside { .. } | Group::Apart => return Err(SkipReason::Group),
        }
        if stored.tokens.is_empty() && tier != Tier::Gpu {
            self.learn_what_fits(Fact::Copied { instance: self.instance, tier, blocks: &stored.blocks });
            return Ok(());
        }
        let block_size = self.core.router().block_size();
        match facts::parent(stored, block_size) {
            Ok(parent) => {
                self.store(tier, parent, stored);
                Ok(())
            }
            Err(reason) => {
                self.left_out(reason, stored.block_size);
                Err(reason)
            }
        }
    }

    fn store(&mut self, tier: Tier, parent: Parent<'_>, stored: &Stored<'_>) {
        let block_size = self.core.router().block_size();
        let hashes = facts::hashes(stored, block_size);
        let content = hashes.as_deref().map_or(Content::Tokens(&stored.tokens), Content::Hashes);
        let (instance, blocks) = (self.instance, stored.blocks.as_slice());
        let error = self.core.learn(Fact::Stored { instance, tier, parent, blocks, content });
        match (error, parent) {
            (Ok(()), _) => self.adopt(blocks),
            (Err(LearnError::Index(IndexError::UnknownParent { .. })), Parent::Block(parent)) => {
                let contents = facts::all_hashes(stored, block_size);
                self.set_aside(Orphan { parent, tier, blocks: blocks.to_vec(), contents });
            }
            (Err(error), _) => self.did_not_fit(&error),
        }
    }

    fn set_aside(&mut self, orphan: Orphan) {
        let blocks = orphan.blocks.len();
        let fate = if self.orphans.add(orphan) { OrphanFate::Kept } else { OrphanFate::Dropped };
        self.complete &= fate == OrphanFate::Kept;
        self.orphaned(fate, blocks);
    }

    /// Attaches what was waiting for one of `blocks`, and what was waiting for that.
    fn adopt(&mut self, blocks: &[crate::routing::block::EngineHash]) {
        if self.orphans.is_empty() {
            return;
        }
        let mut found = self.orphans.take(blocks);
        while let Some(Orphan { parent, tier, blocks, contents }) = found.pop() {
            let fact = Fact::Stored {
                instance: self.instance,
                tier,
                parent: Parent::Block(parent),
                blocks: &blocks,
                content: Content::Hashes(&contents),
            };
            match self.core.learn(fact) {
                Ok(()) => self.orphaned(OrphanFate::Attached, blocks.len()),
                Err(error) => {
                    self.orphaned(OrphanFate::Dropped, blocks.len());
                    self.did_not_fit(&error);
                }
            }
            found.extend(self.orphans.take(&blocks));
        }
    }

    fn removed<'a>(&mut self, removed: &'a Removed<'a>, in_groups: &mut Vec<InGroup<'a>>) -> Result<(), SkipReason> {
        let tier = facts::tier(&removed.place)?;
        match self.groups.of(removed.place.group) {
            Group::InIndex => {}
            Group::Beside { .. } if tier == Tier::Gpu => {
                let group = removed.place.group.unwrap_or(0);
                in_groups.push(InGroup::Removed { group, blocks: removed });
                return Ok(());
            }
            Group::Beside { .. } | Group::Apart => return Err(SkipReason::Group),
        }
        let mut blocks = removed.blocks.clone();
        if !self.orphans.is_empty() {
            let dropped = self.orphans.remove(tier, &mut blocks);
            self.orphaned(OrphanFate::Dropped, dropped);
        }
        let fact = Fact::Removed { instance: self.instance, tier, blocks: &blocks };
        if tier == Tier::Gpu {
            self.learn(fact)
        } else {
            self.learn_what_fits(fact)
        }
        Ok(())
    }

    /// The cache is known to be empty, so from here on everything is known.
    fn cleared(&mut self) -> EventKind {
        self.forget();
        self.complete = true;
        EventKind::Cleared
    }

    /// Blocks that belong in the index were left out of it.
    fn left_out(&mut self, reason: SkipReason, block_size: u32) {
        match reason {
            SkipReason::Medium | SkipReason::Unknown | SkipReason::Group => {}
            SkipReason::Content => self.complete = false,
            SkipReason::BlockSize => {
                self.complete = false;
                if !std::mem::replace(&mut self.warned_of_block_size, true) {
                    let configured = self.core.router().block_size().tokens();
                    tracing::warn!(
                        instance = self.core.member(self.instance).name,
                        "it caches blocks of {block_size} tokens and the router counts in {configured}, so its cache \
                         cannot be seen; set routing.block_size = {block_size}"
                    );
                }
            }
        }
    }

    /// What does not fit was counted on the way; here it only lowers what is known.
    pub fn learn(&mut self, fact: Fact<'_>) {
        if let Err(error) = self.core.learn(fact) {
            self.did_not_fit(&error);
        }
    }

    /// As [`learn`](Self::learn), of what is not what the index is mainly about: what does not fit is missed there, and no more.
    fn learn_what_fits(&self, fact: Fact<'_>) {
        if let Err(error) = self.core.learn(fact) {
            tracing::debug!(instance = self.core.member(self.instance).name, %error, "a cache event does not fit");
        }
    }

    fn did_not_fit(&mut self, error: &LearnError) {
        tracing::debug!(instance = self.core.member(self.instance).name, %error, "a cache event does not fit");
        self.complete = false;
    }

    fn orphaned(&self, fate: OrphanFate, blocks: usize) {
        self.metrics().orphans.of(fate).increment(blocks as u64);
        self.metrics().orphan_blocks.set(self.orphans.blocks() as f64);
    }

    fn metrics(&self) -> Arc<InstanceMetrics> {
        self.core.metrics().instance(self.instance.index())
    }
}

//! The index that serves: runs of blocks, and who holds which part of each.
//!
//! A *run* is a stretch of consecutive blocks of one chain: their chained hashes in one array, and segments `(end, set of
//! holders)` along it. Sets are stored once. A table of *anchors* leads from the hash of a run's first block to the run; there
//! are no other links downwards. Each instance has its engine's *names* for blocks in a table of its own, from name to place.
//!
//! What makes it small: eight bytes a block and twelve a name, packed; nothing else is counted by the block. What makes it
//! fast: a stretch is compared by its last hash alone, which for a whole run is in its header, as are its first segments and
//! the sets of up to four; so most lookups touch two cache lines a run, however long. Where nothing hangs from a run's end
//! they stop. Readers take no lock, allocate nothing and write to nothing shared.
//!
//! **Places never move.** A run grows and shrinks at its end only. Where chains part in the middle of a run, another run
//! hangs from there; a block that goes from the middle leaves a hole, that is a segment with no holder, and a hole or an
//! end that something hangs from stays until that goes. So each block has one place as long as anyone holds it or anything
//! below it, and equal prefixes always meet.
//!
//! **Locks.** Facts about one instance take its lock, then the lock of the shard of each run that they change, two at most
//! (of the run that is continued and of the block to come, in order of number). The arena, the headers and the sets have
//! locks of their own that are held for a few instructions.
//!
//! **The bound** is in bytes of memory taken for all this. At the bound a store fails with [`IndexError::Full`], which
//! says how many blocks were stored; the others read as not cached. What is removed is reused. The maps for what is rare (names
//! with several copies, blocks with several names, names that their table has no place for, the hashes by which sets are
//! shared) count as what the standard library takes for them. Past the bound may go: a removal, which always succeeds, by the
//! few words that a split of a set takes; and one store, by what it takes to note that blocks go by further names. Not
//! counted is what does not grow with blocks: the tables of shards, chunks and instances, and one batch's hashes an instance.
//!
//! What was tried and lost, and the figures: see the head of `benches/index.rs`.

mod anchors;
mod budget;
mod chain;
mod chunks;
mod cover;
mod find;
mod forget;
mod names;
mod place;
mod prefetch;
mod run;
mod runs;
mod set_id;
mod sets;
mod side;
mod snapshot;
mod store;
mod sync;
mod words;

pub(in crate::routing) use chain::Chain;
pub(super) use find::Walk;
pub use snapshot::SnapshotError;

use super::{Attach, IndexError};
use crate::routing::block::{BlockHash, BlockSize, EngineHash};
use crate::routing::fact::{Content, InstanceId, Tier};
use anchors::Anchors;
use budget::Budget;
use names::Names;
use place::{Name, Place};
use runs::Runs;
use sets::Sets;
use side::Side;
use sync::{Mutex, MutexGuard};
use words::Words;

const SHARDS: usize = 64;
/// Instances that there is a place for. Under shuttle, where a lock is a thousand times as dear, no more than its tests use.
const MEMBERS: usize = if cfg!(shuttle) { 8 } else { InstanceId::LIMIT };
/// How many names ahead their entries are fetched.
const AHEAD: usize = 12;

/// Which instance holds which blocks, for lookups by prefix.
pub struct ExactIndex {
    block_size: BlockSize,
    budget: Budget,
    /// The same account without its limit, for removals.
    forgetting: Budget,
    words: Words,
    runs: Runs,
    sets: Sets,
    shards: Box<[Shard]>,
    members: Box<[Mutex<Option<Box<Member>>>]>,
}

/// A part of the runs: those whose first block's hash falls here.
struct Shard {
    /// Held by who changes a run of this shard. Blocks of these runs that anybody holds.
    blocks_held: Mutex<usize>,
    anchors: Anchors,
}

/// What the writers keep about one instance.
#[derive(Default)]
struct Member {
    names: Names,
    /// Copies by tier of the blocks that have not just one.
    copies: Side<Name, [u32; Tier::ALL.len()]>,
    /// Places that go by several names.
    aliases: Side<Place, Alias>,
    /// Names beyond the first of each place.
    surplus_names: usize,
    /// Tiers that it ever stored to, as bits.
    tiers: u8,
    /// The hashes of the blocks in hand.
    keys: Vec<u64>,
}

/// How often an instance names one block.
#[derive(Clone, Copy, Debug, Default)]
struct Alias {
    names: u32,
    /// Names with copies in each tier.
    holding: [u32; Tier::ALL.len()],
}

/// How much the index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStats {
    /// Distinct blocks that anyone holds.
    pub blocks: usize,
    /// (block, instance) pairs.
    pub entries: usize,
    /// Memory taken for them, in bytes.
    pub bytes: usize,
    /// Runs of blocks.
    pub runs: usize,
}

impl ExactIndex {
    /// An empty index of `block_size` blocks that takes at most `bytes_max` bytes.
    pub fn new(block_size: BlockSize, bytes_max: usize) -> Self {
        let budget = Budget::new(bytes_max);
        ExactIndex {
            block_size,
            forgetting: budget.beyond(),
            budget,
            words: Words::new(),
            runs: Runs::new(),
            sets: Sets::new(),
            shards: (0..SHARDS).map(|_| Shard { blocks_held: Mutex::new(0), anchors: Anchors::new() }).collect(),
            members: (0..MEMBERS).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Adds an instance that holds nothing. Joining twice changes nothing.
    pub fn join(&self, instance: InstanceId) {
        self.members[instance.index()].lock().get_or_insert_default();
    }

    /// Forgets an instance and all that it holds, in time proportional to that.
    pub fn leave(&self, instance: InstanceId) -> Result<(), IndexError> {
        let mut member = self.member(instance)?;
        if let Some(member) = member.as_mut() {
            self.forget_all(instance, member);
        }
        *member = None;
        Ok(())
    }

    /// Forgets all that an instance holds, in every tier.
    pub fn clear(&self, instance: InstanceId) -> Result<(), IndexError> {
        let mut member = self.member(instance)?;
        if let Some(member) = member.as_mut() {
            self.forget_all(instance, member);
        }
        Ok(())
    }

    /// Stores consecutive blocks, one more copy of each in `tier`.
    pub fn store(
        &self,
        instance: InstanceId,
        tier: Tier,
        attach: Attach,
        blocks: &[EngineHash],
        content: Content<'_>,
    ) -> Result<(), IndexError> {
        let mut member = self.member(instance)?;
        let tokens = self.block_size.tokens() as usize;
        let (given, wanted) = match content {
            Content::Tokens(ids) => (ids.len(), blocks.len() * tokens),
            Content::Hashes(hashes) => (hashes.len(), blocks.len()),
        };
        if given != wanted {
            let block_size = self.block_size.tokens();
            return Err(IndexError::Mismatch { instance, blocks: blocks.len(), block_size, content: given });
        }
        let member = member.as_mut().expect("the instance was found");
        self.store_blocks(instance, member, tier, attach, blocks, content)
    }

    /// Stores one more copy of each block in `tier`; the instance must hold them already, in whichever tier.
    /// Of a full index `stored` is how many were looked at before.
    pub fn copy(&self, instance: InstanceId, tier: Tier, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let mut member = self.member(instance)?;
        let member = member.as_mut().expect("the instance was found");
        self.copy_blocks(instance, member, tier, blocks)
    }

    /// Removes one copy of each block from `tier`.
    pub fn remove(&self, instance: InstanceId, tier: Tier, blocks: &[EngineHash]) -> Result<(), IndexError> {
        let mut member = self.member(instance)?;
        let member = member.as_mut().expect("the instance was found");
        let mut unknown = 0;
        for (at, &block) in blocks.iter().enumerate() {
            if let Some(&ahead) = blocks.get(at + AHEAD) {
                member.names.seek(Name::of(ahead));
            }
            unknown += usize::from(!self.remove_copy(instance, member, tier, Name::of(block)));
        }
        match unknown {
            0 => Ok(()),
            _ => Err(IndexError::UnknownBlocks { instance, unknown, blocks: blocks.len() }),
        }
    }

    /// How much the index holds. Not of one moment while facts come in.
    pub fn stats(&self) -> IndexStats {
        let held = |member: &Mutex<Option<Box<Member>>>| member.lock().as_ref().map_or(0, |member| member.held());
        IndexStats {
            blocks: self.shards.iter().map(|shard| *shard.blocks_held.lock()).sum(),
            entries: self.members.iter().map(held).sum(),
            bytes: self.budget.used(),
            runs: self.runs.in_use(),
        }
    }

    /// The block that an instance calls by this name.
    pub(in crate::routing) fn hash_of(&self, instance: InstanceId, name: EngineHash) -> Option<BlockHash> {
        let member = self.members.get(instance.index())?.lock();
        let names = &member.as_ref()?.names;
        let (place, _) = names.get(names.find(Name::of(name))?);
        Some(BlockHash(self.key_at(place.run(), place.offset())))
    }

    /// Distinct blocks that an instance holds, in any tier; zero for one that is not in the index.
    pub fn blocks_of(&self, instance: InstanceId) -> usize {
        self.members.get(instance.index()).map_or(0, |member| member.lock().as_ref().map_or(0, |member| member.held()))
    }

    /// An instance's slot, locked, with the instance in it.
    fn member(&self, instance: InstanceId) -> Result<MutexGuard<'_, Option<Box<Member>>>, IndexError> {
        let slot = self.members.get(instance.index()).ok_or(IndexError::UnknownInstance { instance })?.lock();
        if slot.is_some() { Ok(slot) } else { Err(IndexError::UnknownInstance { instance }) }
    }
}

impl Member {
    /// Distinct blocks held, in any tier.
    fn held(&self) -> usize {
        self.names.len() - self.surplus_names
    }
}

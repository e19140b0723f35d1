//! Storing: from the parent on, stretch by stretch.
//!
//! A stretch is what goes to one run at once: blocks that a run has already, blocks that extend one, or a new run. Who holds
//! it is written first, then what the instance calls it.

use super::anchors::Spread;
use super::place::{Name, Place};
use super::run::{RUN_BLOCKS_MAX, RunId, Segment, Segments};
use super::set_id::{Lane, SetId};
use super::sync::{AtomicU64, MutexGuard, Ordering};
use super::{ExactIndex, Member};
use crate::routing::block::{BlockHash, ContentHash, EngineHash};
use crate::routing::fact::{Content, InstanceId, Tier};
use crate::routing::index::{Attach, IndexError};
use smallvec::SmallVec;

mod naming;

/// Blocks that were given a place.
struct Placed {
    run: RunId,
    offset: usize,
    blocks: usize,
    before: Before,
}

/// Which blocks of a stretch an instance held before, and in which tiers: `(from, to, tiers as bits)`, offsets in the run.
type Before = SmallVec<[(usize, usize, u8); 2]>;

impl ExactIndex {
    pub(super) fn store_blocks(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        attach: Attach,
        names: &[EngineHash],
        content: Content<'_>,
    ) -> Result<(), IndexError> {
        let (mut at, start) = match attach {
            Attach::Root(root) => (None, root),
            Attach::Block(parent) => {
                let unknown = IndexError::UnknownParent { instance, blocks: names.len() };
                let (place, _) = member.names.get(member.names.find(Name::of(parent)).ok_or(unknown)?);
                (Some(place), BlockHash(self.key_at(place.run(), place.offset())))
            }
        };
        let mut keys = std::mem::take(&mut member.keys);
        chain(start, content, self.block_size.tokens() as usize, &mut keys);
        member.tiers |= 1 << tier as u8;
        let mut stored = 0;
        while stored < keys.len() {
            let Some(placed) = self.place(instance, member, tier, at, &keys[stored..]) else { break };
            let last = placed.offset + placed.blocks - 1;
            at = Some(Place::new(placed.run, last));
            let named = &names[stored..stored + placed.blocks];
            stored += placed.blocks;
            self.name(instance, member, tier, named, placed);
        }
        // Room for a usual batch is kept, for the largest ever it is not.
        keys.clear();
        keys.shrink_to(RUN_BLOCKS_MAX);
        member.keys = keys;
        if stored < names.len() {
            let limit_bytes = self.budget.limit();
            return Err(IndexError::Full { instance, stored, blocks: names.len(), limit_bytes });
        }
        Ok(())
    }

    pub(super) fn copy_blocks(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        names: &[EngineHash],
    ) -> Result<(), IndexError> {
        member.tiers |= 1 << tier as u8;
        let mut unknown = 0;
        for (stored, &name) in names.iter().enumerate() {
            let Some(slot) = member.names.find(Name::of(name)) else {
                unknown += 1;
                continue;
            };
            let (place, _) = member.names.get(slot);
            let shard = Spread::of(self.runs.known(place.run()).head()).shard(self.shards.len());
            let mut held = self.shards[shard].blocks_held.lock();
            let Some(placed) = self.hold(instance, member, tier, place.run(), place.offset(), 1, &mut held) else {
                let limit_bytes = self.budget.limit();
                return Err(IndexError::Full { instance, stored, blocks: names.len(), limit_bytes });
            };
            drop(held);
            self.name(instance, member, tier, &[name], placed);
        }
        match unknown {
            0 => Ok(()),
            _ => Err(IndexError::UnknownBlocks { instance, unknown, blocks: names.len() }),
        }
    }

    /// Gives a place to the first of the blocks with `keys`, and to as many more as go to the same run, and writes that
    /// `instance` holds them. The first follows the block at `at`, which the instance holds. `None` when the budget is used up.
    fn place(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        at: Option<Place>,
        keys: &[u64],
    ) -> Option<Placed> {
        let key = Spread::of(keys[0]);
        let after = at.map(|place| (self.runs.known(place.run()), place));
        let shard = key.shard(self.shards.len());
        let parent_shard = after.map_or(shard, |(run, _)| Spread::of(run.head()).shard(self.shards.len()));
        let (mut own, mut other) = self.lock_two(shard, parent_shard);

        // The run that the parent is in goes on with this block.
        if let Some((run, place)) = after
            && let Some(stored) = run.locked_keys(&self.words).get(place.offset() + 1..)
            && let Some(blocks) = equal_blocks(stored, keys)
        {
            let offset = place.offset() + 1;
            let blocks_held = other.as_mut().unwrap_or(&mut own);
            return self.hold(instance, member, tier, place.run(), offset, blocks, blocks_held);
        }
        // Another run begins with it.
        let anchors = &self.shards[shard].anchors;
        let begins = |run: RunId| {
            let header = self.runs.known(run);
            (header.head() == keys[0] && header.blocks() > 0).then_some((run, header))
        };
        if let Some((run, header)) = anchors.find(key, begins) {
            let blocks = equal_blocks(header.locked_keys(&self.words), keys).expect("the first block is the same");
            return self.hold(instance, member, tier, run, 0, blocks, &mut own);
        }
        // It is new, and so is all that follows it: what anything hangs from stays.
        if !member.names.reserve(keys.len().min(RUN_BLOCKS_MAX), &self.budget) {
            return None;
        }
        let lane = Lane::new(instance, tier);
        if let Some((run, place)) = after
            && place.offset() + 1 == run.blocks()
            && run.blocks() < RUN_BLOCKS_MAX
        {
            let blocks = keys.len().min(RUN_BLOCKS_MAX - run.blocks());
            if !run.write_keys(&keys[..blocks], &self.words, &self.budget) {
                return None;
            }
            let offset = run.blocks();
            match run.inline_tail() {
                Some((last, _)) if last.set == SetId::single(lane) => run.set_inline_end(offset + blocks, &self.words),
                Some(_) | None => {
                    let mut segments = run.locked_segments(&self.words);
                    segments.push(Segment { end: (offset + blocks) as u32, set: SetId::single(lane) });
                    if !run.set_segments(&segments, &self.words, &self.budget) {
                        return None;
                    }
                }
            }
            **other.as_mut().unwrap_or(&mut own) += blocks;
            return Some(Placed { run: place.run(), offset, blocks, before: Before::new() });
        }
        let keys = &keys[..keys.len().min(RUN_BLOCKS_MAX)];
        let run = self.new_run(keys, at.map_or(RunId::NONE, Place::run), lane)?;
        if !anchors.insert(key, run, &self.budget) {
            self.runs.give(run, &self.words);
            return None;
        }
        if let Some((_, place)) = after {
            self.runs.adopt(place.run(), place.offset());
        }
        *own += keys.len();
        Some(Placed { run, offset: 0, blocks: keys.len(), before: Before::new() })
    }

    /// The locks of a run's own shard and of another, taken in order of number; no second one when they are the same.
    fn lock_two(&self, shard: usize, other: usize) -> (MutexGuard<'_, usize>, Option<MutexGuard<'_, usize>>) {
        let lock = |at: usize| self.shards[at].blocks_held.lock();
        match shard.cmp(&other) {
            std::cmp::Ordering::Equal => (lock(shard), None),
            std::cmp::Ordering::Less => {
                let first = lock(shard);
                (first, Some(lock(other)))
            }
            std::cmp::Ordering::Greater => {
                let first = lock(other);
                (lock(shard), Some(first))
            }
        }
    }

    fn new_run(&self, keys: &[u64], parent: RunId, lane: Lane) -> Option<RunId> {
        let run = self.runs.take(keys[0], parent, &self.budget)?;
        let header = self.runs.known(run);
        let segment = Segment { end: keys.len() as u32, set: SetId::single(lane) };
        if header.write_keys(keys, &self.words, &self.budget)
            && header.set_segments(&[segment], &self.words, &self.budget)
        {
            Some(run)
        } else {
            self.runs.give(run, &self.words);
            None
        }
    }

    /// Writes that `instance` holds `blocks` blocks of a run that has them already.
    #[expect(clippy::too_many_arguments, reason = "the parts of one step, in one place")]
    fn hold(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        run: RunId,
        offset: usize,
        blocks: usize,
        blocks_held: &mut usize,
    ) -> Option<Placed> {
        if !member.names.reserve(blocks, &self.budget) {
            return None;
        }
        let header = self.runs.known(run);
        let old = header.locked_segments(&self.words);
        let before = self.held_before(instance, member.tiers, &old, offset, offset + blocks);
        // What is stored again is another copy, as a rule.
        let again = before.iter().map(|(from, to, _)| to - from).sum();
        if !member.copies.reserve(again, &self.budget) {
            return None;
        }
        let lane = Lane::new(instance, tier);
        let set = |set: SetId| self.sets.with(set, lane, &self.words, &self.budget);
        let revived = self.change(header, &old, offset, offset + blocks, set, &self.budget)?;
        *blocks_held += revived.from_none;
        Some(Placed { run, offset, blocks, before })
    }

    /// Which blocks from `from` to `to` an instance holds, in which of the tiers that it uses.
    fn held_before(&self, instance: InstanceId, tiers: u8, segments: &Segments, from: usize, to: usize) -> Before {
        let used = Tier::ALL.into_iter().filter(|&tier| tiers & 1 << tier as u8 != 0);
        let lanes: SmallVec<[(Lane, u8); 3]> = used.map(|tier| (Lane::new(instance, tier), 1 << tier as u8)).collect();
        let mut begin = 0;
        let mut before = Before::new();
        for segment in segments {
            let (start, end) = (begin.max(from), (segment.end as usize).min(to));
            begin = segment.end as usize;
            if start < end {
                let holds = |&&(lane, _): &&(Lane, u8)| self.sets.contains(segment.set, lane, &self.words);
                let tiers = lanes.iter().filter(holds).fold(0, |tiers, &(_, tier)| tiers | tier);
                if tiers != 0 {
                    before.push((start, end, tiers));
                }
            }
        }
        before
    }
}

/// How many blocks of a run are those with `keys`; `None` if the first is another.
fn equal_blocks(stored: &[AtomicU64], keys: &[u64]) -> Option<usize> {
    let equal = |at: usize| stored[at].load(Ordering::Relaxed) == keys[at];
    let most = stored.len().min(keys.len());
    if most == 0 || !equal(0) {
        return None;
    }
    if equal(most - 1) {
        return Some(most);
    }
    // Hashes are chained: equal up to some block, different from there on.
    let (mut same, mut differs) = (1, most);
    while differs - same > 1 {
        let middle = (same + differs) / 2;
        if equal(middle - 1) { same = middle } else { differs = middle }
    }
    Some(same)
}

/// Fills `keys` with the hashes of the blocks that follow the one with hash `start`.
fn chain(start: BlockHash, content: Content<'_>, block_tokens: usize, keys: &mut Vec<u64>) {
    keys.clear();
    let mut hash = start;
    let mut follow = |content: ContentHash| {
        hash = hash.child(content);
        hash.0
    };
    match content {
        Content::Tokens(ids) => {
            keys.extend(ids.chunks_exact(block_tokens).map(|ids| follow(ContentHash::of_tokens(ids))))
        }
        Content::Hashes(hashes) => keys.extend(hashes.iter().map(|&content| follow(content))),
    }
}

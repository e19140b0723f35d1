//! Removing: one copy, one name, or all that an instance holds.

use super::anchors::Spread;
use super::budget::Budget;
use super::names::Slot;
use super::place::{Copies, Name, Place};
use super::run::RunId;
use super::set_id::{Lane, SetId};
use super::sync::MutexGuard;
use super::{ExactIndex, Member};
use crate::routing::fact::{InstanceId, Tier};

impl ExactIndex {
    /// Removes one copy from a tier; `false` if there is none.
    pub(super) fn remove_copy(&self, instance: InstanceId, member: &mut Member, tier: Tier, name: Name) -> bool {
        let Some(slot) = member.names.find(name) else { return false };
        let (place, copies) = member.names.get(slot);
        if copies == Copies::MANY {
            let counts = member.copies.get_mut(&name).expect("several copies are counted");
            let count = &mut counts[tier as usize];
            if *count == 0 {
                return false;
            }
            *count -= 1;
            let last_there = *count == 0;
            member.settle_copies(name, slot, place);
            if last_there {
                self.leave_tier(instance, member, tier, place);
            }
            return true;
        }
        if copies != Copies::one(tier) {
            return false;
        }
        member.names.remove(slot);
        self.leave_tier(instance, member, tier, place);
        member.drop_alias(place);
        true
    }

    /// Removes a name and all copies under it; returns its block's place, and the tiers (as bits) in which no other name has
    /// that block. Where `spare` says so the instance is still written down as a holder.
    pub(super) fn forget_name(
        &self,
        instance: InstanceId,
        member: &mut Member,
        slot: Slot,
        spare: impl Fn(Place, Tier) -> bool,
    ) -> (Place, u8) {
        let (place, copies) = member.names.get(slot);
        let name = member.names.name(slot);
        let counts = member.counts(name, copies);
        member.copies.remove(&name);
        member.names.remove(slot);
        let mut left = 0;
        for tier in Tier::ALL.into_iter().filter(|&tier| counts[tier as usize] > 0) {
            if member.last_name_leaves(tier, place) {
                left |= 1 << tier as u8;
                if !spare(place, tier) {
                    self.release(Lane::new(instance, tier), place.run(), place.offset(), place.offset() + 1);
                }
            }
        }
        member.drop_alias(place);
        (place, left)
    }

    /// Removes all names.
    pub(super) fn forget_all(&self, instance: InstanceId, member: &mut Member) {
        let mut places: Vec<(Place, u8)> = Vec::with_capacity(member.names.len());
        for (name, place, copies) in member.names.iter() {
            let counts = member.counts(name, copies);
            let bit = |tier: Tier| u8::from(counts[tier as usize] > 0) << tier as u8;
            places.push((place, Tier::ALL.into_iter().fold(0, |tiers, tier| tiers | bit(tier))));
        }
        // Run by run, from its end, so that runs shrink rather than be riddled with holes.
        places.sort_unstable();
        places.dedup_by(|(place, tiers), (kept, kept_tiers)| {
            // Several names of one place: it is left once, in every tier that any of them had.
            let same = place == kept;
            *kept_tiers |= if same { *tiers } else { 0 };
            same
        });
        let mut end = places.len();
        while end > 0 {
            let (last, tiers) = places[end - 1];
            let mut begin = end - 1;
            while begin > 0 && {
                let (place, other) = places[begin - 1];
                place.run == last.run && place.offset + 1 == places[begin].0.offset && other == tiers
            } {
                begin -= 1;
            }
            let (from, to) = (places[begin].0.offset(), last.offset() + 1);
            for tier in Tier::ALL.into_iter().filter(|&tier| tiers >> tier as u8 & 1 == 1) {
                self.release(Lane::new(instance, tier), last.run(), from, to);
            }
            end = begin;
        }
        self.budget.give(member.bytes());
        *member = Member { tiers: member.tiers, ..Member::default() };
    }

    /// The last copy under one of a block's names in a tier is gone.
    fn leave_tier(&self, instance: InstanceId, member: &mut Member, tier: Tier, place: Place) {
        if member.last_name_leaves(tier, place) {
            self.release(Lane::new(instance, tier), place.run(), place.offset(), place.offset() + 1);
        }
    }

    /// Writes that a lane holds the blocks from `from` to `to` of a run no more. A run that nobody holds any of, and that
    /// nothing hangs from, goes, and so may the one that it hangs from.
    fn release(&self, lane: Lane, run: RunId, from: usize, to: usize) {
        let header = self.runs.known(run);
        let shard = &self.shards[Spread::of(header.head()).shard(self.shards.len())];
        let mut blocks_held = shard.blocks_held.lock();
        // What there is most of: the end of a run that only this instance holds.
        if to == header.blocks()
            && from >= header.pinned()
            && let Some((last, begin)) = header.inline_tail()
            && last.set == SetId::single(lane)
            && from > begin as usize
        {
            header.set_inline_end(from, &self.words);
            header.shrink_keys(&self.words, &self.budget);
            *blocks_held -= to - from;
            return;
        }
        let old = header.locked_segments(&self.words);
        let set = |set: SetId| self.sets.without(set, lane, &self.words, &self.forgetting);
        let changed = self.change(header, &old, from, to, set, &self.forgetting);
        *blocks_held -= changed.expect("forgetting has no limit").to_none;
        self.bury(run, blocks_held);
    }

    /// Takes a run back if nobody holds any of it, which only who holds its lock since it became so can tell; then perhaps
    /// the one that it hangs from, and so on upwards.
    fn bury<'a>(&'a self, mut run: RunId, mut guard: MutexGuard<'a, usize>) {
        loop {
            let header = self.runs.known(run);
            if header.blocks() > 0 {
                header.shrink_keys(&self.words, &self.budget);
                return;
            }
            let key = Spread::of(header.head());
            let parent = self.runs.parent(run);
            self.shards[key.shard(self.shards.len())].anchors.remove(key, run);
            self.runs.give(run, &self.words);
            drop(guard);
            if parent == RunId::NONE {
                return;
            }
            // The parent stays as long as it counts this run among its children, and so does its lock.
            let header = self.runs.known(parent);
            guard = self.shards[Spread::of(header.head()).shard(self.shards.len())].blocks_held.lock();
            if !self.runs.orphan(parent) {
                return;
            }
            // Its end may have stayed for the child's sake only.
            let old = header.locked_segments(&self.words);
            let same = |set: SetId| {
                self.sets.retain(set, &self.words);
                Some(set)
            };
            self.change(header, &old, 0, 0, same, &self.forgetting).expect("forgetting has no limit");
            run = parent;
        }
    }
}

impl Member {
    /// Memory taken from the budget.
    fn bytes(&self) -> usize {
        self.names.bytes() + self.copies.bytes() + self.aliases.bytes()
    }

    /// Copies by tier under a name.
    pub(super) fn counts(&self, name: Name, copies: Copies) -> [u32; Tier::ALL.len()] {
        if copies == Copies::MANY {
            return *self.copies.get(&name).expect("several copies are counted");
        }
        Tier::ALL.map(|tier| u32::from(copies == Copies::one(tier)))
    }

    /// The counts of a name that is in the table, to be more than one copy.
    pub(super) fn copies_mut(&mut self, slot: Slot, beyond: &Budget) -> &mut [u32; Tier::ALL.len()] {
        let name = self.names.name(slot);
        let (place, copies) = self.names.get(slot);
        if copies != Copies::MANY {
            let counts = self.counts(name, copies);
            self.names.set(slot, place, Copies::MANY);
            self.copies.insert(name, counts, beyond);
        }
        self.copies.get_mut(&name).expect("several copies are counted")
    }

    /// Stops counting what is one copy again.
    fn settle_copies(&mut self, name: Name, slot: Slot, place: Place) {
        let counts = self.copies.get(&name).expect("several copies are counted");
        if counts.iter().sum::<u32>() == 1 {
            let left = Tier::ALL.into_iter().find(|&tier| counts[tier as usize] == 1);
            self.names.set(slot, place, Copies::one(left.expect("one is left somewhere")));
            self.copies.remove(&name);
        }
    }

    /// One of a block's names has no copies in a tier any more; whether none has.
    fn last_name_leaves(&mut self, tier: Tier, place: Place) -> bool {
        self.aliases.get_mut(&place).is_none_or(|alias| {
            alias.holding[tier as usize] -= 1;
            alias.holding[tier as usize] == 0
        })
    }

    /// One of a block's names is gone.
    fn drop_alias(&mut self, place: Place) {
        if let Some(alias) = self.aliases.get_mut(&place) {
            self.surplus_names -= 1;
            alias.names -= 1;
            if alias.names == 1 {
                self.aliases.remove(&place);
            }
        }
    }
}

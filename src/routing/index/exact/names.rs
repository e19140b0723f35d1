//! One instance's names for the blocks that it holds: from an engine's hash to a place in a run.
//!
//! Only writers come here, under the instance's lock. Names are foreign, so they are spread by a mixing that loses
//! nothing: what is stored is the whole name, and two names are never confused. A bucket is two cache lines with nine
//! entries of 14 bytes; what does not fit goes to the next bucket, and each bucket that was passed over counts it.

use super::budget::Budget;
use super::prefetch::prefetch;
use super::run::RunId;
use crate::routing::block::EngineHash;

const SLOTS: usize = 9;
/// Load, in percent, at which the table grows, and by how much.
const FULL_PERCENT: usize = 88;
const GROWTH_PERCENT: usize = 150;

/// A block's place: a run, and the block's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub run: u32,
    pub offset: u16,
}

impl Place {
    pub fn new(run: RunId, offset: usize) -> Self {
        Place { run: run.0, offset: offset as u16 }
    }

    pub fn run(self) -> RunId {
        RunId(self.run)
    }

    pub fn offset(self) -> usize {
        usize::from(self.offset)
    }
}

/// What an entry says of its block's copies: one copy in the tier of this number, or, for `Copies::MANY`, see elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies(u16);

impl Copies {
    pub const MANY: Copies = Copies(3);

    /// One copy in a tier.
    pub fn one(tier: crate::routing::fact::Tier) -> Self {
        Copies(tier as u16)
    }
}

/// The mixed form of a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Name(u64);

impl Name {
    /// MurmurHash3's finalizer (Appleby, public domain), which is a permutation.
    #[inline]
    pub fn of(name: EngineHash) -> Self {
        let name = (name.0 ^ name.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let name = (name ^ name >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Name(name ^ name >> 33)
    }

    /// The mixed form as a number, and back.
    pub fn mixed(self) -> u64 {
        self.0
    }

    pub fn from_mixed(mixed: u64) -> Self {
        Name(mixed)
    }
}

#[derive(Clone, Copy)]
#[repr(align(128))]
struct Bucket {
    names: [u64; SLOTS],
    runs: [u32; SLOTS],
    /// The block's number in its run, and its [`Copies`] in the highest bits.
    offsets: [u16; SLOTS],
    /// Entries that belong here or before and are stored behind.
    passed: u16,
}

const EMPTY: Bucket = Bucket { names: [0; SLOTS], runs: [0; SLOTS], offsets: [0; SLOTS], passed: 0 };
const OFFSET_MASK: u16 = (1 << 13) - 1;

const _: () = assert!(size_of::<Bucket>() == 128);

/// A name's entry in the table, until the table changes.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    bucket: usize,
    at: usize,
}

#[derive(Default)]
pub(super) struct Names {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Names {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn home(&self, name: Name) -> usize {
        ((u128::from(name.0) * self.buckets.len() as u128) >> 64) as usize
    }

    /// Starts to fetch a name's entry from memory.
    #[inline]
    pub fn prefetch(&self, name: EngineHash) {
        if let Some(bucket) = self.buckets.get(self.home(Name::of(name))) {
            prefetch(bucket);
        }
    }

    #[inline]
    pub fn find(&self, name: Name) -> Option<Slot> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut at = self.home(name);
        // A round at most: in a small table every bucket may have been passed over.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for slot in 0..SLOTS {
                if bucket.names[slot] == name.0 && bucket.runs[slot] != 0 {
                    return Some(Slot { bucket: at, at: slot });
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = if at + 1 == self.buckets.len() { 0 } else { at + 1 };
        }
        None
    }

    #[inline]
    pub fn get(&self, slot: Slot) -> (Place, Copies) {
        let bucket = &self.buckets[slot.bucket];
        let offset = bucket.offsets[slot.at];
        let place = Place { run: bucket.runs[slot.at], offset: offset & OFFSET_MASK };
        (place, Copies(offset >> 13))
    }

    pub fn name(&self, slot: Slot) -> Name {
        Name(self.buckets[slot.bucket].names[slot.at])
    }

    pub fn set(&mut self, slot: Slot, place: Place, copies: Copies) {
        let bucket = &mut self.buckets[slot.bucket];
        bucket.runs[slot.at] = place.run;
        bucket.offsets[slot.at] = place.offset | copies.0 << 13;
    }

    /// Makes room for `more` names; `false`, and nothing done, when the budget is used up.
    pub fn reserve(&mut self, more: usize, budget: &Budget) -> bool {
        let needed = (self.len + more) * 100;
        if needed <= self.buckets.len() * SLOTS * FULL_PERCENT {
            return true;
        }
        let least = needed.div_ceil(SLOTS * FULL_PERCENT);
        let grown = (self.buckets.len() * GROWTH_PERCENT / 100).max(least);
        let mut buckets = grown;
        if !budget.take(buckets * size_of::<Bucket>()) {
            // Near the limit the least will do.
            buckets = least;
            if !budget.take(buckets * size_of::<Bucket>()) {
                return false;
            }
        }
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; buckets]);
        for bucket in &old {
            for slot in (0..SLOTS).filter(|&slot| bucket.runs[slot] != 0) {
                self.put(bucket.names[slot], bucket.runs[slot], bucket.offsets[slot]);
            }
        }
        budget.give(old.len() * size_of::<Bucket>());
        true
    }

    /// Adds a name that is not in the table, for which there is room.
    #[inline]
    pub fn insert(&mut self, name: Name, place: Place, copies: Copies) {
        self.put(name.0, place.run, place.offset | copies.0 << 13);
        self.len += 1;
    }

    #[inline]
    fn put(&mut self, name: u64, run: u32, offset: u16) {
        let mut at = self.home(Name(name));
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(slot) = bucket.runs.iter().position(|&run| run == 0) {
                bucket.names[slot] = name;
                bucket.runs[slot] = run;
                bucket.offsets[slot] = offset;
                return;
            }
            bucket.passed += 1;
            at = if at + 1 == self.buckets.len() { 0 } else { at + 1 };
        }
    }

    #[inline]
    pub fn remove(&mut self, slot: Slot) {
        let name = Name(self.buckets[slot.bucket].names[slot.at]);
        self.buckets[slot.bucket].runs[slot.at] = 0;
        let mut at = self.home(name);
        while at != slot.bucket {
            self.buckets[at].passed -= 1;
            at = if at + 1 == self.buckets.len() { 0 } else { at + 1 };
        }
        self.len -= 1;
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Place, Copies)> + '_ {
        let used = |bucket: &'_ Bucket| {
            let bucket = *bucket;
            (0..SLOTS).filter(move |&slot| bucket.runs[slot] != 0).map(move |slot| {
                let offset = bucket.offsets[slot];
                let place = Place { run: bucket.runs[slot], offset: offset & OFFSET_MASK };
                (Name(bucket.names[slot]), place, Copies(offset >> 13))
            })
        };
        self.buckets.iter().flat_map(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::fact::Tier;

    /// What is not there must be found not to be there, also when every bucket was passed over.
    #[test]
    fn an_absent_name_is_absent_from_a_table_that_overflowed_everywhere() {
        let budget = Budget::new(usize::MAX);
        for kept in 1..60_u64 {
            let mut names = Names::default();
            for name in 0..kept + 200 {
                assert!(names.reserve(1, &budget));
                names.insert(Name::of(EngineHash(name)), Place { run: 1, offset: 0 }, Copies::one(Tier::Gpu));
                if let Some(old) = name.checked_sub(kept) {
                    let slot = names.find(Name::of(EngineHash(old))).expect("it was put there");
                    names.remove(slot);
                }
                assert!(names.find(Name::of(EngineHash(name + 1))).is_none());
            }
            assert_eq!(names.len(), kept as usize);
        }
    }
}

//! A longer table in the same place.

use super::bucket::{Bucket, REACH, TAG_BITS};
use super::{At, CHUNK_BUCKETS, HOMES_MAX, NAME_BITS, Names, Slot, Sought};
use crate::routing::index::exact::budget::Budget;
use crate::routing::index::exact::place::{Copies, Name, Place};

impl Names {
    /// Gives the table at least `homes` homes; `false`, and nothing done, when the budget is used up.
    pub(super) fn grow(&mut self, homes: usize, budget: &Budget) -> bool {
        let buckets = homes + REACH - 1;
        // In a table of several chunks the last is used to its end.
        let buckets = if buckets > CHUNK_BUCKETS { buckets.next_multiple_of(CHUNK_BUCKETS) } else { buckets };
        let homes = buckets + 1 - REACH;
        let before: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        if homes > HOMES_MAX || !budget.take((buckets - before) * size_of::<Bucket>()) {
            return false;
        }
        if let Some(only) = self.chunks.first_mut().filter(|only| only.len() < CHUNK_BUCKETS) {
            let mut longer = std::mem::take(only).into_vec();
            longer.reserve_exact(buckets.min(CHUNK_BUCKETS) - longer.len());
            longer.resize(buckets.min(CHUNK_BUCKETS), Bucket::EMPTY);
            *only = longer.into_boxed_slice();
        }
        while self.chunks.len() * CHUNK_BUCKETS < buckets {
            let len = (buckets - self.chunks.len() * CHUNK_BUCKETS).min(CHUNK_BUCKETS);
            self.chunks.push(vec![Bucket::EMPTY; len].into_boxed_slice());
        }
        self.stretch(homes, budget);
        true
    }

    /// Moves every name to its home among `homes`, which is as far on or further. There is memory for them.
    fn stretch(&mut self, homes: usize, budget: &Budget) {
        let beyond = budget.beyond();
        let old = std::mem::replace(&mut self.homes, homes);
        self.removed = 0;
        if old == 0 {
            return;
        }
        let inverse = Inverse::of(old);
        // Names whose new home is a bucket that old ones are still in: near the start, where homes move little.
        let mut waiting: Vec<(Name, Place, Copies)> = Vec::new();
        for at in (0..old + REACH - 1).rev() {
            let bucket = std::mem::replace(self.bucket_mut(at), Bucket::EMPTY);
            for slot in bucket.used() {
                let name = inverse.name(at - bucket.distance(slot), bucket.tag(slot));
                let (place, copies) = bucket.get(slot);
                if self.home(name) < at {
                    waiting.push((name, place, copies));
                } else {
                    self.put(name, place, copies, &beyond);
                }
            }
            if !waiting.is_empty() {
                let mut still = std::mem::take(&mut waiting);
                still.retain(|&(name, place, copies)| {
                    let waits = self.home(name) < at;
                    if !waits {
                        self.put(name, place, copies, &beyond);
                    }
                    waits
                });
                waiting = still;
            }
        }
        for (name, (place, copies)) in self.strays.take_all(budget) {
            self.put(name, place, Copies(copies), &beyond);
        }
    }

    /// Adds a name that is not there and is counted already.
    #[inline]
    fn put(&mut self, name: Name, place: Place, copies: Copies, beyond: &Budget) {
        let home = self.home(name);
        let tag = Sought { name, home: home as u32 }.tag();
        if self.bucket_mut(home).fill_vacant(tag, place, copies) {
            return;
        }
        let free = |bucket: usize| self.bucket(bucket).vacant().map(|slot| At::Bucket { bucket, slot });
        let at = (home + 1..home + REACH).find_map(free).unwrap_or(At::Stray);
        self.fill(Slot { name, home, at }, place, copies, beyond);
    }
}

/// From a name's home and tag back to the name, in a table of so many homes.
#[derive(Clone, Copy)]
pub(super) struct Inverse {
    /// Names to a home, as mixed.
    share: u64,
}

impl Inverse {
    pub fn of(homes: usize) -> Self {
        Inverse { share: ((1_u128 << 64) / homes.max(2) as u128) as u64 }
    }

    /// The first name with this tag from the first that can have this home on. Homes are no fewer than 32, so that none has
    /// two names with one tag. `share` is rounded down, so this may begin earlier than the home does, by as many as there are
    /// homes before: less than a tag lacks, for where the division leaves a rest, a home has fewer names than there are tags.
    #[inline]
    pub fn name(&self, home: usize, tag: u64) -> Name {
        const TAGGED: u64 = (1 << (TAG_BITS + 64 - NAME_BITS)) - 1;
        let first = home as u64 * self.share;
        let ahead = (tag << (64 - NAME_BITS)).wrapping_sub(first) & TAGGED;
        Name::from_mixed(first.wrapping_add(ahead))
    }
}

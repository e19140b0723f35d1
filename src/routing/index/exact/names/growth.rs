//! A longer table in the same place.

use super::bucket::{Bucket, REACH, TAG_BITS};
use super::{At, CHUNK_BUCKETS, HOMES_MAX, NAME_BITS, Names, Slot};
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
                if self.home(name).0 < at {
                    waiting.push((name, place, copies));
                } else {
                    self.put(name, place, copies, &beyond);
                }
            }
            if !waiting.is_empty() {
                let mut still = std::mem::take(&mut waiting);
                still.retain(|&(name, place, copies)| {
                    let waits = self.home(name).0 < at;
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
        let (home, tag) = self.home(name);
        let free = |bucket: usize| self.bucket(bucket).vacant().map(|slot| At::Bucket { bucket, slot });
        let at = (home..home + REACH).find_map(free).unwrap_or(At::Stray);
        self.fill(Slot { name, home, tag, at }, place, copies, beyond);
    }
}

/// From a name's home and tag back to the name, in a table of so many homes.
#[derive(Clone, Copy)]
pub(super) struct Inverse {
    homes: u64,
    /// `2^60` divided by the number of homes.
    quotient: u64,
    rest: u64,
    /// `2^64` divided by the number of homes, or hardly less.
    reciprocal: u64,
}

impl Inverse {
    pub fn of(homes: usize) -> Self {
        let homes = homes as u64;
        let (quotient, rest) = ((1 << NAME_BITS) / homes, (1 << NAME_BITS) % homes);
        Inverse { homes, quotient, rest, reciprocal: u64::MAX / homes }
    }

    /// The least `x` with `x × homes ≥ home × 2^60 + tag × 32`. Homes are no fewer than 32, so no other has this home and tag.
    #[inline]
    pub fn name(&self, home: usize, tag: u64) -> Name {
        let home = home as u64;
        let beyond = home * self.rest + (tag << (NAME_BITS - TAG_BITS));
        // A division, rounded up, by a multiplication that comes out one too low at most.
        let share = ((u128::from(beyond) * u128::from(self.reciprocal)) >> 64) as u64;
        let left = beyond - share * self.homes;
        let share = share + u64::from(left > 0) + u64::from(left > self.homes);
        Name::from_mixed((home * self.quotient + share) << (64 - NAME_BITS))
    }
}

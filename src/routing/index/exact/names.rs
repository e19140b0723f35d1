//! One instance's names for the blocks that it holds: from an engine's hash to a place in a run.
//!
//! Only writers come here, under the instance's lock. A bucket is one cache line with five entries of twelve bytes; what does
//! not fit goes to one of the buckets behind, and each bucket that was passed over counts it. An entry holds of a name only
//! what its home bucket does not say.
//!
//! The table grows where it is: a name's home is its share of the way through the table, so in a longer table every home
//! lies further on, and who moves the names from the last bucket to the first overwrites none. That takes a quarter more
//! memory at a time, and never twice the memory meanwhile; to touch fresh memory is what filling a table costs most.

use super::budget::Budget;
use super::place::{Copies, Name, Place};
use super::prefetch::prefetch;
use super::side::Side;

mod bucket;

pub(super) use bucket::RUNS_MAX;
use bucket::{Bucket, REACH, SLOTS, TAG_BITS};

/// Load, in percent, at which the table grows, and what it grows to.
const FULL_PERCENT: usize = 82;
const GROWTH_PERCENT: usize = 125;
/// Buckets that a name may have its home in, at least: with fewer an entry has no room for the rest of its name.
const HOMES_MIN: usize = 32;
const HOMES_MAX: usize = 1 << 31;
const CHUNK_BUCKETS: usize = 256;
/// Bits of a name that matter.
const NAME_BITS: u32 = 60;
const _: () = assert!(HOMES_MIN << TAG_BITS == 1 << NAME_BITS);

/// A name's entry in the table, until the table changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    name: Name,
    /// Its home and its tag there.
    home: usize,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Bucket {
        bucket: usize,
        slot: usize,
    },
    /// Among those that found no bucket in reach.
    Stray,
}

/// Where a name that is not in the table would go.
pub(super) struct Vacancy(Slot);

#[derive(Default)]
pub(super) struct Names {
    /// The buckets, [`CHUNK_BUCKETS`] to a chunk but for the only chunk of a small table: one for each home and as many more
    /// as the last home reaches.
    chunks: Vec<Box<[Bucket]>>,
    homes: usize,
    len: usize,
    /// Names that no bucket in reach had room for: about one in ten thousand when the table is full.
    strays: Side<Name, (Place, u8)>,
}

impl Names {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Memory taken, as charged to the budget.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| size_of_val::<[Bucket]>(chunk)).sum::<usize>() + self.strays.bytes()
    }

    /// A name's home, and its tag there: what its home does not say.
    #[inline]
    fn home(&self, name: Name) -> (usize, u64) {
        let way = u128::from(name.mixed()) * self.homes as u128;
        ((way >> 64) as usize, way as u64 >> (64 - TAG_BITS))
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.chunks[at / CHUNK_BUCKETS][at % CHUNK_BUCKETS]
    }

    #[inline]
    fn bucket_mut(&mut self, at: usize) -> &mut Bucket {
        &mut self.chunks[at / CHUNK_BUCKETS][at % CHUNK_BUCKETS]
    }

    /// Starts to fetch a name's entry from memory.
    #[inline]
    pub fn prefetch(&self, name: Name) {
        if self.homes > 0 {
            prefetch(self.bucket(self.home(name).0));
        }
    }

    #[inline]
    pub fn find(&self, name: Name) -> Option<Slot> {
        self.locate(name).ok()
    }

    /// A name's entry, or where it would go in a table with room for it.
    #[inline]
    pub fn locate(&self, name: Name) -> Result<Slot, Vacancy> {
        let (home, tag) = self.home(name);
        let mut vacant = None;
        let mut strays = false;
        if self.homes > 0 {
            for bucket in home..home + REACH {
                let line = self.bucket(bucket);
                strays |= bucket == home && line.has_strays();
                if let Some(slot) = line.find(tag) {
                    // The same rest of a name at another distance from home is another name.
                    if line.distance(slot) == bucket - home {
                        return Ok(Slot { name, home, at: At::Bucket { bucket, slot } });
                    }
                    if let Some(slot) = line.find_at(tag, bucket - home) {
                        return Ok(Slot { name, home, at: At::Bucket { bucket, slot } });
                    }
                }
                if vacant.is_none() {
                    vacant = line.vacant().map(|slot| At::Bucket { bucket, slot });
                }
                if line.passed() == 0 && vacant.is_some() {
                    break;
                }
            }
        }
        if strays && self.strays.get(&name).is_some() {
            return Ok(Slot { name, home, at: At::Stray });
        }
        Err(Vacancy(Slot { name, home, at: vacant.unwrap_or(At::Stray) }))
    }

    #[inline]
    pub fn get(&self, slot: Slot) -> (Place, Copies) {
        match slot.at {
            At::Bucket { bucket, slot } => self.bucket(bucket).get(slot),
            At::Stray => {
                let &(place, copies) = self.strays.get(&slot.name).expect("a slot is of a name that is there");
                (place, Copies(copies))
            }
        }
    }

    pub fn name(&self, slot: Slot) -> Name {
        slot.name
    }

    pub fn set(&mut self, slot: Slot, place: Place, copies: Copies) {
        match slot.at {
            At::Bucket { bucket, slot } => self.bucket_mut(bucket).set(slot, place, copies),
            At::Stray => {
                *self.strays.get_mut(&slot.name).expect("a slot is of a name that is there") = (place, copies.0)
            }
        }
    }

    /// Makes room for `more` names; `false`, and nothing done, when the budget is used up.
    pub fn reserve(&mut self, more: usize, budget: &Budget) -> bool {
        let needed = (self.len + more) * 100;
        if needed <= self.homes * SLOTS * FULL_PERCENT {
            return true;
        }
        let least = needed.div_ceil(SLOTS * FULL_PERCENT).max(HOMES_MIN);
        let grown = (self.homes * GROWTH_PERCENT / 100).max(least);
        // Near the limit the least will do.
        self.grow(grown, budget) || self.grow(least, budget)
    }

    fn grow(&mut self, homes: usize, budget: &Budget) -> bool {
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
        let old = std::mem::replace(&mut self.homes, homes);
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
                    self.put(name, place, copies, budget);
                }
            }
            if !waiting.is_empty() {
                let mut still = std::mem::take(&mut waiting);
                still.retain(|&(name, place, copies)| {
                    let waits = self.home(name).0 < at;
                    if !waits {
                        self.put(name, place, copies, budget);
                    }
                    waits
                });
                waiting = still;
            }
        }
        for (name, (place, copies)) in self.strays.take_all(budget) {
            self.put(name, place, Copies(copies), budget);
        }
    }

    /// Adds a name where it was found not to be; there is room, and the table did not change since.
    #[inline]
    pub fn insert(&mut self, Vacancy(vacancy): Vacancy, place: Place, copies: Copies, beyond: &Budget) {
        self.len += 1;
        self.fill(vacancy, place, copies, beyond);
    }

    /// Adds a name that is not there and is counted already.
    #[inline]
    fn put(&mut self, name: Name, place: Place, copies: Copies, budget: &Budget) {
        let home = self.home(name).0;
        let free = |bucket: usize| self.bucket(bucket).vacant().map(|slot| At::Bucket { bucket, slot });
        let at = (home..home + REACH).find_map(free).unwrap_or(At::Stray);
        self.fill(Slot { name, home, at }, place, copies, budget);
    }

    #[inline]
    fn fill(&mut self, Slot { name, home, at }: Slot, place: Place, copies: Copies, budget: &Budget) {
        match at {
            At::Bucket { bucket, slot } => {
                let tag = self.home(name).1;
                (home..bucket).for_each(|at| self.bucket_mut(at).pass());
                self.bucket_mut(bucket).fill(slot, tag, bucket - home, place, copies);
            }
            At::Stray => {
                self.bucket_mut(home).add_stray();
                // A few among thousands; to refuse one would mean to undo what is written already.
                self.strays.insert(name, (place, copies.0), &budget.beyond());
            }
        }
    }

    #[inline]
    pub fn remove(&mut self, slot: Slot) {
        match slot.at {
            At::Bucket { bucket, slot: at } => {
                self.bucket_mut(bucket).clear(at);
                (slot.home..bucket).for_each(|at| self.bucket_mut(at).pass_no_more());
            }
            At::Stray => {
                self.strays.remove(&slot.name);
                self.bucket_mut(slot.home).remove_stray();
            }
        }
        self.len -= 1;
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Place, Copies)> + '_ {
        let inverse = Inverse::of(self.homes.max(1));
        let buckets = self.chunks.iter().flat_map(|chunk| chunk.iter()).enumerate();
        let bucketed = buckets.flat_map(move |(at, bucket)| {
            bucket.used().map(move |slot| {
                let (place, copies) = bucket.get(slot);
                (inverse.name(at - bucket.distance(slot), bucket.tag(slot)), place, copies)
            })
        });
        bucketed.chain(self.strays.iter().map(|(&name, &(place, copies))| (name, place, Copies(copies))))
    }
}

/// From a name's home and tag back to the name, in a table of so many homes.
#[derive(Clone, Copy)]
struct Inverse {
    homes: u64,
    /// `2^60` divided by the number of homes.
    quotient: u64,
    rest: u64,
}

impl Inverse {
    fn of(homes: usize) -> Self {
        let homes = homes as u64;
        Inverse { homes, quotient: (1 << NAME_BITS) / homes, rest: (1 << NAME_BITS) % homes }
    }

    /// The least `x` with `x × homes ≥ home × 2^60 + tag × 32`. Homes are no fewer than 32, so no other has this home and tag.
    #[inline]
    fn name(&self, home: usize, tag: u64) -> Name {
        let home = home as u64;
        let beyond = home * self.rest + (tag << (NAME_BITS - TAG_BITS));
        Name::from_mixed((home * self.quotient + beyond.div_ceil(self.homes)) << (64 - NAME_BITS))
    }
}

#[cfg(test)]
mod tests;

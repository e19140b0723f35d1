//! One instance's names for the blocks that it holds: from an engine's hash to a place in a run.
//!
//! Only writers come here, under the instance's lock. A bucket is one cache line with five entries of twelve bytes; what does
//! not fit goes to one of the buckets behind, and each bucket that was passed over counts it. An entry holds of a name only
//! what its home bucket does not say.
//!
//! The table grows where it is: a name's home is its share of the way through the table, so in a longer table every home
//! lies further on, and who moves the names from the last bucket to the first overwrites none. So there are never two tables,
//! and all memory is touched for the first time once; to touch fresh memory is what filling a table costs most.

use super::budget::Budget;
use super::place::{Copies, Name, Place};
use super::prefetch::prefetch;
use super::side::Side;

mod bucket;
mod growth;

pub(super) use bucket::RUNS_MAX;
use bucket::{Bucket, REACH, SLOTS, TAG_BITS};
use growth::Inverse;

/// Load, in percent, at which the table grows, and what it grows to: in large steps while it fills, so that little is moved,
/// in small ones once it was turned over, when what it holds goes up and down and will hardly pass the most that it ever was.
const FULL_PERCENT: usize = 82;
const GROWTH_PERCENT: usize = 160;
const GROWTH_OF_TURNED_OVER_PERCENT: usize = 110;
/// Buckets that a name may have its home in, at least: with fewer an entry has no room for the rest of its name.
const HOMES_MIN: usize = 32;
const HOMES_MAX: usize = 1 << 31;
/// A page: what an allocator has aligned by itself. For larger chunks, aligned to a line, mimalloc takes a quarter more.
const CHUNK_BUCKETS: usize = 64;
/// Bits of a name that matter.
const NAME_BITS: u32 = 60;
const _: () = assert!(HOMES_MIN << TAG_BITS == 1 << NAME_BITS);

/// A name, and where it has its home until the table grows.
#[derive(Clone, Copy, Default)]
pub(super) struct Sought {
    name: Name,
    home: u32,
}

impl Sought {
    pub fn name(self) -> Name {
        self.name
    }

    /// What an entry in its home's reach holds of the name: its lowest bits. The home says enough of the others.
    #[inline]
    fn tag(self) -> u64 {
        self.name.mixed() >> (64 - NAME_BITS) & ((1 << TAG_BITS) - 1)
    }
}

/// A name's entry in the table, until the table changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    name: Name,
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
    /// Names removed since the table grew last.
    removed: usize,
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

    /// A name's home: as far through the table as the name is among all names.
    #[inline]
    fn home(&self, name: Name) -> usize {
        ((u128::from(name.mixed()) * self.homes as u128) >> 64) as usize
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
    pub fn seek(&self, name: Name) -> Sought {
        let home = self.home(name);
        if self.homes > 0 {
            prefetch(self.bucket(home));
        }
        Sought { name, home: home as u32 }
    }

    #[inline]
    pub fn find(&self, name: Name) -> Option<Slot> {
        self.locate(name).ok()
    }

    /// A name's entry, or where it would go in a table with room for it.
    pub fn locate(&self, name: Name) -> Result<Slot, Vacancy> {
        let home = self.home(name);
        let tag = Sought { name, home: home as u32 }.tag();
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

    /// Adds a name to its home, if it is plain to see that it is nowhere and there is room for it: nearly always. `false`, and
    /// nothing done, where [`locate`](Self::locate) must look closer.
    #[inline]
    pub fn insert_at_home(&mut self, sought: Sought, place: Place, copies: Copies) -> bool {
        let tag = sought.tag();
        let line = self.bucket_mut(sought.home as usize);
        let added = line.is_whole() && !line.may_have(tag) && line.fill_vacant(tag, place, copies);
        self.len += usize::from(added);
        added
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
        let turned_over = self.removed > self.len;
        let percent = if turned_over { GROWTH_OF_TURNED_OVER_PERCENT } else { GROWTH_PERCENT };
        let grown = (self.homes * percent / 100).max(least);
        // Near the limit the least will do.
        self.grow(grown, budget) || self.grow(least, budget)
    }

    /// Adds a name where it was found not to be; there is room, and the table did not change since.
    #[inline]
    pub fn insert(&mut self, Vacancy(vacancy): Vacancy, place: Place, copies: Copies, beyond: &Budget) {
        self.len += 1;
        self.fill(vacancy, place, copies, beyond);
    }

    #[inline]
    fn fill(&mut self, Slot { name, home, at }: Slot, place: Place, copies: Copies, beyond: &Budget) {
        match at {
            At::Bucket { bucket, slot } => {
                (home..bucket).for_each(|at| self.bucket_mut(at).pass());
                let tag = Sought { name, home: home as u32 }.tag();
                self.bucket_mut(bucket).fill(slot, tag, bucket - home, place, copies);
            }
            At::Stray => {
                self.bucket_mut(home).add_stray();
                // A few among thousands; to refuse one would mean to undo what is written already.
                self.strays.insert(name, (place, copies.0), beyond);
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
        self.removed += 1;
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

#[cfg(test)]
mod tests;

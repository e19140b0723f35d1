//! Where runs begin: from a block's hash to the run whose first block it is.
//!
//! One table a shard, open addressing with linear probing, at most three quarters full. Writers hold the shard's lock;
//! readers take none. A slot is one word, so what a reader finds is whole; whether it is still true, the run's header
//! tells. What a reader does not find may have been moved under its eyes, so then it checks the table's version.

use super::budget::Budget;
use super::run::RunId;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence, pause};
use std::sync::OnceLock;

/// Log2 of the slots of a shard's first table. A later table has twice as many; the earlier ones stay, for readers that are
/// still in them, and cost as much again as the present one at most.
const FIRST_LOG2: u32 = 4;
const TABLES: usize = 26;

/// A block's hash, spread over 64 bits: its shard, then its place.
#[derive(Clone, Copy)]
pub(super) struct Spread(u64);

impl Spread {
    #[inline]
    pub fn of(key: u64) -> Self {
        let product = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        Spread(product as u64 ^ (product >> 64) as u64)
    }

    /// One of `shards`, a power of two up to 256.
    #[inline]
    pub fn shard(self, shards: usize) -> usize {
        self.0 as usize & (shards - 1)
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One shard's table.
pub(super) struct Anchors {
    /// Odd while slots move.
    version: AtomicU32,
    table: AtomicU32,
    used: AtomicU32,
    tables: [OnceLock<Box<[AtomicU64]>>; TABLES],
}

fn pack(tag: u32, run: RunId) -> u64 {
    u64::from(tag) << 32 | u64::from(run.0)
}

fn home(tag: u32, slots: usize) -> usize {
    ((u64::from(tag) * slots as u64) >> 32) as usize
}

impl Anchors {
    pub fn new() -> Self {
        Anchors {
            version: AtomicU32::new(0),
            table: AtomicU32::new(0),
            used: AtomicU32::new(0),
            tables: [const { OnceLock::new() }; TABLES],
        }
    }

    /// What `accept` makes of the runs that may begin with `key`: the first that is not `None`.
    #[inline]
    pub fn find<T>(&self, key: Spread, mut accept: impl FnMut(RunId) -> Option<T>) -> Option<T> {
        let mut tries = 0;
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version & 1 == 0 {
                let slots: &[AtomicU64] = match self.tables[self.table.load(Ordering::Acquire) as usize].get() {
                    Some(slots) => slots,
                    None => &[],
                };
                if let Some(found) = Self::probe(slots, key, &mut accept) {
                    return Some(found);
                }
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == version {
                    return None;
                }
            }
            pause(tries);
            tries += 1;
        }
    }

    #[inline]
    fn probe<T>(slots: &[AtomicU64], key: Spread, accept: &mut impl FnMut(RunId) -> Option<T>) -> Option<T> {
        let tag = key.tag();
        let mut at = home(tag, slots.len());
        for _ in 0..slots.len() {
            let slot = slots[at].load(Ordering::Acquire);
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag
                && let Some(found) = accept(RunId(slot as u32))
            {
                return Some(found);
            }
            at = if at + 1 == slots.len() { 0 } else { at + 1 };
        }
        None
    }

    /// Adds a run, whose header is ready for readers. The caller holds the shard's lock. `false`, and nothing done, when the
    /// budget is used up.
    pub fn insert(&self, key: Spread, run: RunId, budget: &Budget) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let mut table = self.table.load(Ordering::Relaxed) as usize;
        let slots = self.tables[table].get().map_or(0, |slots| slots.len());
        if (used as usize + 1) * 4 > slots * 3 {
            table = if slots == 0 { 0 } else { table + 1 };
            if !self.grow(table, budget) {
                return false;
            }
        }
        let slots = self.tables[table].get().expect("the present table exists");
        Self::put(slots, key.tag(), run);
        self.used.store(used + 1, Ordering::Relaxed);
        true
    }

    fn put(slots: &[AtomicU64], tag: u32, run: RunId) {
        let mut at = home(tag, slots.len());
        while slots[at].load(Ordering::Relaxed) != 0 {
            at = if at + 1 == slots.len() { 0 } else { at + 1 };
        }
        slots[at].store(pack(tag, run), Ordering::Release);
    }

    fn grow(&self, table: usize, budget: &Budget) -> bool {
        let len = 1_usize << (FIRST_LOG2 as usize + table);
        if table >= TABLES || !budget.take(len * size_of::<u64>()) {
            return false;
        }
        let slots: Box<[AtomicU64]> = (0..len).map(|_| AtomicU64::new(0)).collect();
        if let Some(old) = self.tables[self.table.load(Ordering::Relaxed) as usize].get() {
            for slot in old.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|&slot| slot != 0) {
                Self::put(&slots, (slot >> 32) as u32, RunId(slot as u32));
            }
        }
        assert!(self.tables[table].set(slots).is_ok(), "a table is made once");
        self.change(|| self.table.store(table as u32, Ordering::Release));
        true
    }

    /// Takes a run out again. The caller holds the shard's lock.
    pub fn remove(&self, key: Spread, run: RunId) {
        let table = self.table.load(Ordering::Relaxed) as usize;
        let slots = self.tables[table].get().expect("there is a table with the run in it");
        let wanted = pack(key.tag(), run);
        let next = |at: usize| if at + 1 == slots.len() { 0 } else { at + 1 };
        let mut hole = home(key.tag(), slots.len());
        while slots[hole].load(Ordering::Relaxed) != wanted {
            hole = next(hole);
        }
        self.change(|| {
            // Whatever probed past the hole moves back into it, so that no tombstones gather.
            let mut at = next(hole);
            loop {
                let slot = slots[at].load(Ordering::Relaxed);
                if slot == 0 {
                    break;
                }
                let from = home((slot >> 32) as u32, slots.len());
                let stays = if hole <= at { hole < from && from <= at } else { hole < from || from <= at };
                if !stays {
                    slots[hole].store(slot, Ordering::Relaxed);
                    hole = at;
                }
                at = next(at);
            }
            slots[hole].store(0, Ordering::Relaxed);
        });
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    fn change(&self, change: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_until_they_are_removed() {
        let (anchors, budget) = (Anchors::new(), Budget::new(usize::MAX));
        let find = |key: u32| anchors.find(Spread::of(u64::from(key)), |run| (run.0 == key).then_some(run.0));
        for key in 1..=1000 {
            assert!(anchors.insert(Spread::of(u64::from(key)), RunId(key), &budget));
        }
        for key in (1..=1000).filter(|key| key % 3 == 0) {
            anchors.remove(Spread::of(u64::from(key)), RunId(key));
        }
        for key in 1..=1000 {
            assert_eq!(find(key), (key % 3 != 0).then_some(key));
        }
    }
}

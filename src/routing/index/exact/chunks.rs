//! A list of items that grows without moving: readers hold references while writers add.
//!
//! Items live in chunks, sixteen of each size before the size doubles, so that at most a sixteenth of the memory waits to
//! be used and the directory stays small. Nothing is ever taken back: who wants to reuse an item keeps a free list.

use super::budget::Budget;
use std::sync::OnceLock;

const CHUNKS_PER_SIZE: u32 = 16;
const SIZES: u32 = 20;

/// Items addressed by a 32-bit number; the first chunks hold `2^FIRST_LOG2` each.
pub(super) struct Chunks<T, const FIRST_LOG2: u32> {
    directory: Box<[OnceLock<Box<[T]>>]>,
}

/// Where an item is.
struct Place {
    chunk: usize,
    at: usize,
    chunk_items: usize,
}

impl<T: Default, const FIRST_LOG2: u32> Chunks<T, FIRST_LOG2> {
    pub fn new() -> Self {
        Chunks { directory: (0..CHUNKS_PER_SIZE * SIZES).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    fn place(index: u32) -> Place {
        // Shifted by the first sixteen chunks, an index's highest bit tells its chunk's size, the next four its chunk.
        let shifted = u64::from(index) + (u64::from(CHUNKS_PER_SIZE) << FIRST_LOG2);
        let size = shifted.ilog2() - CHUNKS_PER_SIZE.ilog2() - FIRST_LOG2;
        let chunk_log2 = FIRST_LOG2 + size;
        let within = (shifted >> chunk_log2) as u32 & (CHUNKS_PER_SIZE - 1);
        let at = (shifted & ((1 << chunk_log2) - 1)) as usize;
        Place { chunk: (size * CHUNKS_PER_SIZE + within) as usize, at, chunk_items: 1 << chunk_log2 }
    }

    /// The item at `index`, if there is memory for it.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let place = Self::place(index);
        self.directory.get(place.chunk)?.get()?.get(place.at)
    }

    /// `len` items from `index` on, if they lie in one chunk that there is.
    #[inline]
    pub fn slice(&self, index: u32, len: usize) -> Option<&[T]> {
        let place = Self::place(index);
        self.directory.get(place.chunk)?.get()?.get(place.at..place.at + len)
    }

    /// Makes the chunk that starts at `index`; returns how many items it has. `None` when the budget or the address space
    /// is used up. Callers see to it that nobody else grows meanwhile.
    pub fn grow(&self, index: u32, budget: &Budget) -> Option<usize> {
        let place = Self::place(index);
        debug_assert_eq!(place.at, 0, "growth is chunk by chunk");
        let slot = self.directory.get(place.chunk)?;
        // The end must be addressable, and nothing beyond may wrap.
        u32::try_from(place.chunk_items).ok().and_then(|items| index.checked_add(items))?;
        if !budget.take(place.chunk_items * size_of::<T>()) {
            return None;
        }
        let chunk = (0..place.chunk_items).map(|_| T::default()).collect();
        assert!(slot.set(chunk).is_ok(), "a chunk is made once");
        Some(place.chunk_items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_where_they_were_put() {
        let budget = Budget::new(usize::MAX);
        let chunks: Chunks<std::sync::atomic::AtomicU32, 2> = Chunks::new();
        let mut end = 0;
        while end < 5000 {
            end += chunks.grow(end, &budget).unwrap() as u32;
        }
        let set = |index: u32| chunks.get(index).unwrap().store(index + 1, std::sync::atomic::Ordering::Relaxed);
        (0..end).for_each(set);
        assert!(
            (0..end).all(|index| chunks.get(index).unwrap().load(std::sync::atomic::Ordering::Relaxed) == index + 1)
        );
        assert!(chunks.get(end).is_none());
        assert_eq!(budget.used(), end as usize * 4);
    }

    #[test]
    fn growth_stops_at_the_budget() {
        let budget = Budget::new(20);
        let chunks: Chunks<std::sync::atomic::AtomicU32, 2> = Chunks::new();
        assert_eq!(chunks.grow(0, &budget), Some(4));
        assert_eq!(chunks.grow(4, &budget), None);
    }
}

//! What is done to a run by who holds the lock of its shard, or keeps the run from changing otherwise.

use super::{INLINE_SEGMENTS, RUN_BLOCKS_MAX, Run, Segment, Segments};
use crate::routing::index::exact::budget::Budget;
use crate::routing::index::exact::sync::{AtomicU64, Ordering};
use crate::routing::index::exact::words::{Array, Words};

impl Run {
    pub fn blocks(&self) -> usize {
        usize::from(self.blocks.load(Ordering::Relaxed))
    }

    /// Does not change while the run is in use.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    pub fn pinned(&self) -> usize {
        usize::from(self.pinned.load(Ordering::Relaxed))
    }

    pub fn locked_keys<'a>(&self, words: &'a Words) -> &'a [AtomicU64] {
        words.owned(self.keys.load(Ordering::Relaxed), self.blocks())
    }

    pub fn locked_segments(&self, words: &Words) -> Segments {
        let count = usize::from(self.segments.load(Ordering::Relaxed));
        let load = |word: &AtomicU64| Segment::unpack(word.load(Ordering::Relaxed));
        if count <= INLINE_SEGMENTS {
            self.inline[..count].iter().map(load).collect()
        } else {
            words.owned(self.overflow.load(Ordering::Relaxed), count).iter().map(load).collect()
        }
    }

    /// The last segment, and where it begins, if it is spelled out in the header.
    pub fn inline_tail(&self) -> Option<(Segment, u32)> {
        let count = usize::from(self.segments.load(Ordering::Relaxed));
        if count == 0 || count > INLINE_SEGMENTS {
            return None;
        }
        let load = |at: usize| Segment::unpack(self.inline[at].load(Ordering::Relaxed));
        Some((load(count - 1), if count > 1 { load(count - 2).end } else { 0 }))
    }

    /// Moves the end of the run, which the last segment covers before and after and is spelled out in the header.
    pub fn set_inline_end(&self, blocks: usize, words: &Words) {
        let last = usize::from(self.segments.load(Ordering::Relaxed)) - 1;
        let set = Segment::unpack(self.inline[last].load(Ordering::Relaxed)).set;
        let tail = self.key(blocks - 1, words);
        self.write(|| {
            self.blocks.store(blocks as u16, Ordering::Relaxed);
            self.tail.store(tail, Ordering::Relaxed);
            self.inline[last].store(Segment { end: blocks as u32, set }.pack(), Ordering::Relaxed);
        });
    }

    /// Replaces the segments, which end at the last block. `false`, and nothing done, when the budget is used up.
    pub fn set_segments(&self, segments: &[Segment], words: &Words, budget: &Budget) -> bool {
        let old = self.overflow_array();
        let mut array = Array::NONE;
        if segments.len() > INLINE_SEGMENTS {
            // A copy, never in place: readers may be at the old one.
            let Some(taken) = words.take(segments.len(), budget) else {
                return false;
            };
            array = taken;
            for (to, from) in words.owned(array.at, segments.len()).iter().zip(segments) {
                to.store(from.pack(), Ordering::Relaxed);
            }
        }
        let blocks = segments.last().map_or(0, |last| last.end as usize);
        let tail = if blocks > 0 { self.key(blocks - 1, words) } else { 0 };
        self.write(|| {
            if segments.len() <= INLINE_SEGMENTS {
                for (to, from) in self.inline.iter().zip(segments) {
                    to.store(from.pack(), Ordering::Relaxed);
                }
            }
            self.blocks.store(blocks as u16, Ordering::Relaxed);
            self.tail.store(tail, Ordering::Relaxed);
            self.segments.store(segments.len() as u16, Ordering::Relaxed);
            self.overflow.store(array.at, Ordering::Relaxed);
            self.overflow_class.store(array.class(), Ordering::Relaxed);
        });
        if old.capacity > 0 {
            words.give(old);
        }
        true
    }

    /// Begins anew with `head`; for a header that was not in use.
    pub fn begin(&self, head: u64) {
        self.write(|| {
            self.head.store(head, Ordering::Relaxed);
            self.pinned.store(0, Ordering::Relaxed);
        });
    }

    /// Gives back all that it has; for a run that nobody holds and nothing hangs from, whose sets were released.
    pub fn end(&self, words: &Words) {
        let arrays = [self.keys_array(), self.overflow_array()];
        self.write(|| {
            self.blocks.store(0, Ordering::Relaxed);
            self.segments.store(0, Ordering::Relaxed);
            self.keys_class.store(0, Ordering::Relaxed);
            self.overflow_class.store(0, Ordering::Relaxed);
            self.fork.store(0, Ordering::Relaxed);
        });
        arrays.into_iter().filter(|array| array.capacity > 0).for_each(|array| words.give(array));
    }

    /// Writes hashes after the last block, where no reader looks yet. `false` when the budget is used up.
    pub fn write_keys(&self, keys: &[u64], words: &Words, budget: &Budget) -> bool {
        let (blocks, capacity) = (self.blocks(), self.keys_array().capacity);
        let needed = blocks + keys.len();
        if needed > capacity {
            // An eighth to spare for a run that grows, none for a new one.
            let Some(array) = words.take((needed + blocks / 8).min(RUN_BLOCKS_MAX), budget) else {
                return false;
            };
            self.move_keys(array, words);
        }
        let array = words.owned(self.keys.load(Ordering::Relaxed), needed);
        for (to, &from) in array[blocks..].iter().zip(keys) {
            to.store(from, Ordering::Relaxed);
        }
        true
    }

    /// Gives memory back when most of it is unused.
    pub fn shrink_keys(&self, words: &Words, budget: &Budget) {
        let capacity = self.keys_array().capacity;
        if capacity >= 32
            && self.blocks() * 2 < capacity
            && let Some(array) = words.take(self.blocks(), budget)
        {
            self.move_keys(array, words);
        }
    }

    fn keys_array(&self) -> Array {
        Array::of_class(self.keys.load(Ordering::Relaxed), self.keys_class.load(Ordering::Relaxed))
    }

    fn overflow_array(&self) -> Array {
        Array::of_class(self.overflow.load(Ordering::Relaxed), self.overflow_class.load(Ordering::Relaxed))
    }

    fn move_keys(&self, array: Array, words: &Words) {
        let old = self.keys_array();
        if old.capacity > 0 {
            let blocks = self.blocks();
            for (to, from) in words.owned(array.at, blocks).iter().zip(words.owned(old.at, blocks)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.write(|| {
            self.keys.store(array.at, Ordering::Relaxed);
            self.keys_class.store(array.class(), Ordering::Relaxed);
        });
        if old.capacity > 0 {
            words.give(old);
        }
    }

    /// The hash at `offset`, which was written.
    fn key(&self, offset: usize, words: &Words) -> u64 {
        words.owned(self.keys.load(Ordering::Relaxed) + offset as u32, 1)[0].load(Ordering::Relaxed)
    }

    /// A run hangs from block `offset` from now on, of which readers may know as soon as they find that run.
    pub fn pin(&self, offset: usize) {
        self.set_pinned(self.pinned().max(offset + 1));
        if offset + 1 < self.blocks() {
            // Readers that see the old hint or the new one are right either way.
            self.fork.store(offset as u16 + 1, Ordering::Relaxed);
        }
    }

    /// How much must stay.
    pub fn set_pinned(&self, pinned: usize) {
        self.pinned.store(pinned as u16, Ordering::Relaxed);
    }
}

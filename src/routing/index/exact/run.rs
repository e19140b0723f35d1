//! Runs: stretches of consecutive blocks of one chain, and who holds which part of each.
//!
//! A run is a header of one cache line. Its blocks' hashes lie in one array of the arena; who holds them is a list of
//! segments `(end, set)`, the first few in the header. Whoever changes a run holds the lock of its shard and makes the
//! version odd meanwhile; whoever reads takes no lock, and reads again if the version was odd or changed.

use super::budget::Budget;
use super::sets::SetId;
use super::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence, pause};
use super::words::{Array, Words};
use smallvec::SmallVec;

/// The most blocks in a run. Its keys, with what a size class may add, fit an array.
pub(super) const RUN_BLOCKS_MAX: usize = 2048;
const INLINE_SEGMENTS: usize = 3;

/// Which run. Zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId(pub u32);

impl RunId {
    pub const NONE: RunId = RunId(0);
}

/// Blocks from the end of the segment before up to `end`, all held by `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub end: u32,
    pub set: SetId,
}

impl Segment {
    fn pack(self) -> u64 {
        u64::from(self.end) << 32 | u64::from(self.set.0)
    }

    #[inline]
    pub fn unpack(word: u64) -> Self {
        Segment { end: (word >> 32) as u32, set: SetId(word as u32) }
    }
}

/// Segments of one run, in order.
pub(super) type Segments = SmallVec<[Segment; 8]>;

/// A run's header.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Run {
    version: AtomicU32,
    /// Blocks; zero in a header that is not in use.
    blocks: AtomicU32,
    /// The first block's hash.
    head: AtomicU64,
    keys: AtomicU32,
    keys_class: AtomicU8,
    overflow_class: AtomicU8,
    /// Blocks that must stay, held or not, because a run hangs from the last of them; zero when none does.
    pinned: AtomicU16,
    inline: [AtomicU64; INLINE_SEGMENTS],
    overflow: AtomicU32,
    segments: AtomicU16,
    /// Where a chain parted from this run last, in blocks; zero for nowhere. A hint for where the next one will.
    fork: AtomicU16,
    /// The run that this one hangs from, or none at a root. In a free header: the next free one.
    parent: AtomicU32,
    /// Runs that hang from this one.
    children: AtomicU32,
}

#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Run>() == 64);

/// What one look at a header shows.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub blocks: usize,
    pub head: u64,
    pub keys: u32,
    pub segments: usize,
    pub fork: usize,
    inline: [u64; INLINE_SEGMENTS],
    overflow: u32,
}

impl View {
    /// The run's hashes.
    #[inline]
    pub fn keys<'a>(&self, words: &'a Words) -> Option<&'a [AtomicU64]> {
        words.slice(self.keys, self.blocks)
    }

    /// Segment `at`, which is below `segments`.
    #[inline]
    pub fn segment(&self, at: usize, words: &Words) -> Option<Segment> {
        let word = if self.segments <= INLINE_SEGMENTS {
            self.inline[at]
        } else {
            words.get(self.overflow.checked_add(at as u32)?)?.load(Ordering::Relaxed)
        };
        Some(Segment::unpack(word))
    }
}

impl Run {
    #[inline]
    fn view(&self) -> View {
        View {
            blocks: self.blocks.load(Ordering::Relaxed) as usize,
            head: self.head.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            segments: usize::from(self.segments.load(Ordering::Relaxed)),
            fork: usize::from(self.fork.load(Ordering::Relaxed)),
            inline: [0, 1, 2].map(|at: usize| self.inline[at].load(Ordering::Relaxed)),
            overflow: self.overflow.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn unchanged(&self, version: u32) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// What `look` makes of the run and of what it refers to, all as it was at one moment. `look` may be called several
    /// times, may see nonsense, and returns `None` when it notices; what it returned last was no nonsense.
    #[inline]
    pub fn read<T>(&self, mut look: impl FnMut(&View) -> Option<T>) -> T {
        let mut tries = 0;
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version & 1 == 0 {
                let view = self.view();
                // The header must be whole before it is followed.
                if self.unchanged(version)
                    && let Some(result) = look(&view)
                    && self.unchanged(version)
                {
                    return result;
                }
            }
            pause(tries);
            tries += 1;
        }
    }

    /// Changes the run. The caller holds the lock of its shard; `change` is short and cannot fail.
    fn write(&self, change: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    // What follows is for who holds the lock of the run's shard, or keeps the run from changing otherwise.

    pub fn blocks(&self) -> usize {
        self.blocks.load(Ordering::Relaxed) as usize
    }

    /// Does not change while the run is in use.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    pub fn parent(&self) -> RunId {
        RunId(self.parent.load(Ordering::Relaxed))
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
    pub fn set_inline_end(&self, blocks: usize) {
        let last = usize::from(self.segments.load(Ordering::Relaxed)) - 1;
        let set = Segment::unpack(self.inline[last].load(Ordering::Relaxed)).set;
        self.write(|| {
            self.blocks.store(blocks as u32, Ordering::Relaxed);
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
        let blocks = segments.last().map_or(0, |last| last.end);
        self.write(|| {
            if segments.len() <= INLINE_SEGMENTS {
                for (to, from) in self.inline.iter().zip(segments) {
                    to.store(from.pack(), Ordering::Relaxed);
                }
            }
            self.blocks.store(blocks, Ordering::Relaxed);
            self.segments.store(segments.len() as u16, Ordering::Relaxed);
            self.overflow.store(array.at, Ordering::Relaxed);
            self.overflow_class.store(array.class(), Ordering::Relaxed);
        });
        if old.capacity > 0 {
            words.give(old);
        }
        true
    }

    /// Begins anew with `head`, after `parent`; for a header that was not in use.
    pub fn begin(&self, head: u64, parent: RunId) {
        self.write(|| {
            self.head.store(head, Ordering::Relaxed);
            self.parent.store(parent.0, Ordering::Relaxed);
            self.children.store(0, Ordering::Relaxed);
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

    /// A run hangs from block `offset` from now on.
    pub fn adopt(&self, offset: usize) {
        self.children.fetch_add(1, Ordering::Relaxed);
        self.pinned.store(self.pinned().max(offset + 1) as u16, Ordering::Relaxed);
        if offset + 1 < self.blocks() {
            // Readers that see the old hint or the new one are right either way.
            self.fork.store(offset as u16 + 1, Ordering::Relaxed);
        }
    }

    /// Where this run hangs from; for a run that is being restored.
    pub fn link(&self, parent: RunId) {
        self.parent.store(parent.0, Ordering::Relaxed);
    }

    /// How much must stay, and for how many; for a run that is being restored.
    pub fn pin(&self, pinned: usize, children: u32) {
        self.pinned.store(pinned as u16, Ordering::Relaxed);
        self.children.store(children, Ordering::Relaxed);
    }

    /// A run hangs from here no more; `true` if it was the last.
    pub fn orphan(&self) -> bool {
        let last = self.children.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            self.pinned.store(0, Ordering::Relaxed);
        }
        last
    }
}

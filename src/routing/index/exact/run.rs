//! Runs: stretches of consecutive blocks of one chain, and who holds which part of each.
//!
//! A run is a header of one cache line. Its blocks' hashes lie in one array of the arena, the last one in the header too,
//! because most prompts that reach a run go through it to its end; who holds them is a list of segments `(end, set)`, the
//! first few in the header. Whoever changes a run holds the lock of its shard and makes the version odd meanwhile; whoever
//! reads takes no lock, and reads again if the version was odd or changed.

use super::set_id::{SET_BITS, SetId};
use super::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence, pause};
use super::words::Words;
use smallvec::SmallVec;

mod change;

/// The most blocks in a run. Its keys, with what a size class may add, fit an array.
pub(super) const RUN_BLOCKS_MAX: usize = 2048;
const INLINE_SEGMENTS: usize = 3;
const _: () = assert!(RUN_BLOCKS_MAX < 1 << (u64::BITS - SET_BITS));

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
        u64::from(self.end) << SET_BITS | self.set.bits()
    }

    #[inline]
    pub fn unpack(word: u64) -> Self {
        Segment { end: (word >> SET_BITS) as u32, set: SetId::from_bits(word) }
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
    blocks: AtomicU16,
    segments: AtomicU16,
    /// The first block's hash, and the last one's.
    head: AtomicU64,
    tail: AtomicU64,
    inline: [AtomicU64; INLINE_SEGMENTS],
    keys: AtomicU32,
    overflow: AtomicU32,
    keys_class: AtomicU8,
    overflow_class: AtomicU8,
    /// Blocks that must stay, held or not, because a run hangs from the last of them; zero when none does.
    pinned: AtomicU16,
    /// Where a chain parted from this run last, in blocks; zero for nowhere. A hint for where the next one will.
    fork: AtomicU16,
}

#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Run>() == 64);

/// What one look at a header shows.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub blocks: usize,
    pub head: u64,
    pub tail: u64,
    pub segments: usize,
    /// No run hangs from a block at this offset or behind.
    pub pinned: usize,
    pub fork: usize,
    keys: u32,
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
            blocks: usize::from(self.blocks.load(Ordering::Relaxed)),
            head: self.head.load(Ordering::Relaxed),
            tail: self.tail.load(Ordering::Relaxed),
            segments: usize::from(self.segments.load(Ordering::Relaxed)),
            pinned: usize::from(self.pinned.load(Ordering::Relaxed)),
            fork: usize::from(self.fork.load(Ordering::Relaxed)),
            keys: self.keys.load(Ordering::Relaxed),
            inline: [
                self.inline[0].load(Ordering::Relaxed),
                self.inline[1].load(Ordering::Relaxed),
                self.inline[2].load(Ordering::Relaxed),
            ],
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
}

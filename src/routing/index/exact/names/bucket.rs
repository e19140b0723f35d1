//! A cache line of five names.

use crate::routing::index::exact::place::{Copies, Place};

pub(super) const SLOTS: usize = 5;
/// How many buckets a name may be in: its home and those behind it.
pub(super) const REACH: usize = 16;
/// Bits of a name that an entry holds.
pub(super) const TAG_BITS: u32 = 55;

const RUN_SHIFT: u32 = 36;
const OFFSET_SHIFT: u32 = 25;
const COPIES_SHIFT: u32 = 23;
const TAG_LOW: u64 = (1 << COPIES_SHIFT) - 1;
const OFFSET_MASK: u64 = (1 << (RUN_SHIFT - OFFSET_SHIFT)) - 1;

/// Runs that an entry can tell apart.
pub(in crate::routing::index::exact) const RUNS_MAX: u32 = 1 << (64 - RUN_SHIFT);

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Bucket {
    /// Run (28 bits, 0 in a free slot), the block's number in it (11), copies (2), the lowest 23 bits of the tag.
    entries: [u64; SLOTS],
    /// The other 32 bits of each tag.
    tags: [u32; SLOTS],
    /// How many entries that belong here or before are stored behind, in 8 bits (75 can be, at most); 4 bits a slot: how far
    /// its entry is from home; and in 4 bits how many that belong here are in no bucket, 15 for more than can be told.
    far: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);
const FAR_SHIFT: usize = 8;
const FAR_BITS: usize = 4;
const STRAYS_SHIFT: usize = FAR_SHIFT + SLOTS * FAR_BITS;
const _: () = assert!(STRAYS_SHIFT + FAR_BITS == 32);

impl Bucket {
    pub const EMPTY: Bucket = Bucket { entries: [0; SLOTS], tags: [0; SLOTS], far: 0 };

    /// The first slot with this tag, at whatever distance.
    #[inline]
    pub fn find(&self, tag: u64) -> Option<usize> {
        let high = (tag >> COPIES_SHIFT) as u32;
        let mut same = (0..SLOTS).fold(0_u32, |same, slot| same | u32::from(self.tags[slot] == high) << slot);
        while same != 0 {
            let slot = same.trailing_zeros() as usize;
            if self.tag(slot) == tag && self.is_used(slot) {
                return Some(slot);
            }
            same &= same - 1;
        }
        None
    }

    /// Whether any slot may have this tag.
    #[inline]
    pub fn may_have(&self, tag: u64) -> bool {
        let high = (tag >> COPIES_SHIFT) as u32;
        self.tags.iter().fold(false, |any, &other| any | (other == high))
    }

    /// The slot with this tag at this distance.
    pub fn find_at(&self, tag: u64, distance: usize) -> Option<usize> {
        self.used().find(|&slot| self.tag(slot) == tag && self.distance(slot) == distance)
    }

    #[inline]
    fn is_used(&self, slot: usize) -> bool {
        self.entries[slot] >> RUN_SHIFT != 0
    }

    pub fn used(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SLOTS).filter(|&slot| self.is_used(slot))
    }

    #[inline]
    pub fn vacant(&self) -> Option<usize> {
        // Without a branch for each slot, which could not be foretold.
        let free = (0..SLOTS).fold(0_u32, |free, slot| free | u32::from(!self.is_used(slot)) << slot);
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    #[inline]
    pub fn tag(&self, slot: usize) -> u64 {
        u64::from(self.tags[slot]) << COPIES_SHIFT | self.entries[slot] & TAG_LOW
    }

    #[inline]
    pub fn get(&self, slot: usize) -> (Place, Copies) {
        let entry = self.entries[slot];
        let offset = (entry >> OFFSET_SHIFT & OFFSET_MASK) as u16;
        (Place { run: (entry >> RUN_SHIFT) as u32, offset }, Copies((entry >> COPIES_SHIFT & 3) as u8))
    }

    /// Gives an entry that belongs here a slot; `false`, and nothing done, if there is none.
    #[inline]
    pub fn fill_vacant(&mut self, tag: u64, place: Place, copies: Copies) -> bool {
        let vacant = self.vacant();
        if let Some(slot) = vacant {
            self.fill(slot, tag, 0, place, copies);
        }
        vacant.is_some()
    }

    pub fn set(&mut self, slot: usize, place: Place, copies: Copies) {
        self.entries[slot] = entry(self.entries[slot], place, copies);
    }

    #[inline]
    pub fn fill(&mut self, slot: usize, tag: u64, distance: usize, place: Place, copies: Copies) {
        self.entries[slot] = entry(tag, place, copies);
        self.tags[slot] = (tag >> COPIES_SHIFT) as u32;
        let shift = FAR_SHIFT + slot * FAR_BITS;
        self.far = self.far & !(15 << shift) | (distance as u32) << shift;
    }

    #[inline]
    pub fn clear(&mut self, slot: usize) {
        self.entries[slot] = 0;
    }

    /// How far from home a slot's entry is.
    #[inline]
    pub fn distance(&self, slot: usize) -> usize {
        (self.far >> (FAR_SHIFT + slot * FAR_BITS) & 15) as usize
    }

    #[inline]
    pub fn passed(&self) -> u32 {
        self.far & 0xff
    }

    /// Whether every name that belongs here is here, and no other has passed.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.far & (0xff | 15 << STRAYS_SHIFT) == 0
    }

    /// Whether a name that belongs here may be in no bucket.
    #[inline]
    pub fn has_strays(&self) -> bool {
        self.far >> STRAYS_SHIFT != 0
    }

    pub fn add_stray(&mut self) {
        if self.far >> STRAYS_SHIFT != 15 {
            self.far += 1 << STRAYS_SHIFT;
        }
    }

    pub fn remove_stray(&mut self) {
        // Once they cannot be told, until the table grows.
        if self.far >> STRAYS_SHIFT != 15 {
            self.far -= 1 << STRAYS_SHIFT;
        }
    }

    pub fn pass(&mut self) {
        self.far += 1;
    }

    pub fn pass_no_more(&mut self) {
        self.far -= 1;
    }
}

#[inline]
fn entry(tag: u64, place: Place, copies: Copies) -> u64 {
    debug_assert!(place.run < RUNS_MAX && u64::from(place.offset) <= OFFSET_MASK);
    u64::from(place.run) << RUN_SHIFT
        | u64::from(place.offset) << OFFSET_SHIFT
        | u64::from(copies.0) << COPIES_SHIFT
        | tag & TAG_LOW
}

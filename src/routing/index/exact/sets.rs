//! Who holds a block: sets of lanes, each set stored once.
//!
//! A lane is an instance's cache in one tier: there are `3 × 4096`. Few distinct sets exist at a time, and most have few
//! members, so a set is a [`SetId`]: small sets are spelled out in it, larger ones are bitmaps in the arena, trimmed to the
//! words that matter and counted by the segments that refer to them.

use super::budget::Budget;
use super::set_id::{Lane, SetId, Shape};
use super::side::Side;
use super::sync::{Mutex, Ordering};
use super::words::{Array, Words};
use crate::routing::fact::{InstanceId, Tier};

/// Words of a bitmap over every instance of one tier.
pub(super) const TIER_WORDS: usize = InstanceId::LIMIT / 64;
/// Words of a bitmap over every lane.
const LANE_WORDS: usize = TIER_WORDS * Tier::ALL.len();
const SHARDS: usize = 16;

/// A set's members as words of a bitmap over lanes, from word `first` on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub first: usize,
    pub words: usize,
}

/// Every set that a segment refers to and no id spells out, by hash.
pub(super) struct Sets {
    shards: [Mutex<Side<u64, SetId>>; SHARDS],
}

/// Words before a stored bitmap: its span, and how many segments refer to it.
const HEAD_WORDS: usize = 2;

impl Sets {
    pub fn new() -> Self {
        Sets { shards: std::array::from_fn(|_| Mutex::new(Side::default())) }
    }

    /// Whether `lane` is in `set`, which the caller keeps alive.
    pub fn contains(&self, set: SetId, lane: Lane, words: &Words) -> bool {
        match set.shape() {
            Shape::Few(few) => few.lanes().contains(&lane),
            Shape::Bitmap(at) => {
                let span = span(words, at).expect("a set that is referred to exists");
                let within = lane.word().checked_sub(span.first).filter(|&within| within < span.words);
                within.is_some_and(|within| {
                    words.owned(at + (HEAD_WORDS + within) as u32, 1)[0].load(Ordering::Relaxed) & lane.bit() != 0
                })
            }
        }
    }

    /// `set` and `lane`, referred to once more. `None` when the budget is used up.
    pub fn with(&self, set: SetId, lane: Lane, words: &Words, budget: &Budget) -> Option<SetId> {
        if let Shape::Few(few) = set.shape() {
            if few.lanes().contains(&lane) {
                return Some(set);
            }
            if let Some(more) = few.and(lane) {
                return Some(more);
            }
        }
        let mut bitmap = Bitmap::of(set, words);
        bitmap.words[lane.word()] |= lane.bit();
        self.intern(&bitmap, words, budget)
    }

    /// `set` but for `lane`, referred to once more. `None` when the budget is used up.
    pub fn without(&self, set: SetId, lane: Lane, words: &Words, budget: &Budget) -> Option<SetId> {
        match set.shape() {
            Shape::Few(few) => Some(few.but(lane)),
            Shape::Bitmap(_) => {
                let mut bitmap = Bitmap::of(set, words);
                bitmap.words[lane.word()] &= !lane.bit();
                self.intern(&bitmap, words, budget)
            }
        }
    }

    /// Refers to `set` once more; somebody refers to it already.
    pub fn retain(&self, set: SetId, words: &Words) {
        if let Shape::Bitmap(at) = set.shape() {
            words.owned(at, HEAD_WORDS)[1].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refers to `set` once less, and forgets it after the last time.
    pub fn release(&self, set: SetId, words: &Words) {
        let Shape::Bitmap(at) = set.shape() else { return };
        let references = &words.owned(at, HEAD_WORDS)[1];
        // Only who holds the shard's lock takes the last reference, so that no one finds a set that is about to go.
        let not_last = |count: u64| (count > 1).then(|| count - 1);
        if references.fetch_update(Ordering::Relaxed, Ordering::Relaxed, not_last).is_ok() {
            return;
        }
        let bitmap = Bitmap::of(set, words);
        let hash = bitmap.hash();
        let mut shard = self.shards[hash as usize % SHARDS].lock();
        if references.fetch_sub(1, Ordering::Relaxed) == 1 {
            if shard.get(&hash) == Some(&set) {
                shard.remove(&hash);
            }
            words.give(Array { at, capacity: HEAD_WORDS + bitmap.span().words });
        }
    }

    /// Copies the members of `set` to the end of `out`; `None` if it is no set, which a reader may see for a moment.
    #[inline]
    pub fn read(&self, set: SetId, words: &Words, out: &mut Vec<u64>) -> Option<Span> {
        match set.shape() {
            Shape::Few(few) => {
                let lanes = few.lanes();
                let (Some(low), Some(high)) = (lanes.first(), lanes.last()) else { return Some(Span::default()) };
                // Ascending, but for what a reader may see for a moment.
                let span = Span { first: low.word(), words: (high.word() + 1).checked_sub(low.word())? };
                let start = out.len();
                out.resize(start + span.words, 0);
                for lane in lanes {
                    *out.get_mut(start + lane.word().checked_sub(span.first)?)? |= lane.bit();
                }
                Some(span)
            }
            Shape::Bitmap(at) => {
                let span = span(words, at)?;
                let members = words.slice(at.checked_add(HEAD_WORDS as u32)?, span.words)?;
                out.extend(members.iter().map(|word| word.load(Ordering::Relaxed)));
                Some(span)
            }
        }
    }

    fn intern(&self, bitmap: &Bitmap, words: &Words, budget: &Budget) -> Option<SetId> {
        if let Some(small) = bitmap.small() {
            return Some(small);
        }
        let hash = bitmap.hash();
        let mut shard = self.shards[hash as usize % SHARDS].lock();
        let known = shard.get(&hash).copied();
        if let Some(known) = known
            && Bitmap::of(known, words).words == bitmap.words
        {
            self.retain(known, words);
            return Some(known);
        }
        let span = bitmap.span();
        let array = words.take(HEAD_WORDS + span.words, budget)?;
        let stored = words.owned(array.at, HEAD_WORDS + span.words);
        stored[0].store((span.first as u64) << 32 | span.words as u64, Ordering::Relaxed);
        stored[1].store(1, Ordering::Relaxed);
        for (to, &from) in stored[HEAD_WORDS..].iter().zip(&bitmap.words[span.first..]) {
            to.store(from, Ordering::Relaxed);
        }
        let set = SetId::of_bitmap(array.at);
        if known.is_none() {
            // Of two sets with one hash the second is not shared, nor is one for which there is no room among those that
            // are: dearer, and as right.
            shard.insert(hash, set, budget);
        }
        Some(set)
    }
}

/// What a stored bitmap says it spans, if that can be.
fn span(words: &Words, at: u32) -> Option<Span> {
    let head = words.get(at)?.load(Ordering::Relaxed);
    let span = Span { first: (head >> 32) as usize, words: head as u32 as usize };
    (span.words <= LANE_WORDS && span.first <= LANE_WORDS - span.words).then_some(span)
}

/// A set written out.
struct Bitmap {
    words: [u64; LANE_WORDS],
}

impl Bitmap {
    fn of(set: SetId, arena: &Words) -> Self {
        let mut words = [0; LANE_WORDS];
        match set.shape() {
            Shape::Few(few) => few.lanes().iter().for_each(|lane| words[lane.word()] |= lane.bit()),
            Shape::Bitmap(at) => {
                let span = span(arena, at).expect("a set that is referred to exists");
                let members = arena.owned(at + HEAD_WORDS as u32, span.words);
                for (to, from) in words[span.first..].iter_mut().zip(members) {
                    *to = from.load(Ordering::Relaxed);
                }
            }
        }
        Bitmap { words }
    }

    fn span(&self) -> Span {
        let first = self.words.iter().position(|&word| word != 0).unwrap_or(0);
        let end = self.words.iter().rposition(|&word| word != 0).map_or(first, |last| last + 1);
        Span { first, words: end - first }
    }

    /// The set as an id that spells it out, if there is one.
    fn small(&self) -> Option<SetId> {
        let mut lanes = [Lane::default(); 4];
        let mut count = 0;
        for (at, &word) in self.words.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                *lanes.get_mut(count)? = Lane::at(at * 64 + rest.trailing_zeros() as usize);
                count += 1;
                rest &= rest - 1;
            }
        }
        SetId::of_few(&lanes[..count])
    }

    fn hash(&self) -> u64 {
        let span = self.span();
        let each = self.words[span.first..][..span.words].iter();
        each.fold(span.first as u64, |hash, &word| {
            let product = u128::from(hash ^ 0xa076_1d64_78bd_642f) * u128::from(word ^ 0xe703_7ed1_a0b4_28db);
            (product as u64) ^ ((product >> 64) as u64)
        })
    }
}

//! Who holds a block: sets of lanes, each set stored once.
//!
//! A lane is an instance's cache in one tier: there are `3 × 4096`. Few distinct sets exist at a time, and most have one or
//! two members, so a set is a 32-bit [`SetId`]: small sets are spelled out in it, larger ones are bitmaps in the arena,
//! trimmed to the words that matter and counted by the segments that refer to them.

use super::budget::Budget;
use super::sync::{Mutex, Ordering};
use super::words::{Array, Words};
use crate::routing::fact::{InstanceId, Tier};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Words of a bitmap over every instance of one tier.
pub(super) const TIER_WORDS: usize = InstanceId::LIMIT / 64;
/// Words of a bitmap over every lane.
const LANE_WORDS: usize = TIER_WORDS * Tier::ALL.len();
const SHARDS: usize = 16;

/// One instance's cache in one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane(u32);

impl Lane {
    pub fn new(instance: InstanceId, tier: Tier) -> Self {
        Lane((tier as u32) << 12 | u32::from(instance.0))
    }

    fn word(self) -> usize {
        self.0 as usize / 64
    }

    fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// A set of lanes: `10 | lane` for one, `11 | lane | lane` for two, half the place of its bitmap for more, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(pub u32);

const SINGLE: u32 = 0b10 << 30;
const PAIR: u32 = 0b11 << 30;
const LANE_BITS: u32 = 14;
const LANE_MASK: u32 = (1 << LANE_BITS) - 1;

/// What a [`SetId`] says by itself.
enum Shape {
    Empty,
    Single(Lane),
    Pair(Lane, Lane),
    Bitmap(u32),
}

impl SetId {
    pub const EMPTY: SetId = SetId(0);

    #[inline]
    pub fn single(lane: Lane) -> SetId {
        SetId(SINGLE | lane.0)
    }

    fn pair(a: Lane, b: Lane) -> SetId {
        SetId(PAIR | a.min(b).0 << LANE_BITS | a.max(b).0)
    }

    #[inline]
    fn shape(self) -> Shape {
        match self.0 >> 30 {
            0b10 => Shape::Single(Lane(self.0 & LANE_MASK)),
            0b11 => Shape::Pair(Lane(self.0 >> LANE_BITS & LANE_MASK), Lane(self.0 & LANE_MASK)),
            _ if self.0 == 0 => Shape::Empty,
            _ => Shape::Bitmap(self.0 << 1),
        }
    }
}

/// A set's members as words of a bitmap over lanes, from word `first` on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub first: usize,
    pub words: usize,
}

/// Every set of three members and more that a segment refers to.
pub(super) struct Sets {
    shards: [Mutex<HashMap<u64, SetId>>; SHARDS],
}

/// Words before a stored bitmap: its span, and how many segments refer to it.
const HEAD_WORDS: usize = 2;

impl Sets {
    pub fn new() -> Self {
        Sets { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }

    /// Whether `lane` is in `set`, which the caller keeps alive.
    pub fn contains(&self, set: SetId, lane: Lane, words: &Words) -> bool {
        match set.shape() {
            Shape::Empty => false,
            Shape::Single(only) => only == lane,
            Shape::Pair(a, b) => a == lane || b == lane,
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
        match set.shape() {
            Shape::Empty => Some(SetId::single(lane)),
            Shape::Single(only) if only == lane => Some(set),
            Shape::Single(only) => Some(SetId::pair(only, lane)),
            Shape::Pair(a, b) if a == lane || b == lane => Some(set),
            Shape::Pair(..) | Shape::Bitmap(_) => {
                let mut bitmap = Bitmap::of(set, words);
                bitmap.words[lane.word()] |= lane.bit();
                self.intern(&bitmap, words, budget)
            }
        }
    }

    /// `set` but for `lane`, referred to once more. `None` when the budget is used up.
    pub fn without(&self, set: SetId, lane: Lane, words: &Words, budget: &Budget) -> Option<SetId> {
        match set.shape() {
            Shape::Empty => Some(set),
            Shape::Single(only) => Some(if only == lane { SetId::EMPTY } else { set }),
            Shape::Pair(a, b) if a == lane => Some(SetId::single(b)),
            Shape::Pair(a, b) if b == lane => Some(SetId::single(a)),
            Shape::Pair(..) => Some(set),
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
            if let Entry::Occupied(entry) = shard.entry(hash)
                && *entry.get() == set
            {
                entry.remove();
            }
            words.give(Array { at, capacity: HEAD_WORDS + bitmap.span().words });
        }
    }

    /// Copies the members of `set` to the end of `out`; `None` if it is no set, which a reader may see for a moment.
    #[inline]
    pub fn read(&self, set: SetId, words: &Words, out: &mut Vec<u64>) -> Option<Span> {
        match set.shape() {
            Shape::Empty => Some(Span::default()),
            Shape::Single(lane) => {
                out.push(lane.bit());
                Some(Span { first: lane.word(), words: 1 })
            }
            Shape::Pair(a, b) if a.word() == b.word() => {
                out.push(a.bit() | b.bit());
                Some(Span { first: a.word(), words: 1 })
            }
            Shape::Pair(a, b) => {
                let span = Span { first: a.word(), words: b.word() - a.word() + 1 };
                out.push(a.bit());
                out.resize(out.len() + span.words - 2, 0);
                out.push(b.bit());
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
        let set = SetId(array.at >> 1);
        if known.is_none() {
            // Of two sets with one hash the second is not shared: dearer, and as right.
            shard.insert(hash, set);
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
            Shape::Empty => {}
            Shape::Single(lane) => words[lane.word()] |= lane.bit(),
            Shape::Pair(a, b) => {
                words[a.word()] |= a.bit();
                words[b.word()] |= b.bit();
            }
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

    /// The set as an id of its own, if it has two members at most.
    fn small(&self) -> Option<SetId> {
        let mut lanes = [Lane(0); 2];
        let mut count = 0;
        for (at, &word) in self.words.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                *lanes.get_mut(count)? = Lane((at * 64) as u32 + rest.trailing_zeros());
                count += 1;
                rest &= rest - 1;
            }
        }
        Some(match count {
            0 => SetId::EMPTY,
            1 => SetId::single(lanes[0]),
            _ => SetId::pair(lanes[0], lanes[1]),
        })
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

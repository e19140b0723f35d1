//! The lookup: from run to run along a prompt's chain.
//!
//! At each run the longest stretch is compared by its last hash, for the hashes are chained: if the last is the same, all
//! are. Who holds what of the stretch is copied while the run's version stands still and looked through afterwards. The walk
//! ends where no run goes on, or nobody who held everything so far holds more.
//!
//! What a lookup sees of one run is of one moment. An instance that nobody writes about meanwhile is answered exactly; of
//! one that is being written about, what was or is true of each run.

use super::ExactIndex;
use super::anchors::Spread;
use super::chain::{Chain, ChainRoom};
use super::run::{Run, RunId, View};
use super::sets::{Span, TIER_WORDS};
use super::sync::{AtomicU64, Ordering};
use super::words::Words;
use crate::routing::block::BlockHash;
use crate::routing::fact::Tier;
use crate::routing::index::Overlaps;
use crate::routing::request::Prompt;

/// What a lookup needs room for, reused between lookups.
#[derive(Clone, Debug, Default)]
pub(in crate::routing::index) struct Walk {
    pub chain: ChainRoom,
    segments: Vec<Held>,
    members: Vec<u64>,
    /// The instances that held every block so far, as a bitmap from word `first` on.
    unbroken: Vec<u64>,
    first: usize,
}

/// A stretch of a run, and the bitmap of the lanes that hold it.
#[derive(Clone, Copy, Debug)]
struct Held {
    end: usize,
    span: Span,
    /// Where the bitmap lies among the members that were read.
    at: usize,
}

/// Blocks to compare at first, and the factor to compare more by: where a hash is dear, not much deeper than matched.
const FIRST_BLOCKS: usize = 32;
const MORE_OF_TOKENS: usize = 2;
const MORE_OF_HASHES: usize = 8;

impl ExactIndex {
    /// Fills `overlaps` with the longest contiguous prefix of `prompt` that each instance holds, by tier. Takes no lock, and
    /// allocates only until `overlaps` has grown to the prompts at hand.
    pub fn find(&self, prompt: &Prompt<'_>, root: BlockHash, overlaps: &mut Overlaps) {
        overlaps.clear();
        let mut walk = std::mem::take(&mut overlaps.walk);
        let Walk { chain: room, segments, members, unbroken, first } = &mut walk;
        unbroken.clear();
        let mut chain = Chain::new(prompt, root, self.block_size, room);
        let mut depth = 0;
        while depth < chain.blocks() {
            let key = chain.after(depth + 1);
            let spread = Spread::of(key);
            let shard = &self.shards[spread.shard(self.shards.len())];
            let found = shard.anchors.find(spread, |run| {
                let run = self.runs.get(run)?;
                run.read(|view| {
                    if view.head != key || view.blocks == 0 {
                        return Some(None);
                    }
                    let matched = matched_blocks(view, &mut chain, depth, &self.words)?;
                    self.read_segments(view, matched, segments, members)?;
                    Some(Some((matched, view.pinned)))
                })
            });
            let Some((matched, pinned)) = found else { break };
            let mut from = 0;
            for held in segments.iter() {
                let mut lanes = Lanes { members: &members[held.at..][..held.span.words], span: held.span };
                if depth + from == 0 {
                    *first = lanes.begin(unbroken);
                    overlaps.begin(*first, unbroken);
                } else if !lanes.keep(*first, unbroken, |word, gone| overlaps.settle(word, gone, depth + from)) {
                    break;
                }
                let end = held.end.min(matched);
                lanes.lower(*first, unbroken, |tier, word, bits| overlaps.add(tier, word, bits, end - from));
                from = end;
            }
            depth += from;
            // Where nothing hangs from this block or behind, nobody can go on.
            if from < matched || matched > pinned || unbroken.iter().all(|&word| word == 0) {
                break;
            }
        }
        for (at, &word) in unbroken.iter().enumerate() {
            overlaps.settle(*first + at, word, depth);
        }
        overlaps.walk = walk;
    }

    /// Copies the segments of a run up to block `end`, and who is in them. `None` if they make no sense.
    fn read_segments(&self, view: &View, end: usize, segments: &mut Vec<Held>, members: &mut Vec<u64>) -> Option<()> {
        segments.clear();
        members.clear();
        for at in 0..view.segments {
            let segment = view.segment(at, &self.words)?;
            let start = members.len();
            let span = self.sets.read(segment.set, &self.words, members)?;
            segments.push(Held { end: segment.end as usize, span, at: start });
            if segment.end as usize >= end {
                return Some(());
            }
        }
        None
    }

    /// A run's hash at `offset`, while somebody holds that block.
    pub(super) fn key_at(&self, run: RunId, offset: usize) -> u64 {
        let look = |view: &View| Some(view.keys(&self.words)?.get(offset)?.load(Ordering::Relaxed));
        let run: &Run = self.runs.known(run);
        run.read(look)
    }
}

/// Blocks of a run that continue the chain after `depth`, the first of which does. `None` if the run makes no sense.
#[inline]
fn matched_blocks(view: &View, chain: &mut Chain<'_>, depth: usize, words: &Words) -> Option<usize> {
    let most = view.blocks.min(chain.blocks() - depth);
    let dear = chain.hashes_tokens();
    let mut keys: Option<&[AtomicU64]> = None;
    let mut equal = |end: usize| {
        let key = if end == view.blocks {
            view.tail
        } else {
            let keys = match keys {
                Some(keys) => keys,
                None => *keys.insert(view.keys(words)?),
            };
            keys[end - 1].load(Ordering::Relaxed)
        };
        Some(key == chain.after(depth + end))
    };
    // Most chains that part from a run part where the last one did.
    let fork = view.fork;
    if 0 < fork && fork < most && equal(fork)? && !equal(fork + 1)? {
        return Some(fork);
    }
    let more = if dear { MORE_OF_TOKENS } else { MORE_OF_HASHES };
    if !dear && equal(most)? {
        return Some(most);
    }
    let (mut same, mut step) = (1, FIRST_BLOCKS);
    // How far the stretch goes is bracketed by growing steps, then halved.
    let mut differs = loop {
        if same == most {
            return Some(most);
        }
        let end = most.min(step);
        if !equal(end)? {
            break end;
        }
        same = end;
        step *= more;
    };
    while differs - same > 1 {
        let middle = (same + differs) / 2;
        if equal(middle)? { same = middle } else { differs = middle }
    }
    Some(same)
}

/// The holders of one stretch: lanes of all tiers, folded to instances where the tier does not matter.
struct Lanes<'a> {
    members: &'a [u64],
    span: Span,
}

impl Lanes<'_> {
    #[inline]
    fn gpu_only(&self) -> bool {
        self.span.first + self.span.words <= TIER_WORDS
    }

    /// Word `word` of the bitmap of the lanes in `tier`.
    #[inline]
    fn tier(&self, tier: Tier, word: usize) -> u64 {
        let at = (tier as usize * TIER_WORDS + word).checked_sub(self.span.first);
        at.and_then(|at| self.members.get(at)).copied().unwrap_or(0)
    }

    #[inline]
    fn any(&self, word: usize) -> u64 {
        if self.gpu_only() {
            self.tier(Tier::Gpu, word)
        } else {
            Tier::ALL.iter().fold(0, |any, &tier| any | self.tier(tier, word))
        }
    }

    /// Starts with all who hold the first stretch; returns the first word of the bitmap.
    fn begin(&mut self, unbroken: &mut Vec<u64>) -> usize {
        if self.gpu_only() {
            unbroken.extend_from_slice(self.members);
            self.span.first
        } else {
            unbroken.extend((0..TIER_WORDS).map(|word| self.any(word)));
            0
        }
    }

    /// Drops those who do not hold this stretch; `false` if nobody is left.
    #[inline]
    fn keep(&mut self, first: usize, unbroken: &mut [u64], mut dropped: impl FnMut(usize, u64)) -> bool {
        let mut any = 0;
        for (at, word) in unbroken.iter_mut().enumerate() {
            let here = self.any(first + at);
            let gone = *word & !here;
            if gone != 0 {
                dropped(first + at, gone);
            }
            *word &= here;
            any |= *word;
        }
        any != 0
    }

    /// Tells of those left for whom the best copy of this stretch is not in the GPU's memory.
    #[inline]
    fn lower(&self, first: usize, unbroken: &[u64], mut tell: impl FnMut(Tier, usize, u64)) {
        if self.gpu_only() {
            return;
        }
        for (at, &word) in unbroken.iter().enumerate() {
            let below_gpu = word & !self.tier(Tier::Gpu, first + at);
            let cpu = below_gpu & self.tier(Tier::Cpu, first + at);
            tell(Tier::Cpu, first + at, cpu);
            tell(Tier::Storage, first + at, below_gpu & !cpu);
        }
    }
}

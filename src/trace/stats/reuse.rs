//! What prompts share, how soon, and how large a cache must be to profit.

use super::accesses::Accesses;
use super::caches::{Caches, Eviction};
use super::continuations::{Continuations, Continued};
use super::distribution::Distribution;
use crate::routing::block::BlockSize;
use crate::trace::lineage::Place;
use crate::trace::record::Record;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What prompts share. A hit is contiguous from the start of the prompt, in an infinite cache unless said otherwise; a
/// partial last block counts as a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReuseStats {
    /// Blocks that prompts touch.
    pub blocks: u64,
    /// Distinct ones.
    pub distinct_blocks: u64,
    /// Of all blocks, the hits.
    pub block_hit_ratio: f64,
    /// Of all prompt tokens, those in hit blocks.
    pub token_hit_ratio: f64,
    /// The same where only full blocks are kept and found, as vLLM does it.
    pub full_block_token_hit_ratio: f64,
    /// Of the blocks of the second half of the requests, the hits: the first half warms the cache up.
    pub last_half_block_hit_ratio: f64,
    /// The same of tokens.
    pub last_half_token_hit_ratio: f64,
    /// Of the blocks of requests whose session has no other, the hits.
    pub single_turn_hit_ratio: f64,
    /// Of the blocks of all other requests, the hits.
    pub multi_turn_hit_ratio: f64,
    /// Of all hits, those of requests whose session has no other.
    pub single_turn_hit_share: f64,
    /// Of all hits, those on blocks that the same session used last.
    pub same_session_hit_share: f64,
    /// Of the distinct blocks, those used more than once.
    pub reused_block_share: f64,
    /// Distinct first blocks. Where there are few, who only follows the longest prefix sends everything to few instances.
    pub roots: u64,
    /// Of all requests, those that begin with the most frequent first block.
    pub top_root_share: f64,
    /// What looks like conversations; `None` where the trace says which there are.
    pub continued: Option<Continued>,
    /// How much of all reuse the most popular blocks have.
    pub popularity: Vec<Popularity>,
    /// From one use of a block to the next, in seconds.
    pub reuse_seconds: Distribution,
    /// The same by what used the block before, with an exponential fit.
    pub intervals: Vec<Interval>,
    /// Other distinct blocks touched from one use of a block to the next.
    pub stack_distance_blocks: Distribution,
    /// Hits by cache size.
    pub cache_sizes: Vec<CacheSize>,
    /// The same of the tokens of the second half of the requests, at the sizes at which they are published of a file of this
    /// name.
    pub last_half_curve: Vec<CurvePoint>,
}

/// The share of all reuse that some blocks have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Popularity {
    /// Of the distinct blocks, the most reused.
    pub top_share: f64,
    /// Of all reuse, theirs.
    pub reuse_share: f64,
}

/// Reuse times after requests of one kind and turn; the paper fits an exponential distribution to them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// What the trace calls the requests; empty where it calls them nothing.
    pub kind: String,
    /// Their turn; 4 stands for all from the fourth.
    pub turn: u32,
    /// How long until the next use, in seconds. The fitted rate is one over the mean (maximum likelihood).
    pub seconds: Distribution,
    /// The largest distance between the distribution and the fitted one, 0 to 1.
    pub fit_distance: f64,
}

/// What a cache of one size would have had.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CacheSize {
    /// Of the distinct blocks, those that fit.
    pub share: f64,
    /// The same in blocks.
    pub blocks: u64,
    /// Of all blocks, the hits under first in, first out.
    pub fifo: f64,
    /// The same, evicting what was used longest ago.
    pub lru: f64,
    /// The same, evicting what will be used last.
    pub clairvoyant: f64,
}

/// What a cache of one size would have had of the tokens of the second half of the requests, after the first half.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Its size in blocks.
    pub blocks: u64,
    /// First in, first out.
    pub fifo: f64,
    /// Evicting what was used longest ago.
    pub lru: f64,
    /// Evicting what will be used last.
    pub clairvoyant: f64,
}

impl Interval {
    /// What it is called in tables and plots.
    pub fn name(&self) -> String {
        let kind = if self.kind.is_empty() { "any" } else { &self.kind };
        let more = if self.turn == TURN_MAX { "+" } else { "" };
        format!("{kind}, turn {}{more}", self.turn)
    }
}

/// Sizes of which hits are computed, as shares of the distinct blocks.
const SIZES: [f64; 5] = [0.01, 0.05, 0.10, 0.25, 0.50];
const TOP: [f64; 7] = [0.01, 0.02, 0.05, 0.10, 0.20, 0.50, 1.0];
/// All later turns count as one.
const TURN_MAX: u32 = 4;

pub(super) struct ReuseCollector {
    block_size: BlockSize,
    accesses: Accesses,
    uses: Vec<Use>,
    requests: Vec<Request>,
    same_session_hits: u64,
    full_block_hits: u64,
    /// Blocks that prompts begin with.
    roots: Vec<u32>,
    continuations: Continuations,
    categories: BTreeMap<(String, u32), u32>,
    /// Reuse times in seconds by category of the use before.
    intervals: Vec<Vec<f32>>,
}

/// A block's last use.
#[derive(Clone, Copy)]
struct Use {
    at: Duration,
    session: u32,
    category: u32,
    count: u32,
    /// Whether any prompt had all of it.
    full: bool,
}

#[derive(Clone, Copy)]
struct Request {
    session: u32,
    blocks: u64,
    hits: u64,
    tokens: u64,
    hit_tokens: u64,
}

impl ReuseCollector {
    pub(super) fn new(block_size: BlockSize) -> Self {
        ReuseCollector {
            block_size,
            accesses: Accesses::new(block_size),
            uses: Vec::new(),
            requests: Vec::new(),
            same_session_hits: 0,
            full_block_hits: 0,
            roots: Vec::new(),
            continuations: Continuations::default(),
            categories: BTreeMap::new(),
            intervals: Vec::new(),
        }
    }

    /// Adds a request; gives its hit blocks and its blocks.
    pub(super) fn add(&mut self, record: &Record, place: &Place) -> (u64, u64) {
        let kind = record.kind.as_ref().map_or("", |kind| kind.name());
        let category = self.category(kind, place.turn.min(TURN_MAX));
        let full_blocks = record.full_blocks(self.block_size).len();
        let this = Use { at: record.at, session: place.session, category, count: 1, full: false };
        let (mut hits, mut unbroken, mut full_unbroken) = (0, true, true);
        let blocks = self.accesses.push(record);
        for (position, &block) in blocks.iter().enumerate() {
            let full = position < full_blocks;
            match self.uses.get_mut(block as usize) {
                Some(last) => {
                    hits += u64::from(unbroken);
                    full_unbroken &= full && last.full;
                    self.full_block_hits += u64::from(full_unbroken);
                    self.same_session_hits += u64::from(unbroken && last.session == place.session);
                    self.intervals[last.category as usize].push((record.at - last.at).as_secs_f32());
                    *last = Use { count: last.count + 1, full: last.full || full, ..this };
                }
                None => {
                    (unbroken, full_unbroken) = (false, false);
                    if position == 0 {
                        self.roots.push(block);
                    }
                    self.uses.push(Use { full, ..this });
                }
            }
        }
        if !place.said {
            self.continuations.add(blocks, record.at);
        }
        let (blocks, tokens) = (record.blocks.len() as u64, u64::from(record.prompt_tokens));
        let hit_tokens = (hits * u64::from(self.block_size.tokens())).min(tokens);
        self.requests.push(Request { session: place.session, blocks, hits, tokens, hit_tokens });
        (hits, blocks)
    }

    fn category(&mut self, kind: &str, turn: u32) -> u32 {
        let next = self.intervals.len() as u32;
        let category = *self.categories.entry((kind.to_owned(), turn)).or_insert(next);
        if category == next {
            self.intervals.push(Vec::new());
        }
        category
    }

    /// What came of it. `session_sizes` are the requests of each session, `curve_sizes` caches in blocks.
    pub(super) fn finish(mut self, session_sizes: &[u32], curve_sizes: &[u64]) -> ReuseStats {
        let single = |request: &&Request| session_sizes[request.session as usize] == 1;
        let total = Sums::of(self.requests.iter());
        let last_half = Sums::of(self.requests[self.requests.len() / 2..].iter());
        let alone = Sums::of(self.requests.iter().filter(single));
        let others = Sums::of(self.requests.iter().filter(|request| !single(request)));
        let reused = self.uses.iter().filter(|used| used.count > 1).count();
        let full_block_hit_tokens = self.full_block_hits * u64::from(self.block_size.tokens());
        let continued = std::mem::take(&mut self.continuations).finish(self.requests.len());
        let top_root = self.roots.iter().map(|&root| self.uses[root as usize].count).max().unwrap_or(0);
        let all: Vec<f64> = self.intervals.iter().flatten().map(|&seconds| seconds.into()).collect();
        let caches = self.accesses.caches();
        ReuseStats {
            blocks: total.blocks,
            distinct_blocks: self.accesses.distinct() as u64,
            block_hit_ratio: total.block_ratio(),
            token_hit_ratio: total.token_ratio(),
            full_block_token_hit_ratio: ratio(full_block_hit_tokens, total.tokens),
            last_half_block_hit_ratio: last_half.block_ratio(),
            last_half_token_hit_ratio: last_half.token_ratio(),
            single_turn_hit_ratio: alone.block_ratio(),
            multi_turn_hit_ratio: others.block_ratio(),
            single_turn_hit_share: ratio(alone.hits, total.hits),
            same_session_hit_share: ratio(self.same_session_hits, total.hits),
            reused_block_share: ratio(reused as u64, self.accesses.distinct() as u64),
            roots: self.roots.len() as u64,
            top_root_share: ratio(top_root.into(), self.requests.len() as u64),
            continued,
            popularity: popularity(&self.uses),
            reuse_seconds: Distribution::of(all),
            intervals: self
                .categories
                .iter()
                .filter_map(|(name, &category)| interval(name, &self.intervals[category as usize]))
                .collect(),
            stack_distance_blocks: Distribution::of(
                self.accesses.stack_distances().into_iter().map(f64::from).collect(),
            ),
            cache_sizes: SIZES.map(|share| cache_size(&self.accesses, &caches, share)).to_vec(),
            last_half_curve: curve_sizes.iter().map(|&blocks| self.curve_point(&caches, blocks)).collect(),
        }
    }
}

impl ReuseCollector {
    fn curve_point(&self, caches: &Caches<'_>, blocks: u64) -> CurvePoint {
        let half = self.requests.len() / 2;
        let tokens = Sums::of(self.requests[half..].iter()).tokens;
        let hits = |eviction| {
            let mut hit_tokens = 0;
            caches.each_hits(eviction, usize::try_from(blocks).unwrap_or(usize::MAX), &mut |request, hits| {
                if request >= half {
                    let tokens = hits as u64 * u64::from(self.block_size.tokens());
                    hit_tokens += tokens.min(self.requests[request].tokens);
                }
            });
            ratio(hit_tokens, tokens)
        };
        let [fifo, lru, clairvoyant] = Eviction::ALL.map(hits);
        CurvePoint { blocks, fifo, lru, clairvoyant }
    }
}

/// Sums over some requests.
#[derive(Clone, Copy, Default)]
struct Sums {
    blocks: u64,
    hits: u64,
    tokens: u64,
    hit_tokens: u64,
}

impl Sums {
    fn of<'a>(requests: impl Iterator<Item = &'a Request>) -> Self {
        requests.fold(Sums::default(), |sums, request| Sums {
            blocks: sums.blocks + request.blocks,
            hits: sums.hits + request.hits,
            tokens: sums.tokens + request.tokens,
            hit_tokens: sums.hit_tokens + request.hit_tokens,
        })
    }

    fn block_ratio(self) -> f64 {
        ratio(self.hits, self.blocks)
    }

    fn token_ratio(self) -> f64 {
        ratio(self.hit_tokens, self.tokens)
    }
}

fn popularity(uses: &[Use]) -> Vec<Popularity> {
    let mut reuses: Vec<u64> = uses.iter().map(|used| u64::from(used.count - 1)).collect();
    reuses.sort_unstable_by(|a, b| b.cmp(a));
    let all: u64 = reuses.iter().sum();
    let share = |top_share: f64| {
        let top: u64 = reuses[..part(top_share, reuses.len())].iter().sum();
        Popularity { top_share, reuse_share: ratio(top, all) }
    };
    TOP.map(share).to_vec()
}

fn interval((kind, turn): &(String, u32), seconds: &[f32]) -> Option<Interval> {
    let seconds = Distribution::of(seconds.iter().map(|&seconds| seconds.into()).collect());
    let fit_distance = seconds.distance_to_exponential();
    (seconds.count > 0).then(|| Interval { kind: kind.clone(), turn: *turn, seconds, fit_distance })
}

fn cache_size(accesses: &Accesses, caches: &Caches<'_>, share: f64) -> CacheSize {
    let capacity = part(share, accesses.distinct());
    let hits = |eviction| ratio(caches.hits(eviction, capacity), accesses.total() as u64);
    CacheSize {
        share,
        blocks: capacity as u64,
        fifo: hits(Eviction::Fifo),
        lru: hits(Eviction::Lru),
        clairvoyant: hits(Eviction::Clairvoyant),
    }
}

/// So many of `all` blocks, to the nearest.
fn part(share: f64, all: usize) -> usize {
    (share * all as f64).round() as usize
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

//! A trace in memory, ready to be replayed many times: spread in time, its sessions found, its bounds known.

mod reading;

use super::experiment::ReplayError;
use super::outcome::Summary;
use super::report::{Ideal, TraceSummary};
use crate::routing::block::{BlockHash, BlockSize, ContentHash};
use crate::routing::policy::Dice;
use crate::routing::{SessionKey, Time};
use crate::sim::{Answering, Arrival, Category, Eviction, Foresight, PooledCache, StepModel};
use crate::trace::{Synthetic, Trace};
use reading::Reading;
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A trace, read.
#[derive(Clone, Debug)]
pub struct Workload {
    block_size: BlockSize,
    items: Vec<Item>,
    /// The full blocks of all prompts, end to end.
    contents: Vec<ContentHash>,
    /// The same blocks with everything before them, numbered by first appearance.
    ids: Vec<u32>,
    spread_ties: bool,
    /// What was read.
    pub trace: TraceSummary,
    /// The best that any cache could do.
    pub ideal: Ideal,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    at: Duration,
    prompt_tokens: u32,
    output_tokens: u32,
    /// Its blocks in `contents` and `ids`.
    first: usize,
    blocks: u32,
    /// The blocks that its output completes, in the same places: among those of the request that repeats them.
    output_first: usize,
    output_blocks: u32,
    session: SessionKey,
    category: Category,
}

impl Workload {
    /// Reads the first `limit` requests of a trace. With `spread_ties`, requests of one timestamp will arrive spread out up
    /// to the next one.
    pub fn load(trace: &Trace, limit: Option<u64>, spread_ties: bool) -> Result<Workload, ReplayError> {
        let mut records = trace.records()?;
        let mut reading = Reading::new(trace.block_size());
        while limit.is_none_or(|limit| (reading.items.len() as u64) < limit)
            && let Some(record) = records.next()
        {
            reading.add(record?);
        }
        let Some(last) = reading.items.last() else {
            return Err(ReplayError::NoRequests { trace: trace.path().display().to_string() });
        };
        let trace = TraceSummary::new(trace, reading.items.len() as u64, last.at, records.tally());
        Ok(reading.done(trace, spread_ties))
    }

    /// The first `limit` requests of a synthetic trace; `name` is what reports call it.
    pub fn synthetic(name: &str, synthetic: &Synthetic, limit: Option<u64>) -> Result<Workload, ReplayError> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut reading = Reading::new(synthetic.block_size);
        synthetic.records.iter().take(limit).cloned().for_each(|record| reading.add(record));
        let Some(last) = reading.items.last() else {
            return Err(ReplayError::NoRequests { trace: name.to_owned() });
        };
        let trace = TraceSummary::of_synthetic(name, synthetic, reading.items.len() as u64, last.at);
        Ok(reading.done(trace, true))
    }

    /// The same with outputs that no later prompt repeats: what a trace sent to a live endpoint meets, whose answers are its
    /// own.
    #[must_use]
    pub fn with_unknown_outputs(mut self) -> Workload {
        self.items.iter_mut().for_each(|item| item.output_blocks = 0);
        self.with_reachable()
    }

    /// Finds what one engine with an infinite cache would hit.
    fn with_reachable(mut self) -> Workload {
        let mut seen = vec![false; self.ids.iter().max().map_or(0, |last| *last as usize + 1)];
        let (mut hits, mut blocks, mut tokens) = (0, 0, 0);
        for item in &self.items {
            let prompt = &self.ids[item.first..][..item.blocks as usize];
            let reusable = self.block_size.reusable_blocks(item.prompt_tokens) as usize;
            hits += prompt.iter().take(reusable).take_while(|id| seen[**id as usize]).count() as u64;
            blocks += u64::from(self.block_size.touched_blocks(item.prompt_tokens));
            tokens += u64::from(item.prompt_tokens);
            prompt.iter().chain(item.output(&self.ids)).for_each(|id| seen[*id as usize] = true);
        }
        let hit_tokens = hits * u64::from(self.block_size.tokens());
        self.ideal.reachable_block_hit_ratio = hits as f64 / blocks.max(1) as f64;
        self.ideal.reachable_token_hit_ratio = hit_tokens as f64 / tokens.max(1) as f64;
        self
    }

    /// Of all that decides how it is replayed: other requests have another one.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(format!("{} {} {:?}", self.block_size.tokens(), self.spread_ties, self.items));
        self.contents.iter().for_each(|content| hasher.update(content.0.to_le_bytes()));
        let digest: [u8; 32] = hasher.finalize().into();
        u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
    }

    /// Tokens a block.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// How many requests.
    pub fn requests(&self) -> u64 {
        self.items.len() as u64
    }

    /// Mean requests a second, as recorded.
    pub fn requests_per_second(&self) -> f64 {
        self.requests() as f64 / self.trace.seconds.max(1e-9)
    }

    /// The requests as they arrive, the time between them multiplied by `time_scale`.
    ///
    /// Requests of one timestamp are spread evenly up to the next one under seed 0, and at random under any other: so
    /// seeds tell how much of a result hangs on when exactly requests came. Their order stays.
    pub fn arrivals(&self, time_scale: f64, seed: u64) -> impl Iterator<Item = Arrival> + '_ {
        self.times(seed).into_iter().zip(&self.items).map(move |(at, item)| Arrival {
            at: Time::from_secs_f64(at.as_secs_f64() * time_scale),
            prompt_tokens: item.prompt_tokens,
            output_tokens: item.output_tokens,
            contents: [&self.contents[item.first..][..item.blocks as usize], item.output(&self.contents)].concat(),
            session: Some(item.session),
            category: item.category,
        })
    }

    /// The token hit ratio of one cache of so many blocks, shared by all, asked in order of arrival. With
    /// [`Eviction::Clairvoyant`], the best that any placement and eviction could do in a fleet of that size.
    ///
    /// What outputs complete is there at once, or, where `alone` is given, when it could be at the soonest.
    pub fn pooled_token_hit_ratio(&self, blocks: u64, eviction: Eviction, alone: Option<&Alone>) -> f64 {
        let hits = self.pooled_hit_tokens(blocks, eviction, alone).iter().map(|tokens| u64::from(*tokens)).sum::<u64>();
        let tokens: u64 = self.items.iter().map(|item| u64::from(item.prompt_tokens)).sum();
        hits as f64 / (tokens as f64).max(1.0)
    }

    /// Times to first token where each request is alone and finds what such a cache with LRU eviction holds: nothing waits, so what
    /// a policy takes beyond is its own waiting, decodes beside it, and hits that it has not.
    pub fn pooled_ttft(&self, blocks: u64, alone: &Alone) -> Summary {
        let hits = self.pooled_hit_tokens(blocks, Eviction::Lru, Some(alone));
        let first = |(item, hits): (&Item, &u32)| alone.model.first_token_alone(item.prompt_tokens, *hits);
        Summary::of(self.items.iter().zip(&hits).map(first).collect())
    }

    /// Tokens that each request hits.
    fn pooled_hit_tokens(&self, blocks: u64, eviction: Eviction, alone: Option<&Alone>) -> Vec<u32> {
        let mut cache = PooledCache::new(u32::try_from(blocks).unwrap_or(u32::MAX - 1), eviction);
        let hashes = |ids: &[u32]| -> Vec<BlockHash> { ids.iter().map(|id| BlockHash(u64::from(*id))).collect() };
        let prompt = |item: &Item| &self.ids[item.first..][..item.blocks as usize];
        if eviction == Eviction::Clairvoyant {
            let mut future = Foresight::default();
            for (turn, item) in (0..).zip(&self.items) {
                future.add(Time::from_nanos(turn), hashes(prompt(item)));
            }
            cache.foresee(Arc::new(future));
        }
        // Foresight must tell apart requests of one time; what is answered before one comes, that one may use.
        let clock = |turn: usize, at: Duration| match eviction {
            Eviction::Clairvoyant => Time::from_nanos(turn as u64),
            _ => Time::from_secs_f64(at.as_secs_f64()),
        };
        let chain = |item: &Item| hashes(&[prompt(item), item.output(&self.ids)].concat());
        let mut under_way: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
        let mut asked: HashMap<usize, Answering> = HashMap::new();
        let mut hit_tokens = Vec::with_capacity(self.items.len());
        for (turn, (item, at)) in self.items.iter().zip(self.times(0)).enumerate() {
            while let Some(Reverse((ends, before))) = under_way.peek().copied().filter(|Reverse((ends, _))| *ends <= at)
            {
                under_way.pop();
                let (done, held) = (&self.items[before], asked.remove(&before).expect("who is under way has asked"));
                cache.end(clock(turn.saturating_sub(1), ends), done.category, &chain(done), held);
            }
            let reusable = self.block_size.reusable_blocks(item.prompt_tokens) as usize;
            let (chain, now) = (chain(item), clock(turn, at));
            let held = cache.begin(now, item.category, &chain, item.blocks as usize, reusable);
            let hits = held.hits as u32 * self.block_size.tokens();
            hit_tokens.push(hits);
            match alone {
                None => cache.end(now, item.category, &chain, held),
                Some(alone) => {
                    under_way.push(Reverse((at + alone.takes(item.prompt_tokens, hits, item.output_tokens), turn)));
                    asked.insert(turn, held);
                }
            }
        }
        hit_tokens
    }

    fn times(&self, seed: u64) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.items.iter().map(|item| item.at).collect();
        if !self.spread_ties {
            return times;
        }
        let mut dice = Dice::new(seed, times.len() as u64);
        let (mut first, mut gap) = (0, Duration::ZERO);
        while first < times.len() {
            let at = times[first];
            let count = times[first..].iter().take_while(|other| **other == at).count();
            gap = times.get(first + count).map_or(gap, |next| *next - at);
            let mut shares: Vec<f64> = match seed {
                0 => (0..count).map(|position| position as f64 / count as f64).collect(),
                _ => (0..count).map(|_| dice.share()).collect(),
            };
            shares.sort_by(f64::total_cmp);
            for (time, share) in times[first..].iter_mut().zip(shares) {
                *time += gap.mul_f64(share);
            }
            first += count;
        }
        times
    }
}

/// Each request alone at an instance: the soonest that it can be answered.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    /// The instance's steps.
    pub model: StepModel,
    /// What the time between requests is multiplied by.
    pub time_scale: f64,
}

impl Alone {
    /// How long an answer takes, in the trace's time.
    fn takes(&self, prompt_tokens: u32, cached_tokens: u32, output_tokens: u32) -> Duration {
        let after_first =
            self.model.next_token_alone(prompt_tokens).mul_f64(f64::from(output_tokens.saturating_sub(1)));
        (self.model.first_token_alone(prompt_tokens, cached_tokens) + after_first).div_f64(self.time_scale)
    }
}

impl Item {
    /// Of `contents` or `ids`, what its output completes.
    fn output<'a, T>(&self, blocks: &'a [T]) -> &'a [T] {
        &blocks[self.output_first..][..self.output_blocks as usize]
    }

    /// Takes the blocks of the first request that goes on after it, from where its prompt's full blocks end, for those that its
    /// output completes: an engine keeps them, but not the last token, which it never computes. Nothing is known of an
    /// output that is not in the next prompt as a whole, as where the reasoning is left out.
    fn learn_output(&mut self, next: &Item, ids: &[u32], block_size: BlockSize) {
        let whole = self.prompt_tokens.saturating_add(self.output_tokens);
        let full = block_size.full_blocks(self.prompt_tokens);
        let kept = block_size.full_blocks(whole - 1);
        let last = |of: &Item| full.checked_sub(1).map(|last| ids[of.first + last as usize]);
        let tells =
            self.output_blocks == 0 && self.blocks == full && next.prompt_tokens >= whole && next.blocks >= kept;
        if tells && last(self) == last(next) {
            (self.output_first, self.output_blocks) = (next.first + full as usize, kept - full);
        }
    }
}

//! A trace in memory, ready to be replayed many times: spread in time, its sessions found, its bounds known.

use super::experiment::ReplayError;
use super::report::{Ideal, TraceSummary};
use crate::routing::block::{BlockSize, ContentHash};
use crate::routing::policy::Dice;
use crate::routing::{SessionKey, Time};
use crate::sim::Arrival;
use crate::trace::{InfiniteCache, Record, Trace};
use std::collections::{BTreeSet, HashMap};
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
    distinct: u32,
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
    session: SessionKey,
}

impl Workload {
    /// Reads the first `limit` requests of a trace. With `spread_ties`, requests of one timestamp will arrive spread out up
    /// to the next one.
    pub fn load(trace: &Trace, limit: Option<u64>, spread_ties: bool) -> Result<Workload, ReplayError> {
        let block_size = trace.block_size();
        let mut records = trace.records()?;
        let mut cache = InfiniteCache::new(block_size);
        let mut numbers = Numbers::default();
        let mut sessions = SessionFinder::default();
        let (mut items, mut contents, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        while limit.is_none_or(|limit| (items.len() as u64) < limit)
            && let Some(record) = records.next()
        {
            let record: Record = record?;
            cache.visit(&record);
            let blocks = record.full_blocks(block_size);
            let first = contents.len();
            contents.extend_from_slice(blocks);
            numbers.extend(blocks, &mut ids);
            items.push(Item {
                at: record.at,
                prompt_tokens: record.prompt_tokens,
                output_tokens: record.output_tokens,
                first,
                blocks: blocks.len() as u32,
                session: sessions.find(&ids[first..]),
            });
        }
        let Some(last) = items.last() else {
            return Err(ReplayError::NoRequests { trace: trace.path().display().to_string() });
        };
        let trace = TraceSummary::new(trace, items.len() as u64, last.at, records.tally());
        let ideal = Ideal::new(&cache);
        Ok(Workload { block_size, items, contents, ids, distinct: numbers.next, spread_ties, trace, ideal })
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
            contents: self.contents[item.first..][..item.blocks as usize].to_vec(),
            session: Some(item.session),
        })
    }

    /// The token hit ratio of one LRU cache of so many blocks, shared by all, asked in order of arrival.
    pub fn pooled_token_hit_ratio(&self, blocks: u64) -> f64 {
        let mut order = BTreeSet::new();
        let mut keys: Vec<Option<(usize, u32)>> = vec![None; self.distinct as usize];
        let (mut hit_tokens, mut tokens) = (0, 0);
        for (turn, item) in self.items.iter().enumerate() {
            let ids = &self.ids[item.first..][..item.blocks as usize];
            let reusable = self.block_size.reusable_blocks(item.prompt_tokens) as usize;
            let hit = ids.iter().take(reusable).take_while(|id| keys[**id as usize].is_some()).count() as u64;
            hit_tokens += hit * u64::from(self.block_size.tokens());
            tokens += u64::from(item.prompt_tokens);
            for (position, &id) in ids.iter().enumerate() {
                // The tail of a prompt goes before its head.
                let key = (turn, u32::MAX - position as u32);
                if let Some(old) = keys[id as usize].replace(key) {
                    order.remove(&(old, id));
                }
                order.insert((key, id));
            }
            while order.len() as u64 > blocks {
                let Some((_, id)) = order.pop_first() else { break };
                keys[id as usize] = None;
            }
        }
        hit_tokens as f64 / (tokens as f64).max(1.0)
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

/// Numbers for blocks, each with everything before it.
#[derive(Default)]
struct Numbers {
    known: HashMap<(u32, ContentHash), u32>,
    next: u32,
}

impl Numbers {
    fn extend(&mut self, blocks: &[ContentHash], ids: &mut Vec<u32>) {
        let mut parent = u32::MAX;
        for &content in blocks {
            let next = &mut self.next;
            parent = *self.known.entry((parent, content)).or_insert_with(|| {
                *next += 1;
                *next - 1
            });
            ids.push(parent);
        }
    }
}

/// Finds sessions where a trace names none: a prompt that goes on after the whole of an earlier prompt, to its last full
/// block and at least two of them, continues that one's session.
#[derive(Default)]
struct SessionFinder {
    /// By the number of a prompt's last full block.
    ends: HashMap<u32, SessionKey>,
    next: u64,
}

impl SessionFinder {
    fn find(&mut self, ids: &[u32]) -> SessionKey {
        let known = ids.iter().skip(1).rev().find_map(|id| self.ends.get(id).copied());
        let session = known.unwrap_or_else(|| {
            self.next += 1;
            SessionKey(self.next)
        });
        if let [_, .., last] = ids {
            self.ends.insert(*last, session);
        }
        session
    }
}

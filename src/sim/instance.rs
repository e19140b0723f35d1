//! One engine: vLLM's scheduler over a [block pool](super::cache) with a [step time](super::cost).
//!
//! Step by step: running requests first, each with the tokens it still lacks (one when decoding) within the step's token
//! budget, preempting the newest when blocks run out; then waiting requests, first come first served, with whatever
//! prefix is cached. Full blocks become hittable when they are scheduled, as in vLLM. Only full blocks are cached and
//! the last token of a prompt is always computed.
//!
//! Step by step for those who follow every token, as the mock does, or with [`coast`](Instance::coast) past steps in which nothing
//! is to be told.
//!
//! Absent: priorities, speculative decoding, prefill/decode disaggregation.

mod coast;

use super::cache::{BlockPool, Slot};
use super::cost::{StepLoad, StepModel};
use super::eviction::{Eviction, Foresight, Use};
use super::work::{CacheEvent, InstanceStats, Progress, TooLarge, Work};
use crate::routing::Time;
use crate::routing::block::BlockSize;
use coast::Coast;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an engine is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceConfig {
    /// Tokens a block.
    pub block_size: BlockSize,
    /// Blocks in the pool.
    pub blocks: u32,
    /// Requests that run at once, at most (`max_num_seqs`).
    pub sequences_max: usize,
    /// Which free block goes first.
    pub eviction: Eviction,
    /// How long a step takes, and how many tokens it can compute.
    pub model: StepModel,
}

/// One simulated engine.
pub struct Instance {
    config: InstanceConfig,
    pool: BlockPool,
    waiting: VecDeque<Run>,
    running: Vec<Run>,
    stepping: bool,
    /// When the step before the one under way ended with a token.
    token_at: Option<Time>,
    coast: Option<Coast>,
    events: Vec<CacheEvent>,
    stats: InstanceStats,
}

struct Run {
    work: Work,
    slots: Vec<Slot>,
    computed: u32,
    generated: u32,
    scheduled: u32,
    /// Set when it is first scheduled; a preemption does not change it.
    cached_tokens: Option<u32>,
}

impl Run {
    /// Tokens to be computed before the next one can be sampled.
    fn target(&self) -> u32 {
        self.work.prompt_tokens + self.generated
    }

    /// Its use of a block.
    fn using(&self, depth: usize) -> Use {
        let Work { at, category, ref chain, .. } = self.work;
        Use { at, category, depth: depth as u32, reach: chain.len() as u32 }
    }

    fn decoding(&self) -> bool {
        self.computed + 1 == self.target() && self.generated > 0
    }
}

impl Instance {
    /// An idle engine with an empty cache.
    pub fn new(config: InstanceConfig) -> Self {
        Instance {
            config,
            pool: BlockPool::new(config.blocks, config.eviction),
            waiting: VecDeque::new(),
            running: Vec::new(),
            stepping: false,
            token_at: None,
            coast: None,
            events: Vec::new(),
            stats: InstanceStats::default(),
        }
    }

    /// Tells what is to come, for [`Eviction::Clairvoyant`].
    pub fn foresee(&mut self, future: Arc<Foresight>) {
        self.pool.foresee(future);
    }

    /// Queues a request.
    pub fn submit(&mut self, work: Work) -> Result<(), TooLarge> {
        assert!(work.prompt_tokens > 0 && work.output_tokens > 0, "a request has a prompt and an output");
        self.fits(work.prompt_tokens, work.output_tokens)?;
        let run = Run { work, slots: Vec::new(), computed: 0, generated: 0, scheduled: 0, cached_tokens: None };
        self.waiting.push_back(run);
        Ok(())
    }

    /// Whether a request of such lengths could ever run here.
    pub fn fits(&self, prompt_tokens: u32, output_tokens: u32) -> Result<(), TooLarge> {
        // The last token is sampled but never computed.
        let needed = self.config.block_size.touched_blocks(prompt_tokens.saturating_add(output_tokens - 1));
        if needed > self.pool.size() { Err(TooLarge { needed, blocks: self.pool.size() }) } else { Ok(()) }
    }

    /// Drops a request, wherever it is; `false` when it is not here. What it stored in a step under way is still reported
    /// when that step ends, and stays in the cache.
    pub fn abort(&mut self, id: u64) -> bool {
        if let Some(at) = self.waiting.iter().position(|run| run.work.id == id) {
            self.waiting.remove(at);
            return true;
        }
        let Some(at) = self.running.iter().position(|run| run.work.id == id) else {
            return false;
        };
        let run = self.running.remove(at);
        self.pool.release(&run.slots);
        true
    }

    /// Requests waiting to be scheduled.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests scheduled.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The share of blocks that running requests use, 0 to 1.
    pub fn cache_usage(&self) -> f64 {
        1.0 - f64::from(self.pool.free()) / f64::from(self.pool.size())
    }

    /// What it did so far.
    pub fn stats(&self) -> InstanceStats {
        self.stats
    }

    /// What it was made with.
    pub fn config(&self) -> &InstanceConfig {
        &self.config
    }

    /// Whether a step is under way.
    pub fn is_stepping(&self) -> bool {
        self.stepping
    }

    /// Schedules a step and begins it; tells when it ends. `None` when there is nothing to do.
    pub fn begin_step(&mut self, now: Time) -> Option<Time> {
        assert!(!self.stepping, "one step at a time");
        // Who waits came before, and what they need is still to be used.
        self.pool.set_now(self.waiting.front().map_or(now, |run| run.work.at.min(now)));
        let mut budget = self.config.model.prefill.step_tokens;
        if !self.schedule_running(&mut budget) {
            self.schedule_waiting(&mut budget);
        }
        let load = self.load();
        self.token_at = self.running.iter().any(|run| run.generated > 0).then_some(now);
        if load.tokens == 0 {
            return None;
        }
        let duration = self.config.model.duration(&load);
        self.stats.busy += duration;
        self.stats.steps += 1;
        self.stepping = true;
        Some(now + duration)
    }

    /// When a token last came, by `now`; `None` where none did since it was last idle.
    pub fn token_at(&self, now: Time) -> Option<Time> {
        let coasted = self.coast.as_ref().and_then(|coast| self.coasted(coast, now));
        coasted.or(self.token_at).filter(|at| *at <= now)
    }

    /// Ends the step: appends what was produced and what changed in the cache.
    pub fn end_step(&mut self, progress: &mut Vec<Progress>, events: &mut Vec<CacheEvent>) {
        assert!(std::mem::take(&mut self.stepping), "a step was begun");
        events.append(&mut self.events);
        self.catch_up();
        let pool = &mut self.pool;
        self.running.retain_mut(|run| {
            run.computed += std::mem::take(&mut run.scheduled);
            if run.computed < run.target() {
                return true;
            }
            run.generated += 1;
            let finished = run.generated == run.work.output_tokens;
            let cached_tokens = run.cached_tokens.expect("it was scheduled");
            progress.push(Progress { id: run.work.id, generated: run.generated, cached_tokens, finished });
            if finished {
                pool.release(&run.slots);
            }
            !finished
        });
    }

    /// `true` when a request had to be preempted.
    fn schedule_running(&mut self, budget: &mut u32) -> bool {
        let mut preempted = false;
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let run = &self.running[at];
            let tokens = (run.target() - run.computed).min(*budget);
            if self.grow(at, run.computed + tokens) {
                self.run(at, tokens);
                *budget -= tokens;
                at += 1;
            } else {
                preempted = true;
                self.preempt_newest();
            }
        }
        preempted
    }

    fn schedule_waiting(&mut self, budget: &mut u32) {
        while *budget > 0 && self.running.len() < self.config.sequences_max {
            let Some(run) = self.waiting.front() else {
                return;
            };
            let block_tokens = self.config.block_size.tokens();
            let reusable = self.config.block_size.reusable_blocks(run.target()) as usize;
            let chain = &run.work.chain[..reusable.min(run.work.chain.len())];
            let chain = if run.work.skips_cache { &[] } else { chain };
            let hit = self.pool.cached_prefix(chain);
            let hit_tokens = hit.len() as u32 * block_tokens;
            let tokens = (run.target() - hit_tokens).min(*budget);
            let needed = self.config.block_size.touched_blocks(hit_tokens + tokens) - hit.len() as u32;
            if needed + self.pool.free_among(&hit) > self.pool.free() {
                return;
            }
            let mut run = self.waiting.pop_front().expect("it was just looked at");
            for (depth, &slot) in hit.iter().enumerate() {
                self.pool.reference(slot, run.using(depth));
            }
            run.slots = hit;
            run.computed = hit_tokens;
            if run.cached_tokens.is_none() {
                run.cached_tokens = Some(hit_tokens);
                self.stats.queried_tokens += u64::from(run.work.prompt_tokens);
                self.stats.hit_tokens += u64::from(hit_tokens);
            }
            self.running.push(run);
            let at = self.running.len() - 1;
            assert!(self.grow(at, hit_tokens + tokens), "the free blocks were just counted");
            self.run(at, tokens);
            *budget -= tokens;
        }
    }

    /// Gives a running request blocks for `tokens` tokens in all; `false`, and nothing taken, when there are too few.
    fn grow(&mut self, at: usize, tokens: u32) -> bool {
        let run = &mut self.running[at];
        let wanted = self.config.block_size.touched_blocks(tokens) as usize;
        let missing = wanted.saturating_sub(run.slots.len());
        if missing > self.pool.free() as usize {
            return false;
        }
        for _ in 0..missing {
            let (slot, evicted) = self.pool.allocate().expect("the free blocks were just counted");
            self.events.extend(evicted.map(CacheEvent::Removed));
            run.slots.push(slot);
        }
        true
    }

    /// Schedules `tokens` more tokens of a running request and publishes the blocks that they fill.
    fn run(&mut self, at: usize, tokens: u32) {
        let run = &mut self.running[at];
        let first = self.config.block_size.full_blocks(run.computed);
        let last = self.config.block_size.full_blocks(run.computed + tokens).min(run.work.chain.len() as u32);
        run.scheduled = tokens;
        if first < last {
            for position in first as usize..last as usize {
                self.pool.publish(run.slots[position], run.work.chain[position], run.using(position));
            }
            self.events.push(CacheEvent::Stored { id: run.work.id, first, count: last - first });
        }
    }

    /// Returns the newest running request to the head of the queue. Requests are scheduled oldest first, so it has not
    /// been scheduled in this step.
    fn preempt_newest(&mut self) {
        let mut run = self.running.pop().expect("a request that cannot grow is running");
        debug_assert_eq!(run.scheduled, 0);
        self.pool.release(&run.slots);
        run.slots.clear();
        run.computed = 0;
        self.stats.preemptions += 1;
        self.waiting.push_front(run);
    }

    fn load(&self) -> StepLoad {
        let mut load = StepLoad { sequences: self.running.len() as u32, ..StepLoad::default() };
        for run in &self.running {
            load.tokens += run.scheduled;
            load.starting +=
                u32::from(run.scheduled > 0 && run.cached_tokens == Some(run.computed) && run.generated == 0);
            if run.decoding() {
                load.decoding += u32::from(run.scheduled > 0);
                load.decode_context += u64::from(run.computed);
            } else {
                let scheduled = f64::from(run.scheduled);
                load.attention_pairs += scheduled * (f64::from(run.computed) + scheduled / 2.0);
            }
        }
        load
    }
}

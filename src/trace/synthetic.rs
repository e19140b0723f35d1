//! Synthetic traces, calibrated to what was published of real ones. They are not real, and say so.
//!
//! Sessions arrive as a Poisson process of a given number of them, which runs for a while before the trace begins so that it
//! begins in full swing. What sort they are of and how long they go on is drawn evenly (`strata`): chance decides who comes
//! when and asks for what, not how much there is of each, so that a trace of any seed is about as large as the one it imitates. A
//! first request is a shared head and content of its own; a later one is the full blocks of the one before it, that one's
//! answer (less what was thought) and something new. The last, partial block of a prompt never recurs: so nearly all
//! requests share all but the last block of the one before them, as was measured on the real traces. Requests from before
//! the beginning are left out, and who continued them begins anew.
//!
//! Assumed, not measured: log-normal lengths, the number of heads and their Zipf popularity, thinking times that are a
//! mixture of exponentials, the Poisson process, and unlinked continuations (`fork`).

mod imitated;
mod preset;
mod strata;

pub use imitated::{Figure, Imitated};
pub use preset::{SyntheticPreset, UnknownPreset};

use super::provenance::Provenance;
use super::record::{Kind, Record};
use crate::routing::block::{BlockSize, ContentHash};
use preset::{Head, Length, Model, Sort};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, StandardNormal};
use rand_pcg::Pcg64;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use strata::Strata;

/// A synthetic trace.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// Its requests, in order of time.
    pub records: Vec<Record>,
    /// Tokens a block.
    pub block_size: BlockSize,
    /// What it was made from.
    pub provenance: Provenance,
}

impl Synthetic {
    /// A trace of `seconds`. The presets were calibrated on as many as the trace has that they imitate. The seed decides when
    /// requests come and what is in them, not which heads they share. The same arguments give the same trace.
    pub fn generate(preset: SyntheticPreset, seed: u64, seconds: f64) -> Synthetic {
        Synthetic::generate_told(preset, seed, seconds, &mut |_| {})
    }

    /// The same; `progress` is told with each request how many of the seconds are made.
    pub fn generate_told(preset: SyntheticPreset, seed: u64, seconds: f64, progress: &mut dyn FnMut(f64)) -> Synthetic {
        let model = preset.model();
        let &Imitated { requests, seconds: in_seconds, .. } = preset.imitates();
        let sessions_per_second = requests.published / in_seconds / model.requests_per_session() * model.session_factor;
        let records = Generator::new(model, seed, seconds).run(sessions_per_second, progress);
        let name = format!("synthetic {}", preset.name());
        Synthetic { records, block_size: preset.block_size(), provenance: Provenance::Overlay { name, seed } }
    }
}

/// What the presets were calibrated with. Its heads are those of every seed: how long the few most popular ones are decides
/// what is shared, so that they belong to what is imitated, not to chance.
const CALIBRATED_SEED: u64 = 1;

struct Generator {
    model: &'static Model,
    seconds: f64,
    chance: Pcg64,
    kinds: Vec<Kind>,
    /// For each sort, its classes of heads.
    heads: Vec<Vec<Pool>>,
    fresh: u64,
    /// Of which sort the next session is, and whether a session goes on after its first turn, its second, ….
    sorts: Strata,
    goings_on: Vec<Strata>,
    requests: Vec<Request>,
    /// Requests that an unlinked continuation may continue, oldest first.
    recent: VecDeque<usize>,
}

/// Heads of one class.
struct Pool {
    share: f64,
    heads: Vec<Vec<ContentHash>>,
    /// Of a head and all more popular ones.
    popularity: Vec<f64>,
}

struct Request {
    seconds: f64,
    tokens: u32,
    output: u32,
    sort: usize,
    turn: usize,
    /// How much larger than usual everything in its session is.
    size: f64,
    blocks: Vec<ContentHash>,
    parent: Option<usize>,
}

/// When a request is to come; ordered by time, then by who asked first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// Since the beginning of the warm-up.
    nanos: u64,
    sequence: u64,
    parent: Option<usize>,
}

impl Generator {
    fn new(model: &'static Model, seed: u64, seconds: f64) -> Self {
        let mut generator = Generator {
            model,
            seconds,
            chance: Pcg64::seed_from_u64(CALIBRATED_SEED),
            kinds: model.sorts.iter().map(|sort| Kind::new(sort.name)).collect(),
            heads: Vec::new(),
            fresh: 0,
            sorts: Strata::default(),
            goings_on: model.go_on.iter().map(|_| Strata::default()).collect(),
            requests: Vec::new(),
            recent: VecDeque::new(),
        };
        // The chat template begins every prompt, whatever its head.
        let template = generator.fresh_blocks(model.template_blocks);
        for sort in model.sorts {
            let pools = sort.heads.iter().map(|head| generator.pool(head, &template)).collect();
            generator.heads.push(pools);
        }
        if seed != CALIBRATED_SEED {
            generator.chance = Pcg64::seed_from_u64(seed);
        }
        generator
    }

    fn pool(&mut self, head: &Head, template: &[ContentHash]) -> Pool {
        let mut heads = Vec::with_capacity(head.count);
        for _ in 0..head.count {
            let length = self.draw(&head.blocks) as usize;
            let mut blocks = template[..length.min(template.len())].to_vec();
            blocks.extend(self.fresh_blocks(length.saturating_sub(template.len())));
            heads.push(blocks);
        }
        let weights: Vec<f64> = (1..=head.count).map(|rank| (rank as f64).powf(-head.zipf)).collect();
        let all: f64 = weights.iter().sum();
        let popularity = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight / all;
            Some(*sum)
        });
        Pool { share: head.share, heads, popularity: popularity.collect() }
    }

    fn run(mut self, sessions_per_second: f64, progress: &mut dyn FnMut(f64)) -> Vec<Record> {
        let warmup = self.model.warmup_seconds;
        let span = warmup + self.seconds;
        let sessions = (sessions_per_second * span).round() as u64;
        let mut due = BinaryHeap::new();
        for sequence in 0..sessions {
            let nanos = (self.chance.random::<f64>() * span * 1e9) as u64;
            due.push(Reverse(Due { nanos, sequence, parent: None }));
        }
        let mut sequence = sessions;
        while let Some(Reverse(Due { nanos, parent, .. })) = due.pop() {
            let seconds = nanos as f64 / 1e9 - warmup;
            if seconds >= self.seconds {
                break;
            }
            progress(seconds.max(0.0));
            if let Some((request, Some(gap_seconds))) = self.request(seconds, parent) {
                let nanos = nanos + (gap_seconds * 1e9) as u64;
                due.push(Reverse(Due { nanos, sequence, parent: Some(request) }));
                sequence += 1;
            }
        }
        self.records()
    }

    /// One request and, if its session goes on, the time until its next. `None` when its context is full.
    fn request(&mut self, seconds: f64, parent: Option<usize>) -> Option<(usize, Option<f64>)> {
        let model = self.model;
        let draft = match parent {
            Some(parent) => self.continuation(parent),
            None => self.root(),
        };
        let Draft { sort, turn, size, mut tokens, mut base } = draft;
        let block_tokens = model.block_tokens;
        if tokens > model.context_max {
            if parent.is_some() || base.len() as u32 * block_tokens >= model.context_max {
                return None;
            }
            tokens = model.context_max - self.chance.random_range(0..400);
        }
        let count = tokens.div_ceil(block_tokens) as usize;
        base.truncate((tokens / block_tokens) as usize);
        // A partial last block is always new.
        base.truncate(if tokens % block_tokens == 0 { count } else { count - 1 });
        let new = self.fresh_blocks(count - base.len());
        base.extend(new);
        let output = self.output(&model.sorts[sort].output, size);
        let request = self.requests.len();
        self.requests.push(Request { seconds, tokens, output, sort, turn, size, blocks: base, parent });
        if model.fork_share > 0.0 {
            if self.recent.len() == model.fork_memory {
                self.recent.pop_front();
            }
            self.recent.push_back(request);
        }
        let class = (turn - 1).min(model.go_on.len() - 1);
        let goes_on = self.goings_on[class].draw(&mut self.chance) < model.go_on[class];
        let gap = goes_on.then(|| self.gap(&model.sorts[sort]));
        Some((request, gap))
    }

    fn root(&mut self) -> Draft {
        let model = self.model;
        let sort = choose(self.sorts.draw(&mut self.chance), model.sorts.iter().map(|sort| sort.share));
        let forks = !self.recent.is_empty() && self.chance.random::<f64>() < model.fork_share;
        let (base, tokens) = if forks {
            // Recent ones rather than old ones.
            let age = 1.0 - self.chance.random::<f64>().powi(2);
            let forked = self.recent[((self.recent.len() - 1) as f64 * age) as usize];
            let tokens = self.requests[forked].tokens + self.draw(&model.sorts[sort].added);
            (self.full_blocks(forked), tokens)
        } else {
            let class = choose(self.chance.random(), self.heads[sort].iter().map(|pool| pool.share));
            let popular: f64 = self.chance.random();
            let pool = &self.heads[sort][class];
            let head = pool.popularity.partition_point(|&sum| sum < popular).min(pool.heads.len() - 1);
            let base = pool.heads[head].clone();
            let tokens = base.len() as u32 * model.block_tokens + self.draw(&model.sorts[sort].root);
            (base, tokens)
        };
        let size = (model.session_sigma * self.normal()).exp();
        Draft { sort, turn: 1, size, tokens, base }
    }

    fn continuation(&mut self, parent: usize) -> Draft {
        let Request { tokens, output, sort, turn, size, .. } = self.requests[parent];
        let answered = (f64::from(output) * (1.0 - self.model.stripped_share)) as u32;
        let added = (size * f64::from(self.draw(&self.model.sorts[sort].added))).max(1.0) as u32;
        let tokens = tokens.saturating_add(answered).saturating_add(added);
        Draft { sort, turn: turn + 1, size, tokens, base: self.full_blocks(parent) }
    }

    fn full_blocks(&self, request: usize) -> Vec<ContentHash> {
        let Request { tokens, ref blocks, .. } = self.requests[request];
        blocks[..(tokens / self.model.block_tokens) as usize].to_vec()
    }

    fn fresh_blocks(&mut self, count: usize) -> Vec<ContentHash> {
        let begin = self.fresh;
        self.fresh += count as u64;
        (begin..self.fresh).map(ContentHash).collect()
    }

    fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.chance)
    }

    fn draw(&mut self, length: &Length) -> u32 {
        let Length { median, sigma, min, max } = *length;
        if sigma == 0.0 {
            return median as u32;
        }
        (median * (sigma * self.normal()).exp()).round().clamp(min, max) as u32
    }

    /// An output length. What a session's size spreads is taken from the length's own spread, so that both make it.
    fn output(&mut self, length: &Length, size: f64) -> u32 {
        let own = length.sigma.powi(2) - self.model.session_sigma.powi(2);
        let length = Length { sigma: own.max(0.05_f64.powi(2)).sqrt(), ..*length };
        (f64::from(self.draw(&length)) * size).max(1.0) as u32
    }

    fn gap(&mut self, sort: &Sort) -> f64 {
        let phase = choose(self.chance.random(), sort.gaps.iter().map(|gap| gap.0));
        let exponential: f64 = Exp1.sample(&mut self.chance);
        self.model.gap_seconds_min + exponential * sort.gaps[phase].1
    }

    /// The requests of the trace itself, their blocks and themselves numbered by first appearance.
    fn records(self) -> Vec<Record> {
        let mut chats: Vec<Option<(u64, u32)>> = vec![None; self.requests.len()];
        let mut numbers: Vec<Option<ContentHash>> = vec![None; self.fresh as usize];
        let mut next = 0;
        let mut records = Vec::with_capacity(self.requests.len());
        for (index, request) in self.requests.into_iter().enumerate().filter(|(_, request)| request.seconds >= 0.0) {
            let parent = request.parent.and_then(|parent| chats[parent]);
            let (chat, turn) = (records.len() as u64, parent.map_or(1, |(_, turn)| turn + 1));
            chats[index] = Some((chat, turn));
            let mut number = |block: ContentHash| {
                *numbers[block.0 as usize].get_or_insert_with(|| {
                    next += 1;
                    ContentHash(next - 1)
                })
            };
            records.push(Record {
                // As the published traces: milliseconds.
                at: Duration::from_millis((request.seconds * 1e3) as u64),
                prompt_tokens: request.tokens,
                output_tokens: request.output,
                blocks: request.blocks.into_iter().map(&mut number).collect(),
                chat: Some(chat),
                parent: parent.map(|(chat, _)| chat),
                session: None,
                turn: Some(turn),
                kind: Some(self.kinds[request.sort].clone()),
            });
        }
        records
    }
}

/// A request before its blocks are known.
struct Draft {
    sort: usize,
    turn: usize,
    size: f64,
    tokens: u32,
    /// The blocks that it shares with what came before.
    base: Vec<ContentHash>,
}

/// One of several, by their shares, where `draw` is from 0 to 1; the last one takes what is missing to one.
fn choose(draw: f64, shares: impl ExactSizeIterator<Item = f64>) -> usize {
    let last = shares.len() - 1;
    let mut left = draw;
    for (index, share) in shares.enumerate() {
        left -= share;
        if left <= 0.0 {
            return index;
        }
    }
    last
}

//! Policies: pure functions from a view of the fleet to a choice.
//!
//! A policy keeps nothing. What must be remembered is in the index or the fleet and reaches it through the [`View`];
//! chance comes from the view's [`Dice`], so even a random policy replays exactly. There are no hooks and no background
//! tasks, and a policy cannot fail: every view has at least one candidate.
//!
//! The peers' policies are here with the formulas and the defaults that they publish, on our books: all see the same
//! index, the same requests in flight and the same estimates as ours does, which is more than most of them have at home.

mod kind;
mod tuning;

mod aibrix;
mod bounded_hash;
mod dualmap;
mod dynamo;
mod gorgo;
mod least_loaded;
mod least_tokens;
mod llmd;
mod llmd_affinity;
mod lmetric;
mod longest_prefix;
mod mooncake;
mod power_of_two;
mod preble;
mod prefix_cost;
mod random;
mod round_robin;
mod session;
mod sglang;
mod smetric;
mod smg;

pub use kind::{PolicyKind, UnknownPolicy};
pub use tuning::{HOLD_STEPS_MAX, ParameterInfo, PolicySpec, PolicySpecError, Tuning};

use super::fact::{InstanceId, Knowledge};
use super::fleet::Load;
use super::request::SessionKey;
use super::time::Time;
use std::cmp::Ordering;
use tuning::Parameter;

/// What a policy sees.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// When the request came.
    pub now: Time,
    /// The instances that may take it, ascending by id; never empty.
    pub candidates: &'a [Candidate],
    /// How many requests were placed before this one.
    pub sequence: u64,
    /// Chance, decided by the router's seed and `sequence`.
    pub dice: Dice,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// Tokens a block.
    pub block_tokens: u32,
    /// The hash of the first 256 tokens of the prompt, at least one block of it; `None` for a prompt without a full block.
    pub head: Option<u64>,
    /// The session that the request belongs to, if it says so.
    pub session: Option<SessionKey>,
    /// Where that session's last request went, if that is still remembered.
    pub home: Option<InstanceId>,
    /// Requests a second over the last minute or so, for the whole fleet.
    pub arrivals_per_second: f64,
    /// Output tokens a request is expected to produce.
    pub expected_output_tokens: f64,
    /// Seconds that one token of decode context adds to a decode step.
    pub decode_context_seconds: f64,
    /// Seconds of a decode step besides.
    pub decode_step_seconds: f64,
}

/// One instance, as it stands to this request.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which.
    pub instance: InstanceId,
    /// Tokens of the prompt that it has cached, or will have when requests in flight there have been computed.
    pub overlap_tokens: u32,
    /// Tokens of the prompt that requests in flight there share.
    pub in_flight_tokens: u32,
    /// How far the index is to be believed about it.
    pub knowledge: Knowledge,
    /// Estimated seconds to prefill the rest of this request there, once it is this request's turn.
    pub prefill_seconds: f64,
    /// The same, were nothing cached.
    pub cold_prefill_seconds: f64,
    /// Estimated seconds of an engine step there that prefills as much as one can.
    pub full_step_seconds: f64,
    /// Estimated seconds of one that prefills nothing.
    pub empty_step_seconds: f64,
    /// What it has to do already.
    pub load: Load,
}

impl Candidate {
    /// Estimated seconds until this request's first token there.
    pub fn ttft_seconds(&self) -> f64 {
        self.load.step_wait_seconds + self.load.prefill_wait_seconds + self.prefill_seconds
    }
}

/// Chooses an instance.
pub trait Policy: Send + Sync {
    /// The position in `view.candidates` of the instance to take.
    fn choose(&self, view: &View<'_>) -> usize;

    /// What each candidate costs, in its own measure, where it weighs them by one: what [`choose`](Self::choose) takes the
    /// least of.
    fn costs(&self, _view: &View<'_>) -> Option<Vec<f64>> {
        None
    }

    /// Its numbers, for tuning; every one is finite and not negative.
    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        Vec::new()
    }
}

impl View<'_> {
    /// Tokens of the prompt that an instance would have to compute.
    pub fn uncached_tokens(&self, candidate: &Candidate) -> u32 {
        self.prompt_tokens.saturating_sub(candidate.overlap_tokens)
    }

    /// The most that any candidate has of the prompt.
    pub fn best_overlap_tokens(&self) -> u32 {
        self.candidates.iter().map(|candidate| candidate.overlap_tokens).max().unwrap_or(0)
    }

    /// The position of an instance among the candidates.
    pub fn position_of(&self, instance: InstanceId) -> Option<usize> {
        self.candidates.binary_search_by_key(&instance, |candidate| candidate.instance).ok()
    }

    fn mean(&self, of: impl Fn(&Candidate) -> f64) -> f64 {
        self.candidates.iter().map(of).sum::<f64>() / self.candidates.len() as f64
    }

    /// The least and the most.
    fn range(&self, of: impl Fn(&Candidate) -> f64) -> (f64, f64) {
        let values = self.candidates.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
    }

    /// The fewest and the most requests in flight.
    fn requests_range(&self) -> (f64, f64) {
        self.range(|candidate| f64::from(candidate.load.requests()))
    }
}

/// Chance that can be replayed: a SplitMix64 stream (Steele, Lea, Flood 2014), one for each decision.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of decision `sequence` under `seed`.
    pub fn new(seed: u64, sequence: u64) -> Self {
        Dice(mix(seed ^ mix(sequence)))
    }

    /// A number below `bound`, all equally likely but for a bias under `bound / 2^64`. `bound` must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(GOLDEN);
        ((u128::from(mix(self.0)) * bound as u128) >> 64) as usize
    }

    /// A number from 0 up to but not 1.
    pub fn share(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1_u64 << 53) as f64
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(GOLDEN);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The position of the smallest candidate; the first one of equals.
fn smallest(view: &View<'_>, order: impl Fn(&Candidate, &Candidate) -> Ordering) -> usize {
    let positions = 0..view.candidates.len();
    positions.min_by(|&a, &b| order(&view.candidates[a], &view.candidates[b])).expect("a view has a candidate")
}

/// The position of the candidate of least cost; any one of equals, all equally likely.
fn smallest_of_random(view: &View<'_>, cost: impl Fn(&Candidate) -> f64) -> usize {
    let mut dice = view.dice;
    let (mut best, mut least, mut equals) = (0, f64::INFINITY, 0);
    for (position, candidate) in view.candidates.iter().enumerate() {
        let cost = cost(candidate);
        if equals == 0 || cost < least {
            (best, least, equals) = (position, cost, 1);
        } else if cost == least {
            equals += 1;
            if dice.below(equals) == 0 {
                best = position;
            }
        }
    }
    best
}

//! Policies: pure functions from a view of the fleet to a choice.
//!
//! A policy keeps nothing. What must be remembered is in the index or the fleet and reaches it through the [`View`];
//! chance comes from the view's [`Dice`], so even a random policy replays exactly. There are no hooks and no background
//! tasks, and a policy cannot fail: every view has at least one candidate.

mod least_loaded;
mod longest_prefix;
mod power_of_two;
mod prefix_cost;
mod random;
mod round_robin;

use super::fact::InstanceId;
use super::fleet::Load;
use super::time::Time;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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
    /// Requests a second over the last minute or so, for the whole fleet.
    pub arrivals_per_second: f64,
    /// Output tokens a request is expected to produce.
    pub expected_output_tokens: f64,
    /// Seconds that one token of decode context adds to a decode step.
    pub decode_context_seconds: f64,
}

/// One instance, as it stands to this request.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which.
    pub instance: InstanceId,
    /// Tokens of the prompt that it has cached.
    pub overlap_tokens: u32,
    /// Estimated time to prefill the rest of this request there, once it is this request's turn.
    pub prefill: Duration,
    /// What it has to do already.
    pub load: Load,
}

/// Chooses an instance.
pub trait Policy: Send + Sync {
    /// The position in `view.candidates` of the instance to take.
    fn choose(&self, view: &View<'_>) -> usize;
}

/// Every policy there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Any instance, all equally likely.
    Random,
    /// Each instance in turn.
    RoundRobin,
    /// The fewest requests in flight.
    LeastLoaded,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// The longest cached prefix; ties go to the least loaded.
    LongestPrefix,
    /// The least expected cost in time, to this request and to others.
    #[default]
    PrefixCost,
}

impl PolicyKind {
    /// All policies, in the order in which they are documented.
    pub const ALL: [PolicyKind; 6] = [
        PolicyKind::Random,
        PolicyKind::RoundRobin,
        PolicyKind::LeastLoaded,
        PolicyKind::PowerOfTwo,
        PolicyKind::LongestPrefix,
        PolicyKind::PrefixCost,
    ];

    /// The name used in configuration, on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Random => "random",
            PolicyKind::RoundRobin => "round_robin",
            PolicyKind::LeastLoaded => "least_loaded",
            PolicyKind::PowerOfTwo => "power_of_two",
            PolicyKind::LongestPrefix => "longest_prefix",
            PolicyKind::PrefixCost => "prefix_cost",
        }
    }

    /// What it does, in a line.
    pub const fn summary(self) -> &'static str {
        match self {
            PolicyKind::Random => "any instance, all equally likely",
            PolicyKind::RoundRobin => "each instance in turn",
            PolicyKind::LeastLoaded => "the fewest requests in flight",
            PolicyKind::PowerOfTwo => "the less loaded of two drawn at random",
            PolicyKind::LongestPrefix => "the longest cached prefix, ties to the least loaded",
            PolicyKind::PrefixCost => "the least expected time: waiting, own prefill, and the delay put on others",
        }
    }

    /// The policy itself.
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            PolicyKind::Random => Box::new(random::Random),
            PolicyKind::RoundRobin => Box::new(round_robin::RoundRobin),
            PolicyKind::LeastLoaded => Box::new(least_loaded::LeastLoaded),
            PolicyKind::PowerOfTwo => Box::new(power_of_two::PowerOfTwo),
            PolicyKind::LongestPrefix => Box::new(longest_prefix::LongestPrefix),
            PolicyKind::PrefixCost => Box::new(prefix_cost::PrefixCost),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy name that there is none of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {name:?}; there are {}", PolicyKind::ALL.map(PolicyKind::name).join(", "))]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let known = PolicyKind::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownPolicy { name: name.to_owned() })
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

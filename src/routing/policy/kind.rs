//! The list of policies: their names, their summaries, how they are built.

use super::Policy;
use super::tuning::{ParameterInfo, Tuning};
use super::{
    aibrix, bounded_hash, dualmap, dynamo, gorgo, least_loaded, least_tokens, llmd, llmd_affinity, lmetric,
    longest_prefix, mooncake, power_of_two, preble, prefix_cost, random, round_robin, session, sglang, smetric, smg,
};
use std::fmt;
use std::str::FromStr;

/// Every policy there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Any instance, all equally likely.
    Random,
    /// Each instance in turn.
    RoundRobin,
    /// The fewest requests in flight.
    LeastLoaded,
    /// The fewest prompt tokens to compute.
    LeastTokens,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// The longest cached prefix; ties go to the least loaded.
    LongestPrefix,
    /// Consistent hash of the prompt's head, with bounded loads.
    BoundedHashPrefix,
    /// Consistent hash of the session, with bounded loads.
    BoundedHashSession,
    /// Where the session was before; new ones go to the least loaded.
    Session,
    /// SGLang's `cache_aware`.
    SgLang,
    /// SMG's `cache_aware` with KV events.
    Smg,
    /// Dynamo's cost.
    Dynamo,
    /// llm-d's weighted scorers.
    LlmD,
    /// llm-d's affinity filter and token load.
    LlmDAffinity,
    /// AIBrix's `prefix-cache`.
    AiBrix,
    /// Mooncake's least expected time to first token.
    Mooncake,
    /// Preble's E2.
    Preble,
    /// LMetric: prefill tokens times batch size.
    LMetric,
    /// SMetric: LMetric with sessions.
    SMetric,
    /// DualMap: the warmer of two hashed choices.
    DualMap,
    /// GORGO: own and queued tokens.
    Gorgo,
    /// The least expected cost in time, to this request and to others.
    #[default]
    PrefixCost,
}

impl PolicyKind {
    /// All policies, in the order in which they are documented.
    pub const ALL: [PolicyKind; 22] = [
        PolicyKind::Random,
        PolicyKind::RoundRobin,
        PolicyKind::LeastLoaded,
        PolicyKind::LeastTokens,
        PolicyKind::PowerOfTwo,
        PolicyKind::LongestPrefix,
        PolicyKind::BoundedHashPrefix,
        PolicyKind::BoundedHashSession,
        PolicyKind::Session,
        PolicyKind::SgLang,
        PolicyKind::Smg,
        PolicyKind::Dynamo,
        PolicyKind::LlmD,
        PolicyKind::LlmDAffinity,
        PolicyKind::AiBrix,
        PolicyKind::Mooncake,
        PolicyKind::Preble,
        PolicyKind::LMetric,
        PolicyKind::SMetric,
        PolicyKind::DualMap,
        PolicyKind::Gorgo,
        PolicyKind::PrefixCost,
    ];

    /// The name used in configuration, on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Random => "random",
            PolicyKind::RoundRobin => "round_robin",
            PolicyKind::LeastLoaded => "least_loaded",
            PolicyKind::LeastTokens => "least_tokens",
            PolicyKind::PowerOfTwo => "power_of_two",
            PolicyKind::LongestPrefix => "longest_prefix",
            PolicyKind::BoundedHashPrefix => "bounded_hash_prefix",
            PolicyKind::BoundedHashSession => "bounded_hash_session",
            PolicyKind::Session => "session",
            PolicyKind::SgLang => "sglang",
            PolicyKind::Smg => "smg",
            PolicyKind::Dynamo => "dynamo",
            PolicyKind::LlmD => "llmd",
            PolicyKind::LlmDAffinity => "llmd_affinity",
            PolicyKind::AiBrix => "aibrix",
            PolicyKind::Mooncake => "mooncake",
            PolicyKind::Preble => "preble",
            PolicyKind::LMetric => "lmetric",
            PolicyKind::SMetric => "smetric",
            PolicyKind::DualMap => "dualmap",
            PolicyKind::Gorgo => "gorgo",
            PolicyKind::PrefixCost => "prefix_cost",
        }
    }

    /// What it does, in a line.
    pub const fn summary(self) -> &'static str {
        match self {
            PolicyKind::Random => "any instance, all equally likely",
            PolicyKind::RoundRobin => "each instance in turn",
            PolicyKind::LeastLoaded => "the fewest requests in flight",
            PolicyKind::LeastTokens => "the fewest prompt tokens to compute",
            PolicyKind::PowerOfTwo => "the less loaded of two drawn at random",
            PolicyKind::LongestPrefix => "the longest cached prefix, ties to the least loaded",
            PolicyKind::BoundedHashPrefix => "consistent hash of the prompt's head, with bounded loads",
            PolicyKind::BoundedHashSession => "consistent hash of the session, with bounded loads",
            PolicyKind::Session => "where the session was before, new ones to the least loaded",
            PolicyKind::SgLang => "SGLang's cache_aware: the best match if good and balanced",
            PolicyKind::Smg => "SMG's cache_aware with events: the best match not overloaded",
            PolicyKind::Dynamo => "Dynamo's cost: prefill blocks and active blocks",
            PolicyKind::LlmD => "llm-d's weighted scorers: prefix 3, queue 2, kv 2",
            PolicyKind::LlmDAffinity => "llm-d's affinity filter, then the fewest tokens",
            PolicyKind::AiBrix => "AIBrix's prefix-cache: the best match within 2 sigma of load",
            PolicyKind::Mooncake => "Mooncake's: the least expected time to first token",
            PolicyKind::Preble => "Preble's E2: exploit or explore",
            PolicyKind::LMetric => "LMetric: prefill tokens times batch size",
            PolicyKind::SMetric => "SMetric: LMetric with sessions",
            PolicyKind::DualMap => "DualMap: the warmer of two hashed choices",
            PolicyKind::Gorgo => "GORGO: own and queued tokens",
            PolicyKind::PrefixCost => "ours: the least expected time to the request and to others",
        }
    }

    /// Full steps of prefill behind which it places no request unless it is told otherwise; 0 is any. Peers' routers hold nothing.
    pub const fn hold_steps(self) -> f64 {
        if matches!(self, PolicyKind::PrefixCost) { prefix_cost::HOLD_STEPS } else { 0.0 }
    }

    /// The policy itself, with its defaults but for what is tuned.
    pub fn build(self, tuning: &Tuning) -> Box<dyn Policy> {
        let mut policy = self.build_default();
        tuning.apply(policy.parameters());
        policy
    }

    /// Its numbers and their defaults.
    pub fn parameters(self) -> Vec<ParameterInfo> {
        self.build_default().parameters().iter().map(ParameterInfo::of).collect()
    }

    fn build_default(self) -> Box<dyn Policy> {
        match self {
            PolicyKind::Random => Box::new(random::Random),
            PolicyKind::RoundRobin => Box::new(round_robin::RoundRobin),
            PolicyKind::LeastLoaded => Box::new(least_loaded::LeastLoaded),
            PolicyKind::LeastTokens => Box::new(least_tokens::LeastTokens),
            PolicyKind::PowerOfTwo => Box::new(power_of_two::PowerOfTwo),
            PolicyKind::LongestPrefix => Box::new(longest_prefix::LongestPrefix),
            PolicyKind::BoundedHashPrefix => Box::new(bounded_hash::BoundedHash::of(bounded_hash::Key::Prefix)),
            PolicyKind::BoundedHashSession => Box::new(bounded_hash::BoundedHash::of(bounded_hash::Key::Session)),
            PolicyKind::Session => Box::new(session::Session),
            PolicyKind::SgLang => Box::new(sglang::SgLang::default()),
            PolicyKind::Smg => Box::new(smg::Smg::default()),
            PolicyKind::Dynamo => Box::new(dynamo::Dynamo::default()),
            PolicyKind::LlmD => Box::new(llmd::LlmD::default()),
            PolicyKind::LlmDAffinity => Box::new(llmd_affinity::LlmDAffinity::default()),
            PolicyKind::AiBrix => Box::new(aibrix::AiBrix::default()),
            PolicyKind::Mooncake => Box::new(mooncake::Mooncake),
            PolicyKind::Preble => Box::new(preble::Preble::default()),
            PolicyKind::LMetric => Box::new(lmetric::LMetric),
            PolicyKind::SMetric => Box::new(smetric::SMetric::default()),
            PolicyKind::DualMap => Box::new(dualmap::DualMap::default()),
            PolicyKind::Gorgo => Box::new(gorgo::Gorgo::default()),
            PolicyKind::PrefixCost => Box::new(prefix_cost::PrefixCost::default()),
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

//! What of a router may change while it runs.

use super::admission::Saturation;
use super::policy::{Policy, PolicyKind, PolicySpec, Tuning};
use super::tiers::TierWeights;
use std::time::Duration;

/// How to decide, and within which limits. What prompts are cut into and hashed with is not here: all that is known goes by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// As in [`Config`](super::Config).
    pub policy: PolicyKind,
    /// As in [`Config`](super::Config).
    pub tuning: Tuning,
    /// As in [`Config`](super::Config); of requests that are in flight, too.
    pub lease: Duration,
    /// As in [`Config`](super::Config).
    pub requests_max: usize,
    /// As in [`Config`](super::Config).
    pub tier_weights: TierWeights,
    /// As in [`Config`](super::Config).
    pub saturation: Option<Saturation>,
}

/// Rules in force, with the policy that they name.
pub(super) struct Ruling {
    pub rules: Rules,
    pub policy: Box<dyn Policy>,
    /// As [`PolicySpec::hold`] has it.
    pub hold: Option<f64>,
}

impl From<Rules> for Ruling {
    fn from(rules: Rules) -> Self {
        let hold = PolicySpec { kind: rules.policy, tuning: rules.tuning }.hold();
        Ruling { rules, policy: rules.policy.build(&rules.tuning), hold }
    }
}

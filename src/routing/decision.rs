//! What the router answers.

use super::admission::Refusal;
use super::fact::{Availability, InstanceId, Knowledge};
use super::fleet::Load;
use super::policy::Candidate;
use std::time::Duration;

/// A routed request, until it is finished or abandoned. Never reused by one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Where a request goes, and what was known when that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Names the reservation that this decision made; give it back with the facts about the request.
    pub request: RequestId,
    /// The chosen instance.
    pub instance: InstanceId,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that the chosen instance has cached as far as the index knows, or will have once the requests
    /// in flight there are computed; blocks in slower tiers count for less ([`TierWeights`](super::TierWeights)).
    pub overlap_tokens: u32,
    /// The same for the instance that has most.
    pub best_overlap_tokens: u32,
    /// Estimated time to the first token at the chosen instance: waiting and own prefill.
    pub expected_ttft: Duration,
}

/// Why a request would go where it would go now.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Where.
    pub chosen: InstanceId,
    /// Why it would have to wait first, if it would.
    pub refusal: Option<Refusal>,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// What the policy sees: the instances that may take the request, ascending by id.
    pub candidates: Vec<Candidate>,
    /// What each candidate costs, in the policy's own measure, where it has one; the least is chosen.
    pub costs: Option<Vec<f64>>,
    /// The other instances that serve the model: not ready, or not allowed. Ascending by id.
    pub others: Vec<Unasked>,
}

/// An instance that serves the model and is no candidate.
#[derive(Clone, Copy, Debug)]
pub struct Unasked {
    /// Which.
    pub instance: InstanceId,
    /// Whether it takes requests.
    pub availability: Availability,
    /// How far the index is to be believed about it.
    pub knowledge: Knowledge,
    /// Tokens of the prompt that the index knows it to have cached.
    pub overlap_tokens: u32,
    /// What it has to do.
    pub load: Load,
}

//! What the router answers.

use super::fact::InstanceId;
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

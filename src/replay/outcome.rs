//! What one policy made of a trace.

use super::timeline::Timeline;
use crate::routing::Time;
use crate::routing::block::BlockSize;
use crate::routing::policy::PolicySpec;
use crate::sim::{Energy, Gpus, InstanceStats, Served, Tariff};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What one policy made of a trace. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The policy's name, and what was tuned of it.
    pub policy: String,
    /// Requests served.
    pub requests: u64,
    /// Requests that no instance could ever hold, and that were turned away.
    pub refused_too_large: u64,
    /// Prompt tokens of the served requests.
    pub prompt_tokens: u64,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: u64,
    /// Prompt tokens that the router expected to come from a cache. More were delivered where the index lags behind.
    pub expected_cached_tokens: u64,
    /// Prompt tokens that it would have expected, had every request gone to the instance that had most of it cached.
    /// What is missing from this to the ideal was evicted or not yet known; from the expected to this, given up for load.
    pub best_expected_cached_tokens: u64,
    /// `cached_tokens` of `prompt_tokens`.
    pub token_hit_ratio: f64,
    /// Cached blocks of all blocks of the prompts, partial last blocks included in the latter.
    pub block_hit_ratio: f64,
    /// Time to first token.
    pub ttft_seconds: Summary,
    /// From arrival to last token.
    pub end_to_end_seconds: Summary,
    /// From one token to the next, after the first; of requests with more than one.
    pub tpot_seconds: Summary,
    /// The share of requests, refused ones included, that met the service level.
    pub goodput: f64,
    /// How evenly requests were spread.
    pub requests_balance: Balance,
    /// How evenly time in steps was spread.
    pub busy_balance: Balance,
    /// How evenly uncached prompt tokens were, in each of up to 96 equal slices of the time in which requests came: the most that an
    /// instance was given, over the mean.
    pub balance_over_time: Vec<f64>,
    /// Requests that had to give up their blocks and start again.
    pub preemptions: u64,
    /// Electricity, emissions and cost from the first arrival's time to the last token, under the default tariff.
    pub energy: Energy,
}

/// What counts as answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slo {
    /// The longest time to first token.
    pub ttft: Duration,
    /// The longest mean time a token after that, if it matters.
    pub tpot: Option<Duration>,
}

impl Default for Slo {
    /// 5 s to the first token.
    fn default() -> Self {
        Slo { ttft: Duration::from_secs(5), tpot: None }
    }
}

/// A distribution in a few numbers; quantiles by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// How evenly something was spread over instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// The largest share over the mean: 1 when even, the number of instances when one had all.
    pub max_over_mean: f64,
    /// Each instance's share of the whole, by id.
    pub shares: Vec<f64>,
}

/// What is gathered while a replay runs.
#[derive(Debug, Default)]
pub(super) struct Tallied {
    slo: Slo,
    good: u64,
    tpot: Vec<Duration>,
    output_tokens: u64,
    last: Time,
    pub too_large: u64,
    served: u64,
    prompt_tokens: u64,
    blocks: u64,
    cached_tokens: u64,
    cached_blocks: u64,
    expected_cached_tokens: u64,
    best_expected_cached_tokens: u64,
    ttft: Vec<Duration>,
    end_to_end: Vec<Duration>,
    requests: Vec<u64>,
    timeline: Timeline,
}

impl Tallied {
    pub fn new(slo: Slo) -> Self {
        Tallied { slo, ..Tallied::default() }
    }

    pub fn add(&mut self, served: &[Served], block_size: BlockSize) {
        let tpot_max = self.slo.tpot.unwrap_or(Duration::MAX);
        let in_time = |tpot: Option<Duration>| tpot.is_none_or(|tpot| tpot <= tpot_max);
        for request in served {
            self.served += 1;
            self.output_tokens += u64::from(request.output_tokens);
            self.last = self.last.max(request.finished);
            self.prompt_tokens += u64::from(request.decision.prompt_tokens);
            self.blocks += u64::from(block_size.touched_blocks(request.decision.prompt_tokens));
            self.cached_tokens += u64::from(request.cached_tokens);
            self.cached_blocks += u64::from(block_size.full_blocks(request.cached_tokens));
            self.expected_cached_tokens += u64::from(request.decision.overlap_tokens);
            self.best_expected_cached_tokens += u64::from(request.decision.best_overlap_tokens);
            self.ttft.push(request.first_token.since(request.arrived));
            self.end_to_end.push(request.finished.since(request.arrived));
            let ttft = request.first_token.since(request.arrived);
            let later_tokens = request.output_tokens - 1;
            let decode = request.finished.since(request.first_token);
            let tpot = decode.checked_div(later_tokens);
            self.tpot.extend(tpot);
            self.good += u64::from(ttft <= self.slo.ttft && in_time(tpot));
            let instance = request.decision.instance.index();
            if self.requests.len() <= instance {
                self.requests.resize(instance + 1, 0);
            }
            self.requests[instance] += 1;
            let uncached = request.decision.prompt_tokens.saturating_sub(request.cached_tokens);
            self.timeline.add(request.arrived, instance, uncached.into());
        }
    }

    pub fn outcome(mut self, policy: &PolicySpec, gpus: &Gpus, instances: &[InstanceStats]) -> Outcome {
        self.requests.resize(instances.len(), 0);
        let requests: Vec<f64> = self.requests.iter().map(|&count| count as f64).collect();
        let in_steps: Vec<Duration> = instances.iter().map(|stats| stats.busy).collect();
        let (elapsed, tokens) = (self.last.since(Time::ZERO), self.prompt_tokens + self.output_tokens);
        let energy = Energy::of(gpus, &in_steps, elapsed, tokens, &Tariff::default());
        let busy: Vec<f64> = instances.iter().map(|stats| stats.busy.as_secs_f64()).collect();
        Outcome {
            policy: policy.to_string(),
            requests: self.served,
            refused_too_large: self.too_large,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            expected_cached_tokens: self.expected_cached_tokens,
            best_expected_cached_tokens: self.best_expected_cached_tokens,
            token_hit_ratio: ratio(self.cached_tokens, self.prompt_tokens),
            block_hit_ratio: ratio(self.cached_blocks, self.blocks),
            ttft_seconds: Summary::of(self.ttft),
            end_to_end_seconds: Summary::of(self.end_to_end),
            tpot_seconds: Summary::of(self.tpot),
            goodput: ratio(self.good, self.served + self.too_large),
            requests_balance: Balance::of(&requests),
            busy_balance: Balance::of(&busy),
            balance_over_time: self.timeline.max_over_mean(instances.len()),
            preemptions: instances.iter().map(|stats| stats.preemptions).sum(),
            energy,
        }
    }
}

impl Summary {
    /// Of durations, in seconds; all zero when there are none.
    pub fn of(mut durations: Vec<Duration>) -> Summary {
        if durations.is_empty() {
            return Summary::default();
        }
        durations.sort_unstable();
        let rank = |share: f64| {
            let rank = (share * durations.len() as f64).ceil() as usize;
            durations[rank.clamp(1, durations.len()) - 1].as_secs_f64()
        };
        let mean = durations.iter().sum::<Duration>().as_secs_f64() / durations.len() as f64;
        Summary { mean, p50: rank(0.5), p90: rank(0.9), p99: rank(0.99) }
    }
}

impl Balance {
    /// Of amounts, one an instance.
    pub fn of(amounts: &[f64]) -> Balance {
        let total: f64 = amounts.iter().sum();
        if total <= 0.0 {
            return Balance { max_over_mean: 1.0, shares: vec![0.0; amounts.len()] };
        }
        let shares: Vec<f64> = amounts.iter().map(|amount| amount / total).collect();
        let max = shares.iter().copied().fold(0.0, f64::max);
        Balance { max_over_mean: max * amounts.len() as f64, shares }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let durations = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(Summary::of(durations), Summary { mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0 });
        let one = Summary::of(vec![Duration::from_millis(250)]);
        assert_eq!(one, Summary { mean: 0.25, p50: 0.25, p90: 0.25, p99: 0.25 });
    }

    #[test]
    fn balance_is_one_when_even_and_the_fleet_size_when_one_has_all() {
        assert_eq!(Balance::of(&[2.0; 4]).max_over_mean, 1.0);
        assert_eq!(Balance::of(&[0.0, 3.0, 0.0, 0.0]).max_over_mean, 4.0);
        assert_eq!(Balance::of(&[0.0, 0.0]).max_over_mean, 1.0);
    }
}

//! Ours, the default: the least expected cost in seconds, to the request itself and to the others.
//!
//! With, at each instance, `w` the estimated seconds of prefill queued, `s` the seconds to prefill what this request has
//! not cached there, `ρ` the share of time lately given to prefill, `ctx` and `n` the tokens and the requests in decode; and
//! `λ` the arrivals a second an instance, `kv` the seconds a context token adds to a decode step, the cost is
//!
//! `w + r · s  +  e · s · λ · (w + s/2) / (1 − ρ)  +  d · E[out] · kv · ctx  +  d · s · n`
//!
//! The first two are the time to first token, with prefill weighed by `r`. The third is the delay that this work puts on
//! those who come behind it (an M/G/1 externality). The last two are decode interference, theirs on us and ours on them.
//!
//! Seconds are the instance's own: the router learns from first tokens how far each is from its model. What requests in
//! flight will have computed counts as cached, so a cold burst with one prefix goes together until its queue costs more
//! than a second prefill; then, and so for every hot prefix, a copy is made elsewhere. What the index says of an instance
//! that it does not know exactly counts in part.
//!
//! What is cached in a slower tier is worth less, by the router's tier weights, and so is `s` longer.
//!
//! Once an instance evicts, room is short, and time to first token is what is left to win: `r = 1`, `e = 0.5`, `d = 0.05`. A
//! larger `r` is what room costs: what is computed where others have it is kept twice, and displaces what somebody else would have hit.
//! While none evicts, what is computed once stays, and work that caches can spare is spared: `r = 3`, and half of the delay
//! on others is priced for the fleet as a whole (its mean `w` and `ρ`), since whoever comes next is routed around a queue.
//! That is a choice, not a law: on the Mooncake conversation trace with room for everything it keeps 95.4 % of the ideal
//! hit ratio, where Mooncake's own policy keeps 90.6 % and answers 3 % sooner.
//!
//! Over the best peer of each of 18 scenarios (the bench `policies`: two Mooncake traces, 4, 8 and 16 instances, three loads,
//! three seeds; peers: Mooncake, LMetric, SMetric, GORGO, llm-d's affinity, SGLang, and Dynamo with an overlap weight of 20), mean
//! time to first token is 0.974 in geometric mean and 1.001 at worst, its 90th percentile 0.987 and 1.115, time to the last token
//! 1.015 and 1.097. No single peer is under 1.007, 1.016 and 1.000 on average.
//!
//! A router may hold a request as long as more than so many seconds of prefill are before it where it would go, and then place the one
//! that takes least first ([`Queue`](crate::routing::admission::Queue)); where it hears of first tokens later than a second and a half, or not
//! at all, it holds none. With `r = 2` and `hold=0.1`, on all of these scenarios (three seeds; they served to choose both), mean and
//! worst:
//!
//! | | to the first token | its 90th percentile | to the last |
//! |---|---|---|---|
//! | synthetic | 0.931, 0.966 | 0.931, 0.980 | 0.995, 1.072 |
//! | synthetic, `hold=0` | 0.958, 0.977 | 0.974, 0.998 | 0.995, 1.061 |
//! | conversation | 0.961, 1.000 | 0.954, 1.008 | 1.014, 1.048 |
//! | conversation, `hold=0` | 0.990, 1.002 | 1.008, 1.115 | 1.013, 1.042 |
//! | synthetic, late | 0.976, 0.995 | 0.974, 1.002 | 1.045, 1.123 |
//! | conversation, late | 0.992, 1.013 | 0.993, 1.035 | 1.028, 1.050 |
//!
//! Late is to be told of first tokens and load a second late, and of a hundredth of the cache events never, while peers are told
//! all at once; two, four and ten seconds late it is as without holding (0.983, 1.003, 1.166; synthetic, 4 and 8 instances, one seed).
//! Seeds that served to choose nothing (synthetic, 4 and 8 instances, three): 0.922 and 0.988, 0.924 and 0.982.
//!
//! But nothing is held unless that is asked for. Synthetic Qwen-A on 8 instances at 0.9 of capacity, where a step has hundreds
//! of decodes and takes several prompts at once, takes 6.5 times as long with it as the best peer, and 1.02 without: an instance with a
//! tenth of a second to do is not given enough for a step. Over six scenarios each (4 and 8 instances, two seeds, `r = 2`) the mean
//! is 1.313 with it and 0.939 without on Qwen-A, 1.071 and 1.058 on Qwen-Coder, where ours is behind Mooncake's (1.006). Holding helps others,
//! too: Mooncake's policy takes 0.957 of the mean on conversation and 0.970 on synthetic with it; LMetric's is hurt on synthetic, 1.352.
//!
//! Tried on synthetic with holding and `r = 2` (0.933 and 0.933, two seeds) and not taken: own prefill weighed besides by how fast the
//! instance evicts beside the others, times 0.3 (0.933, 0.935) and 1 (0.941, 0.941), or by its busy share, times 0.5 (0.933,
//! 0.927). Held for two seconds at most instead of ten, on conversation with 4 and 16 instances, it takes 0.974 and 0.997, one seed.
//!
//! Of the hits of one pooled cache ours keeps 86 to 87 % on conversation and 94 % on synthetic. Who keeps more answers later: of the peers
//! llm-d's affinity keeps most, 94 and 99 %, and takes 1.160 and 1.116 of the mean; ours with `r = 3` and holding keeps 90 and 97 %,
//! and takes 0.967 and 0.932. Copies are what is missing: a pooled cache has each block once, a fleet has what prompts share many times.

use super::{Candidate, Parameter, Policy, View, smallest};
use crate::routing::fact::Knowledge;
use std::cmp::Reverse;

/// Seconds of prefill at an instance behind which nothing is placed there yet; 0 is any, until busy decodes make it no harm.
pub(super) const HOLD_SECONDS: f64 = 0.0;

pub(super) struct PrefixCost {
    tight: Weights,
    roomy: Weights,
}

/// What counts how much against a second of waiting.
struct Weights {
    prefill: f64,
    own_delay: f64,
    fleet_delay: f64,
    decode: f64,
}

impl Default for PrefixCost {
    fn default() -> Self {
        PrefixCost {
            tight: Weights { prefill: 1.0, own_delay: 0.5, fleet_delay: 0.0, decode: 0.05 },
            roomy: Weights { prefill: 3.0, own_delay: 0.5, fleet_delay: 0.5, decode: 0.05 },
        }
    }
}

/// Costs are estimates: within this factor of the least they are equal, and the one with the least to do is chosen: by requests in
/// flight, then by what it has cached, then by requests ever given. So small chances, as who was first to show how fast it is, do
/// not become habits, and a short prompt, whose prefill is one step with or without a cache, still goes where it is known.
const AS_GOOD: f64 = 1.02;

/// The delay on others grows without bound as the fleet saturates; past this share it is as good as infinite.
const BUSY_MAX: f64 = 0.95;

impl Policy for PrefixCost {
    fn choose(&self, view: &View<'_>) -> usize {
        let cost = self.cost(view);
        let least = view.candidates.iter().map(&cost).fold(f64::INFINITY, f64::min);
        let rank = |candidate: &Candidate| {
            let cost = cost(candidate);
            let (requests, assigned) = candidate.load.order();
            // Costs are not negative, and such floats are ordered as their bits are.
            let cached = Reverse(candidate.overlap_tokens);
            if cost <= least * AS_GOOD {
                (0, requests, cached, assigned, cost.to_bits())
            } else {
                (1, 0, Reverse(0), 0, cost.to_bits())
            }
        };
        smallest(view, |a, b| rank(a).cmp(&rank(b)))
    }

    fn costs(&self, view: &View<'_>) -> Option<Vec<f64>> {
        Some(view.candidates.iter().map(self.cost(view)).collect())
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("prefill", "own prefill, where instances evict", &mut self.tight.prefill),
            Parameter::new(
                "own_delay",
                "delay on others at the instance, where instances evict",
                &mut self.tight.own_delay,
            ),
            Parameter::new(
                "fleet_delay",
                "delay on others in the fleet, where they evict",
                &mut self.tight.fleet_delay,
            ),
            Parameter::new("decode", "decode interference, where they evict", &mut self.tight.decode),
            Parameter::new("roomy_prefill", "own prefill, where none evicts", &mut self.roomy.prefill),
            Parameter::new("roomy_own_delay", "delay on others at the instance, there", &mut self.roomy.own_delay),
            Parameter::new("roomy_fleet_delay", "delay on others in the fleet, there", &mut self.roomy.fleet_delay),
            Parameter::new("roomy_decode", "decode interference, there", &mut self.roomy.decode),
        ]
    }
}

impl PrefixCost {
    /// What a candidate costs, in seconds.
    fn cost<'a>(&'a self, view: &'a View<'a>) -> impl Fn(&Candidate) -> f64 + 'a {
        let (fleet, weights) = (FleetState::of(view), self.weights(view));
        move |candidate| cost(view, weights, &fleet, candidate)
    }

    fn weights(&self, view: &View<'_>) -> &Weights {
        let evicts = |candidate: &Candidate| candidate.load.evictions_per_second > EVICTIONS_MIN;
        if view.candidates.iter().any(evicts) { &self.tight } else { &self.roomy }
    }
}

/// Blocks a second, over the last minutes, above which an instance evicts: one block is remembered for ten minutes.
const EVICTIONS_MIN: f64 = 1e-6;

/// What a second of work costs those who come behind it, as far as the fleet decides it.
struct FleetState {
    arrivals_per_second: f64,
    wait: f64,
    busy_share: f64,
}

impl FleetState {
    fn of(view: &View<'_>) -> Self {
        FleetState {
            arrivals_per_second: view.arrivals_per_second / view.candidates.len() as f64,
            wait: view.mean(|candidate| candidate.load.prefill_wait.as_secs_f64()),
            busy_share: view.mean(|candidate| candidate.load.busy_share).min(BUSY_MAX),
        }
    }
}

fn cost(view: &View<'_>, weights: &Weights, fleet: &FleetState, candidate: &Candidate) -> f64 {
    let load = &candidate.load;
    let wait = load.prefill_wait.as_secs_f64();
    let own = own_seconds(candidate);
    let behind = |wait: f64, busy: f64| own * fleet.arrivals_per_second * (wait + own / 2.0) / (1.0 - busy);
    let slowed_by_decodes = view.expected_output_tokens * view.decode_context_seconds * load.decode_tokens as f64;
    let slows_decodes = own * f64::from(load.decode_requests);
    wait + weights.prefill * own
        + weights.own_delay * behind(wait, load.busy_share.min(BUSY_MAX))
        + weights.fleet_delay * behind(fleet.wait, fleet.busy_share)
        + weights.decode * (slowed_by_decodes + slows_decodes)
}

/// Seconds to prefill what is not cached, where what is believed to be cached counts as far as it can be believed.
fn own_seconds(candidate: &Candidate) -> f64 {
    let trust = match candidate.knowledge {
        Knowledge::Exact => 1.0,
        Knowledge::Degraded => 0.9,
        Knowledge::Approximate | Knowledge::Blind => 0.7,
    };
    trust * candidate.prefill.as_secs_f64() + (1.0 - trust) * candidate.cold_prefill.as_secs_f64()
}

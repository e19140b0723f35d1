//! Ours, the default: the least expected cost in seconds, to the request itself and to the others.
//!
//! With, at each instance, `w` the estimated seconds until this request's prefill begins, `s` the seconds to prefill what it has
//! not cached there, beside the decodes under way, `k` the requests that are to begin with it, `ρ` the share of time lately given to
//! prefill, `ctx` and `n` the tokens and the requests in decode, `u` the share of KV blocks in use; `λ` the arrivals a second an
//! instance, `kv` the seconds a context token adds to a step; and `b` the share of its time that the fleet as a whole gives to prefill
//! and to what decodes attend to, the cost is
//!
//! `w + (p + q · b²) · s  +  m · s · k  +  e · s · λ · (w + s/2) / (1 − ρ)  +  d · (E[out] · kv · ctx + s · n)  +  f · max(0, u − 0.9) / 0.1`
//!
//! The first two are the time to first token. An engine works in steps, and nobody's prefill begins within one: so `w` is what is left of
//! the step under way, known from the tokens that come as steps end, and the prefills queued; and who shares a step with others adds to
//! it only what is computed for it. Prefill is weighed by more than itself: what is computed where others have it is kept
//! twice, displaces what somebody else would have hit, and takes time, which a busy fleet has not; `p = 1.1`, so that an idle fleet does
//! not compute a cold burst's prefix everywhere, and `q = 0.7`. The third is what it makes those wait whose first tokens come with the
//! same step, `m = 1`. The fourth is the delay that this work puts on those who come behind it
//! (an M/G/1 externality), `e = 0.3`. The fifth is decode interference, theirs on us and ours on them, `d = 0.005`. The last is the
//! chance to wait for blocks until another request ends, `f = 5` seconds where none is free; and so many for each request that waits
//! where one was preempted: it waits at the head of the line for all the blocks that it lost, and nobody passes it.
//!
//! Seconds are the instance's own: the router learns from first tokens how far each is from its model. What requests in flight will have
//! computed counts as cached, so a cold burst with one prefix goes together until its queue costs more than a second prefill; then, and
//! so for every hot prefix, a copy is made elsewhere. What the index says of an instance that it does not know exactly counts in part.
//! What is cached in a slower tier is worth less, by the router's tier weights, and so is `s` longer.
//!
//! A request is held while, where it would go, more than two fifths of a full engine step (8,192 tokens) of prefill are before it; and
//! while others are to begin with the next step, whom it would delay together by more than a step costs, `h = t + t₀ / (1 − ρ)`: `t` takes
//! one there with nothing but decodes, `t₀` one with nothing at all. Of those that are held, the one that takes least is placed first
//! ([`Queue`](crate::routing::admission::Queue)). Where the router hears of first tokens late, by a tenth of a second once that is
//! known (by half a second before), or not at all, it holds none.
//!
//! Over the best peer *of each scenario* (the bench `policies`: six traces, 4, 8 and 16 instances, three loads, three seeds; peers:
//! Mooncake, SMetric, LMetric, GORGO, SMG, Preble, llm-d and its affinity, on the Mooncake traces SGLang and sessions), geometric mean
//! over nine scenarios each and the worst of them, to the first token, its 90th percentile, and to the last token; and the share of the
//! hits of one pooled cache, in which an output is when it could have been generated at the soonest:
//!
//! | | mean | p90 | to the last | hits |
//! |---|---|---|---|---|
//! | Mooncake synthetic | 0.915, 0.979 | 0.912, 0.979 | 1.053, 1.106 | 0.944 |
//! | Mooncake conversation | 0.956, 0.998 | 0.943, 0.999 | 1.079, 1.174 | 0.858 |
//! | Qwen-A | 0.964, 1.028 | 0.928, 0.985 | 1.075, 1.280 | 0.931 |
//! | Qwen-B | 0.899, 0.965 | 0.864, 0.918 | 1.026, 1.081 | 0.971 |
//! | Qwen-Coder | 0.982, 0.990 | 0.994, 1.004 | 1.006, 1.033 | 0.960 |
//! | Qwen-Thinking | 0.998, 1.184 | 0.990, 1.015 | 1.001, 1.008 | 0.964 |
//!
//! Over all, 0.952 and 0.938, at half of capacity 0.965 and 0.970, at 0.9 of it 0.941 and 0.898. The only one over 1.03 is Thinking with 8
//! instances at 0.9 of capacity, by one seed of three: at 2.0 s its 99th percentile shows nothing of it. The best single
//! peers, Mooncake, 1.094 and 1.048 (worst 2.6), SMG, 1.097 and 1.112 (1.5), and SMetric, 1.109 and 1.076 (2.5). Mooncake, SMG, SMetric and Preble are given
//! our own estimates of waiting. The Qwen traces are synthetic, 12,000 requests of A and Coder, 24,000 of B, 6,000 of Thinking. All of
//! these served to choose the numbers. Without counting steps (what is left of one, who shares one, what outputs add to one) it had
//! 0.983 and 0.978 over peers that did not either; with them, but held only where a full step of prefill was before a request, whomever
//! it would delay in the next, 0.963 and 0.960: when a request is placed matters more than any weight.
//!
//! With what instances report a second late and a hundredth of the cache events lost, over peers that are told all at once (4 and 8
//! instances, one seed): 0.921 and 0.923 on the synthetic trace, 0.955 and 0.937 on the conversations, 0.984 and 0.951 on A, 0.888 and
//! 0.837 on B, 0.997 and 1.006 on Coder. With first tokens and ends a second late, too: 1.002, 1.000, 1.055, 1.115 and 1.035 in the mean.
//!
//! With room for all of the conversation trace eight instances keep 91.5 % of the ideal hit ratio.
//!
//! Tried and not taken (mean and 90th percentile over all six, one seed, peers without counting steps; what is above had 0.941 and
//! 0.922, 1.03 at worst): `q = 1.5`, 0.945 and 0.926; `q = 1`, 0.944 and 0.926, and with `p = 1`, too, 0.946 and 0.930, or with no `d`,
//! 0.944 and 0.925, but 1.10 at worst; `q = 0.5` (three seeds, one of Thinking, peers counting steps, beside 0.949 and 0.938), 0.953 and 0.945, and 1.22 at
//! worst. Holding until three tenths of a step are left, 0.948 and 0.933, half, 0.948 and 0.927, six tenths, 0.946 and 0.927 (all with
//! `q = 1.5`); `h = t / 2`, and until a tenth of a second is left, 1.22 on B, which then falls behind; `h = 3 t`, 0.948
//! and 0.931, but 1.09 on B: what is short is to go together the more, the less time is left. From before requests were held so: of
//! those that are to begin with it only as many as fit into a step; a weight for each request in decode in what a step takes, as the
//! simulator has; in place of `d`, what a request's context adds to the steps of those that come while it decodes: all as good or worse.

use super::{Candidate, Parameter, Policy, View};
use crate::routing::fact::Knowledge;
use crate::routing::fleet::Load;
use std::cmp::Reverse;

/// Full steps of prefill at an instance behind which nothing is placed there yet, where nobody else is to begin with the next.
pub(super) const HOLD_STEPS: f64 = 0.4;

/// What counts how much against a second of waiting.
pub(super) struct PrefixCost {
    prefill: f64,
    /// The same besides, where the fleet has no time left.
    busy: f64,
    /// On those behind.
    delay: f64,
    /// On those in the same step.
    step: f64,
    decode: f64,
    /// Seconds, where no block is free.
    full: f64,
}

impl Default for PrefixCost {
    fn default() -> Self {
        PrefixCost { prefill: 1.1, busy: 0.7, delay: 0.3, step: 1.0, decode: 0.005, full: 5.0 }
    }
}

/// Costs are estimates: within this factor of the least they are equal, and the one with the least to do is chosen: by requests in
/// flight, then by what it has cached, then by requests ever given. So small chances, as who was first to show how fast it is, do
/// not become habits, and a short prompt, whose prefill is one step with or without a cache, still goes where it is known.
const AS_GOOD: f64 = 1.005;

/// The share of KV blocks in use, as reported, from which a request may have to wait for some, or make another one give up its own.
const NEARLY_FULL: f64 = 0.9;

impl Policy for PrefixCost {
    fn choose(&self, view: &View<'_>) -> usize {
        let cost = self.cost(view);
        let least = view.candidates.iter().map(&cost).fold(f64::INFINITY, f64::min);
        let rank = |(position, candidate): (usize, &Candidate)| {
            let cost = cost(candidate);
            let (requests, assigned) = candidate.load.order();
            // Costs are not negative, and such floats are ordered as their bits are.
            let rank = (requests, Reverse(candidate.overlap_tokens), assigned, cost.to_bits());
            (cost <= least * AS_GOOD).then_some((rank, position))
        };
        view.candidates.iter().enumerate().filter_map(rank).min().expect("a view has a candidate").1
    }

    fn costs(&self, view: &View<'_>) -> Option<Vec<f64>> {
        Some(view.candidates.iter().map(self.cost(view)).collect())
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("prefill", "own prefill", &mut self.prefill),
            Parameter::new("busy", "own prefill besides, by the square of the fleet's busy share", &mut self.busy),
            Parameter::new("delay", "delay on those who come behind", &mut self.delay),
            Parameter::new("step", "delay on those that share a step", &mut self.step),
            Parameter::new("decode", "decode interference", &mut self.decode),
            Parameter::new("full", "seconds to wait for KV blocks where none is free", &mut self.full),
        ]
    }
}

impl PrefixCost {
    /// What a candidate costs, in seconds.
    fn cost<'a>(&'a self, view: &'a View<'a>) -> impl Fn(&Candidate) -> f64 + 'a {
        let arrivals_per_second = view.arrivals_per_second / view.candidates.len() as f64;
        let prefill = self.prefill + self.busy * busy_share(view).powi(2);
        move |candidate| {
            let load = &candidate.load;
            let wait = load.step_wait_seconds + load.prefill_wait_seconds;
            let own = own_seconds(candidate);
            let behind = own * arrivals_per_second * (wait + own / 2.0) / load.idle_share();
            let slowed_by_decodes =
                view.expected_output_tokens * view.decode_context_seconds * load.context_tokens as f64;
            let slows_decodes = own * f64::from(load.decode_requests);
            let for_blocks = load.recent.map_or(0.0, |reported| {
                let over = (reported.cache_usage.min(1.0) - NEARLY_FULL) / (1.0 - NEARLY_FULL);
                let is_blocked = over > 0.0 && load.preempted_requests() > 0;
                if is_blocked { 1.0 + f64::from(reported.waiting) } else { over.max(0.0) }
            });
            wait + prefill * own
                + self.delay * behind
                + self.step * own * f64::from(load.unbegun_requests)
                + self.decode * (slowed_by_decodes + slows_decodes)
                + self.full * for_blocks
        }
    }
}

/// The share of its time that the fleet gives to prefill and to what decodes attend to: what is left grows with neither.
fn busy_share(view: &View<'_>) -> f64 {
    let mean = |of: fn(&Load) -> f64| {
        view.candidates.iter().map(|candidate| of(&candidate.load)).sum::<f64>() / view.candidates.len() as f64
    };
    let prefill = mean(|load| load.busy_share).min(1.0);
    let attending = view.decode_context_seconds * mean(|load| load.context_tokens as f64);
    let decodes = attending / (attending + view.decode_step_seconds).max(f64::MIN_POSITIVE);
    1.0 - (1.0 - prefill) * (1.0 - decodes)
}

/// Seconds to prefill what is not cached, where what is believed to be cached counts as far as it can be believed.
fn own_seconds(candidate: &Candidate) -> f64 {
    let trust = match candidate.knowledge {
        Knowledge::Exact => 1.0,
        Knowledge::Degraded => 0.9,
        Knowledge::Approximate | Knowledge::Blind => 0.7,
    };
    trust * candidate.prefill_seconds + (1.0 - trust) * candidate.cold_prefill_seconds
}

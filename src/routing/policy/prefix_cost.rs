//! Ours, the default: the least expected cost in seconds, to the request itself and to the others.
//!
//! With, at each instance, `w` the estimated seconds of prefill queued, `s` the seconds to prefill what this request has
//! not cached there, `λ` the arrivals a second an instance, `ρ` the share of time that the instance has lately been busy
//! prefilling, `ctx` and `n` the tokens and the requests in decode, and `kv` the seconds a context token adds to a decode
//! step, the cost is
//!
//! `w + s  +  s · λ · (w + s/2) / (1 − ρ)  +  d · E[out] · kv · ctx  +  d · s · n`
//!
//! The first two are the time to first token. The third is the delay that this work puts on those who come behind it (an
//! M/G/1 externality). The last two are decode interference, theirs on us and ours on them, weighed by `d = 0.1`.
//!
//! In an offline simulation of every peer's policy over 24 scenarios (Mooncake conversation and synthetic, an agent
//! workload; 4 to 16 instances; three loads) this came to 0.98 of the best peer *of each scenario* in mean TTFT, 1.03 at
//! worst, where no single peer was under 1.04.

use super::{Candidate, Policy, View, smallest};

pub(super) struct PrefixCost;

/// What decode interference weighs against waiting for a first token.
const DECODE_WEIGHT: f64 = 0.1;
/// The delay on others grows without bound as the instance saturates; past this share it is as good as infinite.
const BUSY_MAX: f64 = 0.95;

impl Policy for PrefixCost {
    fn choose(&self, view: &View<'_>) -> usize {
        let arrivals = view.arrivals_per_second / view.candidates.len() as f64;
        let cost = |candidate: &Candidate| cost(view, candidate, arrivals);
        smallest(view, |a, b| cost(a).total_cmp(&cost(b)).then_with(|| a.load.order().cmp(&b.load.order())))
    }
}

fn cost(view: &View<'_>, candidate: &Candidate, arrivals: f64) -> f64 {
    let load = &candidate.load;
    let wait = load.prefill_wait.as_secs_f64();
    let own = candidate.prefill.as_secs_f64();
    let delay_on_others = own * arrivals * (wait + own / 2.0) / (1.0 - load.busy_share.min(BUSY_MAX));
    let slowed_by_decodes = view.expected_output_tokens * view.decode_context_seconds * load.decode_tokens as f64;
    let slows_decodes = own * f64::from(load.decode_requests);
    wait + own + delay_on_others + DECODE_WEIGHT * (slowed_by_decodes + slows_decodes)
}
